"""Changes of a stream: what is put in and cut out, where, in which style; and what is refused."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.documents import parse_documents
from sevkit.documents.edit import Manuscript, PlaceRefused
from sevkit.errors import FormatError, UsageError

if TYPE_CHECKING:
    from sevkit.documents import Json

GONE = object()


def change(text: str, *changes: tuple[str, Any], number: int = 0) -> str:
    """Return the text with the members at some paths, in dots, set or (``GONE``) taken away."""
    manuscript = Manuscript(text.encode(), "test")
    # What aliases share is not to be changed in two places.
    whole = json.loads(json.dumps(manuscript.values[number]))
    for path, value in changes:
        *above, last = path.split(".")
        place: Any = whole
        for part in above:
            place = place[int(part) if isinstance(place, list) else part]
        if value is GONE:
            del place[last]
        else:
            place[last] = value
    return manuscript.change({number: whole}).decode()


BLOCK = """\
# first
spec:
    domain:   # of the VM
        cpu:
            cores: 2   # enough
            maxSockets: 4 # many

        memory: {guest: 1Gi}
        devices: &d
            disks:
            - name: a

    # about volumes
    volumes: []
# last
"""


def test_a_member_goes_behind_the_last_one_and_before_the_comments_that_follow() -> None:
    assert change(BLOCK, ("spec.domain.launchSecurity", {"sev": {"policy": {"es": True}}})) == (
        BLOCK.replace(
            "            - name: a\n",
            "            - name: a\n"
            "        launchSecurity:\n"
            "            sev:\n"
            "                policy:\n"
            "                    es: true\n",
        )
    )


def test_members_at_one_place_come_deeper_ones_first() -> None:
    text = "a:\n  b:\n    c: 1\n"
    assert change(text, ("x", 1), ("a.x", 2), ("a.b.x", 3)) == (
        "a:\n  b:\n    c: 1\n    x: 3\n  x: 2\nx: 1\n"
    )


def test_a_removed_member_takes_its_line_along_and_nothing_else() -> None:
    assert change(BLOCK, ("spec.domain.cpu.maxSockets", GONE)) == BLOCK.replace(
        "            maxSockets: 4 # many\n", ""
    )


def test_the_last_member_that_is_removed_leaves_braces() -> None:
    text = "cpu: # few\n  # how many\n  maxSockets: 4\nx: 1\n"
    assert change(text, ("cpu.maxSockets", GONE)) == "cpu: {} # few\n  # how many\nx: 1\n"


def test_one_member_goes_as_another_comes() -> None:
    text = "cpu:\n  maxSockets: 4\nx: 1\n"
    assert change(text, ("cpu.maxSockets", GONE), ("cpu.model", "EPYC-Milan")) == (
        "cpu:\n  model: EPYC-Milan\nx: 1\n"
    )


@pytest.mark.parametrize("empty", ["", " ~", " null", " {}", " { }", "\n    {}"])
def test_what_holds_nothing_yet_gets_lines_of_its_own(empty: str) -> None:
    text = f"spec:\n  cpu:{empty} # why\n  # next\n  x: 1\n"
    assert change(text, ("spec.cpu", {"model": "EPYC", "cores": 2})) == (
        "spec:\n  cpu: # why\n    model: EPYC\n    cores: 2\n  # next\n  x: 1\n"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{a: 1}", "{a: 1, new: {k: v}}"),
        ("{a: 1 }", "{a: 1, new: {k: v} }"),
        ("{a: 1,}", "{a: 1, new: {k: v},}"),
        ("{a: }", "{a: , new: {k: v} }"),
        ("{a}", "{a, new: {k: v}}"),
        ("{!!str }", "{!!str , new: {k: v} }"),
        ("{!!str a:}", "{!!str a:, new: {k: v}}"),
        ("{&y a:}", "{&y a:, new: {k: v}}"),
        ("{a: !!str }", "{a: !!str , new: {k: v} }"),
        ("{a: !!str\n  }", "{a: !!str , new: {k: v}\n  }"),
        ("{\n  a: !!str\n  }", "{\n  a: !!str ,\n  new: {k: v}\n  }"),
        ("{? a # b: c\n  : }", "{? a # b: c\n  : , new: {k: v} }"),
        ('{"a":1}', '{"a":1,"new":{"k":"v"}}'),
        ('{"a": 1}', '{"a": 1, "new": {"k": "v"}}'),
        ("{\n  a: 1 # one\n  }", "{\n  a: 1, # one\n  new: {k: v}\n  }"),
        ("{\n  a: 1, # one\n  }", "{\n  a: 1, # one\n  new: {k: v},\n  }"),
        ('{\n  "a": 1\n  }', '{\n  "a": 1,\n  "new": {\n    "k": "v"\n  }\n  }'),
        ("{ # none\n  }", "{ # none\n  new: {k: v}}"),
        ("&x {a: 1}", "&x {a: 1, new: {k: v}}"),
        ("!!map {a: 1}", "!!map {a: 1, new: {k: v}}"),
    ],
)
def test_a_flow_mapping_stays_one(before: str, after: str) -> None:
    found = change(f"x: {before}\ny: 1\n", ("x.new", {"k": "v"}))
    assert found == f"x: {after}\ny: 1\n"


def test_braces_of_json_that_hold_nothing_are_opened_as_their_surroundings_are() -> None:
    text = '{\n\t"a": {},\n\t"b": null,\n\t"c": []\n}\n'
    after = '{\n\t"a": {\n\t\t"x": 1\n\t},\n\t"b": {\n\t\t"y": {}\n\t},\n\t"c": []\n}\n'
    assert change(text, ("a.x", 1), ("b", {"y": {}})) == after


@pytest.mark.parametrize(
    ("before", "cut", "after"),
    [
        ("{a: 1, b: 2, c: 3}", "a", "{b: 2, c: 3}"),
        ("{a: 1, b: 2, c: 3}", "b", "{a: 1, c: 3}"),
        ("{a: 1, b: 2, c: 3}", "c", "{a: 1, b: 2}"),
        ("{a: 1, b: 2, c: 3}", "bc", "{a: 1}"),
        ("{a: 1, b: 2, c: 3}", "ac", "{b: 2}"),
        ("{a: 1, b: 2, }", "ab", "{}"),
        ("{a: '#', b: 2}", "a", "{b: 2}"),
        ("{a: , b: 2,}", "b", "{a: ,}"),
        ("{a: , b: 2}", "b", "{a: }"),
        ("{a: !!str , b: 2}", "b", "{a: !!str }"),
        ("{a, b: 2}", "b", "{a}"),
        ('{"a":"#","b":2}', "b", '{"a":"#"}'),
    ],
)
def test_members_of_a_flow_mapping_go_with_their_commas(before: str, cut: str, after: str) -> None:
    assert change(f"x: {before}\n", *((f"x.{key}", GONE) for key in cut)) == f"x: {after}\n"


def test_members_of_a_flow_mapping_come_and_go_at_once() -> None:
    cut = (("x.a", GONE), ("x.b", GONE))
    assert change("x: {a: 1, b: 2}\n", *cut, ("x.new", 3)) == "x: {new: 3}\n"
    assert change("x: {c: 0, a: 1, b: 2}\n", *cut, ("x.new", 3)) == "x: {c: 0, new: 3}\n"


def test_the_first_member_of_a_list_s_item_makes_room_for_the_next() -> None:
    text = "l:\n- a: 1\n  b: '#'\n  c: 3 # last\n"
    assert change(text, ("l.0.a", GONE)) == "l:\n- b: '#'\n  c: 3 # last\n"
    assert change(text, ("l.0.a", GONE), ("l.0.b", GONE)) == "l:\n- c: 3 # last\n"
    assert change(text, ("l.0.d", 4)) == text + "  d: 4\n"


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("LiveMigrate", "External", "External"),
        ("'LiveMigrate'", "yes", '"yes"'),
        ("a\n  b", True, "true"),
        ("[1, 2]", [3], "[3]"),
        ("{a: 1}", "text", "text"),
        ("1", {}, "{}"),
        ("~", [{"a": "b"}], "[{a: b}]"),
        ("[ b: 1 , c ]", ["new", "c"], "[ new , c ]"),
    ],
)
def test_one_value_comes_in_the_place_of_another(before: str, value: Json, after: str) -> None:
    assert change(f"x: {before} # why\ny: 1\n", ("x", value)) == f"x: {after} # why\ny: 1\n"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("x", "x"),
        ("sevkit.io/sev-snp", "sevkit.io/sev-snp"),
        ("snp; policy 0a; sevkit 0.1.0", "snp; policy 0a; sevkit 0.1.0"),
        ("1", '"1"'),
        ("yes", '"yes"'),
        ("Null", '"Null"'),
        ("", '""'),
        ("a ", '"a "'),
        ("a: b", '"a: b"'),
        ("a #b", '"a #b"'),
        ("[a]", '"[a]"'),
        ('q"\\', '"q\\"\\\\"'),
        ("a\nb", '"a\\u000ab"'),
        ("\x7f\x85\u2028é", '"\\u007f\\u0085\\u2028\\u00e9"'),
        ("\U0001f600", '"\U0001f600"'),
        ("x" * 201, f'"{"x" * 201}"'),
    ],
)
def test_a_text_is_plain_where_it_stays_the_same_text(text: str, written: str) -> None:
    assert change("a: 1\n", ("b", text)) == f"a: 1\nb: {written}\n"


@pytest.mark.parametrize(
    ("before", "path", "value", "after"),
    [
        ("x: {}# c\n", "x.a", 1, "x: # c\n  a: 1\n"),
        ("x: 'a'# c\n", "x", "b", "x: b # c\n"),
        ("x: {a: 'b'# c\n  }\n", "x.k", 1, "x: {a: 'b', k: 1 # c\n  }\n"),
        ("x: {a: b, c: 'd'# c\n  }\n", "x.c", GONE, "x: {a: b # c\n  }\n"),
        ("x: {\n  a: 'b'# c\n  }\n", "x.k", 1, "x: {\n  a: 'b', # c\n  k: 1\n  }\n"),
        ("x:\n  a: 1\n# c\n", "x.k", 1, "x:\n  a: 1\n  k: 1\n# c\n"),
        ("x:\n  a: 1\n  b: 2\n# c\n", "x.b", GONE, "x:\n  a: 1\n# c\n"),
    ],
)
def test_a_comment_right_behind_a_change_stays_one(
    before: str, path: str, value: Json, after: str
) -> None:
    assert change(before, (path, value)) == after


def test_quoted_keys_have_quoted_neighbours() -> None:
    assert change('"a":\n  "b": 1\n', ("a.c", {"d": "e"})) == (
        '"a":\n  "b": 1\n  "c":\n    "d": "e"\n'
    )


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends_are_the_stream_s_own(newline: str) -> None:
    text = "a:\n  b: |\n    c\n\nd: {}\n".replace("\n", newline)
    found = change(text, ("a.x", {"w": 1}), ("d", {"z": 2}))
    assert found == "a:\n  b: |\n    c\n  x:\n    w: 1\n\nd:\n  z: 2\n".replace("\n", newline)


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\n...\n", " # end", "\n---\n# none\n"])
def test_the_end_of_the_stream_stays_what_it_is(end: str) -> None:
    assert change(f"a:\n  b: 1{end}", ("a.c", 2), ("d", 3)) == (
        f"a:\n  b: 1{end[:6] if end[:1] == ' ' else ''}\n  c: 2\nd: 3"
        f"{'' if end[:1] == ' ' else end}"
    )


@pytest.mark.parametrize(
    "text",
    [
        "a:\n  t: |\n    x\n\n\nz: 1\n",
        "a:\n  t: |+ # keep\n    x\n\n\nz: 1\n",
        "a:\n  t: >-\n    x\n     y\n  # no\nz: 1\n",
        "a:\n  t: |\n    x\n      \n    \nz: 1\n",
        "a:\n  t: |\n\n\nz: 1\n",
        "a:\n  t: x\n    y\n  # no\nz: 1\n",
        'a:\n  t: "x\n\n    y" # no\nz: 1\n',
        "a:\n  ? t # :\n  # no\n  :\nz: 1\n",
        "a:\n  ? t\n:z: 1\n",
        "a:\n  t:\n  - x\n  -\n\nz: 1\n",
    ],
)
def test_a_text_of_several_lines_stays_whole_when_something_follows_it(text: str) -> None:
    (before,) = parse_documents(text.encode(), "test")
    (after,) = parse_documents(change(text, ("a.new", 1)).encode(), "test")
    assert isinstance(before, dict)
    assert isinstance(before["a"], dict)
    before["a"]["new"] = 1
    assert after == before


@pytest.mark.parametrize("text", [BLOCK, "a:\n  t: |\n    x\n\n\nz: 1\n", "a:\r\n- b: 1\r\n"])
def test_what_came_can_go_again(text: str) -> None:
    added = change(text, ("new", {"a": {"b": 1}}))
    assert added != text
    assert change(added, ("new", GONE)) == text


def test_only_the_documents_that_are_named_change() -> None:
    text = "\ufeff# first\n---\na: 1\n---\n\n---\n{b: 2}  # two\n...\n---\n'c' :   3\n"
    manuscript = Manuscript(text.encode(), "test")
    assert manuscript.values == ({"a": 1}, {"b": 2}, {"c": 3})
    assert manuscript.lines == (3, 7, 10)
    assert manuscript.change({1: {"b": 2, "x": 1}}).decode() == text.replace("2}", "2, x: 1}")
    assert manuscript.change({0: {"a": 1}, 2: {"c": 3.0}}) == text.encode()
    assert manuscript.change({}) == text.encode()


def test_json_objects_that_follow_each_other_stay_json() -> None:
    text = ' {"a": "\\/"}\n{"b": {}}{"c": 3}'
    manuscript = Manuscript(text.encode(), "test")
    assert manuscript.lines == (1, 2, 2)
    assert manuscript.change({1: {"b": {"x": "y"}}}).decode() == (
        ' {"a": "\\/"}\n{"b": {"x": "y"}}{"c": 3}'
    )


@pytest.mark.parametrize(
    ("text", "path", "value", "why"),
    [
        ("a: &x {b: 1}\nc: *x\n", "c.d", 1, "c at line 2: is the alias"),
        ("a: &x {b: 1}\nc: *x\n", "a.d", 1, "a at line 1: is used again as"),
        ("a: &x {b: 1}\nc: *x\n", "a", GONE, "a at line 1: is used again as"),
        ("a: {y: &x 1}\nc: *x\n", "a", "z", "a at line 1: is used again as"),
        ("a: &x {b: {}}\nc:\n  <<: *x\n", "c.b.d", 1, "c.b at line 3: comes from elsewhere"),
        ("? a\n: {b: 1}\n", "a.c", 1, "a at line 1: is not written as key: value"),
        ("x: {? a : {b: 1}}\n", "x.a.c", 1, "x.a at line 1: is not written as"),
        ("a: &x 1\n", "a", 2, "a at line 1: has an anchor or a tag"),
        ("a: !!str 1\n", "a", 2, "a at line 1: has an anchor or a tag"),
        ("a: |\n  x\n", "a", 2, "a at line 1: cannot be exchanged"),
        ("a:\n- 1\n", "a", 2, "a at line 2: cannot be exchanged"),
        ("a: [ # x\n  1]\n", "a", 2, "a at line 1: cannot be exchanged"),
        ("a:\n  # x\n  {}\n", "a.b", 2, "a at line 3: stands below a comment"),
        ("a: [b: 1]\n", "a.0.c", 2, "a[0] at line 1: has no braces"),
        ("a: [b: {}]\n", "a.0.c", 2, "a[0] at line 1: has no braces"),
        ("a: [b: {}]\n", "a.0.b", GONE, "a[0] at line 1: has no braces"),
        ("a: {k: {}}\nx:\n  !!str <<: {k: {}}\n", "x.k.d", 2, "x.k at line 3: comes from"),
        ("a: {b: 1, # x\n  c: 2}\n", "a.b", GONE, "a.b at line 1: cannot be cut out of"),
        ("a: {b: 1, ? c : 2}\n", "a.b", GONE, "a.b at line 1: cannot be cut out of"),
        ("a: {b: 1, !!str &x c: 2}\n", "a.b", GONE, "a.b at line 1: cannot be cut out of"),
        ("a: {b:, c: 2 }\n", "a.c", GONE, "a.c at line 1: cannot be cut out of"),
        ("a:\n- b: 1\n", "a.0.b", GONE, "a[0] at line 2: would be left empty"),
        ("a:\n- b: 1\n  # x\n  c: 2\n", "a.0.b", GONE, "a[0].b at line 2: cannot be cut out"),
        ("a:\n- b: 1\n  ? c\n  : 2\n", "a.0.b", GONE, "a[0].b at line 2: cannot be cut out"),
        ("a: |\n  x\nb: 1\n  # y\n", "b", GONE, "b at line 3: keeps a text apart"),
        ("    a: >\n  \n", "b", 1, "the document at line 1: ends with a text of nothing but"),
        ("? |\n  x", "b", 1, "the document at line 2: ends with a text that has no line"),
        ("a:\n  b:\n  - |\n    x", "c", 1, "the document at line 3: ends with a text that"),
        ("a: |+\n  x\nb: 1\n\n", "b", GONE, "b at line 3: keeps a text apart"),
        ("? a\n: b\nc: 1\n\n", "c", GONE, "c at line 3: keeps a text apart"),
        ("a: |\n  x", "b", 1, "the document at line 1: ends with a text that has no line"),
        ("a: |+\n  ", "b", 1, "the document at line 1: ends with a text of nothing but"),
        ("a: 1\nb: 2", "b", GONE, "b at line 2: has no line break at its end"),
    ],
)
def test_what_cannot_be_changed_safely_is_refused(
    text: str, path: str, value: Json, why: str
) -> None:
    with pytest.raises(PlaceRefused, match=re.escape(why)) as refused:
        change(text, (path, value))
    assert refused.value.hint


def test_every_document_that_cannot_be_changed_is_found() -> None:
    text = b"l:\n- |\n  x\n---\na: 1\n---\na: |\n  x\n"
    manuscript = Manuscript(text, "test")
    refused = manuscript.find_refused({0: {"l": ["y"]}, 1: {"a": 2}, 2: {"a": 2}})
    found = {number: (one.line, one.parts, one.path) for number, one in refused.items()}
    assert found == {0: (2, ("l", "0"), "l[0]"), 2: (7, ("a",), "a")}
    assert all(isinstance(one, UsageError) for one in refused.values())
    assert manuscript.find_refused({1: {"a": 2}}) == {}


def test_a_list_keeps_its_length() -> None:
    with pytest.raises(PlaceRefused, match="cannot be exchanged"):
        change("a:\n- 1\n", ("a", [1, 2]))


@pytest.mark.parametrize("data", [b"\xff", b"a: [\n", b"a: 1\na: 2\n", b"a: !x 1\n"])
def test_what_is_no_stream_is_malformed(data: bytes) -> None:
    with pytest.raises(FormatError):
        Manuscript(data, "test")


def test_a_stream_that_would_grow_over_the_limit_is_refused() -> None:
    manuscript = Manuscript(b"a: 1\n", "test", limit=10)
    with pytest.raises(FormatError, match="larger than the limit"):
        manuscript.change({0: {"a": 1, "b": "x" * 10}})


def test_many_documents_take_no_longer_than_their_size() -> None:
    manuscript = Manuscript(b"{}" * 20_000, "test")
    start = time.monotonic()
    changed = manuscript.change({number: {"a": 1} for number in range(20_000)})
    assert time.monotonic() - start < 10
    assert changed == b'{"a": 1}' * 20_000
