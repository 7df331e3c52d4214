"""Reference sets: the launch digests that an owner accepts, each with what it stands for.

A set is a JSON document, ``sevkit.io/reference/v1``. ``sevkit measure --output json`` writes it;
``sevkit attest report`` and ``attest launch`` (``--reference``) and the owner's file read it. It is
an expectation: keep it where the host cannot write.

One set may hold digests of several modes, CPUs, vCPU counts, register eras, firmwares and KubeVirt
releases: each entry has its own parameters, so that a verdict can say which of them matched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from sevkit.documents import Json, parse_json
from sevkit.errors import FormatError
from sevkit.measure.reference_parameters import (
    KERNEL_PARAMETERS,
    MAX_TEXT,
    check_parameters,
    guest_policy_of,
)
from sevkit.measure.terms import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SCHEMA: Final = "sevkit.io/reference/v1"
#: Largest document, in bytes: room for every CPU model with 1 to 512 vCPUs in both eras.
REFERENCE_LIMIT: Final = 32 << 20
MAX_REFERENCES: Final = 65_536
_NAME: Final = "reference set"
_DIGEST_SIZES: Final = {Mode.SEV: 32, Mode.SEV_ES: 32, Mode.SNP: 48}


@final
@dataclass(frozen=True, slots=True)
class Reference:
    """One expected launch digest: 32 bytes for SEV and SEV-ES, 48 for SNP.

    ``covers_kernel`` says whether kernel, initrd and command line are part of it; ``parameters``
    is what it was computed from, by the names of ``reference_parameters``.
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

    @property
    def guest_policy(self) -> int | None:
        """The guest policy that the launch is to have, or None where any is as good."""
        return guest_policy_of(self.parameters)

    @property
    def firmware_sha256(self) -> str | None:
        """SHA-256 of the firmware file in hex, or None where nobody said."""
        found = self.parameters.get("firmware_sha256")
        return found if isinstance(found, str) else None


