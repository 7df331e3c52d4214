"""``sevkit completion SHELL``: print the script that teaches a shell our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sevkit.cli.base import Command, settings
from sevkit.errors import UsageError


@click.command(cls=Command, short_help="Print a shell completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that teaches SHELL to complete commands, options and file names.

    \b
    Examples, each for one user:
      sevkit completion bash > ~/.local/share/bash-completion/completions/sevkit
      sevkit completion zsh > "${fpath[1]}/_sevkit"
      sevkit completion fish > ~/.config/fish/completions/sevkit.fish
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    if settings().json:
        raise UsageError("a completion script is not a JSON document", hint="--output text")
    found = get_completion_class(shell)
    if found is None:
        raise UsageError(f"no completion for {shell}")
    from sevkit.cli.main import program  # noqa: PLC0415  # main imports this lazily

    click.echo(found(program(), {}, "sevkit", "_SEVKIT_COMPLETE").source())
