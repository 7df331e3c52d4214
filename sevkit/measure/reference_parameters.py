"""What a reference was computed from: the parameters beside its digest, each with its shape.

They say which entry of a set matched, and two of them decide: ``guest_policy`` is an expectation,
``firmware_sha256`` ties the set to the owner's file. So a name that is not known is refused: a
misspelt expectation would be one that is not there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from sevkit.abi.policy import SevPolicy, parse_sev_policy, parse_snp_policy
from sevkit.errors import FormatError
from sevkit.measure.kernel_hashes import KernelHashes
from sevkit.measure.terms import MAX_VCPUS, Era, Mode, Vmm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_TEXT: Final = 1024
_NAME: Final = "reference set"
_HEX_NUMBER: Final = re.compile(r"0x(?:0|[1-9a-f][0-9a-f]{0,15})")
_RELEASE: Final = re.compile(r"v[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}")


class _Kind(NamedTuple):
    """What a value must be, in words, and the test for it."""

    words: str
    fits: Callable[[str | int], bool]


def _hex_number(bits: int) -> _Kind:
    def fits(value: str | int) -> bool:
        text = value if isinstance(value, str) else ""
        return _HEX_NUMBER.fullmatch(text) is not None and int(text, 16) < 1 << bits

    return _Kind(f"0x and a hex number of at most {bits} bits", fits)


def _hash(size: int) -> _Kind:
    shape = re.compile(f"[0-9a-f]{{{2 * size}}}")
    return _Kind(
        f"{size} bytes in lower-case hex",
        lambda value: isinstance(value, str) and shape.fullmatch(value) is not None,
    )


def _one_of(*words: str) -> _Kind:
    return _Kind(f"one of {', '.join(words)}", words.__contains__)


_TEXT: Final = _Kind(
    f"a text of 1 to {MAX_TEXT} characters",
    lambda value: isinstance(value, str) and 0 < len(value) <= MAX_TEXT,
)
_COUNT: Final = _Kind(
    f"a number from 1 to {MAX_VCPUS}",
    lambda value: isinstance(value, int) and 1 <= value <= MAX_VCPUS,
)
_VERSION: Final = _Kind(
    "a release of KubeVirt, such as v1.9.0",
    lambda value: isinstance(value, str) and _RELEASE.fullmatch(value) is not None,
)

_SEV: Final = frozenset({Mode.SEV})
_ES: Final = frozenset({Mode.SEV_ES})
_SNP: Final = frozenset({Mode.SNP})
_ALL: Final = _SEV | _ES | _SNP

#: Each parameter, the modes whose digests it can belong to, and its kind.
PARAMETERS: Final[Mapping[str, tuple[frozenset[Mode], _Kind]]] = {
    "vcpus": (_ES | _SNP, _COUNT),
    "cpu": (_ES | _SNP, _TEXT),
    "vcpu_signature": (_ES | _SNP, _hex_number(32)),
    "era": (_ES, _one_of(*Era)),
    "guest_features": (_ES | _SNP, _hex_number(64)),
    "vmm": (_ES | _SNP, _one_of(*Vmm)),
    "firmware_file": (_ALL, _TEXT),
    "firmware_sha256": (_ALL, _hash(32)),
    "firmware_hash": (_SNP, _hash(48)),
    "kernel_sha256": (_ALL, _hash(32)),
    "initrd_sha256": (_ALL, _hash(32)),
    "cmdline_sha256": (_ALL, _hash(32)),
    "guest_policy": (_ALL, _hex_number(64)),
    "kubevirt": (_ALL, _VERSION),
}
KERNEL_PARAMETERS: Final = ("kernel_sha256", "initrd_sha256", "cmdline_sha256")


def check_parameters(values: Mapping[str, str | int], mode: Mode, where: str) -> None:
    """Refuse parameters that no digest of ``mode`` has; ``where`` names the place in the document.

    Raises ``FormatError`` for an unknown name, a value that is not of its kind, one that belongs
    to another mode, and a guest policy that cannot be one of ``mode``.
    """
    for name, value in values.items():
        if name not in PARAMETERS:
            raise FormatError(_NAME, f"{where} has the unknown key {name[:40]}")
        modes, kind = PARAMETERS[name]
        if mode not in modes:
            raise FormatError(_NAME, f"{where}.{name} is no parameter of a {mode} digest")
        if isinstance(value, bool) or not kind.fits(value):
            raise FormatError(_NAME, f"{where}.{name} is not {kind.words}")
    policy = guest_policy_of(values)
    if policy is not None:
        _check_policy(policy, mode, f"{where}.guest_policy")


def guest_policy_of(values: Mapping[str, str | int]) -> int | None:
    """Return the guest policy among checked parameters, or None where they name none."""
    text = values.get("guest_policy")
    return int(text, 16) if isinstance(text, str) else None


def kernel_hashes_of(values: Mapping[str, str | int]) -> KernelHashes | None:
    """Return the measured boot among checked parameters, or None where they do not name all."""
    texts = [values.get(name) for name in KERNEL_PARAMETERS]
    hashes = [bytes.fromhex(text) for text in texts if isinstance(text, str)]
    return KernelHashes(*hashes) if len(hashes) == len(KERNEL_PARAMETERS) else None


def _check_policy(policy: int, mode: Mode, where: str) -> None:
    try:
        if mode is Mode.SNP:
            parse_snp_policy(policy)
            return
        demands_es = SevPolicy.ES in parse_sev_policy(policy)
    except FormatError as error:
        raise FormatError(_NAME, f"{where}: {error.message}") from error
    if demands_es is not (mode is Mode.SEV_ES):
        raise FormatError(_NAME, f"{where} {policy:#x} is not one of {mode}")
