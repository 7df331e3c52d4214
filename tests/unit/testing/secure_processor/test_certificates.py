"""An owner's certificates, each with one defect, and the status that tells the defect."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.session import encode_godh
from sevkit.abi.sevcert import (
    BODY_SIZE,
    Algorithm,
    Usage,
    encode_sev_certificate,
    parse_sev_certificate,
)
from sevkit.abi.signature import public_key_of
from sevkit.testing.secure_processor.certificates import (
    check_import,
    copy_signature,
    read_dh_key,
    strip_signatures,
)
from sevkit.testing.sev_chain import (
    SimulatedPlatform,
    certify,
    rsa_public_key,
    sign_ecdsa,
    sign_pss,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Refusal = Callable[[Callable[[], object]], FirmwareStatus]

EC: Final = Algorithm.ECDSA_SHA256
BAD_CERTIFICATE: Final = FirmwareStatus.INVALID_CERTIFICATE
BAD_SIGNATURE: Final = FirmwareStatus.BAD_SIGNATURE
FIRST, SECOND = 0x414, 0x61C


def slot(certificate: bytes, offset: int, usage: int, algorithm: int, signature: bytes) -> bytes:
    """Return a certificate with another signature slot."""
    filled = struct.pack("<II", usage, algorithm) + signature.ljust(512, b"\0")
    return certificate[:offset] + filled + certificate[offset + 520 :]


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


@dataclass
class Owner:
    """An external owner with a key on P-384, who signs what he is given."""

    key: ec.EllipticCurvePrivateKey
    current: bytes
    algorithm: Algorithm = EC

    @property
    def csr(self) -> bytes:
        return strip_signatures(self.current)

    def sign(self, body: bytes) -> bytes:
        sha384 = self.algorithm is Algorithm.ECDSA_SHA384
        return sign_ecdsa(self.key, body[:BODY_SIZE], sha384=sha384)

    def oca(self) -> bytes:
        algorithm = self.algorithm
        return certify(Usage.OCA, algorithm, self.key, {Usage.OCA: self.key}, algorithm)

    def pek(self, offset: int = FIRST) -> bytes:
        return slot(self.csr, offset, Usage.OCA, self.algorithm, self.sign(self.csr))


@pytest.fixture
def owner(sev_platform: SimulatedPlatform) -> Owner:
    return Owner(ec.generate_private_key(ec.SECP384R1()), sev_platform.chain.pek.data)


@pytest.fixture
def status(owner: Owner, refusal: Refusal) -> Callable[[bytes, bytes], FirmwareStatus]:
    return lambda pek, oca: refusal(lambda: check_import("IMPORT", pek, oca, owner.current))


@pytest.mark.parametrize(("signed", "free"), [(FIRST, SECOND), (SECOND, FIRST)])
def test_a_good_import_leaves_the_other_slot_to_the_cek(
    owner: Owner, signed: int, free: int
) -> None:
    assert check_import("IMPORT", owner.pek(signed), owner.oca(), owner.current) == free


def test_an_owner_may_sign_with_sha384(owner: Owner) -> None:
    owner.algorithm = Algorithm.ECDSA_SHA384
    assert check_import("IMPORT", owner.pek(), owner.oca(), owner.current) == SECOND


def test_an_owner_may_have_an_rsa_key(
    owner: Owner, status: Callable[[bytes, bytes], FirmwareStatus]
) -> None:
    key, how = rsa.generate_private_key(65537, 2048), Algorithm.RSA_SHA256
    bare = encode_sev_certificate(Usage.OCA, how, rsa_public_key(key))
    oca = slot(bare, FIRST, Usage.OCA, how, sign_pss(key, bare[:BODY_SIZE]))
    pek = slot(owner.csr, FIRST, Usage.OCA, how, sign_pss(key, owner.csr[:BODY_SIZE]))
    assert check_import("IMPORT", pek, oca, owner.current) == SECOND
    assert status(patched(pek, FIRST + 8, bytes(4)), oca) is BAD_SIGNATURE
    assert status(pek, patched(oca, FIRST + 8, bytes(4))) is BAD_SIGNATURE
    # what stands behind a signature in its slot is nobody's
    assert status(patched(pek, FIRST + 8 + 256, b"\1"), oca) is BAD_SIGNATURE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unknown usage of the key", BAD_CERTIFICATE),
        ("unknown algorithm of the key", BAD_CERTIFICATE),
        ("an algorithm that cannot sign", BAD_CERTIFICATE),
        ("unknown curve", BAD_CERTIFICATE),
        ("point off the curve", BAD_CERTIFICATE),
        ("first slot half empty", BAD_SIGNATURE),
        ("second slot half empty", BAD_SIGNATURE),
        ("unsigned", BAD_CERTIFICATE),
        ("signed as a PEK", BAD_CERTIFICATE),
        ("signed with another algorithm", BAD_CERTIFICATE),
        ("signature changed", BAD_SIGNATURE),
        ("signature without its shape", BAD_SIGNATURE),
        ("signed by somebody else", BAD_SIGNATURE),
        ("version changed after signing", BAD_SIGNATURE),
        ("signed with version 2", BAD_CERTIFICATE),
        ("a self-signed PEK", BAD_CERTIFICATE),
    ],
)
def test_an_oca_with_one_defect_is_refused_by_it(
    owner: Owner,
    status: Callable[[bytes, bytes], FirmwareStatus],
    name: str,
    expected: FirmwareStatus,
) -> None:
    good = owner.oca()
    stranger = ec.generate_private_key(ec.SECP384R1())
    second_version = patched(good, 0, b"\2")
    ecdh = encode_sev_certificate(
        Usage.OCA, Algorithm.ECDH_SHA256, public_key_of(owner.key.public_key())
    )
    oca = {
        "unknown usage of the key": patched(good, 0x08, b"\x77"),
        "unknown algorithm of the key": patched(good, 0x0C, b"\x77"),
        "an algorithm that cannot sign": slot(
            ecdh, FIRST, Usage.OCA, Algorithm.ECDH_SHA256, owner.sign(ecdh)
        ),
        "unknown curve": patched(good, 0x10, b"\3"),
        "point off the curve": patched(good, 0x14, bytes(8)),
        "first slot half empty": patched(good, FIRST + 4, bytes(4)),
        "second slot half empty": patched(good, SECOND + 4, b"\2"),
        "unsigned": strip_signatures(good),
        "signed as a PEK": slot(good, FIRST, Usage.PEK, EC, owner.sign(good)),
        "signed with another algorithm": slot(
            good, FIRST, Usage.OCA, Algorithm.ECDSA_SHA384, sign_ecdsa(owner.key, good[:BODY_SIZE])
        ),
        "signature changed": patched(good, FIRST + 8, bytes(4)),
        "signature without its shape": slot(good, FIRST, Usage.OCA, EC, bytes(512)),
        "signed by somebody else": certify(Usage.OCA, EC, owner.key, {Usage.OCA: stranger}),
        "version changed after signing": second_version,
        "signed with version 2": slot(
            second_version, FIRST, Usage.OCA, EC, owner.sign(second_version)
        ),
        "a self-signed PEK": certify(Usage.PEK, EC, owner.key, {Usage.PEK: owner.key}),
    }[name]
    assert status(owner.pek(), oca) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unsigned", BAD_CERTIFICATE),
        ("second slot half empty", BAD_SIGNATURE),
        ("signed as a CEK", BAD_CERTIFICATE),
        ("signed with another algorithm", BAD_CERTIFICATE),
        ("signed by another owner", BAD_SIGNATURE),
        ("signature changed", BAD_SIGNATURE),
        ("body changed after signing", BAD_SIGNATURE),
        ("another PEK, signed", BAD_CERTIFICATE),
        ("the same key with another API level, signed", BAD_CERTIFICATE),
        ("both slots used", BAD_CERTIFICATE),
        ("both slots the owner's", BAD_CERTIFICATE),
        ("the second of two does not hold", BAD_SIGNATURE),
    ],
)
def test_a_pek_with_one_defect_is_refused_by_it(
    owner: Owner,
    status: Callable[[bytes, bytes], FirmwareStatus],
    name: str,
    expected: FirmwareStatus,
) -> None:
    good, csr = owner.pek(), owner.csr
    stranger = ec.generate_private_key(ec.SECP384R1())
    level = patched(csr, 0x05, b"\x38")
    pek = {
        "unsigned": csr,
        "second slot half empty": patched(good, SECOND, Usage.CEK.to_bytes(4, "little")),
        "signed as a CEK": slot(csr, FIRST, Usage.CEK, EC, owner.sign(csr)),
        "signed with another algorithm": patched(good, FIRST + 4, b"\2\1"),
        "signed by another owner": slot(
            csr, FIRST, Usage.OCA, EC, sign_ecdsa(stranger, csr[:BODY_SIZE])
        ),
        "signature changed": patched(good, FIRST + 8 + 72, bytes(4)),
        "body changed after signing": patched(good, 0x05, b"\x38"),
        "another PEK, signed": certify(Usage.PEK, EC, stranger, {Usage.OCA: owner.key}),
        "the same key with another API level, signed": slot(
            level, FIRST, Usage.OCA, EC, owner.sign(level)
        ),
        "both slots used": copy_signature(owner.current, Usage.CEK, good, SECOND),
        "both slots the owner's": slot(good, SECOND, Usage.OCA, EC, owner.sign(good)),
        "the second of two does not hold": slot(good, SECOND, Usage.OCA, EC, bytes(512)),
    }[name]
    assert status(pek, owner.oca()) is expected


def test_of_two_signatures_by_one_key_the_second_decides(owner: Owner) -> None:
    oca = owner.oca()
    good = slot(oca, SECOND, Usage.OCA, EC, owner.sign(oca))
    spoilt_first = patched(good, FIRST + 8, bytes(8))
    assert check_import("IMPORT", owner.pek(), spoilt_first, owner.current) == SECOND


def test_what_stands_in_a_slot_of_another_is_not_looked_at(
    owner: Owner, status: Callable[[bytes, bytes], FirmwareStatus]
) -> None:
    oca = slot(owner.oca(), SECOND, Usage.PEK, EC, b"\xff" * 512)
    assert check_import("IMPORT", owner.pek(), oca, owner.current) == SECOND
    # in the PEK it takes the CEK's place
    pek = slot(owner.pek(), SECOND, Usage.PDH, EC, b"\xff" * 512)
    assert status(pek, owner.oca()) is BAD_CERTIFICATE


def test_a_signature_is_copied_with_its_usage(owner: Owner) -> None:
    moved = copy_signature(owner.current, Usage.CEK, owner.pek(SECOND), FIRST)
    usages = [each.usage for each in parse_sev_certificate(moved).signatures]
    assert usages == [Usage.CEK, Usage.OCA]
    assert moved[FIRST : FIRST + 520] == owner.current[SECOND : SECOND + 520]


def test_a_stripped_certificate_has_its_body_and_empty_slots(owner: Owner) -> None:
    csr = parse_sev_certificate(owner.csr)
    assert csr.body == owner.current[:BODY_SIZE]
    assert csr.signatures == ()
    assert len(owner.csr) == len(owner.current)


def test_a_dh_key_is_read_whatever_the_slots_hold() -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    godh = encode_godh(private)
    for data in (godh, godh[:BODY_SIZE] + bytes(1040), godh[:BODY_SIZE] + b"\xff" * 1040):
        assert read_dh_key("LAUNCH_START", data) == public_key_of(private.public_key())


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0x00, b"\2"),  # version
        (0x08, b"\2\x10"),  # usage PEK
        (0x08, b"\x77"),  # no usage
        (0x0C, b"\2"),  # ECDSA
        (0x0D, b"\1"),  # ECDH with SHA-384
        (0x10, b"\3"),  # no curve
        (0x14, bytes(8)),  # a point off the curve
    ],
)
def test_a_dh_certificate_with_another_body_is_refused(
    refusal: Refusal, offset: int, value: bytes
) -> None:
    godh = patched(encode_godh(ec.generate_private_key(ec.SECP384R1())), offset, value)
    assert refusal(lambda: read_dh_key("LAUNCH_START", godh)) is BAD_CERTIFICATE
