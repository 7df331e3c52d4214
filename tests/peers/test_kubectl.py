"""What sevkit reads out of YAML and JSON, kubectl reads too; where not, it is known how.

kubectl is asked without a cluster: ``kubectl annotate --local`` prints the objects of a stream as
kubectl holds them, after its YAML parser made JSON of it. That a cluster then stores the same is
shown once, where there is an API server. Numbers are compared as Kubernetes holds them: 64-bit
integers, also where a number was written with a point, and else floats.

sevkit may refuse what kubectl takes (``STRICTER``), never the other way round: what it does take
all the same is in ``LAXER``.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from sevkit.documents import Json, parse_documents
from sevkit.errors import FormatError, UsageError
from sevkit.kubevirt.manifests import parse_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from subprocess import CompletedProcess

    from hack.control_plane import ControlPlane

    Ask = Callable[..., CompletedProcess[bytes]]

#: Only the annotation that is needed to ask; it is taken off again.
MARK: Final = "sevkit.io/asked"
OWN: Final = ("apiVersion", "kind", "metadata")
THING: Final = "apiVersion: example.org/v1\nkind: Thing\nmetadata: {name: thing}\n"
JSON_THING: Final = (
    '{"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "thing"}, %s}'
)

#: Plain values.
WORDS: Final = """
true yes y Y Yes YES On ON on False no n N NO off OFF yEs tRUE oN t f yess
~ null Null NULL nULL nil None
0 -0 +0 7 -12 +12 00 010 -010 +010 0777 0o10 -0o10 0x1F 0x1f -0x1f 0b101 -0b11
08 0888 0o8 0x 0xg 0b2 0b 0o 1_000 1__0 5_ 0_7 0_8 0x1_F _5 -_ 1_0.5
1.5 -.5 +.5 .5 5. 1. . .. -. +. -- ++1 +-1 1.2.3 1e3 1E+3 1e-3 -.5e3 1e 1e+ .e3 5e
1e308 1e309 -1e999 1e-400 4.9e-324 0.1 123456789.123456789 1e16 1e17 1e21 1e22
9007199254740993 9223372036854775807 -9223372036854775808 9223372036854775808
18446744073709551615 18446744073709551616 12345678901234567890123 0x7fffffffffffffff
0xffffffffffffffff NaN nan inf Inf +Inf -Infinity 0x1.8p1 1e5f 100m 1Gi 1,000
1:30 190:20:30 12:30:45.6 2026-11-23 2026-1-1 2026-11-23T10:00:00Z
0X1F 0O17 0B11 -_5 +_5 1e1_0 0_x1F .5_ .5_0 .5e1_0 0x10000000000000000
2001-12-14t21:59:43.10-05:00 = << <<x a:b ::x http://a:80/b?c a#b -x ?x :x
"""
#: Plain and quoted values, each put after ``- ``.
SCALARS: Final = (
    *WORDS.split(),
    "1" * 65,
    "-" + "1" * 80,
    "0" * 80 + "1",
    "2026-11-23 10:00:00",
    "a # comment",
    "a  b",
    "'yes'",
    '"on"',
    "''",
    '""',
    "'it''s'",
    "'010'",
    '"a\\nb\\t\\x41\\u00e9\\U0001F600\\_\\N\\L\\P\\e\\0\\a\\b\\v\\f\\r\\ \\"\\\\"',
    '"a\\\n   b"',
    '"a\n  b\n\n  c"',
    "'a\n\n  b'",
    "a\n  b\n\n  c",
    '"  a  \n\n\n  b "',
    '"a\tb"',
    "|\n  a\n  b\n",
    "|-\n  yes\n",
    "|+\n  a\n\n",
    "|2\n   a\n",
    ">\n  a\n  b\n\n  c\n   d\n  e\n",
    ">-\n  010\n",
    ">+\n\n  a\n\n",
    "| # comment\n  a\n",
    "!!str 12",
    "!!str yes",
    "!!str",
    "! 12",
    "! yes",
    "!<tag:yaml.org,2002:str> ~",
    "\u00e9",
    "\u00a0a",
    "a\ufeffb",
    '"a\u2028b"',
    '"a\u0085b"',
    "\U0001f600",
    "|2\n   \ta\n",
    "|\n  a\n  \tb\n",
    "'a\u2028b'",
    '"a\\\\/b"',
)

#: Documents of one object; each is put after ``THING``.
DOCUMENTS: Final = (
    "a: 1\ntrue: b\nnull_: c\n",
    "yes: a\n010: b\n0x10: c\n-1: d\n'': e\n2026-01-01: f\n",
    "? a\n: b\n",
    "? a\n",
    "1e3: a\n08: b\n",
    'v: ["a":b]\n',
    "a:\nb: ''\n",
    "a: [b, c, ]\nd: {e: f, }\ng: []\nh: {}\n",
    "a: [b,c]\nd: {e, f}\ng: {h:1}\ni: {'j':1}\nk: [l: m]\nn: {o: , p: 2}\n",
    "a:\n- b\n-   c\n- - d\n  - e\n-\n- f: g\n  h: i\n",
    "a:\n  - b:\n    - c\n",
    "a: [\nb\n]\nc: {\nd: e\n}\n",
    "# comment\na: b # comment\n# comment\nc: 'd' # comment\n#\n",
    "x: &b {a: 1, b: 2}\nz: *b\nw: {<<: *b, b: 3}\n",
    "x: &b {a: 1}\nz:\n  <<: [{a: 9, c: 4}, *b]\n",
    "<<: {a: 1}\n",
    "<<: []\n",
    "x: &x {a: 1}\nz: &z {<<: *x, b: 2}\nw: {<<: *z, c: 3}\n",
    "x: &a 1\nx2: &a 2\nw: *a\n",
    "x: &k key\n*k : v\n",
    "&a a: b\nc: *a\n",
    "x: &a\nw: *a\n",
    "x: &a !!str 1\nw: !!str &b 2\nv: [*a, *b]\n",
    "v: !!map {a: 1}\nw: !!seq [1]\n",
    "v: a\r\nw: |\r\n  b\r\n  c\r\nx: 'd\r\n  e'\r\n",
    "v: a\rw: b\n",
    "\u00e9: a\n",
    "v: [\ta,\tb ]\nw: {\n\tc: d\n}\n",
    "v: " + "[" * 90 + "]" * 90 + "\n",
)

#: Streams of several objects, or with a frame around one.
STREAMS: Final = {
    "two": f"{THING}a: 1\n---\n{THING}b: 2\n",
    "spaces and a comment after the marks": f"---  \n{THING}--- # comment\n{THING}---   # c\n",
    "empty ones": f"---\n---\n# nothing\n---\n{THING}---\n~\n---\nnull\n---\n\n",
    "nothing": "",
    "a line": "\n",
    "only a comment": "# nothing\n",
    "an end mark": f"{THING}...\n---\n{THING}...\n",
    "a mark in a block scalar": f"{THING}v: |\n  ---\n  a\n---\n{THING}",
    "a byte order mark": f"\ufeff{THING}",
    "a byte order mark before a mark": f"\ufeff---\n{THING}",
    "carriage returns": f"{THING}---\n{THING}".replace("\n", "\r\n"),
    "no last line end": f"---\n{THING}v: 1\n---",
    "indented": "  " + THING.replace("\n", "\n  ").rstrip(),
    "a merge key in quotes": f"{THING}x: &b {{a: 1}}\nz: {{'<<': *b}}\n\"<<\": a\n",
    "a long key": f"{THING}{'k' * 1023}: 1\n",
    "JSON": JSON_THING
    % '"v": [1, -2, 1.5, 1e3, true, null, "a\\/\\u00e9\\ud83d\\ude00\\n\\u0000"]',
    "JSON numbers": JSON_THING % '"v": [-0, -0.0, 1.0, 0.1e1, 9007199254740993, 1e-400, 1e308]',
    "JSON with line separators": JSON_THING % '"v": "\u2028\u0085\x7f"',
    "JSON objects that follow each other": (JSON_THING % '"v": 1') + "\n" + JSON_THING % '"v": 2',
    "JSON objects between marks": (JSON_THING % '"v": 1') + "\n---\n" + JSON_THING % '"v": 2',
    "JSON, then YAML": (JSON_THING % '"v": 1') + f"\n---\n{THING}v: yes\n",
    "YAML, then JSON": f"{THING}v: yes\n---\n" + JSON_THING % '"v": 2',
    "a flow mapping that is no JSON": JSON_THING % "v: yes, 'w': 010, x: [1,], y: .5",
    "JSON with a byte order mark": "\ufeff" + JSON_THING % '"v": 1',
    "JSON after a comment": "# comment\n" + JSON_THING % '"v": 1',
}

#: What both refuse; after ``THING``.
REFUSED: Final = (
    "v: .inf\n",
    "v: -.INF\n",
    "v: .NaN\n",
    "x: &a.b 1\nw: *a.b\n",
    "x: &\u00e9 1\nw: *\u00e9\n",
    "9223372036854775808: a\n",
    "v: [x, :y]\n",
    "v: [x?]\n",
    f"--- {JSON_THING % 'v: 1'}\n",
    "--- ~\n",
    "---a: b\n",
    f"---\n%YAML 1.2\n---\n{THING}",
    f"---\n%X y\n---\n{THING}",
    f"---\n%X y\n# comment\n---\n{THING}",
    'v: "\\/"\n',
    'v: "\\\\\\/"\n',
    "v: |\n  \ta\n",
    "v: &x !!str >-\n\n  \ta\n",
    "v: a\u2028b\n",
    "v: a\u2029b\n",
    "v: a\u0085b\n",
    "v\u2028: a\n",
    "v: [\n",
    "v: {a: b\n",
    "v: 'a\n",
    'v: "\\z"\n',
    'v: "\\ud800"\n',
    'v: "\\x4"\n',
    "v: @a\n",
    "v: `a\n",
    "v: %a\n",
    "v: a: b\n",
    "v: - a\n",
    "v: [a]b\n",
    "v: [a,,b]\n",
    "v: | a\n",
    "v: |0\n a\n",
    "- a\n",
    "v:1\n",
    "\tv: a\n",
    "v:\n\t- a\n",
    "v: |\n\ta\n",
    "v: a\x07b\n",
    "v: \x00\n",
    "v: a\x7fb\n",
    "v: \ufffe\n",
    "v: *a\n",
    "v: &a [*a]\n",
    "v: &a 1\n---\nw: *a\n",
    "v: *\n",
    "<<: 1\n",
    "<<: ~\n",
    "<<: [[{a: 1}]]\n",
    "~: a\n",
    "? [1]\n: a\n",
    "{a: 1}: b\n",
    f"{'k' * 1025}: 1\n",
    "---x\n",
    "----\n",
    "v: 'a\n---\nb'\n",
    "v: [a,\n---\nb]\n",
    "---\n" + JSON_THING % '"v": "\\ud83d\\ude00"',
)

#: What kubectl takes and sevkit deliberately, or for its parser, does not: after ``THING``.
STRICTER: Final = {
    "a merge after a key that it holds too": ("x: {b: 3, <<: {b: 2}}\n", "after it was given"),
    "what follows an end mark": (f"v: 1\n...\n{THING}v: 2\n", "not YAML"),
    "a byte order mark in the second document": (
        f"v: 1\n---\n\ufeff{THING}v: 2\n",
        "a byte order mark within the stream",
    ),
    "a mark between carriage returns": (
        f"v: 1\r---\r{THING}v: 2\n",
        "a document begins within a line",
    ),
    "a key that begins as a mark with a comment does": ("---#a: b\n", "--- does not stand alone"),
    "a directive": (f"...\n%YAML 1.1\n---\n{THING}", "a directive"),
    "a key of more than 64 bits": ("99999999999999999999999: a\n", "neither text nor"),
    "a colon close to an anchor": ("v: &a:b c\n", "anchor a:b is not"),
    "infinity as a key": (".inf: a\n", "not a number of JSON's"),
    "a key twice": ("a: 1\na: 2\n", "occurs twice"),
    "a key twice in a flow mapping": ("v: {a: 1, 'a': 2}\n", "occurs twice"),
    "keys that become the same text": ("1: a\n'1': b\n", "occurs twice"),
    "numbers that become the same key": ("010: a\n8: b\n", "occurs twice"),
    "booleans that become the same key": ("true: a\nyes: b\n", "occurs twice"),
    "two merges": ("v: {<<: {a: 1}, <<: {b: 2}}\n", "occurs twice"),
    "a merge by its tag": ("v: {!!merge <<: {a: 1}}\n", "tag .* is not allowed"),
    "a float as a key": ("1.5: a\n", "neither text nor a whole number"),
    "a tag that names a type": ('v: !!int "3"\n', "tag .* is not allowed"),
    "a tag that repeats the type": ("v: !!float 3.5\n", "tag .* is not allowed"),
    "binary": ("v: !!binary aGk=\n", "tag .* is not allowed"),
    "a set": ("v: !!set {a, b}\n", "tag .* is not allowed"),
    "a tag of one's own": ("v: !x 1\n", "tag .* is not allowed"),
    "a tag of Python's": ("v: !!python/object:os.x {}\n", "tag .* is not allowed"),
    "text that is a list": ("v: !!str [a]\n", "tag .* is not allowed"),
    "no tag for a list": ("v: ! [1]\n", "tag ! is not allowed"),
    "nested deep": ("v: " + "[" * 150 + "]" * 150 + "\n", "nested more than 100 deep"),
    "a tab after a colon": ("v:\ta\n", "cannot start any token"),
    "a tab at the end of a line": ("v: a\t\nw: b\n", "cannot start any token"),
    "a tab before a comment": ("v: a\t# comment\n", "cannot start any token"),
    "a tab on an empty line": ("v: a\n \t\nw: b\n", "cannot start any token"),
    "a tab after a mark": (f"---\t\n{THING}", "cannot start any token"),
    "a comment close to a mark": (f"---# comment\n{THING}", "does not stand alone"),
    "a comment close to a block scalar's": ("v: |# comment\n  a\n", "not YAML"),
    "a quote escaped with a backslash": ('v: "\\\'"\n', "unknown escape character"),
    "a colon close to an alias": ("a: &x b\nv: {*x: 1}\n", "refers to nothing"),
    "a line separator between items": ("v: {a: b,\u2028c: d}\n", "outside of quotes"),
    "a line separator in a comment": ("v: a # \u2028\n", "outside of quotes"),
    "a line separator in a block scalar": ("v: |\n  a\u2028  b\n", "not YAML"),
}

#: The same of whole streams.
STRICTER_STREAMS: Final = {
    "a key twice in JSON": (JSON_THING % '"v": 1, "v": 2', "occurs twice"),
    "not a number in JSON": (JSON_THING % '"v": NaN', "NaN is not JSON"),
    "half a surrogate pair in JSON": (JSON_THING % '"v": "\\ud800"', "half a surrogate pair"),
    "a mark after JSON": ((JSON_THING % '"v": 1') + "---\n", "not YAML"),
    "a comment after JSON": (
        (JSON_THING % '"v": 1') + "\n# comment\n" + JSON_THING % '"v": 2',
        "not YAML",
    ),
    "JSON twice after a mark": (f"{THING}---\n" + (JSON_THING % '"v": 1') * 2, "not YAML"),
}
STRICTER_BYTES: Final = {
    "UTF-16": THING.encode("utf-16"),
    "Latin-1": f"{THING}v: \u00e9\n".encode("latin-1"),
}


#: What sevkit takes and kubectl does not: after ``THING``.
LAXER: Final = {
    "an end mark that nothing is before": "v: 1\n---\n...\n",
    "a line separator in a key": '"\u2028": 1\n',
}


def held(value: Json) -> Json:
    """Return it with its numbers as Kubernetes holds them: int64 where they are, else float64."""
    if isinstance(value, dict):
        return {key: held(found) for key, found in value.items()}
    if isinstance(value, list):
        return [held(found) for found in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    whole = isinstance(value, int) or value.is_integer()
    # Go writes a float with the fewest digits that make it, and reads an integer out of them.
    digits = int(Decimal(repr(value))) if whole else 0
    return digits if whole and -(1 << 63) <= digits < 1 << 63 else float(value)


def told(values: Iterable[Json]) -> list[str]:
    """Return them so that true and 1, and 1 and 1.5, are never equal."""
    return [json.dumps(held(value), sort_keys=True) for value in values]


def ours(text: str | bytes) -> tuple[Any, ...]:
    return parse_documents(text if isinstance(text, bytes) else text.encode(), "test")


def without_own(objects: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the objects hold beside what every object does."""
    return [{key: value for key, value in row.items() if key not in OWN} for row in objects]


