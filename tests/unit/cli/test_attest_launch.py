from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.vmsa import encode_vmsa
from sevkit.attest.checks import SEV_LAUNCH
from sevkit.cli.main import main
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.launch_digest import (
    compute_sev_digest,
    compute_sev_es_digest,
    compute_sev_es_digest_of_pages,
)
from sevkit.measure.launch_measurement import compute_launch_measurement
from sevkit.measure.reference import ReferenceSet, encode_reference_set
from sevkit.measure.sweep import Cpu, Request, compute_references
from sevkit.measure.terms import Era, Mode, Vmm
from sevkit.measure.vcpu import Registers
from sevkit.secret import Secret
from sevkit.testing.firmware import FirmwareImage, encode_firmware

if TYPE_CHECKING:
    from pathlib import Path

FIRMWARE = encode_firmware(FirmwareImage())
OTHER = encode_firmware(FirmwareImage(filler=0))
TIK = b"FEDCBA9876543210"
MILAN = "--vcpu-type=EPYC-Milan"
LEVEL = ["--api-major=1", "--api-minor=55", "--build-id=21"]


def es_digest(vcpus: int = 4, era: Era = Era.INIT, signature: int = 0xA00F11) -> bytes:
    return compute_sev_es_digest(FIRMWARE, Registers(signature, 0, Vmm.QEMU, era), vcpus)


def measurement(digest: bytes, policy: int) -> str:
    mnonce = bytes(range(16))
    measure = compute_launch_measurement(
        Secret(TIK),
        api_major=1,
        api_minor=55,
        build_id=21,
        policy=policy,
        digest=digest,
        mnonce=mnonce,
    )
    return base64.b64encode(measure + mnonce).decode()


