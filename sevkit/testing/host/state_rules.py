"""What a machine cannot be like once it has booted, whoever says that it is.

``boot`` never gives such a state; a state that was made or changed by hand might be one. Each
rule is a condition that must not hold, and what to say if it does.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING, Final

from sevkit.testing.host import linux
from sevkit.testing.host.kvm_setup import es_refused
from sevkit.testing.host.spec import Iommu, PspHealth, RmpCoverage, Vendor
from sevkit.testing.host.state import PlatformState, VmTypes

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.host.spec import HostSpec
    from sevkit.testing.host.state import HostState


def _size(asids: tuple[int, int]) -> int:
    """Return how many ASIDs a range has; 0 is not one."""
    return max(0, asids[1] - max(asids[0], 1) + 1)


def _snp_on(state: HostState) -> bool:
    view = state.firmware
    return view is not None and view.snp is not None and view.snp.initialized


def _legacy_guests(spec: HostSpec) -> int:
    return spec.guests.sev + spec.guests.sev_es


def _firmware_in(state: HostState, *states: PlatformState) -> bool:
    return state.firmware is not None and state.firmware.state in states


def _shared(spec: HostSpec) -> int:
    return spec.guests.sev_es + spec.guests.sev_snp


STATE_RULES: Final[tuple[tuple[Callable[[HostSpec, HostState], bool], str], ...]] = (
    (
        lambda spec, state: _firmware_in(state, PlatformState.WORKING) and not _legacy_guests(spec),
        "firmware is WORKING without a guest",
    ),
    (
        lambda spec, state: (
            _firmware_in(state, PlatformState.INIT, PlatformState.UNINIT)
            and _legacy_guests(spec) > 0
        ),
        "firmware is not WORKING, and guests run",
    ),
    (
        lambda spec, state: spec.guests.sev > _size(state.asids.sev),
        "more SEV guests than ASIDs",
    ),
    (
        lambda spec, state: spec.guests.sev_es > _size(state.asids.sev_es),
        "more SEV-ES guests than ASIDs",
    ),
    (
        lambda spec, state: spec.guests.sev_snp > _size(state.asids.sev_snp),
        "more SEV-SNP guests than ASIDs",
    ),
    (
        lambda spec, _: 0 < max(0, spec.bios.min_sev_asid - 1) < _shared(spec),
        "more SEV-ES and SEV-SNP guests than ASIDs",
    ),
    (
        lambda spec, state: (
            (spec.guests.sev > 0 and not state.kvm.sev)
            or (spec.guests.sev_es > 0 and not state.kvm.sev_es)
            or (spec.guests.sev_snp > 0 and not state.kvm.sev_snp)
        ),
        "guests of a technology that KVM does not offer",
    ),
    (
        lambda spec, state: sum(astuple(spec.guests)) > 0 and not state.dev_sev,
        "guests without /dev/sev",
    ),
    (
        lambda spec, state: (
            spec.guests.sev_snp > 0 and state.firmware is not None and not _snp_on(state)
        ),
        "SEV-SNP guests without SEV-SNP initialised",
    ),
    (
        lambda spec, state: spec.guests.sev_es > 0 and _snp_on(state) and es_refused(spec),
        "SEV-ES guests on firmware that refuses them",
    ),
    (
        lambda spec, state: _snp_on(state) and spec.bios.rmp is not RmpCoverage.FULL,
        "SEV-SNP initialised without an RMP table for all memory",
    ),
    (
        lambda spec, state: (
            _snp_on(state)
            and (
                not (spec.bios.iommu and spec.bios.iommu_snp)
                or spec.kernel.iommu in {Iommu.OFF, Iommu.PASSTHROUGH}
            )
        ),
        "SEV-SNP initialised without an IOMMU that checks",
    ),
    (
        lambda spec, state: (
            _snp_on(state) and spec.firmware is not None and spec.firmware.api < linux.SNP_MIN_API
        ),
        "SEV-SNP initialised by firmware that cannot",
    ),
    (
        lambda spec, state: (
            state.kvm.sev_snp
            and state.firmware is not None
            and not _snp_on(state)
            and spec.kernel.version >= linux.KVM_CHECKS_PSP
        ),
        "KVM offers SEV-SNP, and SEV-SNP is not initialised",
    ),
    (
        lambda _, state: (
            (state.kvm.sev_es and not state.kvm.sev) or (state.kvm.sev_snp and not state.kvm.sev_es)
        ),
        "KVM offers a technology without the one that it is built on",
    ),
    (
        lambda _, state: (
            (VmTypes.SEV in state.vm_types and not state.kvm.sev)
            or (VmTypes.SEV_ES in state.vm_types and not state.kvm.sev_es)
            or (VmTypes.SEV_SNP in state.vm_types and not state.kvm.sev_snp)
        ),
        "KVM advertises a VM type that it does not offer",
    ),
    (
        lambda _, state: any(n < 1 for n in (state.misc_capacity or {}).values()),
        "misc.capacity with a line of nothing",
    ),
    (
        lambda _, state: state.firmware is not None and not state.dev_sev,
        "firmware answers without /dev/sev",
    ),
    (
        lambda spec, state: state.dev_sev and ("sev" in state.cleared or spec.firmware is None),
        "/dev/sev without SEV",
    ),
    (
        lambda spec, state: (
            state.firmware is not None
            and spec.firmware is not None
            and spec.firmware.psp is not PspHealth.PRESENT
        ),
        "a secure processor that is gone answers",
    ),
    (
        lambda spec, state: "kvm_amd" in state.modules and spec.cpu.vendor is not Vendor.AMD,
        "kvm_amd on another maker's CPU",
    ),
)
