from __future__ import annotations

from dataclasses import replace

import pytest

from sevkit.testing.host.defects import with_defects
from sevkit.testing.host.firmware_start import Started, start_firmware
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.spec import HostSpec, Kernel

CCP = "ccp 0000:01:00.5: "


def genoa(*defects: str, release: str = "6.18.9") -> HostSpec:
    spec = with_defects("genoa", defects)
    return replace(spec, kernel=replace(spec.kernel, release=release))


def start(spec: HostSpec, *, snp_host: bool = True, sev_flag: bool = True) -> Started:
    return start_firmware(spec, snp_host=snp_host, sev_flag=sev_flag)


def said(started: Started) -> list[str]:
    return [line.removeprefix(CCP) for line in started.log[2:]]


def test_snp_is_initialised_first_and_then_sev() -> None:
    found = start(genoa())
    assert (found.device, found.answers, found.sev, found.snp, found.failed) == (
        *(True,) * 4,
        False,
    )
    assert said(found) == ["SEV-SNP API:1.55 build:40", "SEV API:1.55 build:40"]


def test_before_6_15_the_line_of_snp_came_last() -> None:
    found = start(genoa(release="6.14.0"))
    assert said(found) == ["SEV API:1.55 build:40", "SEV-SNP API:1.55 build:40"]


def test_without_snp_in_the_cpu_only_sev_is_initialised() -> None:
    found = start(genoa("snp-init-failed"), snp_host=False)
    assert (found.sev, found.snp, found.failed) == (True, False, False)
    assert said(found) == ["SEV API:1.55 build:40"]


@pytest.mark.parametrize(
    ("defect", "release", "lines"),
    [
        ("snp-init-failed", "6.18.9", ["SEV-SNP: SNP_INIT_EX failed rc -5, error 0x26"]),
        (
            "snp-init-failed",
            "6.12.1",
            [
                "SEV-SNP: failed to INIT rc -5, error 0x26",
                "SEV: failed to INIT error 0x1, rc -5",
            ],
        ),
        ("snp-firmware-too-old", "6.18.9", []),
        ("snp-firmware-too-old", "6.12.1", ["SEV: failed to INIT error 0x1, rc -5"]),
    ],
)
def test_once_snp_is_on_in_the_cpu_sev_cannot_do_without_it(
    defect: str, release: str, lines: list[str]
) -> None:
    found = start(genoa(defect, release=release))
    assert (found.device, found.answers) == (True, True)
    assert (found.sev, found.snp, found.failed) == (False, False, True)
    assert said(found) == lines


def test_sev_may_fail_and_leave_snp_initialised() -> None:
    found = start(genoa("sev-init-failed"))
    assert (found.sev, found.snp, found.failed) == (False, True, True)
    assert said(found) == ["SEV-SNP API:1.55 build:40", "SEV: INIT failed 0x13, rc -5"]


def test_snp_init_is_called_by_its_first_name_on_firmware_1_51() -> None:
    spec = genoa("snp-init-failed")
    assert spec.firmware is not None
    old = replace(spec, firmware=replace(spec.firmware, api=(1, 51)))
    assert said(start(old)) == ["SEV-SNP: SNP_INIT failed rc -5, error 0x26"]


def test_a_deferred_sev_waits_for_its_first_guest() -> None:
    found = start(genoa("psp-init-deferred"))
    assert (found.sev, found.snp, found.failed) == (False, True, False)
    assert said(found) == ["SEV-SNP API:1.55 build:40"]


@pytest.mark.parametrize("defect", ["kvm-sev-off", "kvm-amd-not-loaded", "svm-off"])
def test_since_6_15_the_firmware_waits_for_kvm_to_ask(defect: str) -> None:
    waiting, early = start(genoa(defect)), start(genoa(defect, release="6.14.0"))
    assert (waiting.device, waiting.answers) == (True, True)
    assert (waiting.sev, waiting.snp, waiting.failed) == (False, False, False)
    assert (early.sev, early.snp) == (True, True)


def test_a_silent_processor_has_no_device() -> None:
    found = start(genoa("psp-silent"))
    assert (found.device, found.answers, found.failed) == (False, False, True)
    assert said(found) == [
        "sev command 0x4 timed out, disabling PSP",
        "SEV: failed to get status. Error: 0x0",
    ]


def test_a_processor_that_died_keeps_its_device_and_what_it_did() -> None:
    found = start(genoa("psp-dead"))
    assert (found.device, found.answers, found.sev, found.snp) == (True, False, True, True)
    assert said(found)[-1] == "sev command 0x4 timed out, disabling PSP"


def test_an_update_is_logged_from_version_to_version() -> None:
    assert said(start(genoa("firmware-update-pending")))[0] == (
        "SEV firmware updated from 1.55.32 to 1.55.40"
    )


@pytest.mark.parametrize("name", ["virtual-machine", "intel", "arm64"])
def test_without_a_processor_there_is_nothing(name: str) -> None:
    assert start(PRESETS[name]) == Started(failed=True)


def test_an_absent_processor_is_not_in_the_log() -> None:
    assert start(genoa("no-psp")) == Started(failed=True)


def test_snp_needs_a_kernel_that_asks() -> None:
    spec = replace(PRESETS["rome"], kernel=Kernel("6.1.0"))
    found = start(spec, snp_host=False)
    assert (found.sev, found.snp) == (True, False)
