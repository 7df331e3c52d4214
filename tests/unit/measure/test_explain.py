from __future__ import annotations

import pytest

from sevkit.measure.explain import (
    KNOWN_SIGNATURES,
    NO_KERNEL_HASHES,
    SEV_ES_FEATURES,
    SNP_FEATURES,
    Boot,
    Firmware,
    Space,
    explain,
    size_of,
)
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.launch_digest import (
    compute_sev_digest,
    compute_sev_es_digest,
    compute_snp_digest,
)
from sevkit.measure.ovmf import PAGE
from sevkit.measure.terms import Era, Mode, Vmm
from sevkit.measure.vcpu import Registers
from sevkit.testing.firmware import FirmwareImage, encode_firmware

IMAGE = encode_firmware(FirmwareImage())
OTHER = encode_firmware(FirmwareImage(filler=0))
HASHES = compute_kernel_hashes(b"kernel", cmdline="quiet")
FIRMWARES = (Firmware("other", OTHER), Firmware("ours", IMAGE))
BOOTS = (NO_KERNEL_HASHES, Boot("as given", HASHES))
SNP = Space(
    Mode.SNP, FIRMWARES, BOOTS, tuple(Vmm), features=(1, 0x21), signatures=(0x800F12, 0xA00F11)
)


@pytest.mark.parametrize("vmm", list(Vmm))
@pytest.mark.parametrize("vcpus", [1, 2, 512])
def test_an_snp_digest_is_explained(vmm: Vmm, vcpus: int) -> None:
    registers = Registers(0xA00F11, 0x21, vmm)
    found = explain(SNP, compute_snp_digest(IMAGE, registers, vcpus, HASHES)).match
    assert found is not None
    assert (found.firmware, found.boot, found.vcpus) == ("ours", "as given", vcpus)
    assert found.registers is not None
    assert (found.registers.vmm, found.registers.sev_features) == (vmm, 0x21)
    assert found.registers.signature == (0xA00F11 if vmm is Vmm.QEMU else 0)


@pytest.mark.parametrize("era", list(Era))
def test_a_sev_es_digest_is_explained(era: Era) -> None:
    space = Space(Mode.SEV_ES, FIRMWARES, eras=tuple(Era), features=SEV_ES_FEATURES)
    registers = Registers(0xB00F21, 0x20, era=era)
    found = explain(space, compute_sev_es_digest(IMAGE, registers, 3)).match
    assert found is not None
    assert (found.firmware, found.vcpus, found.registers) == ("ours", 3, registers)


def test_a_sev_digest_is_explained() -> None:
    found = explain(Space(Mode.SEV, FIRMWARES, BOOTS), compute_sev_digest(OTHER, HASHES)).match
    assert found is not None
    assert (found.firmware, found.boot, found.vcpus) == ("other", "as given", None)


@pytest.mark.parametrize(
    "space",
    [
        SNP,
        Space(Mode.SEV, FIRMWARES, BOOTS),
        Space(Mode.SEV_ES, FIRMWARES, eras=tuple(Era), features=(0,), first=4, last=9),
        Space(Mode.SNP, FIRMWARES, signatures=(0,), features=(1,), first=512),
    ],
)
def test_a_search_in_vain_tries_the_whole_space(space: Space) -> None:
    seen: list[int] = []
    found = explain(space, bytes(48), seen.append)
    assert found.match is None
    assert found.tried == size_of(space) == seen[-1]
    assert found.skipped == ()


def test_counts_outside_of_the_range_do_not_match() -> None:
    registers = Registers(0x800F12, 1)
    digest = compute_snp_digest(IMAGE, registers, 3)
    inside = Space(Mode.SNP, FIRMWARES, first=3, last=3)
    assert explain(inside, digest).match is not None
    for first, last in ((1, 2), (4, 512)):
        space = Space(
            Mode.SNP, FIRMWARES, features=(1,), signatures=(0x800F12,), first=first, last=last
        )
        assert explain(space, digest).match is None


def test_a_candidate_that_cannot_be_measured_is_named_and_skipped() -> None:
    digest = compute_snp_digest(IMAGE, Registers(0x800F12, 1), 1)
    space = Space(Mode.SNP, (Firmware("empty", bytes(PAGE)), *FIRMWARES), features=(1,))
    found = explain(space, digest)
    assert found.match is not None
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith("empty, no kernel hashes: ")


def test_a_firmware_without_reset_address_is_searched_for_one_vcpu() -> None:
    data = encode_firmware(FirmwareImage(reset_eip=None))
    registers = Registers(0xA00F11, 1)
    space = Space(Mode.SNP, (Firmware("one", data),), features=(1,))
    found = explain(space, compute_snp_digest(data, registers, 1))
    assert found.match is not None
    in_vain = explain(space, bytes(48))
    assert in_vain.tried == len(KNOWN_SIGNATURES)
    assert len(in_vain.skipped) == 1


def test_likely_features_come_first() -> None:
    assert SNP_FEATURES[:3] == (0x1, 0x21, 0x81)
    assert {0x1, 0x21, 0x201, 0x221} <= set(SNP_FEATURES)
    assert all(value & 1 for value in SNP_FEATURES)
