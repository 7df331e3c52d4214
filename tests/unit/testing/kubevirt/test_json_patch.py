from __future__ import annotations

from typing import Any

import pytest

from sevkit.testing.kubevirt.json_patch import PatchTestFailed, apply_patch


# Examples of RFC 6902 appendix A.
@pytest.mark.parametrize(
    ("document", "operation", "expected"),
    [
        (
            {"foo": "bar"},
            {"op": "add", "path": "/baz", "value": "qux"},
            {"baz": "qux", "foo": "bar"},
        ),
        (
            {"foo": ["bar", "baz"]},
            {"op": "add", "path": "/foo/1", "value": "qux"},
            {"foo": ["bar", "qux", "baz"]},
        ),
        ({"baz": "qux", "foo": "bar"}, {"op": "remove", "path": "/baz"}, {"foo": "bar"}),
        (
            {"foo": ["bar", "qux", "baz"]},
            {"op": "remove", "path": "/foo/1"},
            {"foo": ["bar", "baz"]},
        ),
        (
            {"baz": "qux", "foo": "bar"},
            {"op": "replace", "path": "/baz", "value": "boo"},
            {"baz": "boo", "foo": "bar"},
        ),
        (
            {"foo": ["bar"]},
            {"op": "add", "path": "/foo/-", "value": ["abc", "def"]},
            {"foo": ["bar", ["abc", "def"]]},
        ),
        ({"/": 9, "~1": 10}, {"op": "test", "path": "/~01", "value": 10}, {"/": 9, "~1": 10}),
        ({"a": ["x"]}, {"op": "replace", "path": "/a/0", "value": "y"}, {"a": ["y"]}),
    ],
)
def test_the_rfcs_examples(
    document: dict[str, Any], operation: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert apply_patch(document, [operation]) == expected


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/baz", "value": "bar"},
        {"op": "test", "path": "/nobody", "value": None},
        {"op": "replace", "path": "/nobody", "value": 1},
        {"op": "remove", "path": "/nobody"},
        {"op": "add", "path": "/nobody/bat", "value": 1},
        {"op": "test", "path": "", "value": {}},
        {"op": "move", "path": "/baz", "from": "/baz"},
    ],
)
def test_a_patch_that_does_not_apply_changes_nothing(operation: dict[str, Any]) -> None:
    document = {"baz": "qux"}
    with pytest.raises(PatchTestFailed):
        apply_patch(document, [{"op": "add", "path": "/new", "value": 1}, operation])
    assert document == {"baz": "qux"}
