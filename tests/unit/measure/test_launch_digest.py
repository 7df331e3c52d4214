from __future__ import annotations

import hashlib
from itertools import islice

import pytest

from sevkit.errors import FormatError, UsageError
from sevkit.measure.kernel_hashes import compute_kernel_hashes, encode_kernel_hashes
from sevkit.measure.launch_digest import (
    compute_firmware_hash,
    compute_sev_digest,
    compute_sev_es_base,
    compute_sev_es_digest,
    compute_sev_es_digest_of_pages,
    compute_snp_base,
    compute_snp_digest,
    take,
)
from sevkit.measure.ovmf import PAGE, Section, SectionType
from sevkit.measure.terms import Era, Vmm
from sevkit.measure.vcpu import BSP_EIP, Registers, encode_vcpu
from sevkit.testing.firmware import FirmwareImage, encode_firmware

IMAGE = encode_firmware(FirmwareImage(size=2 * PAGE))
NO_TABLES = bytes(PAGE)
HASHES = compute_kernel_hashes(b"kernel", initrd=b"initrd", cmdline="quiet")
MILAN = Registers(0xA00F11, 1)
MILAN_ES = Registers(0xA00F11, 0, era=Era.INIT)


def chain(digest: bytes, contents: bytes, kind: int, gpa: int) -> bytes:
    info = digest + contents + bytes((0x70, 0, kind, 0, 0, 0, 0, 0)) + gpa.to_bytes(8, "little")
    return hashlib.sha384(info).digest()


def test_sev_hashes_the_firmware_alone() -> None:
    assert compute_sev_digest(NO_TABLES) == hashlib.sha256(NO_TABLES).digest()


def test_sev_hashes_the_table_of_kernel_hashes_after_the_firmware() -> None:
    expected = hashlib.sha256(IMAGE + encode_kernel_hashes(HASHES)).digest()
    assert compute_sev_digest(IMAGE, HASHES) == expected


def test_sev_without_kernel_hashes_does_not_ask_for_tables() -> None:
    broken = IMAGE[:-50] + b"\0\0" + IMAGE[-48:]
    assert compute_sev_digest(broken) == hashlib.sha256(broken).digest()
    with pytest.raises(FormatError, match="footer"):
        compute_sev_digest(broken, HASHES)


@pytest.mark.parametrize("data", [NO_TABLES, encode_firmware(FirmwareImage(hash_table=None))])
def test_kernel_hashes_need_a_firmware_that_takes_them(data: bytes) -> None:
    with pytest.raises(FormatError, match="no place for kernel hashes"):
        compute_sev_digest(data, HASHES)


def test_an_image_that_is_no_firmware_is_refused() -> None:
    for compute in (compute_sev_digest, compute_sev_es_base, compute_snp_base):
        with pytest.raises(FormatError, match="multiple of 4096"):
            compute(b"x")


def test_sev_es_hashes_one_page_for_each_vcpu() -> None:
    bsp = encode_vcpu(MILAN_ES, BSP_EIP)
    ap = encode_vcpu(MILAN_ES, 0x80B004)
    expected = hashlib.sha256(IMAGE + bsp + ap + ap).digest()
    assert compute_sev_es_digest(IMAGE, MILAN_ES, 3) == expected
    assert compute_sev_es_digest_of_pages(IMAGE, (bsp, ap, ap)) == expected


def test_the_register_eras_give_different_digests() -> None:
    later = Registers(0xA00F11, 0, era=Era.INIT2)
    assert compute_sev_es_digest(IMAGE, later, 1) != compute_sev_es_digest(IMAGE, MILAN_ES, 1)


def test_one_sev_es_vcpu_needs_no_reset_address() -> None:
    expected = hashlib.sha256(NO_TABLES + encode_vcpu(MILAN_ES, BSP_EIP)).digest()
    assert compute_sev_es_digest(NO_TABLES, MILAN_ES, 1) == expected
    with pytest.raises(FormatError, match="reset address"):
        compute_sev_es_digest(NO_TABLES, MILAN_ES, 2)


def test_a_reset_address_of_zero_is_refused() -> None:
    data = encode_firmware(FirmwareImage(reset_eip=0))
    with pytest.raises(FormatError, match="reset address"):
        compute_snp_digest(data, MILAN, 2)


@pytest.mark.parametrize("vcpus", [-1, 0, 513, 1 << 40])
def test_a_number_of_vcpus_that_no_guest_has_is_refused(vcpus: int) -> None:
    with pytest.raises(UsageError, match="expected 1 to 512"):
        compute_snp_digest(IMAGE, MILAN, vcpus)
    with pytest.raises(UsageError, match="expected 1 to 512"):
        compute_sev_es_digest(IMAGE, MILAN_ES, vcpus)


