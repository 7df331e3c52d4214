"""The same digests as sev-snp-measure, over images and parameters made at random.

Left out is what it does not do or gets wrong: SEV-ES under KVM_SEV_ES_INIT (it only has the later
era), feature bits for SEV-ES (it ignores them), malformed images (it reads what it finds: an image
without footer has no SEV-ES reset address for it, and two kernel-hash sections are measured), and
COCONUT-SVSM (its x87 control word is zero by a slip of its own, and sevkit does not measure one).
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.errors import FormatError
from sevkit.measure.kernel_hashes import KernelHashes, compute_kernel_hashes
from sevkit.measure.launch_digest import (
    compute_firmware_hash,
    compute_sev_digest,
    compute_sev_es_digest,
    compute_snp_digest,
)
from sevkit.measure.ovmf import PAGE, Area, Section, SectionType
from sevkit.measure.terms import Vmm
from sevkit.measure.vcpu import CPU_MODELS, Registers, signature_of
from sevkit.testing.firmware import FirmwareImage, encode_firmware

if TYPE_CHECKING:
    from types import ModuleType

CASES: Final = 240
_VMMS: Final = {Vmm.QEMU: "QEMU", Vmm.EC2: "ec2", Vmm.GCE: "gce"}


@pytest.fixture(scope="session")
def peer() -> ModuleType:
    """The installed package, imported from where it is."""
    fallback = Path.home() / ".cache" / "sevkit" / "peers"
    folder = Path(os.environ.get("SEVKIT_PEERS") or fallback) / "sev-snp-measure"
    found = sorted(folder.glob("lib*/python3.*/site-packages/sevsnpmeasure"))
    if not found:
        pytest.skip(f"no sev-snp-measure in {folder}: hack/peers installs it")
    name = "sevsnpmeasure"
    spec = importlib.util.spec_from_file_location(
        name, found[0] / "__init__.py", submodule_search_locations=[str(found[0])]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    for part in ("guest", "sev_mode", "vcpu_types", "vmm_types"):
        importlib.import_module(f"{name}.{part}")
    return package


def seeded(seed: int) -> random.Random:
    """Return the same launches in every run."""
    return random.Random(seed)  # noqa: S311  # it makes test data, no keys


def random_image(rng: random.Random) -> FirmwareImage:
    kinds = [SectionType.SNP_SEC_MEM] * rng.randint(1, 4) + [SectionType.SNP_SECRETS]
    kinds += [SectionType.CPUID, SectionType.SVSM_CAA][: rng.randint(1, 2)]
    rng.shuffle(kinds)
    sections: list[Section] = []
    gpa = rng.randrange(1, 0x1000) * PAGE
    for kind in kinds:
        pages = rng.randint(1, 20) if kind in {SectionType.SNP_SEC_MEM, SectionType.SVSM_CAA} else 1
        sections.append(Section(gpa, pages * PAGE, kind))
        gpa += (pages + rng.randint(0, 3)) * PAGE
    sections.insert(
        rng.randint(0, len(sections)), Section(gpa, PAGE, SectionType.SNP_KERNEL_HASHES)
    )
    return FirmwareImage(
        size=rng.randint(1, 8) * PAGE,
        reset_eip=rng.randrange(1, 1 << 32),
        hash_table=Area(gpa + rng.randrange(0, PAGE - 176 + 1), rng.randint(176, 4096)),
        secret_area=None if rng.random() < 0.5 else Area(0x1000, 0xC00),
        sections=tuple(sections),
        filler=rng.randrange(256),
    )


def random_signature(rng: random.Random) -> int:
    if rng.random() < 0.7:
        return rng.choice(sorted(CPU_MODELS.values()))
    return rng.choice([0, 0xFFFF_FFFF, rng.randrange(1 << 32)])


class Boot:
    """A kernel, initrd and command line made at random, as files and as hashes."""

    def __init__(self, rng: random.Random, folder: Path) -> None:
        self.kernel = self.initrd = self.cmdline = ""
        self.hashes: KernelHashes | None = None
        if rng.random() < 0.4:
            return
        kernel = rng.randbytes(rng.randint(1, 5000))
        initrd = rng.randbytes(rng.randint(1, 5000)) if rng.random() < 0.6 else None
        words = ["", "quiet", "console=ttyS0 root=/dev/vda1 ", "ünïcode", " x\n", "y" * 3000]
        self.cmdline = rng.choice(words)
        self.hashes = compute_kernel_hashes(kernel, initrd=initrd, cmdline=self.cmdline)
        self.kernel = str(folder / "kernel")
        Path(self.kernel).write_bytes(kernel)
        if initrd is not None:
            self.initrd = str(folder / "initrd")
            Path(self.initrd).write_bytes(initrd)


def ask(
    peer: ModuleType,
    mode: str,
    path: Path,
    boot: Boot,
    **more: Any,  # noqa: ANN401  # the peer's own parameters
) -> bytes:
    found: bytes = peer.guest.calc_launch_digest(
        peer.sev_mode.SevMode[mode],
        more.get("vcpus", 1),
        more.get("signature", 0),
        str(path),
        boot.kernel,
        boot.initrd,
        boot.cmdline,
        more.get("features", 0),
        more.get("firmware_hash", ""),
        vmm_type=peer.vmm_types.VMMType[_VMMS[more.get("vmm", Vmm.QEMU)]],
    )
    return found


@pytest.mark.parametrize("seed", range(CASES))
def test_generated_launches_agree(peer: ModuleType, tmp_path: Path, seed: int) -> None:
    rng = seeded(seed)
    data = encode_firmware(random_image(rng))
    path = tmp_path / "OVMF.fd"
    path.write_bytes(data)
    boot = Boot(rng, tmp_path)
    signature = random_signature(rng)
    vcpus = rng.choice([1, 2, 3, 4, 16, 64])
    vmm = rng.choice(list(Vmm))
    features = rng.choice([1, 0x21, 0x201, 0x221, rng.randrange(1 << 64) | 1])

    assert compute_sev_digest(data, boot.hashes) == ask(peer, "SEV", path, boot)

    registers = Registers(signature, 0)
    assert compute_sev_es_digest(data, registers, vcpus, boot.hashes) == ask(
        peer, "SEV_ES", path, boot, vcpus=vcpus, signature=signature
    )

    registers = Registers(signature, features, vmm)
    theirs = {"vcpus": vcpus, "signature": signature, "features": features, "vmm": vmm}
    seed_digest = rng.randbytes(48) if rng.random() < 0.3 else None
    if seed_digest is not None:
        theirs["firmware_hash"] = seed_digest.hex()
    ours = compute_snp_digest(data, registers, vcpus, boot.hashes, firmware_hash=seed_digest)
    assert ours == ask(peer, "SEV_SNP", path, boot, **theirs)


def test_no_generated_launch_counts_twice() -> None:
    seen = set()
    for seed in range(CASES):
        data = encode_firmware(random_image(seeded(seed)))
        seen.add((compute_sev_digest(data), compute_snp_digest(data, Registers(0, 1), 1)))
    assert len(seen) == CASES


@pytest.mark.parametrize("name", ["ovmf_AmdSev_suffix.bin", "ovmf_OvmfX64_suffix.bin"])
@pytest.mark.parametrize("vmm", list(Vmm))
def test_real_suffix_images_agree(
    peer: ModuleType, vectors: Path, tmp_path: Path, name: str, vmm: Vmm
) -> None:
    path = vectors / "sev-crate" / name
    data = path.read_bytes()
    boot = Boot(seeded(1), tmp_path)
    boot.kernel, boot.hashes = "", None
    theirs = ask(peer, "SEV_SNP", path, boot, vcpus=4, signature=0xA00F11, features=1, vmm=vmm)
    assert compute_snp_digest(data, Registers(0xA00F11, 1, vmm), 4) == theirs


@pytest.mark.parametrize("seed", range(12))
def test_the_whole_amdsev_firmware_agrees(
    peer: ModuleType, ovmf_amdsev: Path, tmp_path: Path, seed: int
) -> None:
    rng = seeded(seed)
    data = ovmf_amdsev.read_bytes()
    boot = Boot(rng, tmp_path)
    vmm = rng.choice(list(Vmm))
    signature = random_signature(rng)
    theirs = ask(
        peer, "SEV_SNP", ovmf_amdsev, boot, vcpus=seed + 1, signature=signature, features=1, vmm=vmm
    )
    registers = Registers(signature, 1, vmm)
    assert compute_snp_digest(data, registers, seed + 1, boot.hashes) == theirs
    assert compute_firmware_hash(data) == peer.guest.calc_snp_ovmf_hash(str(ovmf_amdsev))


def test_both_refuse_kernel_hashes_that_the_firmware_does_not_take(
    peer: ModuleType, tmp_path: Path
) -> None:
    image = FirmwareImage()
    sections = tuple(s for s in image.sections or () if s.kind is not SectionType.SNP_KERNEL_HASHES)
    boot = next(b for b in (Boot(seeded(n), tmp_path) for n in range(9)) if b.hashes)
    path = tmp_path / "OVMF.fd"
    path.write_bytes(encode_firmware(replace(image, sections=sections)))
    with pytest.raises(RuntimeError):
        ask(peer, "SEV_SNP", path, boot)
    with pytest.raises(FormatError):
        compute_snp_digest(path.read_bytes(), Registers(0, 1), 1, boot.hashes)
    path.write_bytes(encode_firmware(replace(image, hash_table=None)))
    with pytest.raises(RuntimeError):
        ask(peer, "SEV", path, boot)
    with pytest.raises(FormatError):
        compute_sev_digest(path.read_bytes(), boot.hashes)


def test_every_cpu_model_that_both_know_has_the_same_signature(peer: ModuleType) -> None:
    theirs: dict[str, int] = peer.vcpu_types.CPU_SIGS
    assert len(theirs) >= 16
    assert {name: CPU_MODELS[name] for name in theirs} == theirs
    for family in (6, 15, 16, 23, 25, 26):
        for model in (0, 1, 0x11, 0xA0, 0xFF):
            for stepping in (0, 15):
                expected = peer.vcpu_types.cpu_sig(family, model, stepping)
                assert signature_of(family, model, stepping) == expected
