from __future__ import annotations

import contextlib
import time

import pytest

from sevkit.documents import MAX_DEPTH, MAX_VALUES, Json, parse_documents, parse_json
from sevkit.errors import FormatError


def one(text: str) -> Json:
    (found,) = parse_documents(text.encode(), "test")
    return found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("yes", True),
        ("y", True),
        ("Y", True),
        ("N", False),
        ("On", True),
        ("NO", False),
        ("off", False),
        ("False", False),
        ("'yes'", "yes"),
        ('"on"', "on"),
        ("yEs", "yEs"),
        ("~", None),
        ("Null", None),
        ("''", ""),
        ("0", 0),
        ("-12", -12),
        ("+12", 12),
        ("1_000", 1000),
        ("010", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("0b101", 5),
        ("08", 8),
        ("1.5", 1.5),
        ("-.5", -0.5),
        ("1e3", 1000),
        ("1e999", "1e999"),
        (".", "."),
        ("--", "--"),
        ("1:30", "1:30"),
        ("2026-11-23", "2026-11-23"),
        ("0x", "0x"),
        ("0x_", "0x_"),
        ("100m", "100m"),
        (".5_", ".5_"),
        (".1_5", 0.15),
        ("1e1_0", 10**10),
        ("2.0", 2),
        ("1" * 65, float("1" * 65)),
        ("9" * 400, "9" * 400),
        ("18446744073709551615", (1 << 64) - 1),
        ("0x10000000000000000", "0x10000000000000000"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("|\n yes\n", "yes\n"),
    ],
)
def test_a_scalar_means_what_kubectl_makes_of_it(text: str, value: Json) -> None:
    found = one(f"a: {text}\n")
    assert found == {"a": value}
    assert isinstance(found, dict)
    assert type(found["a"]) is type(value)


def test_a_stream_holds_several_documents_and_empty_ones_are_left_out() -> None:
    text = b"---\na: 1\n---\n---\n# nothing\n---\nb: [1, {c: 2}]\n...\n"
    assert parse_documents(text, "test") == ({"a": 1}, {"b": [1, {"c": 2}]})
    assert parse_documents(b"", "test") == ()


def test_json_is_read_with_its_own_escapes() -> None:
    assert one('{"a": "\\ud83d\\ude00\\/", "b": [1, 2.5, null, true]}') == {
        "a": "\U0001f600/",
        "b": [1, 2.5, None, True],
    }


def test_json_documents_may_follow_each_other() -> None:
    text = b' {"a": 1}\n{"b": [{}]}{"c": 3} \n'
    assert parse_documents(text, "test") == ({"a": 1}, {"b": [{}]}, {"c": 3})
    for broken in (b'{"a": 1} x', b'{"a": 1}{"b": 2', b'{"a": 1}{"b": 2, "b": 3}', b"{}" * 200_001):
        with pytest.raises(FormatError):
            parse_documents(broken, "test")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("|\n  b", "b\n"),
        (">\n  b\r", "b\n"),
        ("|-\n  b", "b"),
        ("|+\n  b\n ", "b\n\n"),
        ("|+\n", ""),
        ("b", "b"),
        ("", None),
    ],
)
def test_the_last_line_ends_as_each_other_line(text: str, value: Json) -> None:
    assert one(f"a: {text}") == {"a": value}


def test_a_block_scalar_may_hold_tabs_where_it_is_not_indented() -> None:
    assert one("a: |2\n  \tb\nc: >\n  d\n  \te\nf: 'g'\n") == {
        "a": "\tb\n",
        "c": "d\n\te\n",
        "f": "g",
    }


def test_unicode_line_breaks_stand_in_quotes() -> None:
    text = 'a: \'b\u2028c\'\n"\u2029": &d !!str "e\x85\n  f"\n'
    assert one(text) == {"a": "b\u2028c", "\u2029": "e\nf"}


def test_a_flow_mapping_that_is_no_json_is_yaml() -> None:
    assert one("{a: yes}") == {"a": True}


def test_keys_become_text() -> None:
    assert one("1: a\ntrue: b\n'x': c\n") == {"1": "a", "true": "b", "x": "c"}


