"""Values of options: read from text strictly, or refused.

Numbers are ASCII digits alone. click's own would also take other alphabets' digits, underscores
and blanks, and a digest or a policy that nobody meant is worse than a refusal.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import click

from sevkit.errors import FormatError, UsageError
from sevkit.measure.terms import MAX_VCPUS

if TYPE_CHECKING:
    from collections.abc import Callable

_Value = TypeVar("_Value")

_RANGE: Final = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
_HEX: Final = re.compile(r"(?:0[xX])?([0-9a-fA-F]{1,16})")
_WHOLE: Final = re.compile(r"[0-9]{1,20}")
_EITHER: Final = re.compile(r"[0-9]{1,20}|0[xX][0-9a-fA-F]{1,16}")
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_VERSION: Final = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})(?:\.([0-9]{1,3}))?")


class StrictType(click.ParamType[_Value], ABC):
    """A type whose ``read`` returns the value of a text, or raises ``UsageError``."""

    @abstractmethod
    def read(self, text: str) -> _Value:
        """Return the value."""

    def convert(
        self,
        value: Any,  # noqa: ANN401  # click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> _Value:
        """Return the value of a text; click also hands over what was converted before."""
        if not isinstance(value, str):
            converted: _Value = value
            return converted
        try:
            return self.read(value)
        except (UsageError, FormatError) as error:
            self.fail(error.message, param, ctx)


@final
class WholeNumber(StrictType[int]):
    """A decimal number from ``least`` to ``most``, both included."""

    def __init__(self, least: int, most: int) -> None:
        self.name = f"{least}..{most}"
        self._least: Final = least
        self._most: Final = most

    def read(self, text: str) -> int:
        """Return the number."""
        if _WHOLE.fullmatch(text) is None or not self._least <= int(text) <= self._most:
            raise UsageError(f"{text!r} is not a number from {self._least} to {self._most}")
        return int(text)


@final
class VcpuRange(StrictType[tuple[int, int]]):
    """``N`` or ``A-B``, 1 to 512: (first, last)."""

    name = "N|A-B"

    def read(self, text: str) -> tuple[int, int]:
        """Return (first, last)."""
        found = _RANGE.fullmatch(text)
        if found is None:
            raise UsageError(f"{text!r} is not a number or a range A-B")
        first = int(found[1])
        last = int(found[2]) if found[2] else first
        if not 1 <= first <= last <= MAX_VCPUS:
            raise UsageError(f"{text} is not within 1 to {MAX_VCPUS}, in order")
        return first, last


@final
class HexNumber(StrictType[int]):
    """A number in hex, with or without 0x, of at most ``bits`` bits."""

    name = "HEX"

    def __init__(self, bits: int) -> None:
        self._bits: Final = bits

    def read(self, text: str) -> int:
        """Return the number."""
        found = _HEX.fullmatch(text)
        if found is None or int(found[1], 16) >= 1 << self._bits:
            raise UsageError(f"{text!r} is not a hex number of at most {self._bits} bits")
        return int(found[1], 16)


@final
class GuestPolicy(StrictType[int]):
    """A guest policy, decimal or hex with 0x, that ``parse`` takes: SEV's or SNP's."""

    name = "N"

    def __init__(self, parse: Callable[[int], object]) -> None:
        self._parse: Final = parse

    def read(self, text: str) -> int:
        """Return the policy."""
        if _EITHER.fullmatch(text) is None:
            raise UsageError(f"{text!r} is not a decimal number, nor hex with 0x")
        policy = int(text, 16) if text[:2].lower() == "0x" else int(text)
        self._parse(policy)
        return policy


@final
class Sha256Hex(StrictType[str]):
    """A SHA-256 in 64 hex digits, folded to lower case."""

    name = "SHA256"

    def read(self, text: str) -> str:
        """Return the digest in lower case."""
        if _SHA256.fullmatch(text) is None:
            raise UsageError(f"{text!r} is not 64 hex digits")
        return text.lower()


@final
class FirmwareVersion(StrictType[tuple[int, int, int]]):
    """``MAJOR.MINOR`` or ``MAJOR.MINOR.BUILD``, each 0 to 255: (major, minor, build)."""

    name = "MAJOR.MINOR[.BUILD]"

    def read(self, text: str) -> tuple[int, int, int]:
        """Return (major, minor, build)."""
        found = _VERSION.fullmatch(text)
        parts = [int(part or 0) for part in found.groups()] if found else [256]
        if max(parts) > 255:
            raise UsageError(f"{text!r} is not MAJOR.MINOR or MAJOR.MINOR.BUILD")
        return parts[0], parts[1], parts[2]
