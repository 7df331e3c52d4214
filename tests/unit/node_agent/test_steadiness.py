from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pytest

from node_agent.steadiness import PATIENCE, Steadiness
from sevkit.host.capability import Asids, Capabilities, State

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def good(found_on: Callable[..., Capabilities]) -> Capabilities:
    return found_on("genoa")


@pytest.fixture
def lost(good: Capabilities) -> Capabilities:
    """Of everything it is not known how it is."""
    unread = replace(good.sev, state=State.UNKNOWN, guests=0)
    none = Asids(None, None)
    return Capabilities(
        sev=unread,
        sev_es=unread,
        sev_snp=unread,
        sev_asids=none,
        sev_es_asids=none,
        sev_snp_asids=none,
        encrypted_state=none,
        product=None,
        firmware_version=None,
        current_tcb=None,
        reported_tcb=None,
        snp_initialized=None,
        c_bit=None,
        reduced_phys_bits=None,
        simulated=True,
    )


def test_what_is_known_is_believed_at_once(
    good: Capabilities, found_on: Callable[..., Capabilities]
) -> None:
    steadiness = Steadiness()
    for found in (good, found_on("genoa", "kvm-snp-off"), good, found_on("milan")):
        assert steadiness.settle(found) == found


def test_what_is_no_longer_known_is_held_until_the_third_probe(
    good: Capabilities, lost: Capabilities
) -> None:
    assert PATIENCE == 3
    steadiness = Steadiness()
    steadiness.settle(good)
    assert steadiness.settle(lost) == good
    assert steadiness.settle(lost) == good
    assert steadiness.settle(lost) == lost
    assert steadiness.settle(lost) == lost


def test_a_known_value_in_between_begins_the_counting_anew(
    good: Capabilities, lost: Capabilities
) -> None:
    steadiness = Steadiness()
    steadiness.settle(good)
    for _ in range(50):
        for found in (lost, lost, good):
            assert steadiness.settle(found) == good


def test_what_never_was_known_is_not_known_at_once(lost: Capabilities) -> None:
    assert Steadiness().settle(lost) == lost


def test_each_field_has_its_own_patience(good: Capabilities, lost: Capabilities) -> None:
    for field in fields(good):
        if field.name == "simulated":
            continue
        steadiness = Steadiness()
        steadiness.settle(good)
        one = replace(good, **{field.name: getattr(lost, field.name)})
        assert [steadiness.settle(one) == good for _ in range(3)] == [True, True, False], field.name
        assert steadiness.settle(one) == one


def test_a_field_that_is_held_does_not_hold_up_another(
    good: Capabilities, lost: Capabilities, found_on: Callable[..., Capabilities]
) -> None:
    steadiness = Steadiness()
    steadiness.settle(good)
    changed = replace(found_on("genoa", "kvm-snp-off"), product=lost.product, sev=lost.sev)
    found = steadiness.settle(changed)
    assert found.sev_snp.state is State.DISABLED
    assert (found.sev, found.product) == (good.sev, good.product)


def test_patience_can_be_none_at_all(good: Capabilities, lost: Capabilities) -> None:
    steadiness = Steadiness(1)
    steadiness.settle(good)
    assert steadiness.settle(lost) == lost