class RefusedError(Exception):
    """kubectl did not take it; the message is its own."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl, asked without a cluster."""

    ask: Ask
    program: Path

    def write(self, text: str | bytes, form: str) -> bytes:
        """Return its objects in JSON or YAML. Raises ``RefusedError``."""
        data = text if isinstance(text, bytes) else text.encode()
        words = ("annotate", "--local", "--kubeconfig=/dev/null", "-f", "-", "-o", form)
        done = self.ask(self.program, *words, f"{MARK}=y", data=data)
        if done.returncode:
            raise RefusedError(done.stderr.decode())
        return done.stdout

    def read(self, text: str | bytes) -> list[Any]:
        """Return its objects. Raises ``RefusedError``."""
        said, found, decoder = self.write(text, "json").decode().strip(), [], json.JSONDecoder()
        while said:
            value, end = decoder.raw_decode(said)
            said = said[end:].lstrip()
            annotations = value["metadata"].pop("annotations")
            if annotations := {key: v for key, v in annotations.items() if key != MARK}:
                value["metadata"]["annotations"] = annotations
            found.append(value)
        return found


@pytest.fixture(scope="module")
def kubectl(ask: Ask, find_program: Callable[[str, str], Path]) -> Kubectl:
    return Kubectl(ask, find_program("kubectl", "kubectl"))


