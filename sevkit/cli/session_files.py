"""The owner's side of a launch session, as the options name it: a folder, or the keys alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import click

from sevkit.abi.policy import parse_sev_policy
from sevkit.attest.sev_session import SessionDocument, parse_session_document
from sevkit.cli.files import read_file
from sevkit.cli.sev_options import read_key
from sevkit.cli.values import GuestPolicy
from sevkit.errors import UsageError

if TYPE_CHECKING:
    from sevkit.secret import Secret

_Command = TypeVar("_Command", bound=Callable[..., object])

_OPTIONS: Final = (
    click.option(
        "--session", metavar="DIR", help="The folder that 'sevkit session new' made for it."
    ),
    click.option("--tik", metavar="FILE", help="The session's TIK, 16 bytes; --session has it."),
    click.option("--tek", metavar="FILE", help="The session's TEK, to pack secrets with."),
    click.option(
        "--guest-policy",
        "policy",
        type=GuestPolicy(parse_sev_policy),
        help="SEV guest policy of the session, decimal or 0x hex; --session knows it.",
    ),
)


@final
@dataclass(frozen=True, slots=True)
class SessionFiles:
    """Keys and policy of a session; ``tek`` is None where none was asked for.

    ``document`` says whom the session was made for and what the host was given; None where only
    keys were named.
    """

    tik: Secret
    tek: Secret | None
    policy: int
    document: SessionDocument | None = None

    @property
    def evidence(self) -> dict[str, Any]:
        """What a verdict says of the processor that the session was made for."""
        if self.document is None:
            return {}
        return {
            "cek_key_sha256": self.document.chip,
            "simulated": "yes" if self.document.simulated else "no",
        }


def session_options(command: _Command) -> _Command:
    """Add the options that name a session."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_session_options(given: dict[str, Any], *, needs_tek: bool) -> None:
    """Refuse a session that is named twice or not whole. Opens no file."""
    if given["session"] is not None:
        for name in ("tik", "tek"):
            if given[name] is not None:
                raise UsageError(f"--{name} with --session, which has its own")
        if given["session"] in {"", "-"}:
            raise UsageError("--session needs a folder")
        return
    if given["tik"] is None or given["policy"] is None:
        raise UsageError(
            "no whole session is named", hint="give --session, or --tik and --guest-policy"
        )
    if needs_tek and given["tek"] is None:
        raise UsageError("--secret needs the session's TEK", hint="give --session, or --tek too")


def read_session_files(given: dict[str, Any]) -> SessionFiles:
    """Return the session that the options name; see ``check_session_options``.

    Raises ``UsageError`` for a guest policy that is not the session's, ``FormatError``.
    """
    if given["session"] is None:
        tek = None if given["tek"] is None else read_key(given["tek"], "TEK")
        return SessionFiles(read_key(given["tik"], "TIK"), tek, given["policy"])
    folder = Path(given["session"])
    document = parse_session_document(read_file(str(folder / "session.json")))
    _check_policy(given["policy"], document)
    return SessionFiles(
        read_key(str(folder / "tik.bin"), "TIK"),
        read_key(str(folder / "tek.bin"), "TEK"),
        document.policy,
        document,
    )


def _check_policy(given: int | None, document: SessionDocument) -> None:
    if given is not None and given != document.policy:
        raise UsageError(
            f"--guest-policy {given:#x} is not the session's {document.policy:#x}",
            hint="a session serves the one policy that it was made with",
        )
