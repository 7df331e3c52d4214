"""Launch digests and measurements that others computed, through the library and the command."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.abi.vmsa import encode_vmsa, parse_vmsa
from sevkit.cli.main import main
from sevkit.errors import FormatError
from sevkit.measure.kernel_hashes import KernelHashes, compute_kernel_hashes
from sevkit.measure.launch_digest import (
    compute_firmware_hash,
    compute_sev_digest,
    compute_sev_es_digest,
    compute_sev_es_digest_of_pages,
    compute_snp_digest,
)
from sevkit.measure.launch_measurement import (
    compute_launch_measurement,
    parse_launch_measurement_base64,
)
from sevkit.measure.reference import parse_reference_set
from sevkit.measure.terms import Era, Mode, Vmm
from sevkit.measure.vcpu import BSP_EIP, Registers, encode_vcpu, signature_of_model
from sevkit.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

_MODES: Final = {"SEV": Mode.SEV, "SEV_ES": Mode.SEV_ES, "SEV_SNP": Mode.SNP}


@pytest.fixture(scope="session")
def known(corpus: Path) -> Path:
    return corpus / "attestation"


@pytest.fixture(scope="session")
def firmware(known: Path) -> Path:
    return known / "firmware"


def load(path: Path) -> Any:  # noqa: ANN401  # any JSON
    return json.loads(path.read_text())


def hashes_of(case: dict[str, Any]) -> KernelHashes | None:
    """The corpus writes ``null`` in quotes for /dev/null, an empty file that is measured."""
    if case["kernel"] is None:
        return None
    initrd = None if case["initrd"] is None else b""
    return compute_kernel_hashes(b"", initrd=initrd, cmdline=case["append"])


def test_every_known_launch_digest_is_reproduced(known: Path, firmware: Path) -> None:
    cases = load(known / "known-launch-digests.json")["cases"]
    assert len(cases) == 19
    for case in cases:
        data = (firmware / case["ovmf"]).read_bytes()
        hashes = hashes_of(case)
        signature = signature_of_model(case["cpu"]) if case["cpu"] else 0
        features = int(case["guest_features"], 16)
        mode = _MODES[case["mode"]]
        if mode is Mode.SEV:
            digest = compute_sev_digest(data, hashes)
        elif mode is Mode.SEV_ES:
            # The source's tool measures no features for SEV-ES, whatever it is given.
            digest = compute_sev_es_digest(data, Registers(signature, 0), case["vcpus"], hashes)
        else:
            registers = Registers(signature, features, Vmm(case["vmm"].lower()))
            digest = compute_snp_digest(data, registers, case["vcpus"], hashes)
        assert digest.hex() == case["launch_digest"], case["name"]


def boot_arguments(case: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for option in ("kernel", "initrd"):
        if case[option] is not None:
            found += [f"--{option}", "/dev/null"]
    if case["append"] is not None:
        found += ["--cmdline", case["append"]]
    return found


def test_every_known_launch_digest_comes_out_of_the_command(
    known: Path, firmware: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each case's fields become options as they are, also those that its mode does not measure."""
    for case in load(known / "known-launch-digests.json")["cases"]:
        mode = _MODES[case["mode"]]
        arguments = ["measure", "--mode", mode.value, "--firmware", str(firmware / case["ovmf"])]
        arguments += boot_arguments(case)
        arguments += ["--vcpus", str(case["vcpus"]), "--vmm", case["vmm"].lower()]
        arguments += ["--guest-features", case["guest_features"]]
        if case["cpu"]:
            arguments += ["--vcpu-type", case["cpu"]]
        if mode is Mode.SEV_ES:
            arguments += ["--era", "init2"]
        assert main(arguments) == 0
        assert capsys.readouterr().out == case["launch_digest"] + "\n", case["name"]


