"""Where a server listens: ``HOST:PORT`` read, and a socket that listens there."""

from __future__ import annotations

import re
import socket
from typing import Final, TypeAlias

from sevkit.errors import UsageError

#: Host or IP, and port; 0 takes a free one.
Address: TypeAlias = "tuple[str, int]"
_ADDRESS: Final = re.compile(r"([0-9A-Za-z.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):([0-9]{1,5})")
_MOST: Final = 0xFFFF


def parse_address(text: str) -> Address:
    """Return ``HOST:PORT``, ``[IPV6]:PORT`` for an address of IPv6. Raises ``UsageError``."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[2]) > _MOST:
        raise UsageError(f"{text[:80]!r} is not HOST:PORT", hint="such as 127.0.0.1:9465")
    return found[1].strip("[]"), int(found[2])


def listen(address: Address, *, backlog: int) -> socket.socket:
    """Return a socket that listens at ``address``, and never blocks. Raises ``UsageError``."""
    host, port = address
    if not 0 <= port <= _MOST:  # which the socket module finds out too late to close its socket
        raise UsageError(f"cannot listen on {host}: {port} is no port")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=backlog)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UsageError(
            f"cannot listen on {host} port {port}: {(reason or 'no such address').lower()}",
            hint="is the address this pod's own, and the port free?",
        ) from error
    listener.setblocking(False)  # noqa: FBT003  # socket's own signature
    return listener
