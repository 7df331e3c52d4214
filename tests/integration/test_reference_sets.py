"""Reference sets from ``measure --vmi``, held against guests that simulated processors launched."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.abi.product import Product
from sevkit.abi.sevca import parse_ca_chain
from sevkit.abi.sevcert import SIZE
from sevkit.abi.sevchain import parse_chain_export
from sevkit.attest.sev_platform import PlatformExpectations, judge_platform
from sevkit.attest.sev_session import new_session
from sevkit.cli.main import main
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.reference import parse_reference_set
from sevkit.measure.terms import Era, Mode
from sevkit.measure.vcpu import CPU_MODELS, Registers
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import make_roots
from sevkit.testing.snp_guest import GuestChannel
from sevkit.testing.virtual_machine import Machine, SimulatedKvm

if TYPE_CHECKING:
    from pathlib import Path

    from sevkit.testing.snp_report import SimulatedChip

OVMF: Final = encode_firmware(FirmwareImage())
OTHER: Final = encode_firmware(FirmwareImage(filler=0))
NONCE: Final = bytes(range(64))
RELEASE: Final = "v1.9.0"
MODELS: Final = ("EPYC-Milan", "EPYC-Genoa")
POLICIES: Final = {Mode.SEV: 1, Mode.SEV_ES: 5}
SECURITY: Final[dict[Mode, dict[str, Any]]] = {
    Mode.SEV: {"sev": {"attestation": {}}},
    Mode.SEV_ES: {"sev": {"policy": {"encryptedState": True}, "attestation": {}}},
    Mode.SNP: {"snp": {}},
}


@dataclass
class Site:
    """One Milan host, and the owner's folder with the sets that he made."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    processor: SecureProcessor
    kvm: SimulatedKvm
    ask_ark: bytes
    root: bytes

    def write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        return str(path)

    def measure(self, mode: Mode, *options: str, vcpus: str = "2-3") -> str:
        """Return the file with the set for a VMI whose hosts are of two generations."""
        domain = {"cpu": {"cores": 2, "model": "host-model"}, "launchSecurity": SECURITY[mode]}
        vmi = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": "ledger"},
            "spec": {"domain": domain},
        }
        words = ["measure", "--vmi", self.write("vmi.yaml", json.dumps(vmi).encode())]
        words += ["--firmware", self.write("OVMF.amdsev.fd", OVMF), "--vcpus", vcpus]
        words += [word for model in MODELS for word in ("--vcpu-type", model)]
        self.capsys.readouterr()
        words += ["--kubevirt-version", RELEASE, "--output", "json", *options]
        assert main(words) == 0
        made = self.capsys.readouterr().out.encode()
        return self.write(f"{mode}.json", made)

    def report(self, machine: Machine, policy: int = 0x30000) -> tuple[int, dict[str, Any]]:
        """Return the verdict on an SNP guest's report over our nonce, by the set in snp.json."""
        with self.kvm.launch_snp(machine, policy) as guest:
            report = GuestChannel(self.kvm, guest).get_report(NONCE)
        data = report + self.processor.messages.cert_table(None)
        roots = self.processor.identity.snp_roots
        assert roots is not None
        ark = encode_pem_certificate(roots.ark)
        words = ["attest", "report", self.write("report.bin", data), "--offline"]
        words += ["--root", self.write("ark.pem", ark)]
        words += ["--chain", self.write("chain.pem", encode_pem_certificate(roots.ask) + ark)]
        words += ["--report-data", NONCE.hex(), "--reference", str(self.folder / "snp.json")]
        return self.verdict([*words, "--cache", str(self.folder / "cache")])

    def launch(self, machine: Machine, policy: int, reference: str) -> tuple[int, dict[str, Any]]:
        """Return the verdict on a SEV or SEV-ES launch in a session of the owner's."""
        pdh, exported = self.processor.sev.pdh_cert_export()
        chain, _ = parse_chain_export(
            pdh + exported[: 2 * SIZE] + self.processor.identity.signed_cek
        )
        _, platform = judge_platform(
            chain,
            PlatformExpectations(),
            at=datetime.now(UTC),
            ca=parse_ca_chain(self.ask_ark),
            roots=(self.root,),
        )
        assert platform is not None
        session = new_session(platform, policy)
        with self.kvm.launch_sev(
            machine, policy, session=session.blob.encode(), godh=session.godh
        ) as guest:
            measurement = base64.b64encode(guest.measurement).decode()
        version = self.processor.core.firmware.version
        info = {
            "measurement": measurement,
            "apiMajor": version.major,
            "apiMinor": version.minor,
            "buildID": version.build,
            "policy": policy,
        }
        words = ["attest", "launch", "--info", self.write("m.json", json.dumps(info).encode())]
        words += ["--tik", self.write("tik.bin", session.keys.tik.reveal())]
        return self.verdict([*words, "--guest-policy", str(policy), "--reference", reference])

    def verdict(self, words: list[str]) -> tuple[int, dict[str, Any]]:
        self.capsys.readouterr()
        code = main([*words, "--output", "json"])
        return code, json.loads(self.capsys.readouterr().out)


