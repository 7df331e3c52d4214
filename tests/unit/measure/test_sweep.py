from __future__ import annotations

import pytest

from sevkit.errors import UsageError
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.launch_digest import (
    compute_firmware_hash,
    compute_sev_digest,
    compute_sev_es_digest,
    compute_snp_digest,
)
from sevkit.measure.sweep import Cpu, Request, compute_digests, compute_references
from sevkit.measure.terms import Era, Mode, Vmm
from sevkit.measure.vcpu import Registers
from sevkit.testing.firmware import FirmwareImage, encode_firmware

IMAGE = encode_firmware(FirmwareImage())
MILAN = Cpu("EPYC-Milan", 0xA00F11)
HOST = Cpu("signature 0xa00f11", 0xA00F11)


def test_sev_has_one_digest_whatever_the_vcpus() -> None:
    (entry,) = compute_references(Request(Mode.SEV, IMAGE)).entries
    assert entry.digest == compute_sev_digest(IMAGE)
    assert not entry.covers_kernel
    assert not entry.covers_vcpu_state


def test_a_range_gives_one_digest_for_each_count_and_cpu() -> None:
    request = Request(Mode.SNP, IMAGE, 2, 4, (MILAN, HOST), sev_features=1)
    entries = compute_references(request).entries
    assert [entry.parameters["vcpus"] for entry in entries] == [2, 3, 4, 2, 3, 4]
    registers = Registers(0xA00F11, 1)
    expected = [compute_snp_digest(IMAGE, registers, n) for n in (2, 3, 4)]
    assert [entry.digest for entry in entries] == expected * 2
    assert entries[0].label == "2 vCPUs, EPYC-Milan"
    assert entries[5].label == "4 vCPUs, signature 0xa00f11"


def test_sev_es_gives_both_eras_unless_one_is_named() -> None:
    both = compute_references(Request(Mode.SEV_ES, IMAGE, cpus=(MILAN,))).entries
    assert [entry.label for entry in both] == [
        "1 vCPU, EPYC-Milan, init",
        "1 vCPU, EPYC-Milan, init2",
    ]
    assert [entry.digest for entry in both] == [
        compute_sev_es_digest(IMAGE, Registers(0xA00F11, 0, era=era), 1) for era in Era
    ]
    one = compute_references(Request(Mode.SEV_ES, IMAGE, cpus=(MILAN,), eras=(Era.INIT2,)))
    assert one.entries == both[1:]


def test_kernel_hashes_and_firmware_hash_are_said() -> None:
    hashes = compute_kernel_hashes(b"kernel")
    seed = compute_firmware_hash(IMAGE)
    request = Request(
        Mode.SNP, IMAGE, cpus=(MILAN,), sev_features=1, hashes=hashes, firmware_hash=seed
    )
    (entry,) = compute_references(request).entries
    assert entry.covers_kernel
    assert entry.parameters["kernel_sha256"] == hashes.kernel.hex()
    assert entry.parameters["firmware_hash"] == seed.hex()
    assert "firmware_sha256" not in entry.parameters


@pytest.mark.parametrize(
    "request_",
    [
        Request(Mode.SNP, IMAGE, sev_features=1),
        Request(Mode.SNP, IMAGE, 0, 1, (MILAN,)),
        Request(Mode.SNP, IMAGE, 1, 513, (MILAN,)),
        Request(Mode.SNP, IMAGE, 2, 1, (MILAN,)),
        Request(Mode.SEV_ES, IMAGE, cpus=(MILAN,), eras=()),
        Request(Mode.SEV_ES, IMAGE, cpus=(MILAN,), vmm=Vmm.EC2),
    ],
)
def test_a_request_that_names_nothing_is_refused(request_: Request) -> None:
    with pytest.raises(UsageError):
        compute_references(request_)


def test_a_sev_digest_has_no_vcpus_to_count() -> None:
    with pytest.raises(UsageError, match="covers no vCPUs"):
        list(compute_digests(Request(Mode.SEV, IMAGE, cpus=(MILAN,))))