def test_the_number_of_own_pages_and_their_size_are_checked() -> None:
    with pytest.raises(UsageError, match="0 vCPUs"):
        compute_sev_es_digest_of_pages(IMAGE, ())
    with pytest.raises(UsageError, match="513 vCPUs"):
        compute_sev_es_digest_of_pages(IMAGE, (bytes(PAGE),) * 513)
    with pytest.raises(FormatError, match="expected 4096 bytes, got 4095"):
        compute_sev_es_digest_of_pages(IMAGE, (bytes(4095),))


def test_snp_chains_the_firmware_pages_below_4_gib() -> None:
    first = chain(bytes(48), hashlib.sha384(IMAGE[:PAGE]).digest(), 1, (1 << 32) - 2 * PAGE)
    both = chain(first, hashlib.sha384(IMAGE[PAGE:]).digest(), 1, (1 << 32) - PAGE)
    assert compute_firmware_hash(IMAGE) == both


SECTIONS = (
    Section(0x80_E000, PAGE, SectionType.CPUID),
    Section(0x80_0000, 2 * PAGE, SectionType.SNP_SEC_MEM),
    Section(0x80_D000, PAGE, SectionType.SNP_SECRETS),
    Section(0x80_F000, PAGE, SectionType.SVSM_CAA),
    Section(0x81_0000, PAGE, SectionType.SNP_KERNEL_HASHES),
)
CPUID = [(6, 0x80E000)]
REST = [(5, 0x80D000), (3, 0x80F000), (3, 0x810000)]


@pytest.mark.parametrize(
    ("vmm", "pages"),
    [
        (Vmm.QEMU, [*CPUID, (3, 0x800000), (3, 0x801000), *REST]),
        (Vmm.EC2, [(3, 0x800000), (3, 0x801000), *REST, *CPUID]),
        (Vmm.GCE, [*CPUID, (4, 0x800000), (4, 0x801000), *REST]),
    ],
)
def test_snp_chains_the_sections_as_each_hypervisor_does(
    vmm: Vmm, pages: list[tuple[int, int]]
) -> None:
    data = encode_firmware(FirmwareImage(sections=SECTIONS))
    digest = compute_firmware_hash(data)
    for kind, gpa in pages:
        digest = chain(digest, bytes(48), kind, gpa)
    assert compute_snp_base(data, vmm=vmm).digest == digest


def test_snp_measures_kernel_hashes_as_a_page_of_their_own() -> None:
    section = (Section(0x81_0000, PAGE, SectionType.SNP_KERNEL_HASHES),)
    data = encode_firmware(FirmwareImage(sections=section))
    page = (bytes(0xC00) + encode_kernel_hashes(HASHES)).ljust(PAGE, b"\0")
    expected = chain(compute_firmware_hash(data), hashlib.sha384(page).digest(), 1, 0x810000)
    assert compute_snp_base(data, HASHES).digest == expected


def test_snp_kernel_hashes_need_their_section() -> None:
    data = encode_firmware(FirmwareImage(sections=SECTIONS[:4]))
    with pytest.raises(FormatError, match="no SNP_KERNEL_HASHES section"):
        compute_snp_base(data, HASHES)


def test_snp_chains_one_step_for_each_vcpu() -> None:
    base = compute_snp_base(IMAGE)
    bsp = hashlib.sha384(encode_vcpu(MILAN, BSP_EIP)).digest()
    ap = hashlib.sha384(encode_vcpu(MILAN, 0x80B004)).digest()
    one = chain(base.digest, bsp, 2, 0xFFFFFFFFF000)
    two = chain(one, ap, 2, 0xFFFFFFFFF000)
    assert list(islice(base.digests(MILAN), 2)) == [one, two]
    assert compute_snp_digest(IMAGE, MILAN, 2) == two


def test_a_firmware_hash_stands_for_the_pages() -> None:
    seed = compute_firmware_hash(IMAGE)
    other = encode_firmware(FirmwareImage(size=2 * PAGE, filler=0))
    assert compute_snp_digest(IMAGE, MILAN, 1, firmware_hash=seed) == compute_snp_digest(
        IMAGE, MILAN, 1
    )
    assert compute_snp_digest(other, MILAN, 1, firmware_hash=seed) == compute_snp_digest(
        IMAGE, MILAN, 1
    )
    with pytest.raises(UsageError, match="48 bytes, not 32"):
        compute_snp_digest(IMAGE, MILAN, 1, firmware_hash=bytes(32))


@pytest.mark.parametrize("base", [compute_snp_base(IMAGE), compute_sev_es_base(IMAGE)])
def test_a_base_can_be_used_again(base: object) -> None:
    assert isinstance(base, type(compute_snp_base(IMAGE)) | type(compute_sev_es_base(IMAGE)))
    registers = Registers(0x800F12, 0)
    first = list(base.digests(registers))
    assert list(base.digests(registers)) == first
    assert len(set(first)) == len(first) == 512
    assert take(base, registers, 512) == first[-1]
