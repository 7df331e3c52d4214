"""Sockets that carry a deadline: however slowly the other side sends, the whole ends in time.

A socket's own timeout starts anew with every read, so a peer that sends one byte a second holds
its reader for ever. These give each operation only what is left until one fixed moment. Name
resolution alone is bounded by the system's resolver instead.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable

#: One address among several may be a hole; the others still get their turn.
CONNECT_SECONDS: Final = 10.0
_ADDRESSES: Final = 4


@final
class Deadline:
    """A moment on a monotonic clock, ``seconds`` from now."""

    __slots__ = ("_end", "_monotonic")

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._monotonic: Final = monotonic
        self._end: Final = monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, more than 0, or raise ``TimeoutError``."""
        left = self._end - self._monotonic()
        if left <= 0:
            raise TimeoutError("deadline is over")
        return left


@final
class DeadlineContext(ssl.SSLContext):
    """A TLS client context, certificates and names checked, whose sockets keep to one deadline.

    ``ca`` is PEM of the only authorities to accept; None takes the system's. Made for one
    connection. Raises ``ssl.SSLError`` or ``ValueError`` for a ``ca`` that holds no certificate.
    """

    deadline: Deadline
    opened: list[ssl.SSLSocket]

    @classmethod
    def make(cls, ca: bytes | None, deadline: Deadline) -> DeadlineContext:
        """Return a context for one connection."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.deadline = deadline
        context.opened = []
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = _TlsSocket
        if ca is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            context.load_verify_locations(cadata=ca.decode("ascii"))
        return context

    def close(self) -> None:
        """Close every connection that was made with this context, whoever still refers to it.

        A socket's own ``close`` waits for its readers, and an HTTP response that was given up in
        the middle of its header is one that nobody closes.
        """
        for connection in self.opened:
            descriptor = connection.detach()
            if descriptor >= 0:
                os.close(descriptor)
        self.opened.clear()


class _TlsSocket(ssl.SSLSocket):
    def _limit(self) -> None:
        context = self.context
        if isinstance(context, DeadlineContext):
            self.settimeout(context.deadline.left())

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT002  # ssl's own signature
        self._limit()
        super().do_handshake(block)
        context = self.context
        if isinstance(context, DeadlineContext):
            context.opened.append(self)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401  # ssl's own signature
        self._limit()
        return super().recv_into(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401  # ssl's own signature
        self._limit()
        return super().send(*args, **kwargs)


class _PlainSocket(socket.socket):
    """What lies below TLS, and what speaks to a proxy."""

    deadline: Deadline

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401  # socket's own signature
        self.settimeout(self.deadline.left())
        return super().recv_into(*args, **kwargs)


def connect(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Return a TCP connection to the first address of ``host`` that answers, or raise ``OSError``.

    At most four addresses are tried.
    """
    failure = OSError("the name has no address")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
    for family, kind, protocol, _, address in found[:_ADDRESSES]:
        attempt = _PlainSocket(family, kind, protocol)
        attempt.deadline = deadline
        try:
            attempt.settimeout(min(CONNECT_SECONDS, deadline.left()))
            attempt.connect(address)
            attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            attempt.close()
            failure = error
        else:
            return attempt
    raise failure
