from __future__ import annotations

import json
from typing import Any

import pytest

from sevkit.attest.expectation_words import (
    LIMIT,
    NAMES,
    build_expectations,
    merge,
    parse_expectations_file,
    parse_hex,
)
from sevkit.attest.expectations import ANY
from sevkit.errors import FormatError, InsecureUsage, SevkitError, UsageError

NONCE = "ab" * 64
DIGEST = "cd" * 48
BASE: dict[str, object] = {"report-data": NONCE, "measurement": (DIGEST,)}


def test_a_file_says_what_the_options_say() -> None:
    text = f"""
    report-data: "{NONCE}"
    measurement: ["{DIGEST}"]
    min-tcb: {{bootloader: 3, microcode: 115}}
    min-guest-svn: 2
    allow-debug: true
    chip: "{"01" * 64}"
    """
    found = build_expectations(parse_expectations_file(text.encode()), None)
    assert found.report_data == bytes.fromhex(NONCE)
    assert found.minimum_tcb == {"bootloader": 3, "microcode": 115}
    assert found.minimum_guest_svn == 2
    assert found.allow_debug
    assert found.chips == (b"\1" * 64,)


@pytest.mark.parametrize("name", ["report-data", "report_data", "reportData"])
def test_names_are_known_in_three_spellings(name: str) -> None:
    assert parse_expectations_file(f'{name}: "{NONCE}"'.encode()) == {"report-data": NONCE}


@pytest.mark.parametrize(
    ("defect", "text"),
    [
        ("unknown name", "report-dat: 'ab'"),
        ("empty file", ""),
        ("empty mapping", "{}"),
        ("a list", "[1]"),
        ("two documents", "vmpl: 0\n---\nvmpl: 1"),
        ("a name twice", "vmpl: 0\nvmpl: 1"),
        ("a name twice in two spellings", "host-data: 'ab'\nhost_data: 'cd'"),
        ("hex as a number", "report-data: 00112233"),
        ("a flag as a word", "allow-debug: 'yes please'"),
        ("a flag as a number", "allow-debug: 1"),
        ("a number as a flag", "vmpl: true"),
        ("an empty list of digests", "measurement: []"),
        ("a list with a number", "measurement: [1]"),
        ("null", "measurement:"),
        ("not YAML", "a: [b"),
    ],
)
def test_a_file_with_a_defect_is_refused(defect: str, text: str) -> None:
    with pytest.raises(FormatError):
        parse_expectations_file(text.encode())
    assert defect


def test_nothing_expected_is_refused_as_insecure() -> None:
    for values in ({}, {"report-data": NONCE}, {"measurement": (DIGEST,)}):
        with pytest.raises(InsecureUsage, match="every report would do"):
            build_expectations(values, None)


def test_any_must_be_allowed_by_name() -> None:
    allowed = {"allow-any-report-data": True, "allow-any-measurement": True}
    found = build_expectations(allowed, None)
    assert found.report_data is ANY
    assert found.measurements is ANY


@pytest.mark.parametrize("name", ["report-data", "measurement"])
def test_expecting_and_allowing_any_contradict(name: str) -> None:
    with pytest.raises(UsageError, match="contradicts"):
        build_expectations(BASE | {f"allow-any-{name}": True}, None)


def test_a_false_flag_in_a_file_allows_nothing() -> None:
    with pytest.raises(InsecureUsage):
        build_expectations({"report-data": NONCE, "allow-any-measurement": False}, None)


@pytest.mark.parametrize(
    "values",
    [
        {"measurement": DIGEST},
        {"measurement": ()},
        {"measurement": [b"x"]},
        {"report-data": bytes.fromhex(NONCE)},
        {"host-data": bytes(32)},
        {"vmpl": True},
        {"vmpl": "0"},
        {"allow-debug": 1},
        {"min-tcb": {"snp": 8}},
        {"chip": "01" * 64},
        {"measurements": (DIGEST,)},
    ],
)
def test_a_value_of_another_type_is_refused_and_never_passed_over(
    values: dict[str, object],
) -> None:
    with pytest.raises(UsageError):
        build_expectations(BASE | values, None)


def test_a_list_is_as_good_as_a_tuple() -> None:
    found = build_expectations(BASE | {"measurement": [DIGEST]}, None)
    assert isinstance(found.measurements, tuple)
    assert found.measurements[0].digest == bytes.fromhex(DIGEST)


@pytest.mark.parametrize(
    ("values", "data", "error"),
    [
        ({"min-tcb": "snp=999"}, None, UsageError),
        ({"measurement": (DIGEST,), "host-data": "00"}, None, UsageError),
        ({"report-data": NONCE, "measurement": ("00",)}, None, UsageError),
        ({"allow-any-measurement": True, "measurement": (DIGEST,)}, None, UsageError),
        ({}, b"junk", InsecureUsage),
        ({"report-data": NONCE}, b"junk", FormatError),
    ],
)
def test_bad_options_go_before_missing_ones_and_those_before_files(
    values: dict[str, object], data: bytes | None, error: type[SevkitError]
) -> None:
    with pytest.raises(error):
        build_expectations(values, data)


def test_messages_are_short_whatever_the_file_says() -> None:
    for text in (b"x" * 200_000 + b": 1", b"min-tcb: '" + b"x" * 200_000 + b"'"):
        with pytest.raises(SevkitError) as caught:
            build_expectations(parse_expectations_file(text), None)
        assert len(caught.value.message) < 300


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(FormatError, match="larger"):
        parse_expectations_file(b"#" * (LIMIT + 1))


def test_an_expectation_in_both_places_is_refused() -> None:
    with pytest.raises(UsageError, match="and in the expectations file"):
        merge({"vmpl": 0}, {"vmpl": 0})
    assert merge({"vmpl": 1}, {"allow-debug": True}) == {"vmpl": 1, "allow-debug": True}


@pytest.mark.parametrize("text", ["", "a", "0xab", "ab cd", "ag", "ab\n", "äb"])
def test_hex_is_hex_and_nothing_else(text: str) -> None:
    with pytest.raises(UsageError):
        parse_hex(text, "x")


@pytest.mark.parametrize(
    "text",
    ["", "bootloader", "bootloader=256", "bootloader=-1", "snp=1,snp=2", "ucode=3", "snp=\u0661"],
)
def test_a_minimum_tcb_with_a_defect_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        build_expectations(BASE | {"min-tcb": text}, None)


def reference(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"schema": "sevkit.io/reference/v1", "references": list(rows)}).encode()


def test_a_reference_set_that_is_none_is_refused() -> None:
    for data in (b"", b"{}", b"[]", reference()):
        with pytest.raises(SevkitError):
            build_expectations({"report-data": NONCE}, data)


def test_every_name_has_a_kind_that_is_parsed() -> None:
    assert set(NAMES.values()) == {"hex", "hex list", "flag", "path", "number", "tcb"}
