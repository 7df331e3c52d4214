"""What cannot be launched confidentially, and what weakens it: two tables. Pure.

A row of ``REFUSALS`` yields what is wrong with a case, a row of ``WARNINGS`` what its owner should
know; nothing for a case that it does not concern. Each row names its source: KubeVirt's own check
(its function in pkg/virt-api/webhooks), or what QEMU, libvirt or the guest cannot do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, final

from sevkit.kubevirt.launch_case import (
    ATTESTATION,
    BOOTLOADER,
    DEVICES,
    DOMAIN,
    EFI,
    FIRMWARE,
    LAUNCH_SECURITY,
    Owner,
    named,
)
from sevkit.kubevirt.policy import HOST_MODELS, Passthrough
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents import Json
    from sevkit.kubevirt.launch_case import Case

ALL: Final = frozenset(Tier)
STATEFUL: Final = frozenset({Tier.SEV_ES, Tier.SNP})
#: Longest admission warning: Kubernetes asks for 120 characters at most, and may cut longer ones.
WARNING_LIMIT: Final = 119


@final
@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason why not. ``field`` is in dots, as people write it; ``code`` never changes."""

    code: str
    field: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}; {self.fix}"


#: A field and what is wrong with it, for each thing that is.
Findings: TypeAlias = Iterator[tuple[tuple[str, ...], str]]


@final
@dataclass(frozen=True, slots=True)
class RefusalRow:
    """A rule: for which tiers it holds, how to find what breaks it, the fix, and its source."""

    code: str
    tiers: frozenset[Tier]
    find: Callable[[Case], Findings]
    fix: str
    source: str


@final
@dataclass(frozen=True, slots=True)
class WarningRow:
    """What to tell: ``says`` in at most ``WARNING_LIMIT`` characters, with its source."""

    code: str
    tiers: frozenset[Tier]
    holds: Callable[[Case], bool]
    says: str
    source: str


def refusals(case: Case) -> Iterator[Refusal]:
    """Yield every reason why a case cannot be. Raises ``FormatError``."""
    for row in _REFUSALS_OF[case.tier]:
        for parts, message in row.find(case):
            yield Refusal(row.code, ".".join(parts), message, row.fix)


def warnings(case: Case) -> Iterator[str]:
    """Yield what to tell of a case that can be. Raises ``FormatError``."""
    for row in _WARNINGS_OF[case.tier]:
        if row.holds(case):
            yield row.says


def _architecture(case: Case) -> Findings:
    if case.architecture != "amd64":
        yield ("spec", "architecture"), f"{case.architecture[:20]} has no {case.tier.spelling}"


def _gate(case: Case) -> Findings:
    if case.installation.encryption is False:
        yield (
            LAUNCH_SECURITY,
            "KubeVirt's feature gate WorkloadEncryptionSEV is off in this cluster",
        )


def _machine(case: Case) -> Findings:
    machine = case.text(*DOMAIN, "machine", "type")
    if machine and not machine.startswith(("q35", "pc-q35")):
        yield (*DOMAIN, "machine", "type"), f"{machine[:40]} cannot launch confidential guests"


def _bios(case: Case) -> Findings:
    if case.object_at(*BOOTLOADER, "bios") is not None:
        yield (*BOOTLOADER, "bios"), f"{case.tier.spelling} needs EFI"


def _secure_boot(case: Case) -> Findings:
    if case.object_at(*EFI) is None:
        return
    wanted = case.flag(*EFI, "secureBoot")
    if wanted:
        yield (*EFI, "secureBoot"), f"{case.tier.spelling} does not work with secure boot"
    elif wanted is None and case.smm:
        yield (*EFI, "secureBoot"), "with SMM on, EFI without it means secure boot"


def _persistent(case: Case) -> Findings:
    if case.flag(*EFI, "persistent"):
        yield (*EFI, "persistent"), "SEV-SNP has no persistent EFI variables"


def _smm(case: Case) -> Findings:
    if case.smm:
        yield (*DOMAIN, "features", "smm"), f"{case.tier.spelling} guests cannot have SMM"


def _network_boot(case: Case) -> Findings:
    for item in case.items(*DEVICES, "interfaces"):
        if item.get("bootOrder") is not None:
            yield (*DEVICES, "interfaces"), f"{named(item)} boots from the network"


