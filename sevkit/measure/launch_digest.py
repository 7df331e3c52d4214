"""The launch digest: what SEV, SEV-ES and SNP firmware hashes while a guest is put together.

Sources: 55766 6.5 (LAUNCH_MEASURE), 56860 8.17 (SNP_LAUNCH_UPDATE, PAGE_INFO); the order in which
QEMU, EC2 and GCE launch the parts.

SEV and SEV-ES hash one stream with SHA-256: the firmware file, the table of kernel hashes if there
is one, and for SEV-ES each vCPU's VMSA. SNP chains SHA-384 over pages: each step hashes the digest
so far with the page's own hash, type and address. In all three the vCPUs come last, so a ``Base``,
the digest of what comes before them, is computed once; from it any number of vCPUs, CPU models and
features follow at a hash of one page (SEV-ES) or of 112 bytes (SNP) each.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, final

from sevkit.errors import FormatError, UsageError
from sevkit.measure.kernel_hashes import (
    TABLE_SIZE,
    KernelHashes,
    encode_kernel_hashes,
    encode_kernel_hashes_page,
)
from sevkit.measure.ovmf import (
    FOUR_GIB,
    PAGE,
    Ovmf,
    Section,
    SectionType,
    check_image_size,
    parse_ovmf,
)
from sevkit.measure.terms import MAX_VCPUS, Vmm
from sevkit.measure.vcpu import BSP_EIP, Registers, encode_vcpu

if TYPE_CHECKING:
    from _hashlib import HASH
    from collections.abc import Iterator, Mapping

DIGEST_SIZE: Final = 48
_ZEROS: Final = bytes(DIGEST_SIZE)
#: The address of every VMSA page: all ones, cut to a page and to 52 bits.
_VMSA_GPA: Final = 0x0000_FFFF_FFFF_F000

_NORMAL: Final = 1
_VMSA: Final = 2
_ZERO: Final = 3
_UNMEASURED: Final = 4
_SECRETS: Final = 5
_CPUID: Final = 6


def _page_info(kind: int) -> bytes:
    """Bytes 96 to 103 of PAGE_INFO (56860 8.17): length 0x70, type, no IMI, no VMPL rights."""
    return bytes((0x70, 0, kind, 0, 0, 0, 0, 0))


def _extend(digest: bytes, contents: bytes, kind: int, gpa: int) -> bytes:
    info = digest + contents + _page_info(kind) + gpa.to_bytes(8, "little")
    return hashlib.sha384(info).digest()


#: Page type of each section, by hypervisor where they differ; kernel hashes are told apart below.
_SECTION_PAGES: Final[Mapping[SectionType, int]] = MappingProxyType(
    {
        SectionType.SNP_SEC_MEM: _ZERO,
        SectionType.SNP_SECRETS: _SECRETS,
        SectionType.CPUID: _CPUID,
        SectionType.SVSM_CAA: _ZERO,
        SectionType.SNP_KERNEL_HASHES: _ZERO,
    }
)
_GCE_PAGES: Final = MappingProxyType({**_SECTION_PAGES, SectionType.SNP_SEC_MEM: _UNMEASURED})


class Base(Protocol):
    """The digest of everything before the vCPUs; never changes, so it can be used again."""

    def digests(self, registers: Registers) -> Iterator[bytes]:
        """Yield the launch digest with 1, 2, 3 … up to 512 vCPUs."""


@final
@dataclass(frozen=True, slots=True)
class SnpBase:
    """SNP: ``digest`` is the 48-byte launch digest before the first VMSA."""

    digest: bytes
    reset_eip: int | None

    def digests(self, registers: Registers) -> Iterator[bytes]:
        """Yield the 48-byte digest with 1, 2, 3 … up to 512 vCPUs."""
        bsp = hashlib.sha384(encode_vcpu(registers, BSP_EIP)).digest()
        digest = _extend(self.digest, bsp, _VMSA, _VMSA_GPA)
        yield digest
        page = hashlib.sha384(_encode_ap(registers, self.reset_eip)).digest()
        tail = page + _page_info(_VMSA) + _VMSA_GPA.to_bytes(8, "little")
        sha384 = hashlib.sha384
        for _ in range(MAX_VCPUS - 1):
            digest = sha384(digest + tail).digest()
            yield digest


@final
class SevEsBase:
    """SEV-ES: the running SHA-256 over firmware and kernel hashes."""

    __slots__ = ("_running", "reset_eip")

    def __init__(self, running: HASH, reset_eip: int | None) -> None:
        self._running: Final = running.copy()
        self.reset_eip: Final = reset_eip

    def digests(self, registers: Registers) -> Iterator[bytes]:
        """Yield the 32-byte digest with 1, 2, 3 … up to 512 vCPUs."""
        running = self._running.copy()
        running.update(encode_vcpu(registers, BSP_EIP))
        yield running.digest()
        page = _encode_ap(registers, self.reset_eip)
        for _ in range(MAX_VCPUS - 1):
            running.update(page)
            yield running.digest()


def _encode_ap(registers: Registers, reset_eip: int | None) -> bytes:
    if not reset_eip:
        raise FormatError(
            "OVMF footer table",
            "gives no SEV-ES reset address, so only the first vCPU can be measured",
            hint="take a firmware built for SEV-ES; OVMF_VARS.fd and seabios are not",
        )
    return encode_vcpu(registers, reset_eip)


def take(base: Base, registers: Registers, vcpus: int) -> bytes:
    """Return the digest with exactly ``vcpus`` vCPUs, 1 to 512; raises ``UsageError`` outside."""
    check_vcpus(vcpus)
    for count, digest in enumerate(base.digests(registers), 1):
        if count == vcpus:
            return digest
    raise UsageError(f"{vcpus} vCPUs cannot be measured")


def check_vcpus(vcpus: int) -> None:
    """Refuse a number of vCPUs that no guest has."""
    if not 1 <= vcpus <= MAX_VCPUS:
        raise UsageError(f"{vcpus} vCPUs; expected 1 to {MAX_VCPUS}")


def compute_sev_digest(firmware: bytes, hashes: KernelHashes | None = None) -> bytes:
    """Return the 32-byte launch digest of a SEV guest.

    Source: 55766 6.5. The firmware's own tables are read only to see that it takes kernel hashes.
    Raises ``FormatError``.
    """
    return _sev_stream(firmware, hashes).digest()


def compute_sev_es_base(firmware: bytes, hashes: KernelHashes | None = None) -> SevEsBase:
    """Return the digest of a SEV-ES guest before its vCPUs; raises ``FormatError``."""
    return SevEsBase(_sev_stream(firmware, hashes), parse_ovmf(firmware).reset_eip)


def compute_sev_es_digest(
    firmware: bytes, registers: Registers, vcpus: int, hashes: KernelHashes | None = None
) -> bytes:
    """Return the 32-byte launch digest of a SEV-ES guest with ``vcpus`` vCPUs (1 to 512).

    Source: 55766 6.5 and 6.3 (LAUNCH_UPDATE_VMSA). Raises ``FormatError``, ``UsageError``.
    """
    return take(compute_sev_es_base(firmware, hashes), registers, vcpus)


def compute_sev_es_digest_of_pages(
    firmware: bytes, pages: tuple[bytes, ...], hashes: KernelHashes | None = None
) -> bytes:
    """Return the 32-byte digest of a SEV-ES guest whose VMSA pages the owner has himself.

    ``pages`` holds one 4096-byte page for each vCPU, in order. Raises ``FormatError`` for another
    size, ``UsageError`` for a number of pages that no guest has.
    """
    check_vcpus(len(pages))
    running = _sev_stream(firmware, hashes)
    for page in pages:
        if len(page) != PAGE:
            raise FormatError("VMSA", f"expected {PAGE} bytes, got {len(page)}")
        running.update(page)
    return running.digest()


def _sev_stream(firmware: bytes, hashes: KernelHashes | None) -> HASH:
    check_image_size(firmware)
    running = hashlib.sha256(firmware)
    if hashes is not None:
        _check_hash_table(parse_ovmf(firmware))
        running.update(encode_kernel_hashes(hashes))
    return running


def _check_hash_table(ovmf: Ovmf) -> int:
    area = ovmf.hash_table
    if area is None:
        raise FormatError(
            "OVMF footer table",
            "gives no place for kernel hashes, so this firmware does not check a kernel",
            hint="use an AmdSev build (OVMF.amdsev.fd), or measure without --kernel",
        )
    if area.size < TABLE_SIZE:
        message = f"its area for kernel hashes has {area.size} bytes, {TABLE_SIZE} are needed"
        raise FormatError("OVMF footer table", message)
    return area.gpa


def compute_firmware_hash(firmware: bytes) -> bytes:
    """Return the 48-byte SNP launch digest after the firmware's pages, the costly part.

    Source: 56860 8.17. The same for all vCPUs, CPUs and kernels, so it can be kept and given to
    ``compute_snp_base`` again. Raises ``FormatError``.
    """
    check_image_size(firmware)
    sha384 = hashlib.sha384
    view = memoryview(firmware)
    info = _page_info(_NORMAL)
    digest = _ZEROS
    gpa = FOUR_GIB - len(firmware)
    for offset in range(0, len(firmware), PAGE):
        page = sha384(view[offset : offset + PAGE]).digest()
        address = (gpa + offset).to_bytes(8, "little")
        digest = sha384(digest + page + info + address).digest()
    return digest


def compute_snp_base(
    firmware: bytes,
    hashes: KernelHashes | None = None,
    *,
    vmm: Vmm = Vmm.QEMU,
    firmware_hash: bytes | None = None,
) -> SnpBase:
    """Return the SNP launch digest before the vCPUs.

    Source: 56860 8.17; QEMU ``snp_populate_metadata_pages`` for the order. ``firmware_hash`` is
    what ``compute_firmware_hash`` gave: the image is then read for its tables only. Raises
    ``FormatError``, and ``UsageError`` for a ``firmware_hash`` that is not 48 bytes.
    """
    ovmf = parse_ovmf(firmware)
    sections = ovmf.sections
    if sections is None:
        raise FormatError(
            "OVMF footer table",
            "has no SEV metadata, without which no SNP guest starts",
            hint="use a firmware built for SNP, such as OVMF.amdsev.fd",
        )
    page = None if hashes is None else _kernel_hashes_page(ovmf, sections, hashes)
    if firmware_hash is not None and len(firmware_hash) != DIGEST_SIZE:
        raise UsageError(f"a firmware hash has {DIGEST_SIZE} bytes, not {len(firmware_hash)}")
    digest = compute_firmware_hash(firmware) if firmware_hash is None else firmware_hash
    kinds = _GCE_PAGES if vmm is Vmm.GCE else _SECTION_PAGES
    for section in _in_order(sections, vmm):
        if section.kind is SectionType.SNP_KERNEL_HASHES and page is not None:
            digest = _extend(digest, hashlib.sha384(page).digest(), _NORMAL, section.gpa)
            continue
        for gpa in range(section.gpa, section.gpa + section.size, PAGE):
            digest = _extend(digest, _ZEROS, kinds[section.kind], gpa)
    return SnpBase(digest, ovmf.reset_eip)


def compute_snp_digest(
    firmware: bytes,
    registers: Registers,
    vcpus: int,
    hashes: KernelHashes | None = None,
    *,
    firmware_hash: bytes | None = None,
) -> bytes:
    """Return the 48-byte launch digest of an SNP guest with ``vcpus`` vCPUs (1 to 512).

    Source: 56860 8.17. Raises ``FormatError``, ``UsageError``.
    """
    base = compute_snp_base(firmware, hashes, vmm=registers.vmm, firmware_hash=firmware_hash)
    return take(base, registers, vcpus)


def _in_order(sections: tuple[Section, ...], vmm: Vmm) -> tuple[Section, ...]:
    """EC2 launches the CPUID pages after all others; QEMU and GCE keep the table's order."""
    if vmm is not Vmm.EC2:
        return sections
    return tuple(sorted(sections, key=lambda section: section.kind is SectionType.CPUID))


def _kernel_hashes_page(ovmf: Ovmf, sections: tuple[Section, ...], hashes: KernelHashes) -> bytes:
    gpa = _check_hash_table(ovmf)
    found = next((s for s in sections if s.kind is SectionType.SNP_KERNEL_HASHES), None)
    if found is None:
        raise FormatError(
            "OVMF SEV metadata",
            "has no SNP_KERNEL_HASHES section, so this firmware does not check a kernel",
            hint="use an AmdSev build (OVMF.amdsev.fd), or measure without --kernel",
        )
    if gpa // PAGE != found.gpa // PAGE:
        message = f"kernel hashes at {gpa:#x} lie outside their section at {found.gpa:#x}"
        raise FormatError("OVMF SEV metadata", message)
    return encode_kernel_hashes_page(hashes, gpa % PAGE)
