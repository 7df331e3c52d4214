from __future__ import annotations

from dataclasses import replace

import pytest

from sevkit.errors import UsageError
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.spec import MEMORY_ENCRYPTION, NOTHING, Kernel


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.12.57+deb13-amd64", (6, 12)),
        ("5.15.0-161-generic", (5, 15)),
        ("7.1.8", (7, 1)),
        ("6.11.0-rc3-snp-host-85ef1ac03", (6, 11)),
    ],
)
def test_a_kernel_knows_its_version(release: str, version: tuple[int, int]) -> None:
    assert Kernel(release).version == version


def test_a_release_without_a_version_is_refused() -> None:
    with pytest.raises(UsageError, match="does not begin with a version"):
        _ = Kernel("mainline").version


def test_the_bios_decides_how_asids_are_shared_out() -> None:
    genoa = PRESETS["genoa"]
    before = genoa.cpuid(MEMORY_ENCRYPTION)
    after = replace(genoa, bios=replace(genoa.bios, max_asid=253, min_sev_asid=100))
    assert after.cpuid(MEMORY_ENCRYPTION) == before._replace(ecx=253, edx=100)


def test_the_bios_gives_no_asids_to_silicon_without_sev() -> None:
    intel = PRESETS["intel"]
    spec = replace(intel, bios=replace(intel.bios, max_asid=509, min_sev_asid=1))
    assert spec.cpuid(MEMORY_ENCRYPTION) == NOTHING


def test_a_leaf_that_is_not_known_answers_zeros() -> None:
    assert PRESETS["genoa"].cpuid(0x12345678) == NOTHING
    assert PRESETS["genoa"].cpuid(0, 7) == NOTHING
    assert PRESETS["arm64"].cpuid(0) == NOTHING


def test_a_parameter_that_nobody_gave_has_its_default() -> None:
    kernel = Kernel("6.18.9", parameters={"sev": 0})
    assert kernel.asked("sev") == 0
    assert kernel.asked("sev_es") == 1
    assert kernel.asked("ciphertext_hiding_asids", 0) == 0
