"""The quick reader says what the strict one says, of everything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sevkit.documents import MAX_DEPTH, parse_json
from sevkit.documents.quick import parse_machine_json, write_json
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT: Final = 1 << 20
KEYS: Final = st.text(max_size=3) | st.sampled_from(["a", "b", "<&>", "\u2028", "é"])
VALUES: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def said(read: Callable[[], object]) -> str:
    """Return a value with the types of everything in it, or a refusal."""
    try:
        return f"value {read()!r}"
    except FormatError as error:
        return f"refused {error.message} {error.offset}"


def both(data: bytes, limit: int = LIMIT) -> tuple[str, str]:
    return (
        said(lambda: parse_machine_json(data, "x", limit=limit)),
        said(lambda: parse_json(data, "x", limit=limit)),
    )


@given(VALUES)
def test_what_a_machine_writes_is_read_as_ever(value: Any) -> None:  # noqa: ANN401  # JSON
    for data in (compact(value), compact(value) + b"\n", json.dumps(value).encode()):
        quick, strict = both(data)
        assert quick == strict
        assert quick.startswith("value ")


@given(VALUES, st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3)), max_size=3))
@settings(max_examples=500)
def test_what_was_tampered_with_is_read_or_refused_as_ever(
    value: Any,  # noqa: ANN401  # JSON
    changes: list[tuple[int, bytes]],
) -> None:
    data = compact(value)
    for at, piece in changes:
        data = data[:at] + piece + data[at + 1 :]
    quick, strict = both(data)
    assert quick == strict


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"null",
        b"null\n\n",
        b'{"a":1,"a":1}',
        b'{"a":1,"b":{"c":1,"c":2}}',
        b'{"a":1E5,"a":1}',
        b"[1e5]",
        b"[-0]",
        b"[-0.0]",
        b"[1.0]",
        b"[9007199254740993]",
        b"[18446744073709551615]",
        b"[18446744073709551616]",
        b"[-9223372036854775809]",
        b"[" + b"9" * 400 + b"]",
        b"[" + b"9" * 5000 + b"]",
        b"[1e999]",
        b"[0.1]",
        b"[5e-324]",
        b"[123456789012345680000]",
        b"[NaN]",
        b"[Infinity]",
        rb'["\ud800"]',
        rb'["\ud83d\ude00"]',
        b'["\xed\xa0\x80"]',
        b'["\xff"]',
        b"\xef\xbb\xbf[]",
        b"[1,]",
        b"[1] 2",
        b'["\x00"]',
        rb'["\u003c"]',
        '["<\u2028\u007f"]'.encode(),
        *(b"[" * depth + b"]" * depth for depth in (MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 2)),
        *(b'{"a":' * depth + b"1" + b"}" * depth for depth in (MAX_DEPTH, MAX_DEPTH + 1, 253)),
        *(b"[" * depth + b"]" * depth for depth in (254, 255, 1023, 1024, 1025, 100_000)),
        b"[" + b'"[{",' * 200 + b"1]",
    ],
    ids=lambda data: data[:20],
)
def test_every_corner_is_read_or_refused_as_ever(data: bytes) -> None:
    quick, strict = both(data)
    assert quick == strict


def test_what_is_too_large_is_refused_as_ever() -> None:
    data = compact(["x" * 100] * 5000)
    assert both(data)[0] == both(data)[1]
    for limit in (len(data) - 1, len(data), 10):
        quick, strict = both(data, limit)
        assert quick == strict


def test_what_json_does_not_have_is_not_written() -> None:
    assert write_json({"a": [1, None]}, "x") == b'{"a":[1,null]}'
    for value in (object(), {"a": 2**70}, "\ud800", {1: 2}):
        with pytest.raises(FormatError, match="x: is not JSON"):
            write_json(value, "x")
