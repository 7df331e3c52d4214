"""Binary layouts as tables that a reviewer can hold against AMD's, line by line.

A ``Layout`` is a tuple of fields with explicit offsets over one ``struct.Struct``. Gaps, overlaps
and a wrong total are refused when the module is imported, wrong lengths and non-zero reserved
bytes when data is parsed, each with the structure's name and the offset of the first bad byte.
All integers are little-endian, as in every structure of AMD's publications 55766 and 56860.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

_INT_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True, slots=True)
class Field:
    """One row of a layout: ``size`` bytes at ``offset``.

    ``kind`` is ``int`` (unsigned, little-endian, 1, 2, 4 or 8 bytes), ``bytes``, ``zero``
    (reserved, must be zero) or ``any`` (not looked at, encoded as zero).
    """

    offset: int
    size: int
    name: str
    kind: str


def integer(offset: int, size: int, name: str) -> Field:
    """Return a row for an unsigned little-endian integer of ``size`` bytes."""
    return Field(offset, size, name, "int")


def raw(offset: int, size: int, name: str) -> Field:
    """Return a row for ``size`` bytes taken as they are."""
    return Field(offset, size, name, "bytes")


def zero(offset: int, size: int) -> Field:
    """Return a row for reserved bytes that must be zero."""
    return Field(offset, size, f"reserved_{offset:x}", "zero")


@final
class Record:
    """The values of one parsed structure, by field name."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, int | bytes]) -> None:
        self._values: Final = values

    def int(self, name: str) -> int:
        """Return an integer field."""
        value = self._values[name]
        if not isinstance(value, int):
            raise TypeError(name)
        return value

    def raw(self, name: str) -> bytes:
        """Return a bytes field."""
        value = self._values[name]
        if not isinstance(value, bytes):
            raise TypeError(name)
        return value


@final
class Layout:
    """A fixed-size structure: its name in AMD's terms, its size in bytes, and its rows."""

    __slots__ = ("_names", "_reserved", "_struct", "fields", "name", "size")

    def __init__(self, name: str, size: int, fields: tuple[Field, ...]) -> None:
        self.name: Final = name
        self.size: Final = size
        self.fields: Final = fields
        codes = ["<"]
        end = 0
        for field in fields:
            if field.offset != end:
                message = f"{name}: {field.name} starts at {field.offset:#x}, expected {end:#x}"
                raise AssertionError(message)
            codes.append(_INT_CODES[field.size] if field.kind == "int" else f"{field.size}s")
            end += field.size
        if end != size or len({field.name for field in fields}) != len(fields):
            message = f"{name}: rows end at {end:#x}, expected {size:#x}, or a name occurs twice"
            raise AssertionError(message)
        self._struct: Final = struct.Struct("".join(codes))
        self._names: Final = tuple(field.name for field in fields)
        self._reserved: Final = tuple(
            (field.name, field.offset, bytes(field.size))
            for field in fields
            if field.kind == "zero"
        )

    def parse(self, data: bytes, *, check_reserved: bool = True) -> Record:
        """Return the values of ``data``, which must be exactly ``size`` bytes.

        ``check_reserved=False`` is for structures whose reserved bytes depend on a version field:
        the caller then checks them with ``check_zero``. Raises ``FormatError``.
        """
        if len(data) != self.size:
            raise FormatError(
                self.name,
                f"expected {self.size} bytes, got {len(data)}",
                offset=min(len(data), self.size),
            )
        values = dict(zip(self._names, self._struct.unpack(data), strict=True))
        if check_reserved:
            for name, offset, zeros in self._reserved:
                if values[name] != zeros:
                    check_zero(self.name, data, offset, len(zeros))
        return Record(values)

    def encode(self, values: Mapping[str, int | bytes]) -> bytes:
        """Return ``size`` bytes; every ``int`` and ``bytes`` row must be given, at full size."""
        row: list[int | bytes] = []
        for field in self.fields:
            value = bytes(field.size) if field.kind in {"zero", "any"} else values[field.name]
            if isinstance(value, bytes):
                if len(value) != field.size:
                    message = f"{field.name} must be {field.size} bytes, got {len(value)}"
                    raise FormatError(self.name, message, offset=field.offset)
            elif not 0 <= value < 1 << 8 * field.size:
                message = f"{field.name} does not fit {field.size} bytes"
                raise FormatError(self.name, message, offset=field.offset)
            row.append(value)
        return self._struct.pack(*row)


def check_zero(structure: str, data: bytes, offset: int, size: int) -> None:
    """Refuse ``data[offset:offset + size]`` unless it is all zero, naming the first other byte."""
    if not any(data[offset : offset + size]):
        return
    for position, value in enumerate(data[offset : offset + size], offset):
        if value:
            raise FormatError(structure, f"reserved byte is {value:#04x}, not 0", offset=position)
