from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.attest.sev_explain import explain_launch
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.launch_digest import compute_sev_digest, compute_sev_es_digest
from sevkit.measure.terms import Era, Vmm
from sevkit.measure.vcpu import Registers

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def firmware(vectors: Path) -> bytes:
    return (vectors / "sev-crate" / "ovmf_AmdSev_suffix.bin").read_bytes()


def explain(firmware: bytes, digest: bytes) -> str:
    return explain_launch(firmware, None)(lambda candidate: candidate == digest)


@pytest.mark.parametrize(
    ("vcpus", "signature", "era", "features"),
    [(1, 0x800F12, Era.INIT, 0), (3, 0xA00F11, Era.INIT2, 0), (512, 0xAA0F02, Era.INIT, 0x20)],
)
def test_vcpus_cpu_era_and_features_are_found(
    firmware: bytes, vcpus: int, signature: int, era: Era, features: int
) -> None:
    registers = Registers(signature, features, Vmm.QEMU, era)
    words = explain(firmware, compute_sev_es_digest(firmware, registers, vcpus))
    assert f"with {vcpus} vCPU" in words
    assert "maxSockets" not in words
    assert f"{signature:#x}" in words
    assert f"era {era.value}," in words
    assert words.endswith(f"features {features:#x}")


def test_a_guest_without_encrypted_state_is_found(firmware: bytes) -> None:
    assert explain(firmware, compute_sev_digest(firmware)) == "it fits plain SEV"


def test_a_launch_without_the_kernel_hashes_is_found(firmware: bytes) -> None:
    hashes = compute_kernel_hashes(b"kernel")
    digest = compute_sev_digest(firmware)
    words = explain_launch(firmware, hashes)(lambda candidate: candidate == digest)
    assert words == "it fits plain SEV without kernel hashes"


def test_a_digest_of_something_else_is_not_explained_away(firmware: bytes) -> None:
    words = explain(firmware, bytes(32))
    assert words.startswith("none of ")
    assert int(words.split()[2]) > 10_000


def test_a_firmware_without_tables_is_searched_as_far_as_it_goes() -> None:
    assert explain(bytes(4096), bytes(32)).startswith("none of ")


def test_a_firmware_that_takes_no_kernel_hashes_is_searched_without_them() -> None:
    image = bytes(4096)
    digest = compute_sev_digest(image)
    words = explain_launch(image, compute_kernel_hashes(b"kernel"))(digest.__eq__)
    assert words == "it fits plain SEV without kernel hashes"


@pytest.mark.parametrize(("expected", "told"), [(None, False), (2, False), (3, True)])
def test_fewer_vcpus_than_expected_are_told_to_be_hot_plugged(
    firmware: bytes, expected: int | None, told: bool
) -> None:
    digest = compute_sev_es_digest(firmware, Registers(0x800F12, 0, Vmm.QEMU, Era.INIT), 2)
    words = explain_launch(firmware, None, vcpus=expected)(digest.__eq__)
    assert words.startswith("it fits SEV-ES with 2 vCPUs,")
    assert ("maxSockets" in words) == told