@pytest.mark.parametrize("text", ["1.5: a", "[1]: a", "{a: 1}: b", "~: a"])
def test_a_key_that_is_neither_text_nor_a_whole_number_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="a key is neither"):
        parse_documents(text.encode(), "test")


def test_aliases_and_merges_are_resolved() -> None:
    text = "base: &b {a: 1, b: 2}\nall:\n  <<: *b\n  b: 3\nmany:\n  <<: [{a: 9}, *b]\nagain: *b\n"
    found = one(text)
    assert isinstance(found, dict)
    assert found["all"] == {"a": 1, "b": 3}
    assert found["many"] == {"a": 9, "b": 2}
    assert found["again"] == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: 1\na: 2\n", "'a' occurs twice at line 2"),
        ("{a: 1, 'a': 2}", "occurs twice"),
        ('{"a": 1, "a": 2}', "occurs twice"),
        ("true: 1\n'true': 2\n", "occurs twice"),
        ("x: &a {a: 1}\ny:\n  <<: *a\n  <<: *a\n", "'<<' occurs twice"),
        ("a: *b\n", "refers to nothing"),
        ("a: &a [*a]\n", "refers to nothing"),
        ("---\n&a 1\n---\n*a\n", "refers to nothing"),
        ("<<: 1\n", "merges something"),
        ("a: !!python/object/apply:os.system [x]\n", "tag .* is not allowed"),
        ("a: !x 1\n", "is not allowed"),
        ("a: !!binary aGk=\n", "is not allowed"),
        ("a: [\n", "not YAML"),
        ("a: 'b\n", "not YAML"),
        ("\ta: 1\n", "not YAML"),
        ("a: \x01\n", "not YAML"),
        ("%YAML 1.1\n---\na: 1\n", "a directive at line 1"),
        ("a: 1\n...\n%X y\n# comment\n---\na: 1\n", "a directive at line 3"),
        ("--- &a 1\n", "--- does not stand alone at line 1"),
        ("a: 1\n---#b\n", "--- does not stand alone at line 2"),
        ("a: 1\r---\ra: 2\r", "a document begins within a line"),
        ("a: |\r\n  b\r\r\n  c\r\n", "two carriage returns before a line feed at line 2"),
        ("a: 1\n---\n\ufeffa: 1\n", "a byte order mark within the stream at line 2"),
        ("a: .inf\n", "\\.inf is not a number of JSON's at line 1"),
        ("a: -.INF\n", "not a number"),
        ("a: .NaN\n", "not a number"),
        ("9223372036854775808: a\n", "a key is neither"),
        ("x: {b: 3, <<: {b: 2}}\n", "'<<' merges key 'b' after it was given"),
        ("a: &b.c 1\n", "anchor b.c is not"),
        ('a: "\\/"\n', "not YAML: .*unknown escape character '/'"),
        ("a: |\n \n  b\n", "not YAML: more indented follow up line"),
        ("a: |\n  \tb\n", "a tab where a block scalar is indented at line 1"),
        ("a: &x !!str >- # c\r\n\r\n  \tb\n", "a tab where a block scalar"),
        ("a: b\u2028c\n", "outside of quotes"),
        ("a\x85: b\n", "outside of quotes"),
        ("a: b # \u2029\n", "outside of quotes"),
        ('"\\UFFFFFFFF"', "not YAML"),
        ('a: "\\ud800"', "half a surrogate pair at line 1"),
        ('"\\udc00": 1', "half a surrogate pair"),
        ('{"a": "\\uD800"}', "half a surrogate pair"),
        ("\0", "not YAML"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "deep"),
    ],
)
def test_what_kubectl_would_not_take_or_we_cannot_bound_is_refused(text: str, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        parse_documents(text.encode(), "test")


def test_aliases_do_not_nest_deeper_than_they_could_be_written() -> None:
    lines = ["a0: &a0 []", *(f"a{n}: &a{n} [[[[*a{n - 1}]]]]" for n in range(1, 30))]
    with pytest.raises(FormatError, match=f"more than {MAX_DEPTH} deep at line 26"):
        parse_documents("\n".join(lines).encode(), "test")
    assert len(parse_documents("\n".join(lines[:25]).encode(), "test")) == 1


@pytest.mark.parametrize("text", ["a: 1\n", '{"a": 1}'])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_an_encoding_other_than_utf8_is_refused(text: str, encoding: str) -> None:
    with pytest.raises(FormatError):
        parse_documents(text.encode(encoding), "test")


_MIB = 1 << 20


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            b"{" + b",".join(b'"k%d":1' % n for n in range(80_000)) + b',"z":1,"z":2}',
            id="json-duplicate",
        ),
        pytest.param(b"{" + b'"a":1,' * (_MIB // 6), id="json-one-key"),
        pytest.param(b'{"a":' * (_MIB // 5), id="json-deep"),
        pytest.param(b"[" * (_MIB // 4), id="flow-deep"),
        pytest.param(b"- " * (_MIB // 2), id="block-deep"),
        pytest.param(b"? " * (_MIB // 2), id="complex-keys"),
        pytest.param(b'"' + b"\\n" * (_MIB // 2) + b'"', id="escapes"),
        pytest.param(b"!" + b"a" * _MIB, id="tag"),
        pytest.param(b"a" * (_MIB // 2) + b": 1", id="key"),
    ],
)
def test_no_document_costs_more_than_its_size(data: bytes) -> None:
    """What is quadratic over a MiB takes minutes; the bound leaves room for a busy machine."""
    start = time.process_time()
    with contextlib.suppress(FormatError):
        parse_documents(data, "test")
    assert time.process_time() - start < 10


def test_an_error_quotes_no_more_than_a_line() -> None:
    long = b"k" * 100_000
    for data in (b'{"%b": 1, "%b": 1}' % (long, long), b"a: *%b" % long, b"a: !%b x" % long):
        with pytest.raises(FormatError) as caught:
            parse_documents(data, "test")
        assert len(caught.value.message) < 300


def test_aliases_that_stand_for_gigabytes_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(FormatError, match=f"more than {MAX_VALUES} values"):
        parse_documents("\n".join(lines).encode(), "test")


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
def test_aliases_count_as_what_they_stand_for(more: int, fits: bool) -> None:
    # The list and its anchor's items, then an alias for each: 1 + 1 + n and 1 + n apiece.
    items = 1000
    aliases = (MAX_VALUES - items - 2) // (items + 2)
    rest = MAX_VALUES - (items + 2) - aliases * (items + 2) + more
    values = [f"&a [{', '.join(['x'] * items)}]", *["*a"] * aliases, *["x"] * rest]
    text = f"[{', '.join(values)}]".encode()
    if fits:
        assert len(parse_documents(text, "test")) == 1
    else:
        with pytest.raises(FormatError, match=f"more than {MAX_VALUES} values"):
            parse_documents(text, "test")


@pytest.mark.parametrize("parse", [parse_json, parse_documents])
def test_size_and_encoding_are_bounded(parse: object) -> None:
    assert parse in {parse_json, parse_documents}
    read = parse_json if parse is parse_json else parse_documents
    with pytest.raises(FormatError, match="larger than the limit of 10 bytes"):
        read(b" " * 11, "test", limit=10)
    with pytest.raises(FormatError, match="not UTF-8"):
        read(b"a: \xff", "test")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity"),
        (b"1e999", "1e999"),
        (b'{"a": {"b": 1, "b": 1}}', "'b' occurs twice"),
        (b"[" * 100_000, "deep"),
        (b"[" * 102 + b"]" * 102, f"more than {MAX_DEPTH} deep"),
        (b'["\\ud800"]', "half a surrogate pair"),
        (b'{"\\uDFFF": 1}', "half a surrogate pair"),
        (b"1" * 5000, "too long"),
    ],
)
def test_what_is_not_strict_json_is_refused(data: bytes, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        parse_json(data, "test")


def test_a_byte_order_mark_is_skipped() -> None:
    assert parse_json(b"\xef\xbb\xbf[1]", "test") == [1]
    assert one("\ufeffa: 1\n") == {"a": 1}
