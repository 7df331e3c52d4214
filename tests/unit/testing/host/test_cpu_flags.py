from __future__ import annotations

from sevkit.testing.host.cpu_flags import ORDER, SINCE, Bit, Kernel, Word, printed_flags
from sevkit.testing.host.spec import NOTHING, Registers

NEWEST = (99, 0)


def names() -> list[str]:
    found: list[str] = []
    for row in ORDER:
        if isinstance(row, Kernel):
            found += row.names
        elif isinstance(row, Bit):
            found.append(row.name)
        else:
            found += [name for name in row.bits.split() if name != "-"]
    return found


def everything(_: int, __: int) -> Registers:
    return Registers(*[0xFFFFFFFF] * 4)


def test_no_flag_is_printed_twice() -> None:
    assert len(names()) == len(set(names()))


def test_no_word_has_more_than_its_bits() -> None:
    assert all(len(row.bits.split()) <= 32 for row in ORDER if isinstance(row, Word))


def test_every_flag_with_a_first_kernel_is_a_flag() -> None:
    assert set(SINCE) <= set(names())


def test_a_cpu_with_everything_has_every_flag_of_cpuid_and_none_of_the_kernel() -> None:
    found = printed_flags(everything, NEWEST, frozenset(), frozenset())
    kernels = {name for row in ORDER if isinstance(row, Kernel) for name in row.names}
    assert list(found) == [name for name in names() if name not in kernels]


def test_what_the_kernel_knows_and_clears_has_its_place() -> None:
    found = printed_flags(everything, NEWEST, frozenset({"cpuid"}), frozenset({"sev_snp"}))
    assert found.index("cpuid") == found.index("aperfmperf") - 1
    assert "sev_es" in found
    assert "sev_snp" not in found


def test_a_cpu_with_nothing_has_no_flag() -> None:
    assert printed_flags(lambda _, __: NOTHING, NEWEST, frozenset(), frozenset()) == ()


def test_an_old_kernel_prints_only_what_it_knows() -> None:
    old = printed_flags(everything, (6, 8), frozenset(), frozenset())
    new = printed_flags(everything, (6, 9), frozenset(), frozenset())
    assert set(new) - set(old) == {"sev_snp"}
