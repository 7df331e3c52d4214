"""``sevkit attest vmi``: one VMI of KubeVirt, from its certificate chain to its secret."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.cluster_options import cluster_options, find_access
from sevkit.cli.files import check_new
from sevkit.cli.messages import say
from sevkit.cli.owner_options import owner_options, read_owner
from sevkit.cli.render import show_verdict
from sevkit.cli.values import WholeNumber
from sevkit.cluster.launch_endpoints import ClusterEndpoints, Target
from sevkit.errors import ClusterError, HostReadError, UsageError
from sevkit.guest_owner.driver import Driver, Surroundings
from sevkit.guest_owner.session_store import SessionStore
from sevkit.guest_owner.terms import Outcome, Plan

if TYPE_CHECKING:
    from sevkit.cluster.access import Access

TIMEOUT: Final = 600
_LONGEST: Final = 24 * 3600
#: RFC 1123 subdomain, as the API server wants names.
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@click.command(cls=Command, short_help="Attest a KubeVirt VMI, end to end.")
@click.argument("name", metavar="NAME")
@click.option("--namespace", "-n", default="default", show_default=True, help="Where it is.")
@cluster_options
@owner_options
@click.option("--no-inject", is_flag=True, help="Verify only: release no secret.")
@click.option("--no-unpause", is_flag=True, help="Leave the guest paused at the end.")
@click.option(
    "--timeout",
    type=WholeNumber(1, _LONGEST),
    default=str(TIMEOUT),
    show_default=True,
    help="Seconds for the whole; the launcher itself waits for 240 to 360.",
)
@click.option(
    "--state",
    metavar="DIR",
    help="Where the session is kept until the launch is over.  [default: a folder for each VMI "
    "in $XDG_STATE_HOME/sevkit]",
)
@click.option("--html", metavar="FILE", help="Also write the verdict as a page for people.")
def command(name: str, namespace: str, html: str | None, **given: Any) -> int:  # noqa: ANN401  # two dozen options, read by name
    """Take a VMI of SEV or SEV-ES through its launch: verify it, give it its secret, let it run.

    The VMI has to ask for attestation and to start paused. The platform's chain is verified before
    a session is made; the measurement is verified before the secret goes in; and the guest runs
    only with it. What is expected comes from --owner or the options, never from the cluster. Where
    the launch is refused, the VMI stays paused, unless the owner's file says to stop it.

    Start it within 240 seconds of the VMI, better before. Interrupted, it goes on where it was: the
    session is kept, for you alone, until the launch is over.

    Exit code 0: verified, and done what was asked; 1: not authentic; 3: not acceptable; 4: it did
    not come so far, and the finding says why; 5: nothing was released, because what is not measured
    is not accepted; 65: the host's answer is malformed.

    \b
    Examples:
      sevkit attest vmi ledger -n payments --owner owner.yaml --html verdict.html
      sevkit attest vmi ledger -n payments --firmware OVMF.amdsev.fd --guest-policy 1 \\
        --secret 736869e5-84f0-4973-92ec-06879ce3da0b=disk.key \\
        --accept unmeasured-boot --accept unmeasured-variables
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    for what, text in (("NAME", name), ("--namespace", namespace)):
        if not _NAME.fullmatch(text):
            raise UsageError(f"{what} is no name of an object: {text[:80]!r}")
    if html is not None:
        check_new(html)
    owner = read_owner(given)
    plan = Plan(
        not given["no_inject"],
        not given["no_unpause"],
        stop_on_refusal=owner.stop,
        timeout=float(given["timeout"]),
    )
    if plan.inject:
        owner.check_release()
    from sevkit.cluster.connection import Connection  # noqa: PLC0415  # not for --help

    access = find_access(given, os.environ)
    target = Target(namespace, name)
    with (
        Connection(access) as server,
        SessionStore(_folder(given["state"], target, access)) as store,
    ):
        around = Surroundings(ClusterEndpoints(server), store, owner, told=_told())
        outcome, verdict = Driver(target, plan, around).run()
    if outcome is Outcome.ABSENT:
        raise ClusterError(
            f"there is no VMI {namespace}/{name}", hint="create it first; is it another namespace?"
        )
    if outcome in _HINTS:
        say(f"{namespace}/{name}: {outcome.value}", _HINTS[outcome])
    return show_verdict(verdict, html)


#: What to do after an outcome that leaves something to do.
_HINTS: Final = {
    Outcome.VERIFIED: "the session is kept: run it again without --no-inject to go on",
    Outcome.UNCOVERED: "the session is kept: run it again with --accept to go on",
    Outcome.TIMEOUT: "what is stored is kept: run it again to go on",
    Outcome.FORBIDDEN: "the rights that are needed stand in docs/guest-owner.md",
    Outcome.LATE: "start attest vmi before the VMI: the launcher waits for 240 s",
}


def _told() -> Any:  # noqa: ANN401  # a function of one text
    """Return who tells what goes on: on a terminal, or to whoever asked for more."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if settings().verbose or is_terminal:
        return say
    return lambda _: None


def _folder(state: str | None, target: Target, access: Access) -> Path:
    """Return the state folder: the one that is named, or one of this VMI's own below the home."""
    if state is not None:
        if state in {"", "-"}:
            raise UsageError("--state needs a folder")
        return Path(state)
    home = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):  # noqa: PTH117  # text
        if not os.environ.get("HOME"):
            raise UsageError("there is no home folder to keep the session in", hint="--state DIR")
        home = str(Path(os.environ["HOME"]) / ".local" / "state")
    whole = f"{access.server}\0{target.namespace}\0{target.name}"
    base = Path(home) / "sevkit" / "launches"
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostReadError(
            f"{base}: cannot be made: {error.strerror}", hint="--state DIR"
        ) from error
    return base / hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:24]
