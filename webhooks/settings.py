"""The command line and the environment, as one value. Every default fits a pod."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, final

from sevkit import __version__
from sevkit.cluster.events import Subject
from sevkit.errors import UsageError
from sevkit.observe.listening import Address, parse_address
from webhooks.rotation import Terms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PORT: Final = 9443
HEALTH_PORT: Final = 9466
TLS_FOLDER: Final = "/etc/sevkit/tls"
#: What the Service and both configurations are called, and the Secret.
NAME: Final = "sevkit-webhook"
SECRET: Final = "sevkit-webhook-tls"  # noqa: S105  # a name
#: The longest time that can be asked for: ten years.
_LONGEST: Final = 10 * 366 * 86400
#: A DNS name of some parts, the last of which has a letter: so it is no address.
_DNS_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
)
_LEVELS: Final = ("debug", "info", "warning", "error")
_TEXT: Final = """\
Turn the VMIs of labelled namespaces into well-formed confidential ones, or refuse them with the
reason. The API server calls it; see deploy/webhook.
"""
_EXAMPLES: Final = """\
Examples:
  python -m webhooks --policy /etc/sevkit/policy.yaml        in a pod, with a mounted certificate
  python -m webhooks --self-managed                          in a pod, with one of its own making
  python -m webhooks --kubeconfig FILE --tls-dir DIR --listen 127.0.0.1:9443
                                                             from outside of the cluster

Environment: POD_IP, POD_NAME, POD_NAMESPACE and POD_UID, by the downward API.
Exit codes: 0 asked to stop, 2 usage, also of the policy's keys; 4 a file or the cluster cannot be
reached, 65 a file is not what it should be, 70 a bug.
"""


@final
@dataclass(frozen=True, slots=True)
class SelfManaged:
    """Where certificates of our own making are kept, and whom they are for.

    ``configuration`` is the name of both webhook configurations, whose bundles are kept;
    ``names`` are the DNS names that clients ask for.
    """

    namespace: str
    secret: str
    configuration: str
    names: tuple[str, ...]
    terms: Terms


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for; addresses are host and port, None for not at all.

    ``pod`` is what Events are about, None where that is not known.
    """

    listen: tuple[str, int]
    health: tuple[str, int] | None
    tls_folder: Path
    self_managed: SelfManaged | None
    pod: Subject | None
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
        listen=parse_address(given.listen) if given.listen else (pod or "127.0.0.1", PORT),
        health=_health(given.health, pod),
        tls_folder=Path(given.tls_dir or TLS_FOLDER),
        self_managed=_self_managed(given, environ),
        pod=_pod(environ),
        policy=None if given.policy is None else Path(given.policy),
        kubeconfig=None if given.kubeconfig is None else Path(given.kubeconfig),
        context=given.context,
        log_level=given.log_level,
    )


def _self_managed(given: argparse.Namespace, environ: Mapping[str, str]) -> SelfManaged | None:
    asked = {option for option, name in _OWN.items() if getattr(given, name) is not None}
    if not given.self_managed:
        if asked:
            raise UsageError(
                f"{min(asked)} is about certificates of our own making", hint="add --self-managed"
            )
        return None
    if given.tls_dir is not None:
        raise UsageError(
            "--self-managed and --tls-dir are two sources of one certificate",
            hint="leave one of them out",
        )
    namespace = given.namespace or environ.get("POD_NAMESPACE", "")
    if not namespace:
        raise UsageError(
            "namespace of the Secret is not known",
            hint="--namespace NAMESPACE, or POD_NAMESPACE by the downward API",
        )
    service = f"{NAME}.{namespace}.svc"
    names = tuple(given.dns_name or (service, f"{service}.cluster.local"))
    for name in names:
        if not _DNS_NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no DNS name in lower case", hint="--dns-name SERVICE.NAMESPACE.svc"
            )
    standard = Terms()
    return SelfManaged(
        namespace,
        given.secret or SECRET,
        given.configuration or NAME,
        names,
        Terms(
            given.ca_lifetime or standard.authority,
            given.leaf_lifetime or standard.leaf,
            given.ca_spread or standard.spread,
        ),
    )


def _health(asked: str | None, pod: str) -> Address | None:
    if asked is None:
        return (pod, HEALTH_PORT) if pod else None
    return parse_address(asked)


def _pod(environ: Mapping[str, str]) -> Subject | None:
    found = [environ.get(f"POD_{word}", "") for word in ("NAME", "UID", "NAMESPACE")]
    return Subject("Pod", *found) if all(found) else None


def _term(text: str) -> timedelta:
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 0 < int(text) <= _LONGEST):
        raise argparse.ArgumentTypeError(f"must be 1 to {_LONGEST} seconds")
    return timedelta(seconds=int(text))


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
        help=f"tls.crt and tls.key, read again when they change [{TLS_FOLDER}]",
    )
    add("--policy", metavar="FILE", help="the operator's choices, read again when they change")
    add("--kubeconfig", metavar="FILE", help="a cluster from outside of it [the pod's own]")
    add("--context", metavar="NAME", default="", help="the kubeconfig's context [its current one]")
    add("--log-level", choices=_LEVELS, default="info", help="of the JSON lines on stderr [info]")
    _add_self_managed(parser.add_argument_group("certificates of its own making"))
    return parser


#: The options that are about certificates of our own making, and what the parser calls them.
_OWN: Final = {
    f"--{word}": word.replace("-", "_")
    for word in (
        "namespace",
        "secret",
        "configuration",
        "dns-name",
        "ca-lifetime",
        "leaf-lifetime",
        "ca-spread",
    )
}


def _add_self_managed(group: argparse._ArgumentGroup) -> None:
    terms, add = Terms(), group.add_argument
    add(
        "--self-managed",
        action="store_true",
        help="make and renew the certificate, keep it in a Secret, and have API servers trust it",
    )
    add("--namespace", metavar="NAMESPACE", help="of the Secret and the Service [$POD_NAMESPACE]")
    add("--secret", metavar="NAME", help=f"the Secret [{SECRET}]")
    add("--configuration", metavar="NAME", help=f"both webhook configurations [{NAME}]")
    add(
        "--dns-name",
        metavar="NAME",
        action="append",
        help=f"what clients ask for, again for more than one [{NAME}.NAMESPACE.svc, and the same "
        "in cluster.local]",
    )
    add(
        "--ca-lifetime",
        metavar="S",
        type=_term,
        help="seconds; replaced when two certificates' lives of it are left "
        f"[{_seconds(terms.authority)}]",
    )
    add(
        "--leaf-lifetime",
        metavar="S",
        type=_term,
        help=f"seconds; renewed when a third of it is left [{_seconds(terms.leaf)}]",
    )
    add(
        "--ca-spread",
        metavar="S",
        type=_term,
        help="seconds in which API servers learn of a new CA before it signs "
        f"[{_seconds(terms.spread)}]",
    )


def _seconds(term: timedelta) -> str:
    return f"{term.total_seconds():.0f}"
