"""Impossible machines are refused, possible ones boot without contradicting themselves."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevkit.abi.product import Product
from sevkit.abi.tcb import TcbVersion
from sevkit.errors import UsageError
from sevkit.testing.consistency import (
    check_host,
    check_state,
    contradictions,
    state_contradictions,
)
from sevkit.testing.host.booting import boot
from sevkit.testing.host.defects import DEFECTS, with_defects
from sevkit.testing.host.encryption import parse_encryption
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.silicon import HYPERVISOR
from sevkit.testing.host.spec import (
    MEMORY_ENCRYPTION,
    Guests,
    HostSpec,
    Iommu,
    Kernel,
    PspHealth,
    RmpCoverage,
    Vendor,
)
from sevkit.testing.host.state import HostState, PlatformState, Technologies, VmTypes

if TYPE_CHECKING:
    from collections.abc import Callable

GENOA = PRESETS["genoa"]
ROME = PRESETS["rome"]


def bios(preset: str, **changes: Any) -> HostSpec:  # noqa: ANN401  # fields of any type
    return replace(PRESETS[preset], bios=replace(PRESETS[preset].bios, **changes))


def cpu(preset: str, **changes: Any) -> HostSpec:  # noqa: ANN401  # fields of any type
    return replace(PRESETS[preset], cpu=replace(PRESETS[preset].cpu, **changes))


def kernel(preset: str, release: str, **parameters: int) -> HostSpec:
    return replace(PRESETS[preset], kernel=Kernel(release, parameters=parameters))


def firmware(preset: str, **changes: Any) -> HostSpec:  # noqa: ANN401  # fields of any type
    spec = PRESETS[preset]
    assert spec.firmware is not None
    return replace(spec, firmware=replace(spec.firmware, **changes))


def leaf(preset: str, number: int, **changes: int) -> HostSpec:
    leaves = PRESETS[preset].cpu.leaves
    changed = {**leaves, (number, 0): leaves[number, 0]._replace(**changes)}
    return cpu(preset, leaves=MappingProxyType(changed))


def features(preset: str, *, without: int = 0, extra: int = 0) -> HostSpec:
    eax = PRESETS[preset].cpuid(MEMORY_ENCRYPTION).eax
    return leaf(preset, MEMORY_ENCRYPTION, eax=eax & ~without | extra)


TCB = TcbVersion(10, 0, 23, 0x54)

IMPOSSIBLE: dict[str, tuple[HostSpec, str]] = {
    "snp without es": (features("genoa", without=1 << 3), "SEV-SNP without SEV-ES in silicon"),
    "es without sev": (features("rome", without=1 << 1), "SEV-ES without SEV in silicon"),
    "snp on rome": (features("rome", extra=1 << 4), "SEV-SNP on Rome"),
    "nested sev": (
        leaf("genoa", 1, ecx=GENOA.cpuid(1).ecx | HYPERVISOR),
        "SEV in a guest: there is no nested SEV",
    ),
    "sev on intel": (
        cpu(
            "intel",
            leaves={
                **PRESETS["intel"].cpu.leaves,
                (MEMORY_ENCRYPTION, 0): GENOA.cpuid(MEMORY_ENCRYPTION),
            },
        ),
        "memory encryption of AMD on GenuineIntel",
    ),
    "c-bit in the address": (
        leaf("genoa", MEMORY_ENCRYPTION, ebx=0x4180 | 40),
        "C-bit 40 among 46 physical address bits",
    ),
    "c-bit beyond": (
        leaf("genoa", MEMORY_ENCRYPTION, ebx=0x4180 | 60),
        "C-bit 60 among 46 physical address bits",
    ),
    "another family": (
        cpu("genoa", product=Product.MILAN),
        "family 0x19 model 0x11 is not Milan",
    ),
    "a vendor that cpuid does not name": (
        cpu("genoa", vendor=Vendor.INTEL),
        "CPUID does not name GenuineIntel",
    ),
    "epyc by intel": (cpu("intel", product=Product.MILAN), "Milan is not made by GenuineIntel"),
    "arm with cpuid": (cpu("arm64", leaves=GENOA.cpu.leaves), "an Arm CPU with CPUID"),
    "intel with ccp": (
        cpu("intel", psp=("0000:01:00.5", 0x14CA)),
        "a secure processor of AMD beside GenuineIntel",
    ),
    "no processor": (replace(GENOA, processors=0), "0 processors of a CPU with 24 cores"),
    "too many processors": (replace(GENOA, processors=49), "49 processors of a CPU"),
    "min asid too high": (
        bios("genoa", min_sev_asid=1008),
        "lowest ASID of SEV 1008 is not 1 to 1007",
    ),
    "min asid of nothing": (bios("rome", min_sev_asid=0), "lowest ASID of SEV 0 is not"),
    "sev without asids": (bios("rome", max_asid=0), "SEV without an ASID"),
    "asids without sev": (bios("intel", max_asid=15), "ASIDs without SEV in silicon"),
    "rmp on rome": (bios("rome", rmp=RmpCoverage.FULL), "an RMP table without SEV-SNP in silicon"),
    "iommu snp on rome": (
        bios("rome", iommu_snp=True),
        "an IOMMU with SEV-SNP support beside a CPU without it",
    ),
    "hiding more than there is": (
        kernel("turin", "7.1.8", ciphertext_hiding_asids=100),
        "100 ASIDs for ciphertext hiding, and 99 below SEV's",
    ),
    "hiding on an old kernel": (
        kernel("turin", "6.17.0", ciphertext_hiding_asids=5),
        "kvm_amd.ciphertext_hiding_asids on Linux 6.17.0: it came with 6.18",
    ),
    "snp parameter on an old kernel": (
        kernel("genoa", "6.10.0", sev_snp=1),
        "kvm_amd.sev_snp on Linux 6.10.0: it came with 6.11",
    ),
    "unknown parameter": (kernel("genoa", "6.18.0", sev_tio=1), "kvm_amd has no parameter sev_tio"),
    "mmio caching on an old kernel": (
        replace(ROME, kernel=Kernel("5.15.0", mmio_caching=False)),
        "kvm.mmio_caching on Linux 5.15.0",
    ),
    "cgroup 3": (replace(ROME, kernel=Kernel("6.1.0", cgroup=3)), "cgroup version 3"),
    "es asked of silicon without it": (
        replace(features("rome", without=1 << 3), kernel=Kernel("6.1.0", parameters={"sev_es": 1})),
        "kvm_amd.sev_es=1 without SEV-ES in silicon",
    ),
    "reported above current": (
        firmware("genoa", reported=replace(TCB, snp=24, bootloader=11)),
        "reported TCB version above the current one in bootloader, snp",
    ),
    "committed above current": (
        firmware("genoa", committed=replace(TCB, snp=24)),
        "committed TCB version above the current one in snp",
    ),
    "reported above committed": (
        firmware("genoa", committed=replace(TCB, snp=22)),
        "reported TCB version above the committed one in snp",
    ),
    "fmc before turin": (
        firmware("genoa", reported=replace(TCB, fmc=1)),
        "reported TCB version has the components of another product than Genoa",
    ),
    "turin without fmc": (
        firmware("turin", reported=TcbVersion(1, 1, 3, 0x4B)),
        "reported TCB version has the components of another product than Turin",
    ),
    "a component of two bytes": (
        firmware("genoa", current=replace(TCB, tee=256)),
        "current TCB version has a component above 255",
    ),
    "no reported tcb": (firmware("genoa", reported=None), "no reported TCB version"),
    "milan without a tcb": (firmware("milan", current=None), "Milan without a TCB version"),
    "rome with a tcb": (firmware("rome", current=TCB), "Rome with a TCB version"),
    "microcode of another tcb": (
        cpu("genoa", microcode=0xA101155),
        "microcode 0xa101155 and 0x54 in the current TCB version",
    ),
    "update to an older version": (
        firmware("genoa", updated_from=(1, 55, 41)),
        "firmware was updated to an older version",
    ),
    "alias check before its time": (
        firmware("genoa", build=37),
        "firmware 1.55.37 does not check for aliases",
    ),
    "hiding on genoa": (firmware("genoa", ciphertext_hiding=True), "ciphertext hiding on Genoa"),
    "vlek on rome": (firmware("rome", vlek_loaded=True), "a VLEK on Rome"),
    "processor without firmware": (
        replace(GENOA, firmware=None),
        "a secure processor and its firmware belong together",
    ),
    "negative guests": (replace(GENOA, guests=Guests(sev=-1)), "fewer guests than none"),
    "more sev guests than asids": (
        replace(ROME, guests=Guests(sev=510)),
        "more SEV guests than ASIDs",
    ),
    "es guests on rome": (replace(ROME, guests=Guests(sev_es=1)), "more SEV-ES guests than ASIDs"),
    "more encrypted-state guests than asids": (
        replace(GENOA, guests=Guests(sev_es=252, sev_snp=1)),
        "more SEV-ES and SEV-SNP guests than ASIDs",
    ),
    "snp guests beyond the hidden ones": (
        replace(with_defects("turin", ["ciphertext-hiding"]), guests=Guests(sev_snp=34)),
        "more SEV-SNP guests than ASIDs",
    ),
    "guests without kvm": (
        replace(with_defects("genoa", ["kvm-amd-not-loaded"]), guests=Guests(sev=1)),
        "guests of a technology that KVM does not offer",
    ),
    "snp guests where the iommu is in passthrough": (
        replace(with_defects("genoa", ["iommu-passthrough"]), guests=Guests(sev_snp=1)),
        "guests of a technology that KVM does not offer",
    ),
    "es guests that the firmware refuses": (
        replace(with_defects("genoa", ["es-blocked-by-firmware"]), guests=Guests(sev_es=1)),
        "SEV-ES guests on firmware that refuses them",
    ),
    "guests of firmware that failed, on a kernel that does not look": (
        replace(with_defects("milan", ["sev-init-failed"]), guests=Guests(sev=1)),
        "firmware is not WORKING, and guests run",
    ),
    "snp guests of firmware that failed, on a kernel that does not look": (
        replace(with_defects("milan", ["snp-init-failed"]), guests=Guests(sev_snp=1)),
        "SEV-SNP guests without SEV-SNP initialised",
    ),
    "guests without a device": (
        replace(with_defects("milan", ["no-psp"]), guests=Guests(sev=1)),
        "guests without /dev/sev",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_machine_is_refused_with_its_reason(name: str) -> None:
    spec, reason = IMPOSSIBLE[name]
    with pytest.raises(UsageError, match=r"^impossible machine: ") as refused:
        check_host(spec)
    assert reason in refused.value.message


def test_every_reason_is_told() -> None:
    spec = replace(features("genoa", without=1 << 3), processors=0)
    found = contradictions(spec)
    assert found == ("0 processors of a CPU with 24 cores", "SEV-SNP without SEV-ES in silicon")
    with pytest.raises(UsageError, match=f"{found[0]}; {found[1]}$"):
        check_host(spec)


def _firmware_state(spec: HostSpec, state: PlatformState) -> HostState:
    booted = boot(spec)
    assert booted.firmware is not None
    return replace(booted, firmware=replace(booted.firmware, state=state))


def _healthy(**changes: Any) -> HostState:  # noqa: ANN401  # fields of any type
    return replace(boot(GENOA), **changes)


def _kernel(spec: HostSpec, **changes: Any) -> HostSpec:  # noqa: ANN401  # fields of any type
    return replace(spec, kernel=replace(spec.kernel, **changes))


GUESTS = with_defects("genoa", ["guests-running"])
STATES: dict[str, tuple[HostSpec, Callable[[], HostState], str]] = {
    "working alone": (
        GENOA,
        lambda: _firmware_state(GENOA, PlatformState.WORKING),
        "firmware is WORKING without a guest",
    ),
    "init with guests": (
        GUESTS,
        lambda: _firmware_state(GUESTS, PlatformState.INIT),
        "firmware is not WORKING, and guests run",
    ),
    "snp with passthrough": (
        _kernel(GENOA, iommu=Iommu.PASSTHROUGH),
        _healthy,
        "SEV-SNP initialised without an IOMMU that checks",
    ),
    "snp without an iommu": (
        bios("genoa", iommu=False),
        _healthy,
        "SEV-SNP initialised without an IOMMU that checks",
    ),
    "snp without an rmp table": (
        bios("genoa", rmp=RmpCoverage.NONE),
        _healthy,
        "SEV-SNP initialised without an RMP table for all memory",
    ),
    "snp on old firmware": (
        firmware("genoa", api=(1, 50), alias_check=False),
        _healthy,
        "SEV-SNP initialised by firmware that cannot",
    ),
    "snp offered and not initialised": (
        GENOA,
        lambda: replace(boot(with_defects("genoa", ["iommu-off"])), kvm=boot(GENOA).kvm),
        "KVM offers SEV-SNP, and SEV-SNP is not initialised",
    ),
    "snp without es": (
        GENOA,
        lambda: _healthy(kvm=Technologies(sev=True, sev_snp=True)),
        "KVM offers a technology without the one that it is built on",
    ),
    "a type that is not offered": (
        GENOA,
        lambda: _healthy(kvm=Technologies(sev=True), vm_types=VmTypes.SEV | VmTypes.SEV_ES),
        "KVM advertises a VM type that it does not offer",
    ),
    "a line of nothing": (
        GENOA,
        lambda: _healthy(misc_capacity={"sev": 0}),
        "misc.capacity with a line of nothing",
    ),
    "an answer without a device": (
        GENOA,
        lambda: _healthy(dev_sev=False),
        "firmware answers without /dev/sev",
    ),
    "a device without sev": (
        GENOA,
        lambda: _healthy(cleared=frozenset({"sev"})),
        "/dev/sev without SEV",
    ),
    "an answer of the dead": (
        firmware("genoa", psp=PspHealth.DIED),
        _healthy,
        "a secure processor that is gone answers",
    ),
    "kvm_amd on intel": (
        PRESETS["intel"],
        lambda: replace(boot(PRESETS["intel"]), modules={"kvm_amd": {}}),
        "kvm_amd on another maker's CPU",
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_an_impossible_state_is_refused_with_its_reason(name: str) -> None:
    spec, make, reason = STATES[name]
    state = make()
    assert reason in state_contradictions(spec, state)
    with pytest.raises(UsageError, match=r"^impossible state: "):
        check_state(spec, state)


@st.composite
def machines(draw: st.DrawFn) -> HostSpec:
    """Any preset with any defects that can be on it together."""
    preset = draw(st.sampled_from(sorted(PRESETS)))
    fitting = sorted(name for name, one in DEFECTS.items() if preset in one.applies_to)
    chosen = draw(st.lists(st.sampled_from(fitting), max_size=4, unique=True)) if fitting else []
    spec = PRESETS[preset]
    for name in chosen:
        spec = DEFECTS[name].change(spec)
    release = draw(st.sampled_from([None, "5.15.0", "6.8.0", "6.12.1", "6.16.0", "7.2.0"]))
    return spec if release is None else replace(spec, kernel=replace(spec.kernel, release=release))


@given(machines())
def test_whatever_passes_the_check_boots_without_contradiction(spec: HostSpec) -> None:
    try:
        check_host(spec)
    except UsageError:
        return
    state = boot(spec)
    silicon = parse_encryption(spec)
    shared = max(0, silicon.min_sev_asid - 1)
    for name, value in (state.misc_capacity or {}).items():
        assert value > 0, name
    assert sum((state.misc_capacity or {}).values()) <= silicon.max_asid
    if spec.kernel.misc_cgroup and spec.kernel.version >= (5, 13):
        assert state.misc_capacity is not None
        if state.kvm.sev_es:
            assert state.misc_capacity.get("sev_es") == shared
    if state.kvm.sev:
        parameter = state.modules["kvm_amd"]["sev"]
        assert parameter in {"Y", "1"}
    if state.kvm.sev_snp and state.firmware is not None and spec.kernel.version >= (6, 16):
        assert state.firmware.snp is not None
        assert state.firmware.snp.initialized
    if spec.kernel.version >= (6, 10) and spec.kernel.version < (7, 2):
        types = {
            VmTypes.SEV: state.kvm.sev,
            VmTypes.SEV_ES: state.kvm.sev_es,
            VmTypes.SEV_SNP: state.kvm.sev_snp,
        }
        assert all((kind in state.vm_types) == on for kind, on in types.items())
    assert state_contradictions(spec, state) == ()


@given(
    spec=machines(),
    change=st.sampled_from(
        [
            lambda s: replace(s, processors=0),
            lambda s: replace(s, guests=Guests(sev=5000)),
            lambda s: replace(s, bios=replace(s.bios, min_sev_asid=s.bios.max_asid + 2)),
            lambda s: replace(s, kernel=replace(s.kernel, parameters={"sevv": 1})),
        ]
    ),
)
def test_a_machine_made_impossible_is_refused(
    spec: HostSpec, change: Callable[[HostSpec], HostSpec]
) -> None:
    with pytest.raises(UsageError, match="impossible machine"):
        check_host(change(spec))
