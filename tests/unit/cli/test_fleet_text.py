from __future__ import annotations

from typing import Final

import click
import pytest

from hack.fleet_documents import NOTHING, SNP_OFF, Kind, summary
from sevkit.cli.fleet_source import Fleet
from sevkit.cli.fleet_text import render_fleet
from sevkit.cli.fleet_words import TITLES
from sevkit.host.capability import Technology

SNP: Final = Technology.SEV_SNP
KINDS: Final = (
    Kind(),
    Kind(SNP_OFF, (410, 99, 0), "milan"),
    Kind(NOTHING, (0, 0, 0), "turin-dense"),
    Kind(ready="False"),
    Kind(labels={"sevkit.io/simulated": "true"}),
    Kind(annotation="{"),
    None,
)
FLEET: Final = Fleet(
    tuple(
        summary(f"worker-{number:04}.rack-{number % 3}.example.org", kind).with_requests({SNP: 1})
        for number, kind in enumerate(kind for kind in KINDS for _ in range(40))
    )
)


def text(fleet: Fleet, *required: Technology, width: int = 120, all_names: bool = False) -> str:
    return "\n".join(render_fleet(fleet, required, width=width, all_names=all_names))


@pytest.mark.parametrize("all_names", [False, True])
@pytest.mark.parametrize("width", [20, 21, 33, 50, 66, 72, 80, 90, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int, all_names: bool) -> None:
    lines = text(FLEET, SNP, width=width, all_names=all_names).splitlines()
    assert max(map(len, lines)) <= width
    whole = "".join(" ".join(line.split()) for line in lines)
    assert "genoa" in whole
    assert whole.count("iommu-passthrough") == 1


def test_columns_are_aligned_and_a_group_is_one_row() -> None:
    lines = text(FLEET).splitlines()
    head = lines[0]
    assert head.split() == list(TITLES)
    rows = lines[1 : lines.index("")]
    assert len(rows) == len(KINDS)
    for title in ("product", "SEV-SNP", "names"):
        at = head.index(title)
        assert all(row[at - 1] == " " and row[at] != " " for row in rows)
    assert rows[0].split()[:2] == ["40", "genoa"]
    assert "3920/3960" in rows[0]
    assert "-" in rows[-1]


def test_a_cell_points_to_its_reason() -> None:
    one = Fleet((summary("a", KINDS[1]), summary("b", KINDS[2]), summary("c", Kind())))
    said = text(one)
    number = next(
        line.split("]")[0] for line in said.splitlines() if "SEV-SNP disabled: iommu" in line
    )
    (row,) = [line for line in said.splitlines() if " milan " in line]
    assert f"disabled {number}]" in row
    assert said.count("iommu=pt") == 1


def test_not_known_none_and_no_are_three_things() -> None:
    nodes = (summary("a", Kind()), summary("b", Kind(guests=(410, 0, 0), product="milan")))
    said = text(Fleet((*nodes, summary("c", KINDS[1]))))
    rows = {line.split()[1]: line for line in said.splitlines()[1:3]}
    assert "?/99" in rows["genoa"]
    assert "0/0" in rows["milan"]
    assert "disabled" in said


def test_what_is_marked_says_so() -> None:
    said = text(FLEET)
    for mark in ("(not ready)", "(simulated)", "no agent [", "unreadable ["):
        assert mark in said
    assert "install the node agent" in said


def test_names_are_cut_or_all_shown() -> None:
    assert "…" in text(FLEET, width=90)
    assert "…" not in text(FLEET, width=90, all_names=True)
    joined = text(FLEET, width=60, all_names=True).replace("\n  ", "")
    for number in range(len(FLEET.nodes)):
        assert f"{number:04}" in joined


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (Kind(), "SEV-SNP usable: yes"),
        (KINDS[4], "SEV-SNP usable: yes, on simulated hardware only"),
        (KINDS[1], "SEV-SNP usable: NO"),
        (None, "SEV-SNP usable: could not find out"),
    ],
)
def test_what_is_required_is_answered_last(kind: Kind | None, line: str) -> None:
    assert text(Fleet((summary("a", kind),)), SNP).splitlines()[-1] == line


def test_a_fleet_of_nothing_is_said_in_a_line() -> None:
    assert text(Fleet(())).splitlines()[-1].startswith("0 nodes in 0 groups")


def test_what_a_node_writes_cannot_move_the_cursor_nor_start_a_line() -> None:
    evil = '{"sev": "\x1b[2J\n\rFAKE \u202e \uff21"'
    label = Kind(annotation=evil, labels={"sevkit.io/product": "\x1b[31mgenoa\nFAKE"})
    said = text(Fleet((summary("a\x1b\n", label),)), width=72)
    assert all(line.isprintable() and line.isascii() for line in said.splitlines())
    assert not any(line.startswith("FAKE") for line in said.splitlines())


def test_colour_changes_no_letter() -> None:
    plain = list(render_fleet(FLEET, (), width=100))
    coloured = list(render_fleet(FLEET, (), width=100, colour=True))
    assert [click.unstyle(line) for line in coloured] == plain
    assert coloured != plain
