"""Properties of the parsers that everything else stands on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sevkit.abi.layout import Layout, integer, raw, zero
from sevkit.abi.product import SNP_LINES, ProductLine, parse_product_line
from sevkit.abi.signature import (
    P256,
    P384,
    EcdsaSignature,
    encode_public_key,
    encode_signature,
    parse_public_key,
    parse_signature,
    signature_from_der,
)
from sevkit.abi.tcb import TcbVersion, encode_tcb, parse_tcb, parse_tcb_words
from sevkit.errors import FormatError
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

BYTE = st.integers(0, 255)
LINES = st.sampled_from(SNP_LINES)
LAYOUT = Layout(
    "EXAMPLE", 16, (integer(0, 2, "a"), zero(2, 2), integer(4, 8, "b"), raw(12, 4, "c"))
)


def tcb_of(line: ProductLine) -> st.SearchStrategy[TcbVersion]:
    fmc = BYTE if line is ProductLine.TURIN else st.none()
    return st.builds(TcbVersion, BYTE, BYTE, BYTE, BYTE, fmc)


def refuses(parse: Callable[[bytes], object], data: bytes) -> bool:
    """Whether ``parse`` refuses; any other exception than FormatError ends the test."""
    try:
        parse(data)
    except FormatError:
        return True
    return False


@given(st.binary(min_size=16, max_size=16))
def test_a_layout_reads_what_it_writes_or_refuses_the_reserved_bytes(data: bytes) -> None:
    if any(data[2:4]):
        assert refuses(LAYOUT.parse, data)
        return
    record = LAYOUT.parse(data)
    values: dict[str, int | bytes] = {
        "a": record.int("a"),
        "b": record.int("b"),
        "c": record.raw("c"),
    }
    assert LAYOUT.encode(values) == data


@given(st.binary(max_size=64))
def test_a_layout_refuses_every_other_length(data: bytes) -> None:
    assume(len(data) != 16)
    assert refuses(LAYOUT.parse, data)


@given(LINES.flatmap(lambda line: st.tuples(st.just(line), tcb_of(line))))
def test_a_tcb_version_survives_its_encoding(pair: tuple[ProductLine, TcbVersion]) -> None:
    line, tcb = pair
    assert parse_tcb(line, encode_tcb(line, tcb), structure="R", offset=0) == tcb
    assert parse_tcb_words(str(tcb)) == tcb.components


@given(LINES, st.integers(0, (1 << 64) - 1))
def test_a_raw_tcb_version_is_read_without_loss_or_refused(line: ProductLine, raw: int) -> None:
    try:
        tcb = parse_tcb(line, raw, structure="R", offset=0)
    except FormatError:
        return
    assert encode_tcb(line, tcb) == raw


@given(LINES.flatmap(lambda line: st.tuples(tcb_of(line), tcb_of(line), tcb_of(line))))
def test_not_below_is_an_order_of_components(
    three: tuple[TcbVersion, TcbVersion, TcbVersion],
) -> None:
    a, b, c = three
    assert not a.below(a)
    if not a.below(b) and not b.below(a):
        assert a == b
    if not a.below(b) and not b.below(c):
        assert not a.below(c)


@given(st.text(max_size=60))
def test_words_of_a_tcb_version_are_read_or_refused(text: str) -> None:
    try:
        found = parse_tcb_words(text)
    except FormatError:
        return
    assert found
    assert all(0 <= value <= 255 for value in found.values())


@given(st.text(max_size=20))
def test_a_product_name_is_known_or_refused(text: str) -> None:
    try:
        assert parse_product_line(text) in ProductLine
    except FormatError:
        return


@given(st.binary(max_size=600) | st.binary(min_size=512, max_size=512))
def test_a_signature_is_read_without_loss_or_refused(data: bytes) -> None:
    for curve in (P256, P384):
        if not refuses(partial(parse_signature, curve=curve), data):
            assert encode_signature(parse_signature(data, curve=curve)) == data


@given(st.integers(1, (1 << 383)), st.integers(1, (1 << 383)))
def test_a_signature_survives_both_encodings(r: int, s: int) -> None:
    signature = EcdsaSignature(r, s)
    assert parse_signature(encode_signature(signature)) == signature
    assert signature_from_der(signature.to_der()) == signature


@given(st.sampled_from([P256, P384]), st.data())
def test_a_public_key_is_read_without_loss(curve: int, data: st.DataObject) -> None:
    size = {P256: 32, P384: 48}[curve]
    coordinate = st.binary(min_size=size, max_size=size)
    x, y = data.draw(coordinate), data.draw(coordinate)
    encoded = curve.to_bytes(4, "little") + x.ljust(72, b"\0") + y.ljust(72, b"\0") + bytes(880)
    assert encode_public_key(parse_public_key(encoded)) == encoded


@given(st.binary(max_size=1100) | st.binary(min_size=1028, max_size=1028))
def test_a_public_key_of_any_bytes_is_read_without_loss_or_refused(data: bytes) -> None:
    if not refuses(parse_public_key, data):
        assert encode_public_key(parse_public_key(data)) == data


@given(st.sampled_from([P256, P384]), st.binary(min_size=64, max_size=96))
def test_random_coordinates_load_as_a_point_or_are_refused(curve: int, noise: bytes) -> None:
    size = {P256: 32, P384: 48}[curve]
    x, y = noise[:size].ljust(72, b"\0"), noise[-size:].ljust(72, b"\0")
    key = parse_public_key(curve.to_bytes(4, "little") + x + y + bytes(880))
    with pytest.raises(FormatError):
        key.load()


@given(st.binary(min_size=4, max_size=64))
def test_a_secret_never_shows_its_bytes(data: bytes) -> None:
    shown = repr(Secret(data)) + str(Secret(data)) + f"{Secret(data)}"
    assert data.hex() not in shown
    assert shown == f"Secret(<{len(data)} bytes>)" * 3
