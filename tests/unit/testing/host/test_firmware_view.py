from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.tcb import parse_tcb
from sevkit.testing.host.booting import boot
from sevkit.testing.host.defects import with_defects
from sevkit.testing.host.firmware_view import firmware_facts
from sevkit.testing.host.presets import PRESETS

if TYPE_CHECKING:
    from sevkit.testing.host.spec import HostSpec


def facts(spec: HostSpec) -> dict[str, object] | None:
    return firmware_facts(boot(spec))


def test_a_healthy_milan_answers_in_the_agreed_form() -> None:
    assert facts(PRESETS["milan"]) == {
        "schema": "sevkit.io/firmware/v1",
        "api": "1.55",
        "build": 40,
        "state": "init",
        "es_configured": True,
        "guest_count": 0,
        "snp": {
            "initialized": True,
            "rmp_initialized": True,
            "alias_check_complete": True,
            "guest_count": 0,
            "current_tcb": "0xdb16000000000004",
            "reported_tcb": "0xdb16000000000004",
            "vlek_loaded": False,
            "ciphertext_hiding": False,
        },
    }


@pytest.mark.parametrize("preset", ["milan", "genoa", "bergamo", "siena", "turin", "turin-dense"])
def test_tcb_versions_are_raw_in_the_product_s_own_layout(preset: str) -> None:
    spec = PRESETS[preset]
    found = boot(spec).firmware
    assert found is not None
    assert found.snp is not None
    assert spec.cpu.product is not None
    assert spec.firmware is not None
    line = spec.cpu.product.line
    tcb = parse_tcb(line, found.snp.current_tcb, structure="test", offset=0)
    assert tcb == spec.firmware.current


@pytest.mark.parametrize("preset", ["naples", "rome", "rome-es"])
def test_before_milan_there_is_no_status_of_snp(preset: str) -> None:
    found = facts(PRESETS[preset])
    assert found is not None
    assert found["snp"] is None
    assert found["state"] == "init"


@pytest.mark.parametrize(
    ("defects", "state", "guests", "initialized"),
    [
        ([], "init", 0, True),
        (["guests-running"], "working", 2, True),
        (["psp-init-deferred"], "uninit", 0, True),
        (["psp-init-deferred", "guests-running"], "working", 2, True),
        (["sev-init-failed"], "uninit", 0, True),
        (["snp-init-failed"], "uninit", 0, False),
        (["kvm-sev-off"], "uninit", 0, False),
        (["kvm-snp-off"], "init", 0, True),
        (["iommu-snp-off"], "init", 0, False),
    ],
)
def test_the_firmware_is_in_the_state_that_it_was_brought_to(
    defects: list[str], state: str, guests: int, initialized: bool
) -> None:
    found = boot(with_defects("genoa", defects)).firmware
    assert found is not None
    assert found.snp is not None
    assert (found.state, found.guest_count) == (state, guests)
    assert found.es_configured == (state != "uninit")
    assert (found.snp.initialized, found.snp.rmp_initialized) == (initialized, initialized)
    assert found.snp.alias_check_complete == initialized


def test_older_kernels_do_not_ask_for_snp_before_it_is_initialised() -> None:
    spec = with_defects("genoa", ["iommu-snp-off"])
    old = boot(replace(spec, kernel=replace(spec.kernel, release="6.16.0"))).firmware
    assert old is not None
    assert old.snp is None


@pytest.mark.parametrize("defect", ["no-psp", "psp-silent", "psp-dead", "smee-off"])
def test_nobody_answers(defect: str) -> None:
    assert facts(with_defects("genoa", [defect])) is None


def test_a_pending_update_runs_above_what_it_reports() -> None:
    found = boot(with_defects("turin", ["firmware-update-pending"])).firmware
    assert found is not None
    assert found.snp is not None
    assert f"{found.snp.current_tcb:#018x}" == "0x4b00000003010101"
    assert f"{found.snp.reported_tcb:#018x}" == "0x4b00000002010101"


def test_ciphertext_hiding_and_alias_check_are_told() -> None:
    hiding = boot(with_defects("turin", ["ciphertext-hiding"])).firmware
    unchecked = boot(with_defects("genoa", ["no-alias-check"])).firmware
    assert hiding is not None
    assert hiding.snp is not None
    assert unchecked is not None
    assert unchecked.snp is not None
    assert hiding.snp.ciphertext_hiding
    assert not unchecked.snp.alias_check_complete
