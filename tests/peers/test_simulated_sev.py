"""SEV and SEV-ES launches of simulated chips, judged by sevctl and by virt-qemu-sev-validate.

Platforms are verified by sevctl, sessions come from sevctl and from us, launch measurements are
compared with both programs', secrets are packed by all three, and the processor opens them.
libvirt's program runs with its own ``main``; of what stands in for its imports of libvirt and lxml
nothing is used. What a program does not know is a test of its own with that in its name.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.policy import sev_policy_api
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import FirmwareVersion
from sevkit.abi.secret_packet import (
    DISK_GUID,
    SecretEntry,
    SecretPacket,
    encode_secret_table,
    parse_secret_table,
    seal_packet,
)
from sevkit.abi.session import TransportKeys
from sevkit.abi.sevcert import SIZE
from sevkit.abi.sevchain import parse_chain_export
from sevkit.attest.sev_launch import LaunchClaim, LaunchExpectations, judge_launch
from sevkit.attest.sev_platform import PlatformExpectations, judge_platform
from sevkit.attest.sev_session import new_packet, new_session
from sevkit.measure.kernel_hashes import KernelHashes, compute_kernel_hashes
from sevkit.measure.launch_digest import compute_sev_digest, compute_sev_es_digest
from sevkit.measure.launch_measurement import parse_launch_measurement
from sevkit.measure.reference import Reference
from sevkit.measure.terms import Era, Mode
from sevkit.measure.vcpu import BSP_EIP, Registers, encode_vcpu, signature_of
from sevkit.secret import Secret
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.secure_processor.core import Firmware
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import make_roots
from sevkit.testing.virtual_machine import Machine, SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from subprocess import CompletedProcess

    from sevkit.testing.sev_chain import SimulatedRoots
    from sevkit.testing.snp_chain import SimulatedRoots as SnpRoots
    from sevkit.testing.virtual_machine import SevMachine

    Ask = Callable[..., CompletedProcess[bytes]]

AT: Final = datetime(2026, 11, 25, tzinfo=UTC)
RESET: Final = 0x80_B004
IMAGE: Final = FirmwareImage(reset_eip=RESET)
OVMF: Final = encode_firmware(IMAGE)
KERNEL, INITRD, CMDLINE = b"a kernel", b"an initrd", "console=ttyS0 quiet"
HASHES: Final = compute_kernel_hashes(KERNEL, initrd=INITRD, cmdline=CMDLINE)
FMS: Final = (25, 1, 1)
PHRASE: Final = b"correct horse battery staple"
OTHER: Final = uuid.UUID("0d8c0f0e-6d9f-4a35-9a0b-7c9a6bdcd2f7")

_RUNNER: Final = """
import sys, types
from importlib.machinery import SourceFileLoader
for name in ("libvirt", "lxml"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["lxml"].etree = None
module = types.ModuleType("peer")
sys.dont_write_bytecode = True
SourceFileLoader("peer", sys.argv.pop(1)).exec_module(module)
module.main()
"""


@pytest.fixture(scope="module")
def sevctl(find_program: Callable[[str, str], Path]) -> Path:
    return find_program("sevctl", "sevctl")


@pytest.fixture(scope="module")
def validator(find_program: Callable[[str, str], Path]) -> Path:
    return find_program("virt-qemu-sev-validate", "virt-qemu-sev-validate")


@pytest.fixture(scope="module")
def roots_by_size() -> Mapping[int, SimulatedRoots]:
    """Naples' keys have 2048 bits, all later ones 4096."""
    return {bits: make_roots(bits=bits) for bits in (2048, 4096)}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@dataclass(frozen=True)
class Host:
    """One host, its secure processor, and the files that go from it to the guest's owner."""

    roots: SimulatedRoots
    kvm: SimulatedKvm
    folder: Path

    @property
    def processor(self) -> SecureProcessor:
        return self.kvm.processor

    def export(self, *, signed: bool = True) -> bytes:
        """Return pdh ‖ pek ‖ oca ‖ cek, the CEK as AMD's key service or as the firmware has it."""
        pdh, chain = self.processor.sev.pdh_cert_export()
        cek = self.processor.identity.signed_cek if signed else chain[2 * SIZE :]
        return pdh + chain[: 2 * SIZE] + cek

    def session(self, policy: int) -> Session:
        """Return a session of ours, for the platform that we verified."""
        chain, _ = parse_chain_export(self.export())
        _, platform = judge_platform(
            chain, PlatformExpectations(), at=AT, ca=self.roots.ca, roots=(self.roots.root,)
        )
        assert platform is not None
        made = new_session(platform, policy)
        return Session(made.blob.encode(), made.godh, made.keys)

    def launch(self, launch: Launch, session: Session) -> SevMachine:
        return self.kvm.launch_sev(
            launch.machine, launch.policy, session=session.blob, godh=session.godh
        )

    def opened(self, guest: SevMachine) -> Secret:
        """Return the one secret that the guest has been given."""
        ((_, table),) = self.processor.sev_guests[guest.handle].injected
        return table


@dataclass(frozen=True)
class Session:
    """What the host gets, and what the owner keeps."""

    blob: bytes
    godh: bytes
    keys: TransportKeys


@dataclass(frozen=True)
class Launch:
    """What the owner wants to have launched."""

    policy: int
    vcpus: int = 1
    boot: bool = False

    @property
    def es(self) -> bool:
        return bool(self.policy & 4)

    @property
    def hashes(self) -> KernelHashes | None:
        return HASHES if self.boot else None

    @property
    def machine(self) -> Machine:
        registers = Registers(signature_of(*FMS), 0, era=Era.INIT)
        return Machine(OVMF, self.vcpus, registers if self.es else None, self.hashes)

    @property
    def reference(self) -> Reference:
        if self.es:
            registers = Registers(signature_of(*FMS), 0, era=Era.INIT)
            digest = compute_sev_es_digest(OVMF, registers, self.vcpus, self.hashes)
            return Reference(digest, Mode.SEV_ES, "expected", self.boot)
        return Reference(compute_sev_digest(OVMF, self.hashes), Mode.SEV, "expected", self.boot)


LAUNCHES: Final = {
    "SEV": Launch(1),
    "SEV with a kernel": Launch(3, boot=True),
    "SEV-ES": Launch(5, vcpus=1),
    "SEV-ES with four vCPUs": Launch(5, vcpus=4),
    "SEV-ES with a kernel": Launch(7, vcpus=2, boot=True),
}


@pytest.fixture
def make_host(
    roots_by_size: Mapping[int, SimulatedRoots],
    roots_of: Mapping[ProductLine, SnpRoots],
    tmp_path: Path,
) -> Callable[..., Host]:
    def make(product: Product = Product.ROME, firmware: Firmware | None = None) -> Host:
        roots = roots_by_size[2048 if product is Product.NAPLES else 4096]
        identity = ChipIdentity(product, roots, roots_of.get(product.line))
        processor = SecureProcessor(identity, firmware)
        return Host(roots, SimulatedKvm(processor, snp=False), tmp_path)

    return make


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    return make_host()


# platforms


LINES: Final = (Product.NAPLES, Product.ROME, Product.MILAN, Product.GENOA, Product.TURIN)


def verify(ask: Ask, sevctl: Path, host: Host, export: bytes, ca: bytes | None) -> bool:
    """Return whether sevctl accepts a platform; without ``ca`` AMD's own keys count."""
    words: list[str | Path] = ["verify", "--sev", write(host.folder / "sev.chain", export)]
    if ca is not None:
        words += ["--ca", write(host.folder / "ca.chain", ca)]
    return ask(sevctl, *words).returncode == 0


@pytest.mark.parametrize("product", LINES)
def test_a_platform_is_accepted_with_our_root_and_refused_without(
    make_host: Callable[..., Host], ask: Ask, sevctl: Path, product: Product
) -> None:
    host = make_host(product)
    ca = host.roots.ask_ark
    assert verify(ask, sevctl, host, host.export(), ca)
    assert not verify(ask, sevctl, host, host.export(), None)
    # What firmware exports lacks AMD's signature, which the key service adds.
    assert not verify(ask, sevctl, host, host.export(signed=False), ca)
    host.processor.sev.pdh_gen()
    assert verify(ask, sevctl, host, host.export(), ca)


PARTS: Final = ("PDH", "PEK", "OCA", "CEK")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("offset", [0x14, 0x41C], ids=["key", "signature"])
def test_a_platform_that_was_changed_is_refused(
    host: Host, ask: Ask, sevctl: Path, part: str, offset: int
) -> None:
    export = bytearray(host.export())
    export[PARTS.index(part) * SIZE + offset] ^= 1
    assert not verify(ask, sevctl, host, bytes(export), host.roots.ask_ark)


@pytest.mark.parametrize("part", PARTS)
def test_two_platforms_mixed_are_refused(
    make_host: Callable[..., Host], ask: Ask, sevctl: Path, part: str
) -> None:
    host, other = make_host(), make_host()
    cut = slice(PARTS.index(part) * SIZE, (PARTS.index(part) + 1) * SIZE)
    export, theirs = host.export(), other.export()
    mixed = export[: cut.start] + theirs[cut] + export[cut.stop :]
    assert not verify(ask, sevctl, host, mixed, host.roots.ask_ark)


def test_another_amds_keys_are_refused(
    host: Host, ask: Ask, sevctl: Path, roots_by_size: Mapping[int, SimulatedRoots]
) -> None:
    other = roots_by_size[2048]
    assert not verify(ask, sevctl, host, host.export(), other.ask_ark)


# sessions


def sevctl_session(ask: Ask, sevctl: Path, host: Host, policy: int) -> Session:
    """Return a session that sevctl made for the host's platform, as raw as it made it."""
    pdh = write(host.folder / "pdh.cert", host.export()[:SIZE])
    done = ask(sevctl, "session", "--name", "vm", pdh, str(policy), cwd=host.folder)
    assert done.returncode == 0, done.stderr
    godh, blob = (
        base64.b64decode((host.folder / f"vm_{name}.b64").read_bytes())
        for name in ("godh", "session")
    )
    tek, tik = (Secret((host.folder / f"vm_{name}.bin").read_bytes()) for name in ("tek", "tik"))
    return Session(blob, godh, TransportKeys(tek=tek, tik=tik))


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_session_of_sevctls_launches_and_takes_our_secret(
    host: Host, ask: Ask, sevctl: Path, name: str
) -> None:
    launch = LAUNCHES[name]
    session = sevctl_session(ask, sevctl, host, launch.policy)
    with host.launch(launch, session) as guest:
        version = host.processor.core.firmware.version
        claim = LaunchClaim(parse_launch_measurement(guest.measurement), *version)
        verdict, verified = judge_launch(
            claim,
            session.keys.tik,
            launch.policy,
            (launch.reference,),
            LaunchExpectations(),
            at=AT,
        )
        assert verdict.exit_code == 0
        assert verified is not None
        table = encode_secret_table((SecretEntry(DISK_GUID, Secret(PHRASE)),))
        packet = new_packet(verified, session.keys, table)
        guest.inject(packet.header, packet.ciphertext, guest_address=0)
        assert host.opened(guest) == table


def test_a_session_of_sevctls_opens_for_its_policy_and_platform_only(
    make_host: Callable[..., Host], ask: Ask, sevctl: Path
) -> None:
    host, other = make_host(), make_host()
    session = sevctl_session(ask, sevctl, host, 1)
    for where, launch in ((other, Launch(1)), (host, Launch(3)), (host, Launch(5))):
        with pytest.raises(CommandError) as caught:
            where.launch(launch, session)
        assert caught.value.status is FirmwareStatus.BAD_MEASUREMENT
    with host.launch(Launch(1), session):
        pass


def test_a_session_of_sevctls_loses_the_firmware_level_of_the_policy(
    host: Host, ask: Ask, sevctl: Path
) -> None:
    policy = 0x1700_0005
    assert sev_policy_api(policy) == (0, 23)
    session = sevctl_session(ask, sevctl, host, policy)
    with pytest.raises(CommandError) as caught:
        host.launch(Launch(policy), session)
    assert caught.value.status is FirmwareStatus.BAD_MEASUREMENT
    with host.launch(Launch(5), session):
        pass


# launch measurements


@dataclass(frozen=True)
class Validator:
    """Runs libvirt's program over one launch; ``changed`` replaces its options."""

    path: Path
    host: Host
    session: Session

    def __call__(
        self, launch: Launch, guest: SevMachine, *words: str | Path, **changed: str | Path
    ) -> int:
        """Return its exit code: 0 as expected, 1 another measurement, and 2 to 6 for misuse."""
        folder = self.host.folder
        version = self.host.processor.core.firmware.version
        options: dict[str, str | Path] = {
            "measurement": base64.b64encode(guest.measurement).decode(),
            "api-major": str(version.major),
            "api-minor": str(version.minor),
            "build-id": str(version.build),
            "policy": str(launch.policy),
            "firmware": write(folder / "OVMF.fd", OVMF),
            "tik": write(folder / "tik.bin", self.session.keys.tik.reveal()),
            "tek": write(folder / "tek.bin", self.session.keys.tek.reveal()),
        }
        if launch.boot:
            options["kernel"] = write(folder / "kernel", KERNEL)
            options["initrd"] = write(folder / "initrd", INITRD)
            options["cmdline"] = CMDLINE
        if launch.es:
            options["num-cpus"] = str(launch.vcpus)
            options |= {
                f"cpu-{name}": str(value)
                for name, value in zip(("family", "model", "stepping"), FMS, strict=True)
            }
        options |= {name.replace("_", "-"): value for name, value in changed.items()}
        said = [f"--{name}={value}" for name, value in options.items()]
        done = subprocess.run(
            [sys.executable, "-c", _RUNNER, self.path, *said, *words],
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode in {0, 1}, done.stderr
        return done.returncode


@pytest.mark.parametrize("name", LAUNCHES)
def test_libvirts_program_finds_the_launch_as_expected(
    host: Host, validator: Path, name: str
) -> None:
    launch = LAUNCHES[name]
    session = host.session(launch.policy)
    with host.launch(launch, session) as guest:
        assert Validator(validator, host, session)(launch, guest) == 0


def test_libvirts_program_finds_every_difference(host: Host, validator: Path) -> None:
    launch = LAUNCHES["SEV-ES with a kernel"]
    session, other = host.session(launch.policy), host.session(launch.policy)
    with host.launch(launch, session) as guest:
        judge = Validator(validator, host, session)
        assert judge(launch, guest) == 0
        measurement = bytearray(guest.measurement)
        for offset in (0, 31, 32, 47):
            measurement[offset] ^= 1
            changed = base64.b64encode(measurement).decode()
            assert judge(launch, guest, measurement=changed) == 1
            measurement[offset] ^= 1
        for change in (
            {"policy": "5"},
            {"api_major": "2"},
            {"api_minor": "54"},
            {"build_id": "41"},
            {"num_cpus": "3"},
            {"cpu_model": "2"},
            {"cmdline": CMDLINE + " "},
            {"kernel": write(host.folder / "other", b"another kernel")},
            {"firmware": write(host.folder / "other.fd", b"\xfe" + OVMF[1:])},
            {"tik": write(host.folder / "other.bin", other.keys.tik.reveal())},
        ):
            assert judge(launch, guest, **change) == 1, change


def test_libvirts_program_knows_vmsas_of_newer_kvms_only_as_files(
    host: Host, validator: Path
) -> None:
    launch = LAUNCHES["SEV-ES with four vCPUs"]
    newer = Registers(signature_of(*FMS), 0, era=Era.INIT2)
    session = host.session(launch.policy)
    machine = Machine(OVMF, launch.vcpus, newer)
    with host.kvm.launch_sev(
        machine, launch.policy, session=session.blob, godh=session.godh
    ) as guest:
        judge = Validator(validator, host, session)
        assert judge(launch, guest) == 1
        pages = [
            write(host.folder / f"vmsa{cpu}", encode_vcpu(newer, eip))
            for cpu, eip in enumerate((BSP_EIP, RESET))
        ]
        # The same launch described as plain SEV's, so that no CPU is named beside the pages.
        words = ("--num-cpus=4", f"--vmsa-cpu0={pages[0]}", f"--vmsa-cpu1={pages[1]}")
        assert judge(Launch(1), guest, *words, policy=str(launch.policy)) == 0


def sevctl_measurement(
    ask: Ask, sevctl: Path, host: Host, launch: Launch, tik: Secret, nonce: str
) -> bytes:
    """Return the 48 bytes that sevctl expects, given the launch's nonce."""
    version, folder = host.processor.core.firmware.version, host.folder
    words: list[str | Path] = ["--api-major", str(version.major), "--api-minor", str(version.minor)]
    words += ["--build-id", str(version.build), "--policy", str(launch.policy)]
    words += ["--tik", write(folder / "tik.bin", tik.reveal()), "--launch-measure-blob", nonce]
    words += ["--firmware", write(folder / "OVMF.fd", OVMF)]
    if launch.boot:
        words += ["--kernel", write(folder / "kernel", KERNEL), f"--cmdline={CMDLINE}"]
        words += ["--initrd", write(folder / "initrd", INITRD)]
    if launch.es:
        words += ["--num-cpus", str(launch.vcpus)]
        for cpu in range(2):
            page = folder / f"vmsa{cpu}.bin"
            done = ask(
                sevctl,
                *("vmsa", "build", "--cpu", str(cpu), "--userspace", "qemu"),
                *("--family", str(FMS[0]), "--model", str(FMS[1]), "--stepping", str(FMS[2])),
                *("--firmware", folder / "OVMF.fd", page),
            )
            assert done.returncode == 0, done.stderr
            words += [f"--vmsa-cpu{cpu}", page]
    done = ask(sevctl, "measurement", "build", *words)
    assert done.returncode == 0, done.stderr
    return base64.b64decode(done.stdout)


@pytest.mark.parametrize("name", LAUNCHES)
def test_sevctl_expects_the_same_measurement(host: Host, ask: Ask, sevctl: Path, name: str) -> None:
    launch = LAUNCHES[name]
    session = host.session(launch.policy)
    with host.launch(launch, session) as guest:
        blob = base64.b64encode(guest.measurement).decode()
        tik = session.keys.tik
        assert sevctl_measurement(ask, sevctl, host, launch, tik, blob) == guest.measurement
        other = host.session(launch.policy).keys.tik
        assert sevctl_measurement(ask, sevctl, host, launch, other, blob) != guest.measurement


def test_the_measurement_names_the_firmware_that_runs(
    make_host: Callable[..., Host], ask: Ask, sevctl: Path, validator: Path
) -> None:
    launch = LAUNCHES["SEV"]
    for version in ((0, 24, 9), (1, 55, 255)):
        host = make_host(Product.ROME, Firmware(FirmwareVersion(*version)))
        session = host.session(launch.policy)
        with host.launch(launch, session) as guest:
            blob = base64.b64encode(guest.measurement).decode()
            found = sevctl_measurement(ask, sevctl, host, launch, session.keys.tik, blob)
            assert found == guest.measurement
            assert Validator(validator, host, session)(launch, guest) == 0


# secrets


def test_a_secret_that_sevctl_packed_is_opened(host: Host, ask: Ask, sevctl: Path) -> None:
    launch = LAUNCHES["SEV-ES"]
    session = host.session(launch.policy)
    folder = host.folder
    header, payload = folder / "header", folder / "payload"
    with host.launch(launch, session) as guest:
        words: list[str | Path] = ["--launch-measure-blob"]
        words.append(base64.b64encode(guest.measurement).decode())
        words += ["--tik", write(folder / "tik.bin", session.keys.tik.reveal())]
        words += ["--tek", write(folder / "tek.bin", session.keys.tek.reveal())]
        words += ["--secret", f"{DISK_GUID}:{write(folder / 'phrase', PHRASE)}"]
        words += ["--secret", f"{OTHER}:{write(folder / 'more', bytes(1000))}"]
        done = ask(sevctl, "secret", "build", *words, header, payload)
        assert done.returncode == 0, done.stderr
        packet = SecretPacket(header.read_bytes(), payload.read_bytes())
        guest.inject(packet.header, packet.ciphertext, guest_address=0x1000)
        entries = (
            SecretEntry(DISK_GUID, Secret(PHRASE)),
            SecretEntry(OTHER, Secret(bytes(1000))),
        )
        assert parse_secret_table(host.opened(guest)) == entries
        changed = bytearray(packet.ciphertext)
        changed[5] ^= 1
        with pytest.raises(CommandError) as caught:
            guest.inject(packet.header, bytes(changed), guest_address=0x1000)
        assert caught.value.status is FirmwareStatus.BAD_MEASUREMENT
    with host.launch(launch, session) as again, pytest.raises(CommandError) as caught:
        again.inject(packet.header, packet.ciphertext, guest_address=0x1000)
    assert caught.value.status is FirmwareStatus.BAD_MEASUREMENT


@pytest.mark.parametrize("maker", ["sevctl's", "ours"])
def test_a_secret_that_libvirts_program_packed_is_opened(
    host: Host, ask: Ask, sevctl: Path, validator: Path, maker: str
) -> None:
    launch = LAUNCHES["SEV-ES with four vCPUs"]
    ours = maker == "ours"
    session = (
        host.session(launch.policy) if ours else sevctl_session(ask, sevctl, host, launch.policy)
    )
    phrase = write(host.folder / "phrase", PHRASE)
    header, payload = host.folder / "header", host.folder / "payload"
    files = (f"--secret-header={header}", f"--secret-payload={payload}")
    with host.launch(launch, session) as guest:
        judge = Validator(validator, host, session)
        assert judge(launch, guest, f"--inject-secret=luks-key:{phrase}", *files) == 0
        guest.inject(
            base64.b64decode(header.read_bytes()),
            base64.b64decode(payload.read_bytes()),
            guest_address=0x2000,
        )
        (entry,) = parse_secret_table(host.opened(guest))
        assert (entry.guid, entry.data.reveal()) == (DISK_GUID, PHRASE)


def test_without_an_owner_anybody_can_pack_secrets(
    host: Host, ask: Ask, sevctl: Path, validator: Path
) -> None:
    """A guest without a session has keys of zeros, and strangers agree on what they give."""
    launch = Launch(1)
    keys = TransportKeys(Secret(bytes(16)), Secret(bytes(16)))
    nobodys = Session(b"", b"", keys)
    with host.launch(launch, nobodys) as guest:
        assert Validator(validator, host, nobodys)(launch, guest) == 0
        blob = base64.b64encode(guest.measurement).decode()
        assert sevctl_measurement(ask, sevctl, host, launch, keys.tik, blob) == guest.measurement
        table = encode_secret_table((SecretEntry(DISK_GUID, Secret(PHRASE)),))
        packet = seal_packet(keys, table, measure=guest.measurement[:32], iv=bytes(16))
        guest.inject(packet.header, packet.ciphertext, guest_address=0)
        assert host.opened(guest) == table


# attestation reports of 208 bytes


def validates(ask: Ask, sevctl: Path, host: Host, export: bytes, report: bytes) -> bool:
    """Return whether sevctl finds that the chain's PEK signed the report."""
    chain = write(host.folder / "sev.chain", export)
    done = ask(sevctl, "validate", chain, write(host.folder / "report.bin", report))
    return done.returncode == 0


@pytest.mark.parametrize("name", ["SEV", "SEV-ES"])
def test_an_attestation_report_is_the_platforms(
    make_host: Callable[..., Host], ask: Ask, sevctl: Path, name: str
) -> None:
    host, other = make_host(), make_host()
    launch = LAUNCHES[name]
    nonce = bytes(range(16))
    with host.launch(launch, host.session(launch.policy)) as guest:
        report = host.processor.sev_guests.attestation(guest.handle, nonce)
        assert (len(report), report[:16], report[16:48]) == (208, nonce, launch.reference.digest)
        assert validates(ask, sevctl, host, host.export(), report)
        guest.run()
        assert validates(
            ask,
            sevctl,
            host,
            host.export(),
            host.processor.sev_guests.attestation(guest.handle, nonce),
        )
    assert not validates(ask, sevctl, host, other.export(), report)
    for offset in (0, 16, 47, 48, 64, 64 + 72):
        changed = bytearray(report)
        changed[offset] ^= 1
        assert not validates(ask, sevctl, host, host.export(), bytes(changed)), offset
