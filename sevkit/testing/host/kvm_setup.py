"""What KVM decides about SEV when its module is loaded, and shows from then on.

``sev_hardware_setup()`` as two tables of gates: SEV needs all of the first, SEV-ES those and all
of the second, SEV-SNP those and the host side of SNP. The misc controller's capacity is set as
the gates pass, before the firmware is asked, and stays when the firmware then fails: on such a
host ``misc.capacity`` promises ASIDs that ``kvm_amd.sev`` denies. Up to 6.15 the parameters too
say what the gates said, whatever the firmware did.
Source: Linux, arch/x86/kvm/svm/sev.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sevkit.abi.sev_es_block import SEV_ES_BLOCKED_FROM
from sevkit.testing.host import linux
from sevkit.testing.host.encryption import Encryption, Features, parse_encryption
from sevkit.testing.host.firmware_start import sev_asked
from sevkit.testing.host.state import AsidRanges, Technologies, VmTypes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sevkit.testing.host.firmware_start import Started
    from sevkit.testing.host.spec import HostSpec


@final
@dataclass(frozen=True, slots=True)
class KvmSetup:
    """KVM's part of a running host."""

    technologies: Technologies
    asids: AsidRanges
    misc_capacity: Mapping[str, int]
    parameters: Mapping[str, str]
    vm_types: VmTypes
    log: tuple[str, ...]


class _Setup(NamedTuple):
    spec: HostSpec
    silicon: Encryption
    flags: frozenset[str]
    started: Started

    @property
    def version(self) -> tuple[int, int]:
        return self.spec.kernel.version

    def asked(self, parameter: str) -> bool:
        return bool(self.spec.kernel.asked(parameter))


_SEV_GATES: Final[tuple[Callable[[_Setup], bool], ...]] = (
    lambda s: sev_asked(s.spec),
    lambda s: s.asked("npt"),
    lambda s: s.asked("nrips"),
    lambda s: "sev" in s.flags,
    lambda s: s.silicon.max_asid > 0,
)
_ES_GATES: Final[tuple[Callable[[_Setup], bool], ...]] = (
    lambda s: bool(s.spec.kernel.asked("sev_es", int(s.version >= linux.SEV_BY_DEFAULT))),
    lambda s: s.spec.kernel.mmio_caching or s.version < linux.ES_NEEDS_MMIO_CACHING,
    lambda s: "sev_es" in s.flags,
    lambda s: s.asked("lbrv") or s.version < linux.ES_NEEDS_LBRV,
    lambda s: s.silicon.min_sev_asid > 1,
)


def set_up_kvm(
    spec: HostSpec, cleared: frozenset[str], started: Started, *, snp_host: bool
) -> KvmSetup:
    """Return what KVM decides. ``cleared`` are flags that the kernel took away."""
    silicon = parse_encryption(spec)
    names = {f.name.lower() for f in silicon.features if f.name is not None}
    setup = _Setup(spec, silicon, frozenset(names) - cleared, started)
    sev = all(gate(setup) for gate in _SEV_GATES)
    es = sev and all(gate(setup) for gate in _ES_GATES)
    snp = es and setup.asked("sev_snp") and snp_host and setup.version >= linux.SNP_GUESTS
    capacity = {
        "sev": max(0, silicon.max_asid - silicon.min_sev_asid + 1) if sev else 0,
        "sev_es": silicon.min_sev_asid - 1 if es else 0,
    }
    possible = Technologies(sev, es, snp)
    if setup.version >= linux.KVM_CHECKS_PSP:
        # A failed SEV takes the others along; a failed SNP was part of it.
        sev, es = sev and not started.failed, es and not started.failed
        snp = snp and not started.failed and started.snp
    technologies = Technologies(sev, es, snp)
    hidden = _hidden_asids(setup, technologies)
    asids = _ranges(setup, possible, hidden)
    return KvmSetup(
        technologies,
        asids,
        capacity,
        _parameters(setup, technologies, hidden),
        _vm_types(setup, technologies, asids),
        tuple(_log(setup, possible, technologies, asids, hidden)),
    )


def es_refused(spec: HostSpec) -> bool:
    """Whether this firmware refuses SEV-ES once SNP is initialised (AMD-SB-3023)."""
    firmware, product = spec.firmware, spec.cpu.product
    if firmware is None or firmware.current is None or product is None:
        return False
    return firmware.current.snp >= SEV_ES_BLOCKED_FROM[product.line]


def _hidden_asids(setup: _Setup, found: Technologies) -> int:
    """Return how many ASIDs ciphertext hiding sets aside for SNP; 0 is not in use."""
    asked = setup.spec.kernel.asked("ciphertext_hiding_asids", 0)
    firmware = setup.spec.firmware
    if not found.sev_snp or firmware is None or not firmware.ciphertext_hiding:
        return 0
    return min(asked, setup.silicon.min_sev_asid - 1)


