from __future__ import annotations

from pathlib import Path

import pytest

from sevkit.abi.policy import SigningKey, SnpPolicy
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import LAYOUT, parse_report
from sevkit.abi.tcb import TcbVersion
from sevkit.errors import FormatError

MILAN = bytes.fromhex(
    (Path(__file__).parents[2] / "vectors/data/sev-crate/report_milan.hex").read_text().strip()
)


def patched(*patches: tuple[int, bytes], base: bytes = MILAN) -> bytes:
    data = bytearray(base)
    for offset, value in patches:
        data[offset : offset + len(value)] = value
    return bytes(data)


def version(number: int, fms: bytes = bytes((0x19, 0x01, 0x01))) -> bytes:
    return patched((0, bytes((number,))), (0x188, fms))


def test_a_real_version_2_report_is_read() -> None:
    report = parse_report(MILAN)
    assert (report.version, report.vmpl, report.guest_svn) == (2, 0, 0)
    assert report.policy == 0x30000
    assert report.policy_flags == SnpPolicy.SMT | SnpPolicy.RESERVED_MUST_BE_ONE
    assert report.key_info.signing_key is SigningKey.VCEK
    assert report.product is None
    assert str(report.current_version) == "1.52.4"
    assert report.tcb("reported", ProductLine.MILAN) == TcbVersion(3, 0, 8, 115)
    assert report.signed == MILAN[:0x2A0]
    assert not report.chip_id_masked


@pytest.mark.parametrize("length", [*range(0, 1184, 37), 1183, 1185, 2 << 20])
def test_any_other_length_is_refused(length: int) -> None:
    with pytest.raises(FormatError, match="expected 1184 bytes"):
        parse_report(MILAN[:length].ljust(length, b"\0"))


@pytest.mark.parametrize(
    ("fms", "product"),
    [
        ((0x19, 0x01, 0x01), Product.MILAN),
        ((0x19, 0x11, 0x01), Product.GENOA),
        ((0x19, 0xA0, 0x02), Product.BERGAMO_OR_SIENA),
        ((0x1A, 0x02, 0x01), Product.TURIN),
        ((0x1A, 0x11, 0x00), Product.TURIN_DENSE),
    ],
)
@pytest.mark.parametrize("number", [3, 4, 5])
def test_versions_3_to_5_name_their_product(
    number: int, fms: tuple[int, int, int], product: Product
) -> None:
    report = parse_report(version(number, bytes(fms)))
    assert report.product is product
    assert report.cpuid_fms == fms
    assert (report.launch_mit_vector is None) is (number < 5)


def test_version_5_has_mitigation_vectors() -> None:
    data = patched((0x1F8, bytes((3,))), (0x200, bytes((7,))), base=version(5))
    report = parse_report(data)
    assert (report.launch_mit_vector, report.current_mit_vector) == (3, 7)


@pytest.mark.parametrize(
    ("defect", "data", "offset"),
    [
        ("version 0", patched((0, bytes(4))), 0),
        ("version 1", patched((0, b"\1")), 0),
        ("version 6", patched((0, b"\6")), 0),
        ("version 2**32-1", patched((0, b"\xff" * 4)), 0),
        ("signature algorithm 0", patched((0x34, b"\0")), 0x34),
        ("signature algorithm 2", patched((0x34, b"\2")), 0x34),
        ("policy bit 17 zero", patched((0x0A, b"\x01")), 0x08),
        ("policy bit 26", patched((0x0B, b"\x04")), 0x08),
        ("policy bit 63", patched((0x0F, b"\x80")), 0x08),
        ("VMPL 4", patched((0x30, b"\4")), 0x30),
        ("signing key none", patched((0x48, b"\x1c")), 0x48),
        ("signing key reserved", patched((0x48, b"\x08")), 0x48),
        ("key info bit 5", patched((0x48, b"\x20")), 0x48),
        ("reserved 0x4c", patched((0x4F, b"\1")), 0x4F),
        ("version 2 with a CPUID", patched((0x188, b"\x19")), 0x188),
        ("version 3 without a known product", version(3, bytes((0x1A, 0x50, 0))), 0x188),
        ("version 3 of a chip without SNP", version(3, bytes((0x17, 0x31, 0))), 0x188),
        ("version 3 with no CPUID at all", version(3, bytes(3)), 0x188),
        ("reserved 0x18b", patched((0x19F, b"\1")), 0x19F),
        ("reserved 0x1eb", patched((0x1EB, b"\1")), 0x1EB),
        ("reserved 0x1ef", patched((0x1EF, b"\1")), 0x1EF),
        ("version 4 with mitigation vectors", patched((0x1F8, b"\1"), base=version(4)), 0x1F8),
        ("reserved 0x208", patched((0x29F, b"\1")), 0x29F),
        ("r is zero", patched((0x2A0, bytes(72))), 0x2A0),
        ("s is zero", patched((0x2E8, bytes(72))), 0x2E8),
        ("r is the order or more", patched((0x2A0, b"\xff" * 48)), 0x2A0),
        ("s is the order or more", patched((0x2E8, b"\xff" * 48)), 0x2E8),
        ("r has high bytes", patched((0x2A0 + 71, b"\1")), 0x2A0),
        ("s has high bytes", patched((0x2E8 + 71, b"\1")), 0x2E8),
        ("bytes behind the signature", patched((0x49F, b"\1")), 0x49F),
    ],
)
def test_a_malformed_report_is_refused_where_it_is_malformed(
    defect: str, data: bytes, offset: int
) -> None:
    with pytest.raises(FormatError) as caught:
        parse_report(data)
    assert caught.value.offset == offset, defect
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("vmpl", [1, 2, 3, 0xFFFFFFFF])
def test_other_vmpls_are_well_formed(vmpl: int) -> None:
    assert parse_report(patched((0x30, vmpl.to_bytes(4, "little")))).vmpl == vmpl


def test_a_tcb_is_read_by_product_and_its_reserved_bytes_are_refused() -> None:
    raw = bytes((1, 2, 3, 4, 0, 0, 0, 5))
    report = parse_report(patched((0x180, raw), base=version(5, bytes((0x1A, 2, 1)))))
    assert report.tcb("reported", ProductLine.TURIN) == TcbVersion(2, 3, 4, 5, fmc=1)
    with pytest.raises(FormatError) as caught:
        report.tcb("reported", ProductLine.MILAN)
    assert caught.value.offset == 0x182


def test_a_masked_chip_id_is_all_zero() -> None:
    assert parse_report(patched((0x1A0, bytes(64)))).chip_id_masked


def test_the_layout_is_amds() -> None:
    offsets = {field.name: field.offset for field in LAYOUT.fields}
    assert offsets["report_data"] == 0x50
    assert offsets["measurement"] == 0x90
    assert offsets["chip_id"] == 0x1A0
    assert offsets["signature"] == 0x2A0
    assert LAYOUT.size == 1184
