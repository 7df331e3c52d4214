"""What Linux makes of BIOS switches: logs and states that were seen in the field."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sevkit.testing.host.booting import boot
from sevkit.testing.host.defects import with_defects
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.spec import Bios, Kernel
from sevkit.testing.host.state import Technologies, VmTypes

NOTHING = Technologies()
SEV = Technologies(sev=True)
ES = Technologies(sev=True, sev_es=True)
SNP = Technologies(sev=True, sev_es=True, sev_snp=True)


def test_a_genoa_logs_what_a_real_one_logged() -> None:
    genoa = PRESETS["genoa"]
    assert genoa.firmware is not None
    spec = replace(
        genoa,
        kernel=Kernel("6.11.0-rc3"),
        firmware=replace(genoa.firmware, build=24, alias_check=False),
        cpu=replace(genoa.cpu, psp=("0000:05:00.5", 0x14CA)),
    )
    seen = [line for line in boot(spec).log if "IOMMU" not in line and "psp enabled" not in line]
    assert seen[1:] == [
        "ccp 0000:05:00.5: sev enabled",
        "ccp 0000:05:00.5: SEV API:1.55 build:24",
        "ccp 0000:05:00.5: SEV-SNP API:1.55 build:24",
        "kvm_amd: SEV enabled (ASIDs 253 - 1006)",
        "kvm_amd: SEV-ES enabled (ASIDs 1 - 252)",
        "kvm_amd: SEV-SNP enabled (ASIDs 1 - 252)",
    ]
    assert seen[0].startswith("SEV-SNP: RMP table physical range [0x0000007fcd100000 - 0x0000008")


def test_turin_with_every_asid_for_sev_logs_what_a_real_one_logged() -> None:
    spec = replace(
        with_defects("turin", ["zero-es-asids", "rmp-not-reserved"]), kernel=Kernel("6.14.0")
    )
    assert [line for line in boot(spec).log if "ASIDs" in line] == [
        "kvm_amd: SEV enabled (ASIDs 1 - 1006)",
        "kvm_amd: SEV-ES disabled (ASIDs 0 - 0)",
    ]


def test_firmware_that_refuses_sev_es_is_logged_as_on_a_real_one() -> None:
    spec = with_defects("milan", ["es-revoked-by-kernel"])
    spec = replace(spec, bios=Bios(min_sev_asid=254))
    assert [line for line in boot(spec).log if "SEV-SNP API" in line or "ASIDs" in line] == [
        "ccp 0000:22:00.1: SEV-SNP API:1.58 build:1",
        "kvm_amd: SEV enabled (ASIDs 254 - 509)",
        "kvm_amd: SEV-ES unusable (ASIDs 1 - 253)",
        "kvm_amd: SEV-SNP enabled (ASIDs 1 - 253)",
    ]


NO_IOMMU = "AMD-Vi: SNP: IOMMU disabled or configured in passthrough mode, SNP cannot be supported."
SHORT_RMP = "SEV-SNP: Memory reserved for the RMP table does not cover full system RAM"


@pytest.mark.parametrize(
    ("defect", "line"),
    [
        (
            "rmp-not-reserved",
            "SEV-SNP: Memory for the RMP table has not been reserved by BIOS",
        ),
        ("rmp-too-small", f"{SHORT_RMP} (expected 0x80004000 got 0x40100000)"),
        ("iommu-off", NO_IOMMU),
        ("iommu-passthrough", NO_IOMMU),
        (
            "iommu-v2-pagetables",
            "AMD-Vi: SNP: IOMMU is configured with V2 page table mode, SNP cannot be supported.",
        ),
        (
            "iommu-snp-off",
            "AMD-Vi: SNP: IOMMU SNP feature not enabled, SNP cannot be supported.",
        ),
    ],
)
def test_what_stops_snp_is_in_the_log_and_leaves_the_rest(defect: str, line: str) -> None:
    state = boot(with_defects("genoa", [defect]))
    assert line in state.log
    assert state.kvm == ES
    assert state.modules["kvm_amd"]["sev_snp"] == "N"
    agreed = "AMD-Vi: IOMMU SNP support enabled." in state.log
    assert agreed == (defect == "rmp-too-small")
    # Only a missing RMP table takes the flag: the other failures come later.
    assert ("sev_snp" in state.cleared) == (defect == "rmp-not-reserved")


def test_version_2_page_tables_were_overridden_before_6_13() -> None:
    spec = with_defects("genoa", ["iommu-v2-pagetables"])
    assert boot(replace(spec, kernel=replace(spec.kernel, release="6.12.0"))).kvm == SNP


@pytest.mark.parametrize("defect", ["smee-off", "smmlock-off", "bios-off"])
@pytest.mark.parametrize("preset", ["naples", "rome", "milan", "genoa", "turin"])
def test_memory_encryption_that_the_bios_left_off_leaves_nothing(preset: str, defect: str) -> None:
    state = boot(with_defects(preset, [defect]))
    assert state.kvm == NOTHING
    assert state.misc_capacity in ({}, None)
    assert not state.dev_sev
    assert state.dev_kvm
    assert state.firmware is None
    where = PRESETS[preset].cpu.psp
    assert where is not None
    assert state.log == (
        f"ccp {where[0]}: SEV: memory encryption not enabled by BIOS",
        f"ccp {where[0]}: psp enabled",
    )


def test_without_svm_there_is_no_kvm_but_still_a_secure_processor() -> None:
    state = boot(with_defects("genoa", ["svm-off"]))
    assert not {"kvm", "kvm_amd"} & state.modules.keys()
    assert not state.dev_kvm
    assert state.dev_sev
    assert "svm" in state.cleared
    assert state.vm_types == VmTypes(0)


def test_a_virtual_machine_has_kvm_and_no_sev() -> None:
    state = boot(PRESETS["virtual-machine"])
    assert state.kvm == NOTHING
    assert state.modules["kvm_amd"]["sev"] == "N"
    assert state.vm_types is VmTypes.DEFAULT
    assert (state.dev_kvm, state.dev_sev) == (True, False)


def test_other_makers_have_kvm_of_their_own() -> None:
    intel, arm = boot(PRESETS["intel"]), boot(PRESETS["arm64"])
    assert "kvm_intel" in intel.modules
    assert "kvm_amd" not in intel.modules
    assert arm.modules == {}
    assert intel.dev_kvm
    assert arm.dev_kvm
    assert intel.misc_capacity == {}


def test_a_kernel_before_5_13_has_no_misc_controller() -> None:
    assert boot(with_defects("rome", ["int-parameters-kernel"])).misc_capacity is None
    assert boot(with_defects("rome", ["no-misc-controller"])).misc_capacity is None


def test_snp_guests_are_charged_as_sev_es_guests() -> None:
    state = boot(with_defects("genoa", ["guests-running"]))
    assert state.misc_current == {"sev": 2, "sev_es": 3}


def test_the_same_spec_always_boots_the_same_way() -> None:
    assert boot(PRESETS["turin"]) == boot(PRESETS["turin"])
