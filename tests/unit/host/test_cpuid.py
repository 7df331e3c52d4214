from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from sevkit.host.cpuid import (
    Encryption,
    Features,
    Signature,
    parse_encryption,
    parse_signature,
    probe_cpuid,
)
from sevkit.host.reading import Cause, Known, Unreadable, absent
from sevkit.host.source import Registers
from sevkit.host.sources import CapturedHost, HostFiles
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.write import write_host

if TYPE_CHECKING:
    from pathlib import Path

#: Fn8000_001F of real machines: EPYC 7601 and EPYC 7502 as libvirt's tests have them.
EPYC_7601: Final = Registers(0x0000000F, 0x0000016F, 0x0000000F, 0x00000001)
EPYC_7502: Final = Registers(0x0001000F, 0x0000016F, 0x000001FD, 0x00000001)


def test_real_registers_are_read() -> None:
    naples = parse_encryption(EPYC_7601)
    assert (naples.c_bit, naples.reduction, naples.max_asid) == (47, 5, 15)
    assert (naples.sev_asids, naples.encrypted_state_asids) == (15, 0)
    assert Features.SEV_ES in naples.features  # which Naples has not
    rome = parse_encryption(EPYC_7502)
    assert (rome.sev_asids, rome.encrypted_state_asids) == (509, 0)
    assert Features.SEV_SNP not in rome.features


@pytest.mark.parametrize(
    ("highest", "lowest", "sev", "shared"),
    [(509, 451, 59, 450), (1006, 253, 754, 252), (509, 510, 0, 509), (0, 0, 0, 0), (15, 1, 15, 0)],
)
def test_asids_are_split_where_the_bios_says(
    highest: int, lowest: int, sev: int, shared: int
) -> None:
    found = Encryption(Features.SEV, 51, 1, 4, highest, lowest)
    assert (found.sev_asids, found.encrypted_state_asids) == (sev, shared)


@pytest.mark.parametrize(
    ("eax", "signature"),
    [
        (0x00800F12, Signature(0x17, 0x01, 2)),
        (0x00A10F11, Signature(0x19, 0x11, 1)),
        (0x00AA0F02, Signature(0x19, 0xA0, 2)),
        (0x00B00F21, Signature(0x1A, 0x02, 1)),
        (0x000806F8, Signature(0x6, 0x8F, 8)),
    ],
)
def test_families_and_models_are_extended(eax: int, signature: Signature) -> None:
    assert parse_signature(eax) == signature


def captured(root: Path, cpuid: str) -> CapturedHost:
    root.mkdir(exist_ok=True)
    (root / "cpuid.json").write_text(cpuid)
    return CapturedHost(HostFiles(str(root)))


def test_a_whole_processor_is_read(tmp_path: Path) -> None:
    write_host(PRESETS["bergamo"], tmp_path / "host")
    found = probe_cpuid(CapturedHost(HostFiles(str(tmp_path / "host"))))
    assert isinstance(found, Known)
    facts = found.value
    assert (facts.vendor, facts.package, facts.hypervisor) == ("AuthenticAMD", 4, False)
    assert facts.signature == Signature(0x19, 0xA0, 2)
    assert facts.physical_bits == 52
    assert facts.brand == "AMD EPYC 9754 128-Core Processor"


def test_one_leaf_is_enough_and_the_others_are_not_guessed(tmp_path: Path) -> None:
    source = captured(
        tmp_path,
        '{"0x8000001f": ["0x0001000f", "0x0000016f", "0x000001fd", "0x00000001"]}',
    )
    found = probe_cpuid(source)
    assert isinstance(found, Known)
    assert found.value.encryption == parse_encryption(EPYC_7502)
    assert found.value.vendor is None
    assert found.value.hypervisor is None
    assert found.value.signature is None


def test_a_leaf_beyond_the_last_does_not_count(tmp_path: Path) -> None:
    # An Intel processor answers leaves beyond its last one with those of another.
    source = captured(
        tmp_path,
        """{"0x80000000": ["0x80000008", "0x0", "0x0", "0x0"],
            "0x8000001f": ["0x0001000f", "0x0000016f", "0x000001fd", "0x00000001"]}""",
    )
    found = probe_cpuid(source)
    assert isinstance(found, Known)
    assert found.value.encryption.features == Features(0)


def test_without_the_leaf_nothing_is_known(tmp_path: Path) -> None:
    source = captured(tmp_path, '{"0x80000000": ["0x80000028", "0x0", "0x0", "0x0"]}')
    assert probe_cpuid(source) == absent("/cpuid.json: leaf 0x8000001f")


def test_names_that_are_no_text_are_made_printable(tmp_path: Path) -> None:
    words = '["0x1b5b1b5b", "0x1b5b1b5b", "0x1b5b1b5b", "0x1b5b1b5b"]'
    leaves = ", ".join(f'"{leaf:#x}": {words}' for leaf in (0, 0x80000002, 0x80000003, 0x80000004))
    leaf = '"0x8000001f": ["0x0", "0x0", "0x0", "0x0"]'
    found = probe_cpuid(captured(tmp_path, f"{{{leaves}, {leaf}}}"))
    assert isinstance(found, Known)
    assert found.value.vendor == "[?[?[?[?[?[?"
    assert "\x1b" not in str(found.value.brand)


def test_a_file_that_is_none_is_malformed(tmp_path: Path) -> None:
    found = probe_cpuid(captured(tmp_path, "[]"))
    assert isinstance(found, Unreadable)
    assert found.cause is Cause.MALFORMED
