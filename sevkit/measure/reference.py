"""Reference sets: the launch digests that an owner accepts, each with what it stands for.

A set is a JSON document, ``sevkit.io/reference/v1``. ``sevkit measure --output json`` writes it,
``sevkit attest report --reference`` and the owner's file read it. It is an expectation: keep it
where the host cannot write.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from sevkit.documents import Json, parse_json
from sevkit.errors import FormatError
from sevkit.measure.terms import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA: Final = "sevkit.io/reference/v1"
#: Largest document, in bytes: room for every CPU model with 1 to 512 vCPUs in both eras.
REFERENCE_LIMIT: Final = 32 << 20
MAX_REFERENCES: Final = 65_536
_NAME: Final = "reference set"
_DIGEST_SIZES: Final = {Mode.SEV: 32, Mode.SEV_ES: 32, Mode.SNP: 48}
_MAX_TEXT: Final = 1024


@final
@dataclass(frozen=True, slots=True)
class Reference:
    """One expected launch digest: 32 bytes for SEV and SEV-ES, 48 for SNP.

    ``covers_kernel`` says whether kernel, initrd and command line are part of it; ``parameters``
    is what it was computed from, for people.
    """

    digest: bytes
    mode: Mode
    label: str
    covers_kernel: bool
    parameters: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def covers_vcpu_state(self) -> bool:
        """Whether the vCPUs' initial registers are part of it: all modes but plain SEV."""
        return self.mode is not Mode.SEV


@final
@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """The digests of one document, never none."""

    entries: tuple[Reference, ...]

    def matching(self, digest: bytes) -> tuple[Reference, ...]:
        """Return the entries with this digest; several when parameters do not change it."""
        return tuple(entry for entry in self.entries if entry.digest == digest)


def encode_reference_set(references: ReferenceSet) -> str:
    """Return the document as one line of JSON."""
    digests = [
        {
            "digest": entry.digest.hex(),
            "mode": entry.mode.value,
            "label": entry.label,
            "covers": {
                "firmware": True,
                "vcpu_state": entry.covers_vcpu_state,
                "kernel": entry.covers_kernel,
            },
            "parameters": dict(entry.parameters),
        }
        for entry in references.entries
    ]
    return json.dumps({"schema": SCHEMA, "digests": digests})


def parse_reference_set(data: bytes) -> ReferenceSet:
    """Return the set that a document holds.

    Raises ``FormatError`` for another schema, an unknown or missing key, a digest that is not hex
    of its mode's length, or a set without digests: an empty expectation must not look like one.
    """
    document = parse_json(data, _NAME, limit=REFERENCE_LIMIT)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise FormatError(
            _NAME, f"schema is not {SCHEMA}", hint="made by: sevkit measure --output json"
        )
    rows = _keys(document, _NAME, "schema", "digests")["digests"]
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_REFERENCES:
        raise FormatError(_NAME, f"digests is not a list of 1 to {MAX_REFERENCES}")
    return ReferenceSet(tuple(_reference(row, f"digests[{n}]") for n, row in enumerate(rows)))


def _reference(row: Json, where: str) -> Reference:
    values = _keys(row, where, "digest", "mode", "label", "covers", "parameters")
    covers = _keys(values["covers"], f"{where}.covers", "firmware", "vcpu_state", "kernel")
    label = values["label"]
    if not isinstance(label, str) or len(label) > _MAX_TEXT:
        raise FormatError(_NAME, f"{where}.label is not a text of at most {_MAX_TEXT} characters")
    kernel = covers["kernel"]
    if not isinstance(kernel, bool):
        raise FormatError(_NAME, f"{where}.covers.kernel is not true or false")
    try:
        mode = Mode(str(values["mode"]))
    except ValueError:
        raise FormatError(_NAME, f"{where}.mode is not sev, sev-es or snp") from None
    reference = Reference(
        _digest(values["digest"], mode, where),
        mode,
        label,
        kernel,
        _parameters(values["parameters"], where),
    )
    if covers["firmware"] is not True or covers["vcpu_state"] is not reference.covers_vcpu_state:
        raise FormatError(_NAME, f"{where}.covers does not say what a {mode} digest covers")
    return reference


def _digest(value: Json, mode: Mode, where: str) -> bytes:
    size = _DIGEST_SIZES[mode]
    text = value if isinstance(value, str) else ""
    if len(text) != 2 * size or not set(text) <= set("0123456789abcdefABCDEF"):
        raise FormatError(_NAME, f"{where}.digest is not {size} bytes in hex")
    return bytes.fromhex(text)


def _parameters(value: Json, where: str) -> dict[str, str | int]:
    if not isinstance(value, dict) or len(value) > 64:
        raise FormatError(_NAME, f"{where}.parameters is not a mapping of at most 64 keys")
    found: dict[str, str | int] = {}
    for key, entry in value.items():
        if isinstance(entry, bool) or not isinstance(entry, str | int):
            raise FormatError(_NAME, f"{where}.parameters.{key[:40]} is neither text nor a number")
        if len(key) > _MAX_TEXT or (isinstance(entry, str) and len(entry) > _MAX_TEXT):
            raise FormatError(_NAME, f"{where}.parameters.{key[:40]} is too long")
        found[key] = entry
    return found


def _keys(value: Json, where: str, *names: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise FormatError(_NAME, f"{where} is not a mapping")
    for name in names:
        if name not in value:
            raise FormatError(_NAME, f"{where} has no {name}")
    for name in value:
        if name not in names:
            raise FormatError(_NAME, f"{where} has the unknown key {name[:40]}")
    return value
