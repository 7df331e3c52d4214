"""TCB versions: the security patch levels of the firmware that an SNP guest depends on.

The eight bytes mean different things on different products, so a version is made from the
product line and the raw value, never from the raw value alone. Versions are compared component
by component: as one integer, a newer microcode would hide an older bootloader.
Source: 56860 2.2 (TCB_VERSION; table 3 up to Genoa, table 4 from Turin).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.product import ProductLine
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Byte position of each component in the eight bytes, least significant first.
_BEFORE_TURIN: Final = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
_TURIN: Final = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}

POSITIONS: Final[Mapping[ProductLine, Mapping[str, int]]] = {
    ProductLine.MILAN: _BEFORE_TURIN,
    ProductLine.GENOA: _BEFORE_TURIN,
    ProductLine.TURIN: _TURIN,
}
#: Bits of the raw value that belong to no component.
_RESERVED: Final = {
    line: (1 << 64) - 1 - sum(0xFF << 8 * index for index in positions.values())
    for line, positions in POSITIONS.items()
}


@final
@dataclass(frozen=True, slots=True)
class TcbVersion:
    """One TCB version: each component 0 to 255; ``fmc`` is None before Turin."""

    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None

    @property
    def components(self) -> dict[str, int]:
        """The components that this version has, by name, in the order of AMD's tables."""
        values = {
            "fmc": self.fmc,
            "bootloader": self.bootloader,
            "tee": self.tee,
            "snp": self.snp,
            "microcode": self.microcode,
        }
        return {name: value for name, value in values.items() if value is not None}

    def below(self, floor: TcbVersion) -> tuple[str, ...]:
        """Return the components in which this version is lower than ``floor``.

        A component that ``floor`` has and this version lacks counts as lower.
        """
        own = self.components
        return tuple(name for name, value in floor.components.items() if own.get(name, -1) < value)

    def __str__(self) -> str:
        return _words(self)


@lru_cache(maxsize=1024)
def _words(tcb: TcbVersion) -> str:
    """Return a version in words. A fleet has few versions, and every report shows several."""
    return ",".join(f"{name}={value}" for name, value in tcb.components.items())


def parse_tcb(line: ProductLine, raw: int, *, structure: str, offset: int) -> TcbVersion:
    """Return the TCB version of a 64-bit raw value read from ``structure`` at ``offset``.

    Raises ``FormatError`` if a reserved byte is not zero, or for a line without SNP.
    """
    positions = POSITIONS.get(line)
    if positions is None:
        raise FormatError(structure, f"{line} has no TCB versions", offset=offset)
    if raw & _RESERVED[line]:
        used = set(positions.values())
        for index, value in enumerate(raw.to_bytes(8, "little")):
            if value and index not in used:
                message = f"reserved byte of a {line} TCB version is {value:#04x}, not 0"
                raise FormatError(structure, message, offset=offset + index)
    return _components(line, raw)


@lru_cache(maxsize=1024)
def _components(line: ProductLine, raw: int) -> TcbVersion:
    """Return a version whose reserved bits are known to be zero; most of a report's are equal."""
    return TcbVersion(**{name: raw >> 8 * index & 0xFF for name, index in POSITIONS[line].items()})


def encode_tcb(line: ProductLine, tcb: TcbVersion) -> int:
    """Return the 64-bit raw value of ``tcb``, as ``parse_tcb`` reads it."""
    components = tcb.components
    positions = POSITIONS.get(line, {})
    if set(components) != set(positions):
        raise FormatError("TCB version", f"{line} has the components {', '.join(positions)}")
    data = bytearray(8)
    for name, index in positions.items():
        if not 0 <= components[name] <= 255:
            raise FormatError("TCB version", f"{name} must be 0 to 255, got {components[name]}")
        data[index] = components[name]
    return int.from_bytes(data, "little")


def parse_tcb_words(text: str) -> dict[str, int]:
    """Return the components in ``bootloader=3,tee=0,snp=8,microcode=115[,fmc=1]``.

    Every name at most once, every value 0 to 255. Raises ``FormatError``.
    """
    found: dict[str, int] = {}
    for word in text.split(","):
        name, equals, value = word.strip().partition("=")
        if name not in _TURIN or not equals or name in found:
            known = ", ".join(_TURIN)
            raise FormatError(
                "TCB version", f"{word[:64]!r} is not NAME=N once", hint=f"names: {known}"
            )
        if not (value.isascii() and value.isdigit() and len(value) <= 3 and int(value) <= 255):
            raise FormatError("TCB version", f"{word[:64]!r}: the value must be 0 to 255")
        found[name] = int(value)
    return found
