"""Ways in which a host is broken, or less than it could be, each as a change to its spec.

A defect is an input: a BIOS switch, a kernel parameter, a firmware that answers otherwise. What
the host then looks like follows from ``boot``. Several can be put on one host, in the order given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.sev_es_block import SEV_ES_BLOCKED_FROM
from sevkit.errors import UsageError
from sevkit.testing.consistency import check_host
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.spec import Bios, Guests, Iommu, PspHealth, RmpCoverage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sevkit.testing.host.spec import HostSpec

_SNP: Final = frozenset({"milan", "genoa", "bergamo", "siena", "turin", "turin-dense"})
_ES: Final = _SNP | {"rome-es"}
_SEV: Final = _ES | {"naples", "rome"}
_TURIN: Final = frozenset({"turin", "turin-dense"})
_X86: Final = _SEV | {"virtual-machine", "intel"}
#: Their kernels refuse version 2 page tables; older ones override the request.
_SINCE_6_13: Final = _SNP - {"milan", "siena"}


@final
@dataclass(frozen=True, slots=True)
class Defect:
    """One defect: ``applies_to`` names the presets on which it can be."""

    name: str
    summary: str
    applies_to: frozenset[str]
    change: Callable[[HostSpec], HostSpec]


def with_defects(preset: str, names: Iterable[str]) -> HostSpec:
    """Return a preset with defects, put on in the order given. Raises as ``apply_defects``."""
    if preset not in PRESETS:
        raise UsageError(f"there is no preset {preset!r}", hint=f"one of {', '.join(PRESETS)}")
    return apply_defects(PRESETS[preset], names)


def apply_defects(spec: HostSpec, names: Iterable[str]) -> HostSpec:
    """Return a host with defects, put on in the order given; ``spec`` is of a preset's kind.

    Raises ``UsageError`` for names that are not known, for a defect that cannot be on this host,
    and for defects that together make an impossible machine.
    """
    for name in names:
        defect = DEFECTS.get(name)
        if defect is None:
            raise UsageError(f"there is no defect {name!r}", hint=f"one of {', '.join(DEFECTS)}")
        if spec.name not in defect.applies_to:
            where = ", ".join(one for one in PRESETS if one in defect.applies_to)
            raise UsageError(f"{name} cannot be on {spec.name}", hint=f"it can on {where}")
        spec = defect.change(spec)
    check_host(spec)
    return spec


def _bios(**changes: Any) -> Callable[[HostSpec], HostSpec]:  # noqa: ANN401  # fields of any type
    return lambda spec: replace(spec, bios=replace(spec.bios, **changes))


def _kernel(**changes: Any) -> Callable[[HostSpec], HostSpec]:  # noqa: ANN401  # fields of any type
    return lambda spec: replace(spec, kernel=replace(spec.kernel, **changes))


def _parameter(**asked: int) -> Callable[[HostSpec], HostSpec]:
    def change(spec: HostSpec) -> HostSpec:
        parameters = MappingProxyType({**spec.kernel.parameters, **asked})
        return replace(spec, kernel=replace(spec.kernel, parameters=parameters))

    return change


def _firmware(**changes: Any) -> Callable[[HostSpec], HostSpec]:  # noqa: ANN401  # fields of any type
    def change(spec: HostSpec) -> HostSpec:
        if spec.firmware is None:
            return spec
        return replace(spec, firmware=replace(spec.firmware, **changes))

    return change


def _after(*changes: Callable[[HostSpec], HostSpec]) -> Callable[[HostSpec], HostSpec]:
    def change(spec: HostSpec) -> HostSpec:
        for one in changes:
            spec = one(spec)
        return spec

    return change


def _factory_bios(spec: HostSpec) -> HostSpec:
    factory = Bios(smee=False, rmp=RmpCoverage.NONE, iommu_snp=False, max_asid=spec.bios.max_asid)
    return replace(spec, bios=replace(factory, ram_gib=spec.bios.ram_gib))


def _every_asid_for_es(spec: HostSpec) -> HostSpec:
    return _bios(min_sev_asid=spec.bios.max_asid + 1)(spec)


def _tcb_snp(above_limit: int) -> Callable[[HostSpec], HostSpec]:
    """Set the firmware's security version relative to the one that refuses SEV-ES."""

    def change(spec: HostSpec) -> HostSpec:
        firmware, product = spec.firmware, spec.cpu.product
        if firmware is None or firmware.current is None or product is None:
            return spec
        limit = SEV_ES_BLOCKED_FROM[product.line]
        tcb = replace(firmware.current, snp=limit + above_limit)
        return _firmware(current=tcb, committed=tcb, reported=tcb)(spec)

    return change


