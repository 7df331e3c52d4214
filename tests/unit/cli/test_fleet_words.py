from __future__ import annotations

import pytest

from hack.fleet_documents import SNP_OFF, Kind, summary
from sevkit.cli.fleet_source import Fleet
from sevkit.cli.fleet_words import Notes, ascii_only, counted, marks
from sevkit.cli.fleet_words import summary as in_one_line
from sevkit.kubevirt.fleet import group_nodes


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b", "a b"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u202e", "\\u202e"),
        ("\u0430", "\\u0430"),
        ("\ud800", "\\ud800"),
        ("a\n\tb", "a\\n\\tb"),
    ],
)
def test_only_printable_ascii_is_shown_as_it_is(text: str, shown: str) -> None:
    assert ascii_only(text) == shown


def test_a_cell_has_the_number_of_its_reason() -> None:
    fleet = Fleet((summary("a", Kind(SNP_OFF, (410, 99, 0), "milan")), summary("b", None)))
    notes = Notes(fleet)
    assert notes.heads() == (
        "[1] SEV-SNP disabled: iommu-passthrough (1 node)",
        "[2] no agent: no-agent (1 node)",
    )
    rows = [notes.cells(group) for group in group_nodes(fleet.nodes)]
    assert rows == [
        ("1", "milan", "1.55.40", "-", "?/410", "?/99", "disabled [1]"),
        ("1", "-", "-", "-", "no agent [2]", "no agent [2]", "no agent [2]"),
    ]


def test_marks_say_what_else_matters() -> None:
    kind = Kind(ready="False", cordoned=True, labels={"sevkit.io/simulated": "true"})
    (group,) = group_nodes([summary("a", kind)])
    assert marks(group) == "not ready, cordoned, simulated"


def test_the_whole_fleet_is_one_line_of_what_is_ready() -> None:
    kinds = (Kind(), Kind(ready="Unknown"), Kind(guests=(410, 0, 0)))
    fleet = Fleet(tuple(summary(f"n{number}", kind) for number, kind in enumerate(kinds)))
    line = in_one_line(fleet, group_nodes(fleet.nodes))
    assert line == "3 nodes in 3 groups; ready and usable: SEV on 2, SEV-ES on 0, SEV-SNP on 1"
    assert counted(1) == "1 node"
