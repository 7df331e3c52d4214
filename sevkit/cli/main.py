"""Entry point: the table of commands, and the one place where errors become exit codes.

0, 1 and 3 are only ever verdicts. click's own ``main`` exits 1 on an abort, on a closed pipe and
on an uncaught error, so it is not used: the group is invoked here and every outcome is mapped.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

import click

from sevkit import __version__
from sevkit.cli.base import LazyGroup, Settings
from sevkit.errors import FormatError, InternalError, SevkitError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED: Final = 130
STDOUT_CLOSED: Final = 141

_COMPLETE_VARIABLE: Final = "_SEVKIT_COMPLETE"

TOP: Final = {
    "attest": ("sevkit.cli.groups:attest", "Verify reports, launches and platforms."),
    "measure": ("sevkit.cli.measure:command", "Compute expected launch digests."),
    "session": ("sevkit.cli.groups:session", "Make launch sessions for SEV and SEV-ES."),
    "secret": ("sevkit.cli.groups:secret", "Pack secrets for injection at launch."),
    "idblock": ("sevkit.cli.groups:idblock", "Make SNP ID blocks."),
    "inspect": ("sevkit.cli.groups:inspect", "Show what a file says, without judging it."),
    "kds": ("sevkit.cli.groups:kds", "Fill the certificate cache from AMD's key service."),
    "completion": ("sevkit.cli.completion:command", "Print a shell completion script."),
}


class _Sevkit(LazyGroup):
    def __init__(self) -> None:
        super().__init__(
            "sevkit",
            TOP,
            "AMD SEV, SEV-ES and SEV-SNP made practical on KubeVirt.\n\n"
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


def program() -> click.Command:
    """Return the whole command, for documentation and shell completion."""
    return _Sevkit()


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(f"sevkit {__version__}")
        context.exit()


def _invoke(arguments: Sequence[str], settings: Settings) -> int:
    if _COMPLETE_VARIABLE in os.environ:
        from click.shell_completion import shell_complete  # noqa: PLC0415  # only when completing

        instruction = os.environ[_COMPLETE_VARIABLE]
        return shell_complete(_Sevkit(), {}, "sevkit", _COMPLETE_VARIABLE, instruction)
    group = _Sevkit()
    with group.make_context("sevkit", list(arguments), obj=settings) as context:
        result = group.invoke(context)
    return result if isinstance(result, int) else 0


def _say(message: str, hint: str = "") -> None:
    click.echo(f"sevkit: {_one_line(message)}", err=True)
    if hint:
        click.echo(f"sevkit: hint: {_one_line(hint)}", err=True)


def _one_line(text: str) -> str:
    """Escape what would move a terminal's cursor: messages may quote what an attacker wrote."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _report(error: SevkitError, settings: Settings) -> int:
    _say(error.message, error.hint)
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


def _traceback(error: BaseException, settings: Settings) -> int:
    if settings.verbose:
        import traceback  # noqa: PLC0415  # only on a bug

        click.echo("".join(traceback.format_exception(error)), err=True)
    bug = InternalError(
        f"internal error: {type(error).__name__}",
        hint="a bug, never a verdict; run again with --verbose and report it",
    )
    return _report(bug, settings)


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Never raises."""
    settings = Settings()
    try:
        try:
            if sys.stdout is None:
                return STDOUT_CLOSED
            code = _guarded(arguments, settings)
            sys.stdout.flush()
        except OSError as error:
            if error.errno != errno.EPIPE:
                return _traceback(error, settings)
            _silence()
            return STDOUT_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException:  # noqa: BLE001  # even the report failed: still never a verdict
        _silence()
        return InternalError.exit_code
    return code


def _guarded(arguments: Sequence[str], settings: Settings) -> int:
    try:
        return _invoke(arguments, settings)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return INTERRUPTED
    except click.ClickException as error:
        return _refuse_usage(error)
    except SevkitError as error:
        return _report(error, settings)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise
        return _traceback(error, settings)


def _refuse_usage(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return 2
    context = error.ctx if isinstance(error, click.UsageError) else None
    _say(error.format_message(), f"{context.command_path} --help" if context else "")
    return 2


def _silence() -> None:
    """Keep the interpreter's shutdown from flushing into a closed stdout, which would exit 120."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            os.dup2(devnull, stream.fileno())


def run() -> NoReturn:
    """Console entry point."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