@final
@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """The digests of one document, never none."""

    entries: tuple[Reference, ...]

    def matching(self, digest: bytes) -> tuple[Reference, ...]:
        """Return the entries with this digest; several when parameters do not change it."""
        return tuple(entry for entry in self.entries if entry.digest == digest)

    def of_mode(self, mode: Mode) -> tuple[Reference, ...]:
        """Return the entries for a guest of this mode, in the set's order; none is no error."""
        return tuple(entry for entry in self.entries if entry.mode is mode)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes that have an entry, weakest first."""
        return tuple(mode for mode in Mode if self.of_mode(mode))


def join_reference_sets(sets: Iterable[ReferenceSet]) -> ReferenceSet:
    """Return one set with the entries of all, in order, each once.

    Raises ``FormatError`` for entries that contradict each other, and for more than
    ``MAX_REFERENCES``.
    """
    found: dict[object, Reference] = {}
    for references in sets:
        for entry in references.entries:
            found.setdefault(_identity(entry), entry)
    if len(found) > MAX_REFERENCES:
        raise FormatError(_NAME, f"{len(found)} digests are more than {MAX_REFERENCES}")
    joined = ReferenceSet(tuple(found.values()))
    _check_agreement(joined)
    return joined


def encode_reference_set(references: ReferenceSet) -> str:
    """Return the document as one line of JSON.

    Raises ``FormatError`` for parameters that ``parse_reference_set`` would refuse, and for a
    document that would be too large for it.
    """
    digests = []
    for place, entry in enumerate(references.entries):
        check_parameters(entry.parameters, entry.mode, f"digests[{place}].parameters")
        digests.append(
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
        )
    text = json.dumps({"schema": SCHEMA, "digests": digests})
    if len(digests) > MAX_REFERENCES or len(text) > REFERENCE_LIMIT:
        raise FormatError(_NAME, "larger than a reader takes", hint="make several smaller ones")
    return text


def parse_reference_set(data: bytes) -> ReferenceSet:
    """Return the set that a document holds.

    Raises ``FormatError`` for another schema, an unknown, missing or doubled key, a digest that is
    not hex of its mode's length, a parameter without its shape, an entry that occurs twice or
    contradicts another, or a set without digests: an empty expectation must not look like one.
    """
    document = parse_json(data, _NAME, limit=REFERENCE_LIMIT)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise FormatError(
            _NAME, f"schema is not {SCHEMA}", hint="made by: sevkit measure --output json"
        )
    rows = _keys(document, _NAME, "schema", "digests")["digests"]
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_REFERENCES:
        raise FormatError(_NAME, f"digests is not a list of 1 to {MAX_REFERENCES}")
    references = ReferenceSet(tuple(_reference(row, f"digests[{n}]") for n, row in enumerate(rows)))
    _check_agreement(references)
    return references


def _check_agreement(references: ReferenceSet) -> None:
    """Refuse an entry that is there twice, and one digest that covers two things."""
    seen: set[object] = set()
    covers: dict[tuple[Mode, bytes], bool] = {}
    for place, entry in enumerate(references.entries):
        if (
            covers.setdefault((entry.mode, entry.digest), entry.covers_kernel)
            != entry.covers_kernel
        ):
            raise FormatError(
                _NAME, f"digests[{place}] has a digest that another entry says covers other things"
            )
        if _identity(entry) in seen:
            raise FormatError(_NAME, f"digests[{place}] is there twice")
        seen.add(_identity(entry))


def _identity(entry: Reference) -> object:
    parameters = frozenset(entry.parameters.items())
    return entry.mode, entry.digest, entry.label, entry.covers_kernel, parameters


def _reference(row: Json, where: str) -> Reference:
    values = _keys(row, where, "digest", "mode", "label", "covers", "parameters")
    covers = _keys(values["covers"], f"{where}.covers", "firmware", "vcpu_state", "kernel")
    label = values["label"]
    if not isinstance(label, str) or len(label) > MAX_TEXT:
        raise FormatError(_NAME, f"{where}.label is not a text of at most {MAX_TEXT} characters")
    kernel = covers["kernel"]
    if not isinstance(kernel, bool):
        raise FormatError(_NAME, f"{where}.covers.kernel is not true or false")
    try:
        mode = Mode(str(values["mode"]))
    except ValueError:
        raise FormatError(_NAME, f"{where}.mode is not sev, sev-es or snp") from None
    parameters = _parameters(values["parameters"], mode, f"{where}.parameters")
    reference = Reference(_digest(values["digest"], mode, where), mode, label, kernel, parameters)
    if covers["firmware"] is not True or covers["vcpu_state"] is not reference.covers_vcpu_state:
        raise FormatError(_NAME, f"{where}.covers does not say what a {mode} digest covers")
    if not kernel and any(name in parameters for name in KERNEL_PARAMETERS):
        raise FormatError(_NAME, f"{where} names a kernel that its digest does not cover")
    return reference


def _digest(value: Json, mode: Mode, where: str) -> bytes:
    size = _DIGEST_SIZES[mode]
    text = value if isinstance(value, str) else ""
    if len(text) != 2 * size or not set(text) <= set("0123456789abcdefABCDEF"):
        raise FormatError(_NAME, f"{where}.digest is not {size} bytes in hex")
    return bytes.fromhex(text)


def _parameters(value: Json, mode: Mode, where: str) -> dict[str, str | int]:
    if not isinstance(value, dict):
        raise FormatError(_NAME, f"{where} is not a mapping")
    found: dict[str, str | int] = {}
    for key, entry in value.items():
        if isinstance(entry, bool) or not isinstance(entry, str | int):
            raise FormatError(_NAME, f"{where}.{key[:40]} is neither text nor a number")
        found[key] = entry
    check_parameters(found, mode, where)
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
