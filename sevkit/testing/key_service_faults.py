"""The faults of the simulated key service: everything but the certificate that was asked for.

Each is written byte by byte as a broken, overloaded or hostile server would; ``play`` stops when
the client hangs up or the service ends, so that 10 GiB never really go over the wire.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

_PAGE: Final = b"<!DOCTYPE html>\n<html><body>Sign in to this network</body></html>\n"
_BLOCK: Final = bytes(1 << 16)
_ENDLESS: Final = 10 << 30
#: Longer than any client in its right mind waits.
_LONGEST: Final = 600.0


class _Manner(Enum):
    WHOLE = auto()
    ENDLESS = auto()
    SILENCE = auto()
    DRIP = auto()


@final
@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: ``head``, then ``body`` in its manner. Made by the functions below."""

    manner: _Manner
    head: bytes = b""
    body: bytes = b""
    pause: float = 0.0
    #: Whether it comes instead of TLS, see ``instead_of_tls``.
    early: bool = False


def status(code: int, *headers: str, body: bytes = b"") -> Fault:
    """Any status, with header lines and a body."""
    return Fault(_Manner.WHOLE, _head(code, *headers, length=len(body)), body)


def not_found() -> Fault:
    """404: what AMD answers for a chip or TCB version that it does not know."""
    return status(404, body=b"not found")


def too_many_requests(retry_after: str | None = None) -> Fault:
    """429, with a Retry-After header of any text, or without one."""
    return status(429, *([] if retry_after is None else [f"Retry-After: {retry_after}"]))


def redirect(location: str) -> Fault:
    """302 to ``location``."""
    return status(302, f"Location: {location}")


def web_page() -> Fault:
    """200 with HTML, as captive portals and proxies answer."""
    return status(200, "Content-Type: text/html", body=_PAGE)


def content(body: bytes) -> Fault:
    """200 with any bytes, also none."""
    return status(200, body=body)


def mislabelled(body: bytes, content_type: str) -> Fault:
    """200 with any bytes, and a Content-Type that says something else of them."""
    return status(200, f"Content-Type: {content_type}", body=body)


def wrong_length(body: bytes, *, declared: int) -> Fault:
    """200 with a Content-Length that is not that of ``body``: ``declared``, in bytes."""
    return Fault(_Manner.WHOLE, _head(200, length=declared), body)


def truncated(body: bytes, *, missing: int = 100) -> Fault:
    """200 with a Content-Length that is larger than what is sent by ``missing``."""
    return wrong_length(body, declared=len(body) + missing)


def raw(data: bytes) -> Fault:
    """Any bytes in place of an HTTP response, also none: then the connection just ends."""
    return Fault(_Manner.WHOLE, data)


def endless(*, declared: bool) -> Fault:
    """200 and 10 GiB of zeros, with or without saying so in Content-Length."""
    return Fault(_Manner.ENDLESS, _head(200, length=_ENDLESS if declared else None))


def silence() -> Fault:
    """Nothing at all, on a connection that stays open."""
    return Fault(_Manner.SILENCE)


def drip(body: bytes, *, pause: float, after: bytes | None = None) -> Fault:
    """One byte at a time with ``pause`` seconds between; ``after`` goes first, at once.

    By default the head of a good response; with ``after=b""`` the head itself has to be in
    ``body`` and drips too.
    """
    head = _head(200, length=len(body)) if after is None else after
    return Fault(_Manner.DRIP, head, body, pause)


def instead_of_tls(fault: Fault) -> Fault:
    """``fault`` on the bare connection, where the TLS handshake should be.

    With ``silence`` a handshake that stalls, with ``raw`` a port on which something else speaks.
    """
    return replace(fault, early=True)


def play(fault: Fault, write: Callable[[bytes], object], stopping: threading.Event) -> None:
    """Write ``fault``; return when it is over, or soon after ``stopping`` is set."""
    write(fault.head)
    if fault.manner is _Manner.SILENCE:
        stopping.wait(_LONGEST)
    elif fault.manner is _Manner.WHOLE:
        write(fault.body)
    elif fault.manner is _Manner.DRIP:
        for value in fault.body:
            write(bytes([value]))
            if stopping.wait(fault.pause):
                return
    else:
        for _ in range(_ENDLESS // len(_BLOCK)):
            if stopping.is_set():
                return
            write(_BLOCK)


def _head(code: int, *headers: str, length: int | None) -> bytes:
    lines = [f"HTTP/1.1 {code} Simulated", "Connection: close", *headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
