"""The same platforms, sessions, measurements, secrets and VMSAs as virtee's sevctl.

It builds VMSAs as KVM_SEV_ES_INIT has them. It reads three of the four bytes of the address at
which application processors start, so images that start below 16 MiB are compared, and one test
shows the difference. Its sessions lose the firmware level that a guest policy demands. Of kernel,
initrd and command line it takes all or none.
"""

from __future__ import annotations

import base64
import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.secret_packet import (
    PACKET_HEADER,
    SecretEntry,
    SecretPacket,
    encode_secret_table,
    open_packet,
    parse_secret_table,
    seal_packet,
)
from sevkit.abi.session import (
    SessionBlob,
    TransportKeys,
    compute_shared_secret,
    godh_key,
    open_session,
    parse_session,
)
from sevkit.abi.sevcert import SIZE, Algorithm, parse_sev_certificate
from sevkit.abi.sevchain import parse_chain_export
from sevkit.attest.sev_platform import PlatformExpectations, judge_platform
from sevkit.errors import FormatError, SignatureMismatch
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.launch_digest import compute_sev_digest, compute_sev_es_digest
from sevkit.measure.launch_measurement import compute_launch_measurement
from sevkit.measure.ovmf import PAGE
from sevkit.measure.terms import Era
from sevkit.measure.vcpu import BSP_EIP, Registers, encode_vcpu, signature_of
from sevkit.secret import Secret
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.sev_chain import SimulatedPlatform, SimulatedRoots, make_platform, make_roots

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    from sevkit.abi.sevca import CaChain

    Ask = Callable[..., CompletedProcess[bytes]]

LAUNCHES: Final = 48
PACKETS: Final = 12
AT: Final = datetime(2026, 11, 23, tzinfo=UTC)
PARTS: Final = ("pdh", "pek", "oca", "cek")
CPUS: Final = ((23, 1, 2), (23, 49, 0), (25, 1, 1), (25, 17, 0), (25, 160, 2), (26, 2, 1))


@pytest.fixture(scope="module")
def sevctl(find_program: Callable[[str, str], Path]) -> Path:
    return find_program("sevctl", "sevctl")


def seeded(seed: int | str) -> random.Random:
    """Return the same data in every run."""
    return random.Random(seed)  # noqa: S311  # it makes test data, no keys


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@dataclass
class Judges:
    """Asks both whether a platform is genuine."""

    ask: Ask
    sevctl: Path
    folder: Path

    def __call__(
        self, export: bytes, ca: CaChain | None = None, root: bytes | None = None
    ) -> tuple[bool, bool]:
        words: list[str | Path] = ["verify", "--sev", write(self.folder / "sev.chain", export)]
        if ca is not None:
            words += ["--ca", write(self.folder / "ca.chain", ca.ask.data + ca.ark.data)]
        accepted = self.ask(self.sevctl, *words).returncode == 0
        try:
            chain, _ = parse_chain_export(export)
            verdict, _ = judge_platform(
                chain, PlatformExpectations(), at=AT, ca=ca, roots=(root,) if root else ()
            )
        except FormatError:
            return accepted, False
        return accepted, verdict.accepted


@pytest.fixture
def judges(ask: Ask, sevctl: Path, tmp_path: Path) -> Judges:
    return Judges(ask, sevctl, tmp_path)


def read_export(vectors: Path, line: str) -> bytes:
    folder = vectors / "sev-crate" / line
    return b"".join((folder / f"{part}.cert").read_bytes() for part in PARTS)


@pytest.fixture(scope="module")
def roots() -> SimulatedRoots:
    return make_roots(bits=4096)


@pytest.fixture(scope="module")
def platform(roots: SimulatedRoots) -> SimulatedPlatform:
    return make_platform(roots)


@pytest.mark.parametrize("line", ["naples", "rome"])
def test_a_real_platform_is_accepted_by_both(judges: Judges, vectors: Path, line: str) -> None:
    assert judges(read_export(vectors, line)) == (True, True)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("offset", [0x14, 0x100, 0x41C])
def test_both_refuse_a_real_platform_that_was_changed(
    judges: Judges, vectors: Path, part: int, offset: int
) -> None:
    export = bytearray(read_export(vectors, "naples"))
    export[part * SIZE + offset] ^= 1
    assert judges(bytes(export)) == (False, False)


@pytest.mark.parametrize("part", range(4))
def test_both_refuse_two_platforms_mixed(judges: Judges, vectors: Path, part: int) -> None:
    export, other = (read_export(vectors, line) for line in ("naples", "rome"))
    cut = slice(part * SIZE, (part + 1) * SIZE)
    assert judges(export[: cut.start] + other[cut] + export[cut.stop :]) == (False, False)


