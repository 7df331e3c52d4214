"""``sevkit completion SHELL``: print the script that teaches a shell our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sevkit.cli.base import Command
from sevkit.errors import UsageError


@click.command(cls=Command, short_help="Print a shell completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL.

    For bash: sevkit completion bash > /etc/bash_completion.d/sevkit
    """
    found = get_completion_class(shell)
    if found is None:
        raise UsageError(f"no completion for {shell}")
    from sevkit.cli.main import program  # noqa: PLC0415  # main imports this lazily

    click.echo(found(program(), {}, "sevkit", "_SEVKIT_COMPLETE").source())
