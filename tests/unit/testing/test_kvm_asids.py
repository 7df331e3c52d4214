from __future__ import annotations

import errno
import threading

import pytest

from sevkit.errors import UsageError
from sevkit.testing.kvm_asids import AsidPool, GuestKind
from sevkit.testing.secure_processor.core import AsidRange

SEV, ES, SNP = GuestKind.SEV, GuestKind.SEV_ES, GuestKind.SNP


def pool(maximum: int = 8, lowest: int = 5, hidden: int = 0) -> AsidPool:
    return AsidPool(AsidRange(maximum, lowest), ciphertext_hiding=hidden)


def number(kind: GuestKind, from_pool: AsidPool) -> int | None:
    """Return the errno with which an ASID is refused, or None."""
    try:
        from_pool.take(kind)
    except OSError as error:
        return error.errno
    return None


@pytest.mark.parametrize(
    ("kind", "asids"), [(SEV, [5, 6, 7, 8]), (ES, [1, 2, 3, 4]), (SNP, [1, 2, 3, 4])]
)
def test_each_kind_takes_the_lowest_free_asid_of_its_range(
    kind: GuestKind, asids: list[int]
) -> None:
    found = pool()
    assert [found.take(kind) for _ in asids] == asids
    assert number(kind, found) == errno.EBUSY
    found.give_back(asids[1])
    assert found.take(kind) == asids[1]


def test_sev_es_and_snp_share_a_range() -> None:
    found = pool()
    assert [found.take(kind) for kind in (ES, SNP, ES, SNP)] == [1, 2, 3, 4]
    assert (number(ES, found), number(SNP, found), number(SEV, found)) == (
        errno.EBUSY,
        errno.EBUSY,
        None,
    )


@pytest.mark.parametrize(
    ("lowest", "empty", "capacity"),
    [(1, {ES, SNP}, {"sev": 8}), (9, {SEV}, {"sev_es": 8})],
)
def test_a_range_without_asids_is_not_there_at_all(
    lowest: int, empty: set[GuestKind], capacity: dict[str, int]
) -> None:
    found = pool(lowest=lowest)
    for kind in GuestKind:
        assert number(kind, found) == (errno.ENOTTY if kind in empty else None)
    assert found.capacity == capacity
    assert set(found.current) == set(found.peak) == set(capacity)


@pytest.mark.parametrize(
    ("hidden", "snp", "es"),
    [
        (0, [1, 2, 3, 4], [1, 2, 3, 4]),
        (1, [1], [2, 3, 4]),
        (3, [1, 2, 3], [4]),
        (4, [1, 2, 3, 4], []),
    ],
)
def test_ciphertext_hiding_splits_the_lower_range(
    hidden: int, snp: list[int], es: list[int]
) -> None:
    found = pool(hidden=hidden)
    assert [found.take(SNP) for _ in snp] == snp
    assert number(SNP, found) == errno.EBUSY
    found = pool(hidden=hidden)
    assert [found.take(ES) for _ in es] == es
    assert number(ES, found) == (errno.EBUSY if es else errno.ENOTTY)


@pytest.mark.parametrize("hidden", [0, 1, 4])
def test_misc_capacity_says_nothing_of_ciphertext_hiding(hidden: int) -> None:
    assert pool(hidden=hidden).capacity == {"sev": 4, "sev_es": 4}


@pytest.mark.parametrize("hidden", [-1, 5])
def test_more_hidden_asids_than_there_are_is_no_machine(hidden: int) -> None:
    with pytest.raises(UsageError, match="impossible machine"):
        pool(hidden=hidden)


def test_snp_is_charged_as_sev_es_and_the_peak_stays() -> None:
    found = pool()
    taken = [found.take(kind) for kind in (SEV, ES, SNP, SNP)]
    assert found.current == {"sev": 1, "sev_es": 3}
    for asid in taken:
        found.give_back(asid)
    assert found.current == {"sev": 0, "sev_es": 0}
    found.take(SEV)
    assert found.peak == {"sev": 1, "sev_es": 3}


def test_a_refused_guest_is_not_charged() -> None:
    found = pool(maximum=2, lowest=2)
    found.take(SEV)
    assert number(SEV, found) == errno.EBUSY
    assert found.current == found.peak == {"sev": 1, "sev_es": 0}


def test_an_asid_is_given_back_once() -> None:
    found = pool()
    found.give_back(found.take(SEV))
    with pytest.raises(KeyError):
        found.give_back(5)


def test_no_asid_is_given_twice_at_a_time() -> None:
    found = pool(maximum=400, lowest=1)
    taken: list[int] = []

    def take_many() -> None:
        for _ in range(100):
            taken.append(found.take(SEV))  # noqa: PERF401  # one at a time is the point

    threads = [threading.Thread(target=take_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(taken) == list(range(1, 401))
