"""What a hostile or broken host may do to a launch, and what it may say of it.

``Lies`` are given to ``SimulatedKubeVirt.lie``. Some change the launch itself: the processor then
really measures another firmware, other vCPUs, another policy. The others change what is said, as
any program between processor and guest owner can. None of them is a key that the host cannot have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.sevcert import KEY_OFFSET, SIZE
from sevkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.secure_processor.processor import SecureProcessor

#: Where a SEV certificate on P-384 has the y coordinate of its key (55766 appendix C).
_KEY_Y: Final = KEY_OFFSET + 0x4C
MEASURE_SIZE: Final = 32


@final
@dataclass(frozen=True, slots=True)
class Lies:
    """Everything is told truly unless it is named here.

    ``firmware``, ``policy``, ``vcpus``: launch with these in place of what was asked for.
    ``chain``: takes and returns (pdh, pek ‖ oca ‖ cek). ``measurement``: takes and returns the
    48 bytes. ``api``: API major, minor and build. ``reported_policy`` and ``loader_sha`` (hex)
    stand in the answer. ``refuse``: start no domain, with this text as QEMU's.
    """

    firmware: bytes | None = None
    policy: int | None = None
    vcpus: int | None = None
    chain: Callable[[bytes, bytes], tuple[bytes, bytes]] = field(
        default=lambda pdh, rest: (pdh, rest)
    )
    measurement: Callable[[bytes], bytes] = field(default=lambda measurement: measurement)
    api: tuple[int, int, int] | None = None
    reported_policy: int | None = None
    loader_sha: str | None = None
    refuse: str = ""


TRUTH: Final = Lies()


def other_chip(processor: SecureProcessor) -> Lies:
    """Show the chain of another chip: genuine, and useless to this one's guests."""
    shown = processor.sev.pdh_cert_export()
    return Lies(chain=lambda _pdh, _rest: shown)


def self_made_root(processor: SecureProcessor) -> Lies:
    """Show a chain whose CEK is signed by an ASK that nobody knows: ``processor``'s own maker."""
    pdh, rest = processor.sev.pdh_cert_export()
    shown = rest[:-SIZE] + processor.identity.signed_cek
    return Lies(chain=lambda _pdh, _rest: (pdh, shown))


def off_the_curve(pdh: bytes, rest: bytes) -> tuple[bytes, bytes]:
    """Move the PDH's point off P-384; its signature cannot hold either."""
    if len(pdh) != SIZE:
        raise UsageError(f"a PDH has {SIZE} bytes")
    return pdh[:_KEY_Y] + bytes([pdh[_KEY_Y] ^ 1]) + pdh[_KEY_Y + 1 :], rest


def replay(measurement: bytes) -> Lies:
    """Answer with a measurement of an earlier launch."""
    return Lies(measurement=lambda _: measurement)


def truncated() -> Lies:
    """Answer with 47 bytes of measurement."""
    return Lies(measurement=lambda measurement: measurement[:-1])


def flipped() -> Lies:
    """Answer with a measurement in which one bit of the HMAC is wrong."""

    def flip(measurement: bytes) -> bytes:
        last = MEASURE_SIZE - 1
        return measurement[:last] + bytes([measurement[last] ^ 1]) + measurement[last + 1 :]

    return Lies(measurement=flip)
