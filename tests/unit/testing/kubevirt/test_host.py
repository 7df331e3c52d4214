from __future__ import annotations

from typing import TYPE_CHECKING

from sevkit.abi.product import Product
from sevkit.measure.terms import Mode
from sevkit.testing.kubevirt.host import SimulatedHost, choose_host
from sevkit.testing.secure_processor.core import AsidRange
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.virtual_machine import Machine

if TYPE_CHECKING:
    from sevkit.testing.sev_chain import SimulatedRoots


def rome(roots: SimulatedRoots, *, name: str = "rome", asids: AsidRange) -> SimulatedHost:
    return SimulatedHost(name, SecureProcessor(ChipIdentity(Product.ROME, roots), asids=asids))


def test_a_host_takes_what_its_chip_and_its_asids_allow(
    host: SimulatedHost, sev_roots: SimulatedRoots
) -> None:
    assert all(host.takes(mode) for mode in (None, *Mode))
    only_sev = rome(sev_roots, asids=AsidRange(4, 1))
    assert [mode for mode in Mode if only_sev.takes(mode)] == [Mode.SEV]
    assert only_sev.free(Mode.SEV) == 4


def test_the_host_with_most_free_asids_is_chosen_and_those_on_their_way_count(
    sev_roots: SimulatedRoots, firmware: bytes
) -> None:
    large = rome(sev_roots, name="large", asids=AsidRange(6, 3))
    small = rome(sev_roots, name="small", asids=AsidRange(5, 3))
    assert choose_host([small, large], Mode.SEV, {}) is large
    assert choose_host([small, large], Mode.SEV, {"large": 2}) is small
    with large.kvm.launch_sev(Machine(firmware), 1), large.kvm.launch_sev(Machine(firmware), 1):
        assert large.free(Mode.SEV) == 2
        assert choose_host([small, large], Mode.SEV, {}) is small


def test_a_host_without_a_free_asid_is_chosen_where_there_is_no_other(
    sev_roots: SimulatedRoots, firmware: bytes
) -> None:
    full = rome(sev_roots, asids=AsidRange(1, 1))
    with full.kvm.launch_sev(Machine(firmware), 1):
        assert full.free(Mode.SEV) == 0
        assert choose_host([full], Mode.SEV, {}) is full
    assert choose_host([full], Mode.SNP, {}) is None