def _liveness(case: Case) -> Findings:
    if case.attestation and case.get("spec", "livenessProbe") is not None:
        yield (
            ("spec", "livenessProbe"),
            "a guest that starts paused for attestation would fail it",
        )


def _owners(case: Case) -> Findings:
    if case.attestation and case.owner in {Owner.REPLICA_SET, Owner.POOL}:
        yield (
            ("metadata", "annotations", ATTESTATION),
            f"nobody attests each guest of a {case.owner}",
        )


def _transitional(case: Case) -> Findings:
    if case.flag(*DEVICES, "useVirtioTransitional"):
        yield (*DEVICES, "useVirtioTransitional"), "encrypted guests need modern virtio"


def _file_systems(case: Case) -> Findings:
    for item in case.items(*DEVICES, "filesystems"):
        yield (*DEVICES, "filesystems"), f"{named(item)} shares memory, which SEV-SNP cannot"


def _shares_memory(item: Mapping[str, Json]) -> bool:
    binding = item.get("binding")
    plugin = binding.get("name") if isinstance(binding, dict) else None
    is_kind = item.get("passt") is not None or item.get("passtBinding") is not None
    return is_kind or plugin == "passt"


def _passt(case: Case) -> Findings:
    for item in case.items(*DEVICES, "interfaces"):
        if _shares_memory(item):
            yield (
                (*DEVICES, "interfaces"),
                f"{named(item)} is passt, which shares memory, and SEV-SNP cannot",
            )


def _passthrough(case: Case) -> Findings:
    if case.policy.passthrough is Passthrough.ALLOW:
        return
    for kind in ("hostDevices", "gpus"):
        for item in case.items(*DEVICES, kind):
            yield (*DEVICES, kind), f"{named(item)} is a device of the host"
    for item in case.items(*DEVICES, "interfaces"):
        if item.get("sriov") is not None:
            yield (*DEVICES, "interfaces"), f"{named(item)} is a device of the host (SR-IOV)"


def _resource(case: Case) -> Findings:
    # Extended resources that are asked for by hand have to be the same in both places.
    name = case.tier.resource
    if not case.policy.capacity_resource:
        return
    places = [case.object_at(*DOMAIN, "resources", place) for place in ("requests", "limits")]
    given = [None if place is None else place.get(name) for place in places]
    if None not in given and str(given[0]) != str(given[1]):
        yield (*DOMAIN, "resources"), f"{name} differs between requests and limits"


_VIRT_API: Final = "KubeVirt, ValidateLaunchSecurityAmd64"
REFUSALS: Final = (
    RefusalRow(
        "architecture",
        ALL,
        _architecture,
        "write architecture: amd64",
        "KubeVirt checks no launch security on s390x",
    ),
    RefusalRow(
        "gate",
        ALL,
        _gate,
        "ask the cluster's operator to turn it on: sevkit cluster preflight says how",
        _VIRT_API,
    ),
    RefusalRow("machine", ALL, _machine, "leave it out, or write q35", "QEMU: OVMF and SEV on q35"),
    RefusalRow(
        "bios",
        ALL,
        _bios,
        "a guest that was installed with BIOS has to be installed anew with EFI",
        _VIRT_API,
    ),
    RefusalRow("secure-boot", ALL, _secure_boot, "write secureBoot: false", _VIRT_API),
    RefusalRow("persistent", frozenset({Tier.SNP}), _persistent, "leave persistent out", _VIRT_API),
    RefusalRow(
        "smm", STATEFUL, _smm, "leave it out, or write enabled: false", "KVM: no SMM with SEV-ES"
    ),
    RefusalRow("network-boot", ALL, _network_boot, "leave bootOrder out there", _VIRT_API),
    RefusalRow(
        "liveness",
        ALL,
        _liveness,
        "use a readinessProbe",
        "KubeVirt, validateStartStrategy",
    ),
    RefusalRow(
        "attestation-owner",
        ALL,
        _owners,
        "use SEV-SNP, whose guests attest themselves, or single VMs",
        "each launch of SEV and SEV-ES is attested by its owner",
    ),
    RefusalRow(
        "virtio-transitional",
        ALL,
        _transitional,
        "leave it out",
        "virtio 1.1, 6.1: ACCESS_PLATFORM is of modern devices",
    ),
    RefusalRow(
        "virtiofs",
        frozenset({Tier.SNP}),
        _file_systems,
        "use a disk, or ask for sev-es",
        "QEMU: vhost-user and guest_memfd",
    ),
    RefusalRow(
        "passt",
        frozenset({Tier.SNP}),
        _passt,
        "use masquerade, or ask for sev-es",
        "QEMU: vhost-user and guest_memfd",
    ),
    RefusalRow(
        "passthrough",
        ALL,
        _passthrough,
        "leave it out, or have the operator allow passthrough in the webhook's policy",
        "KubeVirt user guide: SEV and passthrough",
    ),
    RefusalRow(
        "resource",
        ALL,
        _resource,
        "leave both out: they are added",
        "Kubernetes: extended resources do not overcommit",
    ),
)


