from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevkit.errors import FormatError
from sevkit.kubevirt.json_patch import Editor, Operation, member, pointer, split_pointer
from sevkit.testing.kubevirt.json_patch import apply_patch

if TYPE_CHECKING:
    from sevkit.documents import Json

KEYS = st.sampled_from(["a", "b", "c/d", "e~f", "~1", ""])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("xy", max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)
PATHS = st.lists(KEYS, min_size=1, max_size=4)


def operations(editor: Editor) -> list[tuple[str, str, Any]]:
    return [(one.op, one.path, one.value) for one in editor.operations]


def test_pointers_escape_tilde_and_slash() -> None:
    assert pointer(["metadata", "annotations", "sevkit.io/a~b"]) == (
        "/metadata/annotations/sevkit.io~1a~0b"
    )


@given(st.lists(KEYS))
def test_a_pointer_falls_into_its_parts_again(parts: list[str]) -> None:
    assert split_pointer(pointer(parts)) == tuple(parts)


def test_missing_parents_come_in_one_operation_and_later_children_after_it() -> None:
    editor = Editor({"spec": {}})
    editor.set(1, "spec", "a", "b", "c")
    editor.set(2, "spec", "a", "b", "d")
    assert operations(editor) == [
        ("add", "/spec/a", {"b": {"c": 1}}),
        ("add", "/spec/a/b/d", 2),
    ]


def test_a_parent_that_is_there_is_never_replaced() -> None:
    editor = Editor({"firmware": {"uuid": "u"}})
    editor.set({"secureBoot": False}, "firmware", "bootloader", "efi")
    assert operations(editor) == [("add", "/firmware/bootloader", {"efi": {"secureBoot": False}})]
    assert editor.document == {
        "firmware": {"uuid": "u", "bootloader": {"efi": {"secureBoot": False}}}
    }


def test_null_is_replaced_and_an_equal_value_left_alone() -> None:
    editor = Editor({"a": None, "b": 1})
    editor.set(1, "a", "x")
    editor.set(1, "b")
    assert operations(editor) == [("replace", "/a", {"x": 1})]


def test_what_is_not_there_is_not_removed() -> None:
    editor = Editor({"a": {"b": None}})
    editor.remove("a", "c")
    editor.remove("x", "y")
    editor.remove("a", "b")
    assert operations(editor) == [("remove", "/a/b", None)]
    assert Operation("remove", "/a/b").to_json() == {"op": "remove", "path": "/a/b"}


@pytest.mark.parametrize("value", ["text", 1, [], True])
def test_a_parent_that_is_no_object_is_refused_with_its_place(value: Json) -> None:
    with pytest.raises(FormatError, match="a\\.b is no object"):
        member({"a": {"b": value}}, "a", "b", "c")
    with pytest.raises(FormatError, match="a is no object"):
        Editor({"a": value}).set(1, "a", "b")


@pytest.mark.parametrize("again", [{}, {"y": {}}])
def test_an_object_that_took_the_place_of_a_changed_one_is_changed_itself(again: Json) -> None:
    document: dict[str, Json] = {"a": {"b": {"c": {}}}}
    editor = Editor(document)
    editor.set(1, "a", "b", "c", "x")
    editor.set(again, "a", "b")
    editor.set(2, "a", "b", "c", "x")
    editor.remove("a", "b", "c")
    editor.set(3, "a", "b", "c", "z")
    expected = {"a": {"b": {**(again if isinstance(again, dict) else {}), "c": {"z": 3}}}}
    assert editor.document == expected
    assert apply_patch(document, [one.to_json() for one in editor.operations]) == expected


@given(st.dictionaries(KEYS, JSON, max_size=4), st.lists(st.tuples(PATHS, JSON, st.booleans())))
def test_the_operations_make_of_the_object_what_the_editor_has(
    document: dict[str, Any], steps: list[tuple[list[str], Any, bool]]
) -> None:
    kept = copy.deepcopy(document)
    editor = Editor(document)
    for path, value, removes in steps:
        try:
            if removes:
                editor.remove(*path)
            else:
                editor.set(value, *path)
        except FormatError:
            continue
    assert document == kept
    patched = apply_patch(document, [one.to_json() for one in editor.operations])
    assert patched == editor.document