def listed(scalars: Iterable[str]) -> str:
    """Return a document that holds them as the items of a list."""
    return THING + "v:\n" + "".join(f"- {text}\n" for text in scalars)


@pytest.fixture(scope="module")
def scalars(kubectl: Kubectl) -> dict[str, Json]:
    """What kubectl makes of each, all in one document."""
    (found,) = kubectl.read(listed(SCALARS))
    return dict(zip(SCALARS, found["v"], strict=True))


@pytest.mark.parametrize("text", SCALARS)
def test_a_scalar_is_read_as_kubectl_reads_it(scalars: dict[str, Json], text: str) -> None:
    (found,) = without_own(ours(listed([text])))
    assert told(found["v"]) == told([scalars[text]])


@pytest.fixture(scope="module")
def documents(kubectl: Kubectl) -> dict[str, Json]:
    """What kubectl makes of each, all in one stream."""
    found = kubectl.read("---\n".join(THING + text for text in DOCUMENTS))
    return dict(zip(DOCUMENTS, found, strict=True))


@pytest.mark.parametrize("text", DOCUMENTS)
def test_a_document_is_read_as_kubectl_reads_it(documents: dict[str, Json], text: str) -> None:
    assert told(ours(THING + text)) == told([documents[text]])


@pytest.mark.parametrize("text", STREAMS.values(), ids=STREAMS)
def test_a_stream_is_read_as_kubectl_reads_it(kubectl: Kubectl, text: str) -> None:
    assert told(ours(text)) == told(kubectl.read(text))


