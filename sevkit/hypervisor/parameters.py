"""libvirt's typed parameters of SEV: names to values, read strictly.

Source: libvirt ``include/libvirt/libvirt-host.h`` (VIR_NODE_SEV_*) and ``libvirt-domain.h``
(VIR_DOMAIN_LAUNCH_SECURITY_SEV_*). The names are part of its ABI. Bytes come as base64 text,
numbers as unsigned integers; what a newer libvirt adds is passed over.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

from sevkit.abi.sevcert import SIZE
from sevkit.abi.sevchain import CHAIN_SIZE
from sevkit.errors import FormatError
from sevkit.hypervisor.domain_capabilities import MAX_CHIP_ID
from sevkit.hypervisor.protocol import LaunchSecurityInfo, NodeSevInfo
from sevkit.measure.launch_measurement import MEASUREMENT_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

NODE: Final = "SEV parameters of the node"
DOMAIN: Final = "launch security parameters of the domain"

MEASUREMENT: Final = "sev-measurement"
HEADER: Final = "sev-secret-header"
SECRET: Final = "sev-secret"  # noqa: S105  # the parameter's name
SECRET_ADDRESS: Final = "sev-secret-set-address"  # noqa: S105  # the parameter's name

_BYTE: Final = 0xFF
_UINT: Final = 0xFFFF_FFFF
_MAX_BITS: Final = 63


def parse_node_sev_info(values: Mapping[str, object]) -> NodeSevInfo:
    """Return what ``virNodeGetSEVInfo`` answered. Raises ``FormatError``."""
    chip = _bytes(NODE, values, "cpu0-id") if "cpu0-id" in values else None
    if chip is not None and not 0 < len(chip) <= MAX_CHIP_ID:
        raise FormatError(NODE, f"cpu0-id: {len(chip)} bytes are not a chip ID")
    return NodeSevInfo(
        pdh=_bytes(NODE, values, "pdh", SIZE),
        cert_chain=_bytes(NODE, values, "cert-chain", CHAIN_SIZE),
        cbitpos=_number(NODE, values, "cbitpos", _MAX_BITS),
        reduced_phys_bits=_number(NODE, values, "reduced-phys-bits", _MAX_BITS),
        cpu0_id=chip,
        max_guests=_optional_count(values, "max-guests"),
        max_es_guests=_optional_count(values, "max-es-guests"),
    )


def parse_launch_security_info(values: Mapping[str, object]) -> LaunchSecurityInfo:
    """Return what ``virDomainGetLaunchSecurityInfo`` answered for a SEV or SEV-ES guest.

    Raises ``FormatError``.
    """
    return LaunchSecurityInfo(
        measurement=_bytes(DOMAIN, values, MEASUREMENT, MEASUREMENT_SIZE),
        api_major=_number(DOMAIN, values, "sev-api-major", _BYTE),
        api_minor=_number(DOMAIN, values, "sev-api-minor", _BYTE),
        build_id=_number(DOMAIN, values, "sev-build-id", _BYTE),
        policy=_number(DOMAIN, values, "sev-policy", _UINT),
    )


def encode_launch_secret(header: bytes, secret: bytes, address: int | None) -> dict[str, str | int]:
    """Return the parameters that ``virDomainSetLaunchSecurityState`` takes."""
    values: dict[str, str | int] = {
        HEADER: base64.b64encode(header).decode("ascii"),
        SECRET: base64.b64encode(secret).decode("ascii"),
    }
    return values if address is None else values | {SECRET_ADDRESS: address}


def _bytes(
    structure: str, values: Mapping[str, object], name: str, size: int | None = None
) -> bytes:
    text = values.get(name)
    if not isinstance(text, str):
        raise FormatError(structure, f"{name}: expected text")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise FormatError(structure, f"{name}: not base64") from error
    if base64.b64encode(data).decode("ascii") != text:
        raise FormatError(structure, f"{name}: base64 with stray bits at its end")
    if size is not None and len(data) != size:
        raise FormatError(structure, f"{name}: expected {size} bytes, got {len(data)}")
    return data


def _optional_count(values: Mapping[str, object], name: str) -> int | None:
    return _number(NODE, values, name, _UINT) if name in values else None


def _number(structure: str, values: Mapping[str, object], name: str, limit: int) -> int:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(structure, f"{name}: expected a number")
    if not 0 <= value <= limit:
        raise FormatError(structure, f"{name}: expected 0 to {limit}")
    return value
