"""The command line and the environment, as one value. Every option has a default that a pod's fits.

Source of the environment: Kubernetes' downward API, as ``deploy/node-agent`` sets it.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, final

from node_agent.agent import Rhythm
from node_agent.nfd_sink import NFD_FILE
from sevkit import __version__
from sevkit.errors import UsageError
from sevkit.observe.listening import parse_address

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PORT: Final = 9465
DEVICE_PLUGINS: Final = "/var/lib/kubelet/device-plugins"
SINKS: Final = ("kubernetes", "nfd", "stdout")
_LEVELS: Final = ("debug", "info", "warning", "error")

_TEXT: Final = """\
Find out what this host can really do with AMD SEV, SEV-ES and SEV-SNP, and keep its Node saying so:
labels, an annotation with the reasons, and extended resources with the number of guests.
"""
_EXAMPLES: Final = """\
Examples:
  python -m node_agent                                        in a pod: keep this pod's Node true
  python -m node_agent --sink stdout --once --dry-run         show what this machine would publish
  python -m node_agent --sink stdout --once --host-root DIR   the same of a captured host's files
  python -m node_agent --kubeconfig FILE --node-name N --once --dry-run
                                                              show what would be applied to Node N

Environment: NODE_NAME, POD_NAME and POD_IP, by the downward API.
Exit codes: 0 done or asked to stop, 2 usage, 4 could not publish (--once), 70 a bug.
"""


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for. ``listen`` is host and port, None for not at all."""

    sink: str
    node_name: str
    pod_name: str
    once: bool
    dry_run: bool
    host_root: str | None
    host_sys: str | None
    firmware_facts: str | None
    sev_es_beside_snp: int
    rhythm: Rhythm
    listen: tuple[str, int] | None
    device_plugins: str
    nfd_file: str
    kubeconfig: Path | None
    context: str
    log_level: str


@final
class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Refuse in our manner: one line, and where to look."""
        raise UsageError(message, hint=f"{self.prog} --help")


def parse_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings. Raises ``UsageError``; ``--help`` and ``--version`` raise SystemExit."""
    given = _parser().parse_args(arguments)
    node_name = given.node_name or environ.get("NODE_NAME", "")
    if given.sink == "kubernetes" and not node_name:
        raise UsageError(
            "node's name is not known", hint="--node-name N, or NODE_NAME by the downward API"
        )
    if given.once and given.listen:
        raise UsageError("with --once nobody is there to listen", hint="leave --listen out")
    return Settings(
        sink=given.sink,
        node_name=node_name,
        pod_name=environ.get("POD_NAME", ""),
        once=given.once,
        dry_run=given.dry_run,
        host_root=given.host_root,
        host_sys=given.host_sys,
        firmware_facts=given.firmware_facts,
        sev_es_beside_snp=given.allow_sev_es_beside_snp,
        rhythm=Rhythm(given.interval, given.reassert, given.start_spread),
        listen=None if given.once else _address(given.listen, environ.get("POD_IP", "")),
        device_plugins=given.device_plugins,
        nfd_file=given.nfd_file,
        kubeconfig=None if given.kubeconfig is None else Path(given.kubeconfig),
        context=given.context,
        log_level=given.log_level,
    )


def _address(listen: str | None, pod_address: str) -> tuple[str, int] | None:
    """Return where to listen: where it was asked for, else at the pod's own address, if it has one.

    Never at every address: what a host's metrics say is nobody's outside of the cluster's network.
    """
    if listen is None:
        return (pod_address, PORT) if pod_address else None
    return parse_address(listen)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not 0 <= value <= 7 * 86400:
        raise argparse.ArgumentTypeError("must be 0 to 604800 seconds")
    return value


def _interval(text: str) -> float:
    value = _seconds(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1 second")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise argparse.ArgumentTypeError("must be a number of ASIDs")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m node_agent",
        description=_TEXT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--version", action="version", version=f"sevkit {__version__}")
    add("--sink", choices=SINKS, default="kubernetes", help="where to publish [kubernetes]")
    add("--once", action="store_true", help="probe and publish once, then exit")
    add("--dry-run", action="store_true", help="print what would be published, and change nothing")
    add("--node-name", metavar="N", default="", help="the Node to keep true [$NODE_NAME]")
    host = parser.add_argument_group("the host")
    add = host.add_argument
    add("--host-root", metavar="DIR", help="a simulated or captured host; nothing else is read")
    add("--host-sys", metavar="DIR", help="where the host's /sys is [/host/sys if there, or /sys]")
    add("--firmware-facts", metavar="FILE", help="firmware.json that the firmware reader keeps")
    add(
        "--allow-sev-es-beside-snp",
        metavar="N",
        type=_count,
        default=0,
        help="give SEV-ES N ASIDs beside SEV-SNP, accepting CVE-2025-48514 of older firmware [0]",
    )
    add(
        "--device-plugins",
        metavar="DIR",
        default=DEVICE_PLUGINS,
        help=f"kubelet's folder, to see it start anew [{DEVICE_PLUGINS}]",
    )
    times = parser.add_argument_group("times, in seconds")
    add = times.add_argument
    add(
        "--interval", metavar="S", type=_interval, default=60.0, help="between probes, ± 20 %% [60]"
    )
    add(
        "--reassert",
        metavar="S",
        type=_interval,
        default=21600.0,
        help="between publications without a change, ± 20 %% [21600]",
    )
    add(
        "--start-spread",
        metavar="S",
        type=_seconds,
        default=120.0,
        help="within which the first publication happens [120]",
    )
    rest = parser.add_argument_group("the rest")
    add = rest.add_argument
    add(
        "--listen",
        metavar="HOST:PORT",
        help=f"/metrics, /healthz and /readyz [$POD_IP:{PORT}, or not at all]",
    )
    add("--nfd-file", metavar="FILE", default=NFD_FILE, help=f"of the sink nfd [{NFD_FILE}]")
    add("--kubeconfig", metavar="FILE", help="a cluster from outside of it [the pod's own]")
    add("--context", metavar="NAME", default="", help="the kubeconfig's context [its current one]")
    add("--log-level", choices=_LEVELS, default="info", help="of the JSON lines on stderr [info]")
    return parser