def test_every_known_launch_digest_is_in_the_reference_set_that_the_command_writes(
    known: Path, firmware: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in load(known / "known-launch-digests.json")["cases"]:
        mode, vmm = _MODES[case["mode"]], Vmm(case["vmm"].lower())
        arguments = ["measure", "--mode", mode.value, "--firmware", str(firmware / case["ovmf"])]
        arguments += [
            *boot_arguments(case),
            "--vcpus",
            f"1-{case['vcpus'] + 1}",
            "--vmm",
            vmm.value,
        ]
        arguments += ["--guest-features", case["guest_features"], "--output", "json"]
        if case["cpu"]:
            arguments += ["--vcpu-type", case["cpu"], "--vcpu-type", "EPYC-Turin"]
        assert main(arguments) == 0
        references = parse_reference_set(capsys.readouterr().out.encode())
        assert references.modes == (mode,)
        matched = references.matching(bytes.fromhex(case["launch_digest"]))
        assert len(matched) == 1, case["name"]
        found = matched[0].parameters
        if mode is not Mode.SEV:
            assert found["vcpus"] == case["vcpus"], case["name"]
            assert found["cpu"] == (case["cpu"] if vmm is Vmm.QEMU else "any CPU"), case["name"]
        assert found.get("era") == ("init2" if mode is Mode.SEV_ES else None)
        assert matched[0].covers_kernel is (case["kernel"] is not None)


def test_known_firmware_hashes_are_reproduced_and_can_be_given_back(
    known: Path, firmware: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = load(known / "known-launch-digests.json")
    for name, expected in document["ovmf_hash"].items():
        assert compute_firmware_hash((firmware / name).read_bytes()).hex() == expected
    (case,) = (c for c in document["cases"] if c["name"] == "snp_nokernel_0x21")
    arguments = ["measure", "--mode", "snp", "--firmware", str(firmware / case["ovmf"])]
    arguments += ["--vcpus", "1", "--vcpu-type", case["cpu"], "--guest-features", "0x21"]
    arguments += ["--firmware-hash", document["ovmf_hash"][case["ovmf"]]]
    assert main(arguments) == 0
    assert capsys.readouterr().out == case["launch_digest"] + "\n"


def test_known_errors_are_errors(known: Path, firmware: Path) -> None:
    errors = load(known / "known-launch-digests.json")["errors"]
    assert len(errors) == 2
    for case in errors:
        path = firmware / case["ovmf"]
        hashes = compute_kernel_hashes(b"")
        with pytest.raises(FormatError):
            compute_snp_digest(path.read_bytes(), Registers(0, 1), 1, hashes)
        with pytest.raises(FormatError):
            compute_sev_digest(path.read_bytes(), hashes)
        for mode in ("snp", "sev", "sev-es"):
            arguments = ["measure", "--mode", mode, "--firmware", str(path), "--vcpus", "1"]
            assert main([*arguments, "--vcpu-sig", "0", "--kernel", "/dev/null"]) == 65


def test_both_register_eras_are_reproduced(
    known: Path, firmware: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = load(known / "known-sev-es-both-vmsa.json")["cases"]
    assert len(cases) == 30
    for case in cases:
        era = Era.INIT2 if case["fpu_synced"] else Era.INIT
        path = firmware / case["ovmf"]
        registers = Registers(int(case["sig"], 16), 0, era=era)
        digest = compute_sev_es_digest(path.read_bytes(), registers, case["vcpus"])
        assert digest.hex() == case["launch_digest"]
        arguments = ["measure", "--mode", "sev-es", "--firmware", str(path)]
        arguments += ["--vcpus", str(case["vcpus"]), "--era", era.value]
        for cpu in (["--vcpu-type", case["cpu"]], ["--vcpu-sig", case["sig"]]):
            assert main([*arguments, *cpu]) == 0
            assert capsys.readouterr().out == case["launch_digest"] + "\n"


def test_known_save_areas_are_reproduced(known: Path, firmware: Path) -> None:
    registers = Registers(0xA00F11, 0, era=Era.INIT)
    pages = tuple((known / "vmsa" / f"vmsa{n}.bin").read_bytes() for n in (0, 1))
    assert pages == (encode_vcpu(registers, BSP_EIP), encode_vcpu(registers, 0x80B004))
    assert tuple(encode_vmsa(parse_vmsa(page).values) for page in pages) == pages
    data = (firmware / "ovmf_AmdSev_suffix.bin").read_bytes()
    own = compute_sev_es_digest_of_pages(data, pages)
    assert own == compute_sev_es_digest(data, registers, 2)


def test_the_measurement_of_real_firmware_is_reproduced(known: Path) -> None:
    row = load(known / "known-sev.json")["measure_hw"]
    major, minor = row["api"].split(".")
    found = compute_launch_measurement(
        Secret(bytes.fromhex(row["tik"])),
        api_major=int(major),
        api_minor=int(minor),
        build_id=row["build"],
        policy=row["policy"],
        digest=hashlib.sha256(b"").digest(),
        mnonce=bytes.fromhex(row["mnonce"]),
    )
    assert found.hex() == row["measure"]


def test_built_measurements_are_reproduced(known: Path, firmware: Path) -> None:
    rows = load(known / "known-sev.json")["measurement_build"]
    assert len(rows) == 3
    tik = Secret((firmware / "tik1.bin").read_bytes())
    for row in rows:
        if "launch_digest_b64" in row:
            digest = base64.b64decode(row["launch_digest_b64"])
        else:
            hashes = None
            if "kernel" in row:
                hashes = compute_kernel_hashes(
                    (firmware / row["kernel"]).read_bytes(),
                    initrd=(firmware / row["initrd"]).read_bytes(),
                    cmdline=row["cmdline"],
                )
            digest = compute_sev_digest((known / row["firmware"]).read_bytes(), hashes)
        major, minor = row["api"].split(".")
        expected = parse_launch_measurement_base64(row["out_b64"])
        assert base64.b64encode(expected.mnonce).decode() == row["nonce_b64"]
        found = compute_launch_measurement(
            tik,
            api_major=int(major),
            api_minor=int(minor),
            build_id=row["build"],
            policy=row["policy"],
            digest=digest,
            mnonce=expected.mnonce,
        )
        assert found == expected.measure
