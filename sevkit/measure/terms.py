"""The three choices that decide how a launch is measured: mode, hypervisor and register era."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, final

#: Most vCPUs of one guest: KVM's limit for SEV guests is lower on every product so far.
MAX_VCPUS: Final = 512


@final
class Mode(StrEnum):
    """Which of AMD's three technologies launches the guest."""

    SEV = "sev"
    SEV_ES = "sev-es"
    SNP = "snp"


@final
class Vmm(StrEnum):
    """Whose hypervisor sets the registers: ``qemu`` is KVM under QEMU, so also KubeVirt's."""

    QEMU = "qemu"
    EC2 = "ec2"
    GCE = "gce"


@final
class Era(StrEnum):
    """How KVM was initialised for SEV-ES, which decides the x87 and SSE state that is measured.

    ``init`` is KVM_SEV_ES_INIT: MXCSR and FCW stay zero, so that older measurements hold; QEMU's
    default, so KubeVirt's. ``init2`` is KVM_SEV_INIT2, which copies the reset values. SNP always
    is ``init2``.
    """

    INIT = "init"
    INIT2 = "init2"
