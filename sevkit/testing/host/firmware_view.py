"""What the firmware of a simulated host answers, as values and as ``firmware.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sevkit.abi.tcb import encode_tcb
from sevkit.testing.host import linux
from sevkit.testing.host.encryption import Features, parse_encryption
from sevkit.testing.host.state import FirmwareView, PlatformState, SnpView

if TYPE_CHECKING:
    from sevkit.abi.product import ProductLine
    from sevkit.testing.host.firmware_start import Started
    from sevkit.testing.host.spec import HostSpec
    from sevkit.testing.host.state import HostState

SCHEMA: Final = "sevkit.io/firmware/v1"


def firmware_facts(state: HostState) -> dict[str, Any] | None:
    """Return what the firmware reader writes about this host, or None if nobody answers."""
    view = state.firmware
    if view is None:
        return None
    snp = view.snp
    facts = {
        "schema": SCHEMA,
        "api": f"{view.api[0]}.{view.api[1]}",
        "build": view.build,
        "state": view.state.value,
        "es_configured": view.es_configured,
        "guest_count": view.guest_count,
    }
    if snp is None:
        return {**facts, "snp": None}
    return {
        **facts,
        "snp": {
            "initialized": snp.initialized,
            "rmp_initialized": snp.rmp_initialized,
            "alias_check_complete": snp.alias_check_complete,
            "guest_count": snp.guest_count,
            "current_tcb": f"{snp.current_tcb:#018x}",
            "reported_tcb": f"{snp.reported_tcb:#018x}",
            "vlek_loaded": snp.vlek_loaded,
            "ciphertext_hiding": snp.ciphertext_hiding,
        },
    }


def view_firmware(spec: HostSpec, started: Started) -> FirmwareView | None:
    """Return the firmware's answers to PLATFORM_STATUS and SNP_PLATFORM_STATUS."""
    firmware = spec.firmware
    if firmware is None or not (started.device and started.answers):
        return None
    legacy = spec.guests.sev + spec.guests.sev_es
    running = PlatformState.WORKING if legacy else PlatformState.INIT
    product = spec.cpu.product
    return FirmwareView(
        api=firmware.api,
        build=firmware.build,
        state=running if started.sev or (legacy and not started.failed) else PlatformState.UNINIT,
        es_configured=started.sev or bool(legacy and not started.failed),
        guest_count=legacy,
        snp=None if product is None else _snp(spec, started, product.line),
    )


def _snp(spec: HostSpec, started: Started, line: ProductLine) -> SnpView | None:
    """Return SNP's status; older kernels do not ask for it before SNP is initialised."""
    firmware = spec.firmware
    silicon = Features.SEV_SNP in parse_encryption(spec).features
    asked = started.snp or spec.kernel.version >= linux.SNP_STATUS_ALWAYS
    if firmware is None or firmware.current is None or not (silicon and asked):
        return None
    hidden = spec.kernel.parameters.get("ciphertext_hiding_asids", 0)
    return SnpView(
        initialized=started.snp,
        rmp_initialized=started.snp,
        alias_check_complete=started.snp and firmware.alias_check,
        guest_count=spec.guests.sev_snp,
        current_tcb=encode_tcb(line, firmware.current),
        reported_tcb=encode_tcb(line, firmware.reported or firmware.current),
        vlek_loaded=firmware.vlek_loaded and started.snp,
        ciphertext_hiding=started.snp and firmware.ciphertext_hiding and hidden > 0,
    )
