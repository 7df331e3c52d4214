"""Properties of a fleet's summary: no node is lost, sums are right, and no word does harm."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from hypothesis import given
from hypothesis import strategies as st

from hack.fleet_documents import ANNOTATION, NOTHING, SNP_OFF, SNP_ON, Kind, annotation, summary
from sevkit.cli.fleet_document import fleet_document
from sevkit.cli.fleet_page import render_fleet_page
from sevkit.cli.fleet_source import Fleet
from sevkit.cli.fleet_text import render_fleet
from sevkit.host.capability import Technology
from sevkit.kubevirt.fleet import availability, group_nodes, whats_missing
from sevkit.kubevirt.labels import KEYS
from sevkit.kubevirt.name_ranges import fit, shorten
from sevkit.kubevirt.node_summary import NodeSummary, Readiness, summarize_node

if TYPE_CHECKING:
    from collections.abc import Iterator


def tags_of(page: str) -> frozenset[str]:
    """Return the kinds of tags, and whatever else begins with ``<``."""
    return frozenset(re.findall(r"<\s*/?\s*([^\s>/]*)", page))


AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
COUNT: Final = st.none() | st.integers(0, 1000)
NAME: Final = st.from_regex(r"[a-z]([a-z0-9.-]{0,8}[a-z0-9])?", fullmatch=True)
STATES: Final = st.sampled_from([SNP_ON, SNP_OFF, NOTHING])
GOOD: Final = annotation(SNP_OFF)
#: Whole, cut, with something put in, and anything at all.
GARBLED: Final = st.one_of(
    st.text(max_size=200),
    st.builds(lambda at: GOOD[:at], st.integers(0, len(GOOD))),
    st.builds(
        lambda at, word: GOOD[:at] + word + GOOD[at:],
        st.integers(0, len(GOOD)),
        st.text(max_size=9),
    ),
    st.builds(lambda word: GOOD.replace("passthrough", word), st.text(max_size=40)),
    st.sampled_from(['{"sev":' * 500, "9" * 2000, '"\\ud800"', "x" * 3000]),
)


#: Every kind of tag that a fleet without an evil node gives.
TAGS: Final = tags_of(
    render_fleet_page(
        Fleet((summary("n", Kind(annotation="x")), summary("other", Kind())), "no"), (), at=AT
    )
)


@st.composite
def nodes(draw: st.DrawFn) -> NodeSummary:
    states = draw(STATES)
    labels = {
        key: str(state == "usable").lower()
        for key, state in zip(KEYS.values(), states, strict=True)
    }
    made = summarize_node(
        draw(NAME),
        draw(st.sampled_from([labels, {}, {"sevkit.io/product": "milan"}])),
        draw(st.sampled_from([{ANNOTATION: annotation(states)}, {ANNOTATION: "{"}, {}])),
        {},
        {technology: draw(COUNT) for technology in Technology},
        readiness=draw(st.sampled_from(list(Readiness))),
        cordoned=draw(st.booleans()),
    )
    if draw(st.booleans()):
        made = made.with_requests(
            {technology: draw(st.integers(0, 99)) for technology in Technology}
        )
    return made


FLEETS: Final = st.lists(nodes(), max_size=30, unique_by=lambda node: node.name)


@given(FLEETS)
def test_grouping_loses_no_node_and_sums_are_right(fleet: list[NodeSummary]) -> None:
    groups = group_nodes(fleet)
    grouped = [node for group in groups for node in group.nodes]
    assert sorted(node.name for node in grouped) == sorted(node.name for node in fleet)
    for group in groups:
        for technology in Technology:
            tiers = [node.tiers[technology] for node in group.nodes]
            assert len({(one.state, one.reason, one.total) for one in tiers}) == 1
            for whole, parts in (
                (group.total[technology], [one.total for one in tiers]),
                (group.free[technology], [one.free for one in tiers]),
            ):
                known = [part for part in parts if part is not None]
                assert whole == (sum(known) if len(known) == len(parts) else None)
    assert group_nodes(fleet[::-1]) == groups


@given(FLEETS)
def test_every_view_of_a_fleet_has_every_node(fleet: list[NodeSummary]) -> None:
    shown = Fleet(tuple(fleet))
    document = fleet_document(shown, tuple(Technology), 0)
    names = sorted(node.name for node in fleet)
    assert sorted(name for group in document["groups"] for name in group["names"]) == names
    assert sorted(one["name"] for one in document["nodes"]) == names
    assert sum(group["count"] for group in document["groups"]) == len(fleet)
    for width in (20, 70, 130):
        lines = list(render_fleet(shown, tuple(Technology), width=width))
        assert max(map(len, lines)) <= width
    told = sum(row.nodes for row in whats_missing(fleet) if row.technology is None)
    assert told <= len(fleet)


@given(FLEETS)
def test_more_nodes_never_take_a_yes_away(fleet: list[NodeSummary]) -> None:
    for technology in Technology:
        answers = [availability(fleet[:end], technology) for end in range(len(fleet) + 1)]
        order = {False: 0, None: 1, True: 2}
        ranks = [order[answer] for answer in answers]
        assert ranks == sorted(ranks)


@given(GARBLED, st.text(max_size=20), NAME)
def test_no_annotation_crashes_or_gets_out_of_its_place(text: str, label: str, name: str) -> None:
    kind = Kind(SNP_OFF, annotation=text, labels={"sevkit.io/product": label})
    fleet = Fleet((summary(name, kind), summary("other", Kind())), refusal=f"no {text}")
    for width in (24, 120):
        for line in render_fleet(fleet, (), width=width):
            assert line.replace("…", "").isascii()
            assert line.isprintable()
            assert len(line) <= width
    page = render_fleet_page(fleet, (), at=AT)
    assert page.replace("…", "").replace("\n", "").isascii()
    assert page.replace("\n", "").isprintable()
    assert tags_of(page) == TAGS
    assert not re.search(r"<[^>]*\bon\w+\s*=", page)
    assert len(fleet_document(fleet, (), 0)["nodes"]) == 2


@given(st.lists(st.from_regex(r"[a-z]{0,2}[0-9]{0,4}(-[0-9]{1,3})?", fullmatch=True)))
def test_ranges_name_every_name_and_no_other(names: list[str]) -> None:
    found = [name for item in shorten(names) for name in expand(item)]
    assert sorted(found) == sorted(set(names))


@given(st.lists(NAME), st.integers(1, 60))
def test_a_cut_is_never_too_long(names: list[str], limit: int) -> None:
    assert len(fit(shorten(names), limit)) <= limit


def expand(item: str) -> Iterator[str]:
    """Yield the names of an item, as its reader would."""
    before, bracket, rest = item.partition("[")
    if not bracket:
        yield item
        return
    inner, _, after = rest.partition("]")
    for part in inner.split(","):
        first, _, last = part.partition("-")
        width = len(first) if first.startswith("0") else 0
        for number in range(int(first), int(last or first) + 1):
            yield f"{before}{str(number).zfill(width)}{after}"
