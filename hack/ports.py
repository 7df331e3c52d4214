"""Ports of loopback for servers that have to be told one."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a port of loopback that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
