from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.errors import FormatError
from sevkit.kubevirt.preflight.selector import selects

if TYPE_CHECKING:
    from sevkit.documents import Json


def rule(operator: str, *values: str) -> Json:
    return {"matchExpressions": [{"key": "k", "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("selector", "none", "a", "b"),
    [
        (None, True, True, True),
        ({}, True, True, True),
        ({"matchLabels": {"k": "a"}}, False, True, False),
        (rule("In", "a", "c"), False, True, False),
        (rule("NotIn", "a"), True, False, True),
        (rule("Exists"), False, True, True),
        (rule("DoesNotExist"), True, False, False),
        ({"matchLabels": {"k": "a"}, **rule("NotIn", "a")}, False, False, False),  # type: ignore[dict-item]
    ],
)
def test_selectors_choose_as_the_api_server_does(
    selector: Json, none: bool, a: bool, b: bool
) -> None:
    assert selects(selector, {}) is none
    assert selects(selector, {"k": "a"}) is a
    assert selects(selector, {"k": "b", "other": "a"}) is b


@pytest.mark.parametrize(
    "ill",
    [7, [], {"matchLabels": []}, {"matchExpressions": {}}, {"matchExpressions": [7]}, rule("Like")],
)
def test_what_is_no_selector_chooses_neither(ill: Json) -> None:
    with pytest.raises(FormatError):
        selects(ill, {})