@pytest.mark.parametrize("text", REFUSED)
def test_what_kubectl_refuses_is_refused(kubectl: Kubectl, text: str) -> None:
    with pytest.raises(RefusedError, match=r"(?i)yaml"):
        kubectl.read(THING + text)
    with pytest.raises(FormatError):
        ours(THING + text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *((THING + text, why) for text, why in STRICTER.values()),
        *STRICTER_STREAMS.values(),
        *((data, "not UTF-8") for data in STRICTER_BYTES.values()),
    ],
    ids=[*STRICTER, *STRICTER_STREAMS, *STRICTER_BYTES],
)
def test_sevkit_is_stricter_about(kubectl: Kubectl, text: str | bytes, why: str) -> None:
    assert kubectl.read(text)
    with pytest.raises(FormatError, match=why):
        ours(text)


@pytest.mark.parametrize("text", LAXER.values(), ids=LAXER)
def test_sevkit_also_takes(kubectl: Kubectl, text: str) -> None:
    with pytest.raises(RefusedError, match=r"(?i)yaml"):
        kubectl.read(THING + text)
    assert ours(THING + text)


def test_a_whole_number_is_an_integer_there_however_it_is_written(kubectl: Kubectl) -> None:
    text = f"{THING}a: 2.0\nb: 08\nc: 2e0\n"
    for found in (kubectl.read(text), ours(text)):
        assert without_own(found) == [{"a": 2, "b": 8, "c": 2}]
        assert {type(value) for value in without_own(found)[0].values()} == {int}


