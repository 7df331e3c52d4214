"""Expectations in words: the options of ``attest report``, and the YAML that says the same.

Both give the same names, so that a file can take over what stood on a command line. A name that is
not known, a name given twice and a value of the wrong type are refused: an expectation that was
misspelt would otherwise be an expectation that is not there.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sevkit.abi.tcb import POSITIONS, parse_tcb_words
from sevkit.attest.expectations import ANY, AnyValue, Expectations, ExpectedMeasurement
from sevkit.attest.reference_choice import choose_snp_measurements
from sevkit.documents import parse_documents
from sevkit.errors import FormatError, InsecureUsage, UsageError
from sevkit.measure.reference import parse_reference_set

if TYPE_CHECKING:
    from collections.abc import Mapping

STRUCTURE: Final = "expectations"

#: Largest expectations file, in bytes: a thousand chips fit, and the YAML parser's worst case,
#: which grows with the square of a token's length, stays at about a second.
LIMIT: Final = 256 << 10

#: Name of each expectation, and the kind of its value.
NAMES: Final[Mapping[str, str]] = {
    "report-data": "hex",
    "allow-any-report-data": "flag",
    "measurement": "hex list",
    "reference": "path",
    "allow-any-measurement": "flag",
    "host-data": "hex",
    "id-key-digest": "hex",
    "author-key-digest": "hex",
    "family-id": "hex",
    "image-id": "hex",
    "min-guest-svn": "number",
    "vmpl": "number",
    "allow-debug": "flag",
    "allow-migration-agent": "flag",
    "require-single-socket": "flag",
    "require-alias-check": "flag",
    "min-tcb": "tcb",
    "chip": "hex list",
}

_TCB_NAMES: Final = frozenset(name for positions in POSITIONS.values() for name in positions)
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})+")
_UPPER: Final = re.compile(r"(?<=[a-z])([A-Z])")


def parse_hex(text: str, name: str) -> bytes:
    """Return the bytes of an even number of hex digits, nothing else. Raises ``UsageError``."""
    if not _HEX.fullmatch(text):
        raise UsageError(f"{name}: expected hex digits in pairs, without a prefix")
    return bytes.fromhex(text)


def parse_expectations_file(data: bytes) -> dict[str, object]:
    """Return the names and values of one YAML or JSON mapping, every name known, every type right.

    Names may be written ``report-data``, ``report_data`` or ``reportData``. Raises ``FormatError``.
    """
    documents = parse_documents(data, STRUCTURE, limit=LIMIT)
    if len(documents) != 1 or not isinstance(documents[0], dict) or not documents[0]:
        raise FormatError(STRUCTURE, "expected one mapping that is not empty")
    found: dict[str, object] = {}
    for written, value in documents[0].items():
        name = _UPPER.sub(r"-\1", written).lower().replace("_", "-")
        if name not in NAMES:
            known = ", ".join(NAMES)
            raise FormatError(STRUCTURE, f"{written[:64]!r} is not known", hint=f"one of {known}")
        if name in found:
            raise FormatError(STRUCTURE, f"{written[:64]!r} is given twice")
        found[name] = _typed(written, NAMES[name], value)
    return found


def _typed(name: str, kind: str, value: object) -> object:
    if kind == "hex list" and isinstance(value, str):
        value = [value]
    if kind == "tcb" and isinstance(value, dict):
        value = ",".join(f"{part}={level}" for part, level in value.items())
    if not _fits(kind, value):
        hint = (
            "put hex digits in quotes: YAML reads some of them as numbers" if "hex" in kind else ""
        )
        raise FormatError(STRUCTURE, f"{name}: expected a {kind}", hint=hint)
    return tuple(value) if isinstance(value, list) else value


def _fits(kind: str, value: object) -> bool:
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "number":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "hex list":
        texts = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        return texts and bool(value)
    return isinstance(value, str)


def merge(given: Mapping[str, object], from_file: Mapping[str, object]) -> dict[str, object]:
    """Return both together; a name in both is refused, because either could be meant."""
    twice = sorted(set(given) & set(from_file))
    if twice:
        raise UsageError(f"--{twice[0]} is given on the command line and in the expectations file")
    return {**from_file, **given}


def build_expectations(values: Mapping[str, object], reference: bytes | None) -> Expectations:
    """Return the expectations in ``values`` (by the names of ``NAMES``).

    ``reference`` is the content of the reference set. Raises ``UsageError`` for bad values, then
    ``InsecureUsage`` where report data or the launch digest is neither expected nor allowed to be
    any, then ``FormatError`` for the reference set: what is asked is judged before what is read.
    """
    for name, value in values.items():
        if name not in NAMES or not _fits(NAMES[name], value):
            # a value that is passed over is an expectation that is not there
            raise UsageError(f"{name}: is no expectation, or not of its type")
    expectations = _parse_values(values)
    asked = {
        "report-data": expectations.report_data is not ANY,
        "measurement": expectations.measurements is not ANY or reference is not None,
    }
    nouns = {"report-data": "nonce", "measurement": "launch digest"}
    for name, expected in asked.items():
        if expected and values.get(f"allow-any-{name}") is True:
            raise UsageError(f"--allow-any-{name} contradicts the {nouns[name]} that is expected")
    for name, expected in asked.items():
        if not expected and values.get(f"allow-any-{name}") is not True:
            raise InsecureUsage(
                f"no {nouns[name]} is expected, so every report would do",
                hint=f"give --{name}, or accept the risk with --allow-any-{name}",
            )
    if reference is None:
        return expectations
    listed = () if expectations.measurements is ANY else expectations.measurements
    referenced = choose_snp_measurements(parse_reference_set(reference))
    return replace(expectations, measurements=(*listed, *referenced))


def _parse_values(values: Mapping[str, object]) -> Expectations:
    """Return what the values say, with ``ANY`` where they say nothing: not to be used as it is."""

    def hexadecimal(name: str) -> bytes | None:
        value = values.get(name)
        return parse_hex(value, name) if isinstance(value, str) else None

    def number(name: str) -> int | None:
        value = values.get(name)
        return value if isinstance(value, int) else None

    def flag(name: str) -> bool:
        return values.get(name) is True

    minimum_tcb = values.get("min-tcb")
    report_data = hexadecimal("report-data")
    return Expectations(
        report_data=ANY if report_data is None else report_data,
        measurements=_digests(values),
        host_data=hexadecimal("host-data"),
        id_key_digest=hexadecimal("id-key-digest"),
        author_key_digest=hexadecimal("author-key-digest"),
        family_id=hexadecimal("family-id"),
        image_id=hexadecimal("image-id"),
        minimum_guest_svn=number("min-guest-svn"),
        vmpl=number("vmpl") or 0,
        allow_debug=flag("allow-debug"),
        allow_migration_agent=flag("allow-migration-agent"),
        require_single_socket=flag("require-single-socket"),
        require_alias_check=flag("require-alias-check"),
        minimum_tcb=_minimum_tcb(minimum_tcb) if isinstance(minimum_tcb, str) else {},
        chips=tuple(parse_hex(chip, "chip") for chip in _texts(values.get("chip"))),
    )


def _minimum_tcb(text: str) -> dict[str, int]:
    try:
        return parse_tcb_words(text)
    except FormatError as error:
        raise UsageError(f"min-tcb: {error.message}", hint=error.hint) from error


def _texts(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list | tuple) else ()
    return tuple(item for item in items if isinstance(item, str))


def _digests(values: Mapping[str, object]) -> tuple[ExpectedMeasurement, ...] | AnyValue:
    found = [
        ExpectedMeasurement(parse_hex(text, "measurement"))
        for text in _texts(values.get("measurement"))
    ]
    return tuple(found) if found else ANY