@pytest.mark.parametrize("bits", [2048, 4096])
@pytest.mark.parametrize("algorithm", [Algorithm.ECDSA_SHA256, Algorithm.ECDSA_SHA384])
def test_a_simulated_platform_is_accepted_by_both(
    judges: Judges, roots: SimulatedRoots, bits: int, algorithm: Algorithm
) -> None:
    made = roots if bits == 4096 else make_roots(bits=bits)
    export = make_platform(made, algorithm=algorithm).chain.encode()
    assert judges(export, made.ca, made.root) == (True, True)


def test_both_refuse_a_simulated_platform_under_other_roots(
    judges: Judges, platform: SimulatedPlatform
) -> None:
    other = make_roots()
    assert judges(platform.chain.encode(), other.ca, other.root) == (False, False)


def test_it_trusts_any_root_that_it_is_given(
    judges: Judges, roots: SimulatedRoots, platform: SimulatedPlatform
) -> None:
    assert judges(platform.chain.encode(), roots.ca) == (True, False)


def without_leavings(godh: bytes) -> bytes:
    """Return the certificate with zeros behind its key, where it leaves what was in its memory.

    Those bytes are reserved, and we refuse them there as in every certificate.
    """
    return godh[:KEY_END] + bytes(SIGNATURES - KEY_END) + godh[SIGNATURES:]


#: Offsets in a certificate: behind curve, QX and QY, and of the first signature.
KEY_END: Final = 0x14 + 72 + 72
SIGNATURES: Final = 0x414


@dataclass
class Session:
    """One session that it made for ``policy``, and the platform's side of the key agreement."""

    blob: SessionBlob
    shared: Secret
    keys: TransportKeys


