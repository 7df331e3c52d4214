from __future__ import annotations

from typing import Final

import pytest

from sevkit.errors import FormatError
from sevkit.host.cpuid import Signature
from sevkit.host.cpuinfo import parse_cpuinfo

MILAN: Final = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC 7413 24-Core Processor
stepping\t: 1
flags\t\t: fpu svm sev sev_es sev_snp
address sizes\t: 43 bits physical, 48 bits virtual
"""
ARM: Final = """\
processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd
CPU implementer\t: 0x41
"""
#: As Linux prints them on machines that Kubernetes also runs on.
ELSEWHERE: Final = {
    "arm64": ARM,
    "s390x": "vendor_id       : IBM/S390\n# processors    : 2\nbogomips per cpu: 3033.00\n"
    "features\t: esan3 zarch stfle \n"
    "processor 0: version = 00,  identification = 0133E8,  machine = 8561\n\ncpu number : 0\n",
    "riscv64": "processor\t: 0\nhart\t\t: 0\nisa\t\t: rv64imafdc\nmmu\t\t: sv39\n\n",
    "ppc64le": "processor\t: 0\ncpu\t\t: POWER9, altivec supported\nclock\t\t: 2166MHz\n\n",
}


def test_the_first_processor_is_read_whatever_follows() -> None:
    second = MILAN.replace("25", "26").replace("sev_snp", "")
    for text in (MILAN, f"{MILAN}\n{second}", f"{MILAN}\nprocessor\t: 1\nflags\t\t: fp"):
        found = parse_cpuinfo(text)
        assert found.signature == Signature(25, 1, 1)
        assert found.flags == frozenset({"fpu", "svm", "sev", "sev_es", "sev_snp"})
        assert found.physical_bits == 43
        assert found.x86


def test_a_line_that_was_cut_is_not_half_read() -> None:
    cut = MILAN[: MILAN.index("sev_snp") - 3]
    assert parse_cpuinfo(cut).flags is None


def test_no_flags_are_not_known_flags() -> None:
    assert parse_cpuinfo(MILAN.replace("fpu svm sev sev_es sev_snp", "")).flags is None


def test_a_stepping_of_nought_has_no_number() -> None:
    found = parse_cpuinfo(MILAN.replace("stepping\t: 1", "stepping\t: unknown"))
    assert found.signature == Signature(25, 1, 0)


@pytest.mark.parametrize("text", ELSEWHERE.values(), ids=ELSEWHERE)
def test_other_architectures_are_none_of_x86(text: str) -> None:
    found = parse_cpuinfo(text)
    assert not found.x86
    assert (found.brand, found.flags, found.signature) == (None, None, None)


def test_lines_may_end_as_windows_ends_them_and_the_last_one_not_at_all() -> None:
    whole = parse_cpuinfo(f"{MILAN}\n")
    assert parse_cpuinfo(f"{MILAN}\n".replace("\n", "\r\n")) == whole
    # What was cut is not half read, so a file's last line counts only with its end.
    assert parse_cpuinfo(MILAN.rstrip("\n")).flags == whole.flags


@pytest.mark.parametrize("damage", ["\0", "\ufffd", "\x1b[2J"])
def test_damaged_flags_are_not_flags_that_are_missing(damage: str) -> None:
    with pytest.raises(FormatError, match="flags are not words"):
        parse_cpuinfo(MILAN.replace(" sev ", f" se{damage} "))


@pytest.mark.parametrize("text", ["", "\n\n", "garbage", "processor\t: 0\n", "a: b\n" * 3])
def test_what_names_no_processor_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_cpuinfo(text)


def test_numbers_without_end_are_no_model() -> None:
    assert parse_cpuinfo(MILAN.replace("25", "9" * 5000)).signature is None
