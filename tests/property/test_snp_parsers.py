"""No bytes, however hostile, raise anything but our own errors."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sevkit.abi import certtable, der, idblock, policy, tcb, vek
from sevkit.abi.product import ProductLine
from sevkit.abi.report import LAYOUT, parse_report
from sevkit.abi.sevfile import split_certificates
from sevkit.attest.container import find_report
from sevkit.attest.crl import parse_crl
from sevkit.attest.expectation_words import parse_expectations_file
from sevkit.attest.x509 import parse_certificate, parse_certificates
from sevkit.cli.attest_report import parse_time
from sevkit.errors import SevkitError
from sevkit.kds.roots import snp_chain

if TYPE_CHECKING:
    from collections.abc import Callable

BYTES = st.binary(max_size=4096)
ASK, ARK = snp_chain(ProductLine.MILAN, vlek=False)


def quietly(function: Callable[..., Any], *arguments: object) -> None:
    message = "read"
    try:
        function(*arguments)
    except SevkitError as error:
        message = error.message
    assert message
    assert "\n" not in message


@pytest.mark.parametrize(
    "parser",
    [
        parse_report,
        find_report,
        certtable.parse_cert_table,
        idblock.parse_id_block,
        idblock.parse_id_auth,
        parse_certificate,
        parse_certificates,
        parse_crl,
        parse_expectations_file,
        split_certificates,
    ],
    ids=lambda parser: parser.__name__,
)
@given(data=BYTES)
def test_any_bytes_are_read_or_refused(parser: Callable[[bytes], Any], data: bytes) -> None:
    quietly(parser, data)


@given(data=st.binary(min_size=1184, max_size=1184), version=st.integers(0, 7))
def test_any_report_of_the_right_size_is_read_or_refused(data: bytes, version: int) -> None:
    quietly(parse_report, version.to_bytes(4, "little") + data[4:])


@st.composite
def mutated(draw: st.DrawFn, base: bytes) -> bytes:
    """A genuine input with a few bytes changed, cut out or put in."""
    data = bytearray(base)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        how = draw(st.sampled_from(["set", "cut", "put"]))
        if how == "set":
            data[at] = draw(st.integers(0, 255))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        else:
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        if not data:
            break
    return bytes(data)


@settings(max_examples=300)
@given(data=mutated(ARK))
def test_a_mutated_certificate_is_read_or_refused(data: bytes) -> None:
    quietly(parse_certificate, data)


@given(data=mutated(certtable.encode_cert_table({uuid.UUID(int=7): b"abc", certtable.ASK: ASK})))
def test_a_mutated_certificate_table_is_read_or_refused(data: bytes) -> None:
    quietly(certtable.parse_cert_table, data)


@given(blobs=st.dictionaries(st.uuids(), st.binary(max_size=64), max_size=8))
def test_certificate_tables_survive_a_round_trip(blobs: dict[uuid.UUID, bytes]) -> None:
    blobs.pop(uuid.UUID(int=0), None)
    assert certtable.parse_cert_table(certtable.encode_cert_table(blobs)) == blobs


@given(
    line=st.sampled_from([ProductLine.MILAN, ProductLine.GENOA, ProductLine.TURIN]),
    raw=st.integers(0, 2**64 - 1),
)
def test_a_tcb_that_is_read_is_written_back(line: ProductLine, raw: int) -> None:
    try:
        version = tcb.parse_tcb(line, raw, structure="x", offset=0)
    except SevkitError:
        return
    assert tcb.encode_tcb(line, version) == raw


@given(st.integers(0, 255))
def test_small_integers_survive_a_round_trip(number: int) -> None:
    encoded = bytes((2, 1, number)) if number < 128 else bytes((2, 2, 0, number))
    assert der.parse_small_integer(encoded, "x") == number


@given(
    kind=st.sampled_from(list(vek.VekKind)),
    values=st.dictionaries(
        st.sampled_from([vek.STRUCT_VERSION, vek.PRODUCT_NAME, vek.HWID, vek.CSP_ID, vek.FMC_SPL])
        | st.sampled_from(list(vek.SPLS.values())),
        st.binary(max_size=70) | st.sampled_from([b"\x02\x01\x05", b"\x16\x05Turin"]),
    ),
)
def test_any_extensions_are_read_or_refused(kind: vek.VekKind, values: dict[str, bytes]) -> None:
    quietly(vek.parse_vek_extensions, kind, values)


@given(st.integers(-(2**70), 2**70))
def test_any_policy_is_read_or_refused(value: int) -> None:
    quietly(policy.parse_snp_policy, value)
    quietly(policy.parse_sev_policy, value)


@given(st.text(max_size=40))
@example("2026-13-01T00:00:00Z")
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:60Z")
def test_any_time_is_read_or_refused(text: str) -> None:
    quietly(parse_time, text)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_that_we_print_is_read_back(moment: datetime) -> None:
    plain = moment.replace(microsecond=0)
    assert parse_time(f"{plain.isoformat()[:19]}Z") == plain


def test_the_layout_of_a_report_has_no_gap() -> None:
    assert sum(field.size for field in LAYOUT.fields) == 1184