@pytest.fixture
def make_session(
    ask: Ask, sevctl: Path, platform: SimulatedPlatform, tmp_path: Path
) -> Callable[[int], Session]:
    def make(policy: int) -> Session:
        pdh = write(tmp_path / "pdh.cert", platform.chain.pdh.data)
        done = ask(sevctl, "session", "--name", "vm", pdh, str(policy), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        godh, blob = (
            base64.b64decode((tmp_path / f"vm_{name}.b64").read_bytes())
            for name in ("godh", "session")
        )
        owner = godh_key(parse_sev_certificate(without_leavings(godh)))
        tek, tik = (Secret((tmp_path / f"vm_{name}.bin").read_bytes()) for name in ("tek", "tik"))
        shared = compute_shared_secret(platform.pdh_key, owner)
        return Session(parse_session(blob), shared, TransportKeys(tek=tek, tik=tik))

    return make


@pytest.mark.parametrize("policy", [0, 1, 5, 0x3F])
def test_its_sessions_open_on_the_platform_that_they_are_for(
    make_session: Callable[[int], Session], policy: int
) -> None:
    session = make_session(policy)
    assert open_session(session.blob, session.shared, policy) == session.keys
    with pytest.raises(SignatureMismatch):
        open_session(session.blob, session.shared, policy ^ 2)


def test_its_sessions_lose_the_firmware_level_of_the_policy(
    make_session: Callable[[int], Session],
) -> None:
    # 55766 chapter 3 has API_MAJOR and API_MINOR in a byte each; it reads four bits of one byte.
    session = make_session(0x1700_0005)
    assert open_session(session.blob, session.shared, 5) == session.keys
    with pytest.raises(SignatureMismatch):
        open_session(session.blob, session.shared, 0x1700_0005)


@pytest.mark.parametrize("fms", CPUS)
def test_vmsas_agree(ask: Ask, sevctl: Path, tmp_path: Path, fms: tuple[int, int, int]) -> None:
    image = FirmwareImage(reset_eip=seeded(fms[1]).randrange(1, 1 << 24))
    firmware = write(tmp_path / "OVMF.fd", encode_firmware(image))
    registers = Registers(signature_of(*fms), 0, era=Era.INIT)
    for cpu, eip in enumerate((BSP_EIP, image.reset_eip or 0)):
        path = tmp_path / f"vmsa{cpu}.bin"
        words: list[str | Path] = ["--cpu", str(cpu), "--userspace", "qemu", "--firmware", firmware]
        for name, value in zip(("--family", "--model", "--stepping"), fms, strict=True):
            words += [name, str(value)]
        done = ask(sevctl, "vmsa", "build", *words, path)
        assert done.returncode == 0, done.stderr
        assert path.read_bytes() == encode_vcpu(registers, eip)


def test_it_reads_three_bytes_of_the_reset_address(ask: Ask, sevctl: Path, tmp_path: Path) -> None:
    image = FirmwareImage(reset_eip=0x7F80_B004)
    firmware = write(tmp_path / "OVMF.fd", encode_firmware(image))
    path = tmp_path / "vmsa1.bin"
    words = ("--cpu", "1", "--userspace", "qemu", "--firmware", firmware)
    done = ask(sevctl, "vmsa", "build", *words, "--family", "25", "--model", "1", path)
    assert done.returncode == 0, done.stderr
    registers = Registers(signature_of(25, 1, 0), 0, era=Era.INIT)
    assert path.read_bytes() == encode_vcpu(registers, 0x80_B004)
    assert path.read_bytes() != encode_vcpu(registers, 0x7F80_B004)


@pytest.mark.parametrize("seed", range(LAUNCHES))
def test_launch_measurements_agree(ask: Ask, sevctl: Path, tmp_path: Path, seed: int) -> None:
    rng = seeded(seed)
    image = FirmwareImage(
        size=rng.randint(1, 4) * PAGE,
        reset_eip=rng.randrange(1, 1 << 32),
        filler=rng.randrange(256),
    )
    firmware = encode_firmware(image)
    words: list[str | Path] = ["--firmware", write(tmp_path / "OVMF.fd", firmware)]
    hashes = None
    if rng.random() < 0.5:
        kernel, initrd = rng.randbytes(rng.randint(1, 3000)), rng.randbytes(rng.randint(0, 3000))
        cmdline = rng.choice(["", "quiet", " a  b \n", "ünïcode", "z" * 2500])
        hashes = compute_kernel_hashes(kernel, initrd=initrd, cmdline=cmdline)
        words += ["--kernel", write(tmp_path / "kernel", kernel)]
        words += ["--initrd", write(tmp_path / "initrd", initrd), f"--cmdline={cmdline}"]
    policy = rng.randrange(1 << 32)
    if policy & 4:
        vcpus = rng.choice([1, 2, 3, 16])
        registers = Registers(signature_of(*rng.choice(CPUS)), 0, era=rng.choice(list(Era)))
        digest = compute_sev_es_digest(firmware, registers, vcpus, hashes)
        for cpu, eip in enumerate((BSP_EIP, image.reset_eip or 0)):
            page = write(tmp_path / f"vmsa{cpu}.bin", encode_vcpu(registers, eip))
            words += [f"--vmsa-cpu{cpu}", page]
        words += ["--num-cpus", str(vcpus)]
    else:
        digest = compute_sev_digest(firmware, hashes)
    numbers = {name: rng.randrange(256) for name in ("api_major", "api_minor", "build_id")}
    for name, value in numbers.items():
        words += [f"--{name.replace('_', '-')}", rng.choice([str(value), hex(value)])]
    tik, mnonce = rng.randbytes(16), rng.randbytes(16)
    words += ["--policy", hex(policy), "--tik", write(tmp_path / "tik.bin", tik)]
    words += ["--nonce", base64.b64encode(mnonce).decode()]

    done = ask(sevctl, "measurement", "build", *words)
    assert done.returncode == 0, done.stderr
    expected = compute_launch_measurement(
        Secret(tik), policy=policy, digest=digest, mnonce=mnonce, **numbers
    )
    assert base64.b64decode(done.stdout) == expected + mnonce


@pytest.mark.parametrize("seed", range(PACKETS))
def test_its_packets_open_and_are_packed_alike(
    ask: Ask, sevctl: Path, tmp_path: Path, seed: int
) -> None:
    rng = seeded(seed)
    keys = TransportKeys(tek=Secret(rng.randbytes(16)), tik=Secret(rng.randbytes(16)))
    measurement = rng.randbytes(48)
    words: list[str | Path] = ["--launch-measure-blob", base64.b64encode(measurement).decode()]
    words += ["--tek", write(tmp_path / "tek.bin", keys.tek.reveal())]
    words += ["--tik", write(tmp_path / "tik.bin", keys.tik.reveal())]
    entries = []
    for number in range(rng.randint(1, 4)):
        data = rng.randbytes(rng.choice([1, 11, 12, 13, 100, 3000]))
        entries.append(SecretEntry(uuid.UUID(int=rng.randrange(1, 1 << 128)), Secret(data)))
        path = write(tmp_path / f"secret{number}", data)
        words += ["--secret", f"{entries[-1].guid}:{path}"]
    header, payload = tmp_path / "header", tmp_path / "payload"
    done = ask(sevctl, "secret", "build", *words, header, payload)
    assert done.returncode == 0, done.stderr

    packet = SecretPacket(header.read_bytes(), payload.read_bytes())
    table = open_packet(keys, packet, measure=measurement[:32])
    assert parse_secret_table(table) == tuple(entries)
    own = encode_secret_table(entries)
    assert own == table
    iv = PACKET_HEADER.parse(packet.header).raw("iv")
    assert seal_packet(keys, own, measure=measurement[:32], iv=iv) == packet
    with pytest.raises(SignatureMismatch):
        open_packet(keys, packet, measure=measurement[16:])
