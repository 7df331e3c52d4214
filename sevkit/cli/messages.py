"""What is said to people on stderr, one line each: ``sevkit: `` first, nothing that moves a cursor.

Messages quote file names, options and what an attacker wrote, so every one passes through here.
"""

from __future__ import annotations

from typing import Final

import click

#: A message may quote an option of a hundred thousand characters; its reader needs no more.
_LONGEST: Final = 1000


def plain(text: str) -> str:
    """Return ``text`` with everything unprintable escaped, so that it cannot move a cursor."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def say(message: str, hint: str = "") -> None:
    """Say something on stderr, and what to do next."""
    click.echo(f"sevkit: {_line(message)}", err=True)
    if hint:
        click.echo(f"sevkit: hint: {_line(hint)}", err=True)


def warn(message: str) -> None:
    """Say something on stderr that does not change the answer."""
    say(f"warning: {message}")


def _line(text: str) -> str:
    return plain(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
