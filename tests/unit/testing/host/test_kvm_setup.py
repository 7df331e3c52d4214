from __future__ import annotations

from dataclasses import replace

import pytest

from sevkit.testing.host.booting import boot
from sevkit.testing.host.defects import with_defects
from sevkit.testing.host.kvm_setup import es_refused
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.spec import HostSpec, Kernel
from sevkit.testing.host.state import AsidRanges, Technologies, VmTypes

NOTHING = Technologies()
SEV = Technologies(sev=True)
ES = Technologies(sev=True, sev_es=True)
SNP = Technologies(sev=True, sev_es=True, sev_snp=True)
ALL_TYPES = VmTypes.DEFAULT | VmTypes.SEV | VmTypes.SEV_ES | VmTypes.SEV_SNP


def on(spec: HostSpec, release: str) -> HostSpec:
    return replace(spec, kernel=replace(spec.kernel, release=release))


@pytest.mark.parametrize(
    ("preset", "found", "capacity"),
    [
        ("naples", SEV, {"sev": 15}),
        ("rome", SEV, {"sev": 509}),
        ("rome-es", ES, {"sev": 410, "sev_es": 99}),
        ("milan", SNP, {"sev": 382, "sev_es": 127}),
        ("genoa", SNP, {"sev": 754, "sev_es": 252}),
        ("bergamo", SNP, {"sev": 754, "sev_es": 252}),
        ("siena", SNP, {"sev": 907, "sev_es": 99}),
        ("turin", SNP, {"sev": 907, "sev_es": 99}),
        ("turin-dense", SNP, {"sev": 497, "sev_es": 509}),
    ],
)
def test_a_healthy_host_offers_what_its_generation_can(
    preset: str, found: Technologies, capacity: dict[str, int]
) -> None:
    state = boot(PRESETS[preset])
    assert state.kvm == found
    assert state.misc_capacity == capacity


@pytest.mark.parametrize(
    ("defect", "found"),
    [
        ("kvm-sev-off", NOTHING),
        ("npt-off", NOTHING),
        ("kvm-es-off", SEV),
        ("mmio-caching-off", SEV),
        ("lbrv-off", SEV),
        ("zero-es-asids", SEV),
        ("kvm-snp-off", ES),
        ("old-kernel", ES),
        ("all-asids-es", SNP),
    ],
)
def test_each_gate_takes_what_it_guards_and_all_above(defect: str, found: Technologies) -> None:
    state = boot(with_defects("genoa", [defect]))
    assert state.kvm == found
    words = {True: "Y", False: "N"}
    parameters = state.modules["kvm_amd"]
    assert parameters["sev"] == words[found.sev]
    assert parameters["sev_es"] == words[found.sev_es]
    assert parameters.get("sev_snp", "N") == words[found.sev_snp]


def test_gates_that_came_later_do_not_stop_older_kernels() -> None:
    lbrv = with_defects("genoa", ["lbrv-off"])
    assert boot(on(lbrv, "6.9.1")).kvm.sev_es
    assert not boot(on(lbrv, "6.10.0")).kvm.sev_es


def test_a_resource_without_asids_has_no_line() -> None:
    assert boot(with_defects("genoa", ["zero-es-asids"])).misc_capacity == {"sev": 1006}
    assert boot(with_defects("genoa", ["all-asids-es"])).misc_capacity == {"sev_es": 1006}


def test_sev_without_asids_is_on_and_unusable() -> None:
    spec = with_defects("genoa", ["all-asids-es"])
    state = boot(spec)
    assert "kvm_amd: SEV unusable (ASIDs 1007 - 1006)" in state.log
    assert state.modules["kvm_amd"]["sev"] == "Y"
    assert "kvm_amd: SEV enabled (ASIDs 1007 - 1006)" in boot(on(spec, "6.8.0")).log


@pytest.mark.parametrize("defect", ["sev-init-failed", "snp-init-failed", "no-psp", "psp-silent"])
def test_since_6_16_the_parameters_tell_of_firmware_that_failed(defect: str) -> None:
    spec = with_defects("genoa", [defect])
    assert boot(on(spec, "6.16.0")).kvm == NOTHING
    assert boot(on(spec, "6.15.0")).kvm == SNP


def test_capacity_that_was_promised_before_the_firmware_failed_stays() -> None:
    state = boot(with_defects("genoa", ["sev-init-failed"]))
    assert state.kvm == NOTHING
    assert state.misc_capacity == {"sev": 754, "sev_es": 252}


def test_parameters_are_numbers_before_5_13() -> None:
    state = boot(with_defects("rome-es", ["int-parameters-kernel"]))
    assert (state.modules["kvm_amd"]["sev"], state.modules["kvm_amd"]["sev_es"]) == ("1", "1")
    unasked = replace(PRESETS["rome-es"], kernel=Kernel("5.11.0"))
    assert boot(unasked).modules["kvm_amd"]["sev"] == "0"


