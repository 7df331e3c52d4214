"""What a KubeVirt manifest says about how its guest will be measured.

Source: KubeVirt ``api/core/v1`` (v1, and v1alpha3 with the same shape), ``pkg/defaults`` for the
topology that virt-api fills in, ``converter`` for what it makes of it. A manifest is the owner's
own file; one read back from a cluster is the cluster's word.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import FormatError, UsageError
from sevkit.kubevirt.policy import HOST_MODELS
from sevkit.measure.terms import MAX_VCPUS, Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.documents import Json

_VERSIONS: Final = ("kubevirt.io/v1", "kubevirt.io/v1alpha3")
_KINDS: Final = ("VirtualMachine", "VirtualMachineInstance")
#: How the kinds end that ``kubectl get`` wraps what it answers in.
_LIST: Final = "List"
_NAME: Final = "manifest"

#: The guest policy that KubeVirt gives each mode: NODBG; NODBG and ES; SMT allowed, reserved one.
GUEST_POLICIES: Final = {Mode.SEV: 0x1, Mode.SEV_ES: 0x5, Mode.SNP: 0x3_0000}


@final
@dataclass(frozen=True, slots=True)
class ManifestLaunch:
    """How the guest of a manifest is launched.

    ``vcpus`` is the number of vCPUs that the digest covers, ``cpu_model`` one of libvirt's names;
    each is None where the manifest does not decide it, and ``why_no_vcpus`` or ``why_no_cpu`` then
    says why. ``most_vcpus`` is how many a live update may make of them that a next start measures.
    ``notes`` are for people: what the digest of this guest does not mean.
    """

    kind: str
    name: str
    mode: Mode
    guest_policy: int
    vcpus: int | None
    why_no_vcpus: str
    most_vcpus: int
    cpu_model: str | None
    why_no_cpu: str
    notes: tuple[str, ...]


def parse_manifest(documents: tuple[Json, ...]) -> ManifestLaunch:
    """Return what the one VM or VMI among ``documents`` says; other kinds are passed over.

    A list, as ``kubectl get`` prints it, stands for its items, which inherit what they are from it.

    Raises ``UsageError`` for none, several, or one that is not confidential, ``FormatError`` for
    fields that are not what KubeVirt's schema says.
    """
    found = [
        document
        for whole in documents
        if isinstance(whole, dict)
        for document in _flat(whole)
        if document.get("apiVersion") in _VERSIONS and document.get("kind") in _KINDS
    ]
    if len(found) != 1:
        raise UsageError(
            f"the manifest holds {len(found)} VMs and VMIs, expected one",
            hint=f"kind {' or '.join(_KINDS)}, apiVersion {' or '.join(_VERSIONS)}",
        )
    return _launch(found[0])


def _flat(document: dict[str, Json]) -> Iterator[dict[str, Json]]:
    """Yield the objects that kubectl makes of a document.

    Whatever has ``items`` is a list to kubectl, which makes those and not the object that has them.
    """
    if "items" not in document:
        yield document
        return
    kind = document.get("kind")
    if not isinstance(kind, str) or not kind.endswith(_LIST):
        raise FormatError(_NAME, f"kind {str(kind)[:40]!r} has items and is not a list")
    items = document["items"]
    if not isinstance(items, list | None):
        raise FormatError(_NAME, "items is not a list")
    inherited = {"apiVersion": document.get("apiVersion"), "kind": kind.removesuffix(_LIST)}
    for item in items or ():
        if not isinstance(item, dict):
            raise FormatError(_NAME, "an item of a list is not a mapping")
        if "items" in item:
            raise FormatError(_NAME, "an item of a list is a list")
        said = (item.get(key) for key in inherited)
        yield item if any(value and isinstance(value, str) for value in said) else item | inherited


def _launch(document: dict[str, Json]) -> ManifestLaunch:
    kind = str(document["kind"])
    name = _mapping(document, "metadata").get("name")
    spec = _mapping(document, "spec")
    indirect = ""
    if kind == "VirtualMachine":
        indirect = next((key for key in ("instancetype", "preference") if key in spec), "")
        spec = _mapping(_mapping(spec, "template"), "spec")
    # A tuple compares, a set would hash what may be a list.
    if spec.get("architecture") not in (None, "", "amd64"):
        raise UsageError("the manifest is not for architecture amd64, which SEV belongs to")
    domain = _mapping(spec, "domain")
    mode = _mode(_mapping(domain, "launchSecurity"), indirect)
    vcpus, why_no_vcpus, notes = _vcpus(domain, mode)
    model, why_no_cpu = _cpu_model(_mapping(domain, "cpu"))
    most = _most_vcpus(_mapping(domain, "cpu"), mode, vcpus or 0)
    if indirect:
        vcpus, why_no_vcpus = None, f"the VM takes its vCPUs from its {indirect}"
        model, why_no_cpu = None, f"the VM takes its CPU model from its {indirect}"
    if "kernelBoot" in _mapping(domain, "firmware"):
        notes.append("kernelBoot is not measured: KubeVirt sets no kernel hashes")
    return ManifestLaunch(
        kind,
        name if isinstance(name, str) else "",
        mode,
        GUEST_POLICIES[mode],
        vcpus,
        why_no_vcpus,
        most,
        model,
        why_no_cpu,
        tuple(notes),
    )


def _mode(security: dict[str, Json], indirect: str) -> Mode:
    # A mapping, be it an empty one, asks for it; null does not.
    asked = {
        key: _mapping(security, key)
        for key in ("sev", "snp", "tdx")
        if security.get(key) is not None
    }
    kinds = list(asked)
    if not kinds:
        where = f"its {indirect} may: then" if indirect else "add sev: {} or snp: {} to it, or"
        raise UsageError(
            "the manifest asks for no SEV guest: spec.domain.launchSecurity names none",
            hint=f"{where} leave --vmi out and give --mode, --vcpus and --vcpu-type",
        )
    if kinds not in (["sev"], ["snp"]):
        raise UsageError(f"launchSecurity {' and '.join(kinds)} is not sev or snp alone")
    if kinds == ["snp"]:
        return Mode.SNP
    encrypted = _mapping(asked["sev"], "policy").get("encryptedState")
    if encrypted is not None and not isinstance(encrypted, bool):
        raise FormatError(_NAME, "encryptedState is not true or false")
    return Mode.SEV_ES if encrypted else Mode.SEV


def _vcpus(domain: dict[str, Json], mode: Mode) -> tuple[int | None, str, list[str]]:
    cpu = _mapping(domain, "cpu")
    sockets, cores, threads = (_count(cpu, key) for key in ("sockets", "cores", "threads"))
    if sockets == cores == threads == 0:
        sockets = _sockets_from_resources(_mapping(domain, "resources"))
    sockets, cores, threads = max(sockets, 1), max(cores, 1), max(threads, 1)
    total = sockets * cores * threads
    if total > MAX_VCPUS:
        raise UsageError(f"the manifest asks for {total} vCPUs, at most {MAX_VCPUS} are measured")
    if mode is not Mode.SEV_ES or sockets == 1:
        return total, "", []
    first = cores * threads
    if _count(cpu, "maxSockets"):
        note = (
            f"maxSockets makes all but the first socket hot-pluggable: the digest covers {first} "
            f"of {total} vCPUs, and the others may not run"
        )
        return first, "", [note]
    note = (
        f"if the cluster adds maxSockets (live update), the digest covers {first} of {total} "
        f"vCPUs: then measure with --vcpus {first}, or put all vCPUs in one socket"
    )
    return total, "", [note]


def _most_vcpus(cpu: dict[str, Json], mode: Mode, vcpus: int) -> int:
    """Return what sockets up to maxSockets make of the vCPUs.

    SNP measures every vCPU that is there at the start. Of SEV-ES only the first socket is measured
    while maxSockets is set, however many there are, and of SEV none.
    """
    cores, threads = (max(_count(cpu, key), 1) for key in ("cores", "threads"))
    if mode is not Mode.SNP:
        return vcpus
    return min(max(_count(cpu, "maxSockets") * cores * threads, vcpus), MAX_VCPUS)


def _sockets_from_resources(resources: dict[str, Json]) -> int:
    """Return virt-api's default: a socket for each CPU of the limit, else of the request."""
    for key in ("limits", "requests"):
        found = _mapping(resources, key).get("cpu")
        if found is not None:
            return _quantity(found)
    return 1


