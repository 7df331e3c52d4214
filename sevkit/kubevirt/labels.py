"""What a node says of itself in a cluster: labels, one annotation, and extended resources.

``encode_node_word`` turns capabilities into it, and takes from the last word what could not be
found out this time: a probe error removes nothing. ``parse_node_word`` reads it back from a Node.
Labels are the node's own word, a hint for scheduling; trust comes from attestation, and chip IDs
are never in it. No key begins with ``kubevirt.io/sev``: KubeVirt's node-labeller deletes those.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.host.capability import Capability, Technology

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.host.capability import Capabilities

DOMAIN: Final = "sevkit.io"
SEV: Final = f"{DOMAIN}/sev"
SEV_ES: Final = f"{DOMAIN}/sev-es"
SEV_SNP: Final = f"{DOMAIN}/sev-snp"
PRODUCT: Final = f"{DOMAIN}/product"
FIRMWARE_VERSION: Final = f"{DOMAIN}/firmware-version"
TCB_SNP: Final = f"{DOMAIN}/tcb-snp"
SEV_ASIDS: Final = f"{DOMAIN}/sev-asids"
ENCRYPTED_STATE_ASIDS: Final = f"{DOMAIN}/encrypted-state-asids"
SIMULATED: Final = f"{DOMAIN}/simulated"
#: Every label key that is ours to publish.
LABELS: Final = (
    SEV,
    SEV_ES,
    SEV_SNP,
    PRODUCT,
    FIRMWARE_VERSION,
    TCB_SNP,
    SEV_ASIDS,
    ENCRYPTED_STATE_ASIDS,
    SIMULATED,
)
CAPABILITIES: Final = f"{DOMAIN}/capabilities"
#: The label of each technology.
KEYS: Final = {
    Technology.SEV: SEV,
    Technology.SEV_ES: SEV_ES,
    Technology.SEV_SNP: SEV_SNP,
}
#: Extended resources have the names of the labels: how many guests of that kind the node can run.
RESOURCES: Final = tuple(KEYS.values())
#: Largest annotation, in bytes of UTF-8.
MAX_ANNOTATION: Final = 2048
_WORDS: Final = {True: "true", False: "false"}


@final
@dataclass(frozen=True, slots=True)
class NodeWord:
    """Everything of ours on one Node; each value is the text that the API server keeps."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    capacity: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.labels or self.annotations or self.capacity)

    def to_json(self) -> dict[str, Any]:
        """Return it for people and programs, with the annotation's JSON parsed."""
        return {
            "labels": dict(self.labels),
            "annotations": {key: json.loads(text) for key, text in self.annotations.items()},
            "capacity": dict(self.capacity),
        }


def encode_node_word(found: Capabilities, last: NodeWord | None = None) -> NodeWord:
    """Return what to publish, given what was found and what was published ``last``.

    A technology that is ``unknown`` keeps its label and its capacity, and has none if it never was
    known. So do versions and numbers that could not be read. The annotation says how it is now.
    Nothing is kept of a word about simulated hardware on real hardware, nor the other way round:
    there it never was known.
    """
    before = last or NodeWord()
    if (SIMULATED in before.labels) is not found.simulated:
        before = NodeWord()
    labels: dict[str, str] = {}
    capacity: dict[str, str] = {}
    for technology, key in KEYS.items():
        capability = found.of(technology)
        known = capability.state.label
        _put(labels, key, None if known is None else _WORDS[known], before.labels)
        guests = None if known is None else str(capability.guests if known else 0)
        _put(capacity, key, guests, before.capacity)
    values: dict[str, object | None] = {
        PRODUCT: found.product,
        FIRMWARE_VERSION: found.firmware_version,
        TCB_SNP: None if found.current_tcb is None else found.current_tcb.snp,
        SEV_ASIDS: found.sev_asids.total,
        ENCRYPTED_STATE_ASIDS: found.encrypted_state.total,
    }
    for key, value in values.items():
        _put(labels, key, None if value is None else str(value), before.labels)
    if found.simulated:
        labels[SIMULATED] = _WORDS[True]
    return NodeWord(labels, {CAPABILITIES: encode_annotation(found)}, capacity)


def _put(into: dict[str, str], key: str, value: str | None, before: Mapping[str, str]) -> None:
    if value is not None:
        into[key] = value
    elif key in before:
        into[key] = before[key]


def encode_annotation(found: Capabilities) -> str:
    """Return the annotation's compact JSON, at most 2 KiB.

    What does not fit goes in this order: explanations, then hints. State and reason always fit.
    """
    shared = {
        "cBit": found.c_bit,
        "reducedPhysBits": found.reduced_phys_bits,
        "firmware": None if found.firmware_version is None else str(found.firmware_version),
        "currentTcb": None if found.current_tcb is None else found.current_tcb.components,
        "reportedTcb": None if found.reported_tcb is None else found.reported_tcb.components,
        "snpInitialized": found.snp_initialized,
    }
    rest = {name: value for name, value in shared.items() if value is not None}

    def encode(*words: str) -> str:
        document: dict[str, object] = {
            technology.value: _describe(found.of(technology), words) for technology in Technology
        }
        return json.dumps(document | rest, separators=(",", ":"), ensure_ascii=True)

    whole, shorter = encode("explanation", "hint"), encode("hint")
    return next((text for text in (whole, shorter) if len(text) <= MAX_ANNOTATION), encode())


def _describe(capability: Capability, words: tuple[str, ...]) -> dict[str, str]:
    said = {"state": str(capability.state), "reason": str(capability.reason)}
    more = {word: getattr(capability, word) for word in words}
    return said | {word: text for word, text in more.items() if text}


def parse_node_word(
    labels: Mapping[str, str], annotations: Mapping[str, str], capacity: Mapping[str, str]
) -> NodeWord:
    """Return what is ours of a Node's labels, annotations and ``status.capacity``.

    Nothing is judged: whoever compares quantities compares them as quantities.
    """
    return NodeWord(
        {key: labels[key] for key in LABELS if key in labels},
        {key: annotations[key] for key in (CAPABILITIES,) if key in annotations},
        {key: capacity[key] for key in RESOURCES if key in capacity},
    )
