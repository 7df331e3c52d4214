from __future__ import annotations

import pytest

from sevkit.errors import FormatError, HypervisorError
from sevkit.hypervisor import protocol


@pytest.mark.parametrize("size", [16, 3072, 16384])
def test_a_packet_that_firmware_takes_is_let_through(size: int) -> None:
    protocol.check_launch_secret(bytes(52), bytes(size))


@pytest.mark.parametrize(
    ("header", "secret"),
    [(0, 16), (51, 16), (53, 16), (52, 0), (52, 15), (52, 17), (52, 16400)],
)
def test_a_packet_that_no_firmware_takes_is_refused(header: int, secret: int) -> None:
    with pytest.raises(FormatError, match="launch secret"):
        protocol.check_launch_secret(bytes(header), bytes(secret))


def test_errors_are_told_apart_and_all_of_them_are_undecided() -> None:
    kinds = (
        protocol.HypervisorUnreachable,
        protocol.NoSuchDomain,
        protocol.NotSupported,
        protocol.WrongState,
    )
    assert all(issubclass(kind, HypervisorError) and kind.exit_code == 4 for kind in kinds)
    assert not any(issubclass(one, other) for one in kinds for other in kinds if one is not other)
