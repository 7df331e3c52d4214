"""What KubeVirt answers: its rules on launch security, each with something that breaks it.

Every expectation here was observed. Where one fails, KubeVirt has changed and sevkit has to follow.
The tests put the same questions to KubeVirt's admission code itself and through an API server.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from hack import kubevirt_admission

Document: TypeAlias = dict[str, Any]
#: The type of a cause, the field that it names, and its message.
Refusal: TypeAlias = tuple[str, str, str]

VERSION: Final = tuple(int(part) for part in kubevirt_admission.wanted_version().split(".")[:2])
SEV_GATE: Final = "WorkloadEncryptionSEV"
TDX_GATE: Final = "WorkloadEncryptionTDX"
GATE_OFF: Final = f"{SEV_GATE} feature gate is not enabled in kubevirt-config"

#: By kind: the resource, and the paths of its mutator and of its admitter of new objects.
PATHS: Final = {
    "VirtualMachineInstance": (
        "virtualmachineinstances",
        "/virtualmachineinstances-mutate",
        "/virtualmachineinstances-validate-create",
    ),
    "VirtualMachine": ("virtualmachines", "/virtualmachines-mutate", "/virtualmachines-validate"),
    "VirtualMachineInstanceReplicaSet": (
        "virtualmachineinstancereplicasets",
        None,
        "/virtualmachinereplicaset-validate",
    ),
    "VirtualMachinePool": ("virtualmachinepools", None, "/virtualmachinepool-validate"),
    "VirtualMachineInstancetype": (
        "virtualmachineinstancetypes",
        None,
        "/virtualmachineinstancetypes-validate",
    ),
}


def kubevirt_resource(*gates: str, **configuration: object) -> Document:
    """Return a KubeVirt resource in which exactly these gates are on, of those that matter here."""
    developer: Document = {"featureGates": list(gates)}
    if VERSION >= (1, 9):  # where they are on unless they are switched off
        off = {SEV_GATE, TDX_GATE, "RebootPolicy"} - set(gates)
        developer["disabledFeatureGates"] = sorted(off)
    return {"spec": {"configuration": {"developerConfiguration": developer} | configuration}}


def vmi(domain: Document, **spec: object) -> Document:
    """Return a VMI with as little as KubeVirt takes, and these members of its domain and spec."""
    whole = {"devices": {}, "memory": {"guest": "1Gi"}} | domain
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "t"},
        "spec": {"architecture": "amd64", "domain": whole} | spec,
    }


def virtual_machine(instance: Document) -> Document:
    """Return a VM that starts such a VMI."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "t"},
        "spec": {
            "runStrategy": "Always",
            "template": {"metadata": {}, "spec": copy.deepcopy(instance["spec"])},
        },
    }


def in_template(refusals: tuple[Refusal, ...]) -> tuple[Refusal, ...]:
    """Return the same refusals as a VM gets them: with its own field names, in messages too."""
    return tuple(
        (
            kind,
            field.replace("spec", "spec.template.spec", 1),
            message.replace("spec.", "spec.template.spec."),
        )
        for kind, field, message in refusals
    )


def efi(**members: object) -> Document:
    """Return the firmware of an encrypted guest, and these members of its EFI."""
    return {"bootloader": {"efi": {"secureBoot": False} | members}}


def encrypted(tier: str, **domain: object) -> Document:
    """Return the least domain of an encrypted guest of this tier, and these members of it."""
    return {"launchSecurity": {tier: {}}, "firmware": efi()} | domain


SMM: Final[Document] = {"features": {"smm": {}}}
BOOTING: Final[Document] = {"name": "default", "masquerade": {}, "bootOrder": 1}
BOOTABLE: Final[Document] = {"devices": {"interfaces": [BOOTING]}}
NETWORK: Final[Document] = {"networks": [{"name": "default", "pod": {}}]}
PROBE: Final[Document] = {"httpGet": {"port": 80}}
INVALID: Final = "FieldValueInvalid"
LAUNCH: Final = "spec.launchSecurity"
ONE: Final = ("FieldValueForbidden", LAUNCH, "One and only one launchSecurity type can be set")
LIVENESS: Final = (
    "either spec.startStrategy or spec.livenessProbe should be provided."
    "Pausing VMI with LivenessProbe is not supported"
)
EXCLUSIVE: Final = (
    "spec.domain.firmware.bootloader has both EFI and BIOS configured, "
    "but they are mutually exclusive."
)
SMM_NEEDED: Final = (
    "spec.domain has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled."
)


@dataclass(frozen=True)
class Case:
    """A VMI that breaks a rule, and everything that KubeVirt has to say about it."""

    rule: str
    vmi: Document
    refusals: tuple[Refusal, ...]
    gates: tuple[str, ...] = (SEV_GATE, TDX_GATE)

    def __str__(self) -> str:
        return f"{self.rule}-{'-'.join(self.vmi['spec']['domain'].get('launchSecurity', {}))}"


def launch(message: str) -> tuple[Refusal, ...]:
    """Return a refusal of launchSecurity."""
    return ((INVALID, LAUNCH, message),)


