"""What a simulated host is after it booted: everything that a probe can see of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Mapping


class VmTypes(IntFlag):
    """KVM_CAP_VM_TYPES: bit N is VM type N (arch/x86/include/uapi/asm/kvm.h)."""

    DEFAULT = 1 << 0
    SW_PROTECTED = 1 << 1
    SEV = 1 << 2
    SEV_ES = 1 << 3
    SEV_SNP = 1 << 4
    TDX = 1 << 5


class PlatformState(StrEnum):
    """State of the SEV firmware (55766, PLATFORM_STATUS)."""

    UNINIT = "uninit"
    INIT = "init"
    WORKING = "working"


@final
@dataclass(frozen=True, slots=True)
class SnpView:
    """What SNP_PLATFORM_STATUS says (56860); TCB versions are raw values."""

    initialized: bool
    rmp_initialized: bool
    alias_check_complete: bool
    guest_count: int
    current_tcb: int
    reported_tcb: int
    vlek_loaded: bool
    ciphertext_hiding: bool


@final
@dataclass(frozen=True, slots=True)
class FirmwareView:
    """What the firmware says of itself; ``snp`` is None where SNP's status cannot be asked."""

    api: tuple[int, int]
    build: int
    state: PlatformState
    es_configured: bool
    guest_count: int
    snp: SnpView | None


@final
@dataclass(frozen=True, slots=True)
class Technologies:
    """One answer for each technology."""

    sev: bool = False
    sev_es: bool = False
    sev_snp: bool = False


@final
@dataclass(frozen=True, slots=True)
class AsidRanges:
    """First and last ASID of each technology, both included; last below first is no ASID."""

    sev: tuple[int, int] = (0, -1)
    sev_es: tuple[int, int] = (0, -1)
    sev_snp: tuple[int, int] = (0, -1)


@final
@dataclass(frozen=True, slots=True)
class HostState:
    """A running host.

    ``cleared`` are the flags that the kernel took from /proc/cpuinfo. ``kvm`` is what KVM
    supports, ``modules`` the loaded modules with their parameters' files, ``misc_capacity`` the
    ASIDs that the misc controller may hand out (None without that controller). ``firmware`` is
    None if nobody answers. ``log`` is the kernel's log, the lines about SEV only.
    """

    cleared: frozenset[str]
    kvm: Technologies
    asids: AsidRanges
    modules: Mapping[str, Mapping[str, str]]
    misc_capacity: Mapping[str, int] | None
    misc_current: Mapping[str, int]
    vm_types: VmTypes
    dev_sev: bool
    dev_kvm: bool
    firmware: FirmwareView | None
    log: tuple[str, ...]