LETTERS: Final = st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029")
PLAIN: Final = st.one_of(
    st.text("0123456789_+-.eExXoObBaF", max_size=8),
    st.text("0123-:T tTzZ.+", max_size=24),
    st.text("aby nNoOeEsS~<=|>!*%@`\"'#,:?-[]{}\\/.0\u00e9", max_size=8),
    st.sampled_from(("true", "yes", "on", "null", "y", "n", "010", "0x1f")).flatmap(
        lambda word: st.sampled_from((word, word.upper(), word.title(), f"{word} ", f"{word}_"))
    ),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(LETTERS, max_size=8),
)


def single(text: str) -> Json:
    """Return what sevkit makes of a list with this one plain item, or a mapping if it cannot."""
    try:
        (found,) = without_own(ours(listed([text])))
    except FormatError:
        return {}
    return found["v"][0] if isinstance(found["v"], list) and len(found["v"]) == 1 else {}


@given(st.lists(PLAIN, min_size=1, max_size=60))
@settings(max_examples=40)
@example(["yes", "010", "1_0", "0x1f", "-0", "~", ""])
def test_plain_scalars_are_read_as_kubectl_reads_them(kubectl: Kubectl, texts: list[str]) -> None:
    read = {text: single(text) for text in texts}
    read = {text: value for text, value in read.items() if not isinstance(value, dict | list)}
    assume(read)
    (found,) = kubectl.read(listed(read))
    assert told(found["v"]) == told(read.values())