CASES: Final = (
    Case(
        "LS-ARCH",
        vmi(encrypted("snp"), architecture="arm64"),
        ((INVALID, "spec.architecture", "No launchSecurity support for architecture: arm64"),),
        (SEV_GATE, "MultiArchitecture"),  # a gate that KubeVirt 1.7 still asked for
    ),
    Case("LS-ONE", vmi({"launchSecurity": {}, "firmware": efi()}), (ONE,)),
    Case("LS-ONE", vmi({"launchSecurity": {"sev": {}, "snp": {}}, "firmware": efi()}), (ONE,)),
    Case("LS-GATE-SEV", vmi(encrypted("sev")), launch(GATE_OFF), (TDX_GATE,)),
    Case("LS-GATE-SEV", vmi(encrypted("snp")), launch(GATE_OFF), (TDX_GATE,)),
    Case(
        "LS-GATE-TDX",
        vmi(encrypted("tdx")),
        launch(f"{TDX_GATE} feature gate is not enabled in kubevirt-config"),
        (SEV_GATE,),
    ),
    Case("LS-TDX-SMM", vmi(encrypted("tdx") | SMM), launch("TDX does not work along with SMM")),
    Case("LS-EFI", vmi({"launchSecurity": {"sev": {}}}), launch("SEV requires OVMF (UEFI)")),
    Case("LS-EFI", vmi({"launchSecurity": {"snp": {}}}), launch("SNP requires OVMF (UEFI)")),
    Case(
        "LS-EFI",
        vmi(encrypted("snp", firmware={"bootloader": {}})),
        launch("SNP requires OVMF (UEFI)"),
    ),
    Case(
        "LS-SECBOOT",
        vmi(encrypted("sev", firmware=efi(secureBoot=True)) | SMM),
        launch("SEV does not work along with SecureBoot"),
    ),
    Case(
        "LS-SECBOOT",
        vmi(encrypted("snp", firmware={"bootloader": {"efi": {}}}) | SMM),
        launch("SNP does not work along with SecureBoot"),
    ),
    Case(
        "LS-PERSIST",
        vmi(encrypted("snp", firmware=efi(persistent=True))),
        launch("SNP does not work along with Persistent EFI variables"),
    ),
    Case(
        "LS-PERSIST",
        vmi(encrypted("tdx", firmware=efi(persistent=True))),
        launch("TDX does not work along with Persistent EFI variables"),
    ),
    Case(
        "LS-ATTEST-PAUSED",
        vmi({"launchSecurity": {"sev": {"attestation": {}}}, "firmware": efi()}),
        launch("SEV attestation requires VMI StartStrategy 'Paused'"),
    ),
    Case(
        "LS-NIC-BOOT",
        vmi(encrypted("sev") | BOOTABLE, **NETWORK),
        launch("SEV does not work with bootable NICs: default"),
    ),
    Case(
        "LS-NIC-BOOT",
        vmi(encrypted("snp") | BOOTABLE, **NETWORK),
        launch("SNP does not work with bootable NICs: default"),
    ),
    Case(
        "PAUSED-LIVENESS",
        vmi({}, startStrategy="Paused", livenessProbe=PROBE),
        (
            (
                INVALID,
                "spec.startStrategy",
                LIVENESS,
            ),
        ),
    ),
    Case(
        "EFI-BIOS-EXCL",
        vmi({"firmware": {"bootloader": {"efi": {"secureBoot": False}, "bios": {}}}}),
        (
            (
                INVALID,
                "spec.domain.firmware.bootloader",
                EXCLUSIVE,
            ),
        ),
    ),
    Case(
        "SECBOOT-SMM",
        vmi({"firmware": {"bootloader": {"efi": {}}}}),
        (
            (
                INVALID,
                "spec.domain",
                SMM_NEEDED,
            ),
        ),
    ),
)
HOTPLUG: Final = (
    INVALID,
    "spec.template.spec.domain.memory.guest",
    "Memory hotplug is not compatible with encrypted VMs",
)
MAXIMUM: Final[Document] = {"memory": {"guest": "1Gi", "maxGuest": "4Gi"}}


#: By file of the corpus: the kind, and why it is refused with the SEV gate off and on.
MANIFESTS: Final[dict[str, tuple[str | None, str | None]]] = {
    "fixtures/vmi-sev-attest.yaml": (GATE_OFF, None),
    "fixtures/vmi-sev-es-attest.yaml": (GATE_OFF, None),
    "fixtures/vmi-sev-es.yaml": (GATE_OFF, None),
    "fixtures/vmi-sev.yaml": (GATE_OFF, None),
    "fixtures/vmi-snp.yaml": (GATE_OFF, None),
    "manifests/csmall.yaml": (None, None),
    "manifests/vm-alpine-datavolume.yaml": (None, None),
    "manifests/vm-cirros-csmall.yaml": (None, None),
    "manifests/vm-cirros.yaml": (None, None),
    "manifests/vm-pool-cirros.yaml": (None, None),
    "manifests/vmi-alpine-efi.yaml": (None, None),
    "manifests/vmi-arm.yaml": (None, None),
    "manifests/vmi-ephemeral.yaml": (None, None),
    "manifests/vmi-fedora-isolated.yaml": (None, None),
    "manifests/vmi-fedora.yaml": (None, None),
    "manifests/vmi-gpu.yaml": (None, None),
    "manifests/vmi-host-disk.yaml": (
        "HostDisk feature gate is not enabled",
        "HostDisk feature gate is not enabled",
    ),
    "manifests/vmi-kernel-boot.yaml": (None, None),
    "manifests/vmi-masquerade.yaml": (None, None),
    "manifests/vmi-migratable.yaml": (None, None),
    "manifests/vmi-multus-multiple-net.yaml": (None, None),
    "manifests/vmi-nocloud.yaml": (None, None),
    "manifests/vmi-pvc.yaml": (None, None),
    "manifests/vmi-replicaset-cirros.yaml": (None, None),
    "manifests/vmi-sata.yaml": (None, None),
    "manifests/vmi-secureboot.yaml": (None, None),
    "manifests/vmi-sriov.yaml": (None, None),
    "manifests/vmi-windows.yaml": (None, None),
}
