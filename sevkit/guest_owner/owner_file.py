"""The GuestOwner file: what an owner expects of a launch, and what he releases to it; pure.

``parse_owner_file`` returns what stands in the YAML, every key known, every value typed and
bounded; paths are as they were written. ``sevkit.guest_owner.owner`` reads the files and makes of
it what a launch is held against. A key that is misspelt would be an expectation that is not there,
so nothing unknown is passed over. All keys are in ``docs/guest-owner.md``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar, final

from sevkit.abi.secret_packet import TABLE_GUID, parse_guid
from sevkit.documents import parse_documents
from sevkit.errors import FormatError, UsageError
from sevkit.guest_owner.selector import Selector, parse_selector
from sevkit.kubevirt.manifests import GUEST_POLICIES
from sevkit.measure.sweep import Cpu
from sevkit.measure.terms import MAX_VCPUS, Mode
from sevkit.measure.vcpu import CPU_MODELS, signature_of_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from sevkit.documents import Json

STRUCTURE: Final = "GuestOwner"
API_VERSION: Final = "sevkit.io/v1alpha1"
LIMIT: Final = 256 << 10
MAX_ENTRIES: Final = 256
#: Risks that an owner may accept by name, and the finding that then only warns.
RISKS: Final[Mapping[str, str]] = {
    "unmeasured-boot": "coverage.kernel",
    "unmeasured-variables": "coverage.uefi-variables",
}
_MODES: Final = {mode.value: mode for mode in (Mode.SEV, Mode.SEV_ES)}
_ON_MISMATCH: Final = {"keep-paused": False, "stop": True}
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_VERSION: Final = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})(?:\.([0-9]{1,3}))?")
_RANGE: Final = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
_SIGNATURE: Final = re.compile(r"0x[0-9a-fA-F]{1,8}")
_LONGEST_PATH: Final = 4096

_Made = TypeVar("_Made")


@final
@dataclass(frozen=True, slots=True)
class OwnerFile:
    """What stands in a GuestOwner file; absent lists are empty, absent values None.

    ``vcpus`` is the range (first, last), ``min_firmware`` (API major, API minor, build); hex is in
    lower case. ``stop`` says to stop a VMI that is refused, in place of keeping it paused.
    """

    modes: tuple[Mode, ...]
    firmware: str
    firmware_sha256: str | None = None
    guest_policy: int | None = None
    vmis: tuple[Selector, ...] = ()
    reference: str | None = None
    vcpus: tuple[int, int] | None = None
    cpus: tuple[Cpu, ...] = ()
    min_firmware: tuple[int, int, int] | None = None
    ca: str | None = None
    roots: tuple[str, ...] = ()
    ceks: tuple[str, ...] = ()
    chips: tuple[str, ...] = ()
    oca: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()
    secrets: tuple[tuple[UUID, str], ...] = ()
    stop: bool = False


def parse_owner_file(data: bytes) -> OwnerFile:
    """Return what a GuestOwner document says. Raises ``FormatError``, which names the key."""
    documents = parse_documents(data, STRUCTURE, limit=LIMIT)
    if len(documents) != 1:
        raise _wrong("", "expected one document", "write one GuestOwner to a file")
    top = _mapping(documents[0], "the file", ("apiVersion", "kind", "spec"), optional=())
    for key, wanted in (("apiVersion", API_VERSION), ("kind", STRUCTURE)):
        if top[key] != wanted:
            raise _wrong(key, f"expected {wanted}", f"{key}: {wanted}")
    spec = _mapping(top["spec"], "spec", ("mode", "firmware"), optional=_OPTIONAL)
    firmware = _mapping(spec["firmware"], "spec.firmware", ("file",), optional=("sha256",))
    read = _Reader(spec)
    owner = OwnerFile(
        modes=_modes(spec["mode"]),
        firmware=_path(firmware["file"], "spec.firmware.file"),
        firmware_sha256=_sha256(firmware["sha256"], "spec.firmware.sha256")
        if "sha256" in firmware
        else None,
        guest_policy=read.one("guestPolicy", _policy),
        vmis=read.many("vmis", _vmi),
        reference=read.one("reference", _path),
        vcpus=read.one("vcpus", _vcpus),
        cpus=read.many("cpu", _cpu, one_is_enough=True),
        min_firmware=read.one("minFirmware", _version),
        ca=read.one("ca", _path),
        roots=read.many("roots", _path),
        ceks=read.many("ceks", _path),
        chips=read.many("chips", _sha256),
        oca=read.many("oca", _sha256),
        accept=read.many("accept", _risk),
        secrets=read.many("secrets", _secret),
        stop=read.one("onMismatch", _on_mismatch) or False,
    )
    _check_together(owner)
    return owner


_OPTIONAL: Final = (
    "vmis",
    "guestPolicy",
    "reference",
    "vcpus",
    "cpu",
    "minFirmware",
    "ca",
    "roots",
    "ceks",
    "chips",
    "oca",
    "accept",
    "secrets",
    "onMismatch",
)


def _check_together(owner: OwnerFile) -> None:
    described = owner.vcpus is not None or bool(owner.cpus)
    if owner.reference is not None and described:
        raise _wrong(
            "spec.reference",
            "contradicts vcpus and cpu, which a reference set has already",
            "write either reference, or vcpus and cpu",
        )
    if described and (owner.vcpus is None or not owner.cpus):
        missing = "cpu" if owner.vcpus is not None else "vcpus"
        raise _wrong(f"spec.{missing}", "is missing", "SEV-ES measures both vcpus and cpu")
    if Mode.SEV_ES in owner.modes and owner.reference is None and not described:
        raise _wrong(
            "spec.vcpus",
            "is missing: the digest of SEV-ES covers the vCPUs",
            "write vcpus: N and cpu: MODEL, or reference: FILE",
        )
    guids = [guid for guid, _ in owner.secrets]
    if len(set(guids)) != len(guids):
        raise _wrong("spec.secrets", "names one guid twice", "a guest would find only one")
    policies = {GUEST_POLICIES[mode]: mode for mode in owner.modes}
    if owner.guest_policy is not None and owner.guest_policy not in policies:
        raise _wrong(
            "spec.guestPolicy",
            f"{owner.guest_policy:#x} is the policy of none of the modes",
            f"KubeVirt launches with {' or '.join(map(str, policies))}; leave it out for each "
            "mode's own",
        )


@final
class _Reader:
    """Reads optional keys of ``spec``."""

    def __init__(self, spec: Mapping[str, Json]) -> None:
        self._spec: Final = spec

    def one(self, key: str, parse: Callable[[Json, str], _Made]) -> _Made | None:
        """Return the value of a key, or None where it is not there."""
        return parse(self._spec[key], f"spec.{key}") if key in self._spec else None

    def many(
        self, key: str, parse: Callable[[Json, str], _Made], *, one_is_enough: bool = False
    ) -> tuple[_Made, ...]:
        """Return the values of a list, each once; empty where it is not there."""
        value = self._spec.get(key, [])
        if one_is_enough and not isinstance(value, list):
            value = [value]
        if not isinstance(value, list) or len(value) > MAX_ENTRIES:
            raise _wrong(f"spec.{key}", f"expected a list of at most {MAX_ENTRIES}", f"{key}: []")
        found = tuple(parse(item, f"spec.{key}[{n}]") for n, item in enumerate(value))
        if any(item in found[:n] for n, item in enumerate(found)):
            raise _wrong(f"spec.{key}", "has an entry twice", "write each once")
        return found


def _modes(value: Json) -> tuple[Mode, ...]:
    texts = value if isinstance(value, list) else [value]
    known = isinstance(value, str | list) and all(
        isinstance(text, str) and text in _MODES for text in texts
    )
    if not known or not texts or len(set(map(str, texts))) != len(texts):
        hint = "an SNP guest asks for its report itself: guest report, attest report"
        raise _wrong("spec.mode", "expected sev, sev-es, or a list of both", hint)
    return tuple(_MODES[str(text)] for text in texts)


def _policy(value: Json, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise _wrong(where, "expected a number of 32 bits", "1 for SEV, 5 for SEV-ES")
    return value


def _vmi(value: Json, where: str) -> Selector:
    rows = _mapping(value, where, ("namespace",), optional=("name", "labelSelector"))
    namespace = _text(rows["namespace"], f"{where}.namespace", "the namespace's name")
    if not _NAMESPACE.fullmatch(namespace):
        raise _wrong(f"{where}.namespace", "is no name of a namespace", "write one, not a pattern")
    name = rows.get("name")
    if "name" in rows and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise _wrong(f"{where}.name", "is no name of a VMI", "leave it out for labelSelector")
    labels = rows.get("labelSelector", "")
    if not isinstance(labels, str) or ("labelSelector" in rows and not labels.strip()):
        raise _wrong(f"{where}.labelSelector", "expected text", "labelSelector: app=ledger")
    if name is None and not labels:
        raise _wrong(where, "names neither a VMI nor labels", "add name or labelSelector")
    try:
        return parse_selector(namespace, str(name or ""), labels)
    except UsageError as error:
        raise _wrong(f"{where}.labelSelector", error.message, error.hint) from error


def _vcpus(value: Json, where: str) -> tuple[int, int]:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    found = _RANGE.fullmatch(text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last <= MAX_VCPUS:
        raise _wrong(where, f"expected 1 to {MAX_VCPUS}, or a range", "vcpus: 4, or vcpus: 1-8")
    return first, last


def _cpu(value: Json, where: str) -> Cpu:
    if isinstance(value, str) and _SIGNATURE.fullmatch(value):
        return Cpu(value.lower(), int(value, 16))
    if isinstance(value, str) and value in CPU_MODELS:
        return Cpu(value, signature_of_model(value))
    raise _wrong(
        where,
        "expected a CPU model or a CPUID signature",
        "such as EPYC-Milan, or '0xa00f11' in quotes",
    )


def _version(value: Json, where: str) -> tuple[int, int, int]:
    found = _VERSION.fullmatch(value) if isinstance(value, str) else None
    parts = [int(part or 0) for part in found.groups()] if found else [256]
    if max(parts) > 255:
        hint = "minFirmware: '1.55' in quotes: as a number, 1.50 would be 1.5"
        raise _wrong(where, "expected MAJOR.MINOR or MAJOR.MINOR.BUILD as text", hint)
    return parts[0], parts[1], parts[2]


def _secret(value: Json, where: str) -> tuple[UUID, str]:
    rows = _mapping(value, where, ("guid", "file"), optional=())
    try:
        guid = parse_guid(_text(rows["guid"], f"{where}.guid", "a GUID"))
    except FormatError as error:
        raise _wrong(f"{where}.guid", error.message, "8-4-4-4-12 hex digits in quotes") from error
    if guid.int == 0 or guid == TABLE_GUID:
        raise _wrong(f"{where}.guid", "is the nil GUID or the table's own", "no guest looks for it")
    return guid, _path(rows["file"], f"{where}.file")


def _risk(value: Json, where: str) -> str:
    if not isinstance(value, str) or value not in RISKS:
        raise _wrong(where, "is no risk that can be accepted", f"one of {', '.join(RISKS)}")
    return value


def _on_mismatch(value: Json, where: str) -> bool:
    if not isinstance(value, str) or value not in _ON_MISMATCH:
        raise _wrong(where, "is not known", f"one of {', '.join(_ON_MISMATCH)}")
    return _ON_MISMATCH[value]


def _sha256(value: Json, where: str) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise _wrong(where, "expected a SHA-256", "64 hex digits, in quotes")
    return value.lower()


def _path(value: Json, where: str) -> str:
    text = _text(value, where, "a file, relative to this one")
    if text == "-" or "\0" in text or len(text) > _LONGEST_PATH:
        raise _wrong(where, "is no name of a file", "a file, relative to this one")
    return text


def _text(value: Json, where: str, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(where, "expected text", what)
    return value


def _mapping(
    value: Json, where: str, required: tuple[str, ...], *, optional: tuple[str, ...]
) -> Mapping[str, Json]:
    known = ", ".join((*required, *optional))
    if not isinstance(value, dict):
        raise _wrong(where, "expected a mapping", f"with {known}")
    for key in value:
        if key not in required and key not in optional:
            raise _wrong(where, f"has the unknown key {key[:64]!r}", f"one of {known}")
    for key in required:
        if key not in value:
            raise _wrong(where, f"has no {key}", f"add {key}")
    return value


def _wrong(where: str, message: str, hint: str) -> FormatError:
    return FormatError(STRUCTURE, f"{where}: {message}" if where else message, hint=hint)
