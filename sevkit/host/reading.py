"""What came of one attempt to read something: a value, or the reason why there is none.

Three things that look alike are kept apart: what is off (a value), what is not there, and what
could not be read. Nothing that decides may take the third for one of the others.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar, final

from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
S = TypeVar("S")
_T_co = TypeVar("_T_co", covariant=True)


class Cause(StrEnum):
    """Why there is no value.

    ``absent``: looked, and it is not there. ``denied``: not for this user. ``failed``: it is there
    and reading it went wrong. ``malformed``: read, and it is not what it should be. ``silent``: the
    secure processor was asked and no longer answers. ``not-asked``: nobody looked.
    """

    ABSENT = "absent"
    DENIED = "denied"
    FAILED = "failed"
    MALFORMED = "malformed"
    SILENT = "silent"
    NOT_ASKED = "not-asked"


@final
@dataclass(frozen=True, slots=True)
class Known(Generic[_T_co]):
    """A value that was read."""

    value: _T_co


@final
@dataclass(frozen=True, slots=True)
class Unreadable:
    """No value; ``detail`` is one line that names the source."""

    cause: Cause
    detail: str


Reading: TypeAlias = Known[T] | Unreadable

_CAUSES: Final = {
    errno.ENOENT: Cause.ABSENT,
    errno.ENOTDIR: Cause.ABSENT,
    errno.ENXIO: Cause.ABSENT,
    errno.EACCES: Cause.DENIED,
    errno.EPERM: Cause.DENIED,
}


def value_of(reading: Reading[T]) -> T | None:
    """Return the value, or None without one; for values that are never None themselves."""
    return reading.value if isinstance(reading, Known) else None


def convert(reading: Reading[S], parse: Callable[[S], T]) -> Reading[T]:
    """Return what ``parse`` makes of a value; its ``FormatError`` is the reason for none."""
    if isinstance(reading, Unreadable):
        return reading
    try:
        return Known(parse(reading.value))
    except FormatError as error:
        return Unreadable(Cause.MALFORMED, error.message)


def not_readable(source: str, error: OSError) -> Unreadable:
    """Return the reason that the kernel gave for not reading ``source``."""
    number = error.errno or errno.EIO
    return Unreadable(_CAUSES.get(number, Cause.FAILED), f"{source}: {os.strerror(number)}")


def absent(source: str) -> Unreadable:
    """Return that ``source`` is not there."""
    return Unreadable(Cause.ABSENT, f"{source}: not there")


def not_asked(source: str, why: str) -> Unreadable:
    """Return that nobody looked at ``source``, and why."""
    return Unreadable(Cause.NOT_ASKED, f"{source}: {why}")
