from __future__ import annotations

import json
from typing import Any

import pytest

from sevkit.errors import FormatError
from sevkit.measure.reference import (
    MAX_REFERENCES,
    REFERENCE_LIMIT,
    Reference,
    ReferenceSet,
    encode_reference_set,
    parse_reference_set,
)
from sevkit.measure.terms import Mode

SET = ReferenceSet(
    (
        Reference(bytes(48), Mode.SNP, "1 vCPU", covers_kernel=False, parameters={"vcpus": 1}),
        Reference(b"\1" * 32, Mode.SEV, "any vCPUs", covers_kernel=True, parameters={}),
    )
)


def changed(path: str, value: Any) -> bytes:  # noqa: ANN401  # any JSON
    """Set one value of the first entry, or of the document if ``path`` starts with a slash."""
    document = json.loads(encode_reference_set(SET))
    place = document if path.startswith("/") else document["digests"][0]
    *parents, last = path.removeprefix("/").split(".")
    for parent in parents:
        place = place[parent]
    place[last] = value
    return json.dumps(document).encode()


def test_a_set_survives_a_round_trip() -> None:
    found = parse_reference_set(encode_reference_set(SET).encode())
    assert found == SET
    assert found.matching(b"\1" * 32) == SET.entries[1:]
    assert found.matching(bytes(32)) == ()


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        ("/schema", "sevkit.io/reference/v2", "schema is not"),
        ("/digests", [], "list of 1 to"),
        ("/digests", {}, "list of 1 to"),
        ("/digests", [1], "not a mapping"),
        ("/digests", [{}] * (MAX_REFERENCES + 1), "list of 1 to"),
        ("/extra", 1, "unknown key extra"),
        ("extra", 1, "unknown key extra"),
        ("digest", "00" * 32, "not 48 bytes in hex"),
        ("digest", "0x" + "00" * 47, "not 48 bytes in hex"),
        ("digest", " " * 96, "not 48 bytes in hex"),
        ("digest", 0, "not 48 bytes in hex"),
        ("mode", "sevsnp", "mode is not"),
        ("mode", None, "mode is not"),
        ("label", 1, "label is not"),
        ("label", "x" * 1025, "label is not"),
        ("covers", None, "not a mapping"),
        ("covers.kernel", "yes", "not true or false"),
        ("covers.firmware", False, "does not say"),
        ("covers.vcpu_state", False, "does not say"),
        ("parameters", [], "not a mapping"),
        ("parameters.vcpus", True, "neither text nor a number"),
        ("parameters.vcpus", None, "neither text nor a number"),
        ("parameters.vcpus", "x" * 1025, "too long"),
    ],
)
def test_a_set_that_is_not_exactly_one_is_refused(path: str, value: object, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        parse_reference_set(changed(path, value))


def test_as_many_entries_and_parameters_as_allowed_are_read() -> None:
    entry = Reference(
        bytes(32),
        Mode.SEV,
        "x" * 1024,
        covers_kernel=False,
        parameters={str(n): n for n in range(64)},
    )
    small = Reference(bytes(32), Mode.SEV, "", covers_kernel=False, parameters={})
    most = ReferenceSet((entry, *[small] * (MAX_REFERENCES - 1)))
    assert parse_reference_set(encode_reference_set(most).encode()) == most


def test_too_many_parameters_are_refused() -> None:
    with pytest.raises(FormatError, match="at most 64 keys"):
        parse_reference_set(changed("parameters", {str(n): n for n in range(65)}))


def test_a_missing_key_is_refused() -> None:
    document = json.loads(encode_reference_set(SET))
    del document["digests"][1]["covers"]["kernel"]
    with pytest.raises(FormatError, match=r"digests\[1\].covers has no kernel"):
        parse_reference_set(json.dumps(document).encode())


def test_a_document_that_is_too_large_is_refused() -> None:
    with pytest.raises(FormatError, match="larger than"):
        parse_reference_set(b" " * (REFERENCE_LIMIT + 1))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b'{"schema": 1}', b"\xff"])
def test_what_is_no_set_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_reference_set(data)