@pytest.mark.parametrize(
    ("release", "present"),
    [
        ("6.10.0", set()),
        ("6.11.0", {"sev_snp"}),
        ("6.17.0", {"sev_snp"}),
        ("6.18.0", {"sev_snp", "ciphertext_hiding_asids"}),
    ],
)
def test_a_parameter_is_there_once_the_kernel_has_it(release: str, present: set[str]) -> None:
    found = boot(on(PRESETS["genoa"], release)).modules["kvm_amd"].keys()
    assert found & {"sev_snp", "ciphertext_hiding_asids"} == present


@pytest.mark.parametrize(
    ("release", "types"),
    [
        ("6.7.0", VmTypes(0)),
        ("6.8.0", VmTypes.DEFAULT),
        ("6.10.0", VmTypes.DEFAULT | VmTypes.SEV | VmTypes.SEV_ES),
        ("6.11.0", ALL_TYPES),
        ("7.2.0", ALL_TYPES),
    ],
)
def test_vm_types_follow_the_parameters_once_kvm_tells_them(release: str, types: VmTypes) -> None:
    assert boot(on(PRESETS["genoa"], release)).vm_types == types
    assert int(ALL_TYPES) == 0b11101


def test_vm_types_without_asids_are_advertised_until_7_2() -> None:
    spec = with_defects("genoa", ["all-asids-es"])
    assert boot(spec).vm_types == ALL_TYPES
    assert boot(on(spec, "7.2.0")).vm_types == ALL_TYPES & ~VmTypes.SEV


@pytest.mark.parametrize("preset", ["milan", "genoa", "bergamo", "siena", "turin", "turin-dense"])
def test_firmware_refuses_sev_es_from_its_security_version_on(preset: str) -> None:
    below = with_defects(preset, ["es-open-to-cve"])
    at = with_defects(preset, ["es-blocked-by-firmware"])
    assert not es_refused(below)
    assert es_refused(at)
    assert at.firmware is not None
    assert at.firmware.current is not None
    assert at.firmware.current.snp == (4 if preset.startswith("turin") else 27)
    # Parameters know nothing of it; VM types do, from 7.2 on.
    assert boot(at).modules["kvm_amd"]["sev_es"] == "Y"
    assert VmTypes.SEV_ES in boot(at).vm_types
    assert VmTypes.SEV_ES not in boot(with_defects(preset, ["es-revoked-by-kernel"])).vm_types


def test_firmware_refuses_nothing_while_snp_is_not_initialised() -> None:
    spec = with_defects("genoa", ["es-revoked-by-kernel", "rmp-not-reserved"])
    assert VmTypes.SEV_ES in boot(spec).vm_types


def test_ciphertext_hiding_splits_the_range_and_not_the_capacity() -> None:
    state = boot(with_defects("turin", ["ciphertext-hiding"]))
    assert state.asids == AsidRanges((100, 1006), (34, 99), (1, 33))
    assert state.misc_capacity == {"sev": 907, "sev_es": 99}
    assert state.modules["kvm_amd"]["ciphertext_hiding_asids"] == "33"
    assert state.log[-4:] == (
        "kvm_amd: SEV-SNP ciphertext hiding enabled",
        "kvm_amd: SEV enabled (ASIDs 100 - 1006)",
        "kvm_amd: SEV-ES enabled (ASIDs 34 - 99)",
        "kvm_amd: SEV-SNP enabled (ASIDs 1 - 33)",
    )


def test_ciphertext_hiding_may_leave_sev_es_nothing() -> None:
    state = boot(with_defects("turin", ["ciphertext-hiding-all"]))
    assert "kvm_amd: SEV-ES unusable (ASIDs 100 - 99)" in state.log
    assert state.kvm == SNP


def test_ciphertext_hiding_is_off_where_the_chip_has_none() -> None:
    kernel = Kernel("6.18.9", parameters={"ciphertext_hiding_asids": 50})
    state = boot(replace(PRESETS["genoa"], kernel=kernel))
    assert state.modules["kvm_amd"]["ciphertext_hiding_asids"] == "0"
    assert state.asids.sev_es == (1, 252)


@pytest.mark.parametrize(
    ("release", "lines"),
    [
        ("6.5.0", ("kvm_amd: SEV supported: 410 ASIDs", "kvm_amd: SEV-ES supported: 99 ASIDs")),
        ("6.2.0", ("SEV supported: 410 ASIDs", "SEV-ES supported: 99 ASIDs")),
        (
            "6.6.0",
            (
                "kvm_amd: SEV enabled (ASIDs 100 - 509)",
                "kvm_amd: SEV-ES enabled (ASIDs 1 - 99)",
            ),
        ),
    ],
)
def test_kvm_logs_in_the_words_of_its_version(release: str, lines: tuple[str, ...]) -> None:
    assert boot(on(PRESETS["rome-es"], release)).log[-2:] == lines