def quoted(text: str, quote: str) -> str:
    """Return it in single quotes, or in double ones with JSON's escapes but for surrogates."""
    if quote == "'":
        return "'" + text.replace("'", "''").replace("\n", "\n\n  ") + "'"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f")


#: What stands in a YAML document as it is, and no line break but the one that everybody knows.
PRINTED: Final = st.text(
    st.characters(
        codec="utf-8",
        exclude_categories=("Cc", "Cs", "Cn"),
        include_characters="\n",
        exclude_characters="\x85\u2028\u2029\ufeff\ufffe\uffff",
    ),
    max_size=12,
)


@given(st.lists(st.builds(quoted, PRINTED, st.sampled_from("'\"")), min_size=1, max_size=60))
@settings(max_examples=25)
def test_quoted_scalars_are_read_as_kubectl_reads_them(kubectl: Kubectl, texts: list[str]) -> None:
    text = listed(texts)
    assert told(ours(text)) == told(kubectl.read(text))


def values(text: st.SearchStrategy[str]) -> st.SearchStrategy[Json]:
    return st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(1 << 63), (1 << 63) - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | text,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=30,
    )


@given(values(st.text(max_size=12)))
@settings(max_examples=25)
def test_json_is_read_as_kubectl_reads_it(kubectl: Kubectl, value: Json) -> None:
    text = JSON_THING % f'"v": {json.dumps(value)}'
    read = without_own(kubectl.read(text))
    assert told(without_own(ours(text))) == told(read) == told([{"v": value}])


# As a key, kubectl prints ``<<`` without quotes and would itself take it for a merge.
@given(values((PRINTED | PLAIN.filter(str.isprintable)).filter(lambda text: text != "<<")))
@settings(max_examples=25)
def test_the_yaml_that_kubectl_makes_of_json_is_read_as_that(kubectl: Kubectl, value: Json) -> None:
    text = JSON_THING % f'"v": {json.dumps(value)}'
    assert told(without_own(ours(kubectl.write(text, "yaml")))) == told([{"v": value}])


TOKENS: Final = (
    *("a", "b", "1", "010", "yes", "~", "a: ", "b: ", "c: ", "- ", "? ", ": ", ":", "-", "?"),
    *("\n", "\n  ", "\n    ", "\n\n", "\r\n", "  ", "{", "}", "[", "]", ", ", ",", '"', "'"),
    *("|\n", ">\n", "|-\n    ", ">-\n    ", "# c", "\n---\n", "&a ", "*a", "<<: *a", "!!str "),
    *('"x"', "'y'", "{a: b}", "[a, b]", "&a {a: 1, b: 2}", "\\n", "%", "@", "! "),
)


@given(st.lists(st.sampled_from(TOKENS), min_size=2, max_size=12).map("".join))
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_what_we_read_of_anything_kubectl_reads_too(kubectl: Kubectl, text: str) -> None:
    whole = f"{THING}v: {text}\n"
    try:
        mine = ours(whole)
    except FormatError:
        assume(False)
        raise
    assume(all(isinstance(value, dict) and "kind" in value for value in mine))
    assert told(kubectl.read(whole)) == told(mine)


VMI: Final = (
    "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {name: %s},"
    " spec: {domain: {launchSecurity: {%s: {}}}}}"
)