def _ranges(setup: _Setup, possible: Technologies, hidden: int) -> AsidRanges:
    first, last = setup.silicon.min_sev_asid, setup.silicon.max_asid
    joint = (1, first - 1) if first > 1 else (0, 0)
    if not possible.sev:
        return AsidRanges(sev=(first, last), sev_es=joint, sev_snp=joint)
    return AsidRanges(
        sev=(first, last),
        sev_es=(hidden + 1, first - 1) if hidden else joint,
        sev_snp=(1, hidden) if hidden else joint,
    )


def _parameters(setup: _Setup, found: Technologies, hidden: int) -> Mapping[str, str]:
    boolean = setup.version >= linux.BOOLEAN_PARAMETERS
    words = ("N", "Y") if boolean else ("0", "1")
    first, last = linux.DEBUG_SWAP_PARAMETER
    swap = found.sev_es and Features.DEBUG_SWAP in setup.silicon.features
    values = {
        "sev": words[found.sev],
        "sev_es": words[found.sev_es],
        "npt": "NY"[setup.asked("npt")],
        "nrips": str(setup.spec.kernel.asked("nrips")),
        "lbrv": str(setup.spec.kernel.asked("lbrv")),
        "nested": "1",
        "vgif": "1",
    }
    if setup.version >= linux.SNP_GUESTS:
        values["sev_snp"] = words[found.sev_snp]
    if first <= setup.version < last:
        values["debug_swap"] = words[swap]
    if setup.version >= linux.CIPHERTEXT_HIDING:
        values["ciphertext_hiding_asids"] = str(hidden)
    return values


def _vm_types(setup: _Setup, found: Technologies, asids: AsidRanges) -> VmTypes:
    if setup.version < linux.VM_TYPES:
        return VmTypes(0)
    if setup.version < linux.VM_TYPES_SEV:
        return VmTypes.DEFAULT
    usable = _usable(setup, asids) if setup.version >= linux.VM_TYPES_REVOKED else _EVERYTHING
    types = VmTypes.DEFAULT
    for kind, name in _KINDS:
        if getattr(found, name) and getattr(usable, name):
            types |= kind
    return types


_EVERYTHING: Final = Technologies(sev=True, sev_es=True, sev_snp=True)
_KINDS: Final = (
    (VmTypes.SEV, "sev"),
    (VmTypes.SEV_ES, "sev_es"),
    (VmTypes.SEV_SNP, "sev_snp"),
)


def _usable(setup: _Setup, asids: AsidRanges) -> Technologies:
    """Return what has ASIDs left and is not refused by the firmware."""
    refused = setup.started.snp and es_refused(setup.spec)
    return Technologies(
        sev=asids.sev[0] <= asids.sev[1],
        sev_es=asids.sev_es[0] <= asids.sev_es[1] and not refused,
        sev_snp=asids.sev_snp[0] <= asids.sev_snp[1],
    )


def _log(
    setup: _Setup, possible: Technologies, found: Technologies, asids: AsidRanges, hidden: int
) -> Iterator[str]:
    prefix = "kvm_amd: " if setup.version >= linux.KVM_PREFIX else ""
    if setup.version < linux.KVM_PRINTS_RANGES:
        if possible.sev:
            yield f"{prefix}SEV supported: {asids.sev[1] - asids.sev[0] + 1} ASIDs"
        if possible.sev_es:
            yield f"{prefix}SEV-ES supported: {asids.sev_es[1] - asids.sev_es[0] + 1} ASIDs"
        return
    if hidden:
        yield f"{prefix}SEV-SNP ciphertext hiding enabled"
    usable, asked = _usable(setup, asids), setup.version >= linux.VM_TYPES_REVOKED
    no_sev = not usable.sev and setup.version >= linux.KVM_SAYS_UNUSABLE
    no_es = not usable.sev_es and (asked or asids.sev_es[0] > asids.sev_es[1])
    rows = (
        ("sev", "SEV", found.sev, not no_sev, asids.sev),
        ("sev_es", "SEV-ES", found.sev_es, not no_es, asids.sev_es),
        ("sev_snp", "SEV-SNP", found.sev_snp, usable.sev_snp or not asked, asids.sev_snp),
    )
    for flag, name, on, useful, (first, last) in rows:
        if flag in setup.flags and (flag != "sev_snp" or setup.version >= linux.SNP_GUESTS):
            word = ("enabled" if useful else "unusable") if on else "disabled"
            yield f"{prefix}{name} {word} (ASIDs {first} - {last})"
