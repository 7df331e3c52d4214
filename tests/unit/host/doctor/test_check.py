from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.host.capabilities import decide
from sevkit.host.capability import State, Technology
from sevkit.host.doctor.catalogue import CATALOGUE
from sevkit.host.doctor.check import (
    Check,
    Found,
    Memlock,
    Verdict,
    examine,
    from_flag,
    readiness,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.host.facts import HostFacts

NONE = frozenset[Technology]()


def check(name: str, verdict: Verdict, parent: str = "") -> Check:
    return Check(name, "", NONE, lambda _: Found(verdict, "value", "detail"), "do this", parent)


def test_children_of_a_failure_are_skipped_and_theirs_too(
    facts_of: Callable[..., HostFacts],
) -> None:
    facts = facts_of("milan")
    rows = (
        check("a", Verdict.FAIL),
        check("b", Verdict.PASS, "a"),
        check("c", Verdict.PASS, "b"),
        check("d", Verdict.WARN),
        check("e", Verdict.PASS, "d"),
        check("f", Verdict.SKIP),
        check("g", Verdict.PASS, "f"),
    )
    found = examine(facts, decide(facts), rows)
    assert [one.verdict for one in found] == [
        Verdict.FAIL,
        Verdict.SKIP,
        Verdict.SKIP,
        Verdict.WARN,
        Verdict.PASS,
        Verdict.SKIP,
        Verdict.PASS,
    ]
    assert [one.fix for one in found] == ["do this", "", "", "do this", "", "", ""]
    assert (found[1].detail, found[2].detail) == ("a did not pass", "b did not pass")


def test_what_is_not_known_is_skipped_with_its_reason() -> None:
    assert from_flag(None, "not for us") == Found(Verdict.SKIP, "", "not for us")
    assert from_flag(known=False, why="", no="N").verdict is Verdict.FAIL
    assert told(None).verdict is Verdict.SKIP
    assert told(0) == Found(Verdict.PASS, "0")
    assert told(value=False) == Found(Verdict.PASS, "no")


@pytest.mark.parametrize(
    ("host", "required", "state"),
    [
        (("milan",), (), State.USABLE),
        (("milan",), ("sev", "sev-snp"), State.USABLE),
        (("milan",), ("sev", "sev-es"), State.UNUSABLE),
        (("rome",), ("sev-snp",), State.ABSENT),
        (("rome",), (), State.USABLE),
        (("milan", "smee-off"), (), State.DISABLED),
        (("intel",), (), State.ABSENT),
    ],
)
def test_ready_is_what_is_required_or_anything(
    host: tuple[str, ...],
    required: tuple[str, ...],
    state: State,
    facts_of: Callable[..., HostFacts],
) -> None:
    found = decide(facts_of(*host))
    assert readiness(found, [Technology(word) for word in required]) is state


def test_the_memory_limit_is_of_a_process_not_of_a_copy(facts_of: Callable[..., HostFacts]) -> None:
    facts = facts_of("milan")
    row = next(one for one in CATALOGUE if one.name == "process.memlock")
    (given,) = examine(facts, decide(facts), [row], memlock=Memlock(8388608, -1))
    assert given.value == "soft 8388608, hard unlimited"
    (copy,) = examine(facts, decide(facts), [row])
    assert copy.verdict is Verdict.SKIP