class Owner:
    """The owner's folder: firmware and TIK; and what the host reports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.firmware = self.write("OVMF.fd", FIRMWARE)
        self.tik = self.write("tik.bin", TIK)

    def write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        return str(path)

    def info(self, digest: bytes, signed: int, **changes: object) -> str:
        document: dict[str, object] = {
            "measurement": measurement(digest, signed),
            "apiMajor": 1,
            "apiMinor": 55,
            "buildID": 21,
            "policy": signed,
            "loaderSHA": hashlib.sha256(FIRMWARE).hexdigest(),
        }
        return self.write("info.json", json.dumps(document | changes).encode())

    def attest(self, *arguments: str) -> int:
        return main(
            [
                "attest",
                "launch",
                f"--tik={self.tik}",
                f"--firmware={self.firmware}",
                "--no-explain",
                *arguments,
            ]
        )


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    return Owner(tmp_path)


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    document = json.loads(capsys.readouterr().out)
    assert [row["check"] for row in document["findings"]] == [row.name for row in SEV_LAUNCH]
    return {row["check"]: row for row in document["findings"]}


def test_a_sev_launch_is_accepted(owner: Owner) -> None:
    reported = measurement(compute_sev_digest(FIRMWARE), 1)
    assert owner.attest(f"--measurement={reported}", "--guest-policy=1", *LEVEL) == 0


@pytest.mark.parametrize("era", list(Era))
def test_a_sev_es_launch_is_accepted_in_either_era_and_says_which(
    owner: Owner, era: Era, capsys: pytest.CaptureFixture[str]
) -> None:
    info = owner.info(es_digest(era=era), 5)
    options = ["--guest-policy=0x5", "--vcpus=4", MILAN, "--output=json"]
    assert owner.attest(f"--info={info}", *options) == 0
    found = findings(capsys)
    assert found["launch.measurement"]["detail"].endswith(f"EPYC-Milan, {era.value}")
    assert found["coverage.vcpu-state"]["outcome"] == "pass"
    assert found["coverage.uefi-variables"]["outcome"] == "warn"


def test_a_host_cpu_is_measured_by_its_signature(owner: Owner) -> None:
    info = owner.info(es_digest(signature=0xAA0F02), 5)
    options = [f"--info={info}", "--guest-policy=5", "--vcpus=4"]
    assert owner.attest(*options, "--vcpu-sig=0xaa0f02") == 0
    assert owner.attest(*options, "--vcpu-sig=aa0f01") == 1


def test_features_of_an_snp_guest_are_not_measured(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--info={owner.info(es_digest(), 5)}", "--guest-policy=5", "--vcpus=4", MILAN]
    assert owner.attest(*options, "--guest-features=0x21") == 0
    assert "not part of this sev-es digest" in capsys.readouterr().err
    assert owner.attest(*options, "--guest-features=0x20") == 1


@pytest.mark.parametrize("cpu", [["--vcpus=4"], [MILAN], ["--vcpus=4", MILAN]])
def test_vcpus_are_not_expected_of_a_launch_whose_policy_is_plain_sev(
    owner: Owner, cpu: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    info = owner.info(compute_sev_digest(FIRMWARE), 1)
    assert owner.attest(f"--info={info}", "--guest-policy=1", *cpu, "--output=json") == 0
    assert "covers no vCPUs" in capsys.readouterr().err
    info = owner.info(compute_sev_digest(FIRMWARE), 5)
    assert owner.attest(f"--info={info}", "--guest-policy=5", "--vcpus=4", MILAN) == 1


def test_a_measured_boot_covers_the_kernel(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel, initrd = owner.write("vmlinuz", b"kernel"), owner.write("initrd", b"initrd")
    hashes = compute_kernel_hashes(b"kernel", initrd=b"initrd", cmdline="quiet")
    info = owner.info(compute_sev_digest(FIRMWARE, hashes), 1)
    options = [f"--info={info}", "--guest-policy=1", f"--kernel={kernel}", f"--initrd={initrd}"]
    assert owner.attest(*options, "--cmdline=quiet", "--output=json") == 0
    assert findings(capsys)["coverage.kernel"]["outcome"] == "pass"
    assert owner.attest(*options, "--cmdline=quiet ") == 1
    assert owner.attest(*options[:2]) == 1


def test_the_owners_own_vmsa_pages_are_measured(owner: Owner) -> None:
    pages = [encode_vmsa({"rip": n}) for n in (1, 2)]
    names = [f"--vmsa={owner.write(f'vmsa{n}', page)}" for n, page in enumerate(pages)]
    two = compute_sev_es_digest_of_pages(FIRMWARE, tuple(pages))
    info = owner.info(two, 5)
    options = [f"--info={info}", "--guest-policy=5", *names]
    assert owner.attest(*options) == 0
    assert owner.attest(*options, "--vcpus=2") == 0
    five = compute_sev_es_digest_of_pages(FIRMWARE, (pages[0], *pages[1:] * 4))
    owner.info(five, 5)
    assert owner.attest(*options, "--vcpus=5") == 0
    assert owner.attest(*options, "--vcpus=4") == 1


def test_a_mismatch_is_not_authentic_and_explained(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    info = owner.info(es_digest(1), 5)
    options = [f"--info={info}", "--guest-policy=5", MILAN, "--explain"]
    assert owner.attest(*options, "--vcpus=4", "--output=json") == 1
    failed = findings(capsys)["launch.measurement"]
    assert es_digest(4).hex() in failed["expected"]
    assert "it fits SEV-ES with 1 vCPU, CPU 0xa00f11" in failed["detail"]
    assert "maxSockets" in failed["detail"]


def test_another_owners_key_confirms_nothing(owner: Owner) -> None:
    info = owner.info(es_digest(), 5)
    owner.write("tik.bin", TIK[::-1])
    assert owner.attest(f"--info={info}", "--guest-policy=5", "--vcpus=4", MILAN) == 1


def test_a_policy_under_which_the_host_can_debug_is_not_acceptable(owner: Owner) -> None:
    info = owner.info(compute_sev_digest(FIRMWARE), 0)
    options = [f"--info={info}", "--guest-policy=0"]
    assert owner.attest(*options) == 3
    assert owner.attest(*options, "--allow-debug") == 0


def test_a_policy_that_the_host_states_differently_is_not_acceptable(owner: Owner) -> None:
    info = owner.info(compute_sev_digest(FIRMWARE), 1, policy=3)
    assert owner.attest(f"--info={info}", "--guest-policy=1") == 3


def test_authenticity_comes_before_acceptance(owner: Owner) -> None:
    info = owner.info(b"x" * 32, 0, policy=3)
    assert owner.attest(f"--info={info}", "--guest-policy=0") == 1


def test_an_es_launch_under_a_policy_without_es_is_not_acceptable(owner: Owner) -> None:
    info = owner.info(es_digest(), 1)
    assert owner.attest(f"--info={info}", "--guest-policy=1", "--vcpus=4", MILAN) == 3


@pytest.mark.parametrize(
    ("minimum", "code"),
    [("1.55", 0), ("1.55.21", 0), ("0.99.99", 0), ("1.55.22", 3), ("1.56", 3), ("2.0", 3)],
)
def test_a_minimum_of_firmware_is_demanded(owner: Owner, minimum: str, code: int) -> None:
    info = owner.info(compute_sev_digest(FIRMWARE), 1)
    options = [f"--info={info}", "--guest-policy=1", f"--min-firmware={minimum}"]
    assert owner.attest(*options) == code


def test_absent_numbers_of_kubevirt_are_zero(owner: Owner) -> None:
    digest = compute_sev_digest(FIRMWARE)
    mnonce = bytes(16)
    measure = compute_launch_measurement(
        Secret(TIK), api_major=0, api_minor=0, build_id=0, policy=1, digest=digest, mnonce=mnonce
    )
    text = base64.b64encode(measure + mnonce).decode()
    info = owner.write("info.json", json.dumps({"measurement": text, "policy": 1}).encode())
    assert owner.attest(f"--info={info}", "--guest-policy=1") == 0


def test_the_hosts_loader_hash_saves_no_other_firmware(owner: Owner) -> None:
    info = owner.info(compute_sev_digest(FIRMWARE), 1)
    owner.write("OVMF.fd", encode_firmware(FirmwareImage(filler=1)))
    assert owner.attest(f"--info={info}", "--guest-policy=1") == 1


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_tik_of_another_size_is_malformed(
    owner: Owner, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    owner.write("tik.bin", b"k" * size)
    info = owner.info(compute_sev_digest(FIRMWARE), 1)
    assert owner.attest(f"--info={info}", "--guest-policy=1") == 65
    assert f"got {size}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(bytes(47)).decode(),
        base64.b64encode(bytes(49)).decode(),
        base64.b64encode(bytes(32)).decode(),
        base64.urlsafe_b64encode(b"\xff" * 48).decode(),
        "A" * 32 + " " + "A" * 32,
        "A" * 64 + "\n",
        "",
    ],
)
def test_a_measurement_of_another_size_or_alphabet_is_malformed(owner: Owner, text: str) -> None:
    assert owner.attest(f"--measurement={text}", "--guest-policy=1", *LEVEL) == 65


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"measurement": 1}', b'{"policy": 1, "policy": 1}']
)
def test_a_document_without_a_measurement_is_malformed(owner: Owner, document: bytes) -> None:
    info = owner.write("info.json", document)
    assert owner.attest(f"--info={info}", "--guest-policy=1") == 65


def test_a_firmware_that_is_none_is_malformed(owner: Owner) -> None:
    info = owner.info(compute_sev_digest(FIRMWARE), 1)
    owner.write("OVMF.fd", FIRMWARE[:-1])
    assert owner.attest(f"--info={info}", "--guest-policy=1") == 65


@pytest.mark.parametrize("size", [0, 4095, 4097])
def test_a_vmsa_of_another_size_is_malformed(owner: Owner, size: int) -> None:
    info = owner.info(es_digest(), 5)
    page = owner.write("vmsa", bytes(size))
    assert owner.attest(f"--info={info}", "--guest-policy=5", f"--vmsa={page}") == 65


@pytest.mark.parametrize(
    "arguments",
    [
        ["--guest-policy=1"],
        ["--guest-policy=1", "--measurement=x", "--info=x"],
        ["--guest-policy=1", "--measurement=x"],
        ["--guest-policy=1", "--measurement=x", "--api-major=1", "--api-minor=1"],
        ["--guest-policy=1", "--info=x", "--api-major=1"],
        ["--guest-policy=1", "--measurement=x", "--api-major=256", *LEVEL[1:]],
        ["--guest-policy=1", "--measurement=x", "--api-major=-1", *LEVEL[1:]],
        ["--info=x"],
        ["--guest-policy=0x45", "--info=x"],
        ["--guest-policy=five", "--info=x"],
        ["--guest-policy=1", "--info=x", "--initrd=x"],
        ["--guest-policy=1", "--info=x", "--cmdline=x"],
        ["--guest-policy=1", "--info=x", "--min-firmware=1"],
        ["--guest-policy=1", "--info=x", "--min-firmware=1.256"],
        ["--guest-policy=1", "--info=x", "--min-firmware=1.2.3.4"],
        ["--guest-policy=1", "--info=-", "--kernel=-"],
        ["--guest-policy=1", "--info=x", "--guest-features=1"],
        ["--guest-policy=5", "--info=x"],
        ["--guest-policy=5", "--info=x", "--vcpus=4"],
        ["--guest-policy=5", "--info=x", MILAN],
        ["--guest-policy=5", "--info=x", "--vcpus=0", MILAN],
        ["--guest-policy=5", "--info=x", "--vcpus=-1", MILAN],
        ["--guest-policy=5", "--info=x", "--vcpus=513", MILAN],
        ["--guest-policy=5", "--info=x", "--vcpus=99999999999", MILAN],
        ["--guest-policy=5", "--info=x", "--vcpus=4", "--vcpu-type=EPYC-Zen"],
        ["--guest-policy=5", "--info=x", "--vcpus=4", MILAN, "--vcpu-sig=0"],
        ["--guest-policy=5", "--info=x", "--vmsa=x", MILAN],
        ["--guest-policy=5", "--info=x", "--vmsa=x", "--vcpus=2"],
        ["--guest-policy=5", "--info=x", "--vmsa=x", "--vmsa=x", "--vcpus=1"],
        ["--guest-policy=5", "--info=x", "--vmsa=x", "--guest-features=1"],
        ["--guest-policy=5", "--info=x", "--reference=x", "--vcpus=4"],
        ["--guest-policy=5", "--info=x", "--reference=x", MILAN],
        ["--guest-policy=5", "--info=x", "--reference=x", "--vcpu-sig=0"],
        ["--guest-policy=5", "--info=x", "--reference=x", "--guest-features=0"],
        ["--guest-policy=5", "--info=x", "--reference=x", "--vmsa=x"],
        ["--guest-policy=5", "--info=x", "--reference=x", "--kernel=x"],
        ["--guest-policy=5", "--info=-", "--reference=-"],
    ],
)
def test_options_that_do_not_go_together_are_usage(owner: Owner, arguments: list[str]) -> None:
    assert owner.attest(*arguments) == 2


def test_a_missing_file_is_usage(owner: Owner) -> None:
    info = owner.info(compute_sev_digest(FIRMWARE), 1)
    missing = f"--kernel={owner.folder / 'missing'}"
    assert owner.attest(f"--info={info}", "--guest-policy=1", missing) == 2


def test_an_exposed_tik_is_warned_about(owner: Owner, capsys: pytest.CaptureFixture[str]) -> None:
    (owner.folder / "tik.bin").chmod(0o640)
    info = owner.info(compute_sev_digest(FIRMWARE), 1)
    assert owner.attest(f"--info={info}", "--guest-policy=1") == 0
    assert "readable by others" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_tik_is_never_printed(
    owner: Owner, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    info = owner.info(compute_sev_digest(FIRMWARE), 1)
    for policy in ("1", "3"):
        owner.attest(f"--info={info}", f"--guest-policy={policy}", "--verbose", f"--output={form}")
    seen = "".join(capsys.readouterr())
    for shape in (TIK.decode(), TIK.hex(), base64.b64encode(TIK).decode()):
        assert shape not in seen


def reference_set(owner: Owner, *requests: Request, policy: str = "") -> str:
    """Write what ``sevkit measure`` would, for a guest policy if one is named."""
    named: dict[str, str | int] = {"guest_policy": policy} if policy else {}
    entries = [
        replace(entry, parameters={**entry.parameters, **named})
        for request in requests
        for entry in compute_references(request).entries
    ]
    text = encode_reference_set(ReferenceSet(tuple(entries)))
    return f"--reference={owner.write('set.json', text.encode())}"


SEV_REQUEST = Request(Mode.SEV, FIRMWARE)
ES_REQUEST = Request(Mode.SEV_ES, FIRMWARE, 2, 4, (Cpu("EPYC-Milan", 0xA00F11),))


def attest_without_firmware(owner: Owner, *arguments: str) -> int:
    return main(["attest", "launch", f"--tik={owner.tik}", "--output=json", *arguments])


def test_a_reference_set_stands_for_what_describes_the_guest(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    known = reference_set(owner, SEV_REQUEST, ES_REQUEST)
    info = owner.info(es_digest(3, Era.INIT2), 5)
    options = [f"--info={info}", "--guest-policy=5", known]
    assert attest_without_firmware(owner, *options) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["evidence"]["matched"] == "3 vCPUs, EPYC-Milan, init2"
    assert document["evidence"]["parameters"]["era"] == "init2"
    assert owner.attest(*options) == 0
    info = owner.info(compute_sev_digest(FIRMWARE), 1)
    assert attest_without_firmware(owner, f"--info={info}", "--guest-policy=1", known) == 0


@pytest.mark.parametrize(
    ("digest", "signed"),
    [
        (es_digest(5), 5),
        (es_digest(3, signature=0x800F12), 5),
        (compute_sev_es_digest(OTHER, Registers(0xA00F11, 0), 3), 5),
        (es_digest(3), 7),
        (bytes(32), 5),
    ],
)
def test_a_launch_that_is_not_in_the_set_is_refused(
    owner: Owner, digest: bytes, signed: int
) -> None:
    info = owner.info(digest, signed, policy=5)
    options = [f"--info={info}", "--guest-policy=5", reference_set(owner, ES_REQUEST)]
    assert attest_without_firmware(owner, *options) == 1
    assert owner.attest(*options) == 1


def test_a_guest_of_the_other_mode_is_refused_by_name(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    known = reference_set(owner, SEV_REQUEST, ES_REQUEST)
    for policy, digest in ((1, es_digest(3)), (5, compute_sev_digest(FIRMWARE))):
        info = owner.info(digest, policy)
        options = [f"--info={info}", f"--guest-policy={policy}", known]
        assert attest_without_firmware(owner, *options) == 3
        assert findings(capsys)["launch.policy-es"]["outcome"] == "fail"


def test_a_set_for_another_guest_policy_or_mode_is_refused(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    info = owner.info(es_digest(3), 5)
    options = [f"--info={info}", "--guest-policy=5"]
    assert owner.attest(*options, reference_set(owner, ES_REQUEST, policy="0x5")) == 0
    capsys.readouterr()
    assert owner.attest(*options, reference_set(owner, ES_REQUEST, policy="0xd")) == 2
    assert "its digests for sev-es are for guest policy 0xd" in capsys.readouterr().err
    assert owner.attest(*options, reference_set(owner, SEV_REQUEST)) == 2
    snp = Request(Mode.SNP, FIRMWARE, cpus=ES_REQUEST.cpus, sev_features=1)
    assert owner.attest(*options, reference_set(owner, snp)) == 2
    assert owner.attest(*options, f"--reference={owner.write('bad.json', b'{}')}") == 65
    assert owner.attest(*options, f"--reference={owner.folder / 'none'}") == 2


def test_a_firmware_that_the_set_was_not_made_from_is_refused(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    info = owner.info(es_digest(3), 5)
    known = reference_set(owner, ES_REQUEST)
    options = [f"--info={info}", "--guest-policy=5", known]
    other = f"--firmware={owner.write('other.fd', OTHER)}"
    assert attest_without_firmware(owner, *options, other) == 2
    assert "is not what the reference set was made from" in capsys.readouterr().err


def test_a_mismatch_with_a_set_is_explained_with_the_firmware(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    info = owner.info(es_digest(1), 5)
    options = [f"--info={info}", "--guest-policy=5", reference_set(owner, ES_REQUEST)]
    assert attest_without_firmware(owner, *options, f"--firmware={owner.firmware}") == 1
    detail = findings(capsys)["launch.measurement"]["detail"]
    assert "it fits SEV-ES with 1 vCPU" in detail
    assert "maxSockets" in detail


def test_a_mismatch_is_explained_with_the_kernel_of_the_set(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    hashes = compute_kernel_hashes(b"kernel")
    known = reference_set(owner, replace(ES_REQUEST, hashes=hashes))
    digest = compute_sev_es_digest(FIRMWARE, Registers(0xA00F11, 0, era=Era.INIT), 1, hashes)
    options = [f"--info={owner.info(digest, 5)}", "--guest-policy=5", known]
    assert attest_without_firmware(owner, *options, f"--firmware={owner.firmware}") == 1
    detail = findings(capsys)["launch.measurement"]["detail"]
    assert "it fits SEV-ES with 1 vCPU" in detail
    assert "without kernel hashes" not in detail


def test_the_hosts_loader_is_held_against_the_firmware_of_the_set(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    info = owner.info(es_digest(3), 5, loaderSHA="00" * 32)
    options = [f"--info={info}", "--guest-policy=5", reference_set(owner, ES_REQUEST)]
    assert attest_without_firmware(owner, *options) == 0
    found = findings(capsys)["launch.loader"]
    assert (found["outcome"], found["expected"]) == ("warn", hashlib.sha256(FIRMWARE).hexdigest())


def test_without_a_firmware_and_a_set_nothing_is_expected(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    info = owner.info(es_digest(3), 5)
    assert attest_without_firmware(owner, f"--info={info}", "--guest-policy=5") == 2
    assert "give --firmware, or --reference" in capsys.readouterr().out
