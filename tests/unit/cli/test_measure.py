from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from typing import TYPE_CHECKING

import pytest

from sevkit.cli.main import main
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.launch_digest import (
    compute_firmware_hash,
    compute_sev_digest,
    compute_sev_es_digest,
    compute_snp_digest,
)
from sevkit.measure.ovmf import (
    FOOTER_GUID,
    HASH_TABLE,
    PAGE,
    RESET_BLOCK,
    SECRET_AREA,
    SEV_METADATA,
    Area,
    Section,
    SectionType,
)
from sevkit.measure.reference import ReferenceSet, encode_reference_set, parse_reference_set
from sevkit.measure.terms import Era, Mode, Vmm
from sevkit.measure.vcpu import Registers
from sevkit.testing.firmware import FirmwareImage, encode_firmware

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

IMAGE = encode_firmware(FirmwareImage())
MILAN = Registers(0xA00F11, 1)


@pytest.fixture
def firmware(tmp_path: Path) -> str:
    path = tmp_path / "OVMF.fd"
    path.write_bytes(IMAGE)
    return str(path)


@pytest.fixture
def kernel(tmp_path: Path) -> str:
    path = tmp_path / "vmlinuz"
    path.write_bytes(b"kernel")
    return str(path)


def write(folder: Path, text: str) -> str:
    path = folder / "vmi.yaml"
    path.write_text(text)
    return str(path)


def snp(firmware: str, *more: str) -> list[str]:
    return ["measure", "--mode", "snp", "--firmware", firmware, *more]


def test_one_digest_is_printed_alone(firmware: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(snp(firmware, "--vcpus", "2", "--vcpu-type", "EPYC-Milan")) == 0
    out = capsys.readouterr()
    assert out.out == compute_snp_digest(IMAGE, MILAN, 2).hex() + "\n"
    assert out.err == ""


def test_sev_needs_neither_vcpus_nor_cpu(firmware: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "--mode", "sev", "--firmware", firmware]) == 0
    assert capsys.readouterr().out == compute_sev_digest(IMAGE).hex() + "\n"


