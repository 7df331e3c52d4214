from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sevkit.kubevirt.preflight.catalogue import CATALOGUE, GROUPS

if TYPE_CHECKING:
    from tests.unit.kubevirt.preflight.conftest import Cluster

PAGE: Final = Path(__file__).resolve().parents[4] / "docs" / "preflight.md"
_ROW: Final = re.compile(r"^\| `([a-z.-]+)` \| (.*?) \|$", re.MULTILINE)


def test_names_are_unique_and_parents_come_first_in_their_own_group() -> None:
    names = [check.name for check in CATALOGUE]
    assert len(set(names)) == len(names)
    for index, check in enumerate(CATALOGUE):
        assert re.fullmatch(r"[a-z]+\.[a-z-]+", check.name)
        assert check.summary
        assert check.source
        assert not check.parent or check.parent in names[:index]
        assert not check.parent or check.parent.startswith(f"{check.group}.")
    assert GROUPS == ("kubernetes", "kubevirt", "webhook", "policy", "nodes", "tenants")


def test_the_page_lists_every_check_in_order() -> None:
    rows = _ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert rows == [(check.name, check.summary) for check in CATALOGUE]


def test_a_cluster_that_has_everything_passes_every_check(cluster: Cluster) -> None:
    assert cluster.odd() == {}
    assert cluster.code == 0
    assert all(not one.fix for one in cluster.results().values())