def _file_system_or_passt(case: Case) -> bool:
    interfaces = any(map(_shares_memory, case.items(*DEVICES, "interfaces")))
    return interfaces or bool(case.items(*DEVICES, "filesystems"))


def _attestation_snp(case: Case) -> bool:
    return case.get("metadata", "annotations", ATTESTATION) is not None


def _leaves_model_to_host(case: Case) -> bool:
    return bool(case.policy.cpu_model) and case.text(*DOMAIN, "cpu", "model") in HOST_MODELS


WARNINGS: Final = (
    WarningRow(
        "kernel-boot",
        ALL,
        lambda case: case.get(*FIRMWARE, "kernelBoot") is not None,
        "kernelBoot: kernel, initrd and command line are not measured; the host can change them",
        "KubeVirt sets no kernelHashes",
    ),
    WarningRow(
        "vsock",
        ALL,
        lambda case: case.flag(*DEVICES, "autoattachVSOCK") is True,
        "autoattachVSOCK: the device may not work in an encrypted guest",
        "KubeVirt, compute/vsock.go: no iommu",
    ),
    WarningRow(
        "shared-memory",
        ALL - {Tier.SNP},
        _file_system_or_passt,
        "virtiofs and passt share memory, and may not work in an encrypted guest",
        "QEMU: vhost-user",
    ),
    WarningRow(
        "hugepages",
        frozenset({Tier.SNP}),
        lambda case: case.get(*DOMAIN, "memory", "hugepages") is not None,
        "hugepages: SEV-SNP keeps its memory elsewhere, so they are reserved and not used",
        "QEMU: guest_memfd",
    ),
    WarningRow(
        "host-model",
        STATEFUL,
        _leaves_model_to_host,
        "cpu.model leaves the CPU to the host: nothing is pinned, and launch digests may differ",
        "the digest covers the vCPUs' signature in the VMSA",
    ),
    WarningRow(
        "memory-dump",
        ALL,
        lambda case: any(
            item.get("memoryDump") is not None for item in case.items("spec", "volumes")
        ),
        "memoryDump: what is dumped is encrypted, and of no use",
        "SEV: guest memory is ciphertext to the host",
    ),
    WarningRow(
        "overcommit",
        ALL,
        lambda case: case.flag(*DOMAIN, "resources", "overcommitGuestOverhead") is True,
        "overcommitGuestOverhead: the 256Mi that encryption needs are dropped too; expect OOMs",
        "KubeVirt, renderresources.go",
    ),
    WarningRow(
        "external-eviction",
        ALL,
        lambda case: case.text("spec", "evictionStrategy") == "External",
        "evictionStrategy External: drains of this node wait until somebody moves the VMI by hand",
        "KubeVirt, pod-eviction-admitter",
    ),
    WarningRow(
        "attestation-snp",
        frozenset({Tier.SNP}),
        _attestation_snp,
        f"{ATTESTATION}: SEV-SNP has no launch to hold; the guest fetches its own report",
        "56860: SNP attestation is the guest's",
    ),
    WarningRow(
        "attestation-deadline",
        ALL,
        lambda case: case.attestation,
        "the VMI waits for its guest owner, and fails after 240 s: run sevkit attest vmi",
        "KubeVirt, virt-launcher --qemu-timeout",
    ),
)

#: Both tables by tier, because each decision goes through them.
_REFUSALS_OF: Final = {tier: [row for row in REFUSALS if tier in row.tiers] for tier in Tier}
_WARNINGS_OF: Final = {tier: [row for row in WARNINGS if tier in row.tiers] for tier in Tier}
