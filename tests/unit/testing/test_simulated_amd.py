from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.tcb import TcbVersion
from sevkit.errors import FormatError, HostReadError, UsageError
from sevkit.secret import Secret
from sevkit.testing.simulated_amd import SimulatedAmd

if TYPE_CHECKING:
    from pathlib import Path

TCB = TcbVersion(bootloader=4, tee=0, snp=24, microcode=219)


@pytest.fixture(scope="module")
def milan() -> SimulatedAmd:
    """One AMD with a Milan chip: its keys cost seconds."""
    amd = SimulatedAmd()
    amd.make_chip(Product.MILAN, Secret(bytes(range(32))))
    return amd


@pytest.fixture
def saved(milan: SimulatedAmd, tmp_path: Path) -> Path:
    folder = tmp_path / "amd"
    milan.save(folder)
    return folder


def test_a_lines_keys_are_the_same_in_both_formats(milan: SimulatedAmd) -> None:
    sev, snp = milan.sev_roots(ProductLine.MILAN), milan.snp_roots(ProductLine.MILAN)
    assert (sev.ark_key, sev.ask_key) == (snp.ark_key, snp.ask_key)


def test_what_was_saved_is_loaded(milan: SimulatedAmd, saved: Path) -> None:
    again = SimulatedAmd.load(saved)
    (chip,), (was,) = again.chips, milan.chips
    assert chip.chip_id == was.chip_id
    assert chip.cek == was.cek
    assert again.sev_roots(ProductLine.MILAN).ask_ark == was.sev_roots.ask_ark
    roots = again.snp_roots(ProductLine.MILAN)
    assert (roots.ark, roots.ask, roots.asvk) == (
        milan.snp_roots(ProductLine.MILAN).ark,
        milan.snp_roots(ProductLine.MILAN).ask,
        milan.snp_roots(ProductLine.MILAN).asvk,
    )
    assert (
        chip.vcek_key(TCB).private_numbers().private_value
        == was.vcek_key(TCB).private_numbers().private_value
    )


def test_saving_again_changes_no_root(milan: SimulatedAmd, saved: Path) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    SimulatedAmd.load(saved).save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_private_keys_are_private(saved: Path) -> None:
    assert stat.S_IMODE(saved.stat().st_mode) == 0o700
    for path in [*saved.glob("*.key"), saved / "chips.json"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_absent_folder_is_a_new_amd(tmp_path: Path) -> None:
    assert SimulatedAmd.load(tmp_path / "none").chips == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "sevkit.io/simulated-amd/v1", "chips": [{"product": 1}]}']
)
def test_a_damaged_state_is_refused(saved: Path, text: str) -> None:
    (saved / "chips.json").write_text(text)
    with pytest.raises(FormatError):
        SimulatedAmd.load(saved)


def test_a_damaged_key_is_refused(saved: Path) -> None:
    (saved / "milan-ask.key").write_text("no key")
    with pytest.raises(FormatError, match=r"milan-ask\.key"):
        SimulatedAmd.load(saved)


def test_a_lost_certificate_is_not_taken_for_another(saved: Path) -> None:
    (saved / "milan-asvk.pem").unlink()
    with pytest.raises(HostReadError):
        SimulatedAmd.load(saved)


def test_chips_whose_roots_are_gone_get_no_others(saved: Path) -> None:
    for path in saved.glob("milan-*"):
        path.unlink()
    with pytest.raises(FormatError, match="roots are gone"):
        SimulatedAmd.load(saved)


def test_roots_without_chips_stay_the_roots(milan: SimulatedAmd, saved: Path) -> None:
    (saved / "chips.json").unlink()
    again = SimulatedAmd.load(saved)
    assert again.chips == []
    chip = again.make_chip(Product.MILAN)
    assert chip.sev_roots.root == milan.sev_roots(ProductLine.MILAN).root


def test_a_line_without_snp_has_no_x509_roots() -> None:
    with pytest.raises(UsageError, match="Rome has no SNP"):
        SimulatedAmd().snp_roots(ProductLine.ROME)
