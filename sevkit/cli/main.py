"""Entry point: the table of commands, and the one place where errors become exit codes.

0, 1 and 3 are only ever verdicts. click's own ``main`` exits 1 on an abort, on a closed pipe and
on an uncaught error, so it is not used: the group is invoked here and every outcome is mapped.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

import click

from sevkit import __version__
from sevkit.cli.base import LazyGroup, Settings, missing_extra
from sevkit.cli.messages import say
from sevkit.errors import FormatError, InternalError, SevkitError, UndecidedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INTERRUPTED: Final = 130
STDOUT_CLOSED: Final = 141

_COMPLETE_VARIABLE: Final = "_SEVKIT_COMPLETE"

#: What a command may answer; everything else that a process can end with is ours to say.
_CODES: Final = frozenset({0, 1, 2, 3, 4, 5, 65, 70})
#: Files that a command names are read and written by ``files``, which maps their errors. What
#: arrives here with one of these comes from standard output.
_OUTPUT_ERRORS: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT})

TOP: Final[Mapping[str, tuple[str, str]]] = {
    "attest": ("sevkit.cli.groups:attest", "Verify reports, launches and platforms."),
    "measure": ("sevkit.cli.measure:command", "Compute expected launch digests."),
    "session": ("sevkit.cli.groups:session", "Make launch sessions for SEV and SEV-ES."),
    "secret": ("sevkit.cli.groups:secret", "Pack secrets for injection at launch."),
    "idblock": ("sevkit.cli.groups:idblock", "Make SNP ID blocks."),
    "inspect": ("sevkit.cli.groups:inspect", "Show what a file says, without judging it."),
    "node": ("sevkit.cli.groups:node", "Find out what this host can do, and why not."),
    "inject": ("sevkit.cli.inject:command", "Make the VMs of manifests confidential."),
    "cluster": ("sevkit.cli.groups:cluster", "Find out what the nodes of a cluster can do."),
    "guest": ("sevkit.cli.groups:guest", "Inside an SNP guest: fetch its report."),
    "kds": ("sevkit.cli.groups:kds", "Fill the certificate cache from AMD's key service."),
    "simulate": ("sevkit.cli.groups:simulate", "Simulated SEV hardware, for rehearsal."),
    "completion": ("sevkit.cli.completion:command", "Print a shell completion script."),
}


class _Sevkit(LazyGroup):
    def __init__(self, table: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(
            "sevkit",
            table,
            "Attestation of AMD SEV, SEV-ES and SEV-SNP guests on KubeVirt.\n\n"
            "stdout carries the answer only. Exit codes: 0 accepted or done, 1 not authentic, "
            "2 usage, 3 authentic but not acceptable, 4 undecided, 5 refused as insecure, "
            "65 malformed input, 70 internal error.",
        )
        self.params.append(
            click.Option(
                ["--version"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_print_version,
                help="Show the version.",
            )
        )


def program(table: Mapping[str, tuple[str, str]] = TOP) -> click.Command:
    """Return the whole command, for documentation and shell completion."""
    return _Sevkit(table)


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(f"sevkit {__version__}")
        context.exit()


def _complete(group: click.Command, instruction: str) -> int:
    from click.shell_completion import shell_complete  # noqa: PLC0415  # only when completing

    if shell_complete(group, {}, "sevkit", _COMPLETE_VARIABLE, instruction):
        raise UsageError(f"{_COMPLETE_VARIABLE} is not an instruction of bash, zsh or fish")
    return 0


def _invoke(
    arguments: Sequence[str], settings: Settings, table: Mapping[str, tuple[str, str]]
) -> int:
    group = program(table)
    if _COMPLETE_VARIABLE in os.environ:
        return _complete(group, os.environ[_COMPLETE_VARIABLE])
    with group.make_context("sevkit", list(arguments), obj=settings) as context:
        result = group.invoke(context)
    if result is None:
        return 0
    if type(result) is not int or result not in _CODES:
        # True would leave the process as 1, 256 as 0: both are verdicts that nobody reached.
        raise InternalError(f"the command answered {result!r}, which is no exit code")
    return result


def _report(error: SevkitError, settings: Settings) -> int:
    say(error.message, error.hint)
    if settings.json:
        document: dict[str, object] = {
            "schema": "sevkit.io/error/v1",
            "kind": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
        }
        if isinstance(error, FormatError):
            document |= {"structure": error.structure, "offset": error.offset}
        click.echo(json.dumps(document))
    return error.exit_code


def _bug(error: BaseException, settings: Settings) -> int:
    if settings.verbose:
        import traceback  # noqa: PLC0415  # only on a bug

        click.echo("".join(traceback.format_exception(error)), err=True)
    bug = InternalError(
        f"internal error: {type(error).__name__}",
        hint="a bug, never a verdict; run again with --verbose and report it",
    )
    return _report(bug, settings)


def main(arguments: Sequence[str], table: Mapping[str, tuple[str, str]] = TOP) -> int:
    """Run one command and return its exit code. Never raises.

    ``table`` is the table of commands, for programs and tests that bring their own.
    """
    if sys.stdout is None:
        return STDOUT_CLOSED
    settings = Settings()
    try:
        code = _guarded(arguments, settings, table)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException as error:  # noqa: BLE001  # even the report failed: still never a verdict
        return _give_up(error)
    return code


def _give_up(error: BaseException) -> int:
    """Return the code for an answer, or a report, that could not be written."""
    code = InternalError.exit_code
    if isinstance(error, OSError):
        if error.errno == errno.EPIPE:
            code = STDOUT_CLOSED
        else:
            code = UndecidedError.exit_code
            with contextlib.suppress(OSError, ValueError):
                say(f"the answer could not be written: {error.strerror or error}")
    _silence()
    return code


def _guarded(
    arguments: Sequence[str], settings: Settings, table: Mapping[str, tuple[str, str]]
) -> int:
    try:
        return _invoke(arguments, settings, table)
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return INTERRUPTED
    except click.exceptions.Exit as stop:
        return _bug(stop, settings) if stop.exit_code else 0
    except click.exceptions.NoArgsIsHelpError as error:
        if settings.json:
            return _report(UsageError("missing command", hint=_help(error.ctx)), settings)
        error.show()
        return UsageError.exit_code
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError) and error.errno in _OUTPUT_ERRORS:
            raise
        if isinstance(error, click.ClickException):
            settings.json = settings.json or _asked_for_json(arguments)
        known = _known(error)
        return _report(known, settings) if known else _bug(error, settings)


def _known(error: BaseException) -> SevkitError | None:
    """Return the failure as ours: what we raised, click's refusals, an extra that is missing."""
    if isinstance(error, SevkitError):
        return error
    if isinstance(error, click.ClickException):
        return _usage(error)
    return missing_extra(error) if isinstance(error, ImportError) else None


def _asked_for_json(arguments: Sequence[str]) -> bool:
    """Whether a command line that could not be parsed asks for JSON."""
    pairs = itertools.pairwise(arguments)
    return "--output=json" in arguments or ("--output", "json") in pairs


def _usage(error: click.ClickException) -> UsageError:
    """Return click's refusal in our manner: one line, lower case, no full stop."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    text = error.format_message().removesuffix(".")
    return UsageError(text[:1].lower() + text[1:], hint=_help(context))


def _help(context: click.Context | None) -> str:
    return f"{context.command_path} --help" if context else ""


def _silence() -> None:
    """Keep the interpreter's shutdown from flushing into a closed stdout, which would exit 120."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(devnull, stream.fileno())


def run(table: Mapping[str, tuple[str, str]] = TOP) -> NoReturn:
    """Run the command of this process's argv, and end the process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A locale without our letters must not turn an answer into an internal error.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:], table))


if __name__ == "__main__":
    run()
