from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.errors import FormatError, UsageError
from sevkit.testing.kubevirt import lies

if TYPE_CHECKING:
    from sevkit.testing.kubevirt.host import SimulatedHost

MEASUREMENT = bytes(range(48))


def test_the_truth_changes_nothing() -> None:
    assert lies.TRUTH.chain(b"pdh", b"rest") == (b"pdh", b"rest")
    assert lies.TRUTH.measurement(MEASUREMENT) == MEASUREMENT


def test_a_point_that_is_moved_is_off_the_curve_and_nothing_else_is_touched(
    host: SimulatedHost,
) -> None:
    pdh, rest = host.processor.sev.pdh_cert_export()
    parse_sev_certificate(pdh).key.load()
    moved, same = lies.off_the_curve(pdh, rest)
    assert same == rest
    assert sum(a != b for a, b in zip(pdh, moved, strict=True)) == 1
    with pytest.raises(FormatError, match="curve"):
        parse_sev_certificate(moved).key.load()
    with pytest.raises(UsageError):
        lies.off_the_curve(b"short", rest)


def test_measurements_are_replaced_cut_and_flipped() -> None:
    assert lies.replay(bytes(48)).measurement(MEASUREMENT) == bytes(48)
    assert lies.truncated().measurement(MEASUREMENT) == MEASUREMENT[:47]
    flipped = lies.flipped().measurement(MEASUREMENT)
    assert [n for n in range(48) if flipped[n] != MEASUREMENT[n]] == [31]


def test_a_chain_of_ones_own_making_is_signed_throughout(host: SimulatedHost) -> None:
    pdh, rest = lies.self_made_root(host.processor).chain(b"", b"")
    cek = parse_sev_certificate(rest[-2084:])
    assert cek.signatures
    assert pdh == host.processor.sev.pdh_cert_export()[0]
