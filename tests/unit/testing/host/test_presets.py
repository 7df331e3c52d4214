from __future__ import annotations

import pytest

import sevkit.testing.host as package
from sevkit.testing.consistency import check_host
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.spec import MEMORY_ENCRYPTION

SNP = ("milan", "genoa", "bergamo", "siena", "turin", "turin-dense")


def test_every_generation_and_three_without_sev_are_there() -> None:
    assert tuple(PRESETS) == (
        "naples",
        "rome",
        "rome-es",
        *SNP,
        "virtual-machine",
        "intel",
        "arm64",
    )
    assert all(spec.name == name for name, spec in PRESETS.items())


@pytest.mark.parametrize("name", PRESETS)
def test_each_is_a_machine_that_can_be(name: str) -> None:
    check_host(PRESETS[name])


@pytest.mark.parametrize("name", SNP)
def test_from_milan_on_encrypted_state_has_asids(name: str) -> None:
    found = PRESETS[name].cpuid(MEMORY_ENCRYPTION)
    assert found.ebx & 0x3F == 51
    assert found.ecx == (509 if name == "milan" else 1006)
    assert 1 < found.edx <= found.ecx


@pytest.mark.parametrize("name", SNP)
def test_from_milan_on_all_three_tcb_versions_agree(name: str) -> None:
    firmware = PRESETS[name].firmware
    assert firmware is not None
    assert firmware.current == firmware.committed == firmware.reported
    assert firmware.current is not None
    assert (firmware.current.fmc is None) == (not name.startswith("turin"))
    assert firmware.api == (1, 55)


def test_what_the_package_offers_is_there() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert package.PRESETS is PRESETS
    with pytest.raises(AttributeError):
        _ = package.nothing
