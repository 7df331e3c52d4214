"""What a command does not need, it does not import: start-up is most of its time."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.cli import groups
from sevkit.cli.base import LazyGroup
from sevkit.cli.main import TOP

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAVY: Final = frozenset(
    {
        "kubernetes",
        "libvirt",
        "lxml",
        "prometheus_client",
        "rich",
        "ruamel",
        "urllib3",
        "uvicorn",
    }
)
CODE: Final = """
import json, sys
from sevkit.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def imported(*arguments: str) -> set[str]:
    """Return the modules that are loaded after a command ended well."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    return set(modules)


def commands() -> Iterator[tuple[str, ...]]:
    """Yield every command's path, from the tables alone."""
    for name, (place, _) in TOP.items():
        yield (name,)
        module, _, attribute = place.partition(":")
        group = getattr(groups, attribute, None) if module == groups.__name__ else None
        if isinstance(group, LazyGroup):
            for inner in group.list_commands(None):  # type: ignore[arg-type]  # the table needs none
                yield (name, inner)


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_the_top_command_imports_next_to_nothing(argument: str) -> None:
    modules = imported(argument)
    tops = {name.partition(".")[0] for name in modules}
    assert not tops & (HEAVY | {"cryptography", "ssl", "socket", "http", "email"})
    assert "importlib.metadata" not in modules
    own = {name for name in modules if name.startswith("sevkit.")}
    cli = {"sevkit.cli", "sevkit.cli.base", "sevkit.cli.main", "sevkit.cli.messages"}
    assert own == {*cli, "sevkit.errors"}


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_help_imports_nothing_heavy(path: tuple[str, ...]) -> None:
    modules = imported(*path, "--help")
    assert not {name.partition(".")[0] for name in modules} & HEAVY
