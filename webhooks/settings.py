"""The command line and the environment, as one value. Every default fits a pod."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, final

from sevkit import __version__
from sevkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PORT: Final = 9443
HEALTH_PORT: Final = 9466
TLS_FOLDER: Final = "/etc/sevkit/tls"
_LEVELS: Final = ("debug", "info", "warning", "error")
_TEXT: Final = """\
Turn the VMIs of labelled namespaces into well-formed confidential ones, or refuse them with the
reason. The API server calls it; see deploy/webhook.
"""
_EXAMPLES: Final = """\
Examples:
  python -m webhooks --policy /etc/sevkit/policy.yaml        in a pod, with a mounted certificate
  python -m webhooks --kubeconfig FILE --tls-dir DIR --listen 127.0.0.1:9443
                                                             from outside of the cluster

Environment: POD_IP by the downward API.
Exit codes: 0 asked to stop, 2 usage, 4 no certificate could be had, 70 a bug.
"""


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for; addresses are host and port, None for not at all."""

    listen: tuple[str, int]
    health: tuple[str, int] | None
    tls_folder: Path
    policy: Path | None
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
    pod = environ.get("POD_IP", "")
    return Settings(
        listen=_address("--listen", given.listen) or (pod or "127.0.0.1", PORT),
        health=_address("--health", given.health) or ((pod, HEALTH_PORT) if pod else None),
        tls_folder=Path(given.tls_dir),
        policy=None if given.policy is None else Path(given.policy),
        kubeconfig=None if given.kubeconfig is None else Path(given.kubeconfig),
        context=given.context,
        log_level=given.log_level,
    )


def _address(option: str, text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise UsageError(f"{option} {text!r} is not HOST:PORT", hint=f"{option} 127.0.0.1:{PORT}")
    return host, int(port)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m webhooks",
        description=_TEXT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--version", action="version", version=f"sevkit {__version__}")
    add("--listen", metavar="HOST:PORT", help=f"where reviews come [$POD_IP:{PORT}]")
    add(
        "--health",
        metavar="HOST:PORT",
        help=f"/metrics, /healthz and /readyz [$POD_IP:{HEALTH_PORT}, or not at all]",
    )
    add(
        "--tls-dir",
        metavar="DIR",
        default=TLS_FOLDER,
        help=f"tls.crt and tls.key, read again when they change [{TLS_FOLDER}]",
    )
    add("--policy", metavar="FILE", help="the operator's choices, read again when they change")
    add("--kubeconfig", metavar="FILE", help="a cluster from outside of it [the pod's own]")
    add("--context", metavar="NAME", default="", help="the kubeconfig's context [its current one]")
    add("--log-level", choices=_LEVELS, default="info", help="of the JSON lines on stderr [info]")
    return parser