@pytest.fixture
def site(milan_chip: SimulatedChip, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    roots = make_roots()
    processor = SecureProcessor(ChipIdentity(Product.MILAN, roots, milan_chip.roots))
    return Site(tmp_path, capsys, processor, SimulatedKvm(processor), roots.ask_ark, roots.root)


def failed(document: dict[str, Any]) -> set[str]:
    return {row["check"] for row in document["findings"] if row["outcome"] == "fail"}


def machine(mode: Mode, vcpus: int = 2, model: str = "EPYC-Milan", **more: Any) -> Machine:  # noqa: ANN401  # fields
    features = 1 if mode is Mode.SNP else 0
    era = Era.INIT if mode is Mode.SEV_ES else Era.INIT2
    return Machine(OVMF, vcpus, Registers(CPU_MODELS[model], features, era=era), **more)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("vcpus", [2, 3])
def test_an_snp_guest_of_the_set_is_accepted_and_named(site: Site, vcpus: int, model: str) -> None:
    site.measure(Mode.SNP)
    code, document = site.report(machine(Mode.SNP, vcpus, model))
    assert (code, document["accepted"]) == (0, True)
    evidence = document["evidence"]
    assert evidence["matched"] == f"{vcpus} vCPUs, {model}, KubeVirt {RELEASE}"
    assert evidence["parameters"]["kubevirt"] == RELEASE
    assert evidence["parameters"]["firmware_file"] == "OVMF.amdsev.fd"


@pytest.mark.parametrize(
    ("guest", "policy", "checks"),
    [
        (replace(machine(Mode.SNP), firmware=OTHER), 0x30000, {"report.measurement"}),
        (machine(Mode.SNP, 1), 0x30000, {"report.measurement"}),
        (machine(Mode.SNP, 4), 0x30000, {"report.measurement"}),
        (machine(Mode.SNP, model="EPYC-Turin"), 0x30000, {"report.measurement"}),
        (machine(Mode.SNP, hashes=compute_kernel_hashes(b"k")), 0x30000, {"report.measurement"}),
        (machine(Mode.SNP), 0x130000, {"policy.reference"}),
        (machine(Mode.SNP), 0xB0000, {"policy.reference", "policy.debug"}),
    ],
    ids=["firmware", "fewer-vcpus", "more-vcpus", "cpu", "kernel", "single-socket", "debug"],
)
def test_another_snp_guest_is_not(
    site: Site, guest: Machine, policy: int, checks: set[str]
) -> None:
    site.measure(Mode.SNP)
    code, document = site.report(guest, policy)
    assert (code, failed(document)) == (3, checks)


@pytest.mark.parametrize("era", list(Era))
def test_a_sev_es_launch_of_the_set_is_accepted_in_either_era(site: Site, era: Era) -> None:
    reference = site.measure(Mode.SEV_ES)
    guest = Machine(OVMF, 3, Registers(CPU_MODELS["EPYC-Genoa"], 0, era=era))
    code, document = site.launch(guest, 5, reference)
    assert code == 0
    assert document["evidence"]["matched"] == f"3 vCPUs, EPYC-Genoa, {era}, KubeVirt {RELEASE}"
    only = site.measure(Mode.SEV_ES, "--era", "init")
    code, _ = site.launch(guest, 5, only)
    assert code == (0 if era is Era.INIT else 1)


@pytest.mark.parametrize("mode", POLICIES)
def test_a_launch_of_the_set_is_accepted_and_another_is_not(site: Site, mode: Mode) -> None:
    reference, policy = site.measure(mode), POLICIES[mode]
    assert site.launch(machine(mode), policy, reference)[0] == 0
    code, document = site.launch(replace(machine(mode), firmware=OTHER), policy, reference)
    assert (code, failed(document)) == (1, {"launch.measurement"})
    more = site.launch(machine(mode, 4), policy, reference)[0]
    assert more == (1 if mode is Mode.SEV_ES else 0)  # plain SEV measures no vCPU


def test_one_set_serves_every_mode_and_each_guest_is_held_to_its_own(site: Site) -> None:
    sev = site.measure(Mode.SEV)
    es = site.measure(Mode.SEV_ES, "--extend", sev)
    both = site.measure(Mode.SNP, "--extend", es)
    assert parse_reference_set((site.folder / "snp.json").read_bytes()).modes == tuple(Mode)
    assert site.report(machine(Mode.SNP))[0] == 0
    for mode, policy in POLICIES.items():
        assert site.launch(machine(mode), policy, both)[0] == 0
    # A set without this guest's mode expects nothing of it, and says so.
    es = site.measure(Mode.SEV_ES)
    for mode, reference in ((Mode.SEV, es), (Mode.SEV_ES, sev)):
        code, document = site.launch(machine(mode), POLICIES[mode], reference)
        assert (code, "no launch digest" in json.dumps(document)) == (2, True)


def test_a_set_in_which_one_digit_was_changed_accepts_nothing(site: Site) -> None:
    path = site.folder / "snp.json"
    site.measure(Mode.SNP, vcpus="2")
    document = json.loads(path.read_bytes())
    for row in document["digests"]:
        row["digest"] = f"{int(row['digest'][0], 16) ^ 1:x}{row['digest'][1:]}"
    path.write_text(json.dumps(document))
    assert site.report(machine(Mode.SNP))[0] == 3
