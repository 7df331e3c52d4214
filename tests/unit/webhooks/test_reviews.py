from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.kubevirt.installation import UNKNOWN, Installation
from sevkit.kubevirt.policy import DEFAULT, Policy
from sevkit.kubevirt.tiers import Tier
from webhooks.exchange import Request
from webhooks.reviews import Reviewer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.kubevirt.webhook import Answer


class Around:
    """A cluster of which everything is known."""

    installation: Installation = UNKNOWN

    def __init__(self) -> None:
        self.asked: list[bool] = []

    def runnable(self, *, simulated: bool) -> frozenset[Tier] | None:
        self.asked.append(simulated)
        return frozenset({Tier.SEV})


class Tallied:
    def __init__(self) -> None:
        self.said: list[Any] = []

    def answered(self, found: Answer, seconds: float) -> None:
        assert seconds >= 0
        self.said.append((found.decision, found.tier, found.reason))

    def rejected(self) -> None:
        self.said.append("rejected")


@pytest.fixture
def around() -> Around:
    return Around()


@pytest.fixture
def tally() -> Tallied:
    return Tallied()


@pytest.fixture
def ask(around: Around, tally: Tallied) -> Callable[..., tuple[int, bytes]]:
    def post(path: str, body: bytes, policy: Policy = DEFAULT) -> tuple[int, bytes]:
        reviewer = Reviewer(lambda: policy, around, tally)
        found = reviewer(Request(path, body))
        return found.status, found.body

    return post


def review(spec: dict[str, Any]) -> bytes:
    request = {
        "uid": "u",
        "kind": {"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachineInstance"},
        "operation": "CREATE",
        "object": {"metadata": {"name": "n"}, "spec": spec},
    }
    whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return json.dumps(whole).encode()


def test_a_review_is_answered_and_counted(
    ask: Callable[..., tuple[int, bytes]], tally: Tallied
) -> None:
    status, body = ask("/mutate/best", review({"domain": {"devices": {}}}))
    assert status == 200
    assert json.loads(body)["response"]["allowed"] is True
    status, body = ask("/mutate/snp", review({"architecture": "arm64", "domain": {}}))
    assert json.loads(body)["response"]["allowed"] is False
    assert tally.said == [("injected", "sev", ""), ("refused", "snp", "architecture")]


def test_whether_simulated_nodes_count_is_the_policys_to_say(
    ask: Callable[..., tuple[int, bytes]], around: Around
) -> None:
    body = review({"domain": {}})
    ask("/mutate/best", body)
    ask("/mutate/best", body, policy=Policy(simulated_nodes=True))
    assert around.asked == [False, True]


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b'{"a": "\\n\\u001b"}'])
def test_what_is_no_review_is_rejected_in_one_line(
    ask: Callable[..., tuple[int, bytes]],
    tally: Tallied,
    body: bytes,
) -> None:
    found, said = ask("/mutate/snp", body)
    assert found == 400
    assert said.count(b"\n") == 1
    assert tally.said == ["rejected"]
