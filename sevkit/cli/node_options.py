"""What ``sevkit node`` commands share: which host is meant, and how it is probed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.cli.files import read_file
from sevkit.host.probe import probe_host
from sevkit.host.sources import open_host

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.host.facts import HostFacts

_OPTIONS: Final = (
    click.option(
        "--host-root",
        metavar="DIR",
        help="A simulated or captured host's root instead of this machine; nothing else is read.",
    ),
    click.option(
        "--host-sys",
        metavar="DIR",
        help="Where the host's /sys is.  [default: /host/sys if it is there, else /sys]",
    ),
    click.option(
        "--firmware-facts",
        metavar="FILE",
        help="A firmware.json of whoever may ask /dev/sev, where this process may not.",
    ),
    click.option(
        "--domain-capabilities",
        metavar="FILE",
        help="What `virsh domcapabilities` prints, to compare with; needs the extra 'libvirt'.",
    ),
)


def host_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a host, for ``probe`` to take."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def probe(given: dict[str, Any]) -> HostFacts:
    """Return the facts of the host that the options name. Raises ``UsageError``."""
    capabilities = given["domain_capabilities"]
    document = None if capabilities is None else read_file(capabilities)
    with open_host(
        given["host_root"], sys=given["host_sys"], firmware_file=given["firmware_facts"]
    ) as source:
        return probe_host(source, document)
