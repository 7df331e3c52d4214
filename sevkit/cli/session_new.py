"""``sevkit session new``: guest owner key, launch session, TIK and TEK for one launch."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.attest.checks import SEV_PLATFORM
from sevkit.attest.sev_platform import VerifiedPlatform, validate_platform, verify_platform
from sevkit.attest.sev_session import LaunchSession, check_policy, new_session
from sevkit.attest.verdict import Ledger, Outcome
from sevkit.cli.base import Command, settings
from sevkit.cli.file_set import write_together
from sevkit.cli.render import show_json
from sevkit.cli.sev_options import (
    check_platform_options,
    platform_expectations,
    platform_options,
    policy_option,
    read_platform,
)
from sevkit.errors import ExpectationError, HostReadError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: In the order in which they are written: what makes a session of it comes last.
FILES: Final = ("tik.bin", "tek.bin", "godh.b64", "session.b64", "session.json")


@click.command(cls=Command, short_help="Make a launch session for one launch.")
@platform_options
@policy_option
@click.option(
    "--out", required=True, metavar="DIR", help="Folder for the five files; made if missing."
)
@click.option(
    "--allow-debug", is_flag=True, help="Accept a policy under which the host can read the guest."
)
def command(*, policy: int, out: str, allow_debug: bool, **given: Any) -> None:  # noqa: ANN401  # the options of platform_options
    """Make a launch session for one launch on one platform, whose chain is verified first.

    Writes session.b64 and godh.b64 (for KubeVirt's setupsession, or libvirt's session and
    dhCert), tik.bin and tek.bin (the owner's keys, mode 0600), and session.json, which says what
    the session is for. Nothing is ever overwritten. Use a session once: a reboot needs a new one.

    \b
    Example:
      sevkit session new --chain sev.chain --guest-policy 5 --out ./launch-1
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    check_platform_options(given)
    check_policy(policy, allow_debug=allow_debug)
    if out in {"", "-"}:
        raise UsageError("--out needs a folder", hint="let it name one that does not exist yet")
    folder = Path(out)
    _check_folder(folder)
    chain, ca, roots = read_platform(given)
    ledger = Ledger(SEV_PLATFORM)
    platform = verify_platform(chain, ledger, ca=ca, roots=roots)
    validate_platform(platform, platform_expectations(given), ledger)
    _require_accepted(platform, ledger)
    session = new_session(platform, policy, allow_debug=allow_debug)
    _write(folder, _contents(session))
    _show(folder, session)


def _require_accepted(platform: VerifiedPlatform, ledger: Ledger) -> None:
    refused = [found for found in ledger.findings if found.outcome is Outcome.FAIL]
    if refused:
        names = ", ".join(found.check for found in refused)
        raise ExpectationError(
            f"the platform is genuine, but not accepted: {names}",
            hint=f"its chip is {platform.chip}, its owner {platform.owner}",
        )


def _contents(session: LaunchSession) -> dict[str, bytes]:
    return {
        "tik.bin": session.keys.tik.reveal(),
        "tek.bin": session.keys.tek.reveal(),
        "godh.b64": session.godh_base64.encode("ascii"),
        "session.b64": session.session_base64.encode("ascii"),
        "session.json": json.dumps(session.describe(), indent=2).encode("ascii") + b"\n",
    }


def _check_folder(folder: Path) -> None:
    """Refuse a folder that would mix sessions, or where others could exchange the files."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise HostReadError(f"{folder}: cannot be looked at") from error
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{folder}: exists and is not a folder", hint="name another folder")
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UsageError(
            f"{folder}: others can write there", hint="let --out name a folder that does not exist"
        )
    for name in FILES:
        if os.path.lexists(folder / name):
            raise UsageError(
                f"{folder / name}: exists and is never overwritten",
                hint="one folder for each launch; move the old one away",
            )


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write all files, or leave none of them behind and say what happened."""
    made = False
    try:
        folder.mkdir(mode=0o700)
        made = True
        folder.chmod(0o700)  # a umask may have taken the owner's own rights
    except FileExistsError:
        _check_folder(folder)  # again: somebody may have made it since
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: its parent folder does not exist") from error
    except OSError as error:
        raise HostReadError(f"{folder}: cannot be made: {error.strerror}") from error
    try:
        write_together({str(folder / name): contents[name] for name in FILES})
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # the reason is on its way already
                folder.rmdir()
        raise


def _show(folder: Path, session: LaunchSession) -> None:
    if settings().json:
        files = {name: str(folder / name) for name in FILES}
        show_json(session.describe() | {"files": files})
        return
    for name in FILES:
        click.echo(str(folder / name))
