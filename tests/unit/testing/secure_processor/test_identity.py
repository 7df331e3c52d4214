from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.sevcert import Usage, parse_sev_certificate
from sevkit.abi.tcb import TcbVersion, encode_tcb
from sevkit.abi.vek import VekKind
from sevkit.attest.chain import read_vek_extensions
from sevkit.attest.x509 import parse_certificate
from sevkit.errors import FormatError, SignatureMismatch, UsageError
from sevkit.secret import Secret
from sevkit.testing.secure_processor.core import DEFAULT_TCBS
from sevkit.testing.secure_processor.identity import (
    HASHSTICK,
    ChipIdentity,
    Vlek,
    read_hashstick_tcb,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric import ec

    from sevkit.testing import sev_chain, snp_chain

    RootsOf = Callable[[ProductLine], snp_chain.SimulatedRoots]
    ChipOf = Callable[[Product], ChipIdentity]

SECRET = Secret(bytes(range(32)))
TCB = DEFAULT_TCBS[ProductLine.MILAN]


def number(key: ec.EllipticCurvePrivateKey) -> int:
    return key.private_numbers().private_value


@pytest.fixture
def milan_chip(chip_of: ChipOf) -> ChipIdentity:
    return chip_of(Product.MILAN)


@pytest.mark.parametrize("product", list(Product))
def test_every_product_makes_chips(chip_of: ChipOf, product: Product) -> None:
    chip = chip_of(product)
    assert chip.line is product.line
    assert len(chip.chip_id) == 64
    assert chip.chip_id.startswith(chip.hardware_id)
    assert len(chip.hardware_id) == (8 if product.line is ProductLine.TURIN else 64)
    assert not any(chip.chip_id[len(chip.hardware_id) :])
    assert any(chip.hardware_id)


def test_two_chips_share_nothing(chip_of: ChipOf) -> None:
    one, other = chip_of(Product.MILAN), chip_of(Product.MILAN)
    assert one.chip_id != other.chip_id
    assert number(one.cek_key) != number(other.cek_key)
    assert number(one.vcek_key(TCB)) != number(other.vcek_key(TCB))


def test_one_secret_is_one_chip(sev_roots: sev_chain.SimulatedRoots, snp_roots_of: RootsOf) -> None:
    roots = snp_roots_of(ProductLine.MILAN)
    one, same = (ChipIdentity(Product.MILAN, sev_roots, roots, SECRET) for _ in range(2))
    assert one.chip_id == same.chip_id
    assert one.cek == same.cek
    assert number(one.vcek_key(TCB)) == number(same.vcek_key(TCB))


@pytest.mark.parametrize("name", ["bootloader", "tee", "snp", "microcode"])
def test_another_tcb_version_is_another_vcek(milan_chip: ChipIdentity, name: str) -> None:
    other = replace(TCB, **{name: TCB.components[name] + 1})
    assert number(milan_chip.vcek_key(other)) != number(milan_chip.vcek_key(TCB))


def test_the_cek_comes_without_and_with_amds_signature(milan_chip: ChipIdentity) -> None:
    bare, signed = (parse_sev_certificate(x) for x in (milan_chip.cek, milan_chip.signed_cek))
    assert bare.body == signed.body
    assert bare.signatures == ()
    assert [slot.usage for slot in signed.signatures] == [Usage.ASK]


def test_a_vceks_certificate_says_chip_and_tcb_and_is_the_same_every_time(
    milan_chip: ChipIdentity,
) -> None:
    der = milan_chip.vcek(TCB)
    assert milan_chip.vcek(TCB) is der
    claims = read_vek_extensions(VekKind.VCEK, parse_certificate(der))
    assert (claims.hwid, claims.tcb) == (milan_chip.hardware_id, TCB)
    public = x509.load_der_x509_certificate(der).public_key()
    assert public == milan_chip.vcek_key(TCB).public_key()


def test_a_chip_that_cannot_be_is_refused(
    sev_roots: sev_chain.SimulatedRoots, snp_roots_of: RootsOf
) -> None:
    milan_roots = snp_roots_of(ProductLine.MILAN)
    for product, roots, reason in (
        (Product.MILAN, None, "needs SNP roots"),
        (Product.ROME, milan_roots, "has no SNP roots"),
        (Product.GENOA, milan_roots, "under Milan roots"),
    ):
        with pytest.raises(UsageError, match=reason):
            ChipIdentity(product, sev_roots, roots)


def test_a_chip_without_snp_has_no_vcek(chip_of: ChipOf) -> None:
    with pytest.raises((UsageError, FormatError)):
        chip_of(Product.ROME).vcek(TCB)


def test_a_secret_is_not_shown(milan_chip: ChipIdentity) -> None:
    assert milan_chip.secret.reveal().hex() not in repr(milan_chip)


def test_a_hashstick_opens_on_the_chip_that_it_was_made_for(milan_chip: ChipIdentity) -> None:
    vlek = Vlek(milan_chip._roots, TCB)
    stick = milan_chip.seal_hashstick(vlek)
    assert len(stick) == 432
    assert read_hashstick_tcb(stick) == encode_tcb(ProductLine.MILAN, TCB)
    key, tcb = milan_chip.open_hashstick(stick)
    assert (number(key), tcb) == (number(vlek.key), encode_tcb(ProductLine.MILAN, TCB))


def test_a_hashstick_for_another_chip_does_not_open(
    milan_chip: ChipIdentity, chip_of: ChipOf
) -> None:
    stick = chip_of(Product.MILAN).seal_hashstick(Vlek(milan_chip._roots, TCB))
    with pytest.raises(SignatureMismatch):
        milan_chip.open_hashstick(stick)


@pytest.mark.parametrize("offset", [0x00, 0x0B, 0x10, 0x18F, 0x190, 0x197, 0x1A0, 0x1AF])
def test_a_changed_hashstick_does_not_open(milan_chip: ChipIdentity, offset: int) -> None:
    stick = bytearray(milan_chip.seal_hashstick(Vlek(milan_chip._roots, TCB)))
    stick[offset] ^= 1
    with pytest.raises(SignatureMismatch):
        milan_chip.open_hashstick(bytes(stick))


@pytest.mark.parametrize("offset", [0x0C, 0x0F, 0x198, 0x19F])
def test_a_hashstick_with_reserved_bytes_is_none(milan_chip: ChipIdentity, offset: int) -> None:
    stick = bytearray(milan_chip.seal_hashstick(Vlek(milan_chip._roots, TCB)))
    stick[offset] = 1
    with pytest.raises(FormatError) as caught:
        milan_chip.open_hashstick(bytes(stick))
    assert caught.value.offset == offset


def test_a_hashsticks_key_stands_in_its_last_stick_encrypted(milan_chip: ChipIdentity) -> None:
    vlek = Vlek(milan_chip._roots, TCB)
    stick = milan_chip.seal_hashstick(vlek)
    assert number(vlek.key).to_bytes(48, "little") not in stick
    assert [row.offset for row in HASHSTICK.fields] == [0, 0xC, 0x10, 0x190, 0x198, 0x1A0]


def test_a_vlek_names_its_provider_and_no_chip(snp_roots_of: RootsOf) -> None:
    vlek = Vlek(snp_roots_of(ProductLine.MILAN), TCB, csp_id="provider.example")
    claims = read_vek_extensions(VekKind.VLEK, parse_certificate(vlek.certificate))
    assert (claims.csp_id, claims.tcb) == ("provider.example", TCB)
    assert not claims.hwid


def test_turins_tcb_has_its_fmc(chip_of: ChipOf) -> None:
    chip = chip_of(Product.TURIN)
    tcb = TcbVersion(1, 1, 3, 80, fmc=2)
    claims = read_vek_extensions(VekKind.VCEK, parse_certificate(chip.vcek(tcb)))
    assert (claims.hwid, claims.tcb) == (chip.hardware_id, tcb)
    assert len(chip.hardware_id) == 8