def _update_pending(spec: HostSpec) -> HostSpec:
    firmware = spec.firmware
    if firmware is None or firmware.current is None:
        return spec
    older = replace(firmware.current, snp=firmware.current.snp - 1)
    before = (*firmware.api, firmware.build - 8)
    return _firmware(committed=older, reported=older, updated_from=before)(spec)


def _old_snp_firmware(spec: HostSpec) -> HostSpec:
    firmware = spec.firmware
    if firmware is None or firmware.current is None:
        return spec
    old = replace(firmware.current, snp=5)
    changes = _firmware(api=(1, 49), build=3, current=old, committed=old, reported=old)
    return _after(changes, _firmware(alias_check=False))(spec)


def _hide_ciphertext(share: int) -> Callable[[HostSpec], HostSpec]:
    """Ask for one ``share``th of the ASIDs below SEV's."""
    return lambda s: _parameter(ciphertext_hiding_asids=(s.bios.min_sev_asid - 1) // share)(s)


def _full(spec: HostSpec) -> HostSpec:
    """Run a guest on every ASID, of the strongest technology where SEV-ES and SNP share."""
    sev, shared = spec.bios.max_asid - spec.bios.min_sev_asid + 1, spec.bios.min_sev_asid - 1
    strongest = "sev_snp" if spec.name in _SNP else "sev_es"
    return replace(spec, guests=replace(Guests(sev=sev), **{strongest: shared}))


def _some_guests(spec: HostSpec) -> HostSpec:
    return replace(spec, guests=Guests(sev=2, sev_snp=3 if spec.name in _SNP else 0))


_DEFECTS: Final = (
    Defect("bios-off", "BIOS as delivered: nothing of SEV set up", _SEV, _factory_bios),
    Defect("smee-off", "BIOS: SMEE off, so no memory encryption", _SEV, _bios(smee=False)),
    Defect("smmlock-off", "BIOS: SMM not locked, so no SEV", _SEV, _bios(smm_lock=False)),
    Defect("svm-off", "BIOS: SVM Mode off, so no KVM", _SEV, _bios(svm=False)),
    Defect("zero-es-asids", "BIOS: every ASID is for SEV", _ES, _bios(min_sev_asid=1)),
    Defect(
        "all-asids-es",
        "BIOS: every ASID is for SEV-ES and SEV-SNP",
        _ES | {"rome"},
        _every_asid_for_es,
    ),
    Defect("rmp-not-reserved", "BIOS: no RMP table", _SNP, _bios(rmp=RmpCoverage.NONE)),
    Defect("rmp-too-small", "BIOS: RMP table covers half", _SNP, _bios(rmp=RmpCoverage.PARTIAL)),
    Defect("iommu-off", "BIOS: IOMMU off", _SEV, _bios(iommu=False)),
    Defect("iommu-snp-off", "BIOS: SEV-SNP Support left at Auto", _SNP, _bios(iommu_snp=False)),
    Defect("iommu-passthrough", "iommu=pt", _SEV, _kernel(iommu=Iommu.PASSTHROUGH)),
    Defect(
        "iommu-v2-pagetables",
        "amd_iommu=pgtbl_v2",
        _SINCE_6_13,
        _kernel(iommu=Iommu.V2_PAGE_TABLES),
    ),
    Defect("kvm-amd-not-loaded", "kvm_amd is not loaded", _SEV, _kernel(kvm_amd=False)),
    Defect("kvm-sev-off", "kvm_amd.sev=0", _SEV, _parameter(sev=0)),
    Defect("kvm-es-off", "kvm_amd.sev_es=0", _ES, _parameter(sev_es=0)),
    Defect("kvm-snp-off", "kvm_amd.sev_snp=0", _SNP, _parameter(sev_snp=0)),
    Defect("npt-off", "kvm_amd.npt=0", _SEV, _parameter(npt=0)),
    Defect("lbrv-off", "kvm_amd.lbrv=0", _SNP, _parameter(lbrv=0)),
    Defect("mmio-caching-off", "kvm.mmio_caching=0", _ES, _kernel(mmio_caching=False)),
    Defect(
        "psp-init-deferred",
        "ccp.psp_init_on_probe=0: firmware waits for the first guest",
        _SEV,
        _kernel(psp_init_on_probe=False),
    ),
    Defect("old-kernel", "Linux 6.1: no SEV-SNP host", _SNP, _kernel(release="6.1.0-40-amd64")),
    Defect(
        "int-parameters-kernel",
        "Linux 5.11: parameters are 1 and 0, SEV must be asked for",
        _SEV,
        _after(_kernel(release="5.11.0-49-generic"), _parameter(sev=1, sev_es=1)),
    ),
    Defect("no-psp", "no secure processor device", _SEV, _firmware(psp=PspHealth.ABSENT)),
    Defect("psp-silent", "firmware does not answer at all", _SEV, _firmware(psp=PspHealth.SILENT)),
    Defect("psp-dead", "firmware stopped answering", _SEV, _firmware(psp=PspHealth.DIED)),
    Defect(
        "sev-init-failed",
        "INIT fails: HWERROR_PLATFORM",
        _SEV,
        _firmware(init_error=FirmwareStatus.HWERROR_PLATFORM),
    ),
    Defect(
        "snp-init-failed",
        "SNP_INIT fails: RMP_INIT_FAILED",
        _SNP,
        _firmware(snp_init_error=FirmwareStatus.RMP_INIT_FAILED),
    ),
    Defect(
        "snp-firmware-too-old",
        "firmware 1.49, SEV-SNP needs 1.51",
        frozenset({"milan", "genoa"}),
        _old_snp_firmware,
    ),
    Defect(
        "es-open-to-cve",
        "firmware takes SEV-ES beside SEV-SNP (CVE-2025-48514)",
        _SNP,
        _tcb_snp(-1),
    ),
    Defect(
        "es-blocked-by-firmware",
        "firmware refuses SEV-ES beside SEV-SNP",
        _SNP,
        _after(_tcb_snp(0), _firmware(api=(1, 58), build=1)),
    ),
    Defect(
        "es-revoked-by-kernel",
        "the same, on a kernel that says so",
        _SNP,
        _after(_tcb_snp(0), _firmware(api=(1, 58), build=1), _kernel(release="7.2.1")),
    ),
    Defect(
        "firmware-update-pending",
        "newer firmware runs, but is neither committed nor reported",
        _SNP,
        _update_pending,
    ),
    Defect(
        "no-alias-check", "firmware did not check for aliases", _SNP, _firmware(alias_check=False)
    ),
    Defect(
        "ciphertext-hiding",
        "ciphertext hiding sets a third of the ASIDs aside for SEV-SNP",
        _TURIN,
        _hide_ciphertext(3),
    ),
    Defect(
        "ciphertext-hiding-all",
        "ciphertext hiding leaves SEV-ES no ASID",
        _TURIN,
        _hide_ciphertext(1),
    ),
    Defect(
        "no-misc-controller",
        "kernel without the misc cgroup controller",
        _X86,
        _kernel(misc_cgroup=False),
    ),
    Defect("cgroup-v1", "cgroup version 1 hierarchy", _X86, _kernel(cgroup=1)),
    Defect(
        "sev-unreadable",
        "nobody may ask the firmware",
        _SEV,
        lambda spec: replace(spec, firmware_reader=False),
    ),
    Defect("guests-running", "some guests run", _SEV, _some_guests),
    Defect("asids-exhausted", "a guest runs on every ASID", _SEV, _full),
)

DEFECTS: Final[Mapping[str, Defect]] = MappingProxyType({one.name: one for one in _DEFECTS})
