"""What every command shares: lazy loading, the global options, and the settings they fill."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import click

from sevkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from click.shell_completion import CompletionItem


@final
@dataclass(slots=True)
class Settings:
    """The global options. ``json`` selects one JSON document on stdout instead of text."""

    json: bool = False
    verbose: bool = False


def settings(context: click.Context | None = None) -> Settings:
    """Return the settings of the running command."""
    found = (context or click.get_current_context()).find_object(Settings)
    return found if found is not None else Settings()


def _set_output(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        settings(context).json = value == "json"


def _set_verbose(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        settings(context).verbose = True


def global_options() -> list[click.Parameter]:
    """Return the options that are accepted before and after the command's name."""
    return [
        click.Option(
            ["--output"],
            type=click.Choice(["text", "json"]),
            expose_value=False,
            is_eager=True,
            callback=_set_output,
            help="Answer as text, or as one versioned JSON document.  [default: text]",
        ),
        click.Option(
            ["--verbose"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_set_verbose,
            help="Say more on stderr; show tracebacks of internal errors.",
        ),
    ]


@final
class PathName(click.types.StringParamType):
    """The name of a file or a folder, which a shell completes; whoever opens it judges it."""

    def __init__(self, kind: str) -> None:
        self._kind: Final = kind

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's signature
        param: click.Parameter,  # noqa: ARG002  # click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Leave it to the shell."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415  # only when completing

        return [CompletionItem(incomplete, type=self._kind)]


#: How help names a value that is a path, and what a shell should complete for it.
_PATHS: Final = {"FILE": "file", "HEX|FILE": "file", "REPORT": "file", "DIR": "dir"}


class Command(click.Command):
    """A command that also takes the global options after its name.

    Its plain text parameters that help calls FILE, REPORT or DIR complete as paths.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # click's own signature
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            kind = _PATHS.get(parameter.metavar or "")
            if kind is not None and parameter.type is click.STRING:
                parameter.type = PathName(kind)
        self.params.extend(global_options())


class LazyGroup(click.Group):
    """A group whose commands are named in a table and imported when they are used.

    ``table`` maps a name to (``"module:attribute"``, one line of help), so that ``--help`` lists
    every command without importing one.
    """

    def __init__(self, name: str, table: Mapping[str, tuple[str, str]], help_text: str) -> None:
        super().__init__(name=name, help=help_text, no_args_is_help=True)
        self._table: Final = table
        self.params.extend(global_options())

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the names in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        """Import and return one command; name the extra where a package is missing."""
        if cmd_name not in self._table:
            return None
        module, _, attribute = self._table[cmd_name][0].partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            refusal = missing_extra(error)
            if refusal is None:
                raise
            raise refusal from error
        if not isinstance(found, click.Command):
            raise TypeError(attribute)
        return found

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names from the table, without importing a command."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415  # only when completing

        names = [
            CompletionItem(name, help=row[1])
            for name, row in self._table.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's signature
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row[1]) for name, row in self._table.items()])


def missing_extra(error: ImportError) -> UsageError | None:
    """Return the refusal that names the extra whose package is missing, or None for any other.

    A package that is there and does not load (a missing shared library) is named as well.
    """
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        return None
    if isinstance(error, ModuleNotFoundError):
        return UsageError(
            f"this command needs the extra '{extra}'", hint=f"pip install 'sevkit[{extra}]'"
        )
    return UsageError(f"the extra '{extra}' is installed, but {package} does not load: {error}")


#: Top-level module of an optional package, and the extra that installs it.
EXTRAS: Final[Mapping[str, str]] = {
    "kubernetes": "cluster",
    "prometheus_client": "agent",
    "uvicorn": "webhook",
    "libvirt": "libvirt",
    "libvirtmod": "libvirt",
    "lxml": "libvirt",
    "rich": "rich",
}
