"""The same reports, verdicts, launch digests, ID blocks and key digests as virtee's snpguest.

What it errs in is tested as such. It trims the command line, which QEMU does not. It never looks at
the chip ID, because it takes every VCEK for an ASK; nor at dates. Its EC2 is an older one than
ours (RDX was 0), its KRUN is not ours, and neither is compared.
"""

from __future__ import annotations

import base64
import json
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from sevkit.abi.idblock import (
    IdBlock,
    compute_key_digest,
    encode_id_auth,
    encode_id_block,
    parse_id_auth,
    parse_id_block,
)
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import parse_report
from sevkit.abi.signature import public_key_of
from sevkit.abi.tcb import TcbVersion, encode_tcb
from sevkit.abi.vek import VekKind
from sevkit.attest.container import ReportContainer, find_report
from sevkit.attest.expectations import ANY, Expectations
from sevkit.attest.idblock import sign_id_block, verify_id_auth
from sevkit.attest.snp import Trust, judge_report, pinned_roots
from sevkit.errors import SevkitError
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.launch_digest import compute_firmware_hash, compute_snp_digest
from sevkit.measure.ovmf import PAGE, Area, Section, SectionType
from sevkit.measure.vcpu import CPU_MODELS, Registers
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.snp_chain import EPOCH, YEAR, SigningSpec
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from subprocess import CompletedProcess

    from sevkit.testing.snp_chain import SimulatedRoots

    Ask = Callable[..., CompletedProcess[bytes]]

PRODUCTS: Final = [product for product in Product if product.line.snp]
LAUNCHES: Final = 60
ID_BLOCKS: Final = 12
#: Its CPU models: those whose version it knows.
MODELS: Final = (
    *("EPYC", "EPYC-v1", "EPYC-v2", "EPYC-v3", "EPYC-v4", "EPYC-IBPB"),
    *("EPYC-Rome", "EPYC-Rome-v1", "EPYC-Rome-v2", "EPYC-Rome-v3"),
    *("EPYC-Milan", "EPYC-Milan-v1", "EPYC-Milan-v2", "EPYC-Genoa", "EPYC-Genoa-v1"),
    *("EPYC-Turin", "EPYC-Turin-v1"),
)


@pytest.fixture(scope="module")
def snpguest(find_program: Callable[[str, str], Path]) -> Path:
    return find_program("snpguest", "snpguest")


def seeded(seed: int | str) -> random.Random:
    """Return the same data in every run."""
    return random.Random(seed)  # noqa: S311  # it makes test data, no keys


def ours(data: bytes, line: ProductLine) -> dict[str, Any]:
    """Return what we read, in the shape and with the names of its JSON."""
    report = parse_report(data)
    key = report.key_info

    def tcb(which: str) -> dict[str, int | None]:
        found = report.tcb(which, line)
        return {"fmc": found.fmc, **found.components}

    names = (
        *("family_id", "image_id", "report_data", "measurement", "host_data", "id_key_digest"),
        *("author_key_digest", "report_id", "report_id_ma", "chip_id"),
    )
    family, model, stepping = report.cpuid_fms or (None, None, None)
    signature = report.signature
    return {
        **{name: list(getattr(report, name)) for name in names},
        **{f"{which}_tcb": tcb(which) for which in ("current", "reported", "committed", "launch")},
        "version": report.version,
        "guest_svn": report.guest_svn,
        "policy": report.policy,
        "vmpl": report.vmpl,
        "sig_algo": 1,
        "plat_info": report.platform_info,
        "key_info": key.author_key_en | key.mask_chip_key << 1 | key.signing_key << 2,
        "cpuid_fam_id": family,
        "cpuid_mod_id": model,
        "cpuid_step": stepping,
        "current": report.current_version._asdict(),
        "committed": report.committed_version._asdict(),
        "launch_mit_vector": report.launch_mit_vector,
        "current_mit_vector": report.current_mit_vector,
        "signature": {
            "r": list(signature.r.to_bytes(72, "little")),
            "s": list(signature.s.to_bytes(72, "little")),
        },
    }


