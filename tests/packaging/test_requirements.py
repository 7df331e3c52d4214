"""The requirement files that pip installs from say what the lock says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
FILES: Final = ("hack/requirements.txt", "hack/requirements-libvirt.txt")
_BLOCK: Final = re.compile(
    r"^(?P<name>[a-z0-9.-]+)==(?P<version>[^ ]+)(?: ; [^\\\n]+?)?"
    r"(?P<hashes>(?: \\\n    --hash=\S+)+)$",
    re.MULTILINE,
)


def required(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Return version and hashes by package, as one file has them."""
    return {
        found["name"]: (
            found["version"],
            frozenset(re.findall(r"--hash=(\S+)", found["hashes"])),
        )
        for found in _BLOCK.finditer((ROOT / name).read_text())
    }


def locked() -> dict[str, tuple[str, frozenset[str]]]:
    """Return version and hashes by package, as the lock has them."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    return {
        row["name"]: (
            row["version"],
            frozenset(
                archive["hash"]
                for archive in [*row.get("wheels", []), *filter(None, [row.get("sdist")])]
            ),
        )
        for row in lock["package"]
        if row["name"] != "sevkit"
    }


def test_versions_and_hashes_are_those_of_the_lock_and_nothing_is_left_out() -> None:
    assert required(FILES[0]) | required(FILES[1]) == locked()


def test_the_lock_was_made_for_this_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    (own,) = (row for row in lock["package"] if row["name"] == "sevkit")

    def parts(requirement: str) -> tuple[str, frozenset[str]]:
        name = re.split(r"[\[<>=!~ ]", requirement, maxsplit=1)[0]
        return name.replace(".", "-"), frozenset(re.sub(r"^[^<>=!~]*", "", requirement).split(","))

    def locked_parts(rows: list[dict[str, str]]) -> set[tuple[str, frozenset[str]]]:
        return {(row["name"], frozenset(row.get("specifier", "").split(","))) for row in rows}

    extras = project["project"]["optional-dependencies"].values()
    demanded = {parts(word) for extra in extras for word in extra}
    demanded |= {parts(word) for word in project["project"]["dependencies"]}
    # An extra that names another extra of ours is unfolded in the lock.
    demanded -= {parts("sevkit")}
    found = locked_parts(own["metadata"]["requires-dist"]) - {parts("sevkit")}
    assert found == demanded
    assert {parts(word) for word in project["dependency-groups"]["dev"]} == locked_parts(
        own["metadata"]["requires-dev"]["dev"]
    )


def test_only_what_has_no_wheel_stands_apart() -> None:
    assert list(required(FILES[1])) == ["libvirt-python"]


@pytest.mark.parametrize("name", [*FILES, "hack/peers-requirements.txt"])
def test_every_line_belongs_to_a_pinned_requirement_with_hashes(name: str) -> None:
    rest = _BLOCK.sub("", (ROOT / name).read_text())
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []
    assert all(hashes for _, hashes in required(name).values())
