"""What the host's files say of the firmware is what its simulated processor answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.platform_status import SnpStatusBits, SnpStatusFlags, StatusFlags
from sevkit.abi.product import Product
from sevkit.errors import UsageError
from sevkit.testing.host.booting import boot
from sevkit.testing.host.defects import with_defects
from sevkit.testing.host.firmware_view import firmware_facts
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.processor import make_processor
from sevkit.testing.secure_processor.faults import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.host.spec import HostSpec
    from sevkit.testing.secure_processor.identity import ChipIdentity
    from sevkit.testing.secure_processor.processor import SecureProcessor

    ChipOf = Callable[[Product], ChipIdentity]


def processor_of(spec: HostSpec, chip_of: ChipOf) -> SecureProcessor:
    assert spec.cpu.product is not None
    return make_processor(spec, chip_of(spec.cpu.product))


def told(processor: SecureProcessor) -> dict[str, object]:
    """What a firmware reader would write of this processor, from its status commands."""
    sev = processor.sev.status()
    found: dict[str, object] = {
        "schema": "sevkit.io/firmware/v1",
        "api": f"{sev.api_major}.{sev.api_minor}",
        "build": sev.build,
        "state": sev.state.name.lower(),
        "es_configured": StatusFlags.CONFIG_ES in sev.flags,
        "guest_count": sev.guest_count,
        "snp": None,
    }
    if processor.identity.line.snp:
        snp = processor.snp.status()
        found["snp"] = {
            "initialized": snp.state.name == "INIT",
            "rmp_initialized": SnpStatusBits.RMP_INITIALIZED in snp.bits,
            "alias_check_complete": SnpStatusBits.ALIAS_CHECK_COMPLETE in snp.bits,
            "guest_count": snp.guest_count,
            "current_tcb": f"{snp.current_tcb:#018x}",
            "reported_tcb": f"{snp.reported_tcb:#018x}",
            "vlek_loaded": SnpStatusFlags.VLEK_EN in snp.flags,
            "ciphertext_hiding": SnpStatusFlags.CIPHERTEXT_HIDING_EN in snp.flags,
        }
    return found


@pytest.mark.parametrize(
    ("preset", "defects"),
    [
        *((name, []) for name in PRESETS if PRESETS[name].firmware is not None),
        ("genoa", ["iommu-passthrough"]),
        ("genoa", ["kvm-sev-off"]),
        ("genoa", ["psp-init-deferred"]),
        ("genoa", ["sev-init-failed"]),
        ("genoa", ["snp-init-failed"]),
        ("genoa", ["snp-firmware-too-old"]),
        ("genoa", ["firmware-update-pending"]),
        ("genoa", ["no-alias-check"]),
        ("turin", ["ciphertext-hiding"]),
        ("turin", ["firmware-update-pending"]),
        ("siena", ["es-blocked-by-firmware"]),
    ],
)
def test_the_processor_answers_what_the_files_say(
    chip_of: ChipOf, preset: str, defects: list[str]
) -> None:
    spec = with_defects(preset, defects)
    assert told(processor_of(spec, chip_of)) == firmware_facts(boot(spec))


def test_the_processor_has_the_asids_of_the_bios(chip_of: ChipOf) -> None:
    core = processor_of(PRESETS["genoa"], chip_of).core
    assert (core.asids.maximum, core.asids.min_sev_asid) == (1006, 253)


def test_a_pending_update_can_be_committed(chip_of: ChipOf) -> None:
    spec = with_defects("genoa", ["firmware-update-pending"])
    assert spec.firmware is not None
    snp = processor_of(spec, chip_of).snp
    assert (snp.committed_tcb, snp.reported_tcb) == (spec.firmware.committed,) * 2
    snp.commit()
    assert snp.reported_tcb == spec.firmware.current


def test_a_lower_reported_version_is_set(chip_of: ChipOf) -> None:
    genoa = PRESETS["genoa"]
    assert genoa.firmware is not None
    assert genoa.firmware.current is not None
    lower = replace(genoa.firmware.current, snp=20)
    spec = replace(genoa, firmware=replace(genoa.firmware, reported=lower))
    snp = processor_of(spec, chip_of).snp
    assert snp.reported_tcb == lower
    assert snp.committed_tcb == genoa.firmware.current


def test_what_failed_fails_again(chip_of: ChipOf) -> None:
    processor = processor_of(with_defects("genoa", ["sev-init-failed"]), chip_of)
    with pytest.raises(CommandError) as refused:
        processor.sev.init()
    assert refused.value.status is FirmwareStatus.HWERROR_PLATFORM
    processor = processor_of(with_defects("genoa", ["snp-init-failed"]), chip_of)
    with pytest.raises(CommandError) as refused:
        processor.snp.init()
    assert refused.value.status is FirmwareStatus.RMP_INIT_FAILED


@pytest.mark.parametrize("defect", ["psp-dead", "psp-silent"])
def test_one_that_does_not_answer_does_not(chip_of: ChipOf, defect: str) -> None:
    processor = processor_of(with_defects("genoa", [defect]), chip_of)
    with pytest.raises(NoAnswer):
        processor.sev.status()


def test_hosts_without_one_have_none(chip_of: ChipOf) -> None:
    for spec in (PRESETS["virtual-machine"], with_defects("genoa", ["no-psp"])):
        with pytest.raises(UsageError, match="has no secure processor"):
            make_processor(spec, chip_of(Product.GENOA))


def test_the_chip_is_of_the_host_s_product(chip_of: ChipOf) -> None:
    with pytest.raises(UsageError, match="a chip of Milan in a host of Genoa"):
        make_processor(PRESETS["genoa"], chip_of(Product.MILAN))
