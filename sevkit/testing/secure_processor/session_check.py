"""What LAUNCH_START makes of a guest owner's session before there is a guest.

Source: 55766 4.3 and 6.2. In the firmware's order: sizes, the DH certificate's body, the MAC of the
wrapped keys, the policy's MAC, and only then what the policy demands. Without a DH certificate
nobody looks at any of it, the policy included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.policy import SEV_POLICY_RESERVED, sev_policy_api
from sevkit.abi.session import (
    KEY_SIZE,
    SESSION,
    TransportKeys,
    compute_shared_secret,
    open_session,
    parse_session,
)
from sevkit.abi.sevcert import SIZE
from sevkit.errors import FormatError, SignatureMismatch
from sevkit.secret import Secret
from sevkit.testing.secure_processor.certificates import read_dh_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

#: What a guest without an owner has, and every guest once it runs.
NO_KEYS: Final = TransportKeys(Secret(bytes(KEY_SIZE)), Secret(bytes(KEY_SIZE)))


def take_session(
    command: str,
    pdh: EllipticCurvePrivateKey,
    session: bytes,
    godh: bytes,
    *,
    policy: int,
    api: tuple[int, int],
) -> TransportKeys:
    """Return TEK and TIK from ``session`` (128 bytes), sealed for ``pdh`` under ``policy``.

    ``godh`` is the owner's DH certificate, ``api`` the firmware's own level. Raises
    ``CommandError``.
    """
    if len(session) != SESSION.size or len(godh) != SIZE:
        raise CommandError(command, FirmwareStatus.INVALID_LEN)
    key = read_dh_key(command, godh)
    try:
        shared = compute_shared_secret(pdh, key)
    except FormatError as error:
        raise CommandError(command, FirmwareStatus.INVALID_CERTIFICATE, error.message) from error
    try:
        keys = open_session(parse_session(session), shared, policy)
    except SignatureMismatch as error:
        raise CommandError(command, FirmwareStatus.BAD_MEASUREMENT, error.message) from error
    if sev_policy_api(policy) > api or policy & SEV_POLICY_RESERVED:
        raise CommandError(command, FirmwareStatus.POLICY_FAILURE)
    return keys