@pytest.mark.parametrize("kind", ["List", "VirtualMachineInstanceList"])
@pytest.mark.parametrize("names", [[], ["a"], ["a", "b"]])
def test_a_list_stands_for_its_items(kubectl: Kubectl, kind: str, names: list[str]) -> None:
    items = ", ".join(VMI % (name, "snp") for name in names)
    version = "v1" if kind == "List" else "kubevirt.io/v1"
    text = f"apiVersion: {version}\nkind: {kind}\nitems: [{items}]\n"
    assert [found["metadata"]["name"] for found in kubectl.read(text)] == names
    if len(names) == 1:
        assert parse_manifest(ours(text)).name == "a"
    else:
        with pytest.raises(UsageError, match=f"holds {len(names)} VMs"):
            parse_manifest(ours(text))


def test_an_item_that_does_not_say_what_it_is_is_what_its_list_says(kubectl: Kubectl) -> None:
    bare = VMI.replace("apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, ", "")
    text = f"kind: VirtualMachineInstanceList\nitems: [{bare % ('a', 'snp')}]\n"
    text = f"apiVersion: kubevirt.io/v1\n{text}"
    (found,) = kubectl.read(text)
    assert (found["apiVersion"], found["kind"]) == ("kubevirt.io/v1", "VirtualMachineInstance")
    assert parse_manifest(ours(text)).name == "a"


@pytest.mark.parametrize(
    ("items", "names"),
    [(f"[{VMI % ('inner', 'sev')}]", ["inner"]), ("[]", []), ("null", [])],
)
def test_a_vmi_with_items_is_a_list_to_kubectl_and_refused_by_us(
    kubectl: Kubectl, items: str, names: list[str]
) -> None:
    text = f"{VMI[:-1] % ('outer', 'snp')}, items: {items}}}"
    assert [found["metadata"]["name"] for found in kubectl.read(text)] == names
    with pytest.raises(FormatError, match="has items and is not a list"):
        parse_manifest(ours(text))


@pytest.mark.parametrize(
    "items", ["text", "{}", "[text]", "[{apiVersion: v1, kind: List, items: []}]", "[null]"]
)
def test_a_list_that_kubectl_refuses_is_refused(kubectl: Kubectl, items: str) -> None:
    text = f"apiVersion: v1\nkind: List\nitems: {items}\n"
    with pytest.raises(RefusedError):
        kubectl.read(text)
    with pytest.raises(FormatError, match="list"):
        parse_manifest(ours(text))


DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def definition(group: str) -> dict[str, Any]:
    """Return the definition of a kind of which the API server keeps whatever there is."""
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": free},
    }
    spec = {"group": group, "scope": "Cluster", "names": names, "versions": [version]}
    return {"metadata": {"name": f"things.{group}"}, "spec": spec}


def test_an_api_server_stores_what_we_read(
    kubectl: Kubectl, control_plane: ControlPlane, tmp_path: Path
) -> None:
    group = f"g{uuid.uuid4().hex[:12]}.example.org"
    admin, path = control_plane.admin, f"/apis/{group}/v1/things"
    admin.create(DEFINITIONS, definition(group))
    text = listed(SCALARS).replace("example.org", group)
    for number, document in enumerate(DOCUMENTS):
        head = THING.replace("example.org", group).replace("name: thing", f"name: thing{number}")
        text += f"---\n{head}{document}"
    config = f"--kubeconfig={control_plane.kubeconfig()}"
    words = (config, f"--cache-dir={tmp_path}", "--warnings-as-errors")
    deadline = time.monotonic() + 30
    while kubectl.ask(kubectl.program, *words, "get", "things").returncode:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    made = kubectl.ask(kubectl.program, *words, "create", "-f", "-", data=text.encode())
    assert made.returncode == 0, made.stderr
    stored = {found["metadata"]["name"]: found for found in admin.get(path)["items"]}
    read = ours(text)
    names = [value["metadata"]["name"] for value in read]
    assert len(names) == 1 + len(DOCUMENTS)
    assert told(without_own(read)) == told(without_own(stored[name] for name in names))
    admin.delete(f"{path}/{names[0]}")  # control characters, which kubectl does not print in YAML
    form = ("-o", "yaml", "--show-managed-fields")
    printed = kubectl.ask(kubectl.program, *words, "get", "things", *form)
    assert printed.returncode == 0, printed.stderr
    (whole,) = ours(printed.stdout)
    assert told(whole["items"]) == told(admin.get(path)["items"])
