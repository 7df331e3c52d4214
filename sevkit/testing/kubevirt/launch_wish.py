"""What a VMI asks of its launch, read from the object as virt-launcher reads it.

How many vCPUs are measured, and under which policy, is what ``sevkit.kubevirt.manifests`` knows of
KubeVirt: policy 1, 5 or 0x30000, and for SEV-ES only the vCPUs that are not hot-pluggable.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from sevkit.abi.product import Product
from sevkit.errors import FormatError, UsageError
from sevkit.kubevirt.manifests import parse_manifest
from sevkit.measure.terms import Era, Mode
from sevkit.measure.vcpu import CPU_MODELS, Registers, signature_of
from sevkit.testing.snp_report import CPUID_FMS

if TYPE_CHECKING:
    from collections.abc import Mapping

Document: TypeAlias = dict[str, Any]

#: Files in virt-launcher's image that hold the firmware of each mode.
FIRMWARE_FILES: Final[Mapping[Mode, str]] = {
    Mode.SEV: "OVMF_CODE.cc.fd",
    Mode.SEV_ES: "OVMF_CODE.cc.fd",
    Mode.SNP: "OVMF.amdsev.fd",
}
#: What libvirt makes of host-model.
_HOST_MODELS: Final[Mapping[Product, str]] = {
    Product.NAPLES: "EPYC",
    Product.ROME: "EPYC-Rome",
    Product.MILAN: "EPYC-Milan",
    Product.GENOA: "EPYC-Genoa",
    Product.BERGAMO_OR_SIENA: "EPYC-Genoa",
    Product.TURIN: "EPYC-Turin",
    Product.TURIN_DENSE: "EPYC-Turin",
}
#: Family, model and stepping that host-passthrough shows.
_CHIPS: Final[Mapping[Product, tuple[int, int, int]]] = {
    Product.NAPLES: (0x17, 0x01, 0x02),
    Product.ROME: (0x17, 0x31, 0x00),
    **CPUID_FMS,
}


@final
@dataclass(frozen=True, slots=True)
class LaunchWish:
    """What is asked for. ``mode`` is None for a VMI that is not confidential.

    ``vcpus`` counts those whose state is measured; ``cpu_model`` is empty for the cluster's
    default. ``session`` and ``dh_cert`` are base64 as they were given, or empty.
    """

    mode: Mode | None = None
    policy: int = 0
    vcpus: int = 1
    cpu_model: str = ""
    attestation: bool = False
    paused: bool = False
    session: str = ""
    dh_cert: str = ""

    def registers(self, product: Product) -> Registers:
        """Return how QEMU starts the vCPUs on a host of this product.

        Raises ``UsageError`` for a CPU model that no EPYC node has.
        """
        snp = self.mode is Mode.SNP
        era = Era.INIT2 if snp else Era.INIT
        return Registers(self._signature(product), int(snp), era=era)

    def _signature(self, product: Product) -> int:
        name = self.cpu_model or "host-model"
        if name == "host-passthrough":
            return signature_of(*_CHIPS[product])
        signature = CPU_MODELS.get(_HOST_MODELS[product] if name == "host-model" else name)
        if signature is None:
            raise UsageError(f"CPU model {name} is none of EPYC's")
        return signature

    @property
    def has_session(self) -> bool:
        """Whether session and DH certificate are both there: virt-handler waits for both."""
        return bool(self.session and self.dh_cert)


def parse_wish(document: Document) -> LaunchWish:
    """Return what a VMI asks for. Raises ``UsageError`` and ``FormatError`` as KubeVirt refuses."""
    spec = _mapping(document, "spec")
    domain = _mapping(spec, "domain")
    security = domain.get("launchSecurity")
    paused = spec.get("startStrategy") == "Paused"
    if security is None:
        return LaunchWish(paused=paused)
    found = parse_manifest((document,))
    sev = _mapping(security, "sev")
    attestation = sev.get("attestation") is not None
    if attestation and not paused:
        raise UsageError("SEV attestation requires VMI StartStrategy 'Paused'")
    model = _mapping(domain, "cpu").get("model")
    return LaunchWish(
        found.mode,
        found.guest_policy,
        found.vcpus or 1,
        model if isinstance(model, str) else "",
        attestation,
        paused,
        _text(sev, "session"),
        _text(sev, "dhCert"),
    )


def decode_leniently(text: str) -> bytes:
    """Return base64 as GLib decodes it for QEMU: what is not of the alphabet is passed over."""
    try:
        return base64.b64decode(text, validate=False)
    except (binascii.Error, ValueError):
        return b""


def _mapping(parent: Document, key: str) -> Document:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FormatError("VirtualMachineInstance", f"{key} is not a mapping")
    return value


def _text(parent: Document, key: str) -> str:
    value = parent.get(key, "")
    if not isinstance(value, str):
        raise FormatError("VirtualMachineInstance", f"{key} is not text")
    return value