@pytest.mark.parametrize("vmm", ["ec2", "gce"])
def test_ec2_and_gce_need_no_cpu(
    vmm: str, firmware: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(snp(firmware, "--vcpus", "2", "--vmm", vmm)) == 0
    expected = compute_snp_digest(IMAGE, Registers(0, 1, Vmm(vmm)), 2)
    assert capsys.readouterr().out == expected.hex() + "\n"


def test_zero_is_a_signature(firmware: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(snp(firmware, "--vcpus", "1", "--vcpu-sig", "0")) == 0
    assert capsys.readouterr().out == compute_snp_digest(IMAGE, Registers(0, 1), 1).hex() + "\n"


def test_several_digests_are_lines_of_digest_tab_and_label(
    firmware: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = snp(firmware, "--vcpus", "1-2", "--vcpu-type", "EPYC-Milan", "--vcpu-sig", "0x5")
    assert main(arguments) == 0
    assert [line.split("\t") for line in capsys.readouterr().out.splitlines()] == [
        [compute_snp_digest(IMAGE, MILAN, 1).hex(), "1 vCPU, EPYC-Milan"],
        [compute_snp_digest(IMAGE, MILAN, 2).hex(), "2 vCPUs, EPYC-Milan"],
        [compute_snp_digest(IMAGE, Registers(5, 1), 1).hex(), "1 vCPU, signature 0x5"],
        [compute_snp_digest(IMAGE, Registers(5, 1), 2).hex(), "2 vCPUs, signature 0x5"],
    ]


def test_sev_es_without_era_prints_both(firmware: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["measure", "--mode", "sev-es", "--firmware", firmware, "--vcpus", "1"]
    assert main([*arguments, "--vcpu-type", "EPYC-Milan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        compute_sev_es_digest(IMAGE, Registers(0xA00F11, 0, era=era), 1).hex() for era in Era
    ]


def test_base64_is_of_the_same_digest(firmware: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "--mode", "sev", "--firmware", firmware, "--format", "base64"]) == 0
    assert base64.b64decode(capsys.readouterr().out) == compute_sev_digest(IMAGE)


def test_json_is_a_reference_set(
    firmware: str, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = snp(firmware, "--vcpus", "1-3", "--vcpu-type", "EPYC-Milan", "--output", "json")
    assert main([*arguments, "--kernel", kernel]) == 0
    found = parse_reference_set(capsys.readouterr().out.encode())
    hashes = compute_kernel_hashes(b"kernel")
    assert [entry.digest for entry in found.entries] == [
        compute_snp_digest(IMAGE, MILAN, n, hashes) for n in (1, 2, 3)
    ]
    assert all(entry.covers_kernel for entry in found.entries)


def test_kernel_initrd_and_command_line_are_measured(
    firmware: str, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["measure", "--mode", "sev", "--firmware", firmware, "--kernel", kernel]
    assert main([*arguments, "--initrd", kernel, "--cmdline", "ro \n"]) == 0
    hashes = compute_kernel_hashes(b"kernel", initrd=b"kernel", cmdline="ro \n")
    assert capsys.readouterr().out == compute_sev_digest(IMAGE, hashes).hex() + "\n"


def test_a_firmware_hash_replaces_the_pages_and_is_said(
    firmware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.fd"
    other.write_bytes(encode_firmware(FirmwareImage(filler=0)))
    seed = compute_firmware_hash(IMAGE).hex()
    options = ("--vcpus", "1", "--vcpu-sig", "A00F11", "--firmware-hash", seed)
    assert main(snp(str(other), *options)) == 0
    out = capsys.readouterr()
    assert out.out == compute_snp_digest(IMAGE, MILAN, 1).hex() + "\n"
    assert "are not looked at" in out.err


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--vcpus", "1"],
        ["--vcpu-sig", "0"],
        ["--vcpus", "0", "--vcpu-sig", "0"],
        ["--vcpus", "513", "--vcpu-sig", "0"],
        ["--vcpus", "3-2", "--vcpu-sig", "0"],
        ["--vcpus", "1-", "--vcpu-sig", "0"],
        ["--vcpus", "-1", "--vcpu-sig", "0"],
        ["--vcpus", "\u0661", "--vcpu-sig", "0"],
        ["--vcpus", "1", "--vcpu-sig", "0x"],
        ["--vcpus", "1", "--vcpu-sig", "100000000"],
        ["--vcpus", "1", "--vcpu-type", "EPYC-Napels"],
        ["--vcpus", "1", "--vcpu-sig", "0", "--era", "init"],
        ["--vcpus", "1", "--vcpu-sig", "0", "--guest-features", "0x20"],
        ["--vcpus", "1", "--vcpu-sig", "0", "--guest-features", "1" + "0" * 16],
        ["--vcpus", "1", "--vcpu-sig", "0", "--vmm", "hyperv"],
        ["--vcpus", "1", "--vcpu-sig", "0", "--firmware-hash", "00" * 47],
        ["--vcpus", "1", "--vcpu-sig", "0", "--firmware-hash", " " * 96],
        ["--vcpus", "1", "--vcpu-sig", "0", "--kernel", ""],
        ["--vcpus", "1", "--vcpu-sig", "0", "--kernel", "/nonexistent"],
        ["--vcpus", "1", "--vcpu-sig", "0", "--kernel", "/"],
        ["--vcpus", "1", "--vcpu-sig", "0", "--initrd", "/dev/null"],
        ["--vcpus", "1", "--vcpu-sig", "0", "--cmdline", "quiet"],
        ["--vcpus", "1", "--vcpu-sig", "0", "--kernel", "/dev/null", "--cmdline", "a\0b"],
        ["--vcpus", "1", "--vcpu-sig", "0", "--kernel", "-", "--initrd", "-"],
        ["--vcpus", "1", "--vcpu-sig", "0", "--format", "base64", "--output", "json"],
        ["--mode", "sev", "--vmm", "ec2"],
        ["--mode", "sev", "--firmware-hash", "00" * 48],
        ["--mode", "sev-es", "--vcpus", "1", "--vcpu-sig", "0", "--vmm", "gce"],
    ],
)
def test_an_ill_formed_request_is_a_usage_error(
    options: list[str], firmware: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(snp(firmware, *options)) == 2
    out = capsys.readouterr()
    assert "json" in options or out.out == ""
    assert out.err.startswith("sevkit: ")


@pytest.mark.parametrize(
    ("mode", "features", "measured", "warned"),
    [
        ("sev", "0", 0, False),
        ("sev", "0x1", 0, True),
        ("sev", "0x20", 0, True),
        ("sev-es", "0x0", 0, False),
        ("sev-es", "0x20", 0x20, False),
        ("sev-es", "0x1", 0, True),
        ("sev-es", "0x21", 0, True),
    ],
)
def test_features_of_an_snp_guest_are_no_part_of_another_modes_digest(
    mode: str,
    features: str,
    measured: int,
    warned: bool,
    firmware: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["measure", "--mode", mode, "--firmware", firmware, "--vcpus", "2"]
    arguments += ["--vcpu-type", "EPYC-Milan", "--vmm", "qemu", "--guest-features", features]
    assert main([*arguments, *(["--era", "init"] if mode == "sev-es" else [])]) == 0
    registers = Registers(0xA00F11, measured, era=Era.INIT)
    es = compute_sev_es_digest(IMAGE, registers, 2)
    expected = compute_sev_digest(IMAGE) if mode == "sev" else es
    out = capsys.readouterr()
    assert out.out == expected.hex() + "\n"
    assert ("not part of this" in out.err) is warned


def test_options_are_judged_before_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(snp("/nonexistent", "--vcpus", "1")) == 2
    assert "--vcpu-type or --vcpu-sig is missing" in capsys.readouterr().err


def test_a_mode_is_demanded(firmware: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "--firmware", firmware]) == 2
    assert "--mode is missing" in capsys.readouterr().err


def test_a_malformed_firmware_is_exit_65(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.fd"
    path.write_bytes(b"short")
    assert main(["measure", "--mode", "sev", "--firmware", str(path)]) == 65
    assert capsys.readouterr().out == ""


def patched(offset: int, value: bytes) -> bytes:
    return IMAGE[:offset] + value + IMAGE[offset + len(value) :]


def with_length(guid: UUID, length: int) -> bytes:
    return patched(IMAGE.index(guid.bytes_le) - 2, struct.pack("<H", length))


def with_metadata(field: int, value: int) -> bytes:
    return patched(IMAGE.index(b"ASEV") + field, struct.pack("<I", value))


def with_metadata_offset(value: int) -> bytes:
    return patched(IMAGE.index(SEV_METADATA.bytes_le) - 6, struct.pack("<I", value))


HASHES = SectionType.SNP_KERNEL_HASHES
TWO_HASHES = (Section(0x81_0000, PAGE, HASHES), Section(0x82_0000, PAGE, HASHES))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(IMAGE[-49:], id="shorter-than-a-footer"),
        pytest.param(IMAGE[1:], id="not-whole-pages"),
        pytest.param(bytes(PAGE), id="no-footer"),
        pytest.param(with_length(FOOTER_GUID, 0), id="footer-length-0"),
        pytest.param(with_length(FOOTER_GUID, 1), id="footer-length-1"),
        pytest.param(with_length(FOOTER_GUID, 17), id="footer-length-17"),
        pytest.param(with_length(FOOTER_GUID, 65535), id="footer-length-65535"),
        pytest.param(with_length(RESET_BLOCK, 0), id="entry-length-0"),
        pytest.param(with_length(RESET_BLOCK, 17), id="entry-length-17"),
        pytest.param(with_length(RESET_BLOCK, 1000), id="entry-longer-than-the-table"),
        pytest.param(patched(IMAGE.index(SECRET_AREA.bytes_le), HASH_TABLE.bytes_le), id="twice"),
        pytest.param(with_metadata_offset(0), id="metadata-offset-0"),
        pytest.param(with_metadata_offset(PAGE + 1), id="metadata-offset-before-the-image"),
        pytest.param(with_metadata_offset(2**32 - 1), id="metadata-offset-2-to-the-32"),
        pytest.param(with_metadata_offset(8), id="metadata-past-the-end"),
        pytest.param(with_metadata(0, 0), id="metadata-without-signature"),
        pytest.param(with_metadata(8, 2), id="metadata-version-2"),
        pytest.param(with_metadata(12, 2**32 - 1), id="metadata-sections-2-to-the-32"),
        pytest.param(with_metadata(16, 0x80_0010), id="section-not-at-a-page"),
        pytest.param(with_metadata(20, 4095), id="section-not-whole-pages"),
        pytest.param(with_metadata(24, 5), id="section-of-unknown-type"),
        pytest.param(with_metadata(16, 0xFFFF_F000), id="section-beyond-4-gib"),
        pytest.param(encode_firmware(FirmwareImage(sections=TWO_HASHES)), id="two-hash-sections"),
        pytest.param(
            encode_firmware(FirmwareImage(hash_table=Area(0x81_0000 + PAGE - 175, 176))),
            id="hashes-leave-their-page",
        ),
        pytest.param(
            encode_firmware(FirmwareImage(hash_table=Area(0xFFFF_F000, 0x1001))),
            id="hashes-beyond-4-gib",
        ),
    ],
)
def test_one_defect_in_a_firmware_is_exit_65(
    data: bytes, tmp_path: Path, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.fd"
    path.write_bytes(data)
    options = ["--mode", "snp", "--firmware", str(path), "--kernel", kernel]
    assert main(["measure", *options, "--vcpus", "1", "--vcpu-sig", "0"]) == 65
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("sevkit: ")


def test_an_empty_kernel_is_refused_but_dev_null_is_meant(
    firmware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    arguments = ["measure", "--mode", "sev", "--firmware", firmware]
    assert main([*arguments, "--kernel", str(empty)]) == 2
    assert "is empty" in capsys.readouterr().err
    assert main([*arguments, "--kernel", "/dev/null"]) == 0
    out = capsys.readouterr()
    assert out.out == compute_sev_digest(IMAGE, compute_kernel_hashes(b"")).hex() + "\n"
    assert "an empty file is measured" in out.err


def test_a_command_line_that_linux_would_cut_is_measured_with_a_warning(
    firmware: str, kernel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["measure", "--mode", "sev", "--firmware", firmware, "--kernel", kernel]
    assert main([*arguments, "--cmdline", "x" * 5000]) == 0
    out = capsys.readouterr()
    hashes = compute_kernel_hashes(b"kernel", cmdline="x" * 5000)
    assert out.out == compute_sev_digest(IMAGE, hashes).hex() + "\n"
    assert "longer than the 2047 bytes" in out.err


MANIFEST = """\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: guest}
spec:
  domain:
    cpu: {model: EPYC-Milan, cores: 2}
    launchSecurity: {snp: {}}
"""


def test_a_manifest_gives_what_is_not_given(
    firmware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, MANIFEST)
    assert main(["measure", "--vmi", path, "--firmware", firmware]) == 0
    assert capsys.readouterr().out == compute_snp_digest(IMAGE, MILAN, 2).hex() + "\n"
    assert main(["measure", "--vmi", path, "--firmware", firmware, "--output", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["digests"][0]["parameters"]["guest_policy"] == "0x30000"


def test_options_go_before_the_manifest(
    firmware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, MANIFEST)
    arguments = ["measure", "--vmi", path, "--firmware", firmware]
    assert main([*arguments, "--vcpus", "3", "--vcpu-sig", "0x800f12"]) == 0
    expected = compute_snp_digest(IMAGE, Registers(0x800F12, 1), 3)
    assert capsys.readouterr().out == expected.hex() + "\n"
    assert main([*arguments, "--mode", "sev"]) == 2
    assert "the manifest asks for snp" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["host-model", "host-passthrough", "''"])
def test_a_manifest_with_the_hosts_cpu_needs_the_signature(
    model: str, firmware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, MANIFEST.replace("EPYC-Milan", model))
    assert main(["measure", "--vmi", path, "--firmware", firmware]) == 2
    assert "--vcpu-sig" in capsys.readouterr().err
    arguments = ["measure", "--vmi", path, "--firmware", firmware, "--vcpu-sig", "0xa00f11"]
    assert main(arguments) == 0


def test_what_a_manifest_does_not_have_measured_is_said(
    firmware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, MANIFEST + "    firmware: {kernelBoot: {}}\n")
    assert main(["measure", "--vmi", path, "--firmware", firmware]) == 0
    assert "sevkit: warning: kernelBoot is not measured" in capsys.readouterr().err


def a_set(capsys: pytest.CaptureFixture[str], *words: str) -> ReferenceSet:
    assert main(["measure", *words, "--output", "json"]) == 0
    return parse_reference_set(capsys.readouterr().out.encode())


def test_a_set_says_what_it_was_made_from_and_for(
    firmware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--vmi", write(tmp_path, MANIFEST), "--firmware", firmware)
    (entry,) = a_set(capsys, *options, "--kubevirt-version", "1.9").entries
    assert entry.parameters == {
        "vcpus": 2,
        "cpu": "EPYC-Milan",
        "vcpu_signature": "0xa00f11",
        "guest_features": "0x1",
        "vmm": "qemu",
        "firmware_file": "OVMF.fd",
        "firmware_sha256": hashlib.sha256(IMAGE).hexdigest(),
        "guest_policy": "0x30000",
        "kubevirt": "v1.9.0",
    }
    assert entry.label == "2 vCPUs, EPYC-Milan, KubeVirt v1.9.0"
    (bare,) = a_set(capsys, *options).entries
    assert bare.parameters.keys() == entry.parameters.keys() - {"kubevirt"}
    assert bare.label == "2 vCPUs, EPYC-Milan"


def test_a_hash_that_stands_for_the_pages_is_not_called_by_the_files_name(
    firmware: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = compute_firmware_hash(IMAGE).hex()
    options = ("--vcpus", "1", "--vcpu-sig", "A00F11", "--firmware-hash", seed)
    (entry,) = a_set(capsys, *snp(firmware, *options)[1:]).entries
    assert entry.parameters["firmware_hash"] == seed
    assert not entry.parameters.keys() & {"firmware_file", "firmware_sha256"}


def test_a_file_name_that_is_no_text_is_still_one_in_the_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / os.fsdecode(b"OV\xffMF.fd")
    path.write_bytes(IMAGE)
    (entry,) = a_set(capsys, "--mode", "sev", "--firmware", str(path)).entries
    assert entry.parameters["firmware_file"] == "OV\ufffdMF.fd"


def test_a_set_is_extended_by_other_modes_and_cpus_each_digest_once(
    firmware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu = ("--vcpus", "1-2", "--vcpu-type", "EPYC-Milan", "--vcpu-type", "EPYC-Rome")
    first = a_set(capsys, "--mode", "sev", "--firmware", firmware)
    path = tmp_path / "set.json"
    path.write_text(encode_reference_set(first))
    es = ("--mode", "sev-es", "--firmware", firmware, *cpu)
    both = a_set(capsys, *es, "--extend", str(path))
    assert both.entries == (*first.entries, *a_set(capsys, *es).entries)
    assert len(both.of_mode(Mode.SEV_ES)) == 2 * 2 * 2
    path.write_text(encode_reference_set(both))
    again = a_set(capsys, *es, "--extend", str(path))
    assert again == both
    twice = a_set(capsys, *es, "--vcpu-type", "EPYC-Rome")
    assert twice.entries == both.of_mode(Mode.SEV_ES)


def test_a_set_that_cannot_be_extended_is_refused(
    firmware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "set.json"
    path.write_text("{}")
    sev = ["measure", "--mode", "sev", "--firmware", firmware]
    assert main([*sev, "--extend", str(path)]) == 2
    assert "add --output json" in capsys.readouterr().err
    assert main([*sev, "--extend", str(path), "--output", "json"]) == 65
    assert main([*sev, "--extend", str(tmp_path / "none"), "--output", "json"]) == 2
    assert main([*sev[:-1], "-", "--extend", "-", "--output", "json"]) == 2


def test_a_release_is_one_of_kubevirt_that_has_such_guests(
    firmware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = ["measure", "--vmi", write(tmp_path, MANIFEST), "--firmware", firmware]
    assert main([*measure, "--kubevirt-version", "1.7.0"]) == 0
    assert main([*measure, "--kubevirt-version", "v1.6.3"]) == 2
    assert "KubeVirt has since v1.7.0" in capsys.readouterr().err
    assert main([*measure, "--kubevirt-version", "latest"]) == 2
    sev = ["measure", "--mode", "sev", "--firmware", firmware, "--kubevirt-version", "1.9.0"]
    assert main(sev) == 2
    assert "without --vmi" in capsys.readouterr().err


def test_vcpus_that_a_live_update_may_add_are_told(
    firmware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, MANIFEST.replace("cores: 2", "cores: 2, maxSockets: 4"))
    measure = ["measure", "--vmi", path, "--firmware", firmware]
    assert main(measure) == 0
    assert "for those too, --vcpus 2-8" in capsys.readouterr().err
    assert main([*measure, "--vcpus", "2-8"]) == 0
    assert capsys.readouterr().err == ""