def theirs(ask: Ask, snpguest: Path, path: Path) -> dict[str, Any]:
    done = ask(snpguest, "display", "report", path, "--output", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def random_fields(rng: random.Random, version: int) -> dict[str, Any]:
    sizes = {"family_id": 16, "image_id": 16, "host_data": 32, "report_id": 32, "report_id_ma": 32}
    sizes |= {"report_data": 64, "measurement": 48, "id_key_digest": 48, "author_key_digest": 48}
    values: dict[str, Any] = {name: rng.randbytes(size) for name, size in sizes.items()}
    for when in ("current", "committed"):
        values |= {f"{when}_{part}": rng.randrange(256) for part in ("build", "minor", "major")}
    if version >= 5:
        values |= {f"{which}_mit_vector": rng.randrange(1 << 64) for which in ("launch", "current")}
    return values | {
        "guest_svn": rng.randrange(1 << 32),
        "vmpl": rng.randrange(4),
        "policy": 1 << 17 | (rng.randrange(1 << 26) & ~(1 << 17)),
        "platform_info": rng.randrange(256),
    }


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("product", PRODUCTS)
def test_every_field_is_read_alike(
    ask: Ask,
    snpguest: Path,
    roots_of: Mapping[ProductLine, SimulatedRoots],
    tmp_path: Path,
    product: Product,
    version: int,
) -> None:
    rng = seeded(f"{product}{version}")
    path = tmp_path / "report.bin"
    for kind in VekKind:
        chip = SimulatedChip(roots_of[product.line], product, kind)
        for changed in ({}, random_fields(rng, version)):
            data = chip.report(version, **changed)
            path.write_bytes(data)
            assert theirs(ask, snpguest, path) == ours(data, chip.line)


@pytest.mark.parametrize("name", ["go-sev-guest/attestation.bin", "sev-crate/report_milan.hex"])
def test_every_field_of_a_real_report_is_read_alike(
    ask: Ask, snpguest: Path, vectors: Path, tmp_path: Path, name: str
) -> None:
    data = find_report((vectors / name).read_bytes()).report
    path = tmp_path / "report.bin"
    path.write_bytes(data)
    assert theirs(ask, snpguest, path) == ours(data, ProductLine.MILAN)


class Judges:
    """Asks both whether a report is this chip's; the expectations are left open."""

    def __init__(self, ask: Ask, snpguest: Path, folder: Path) -> None:
        self._ask, self._snpguest, self._folder = ask, snpguest, folder

    def __call__(
        self, chip: SimulatedChip, report: bytes, vek: bytes | None = None
    ) -> tuple[bool, int]:
        """Return whether it accepts, and our exit code."""
        vlek = chip.kind is VekKind.VLEK
        intermediate = chip.roots.asvk if vlek else chip.roots.ask
        chain = encode_pem_certificate(intermediate) + encode_pem_certificate(chip.roots.ark)
        certs = self._folder / "certs"
        certs.mkdir(exist_ok=True)
        for name, der in (
            ("ark", chip.roots.ark),
            ("asvk" if vlek else "ask", intermediate),
            ("vlek" if vlek else "vcek", vek or chip.vek()),
        ):
            (certs / f"{name}.pem").write_bytes(encode_pem_certificate(der))
        path = self._folder / "report.bin"
        path.write_bytes(report)
        model = ("--processor-model", str(chip.line))
        accepted = all(
            self._ask(self._snpguest, "verify", *words).returncode == 0
            for words in (("certs", certs), ("attestation", certs, path, *model))
        )
        expected = Expectations(report_data=ANY, measurements=ANY)
        trust = Trust(
            datetime.now(UTC),
            pinned_roots(chip.roots.ark),
            vek=vek or chip.vek(),
            chain=chain,
        )
        try:
            return accepted, judge_report(ReportContainer(report), expected, trust).exit_code
        except SevkitError as error:
            return accepted, error.exit_code


@pytest.fixture
def judges(ask: Ask, snpguest: Path, tmp_path: Path) -> Judges:
    return Judges(ask, snpguest, tmp_path)


@pytest.mark.parametrize("product", PRODUCTS)
def test_good_reports_are_accepted_by_both(
    judges: Judges, roots_of: Mapping[ProductLine, SimulatedRoots], product: Product
) -> None:
    for kind in VekKind:
        chip = SimulatedChip(roots_of[product.line], product, kind)
        assert judges(chip, chip.report(3)) == (True, 0)
        assert judges(chip, chip.report(5)) == (True, 0)


@pytest.fixture(scope="module")
def milan(roots_of: Mapping[ProductLine, SimulatedRoots]) -> SimulatedChip:
    return SimulatedChip(roots_of[ProductLine.MILAN], Product.MILAN)


@pytest.mark.parametrize("offset", [0x50, 0x90, 0x1A0, 0x2A0, 0x2A0 + 72])
def test_both_refuse_a_report_that_was_changed(
    judges: Judges, milan: SimulatedChip, offset: int
) -> None:
    data = bytearray(milan.report(3))
    data[offset] ^= 1
    assert judges(milan, bytes(data)) == (False, 1)


@pytest.mark.parametrize("component", ["bootloader", "tee", "snp", "microcode"])
def test_both_refuse_the_certificate_of_another_tcb(
    judges: Judges, milan: SimulatedChip, component: str
) -> None:
    other = TcbVersion(**milan.tcb.components | {component: 3})
    report = milan.report(3, reported_tcb=encode_tcb(milan.line, other))
    assert judges(milan, report) == (False, 1)


def test_both_refuse_another_chips_certificate(judges: Judges, milan: SimulatedChip) -> None:
    other = SimulatedChip(milan.roots, Product.MILAN)
    assert judges(milan, milan.report(3), other.vek()) == (False, 1)


def test_it_does_not_compare_chip_ids(judges: Judges, milan: SimulatedChip) -> None:
    assert judges(milan, milan.report(3, chip_id=bytes(range(2, 66)))) == (True, 1)


def test_it_does_not_look_at_dates(judges: Judges, milan: SimulatedChip) -> None:
    expired = milan.roots.make_vek(
        VekKind.VCEK,
        milan.key.public_key(),
        milan.extensions(),
        spec=SigningSpec(ca=None, not_after=EPOCH + YEAR),
    )
    assert judges(milan, milan.report(3), expired) == (True, 1)


def test_it_accepts_a_guest_that_can_be_debugged(judges: Judges, milan: SimulatedChip) -> None:
    assert judges(milan, milan.report(3, policy=0x30000 | 1 << 19)) == (True, 3)


def random_image(rng: random.Random) -> FirmwareImage:
    kinds = [SectionType.SNP_SEC_MEM] * rng.randint(1, 4) + [SectionType.SNP_SECRETS]
    kinds += [SectionType.CPUID, SectionType.SVSM_CAA][: rng.randint(1, 2)]
    rng.shuffle(kinds)
    sections = []
    gpa = rng.randrange(1, 0x1000) * PAGE
    for kind in [*kinds, SectionType.SNP_KERNEL_HASHES]:
        pages = rng.randint(1, 20) if kind is SectionType.SNP_SEC_MEM else 1
        sections.append(Section(gpa, pages * PAGE, kind))
        gpa += (pages + rng.randint(0, 3)) * PAGE
    table = sections[-1].gpa + rng.randrange(0, PAGE - 176 + 1)
    return FirmwareImage(
        size=rng.randint(1, 8) * PAGE,
        reset_eip=rng.randrange(1, 1 << 32),
        hash_table=Area(table, 0x400),
        sections=tuple(sections),
        filler=rng.randrange(256),
    )


def measure(ask: Ask, snpguest: Path, *words: str | Path) -> str:
    done = ask(snpguest, "generate", "measurement", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip().removeprefix("0x")


@pytest.mark.parametrize("seed", range(LAUNCHES))
def test_launch_digests_agree(ask: Ask, snpguest: Path, tmp_path: Path, seed: int) -> None:
    rng = seeded(seed)
    data = encode_firmware(random_image(rng))
    firmware = tmp_path / "OVMF.fd"
    firmware.write_bytes(data)
    model, vcpus = rng.choice(MODELS), rng.choice([1, 2, 3, 16, 64])
    features = rng.choice([1, 0x21, 0x201, rng.randrange(1 << 64) | 1])
    words: list[str | Path] = ["--ovmf", firmware, "--vcpu-type", model, "--vcpus", str(vcpus)]
    words += ["--guest-features", hex(features)]
    hashes = None
    if rng.random() < 0.6:
        kernel = rng.randbytes(rng.randint(1, 3000))
        initrd = rng.randbytes(rng.randint(1, 3000)) if rng.random() < 0.6 else None
        cmdline = rng.choice([None, "quiet", "console=ttyS0 root=/dev/vda1", "ünïcode"])
        hashes = compute_kernel_hashes(kernel, initrd=initrd, cmdline=cmdline)
        (tmp_path / "kernel").write_bytes(kernel)
        words += ["--kernel", tmp_path / "kernel"]
        if initrd is not None:
            (tmp_path / "initrd").write_bytes(initrd)
            words += ["--initrd", tmp_path / "initrd"]
        if cmdline is not None:
            words += ["--append", cmdline]
    registers = Registers(CPU_MODELS[model], features)
    digest = compute_snp_digest(data, registers, vcpus, hashes)
    assert measure(ask, snpguest, *words) == digest.hex()


def test_the_whole_amdsev_firmware_agrees(ask: Ask, snpguest: Path, ovmf_amdsev: Path) -> None:
    data = ovmf_amdsev.read_bytes()
    done = ask(snpguest, "generate", "ovmf-hash", "--ovmf", ovmf_amdsev)
    assert done.stdout.decode().strip() == compute_firmware_hash(data).hex()
    theirs = measure(ask, snpguest, "--ovmf", ovmf_amdsev, "--vcpu-type", "EPYC-Genoa")
    registers = Registers(CPU_MODELS["EPYC-Genoa"], 1)
    assert theirs == compute_snp_digest(data, registers, 1).hex()


def test_it_trims_the_command_line(ask: Ask, snpguest: Path, tmp_path: Path) -> None:
    data = encode_firmware(FirmwareImage())
    firmware, kernel = tmp_path / "OVMF.fd", tmp_path / "kernel"
    firmware.write_bytes(data)
    kernel.write_bytes(b"kernel")
    words = ("--ovmf", firmware, "--kernel", kernel, "--vcpu-type", "EPYC", "--append", "quiet ")
    digests = [
        compute_snp_digest(
            data,
            Registers(CPU_MODELS["EPYC"], 1),
            1,
            compute_kernel_hashes(b"kernel", cmdline=cmdline),
        ).hex()
        for cmdline in ("quiet", "quiet ")
    ]
    assert measure(ask, snpguest, *words) == digests[0] != digests[1]


def write_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP384R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


@pytest.mark.parametrize("seed", range(ID_BLOCKS))
def test_id_blocks_agree(ask: Ask, snpguest: Path, tmp_path: Path, seed: int) -> None:
    rng = seeded(seed)
    id_key, author_key = write_key(tmp_path / "id.pem"), write_key(tmp_path / "author.pem")
    block = IdBlock(
        launch_digest=rng.randbytes(48),
        family_id=rng.randbytes(16),
        image_id=rng.randbytes(16),
        guest_svn=rng.randrange(1 << 32),
        policy=0x20000 | rng.choice([0, 1 << 16, 1 << 19, 1 << 20]),
    )
    digest = f"0x{block.launch_digest.hex()}"
    if rng.random() < 0.5:
        digest = base64.b64encode(block.launch_digest).decode()
    files = tmp_path / "block", tmp_path / "auth"
    done = ask(
        snpguest,
        *("generate", "id-block", tmp_path / "id.pem", tmp_path / "author.pem", digest),
        *("--family-id", block.family_id.hex(), "--image-id", block.image_id.hex()),
        *("--svn", str(block.guest_svn), "--policy", hex(block.policy)),
        *("--id-file", files[0], "--auth-file", files[1]),
    )
    assert done.returncode == 0, done.stderr
    their_block, their_auth = (base64.b64decode(path.read_bytes()) for path in files)

    assert their_block == encode_id_block(block)
    assert parse_id_block(their_block) == block
    auth = parse_id_auth(their_auth)
    verify_id_auth(block, auth)
    own = sign_id_block(block, id_key, author_key)
    assert (auth.id_key, auth.author_key) == (own.id_key, own.author_key)
    assert encode_id_auth(auth) == their_auth
    # Both sign with a random number, so only the bytes around the signatures can be the same.
    assert without_signatures(encode_id_auth(own)) == without_signatures(their_auth)


def without_signatures(auth: bytes) -> bytes:
    return auth[:0x40] + auth[0x240:0x680] + auth[0x880:]


@pytest.mark.parametrize("number", range(3))
def test_key_digests_agree(ask: Ask, snpguest: Path, tmp_path: Path, number: int) -> None:
    path = tmp_path / f"{number}.pem"
    digest = compute_key_digest(public_key_of(write_key(path).public_key()))
    done = ask(snpguest, "generate", "key-digest", path)
    assert done.stdout.decode().strip() == f"0x{digest.hex()}"
