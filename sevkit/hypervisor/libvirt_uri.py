"""What a libvirt URI says of where the hypervisor is. Pure.

Source: libvirt, "Connection URIs": ``driver[+transport]://[user@][host][:port]/[path][?params]``.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from typing import Final

#: Transports that end on this machine, whatever is behind them.
_HERE: Final = frozenset({"unix", "ext"})


def names_another_machine(uri: str) -> bool:
    """Return whether a URI has a host that is not this one.

    One without a host, by a socket, or of an alias is none: nobody can say where that leads.
    """
    try:
        parts = urllib.parse.urlsplit(uri)
        host = parts.hostname
    except ValueError:
        return False
    transport = parts.scheme.partition("+")[2]
    return bool(host) and transport not in _HERE and not _is_loopback(host or "")


def _is_loopback(host: str) -> bool:
    name = host.rstrip(".")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
