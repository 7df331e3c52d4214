"""The launch measurement of SEV and SEV-ES: an HMAC over the launch digest, keyed by the TIK.

Source: 55766 6.5.1 (LAUNCH_MEASURE). Not the launch digest itself: the host reports the
measurement, and only the guest owner, who chose the TIK, and the secure processor can make one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import FormatError, UsageError

if TYPE_CHECKING:
    from sevkit.secret import Secret

MEASUREMENT_SIZE: Final = 48
TIK_SIZE: Final = 16
_NAME: Final = "launch measurement"
_CONTEXT: Final = 0x04
_FIELDS: Final = struct.Struct("<BBBBI")


@final
@dataclass(frozen=True, slots=True)
class LaunchMeasurement:
    """What LAUNCH_MEASURE returns: the HMAC (32 bytes) and the nonce that it covers (16 bytes)."""

    measure: bytes
    mnonce: bytes


def parse_launch_measurement(data: bytes) -> LaunchMeasurement:
    """Return the two parts of the 48 bytes that libvirt and KubeVirt hand out.

    Source: 55766 6.5.1. Raises ``FormatError`` for another length.
    """
    if len(data) != MEASUREMENT_SIZE:
        message = f"expected {MEASUREMENT_SIZE} bytes, got {len(data)}"
        raise FormatError(_NAME, message, offset=min(len(data), MEASUREMENT_SIZE))
    return LaunchMeasurement(data[:32], data[32:])


def parse_launch_measurement_base64(text: str) -> LaunchMeasurement:
    """Return the parts of a measurement in base64, as KubeVirt and ``virsh`` show it.

    Only the standard alphabet, padded, without white space: anything else has been through
    something that may have changed it. Raises ``FormatError``.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise FormatError(
            _NAME,
            "not standard base64",
            hint="expected 64 characters of A-Z a-z 0-9 + /, without white space",
        ) from error
    found = parse_launch_measurement(data)
    if base64.b64encode(data).decode() != text:
        raise FormatError(_NAME, "base64 with stray bits at its end")
    return found


def compute_launch_measurement(
    tik: Secret,
    *,
    api_major: int,
    api_minor: int,
    build_id: int,
    policy: int,
    digest: bytes,
    mnonce: bytes,
) -> bytes:
    """Return the 32-byte HMAC that genuine firmware gives for this launch.

    Source: 55766 6.5.1: HMAC-SHA256 keyed by the 16-byte TIK over 0x04, API major, API minor,
    build (one byte each), policy (u32), launch digest (32 bytes) and mnonce (16 bytes). Compare
    with ``hmac.compare_digest``. Raises ``FormatError`` for a key, digest or nonce of another
    size, ``UsageError`` for a number that does not fit its field.
    """
    for name, size, wanted in (
        ("TIK", len(tik), TIK_SIZE),
        ("SEV launch digest", len(digest), 32),
        ("mnonce", len(mnonce), 16),
    ):
        if size != wanted:
            raise FormatError(name, f"expected {wanted} bytes, got {size}")
    for name, value, bits in (
        ("API major", api_major, 8),
        ("API minor", api_minor, 8),
        ("build ID", build_id, 8),
        ("guest policy", policy, 32),
    ):
        if not 0 <= value < 1 << bits:
            raise UsageError(f"{name} {value} does not fit {bits} bits")
    covered = _FIELDS.pack(_CONTEXT, api_major, api_minor, build_id, policy) + digest + mnonce
    return hmac.digest(tik.reveal(), covered, "sha256")
