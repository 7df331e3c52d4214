from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sevkit.errors import VerificationError
from sevkit.measure.terms import Mode
from sevkit.testing.kubevirt.launch_wish import parse_wish
from sevkit.testing.kubevirt.launcher import Launcher
from sevkit.testing.kubevirt.owner_side import OwnerSide, make_vmi

if TYPE_CHECKING:
    from sevkit.testing.kubevirt.host import SimulatedHost


def test_every_vmi_has_a_name_of_its_own_and_asks_for_its_mode() -> None:
    vmis = [make_vmi(mode) for mode in Mode]
    assert len({vmi["metadata"]["name"] for vmi in vmis}) == len(vmis)
    assert [parse_wish(vmi).mode for vmi in vmis] == list(Mode)


def test_an_owner_makes_no_session_for_a_root_that_he_does_not_trust(
    host: SimulatedHost, owner: OwnerSide
) -> None:
    info = json.dumps(Launcher(("ns", "one"), host, {}, deadline=0).platform_info()).encode()
    assert owner.new_session(info, 1).chip
    stranger = OwnerSide(owner.firmware, owner.ca, (), owner.signed_ceks)
    with pytest.raises(VerificationError):
        stranger.new_session(info, 1)
    without_cek = OwnerSide(owner.firmware, owner.ca, owner.roots, ())
    with pytest.raises(VerificationError):
        without_cek.new_session(info, 1)