_QUANTITY: Final = re.compile(r"\+?(\d{1,12}(?:\.\d{0,9})?|\.\d{1,9})([num]|k|Ki)?")
_SCALES: Final = {
    None: Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "k": Fraction(1000),
    "Ki": Fraction(1024),
}


def _quantity(value: Json) -> int:
    """Return a Kubernetes quantity of CPUs as a whole number, rounded up as Go's ``Value()``."""
    found = None if isinstance(value, bool) else _QUANTITY.fullmatch(str(value))
    if found is None:
        raise FormatError(_NAME, f"cpu {str(value)[:40]!r} is not a number of CPUs")
    return math.ceil(Fraction(found[1]) * _SCALES[found[2]])


def _cpu_model(cpu: dict[str, Json]) -> tuple[str | None, str]:
    model = cpu.get("model")
    if model is None or model == "":
        return None, "without a CPU model KubeVirt takes the cluster's default, mostly host-model"
    if not isinstance(model, str):
        raise FormatError(_NAME, "cpu.model is not text")
    if model in HOST_MODELS:
        return None, f"CPU model {model} depends on the host"
    return model, ""


def _count(cpu: dict[str, Json], key: str) -> int:
    value = cpu.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise FormatError(_NAME, f"cpu.{key} is not a number of CPUs")
    return value


def _mapping(parent: dict[str, Json], key: str) -> dict[str, Json]:
    """Return a mapping of the parent; absent and null are an empty one, as for KubeVirt."""
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FormatError(_NAME, f"{key} is not a mapping")
    return value
