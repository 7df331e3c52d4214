from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.preflight_documents import GATE
from sevkit.host.doctor.check import Verdict
from sevkit.kubevirt.preflight.catalogue import CATALOGUE, GROUPS
from sevkit.kubevirt.preflight.check import Check, Found, Result, examine, exit_code
from sevkit.kubevirt.preflight.net import POLICIES
from sevkit.kubevirt.preflight.survey import Survey, Unasked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.documents import Json
    from tests.unit.kubevirt.preflight.conftest import Cluster

ASKED: Final = [one.name for one in fields(Survey) if one.name not in {"now", "required", "names"}]


def result(verdict: str) -> Result:
    check = Check("a.b", "s", lambda _: Found(Verdict.PASS), "", "")
    return Result(check, Verdict(verdict))


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["pass", "warn"], 0),
        (["pass", "skip", "warn"], 4),
        (["fail", "skip"], 3),
        (["fail"], 3),
    ],
)
def test_a_no_goes_before_what_is_not_known(verdicts: list[str], code: int) -> None:
    assert exit_code(map(result, verdicts)) == code


def test_where_nothing_was_asked_every_check_is_skipped_and_nothing_is_decided() -> None:
    unknown = Unasked("forbidden", "do this")
    survey = Survey(datetime.now(UTC), policies=dict.fromkeys(POLICIES, unknown))
    results = examine(survey, CATALOGUE, GROUPS)
    assert {one.verdict for one in results} == {Verdict.SKIP}
    assert exit_code(results) == 4


@pytest.mark.parametrize("name", ASKED)
def test_one_thing_that_may_not_be_asked_is_a_skip_of_its_own_with_the_right(
    cluster: Cluster, name: str
) -> None:
    unasked: Any = Unasked("forbidden", "get it")
    if name == "policies":
        unasked = dict.fromkeys(cluster.survey.policies, unasked)
    cluster.change(**{name: unasked})
    odd = cluster.odd()
    assert odd
    assert set(odd.values()) == {"skip"}
    assert cluster.code == 4
    skipped = [cluster.results()[one] for one in odd]
    first = [one for one in skipped if not one.detail.endswith("did not pass")]
    assert first
    assert all((one.right, one.fix) == ("get it", "grant the right to get it") for one in first)


def test_children_of_a_check_that_failed_are_skipped(cluster: Cluster) -> None:
    cluster.change(kubevirts=())
    result = cluster.result("kubevirt.available")
    assert (result.verdict, result.detail) == (Verdict.SKIP, "kubevirt.installed did not pass")
    assert cluster.code == 3


def test_only_the_groups_that_are_asked_for_are_examined(cluster: Cluster) -> None:
    results = examine(cluster.survey, CATALOGUE, {"policy"})
    assert {one.check.group for one in results} == {"policy"}


#: Answers that are handed on as they come, and that a cluster is not ready without.
JUDGED: Final = ("version", "kubevirts", "definition", "mutating", "slices", "policies", "bindings")
#: Those whose content may be anything.
TOLD: Final = ("kubevirt_mutating", "validating", "choices", "service")
KEYS: Final = ("webhooks", "spec", "status", "data", "endpoints", "metadata", "gitVersion")


@pytest.mark.parametrize("ill", [7, "text", True, [7], {"metadata": 7}, {"matchLabels": 1}])
@pytest.mark.parametrize("name", [*JUDGED, *TOLD])
def test_an_ill_formed_answer_never_makes_a_cluster_ready(
    cluster: Cluster,
    name: str,
    ill: Json,
) -> None:
    document: Any = dict.fromkeys(KEYS, ill)
    if name == "policies":
        document = dict.fromkeys(cluster.survey.policies, document)
    if name in {"kubevirts", "slices", "bindings"}:
        document = (document,)
    cluster.change(**{name: document})
    assert cluster.code in ({3, 4} if name in JUDGED else {0, 3, 4})


#: What may stand in the place of anything.
ODD: Final[tuple[Json, ...]] = (7, None, [[7]], {"a": [{}]})


def places(value: Json, *before: str | int) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to everything that a document holds."""
    if before:
        yield before
    inner = value.items() if isinstance(value, dict) else []
    for key, one in enumerate(value) if isinstance(value, list) else inner:
        yield from places(one, *before, key)


def put(value: Any, way: tuple[str | int, ...], odd: Json) -> Json:  # noqa: ANN401  # JSON
    """Return a document with something odd in one place."""
    if not way:
        return odd
    copied = value.copy()
    copied[way[0]] = put(value[way[0]], way[1:], odd)
    whole: Json = copied
    return whole


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("version", ["kubernetes"]),
        *((name, ["kubevirt"]) for name in ("kubevirts", "definition")),
        *((name, ["webhook"]) for name in ("mutating", "validating", "service", "slices")),
        *((name, ["policy"]) for name in ("policies", "bindings")),
        ("choices", ["webhook", "nodes"]),
    ],
)
def test_something_odd_anywhere_in_an_answer_is_judged_and_never_a_crash(
    cluster: Cluster, name: str, groups: list[str]
) -> None:
    answer = getattr(cluster.survey, name)
    if name == "kubevirts":
        answer[0]["metadata"]["ownerReferences"] = [{"kind": "HyperConverged"}]
        answer[0]["spec"]["configuration"]["developerConfiguration"] = {
            "disabledFeatureGates": [GATE],
            "memoryOvercommit": 100,
        }
    plain: Any = list(answer) if isinstance(answer, tuple) else answer
    ways = tuple(places(plain))
    assert ways
    for way in ways:
        for odd in ODD:
            changed: Any = put(plain, way, odd)
            # The list itself is made by the reader of pages, of objects only.
            whole = tuple(one for one in changed if isinstance(one, dict))
            cluster.change(**{name: whole if isinstance(answer, tuple) else changed})
            results = examine(cluster.survey, CATALOGUE, groups)
            assert exit_code(results) in {0, 3, 4}, (way, odd)
