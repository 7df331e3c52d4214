"""One thing changed in a SEV launch, and who notices: firmware, guest owner, guest, or nobody.

The whole of an owner's flow runs on a simulated host: platform chain, session, launch, launch
measurement, secret. Each row of ``ROWS`` changes one thing that passes through the host's hands,
and names who stops it first and how. What nobody stops is there too, by its own name: a row that
says less than the truth would fail as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.product import Product
from sevkit.abi.secret_packet import DISK_GUID, SecretEntry, encode_secret_table, parse_secret_table
from sevkit.abi.session import SESSION, TransportKeys
from sevkit.abi.sevca import parse_ca_chain
from sevkit.abi.sevcert import SIZE
from sevkit.abi.sevchain import parse_chain_export
from sevkit.attest.sev_launch import LaunchClaim, LaunchExpectations, judge_launch
from sevkit.attest.sev_platform import PlatformExpectations, judge_platform
from sevkit.attest.sev_session import new_packet, new_session
from sevkit.attest.verdict import Outcome
from sevkit.errors import FormatError
from sevkit.measure.kernel_hashes import KernelHashes, compute_kernel_hashes
from sevkit.measure.launch_digest import compute_sev_digest, compute_sev_es_digest
from sevkit.measure.launch_measurement import parse_launch_measurement
from sevkit.measure.ovmf import PAGE
from sevkit.measure.reference import Reference
from sevkit.measure.terms import Era, Mode
from sevkit.measure.vcpu import CPU_MODELS, Registers
from sevkit.secret import Secret
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import SimulatedRoots, make_roots
from sevkit.testing.virtual_machine import Machine, SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.attest.sev_platform import VerifiedPlatform
    from sevkit.attest.sev_session import LaunchSession
    from sevkit.attest.verdict import Verdict
    from sevkit.testing.virtual_machine import SevMachine

    Change = Callable[[bytes], bytes]

AT: Final = datetime(2026, 11, 25, tzinfo=UTC)
OVMF: Final = encode_firmware(FirmwareImage(size=2 * PAGE))
HASHES: Final = compute_kernel_hashes(b"kernel", initrd=b"initrd", cmdline="quiet")
CPU: Final = Registers(CPU_MODELS["EPYC-Milan"], 0, era=Era.INIT)
ROME: Final = Registers(CPU_MODELS["EPYC-Rome"], 0, era=Era.INIT)
TABLE: Final = encode_secret_table((SecretEntry(DISK_GUID, Secret(b"correct horse")),))
ADDRESS: Final = 0x81_0000


class Noticed(NamedTuple):
    """Who noticed, where, and how he says so."""

    who: str
    where: str = ""
    code: int = 0


def firmware(command: str, status: FirmwareStatus) -> Noticed:
    """The secure processor refused ``command``."""
    return Noticed("firmware", command, status)


def owner(check: str, code: int) -> Noticed:
    """Our verdict failed first in ``check``; with 65 the bytes had not even their shape."""
    return Noticed("owner", check, code)


NOBODY: Final = Noticed("nobody")
GUEST: Final = Noticed("guest", "secret table", 65)


def same(data: bytes) -> bytes:
    return data


def flip(offset: int, bit: int = 1) -> Change:
    """Change one bit of the byte at ``offset``."""

    def change(data: bytes) -> bytes:
        found = bytearray(data)
        found[offset] ^= bit
        return bytes(found)

    return change


def put(offset: int, new: bytes) -> Change:
    return lambda data: data[:offset] + new + data[offset + len(new) :]


@dataclass(frozen=True)
class Hands:
    """What is done to whatever passes through the host's hands; by default nothing."""

    chain: Change = same
    ca: Change = same
    session: Change = same
    godh: Change = same
    policy: int | None = None
    machine: Callable[[Machine], Machine] = field(default=lambda machine: machine)
    measurement: Change = same
    api: tuple[int, int, int] = (1, 55, 40)
    claimed_policy: int | None = None
    header: Change = same
    payload: Change = same
    address: int = ADDRESS
    # The owner's own: not the host's to change, but he may have mixed two launches up.
    tik: Change = same
    tek: Change = same


@dataclass(frozen=True)
class Launch:
    """What the owner wants: guest policy, machine, and the digest that he expects of it."""

    policy: int
    vcpus: int = 1
    hashes: KernelHashes | None = None
    expectations: LaunchExpectations = field(default_factory=LaunchExpectations)

    @property
    def machine(self) -> Machine:
        return Machine(OVMF, self.vcpus, CPU, self.hashes)

    @property
    def reference(self) -> Reference:
        if self.policy & 4:
            digest = compute_sev_es_digest(OVMF, CPU, self.vcpus, self.hashes)
            return Reference(digest, Mode.SEV_ES, "expected", self.hashes is not None)
        digest = compute_sev_digest(OVMF, self.hashes)
        return Reference(digest, Mode.SEV, "expected", self.hashes is not None)


SEV: Final = Launch(1)
SEV_ES: Final = Launch(5, vcpus=2, hashes=HASHES)


@dataclass(frozen=True)
class Host:
    """One host with its secure processor, under simulated AMD keys."""

    roots: SimulatedRoots
    processor: SecureProcessor
    kvm: SimulatedKvm

    def platform(self, hands: Hands) -> VerifiedPlatform | Noticed:
        """Return the platform as its owner-to-be verified it."""
        pdh, chain = self.processor.sev.pdh_cert_export()
        export = pdh + chain[: 2 * SIZE] + self.processor.identity.signed_cek
        try:
            parsed, _ = parse_chain_export(hands.chain(export))
            ca = parse_ca_chain(hands.ca(self.roots.ask_ark))
            verdict, platform = judge_platform(
                parsed, PlatformExpectations(), at=AT, ca=ca, roots=(self.roots.root,)
            )
        except FormatError as error:
            return owner(error.structure, error.exit_code)
        return platform or first_failure(verdict)

    def launch(self, wanted: Launch, session: LaunchSession, hands: Hands) -> SevMachine:
        policy = wanted.policy if hands.policy is None else hands.policy
        return self.kvm.launch_sev(
            hands.machine(wanted.machine),
            policy,
            session=hands.session(session.blob.encode()),
            godh=hands.godh(session.godh),
        )

    def run(self, wanted: Launch, hands: Hands) -> Noticed:
        """Return who noticed what was done to one launch from the chain to the secret."""
        platform = self.platform(hands)
        if isinstance(platform, Noticed):
            return platform
        session = new_session(platform, wanted.policy)
        try:
            with self.launch(wanted, session, hands) as guest:
                return self.finish(wanted, session, guest, hands)
        except CommandError as error:
            return firmware(error.command, error.status)

    def finish(
        self, wanted: Launch, session: LaunchSession, guest: SevMachine, hands: Hands
    ) -> Noticed:
        keys = TransportKeys(
            Secret(hands.tek(session.keys.tek.reveal())),
            Secret(hands.tik(session.keys.tik.reveal())),
        )
        claim = LaunchClaim(
            parse_launch_measurement(hands.measurement(guest.measurement)),
            *hands.api,
            policy=hands.claimed_policy,
        )
        verdict, launch = judge_launch(
            claim, keys.tik, wanted.policy, (wanted.reference,), wanted.expectations, at=AT
        )
        if launch is None:
            return first_failure(verdict)
        packet = new_packet(launch, keys, TABLE)
        guest.inject(
            hands.header(packet.header),
            hands.payload(packet.ciphertext),
            guest_address=hands.address,
        )
        ((_, table),) = self.processor.sev_guests[guest.handle].injected
        try:
            (entry,) = parse_secret_table(table)
        except FormatError as error:
            return Noticed("guest", error.structure, error.exit_code)
        assert entry.data.reveal() == b"correct horse"
        return NOBODY


def first_failure(verdict: Verdict) -> Noticed:
    failed = [row.check for row in verdict.findings if row.outcome is Outcome.FAIL]
    return owner(failed[0], verdict.exit_code)


@pytest.fixture(scope="module")
def roots() -> SimulatedRoots:
    return make_roots()


def make_host(roots: SimulatedRoots) -> Host:
    processor = SecureProcessor(ChipIdentity(Product.ROME, roots))
    return Host(roots, processor, SimulatedKvm(processor))


@pytest.fixture(scope="module")
def host(roots: SimulatedRoots) -> Host:
    return make_host(roots)


S: Final = FirmwareStatus
BAD_SESSION: Final = firmware("LAUNCH_START", S.BAD_MEASUREMENT)
BAD_GODH: Final = firmware("LAUNCH_START", S.INVALID_CERTIFICATE)
BAD_PACKET: Final = firmware("LAUNCH_SECRET", S.BAD_MEASUREMENT)
BAD_LAUNCH: Final = owner("launch.measurement", 1)

#: Offsets in a certificate of the platform and in the 52 bytes of a packet's header.
USAGE, ALGORITHM, CURVE, QX, QY, BEHIND_QY = 0x08, 0x0C, 0x10, 0x14, 0x5C, 0xA4
FIRST, SECOND = 0x414 + 8, 0x61C + 8
FLAGS, IV, MAC = 0x00, 0x04, 0x14


def change_machine(**fields: object) -> Callable[[Machine], Machine]:
    return lambda machine: replace(machine, **fields)  # type: ignore[arg-type]  # a row's own names


class Row(NamedTuple):
    """One thing that is done, to which launch, and who notices."""

    hands: Hands
    noticed: Noticed
    launch: Launch = SEV_ES


ROWS: Final = {
    "nothing, SEV": Row(Hands(), NOBODY, SEV),
    "nothing, SEV-ES with a kernel": Row(Hands(), NOBODY),
    # the firmware image
    "first byte of the firmware": Row(
        Hands(machine=change_machine(firmware=flip(0)(OVMF))), BAD_LAUNCH
    ),
    "last byte of the firmware": Row(
        Hands(machine=change_machine(firmware=flip(-1)(OVMF))), BAD_LAUNCH, SEV
    ),
    "more firmware than the owner's": Row(
        Hands(machine=change_machine(firmware=OVMF + bytes(16))), BAD_LAUNCH, SEV
    ),
    "less firmware than the owner's": Row(
        Hands(machine=change_machine(firmware=OVMF[16:])), BAD_LAUNCH, SEV
    ),
    # kernel and vCPUs
    "another kernel": Row(
        Hands(machine=change_machine(hashes=replace(HASHES, kernel=bytes(32)))), BAD_LAUNCH
    ),
    "another command line": Row(
        Hands(
            machine=change_machine(
                hashes=compute_kernel_hashes(b"kernel", initrd=b"initrd", cmdline="quiet debug")
            )
        ),
        BAD_LAUNCH,
    ),
    "no kernel hashes": Row(Hands(machine=change_machine(hashes=None)), BAD_LAUNCH),
    "kernel hashes where none are wanted": Row(
        Hands(machine=change_machine(hashes=HASHES)), BAD_LAUNCH, SEV
    ),
    "a vCPU more": Row(Hands(machine=change_machine(vcpus=3)), BAD_LAUNCH),
    "a vCPU less": Row(Hands(machine=change_machine(vcpus=1)), BAD_LAUNCH),
    "another CPU": Row(Hands(machine=change_machine(registers=ROME)), BAD_LAUNCH),
    "another SEV_FEATURES": Row(
        Hands(machine=change_machine(registers=replace(CPU, sev_features=0x20))), BAD_LAUNCH
    ),
    "vCPUs of plain SEV are nobody's business": Row(
        Hands(machine=change_machine(vcpus=3)), NOBODY, SEV
    ),
    # the guest policy
    "SEV for SEV-ES": Row(Hands(policy=1), BAD_SESSION),
    "SEV-ES for SEV": Row(Hands(policy=5), BAD_SESSION, SEV),
    "NODBG dropped": Row(Hands(policy=4), BAD_SESSION),
    "NOKS dropped": Row(Hands(policy=5), BAD_SESSION, replace(SEV_ES, policy=7)),
    "a newer API in the policy": Row(Hands(policy=0x37_01_00_05), BAD_SESSION),
    "a reserved bit of the policy": Row(Hands(policy=0x8005), BAD_SESSION),
    "the host says another policy": Row(
        Hands(claimed_policy=1), owner("launch.info-policy", 3), SEV_ES
    ),
    # the firmware's level
    "firmware older than the policy demands": Row(
        Hands(),
        firmware("LAUNCH_START", S.POLICY_FAILURE),
        replace(SEV_ES, policy=0x38_01_00_05),
    ),
    "firmware as old as the policy demands": Row(
        Hands(), NOBODY, replace(SEV_ES, policy=0x37_01_00_05)
    ),
    "firmware older than the owner demands": Row(
        Hands(),
        owner("launch.firmware-version", 3),
        replace(SEV_ES, expectations=LaunchExpectations(min_firmware=(1, 55, 41))),
    ),
    "the host says a newer API major": Row(Hands(api=(2, 55, 40)), BAD_LAUNCH),
    "the host says a newer API minor": Row(Hands(api=(1, 56, 40)), BAD_LAUNCH),
    "the host says a newer build": Row(Hands(api=(1, 55, 41)), BAD_LAUNCH),
    # the session
    "no session": Row(Hands(session=lambda _: b"", godh=lambda _: b""), BAD_LAUNCH),
    "a session without the owner's certificate": Row(Hands(godh=lambda _: b""), BAD_LAUNCH),
    "the owner's certificate without a session": Row(
        Hands(session=lambda _: b""), firmware("LAUNCH_START", S.INVALID_LEN)
    ),
    "a session of zeros": Row(Hands(session=lambda _: bytes(SESSION.size)), BAD_SESSION),
    "a session with a byte more": Row(
        Hands(session=lambda data: data + b"\0"), firmware("LAUNCH_START", S.INVALID_LEN)
    ),
    "TEK and TIK swapped in the session": Row(
        Hands(session=lambda data: data[:16] + data[32:48] + data[16:32] + data[48:]), BAD_SESSION
    ),
    # the owner's certificate
    "GODH a byte short": Row(
        Hands(godh=lambda data: data[:-1]), firmware("LAUNCH_START", S.INVALID_LEN)
    ),
    "version of the GODH": Row(Hands(godh=flip(0)), BAD_GODH),
    "usage of the GODH": Row(Hands(godh=put(USAGE, b"\x02")), BAD_GODH),
    "no usage in the GODH": Row(Hands(godh=put(USAGE, b"\0\x10")), BAD_GODH),
    "GODH for signatures": Row(Hands(godh=put(ALGORITHM, b"\x02")), BAD_GODH),
    "GODH with SHA-384": Row(Hands(godh=put(ALGORITHM, b"\x03\x01")), BAD_GODH),
    "curve of the GODH": Row(Hands(godh=put(CURVE, b"\x01")), BAD_GODH),
    "point of the GODH off its curve": Row(Hands(godh=flip(QX)), BAD_GODH),
    "point of the GODH at infinity": Row(Hands(godh=put(QX, bytes(144))), BAD_GODH),
    "coordinate of the GODH too large": Row(Hands(godh=put(QX, b"\xff" * 48)), BAD_GODH),
    "the rest of the key's field": Row(Hands(godh=put(BEHIND_QY, b"leavings")), NOBODY),
    "a signature on the GODH": Row(Hands(godh=put(FIRST, b"anything")), NOBODY),
    # TIK and TEK
    "another launch's TIK": Row(Hands(tik=flip(0)), BAD_LAUNCH),
    "TEK in the TIK's place": Row(Hands(tik=lambda _: bytes(16)), BAD_LAUNCH),
    "another launch's TEK": Row(Hands(tek=flip(0)), GUEST),
    # the launch measurement
    "first byte of the measurement": Row(Hands(measurement=flip(0)), BAD_LAUNCH),
    "last byte of the measurement": Row(Hands(measurement=flip(31, 0x80)), BAD_LAUNCH),
    "first byte of the nonce": Row(Hands(measurement=flip(32)), BAD_LAUNCH),
    "last byte of the nonce": Row(Hands(measurement=flip(47, 0x80)), BAD_LAUNCH),
    "nonce before measurement": Row(
        Hands(measurement=lambda data: data[32:] + data[:32]), BAD_LAUNCH
    ),
    # the secret
    "compression in the header": Row(Hands(header=flip(FLAGS)), BAD_PACKET),
    "reserved flags in the header": Row(Hands(header=flip(FLAGS + 3)), BAD_PACKET),
    "IV in the header": Row(Hands(header=flip(IV)), BAD_PACKET),
    "last byte of the IV": Row(Hands(header=flip(MAC - 1)), BAD_PACKET),
    "MAC in the header": Row(Hands(header=flip(MAC)), BAD_PACKET),
    "last byte of the MAC": Row(Hands(header=flip(51)), BAD_PACKET),
    "header a byte short": Row(
        Hands(header=lambda data: data[:-1]), firmware("LAUNCH_SECRET", S.INVALID_LEN)
    ),
    "first byte of the payload": Row(Hands(payload=flip(0)), BAD_PACKET),
    "last byte of the payload": Row(Hands(payload=flip(-1)), BAD_PACKET),
    "payload of another size": Row(Hands(payload=lambda data: data[:-16]), BAD_PACKET),
    "payload of an odd size": Row(
        Hands(payload=lambda data: data[:-1]), firmware("LAUNCH_SECRET", S.INVALID_LEN)
    ),
    "no payload": Row(Hands(payload=lambda _: b""), firmware("LAUNCH_SECRET", S.INVALID_LEN)),
    "a guest address off its block": Row(
        Hands(address=ADDRESS + 8), firmware("LAUNCH_SECRET", S.INVALID_ADDRESS)
    ),
    # Where the guest looks for its secret is in its measured firmware, so it finds none elsewhere.
    "another guest address": Row(Hands(address=0), NOBODY),
}


@pytest.mark.parametrize("name", ROWS)
def test_who_notices(host: Host, name: str) -> None:
    row = ROWS[name]
    assert host.run(row.launch, row.hands) == row.noticed
    # Whatever happened, nothing of the launch is left on the host.
    assert host.processor.sev_guests.handles == ()
    assert host.kvm.asids.current == {"sev": 0, "sev_es": 0}


@pytest.mark.parametrize("offset", range(SESSION.size))
def test_every_byte_of_the_session_matters(host: Host, offset: int) -> None:
    assert host.run(SEV, Hands(session=flip(offset))) == BAD_SESSION


def part(index: int, change: Change) -> Change:
    """Change one certificate of the chain; 0 is the PDH's, 3 the CEK's."""
    cut = slice(index * SIZE, (index + 1) * SIZE)
    return lambda data: data[: cut.start] + change(data[cut]) + data[cut.stop :]


PDH, PEK, OCA, CEK = range(4)
CHAIN_ROWS: Final = {
    "version of the PDH": (part(PDH, flip(0)), owner("PDH", 65)),
    "API level of the PDH": (part(PDH, flip(4)), owner("platform.pdh", 1)),
    "API level of the PEK": (part(PEK, flip(5)), owner("platform.pek", 1)),
    "API level of the OCA": (part(OCA, flip(4)), owner("platform.oca", 1)),
    "API level of the CEK": (part(CEK, flip(5)), owner("platform.cek", 1)),
    "PDH for another usage": (part(PDH, put(USAGE, b"\x02")), owner("platform.keys", 1)),
    "PEK for another usage": (part(PEK, put(USAGE, b"\x01")), owner("platform.keys", 1)),
    "OCA for another usage": (part(OCA, put(USAGE, b"\x02")), owner("platform.keys", 1)),
    "CEK for another usage": (part(CEK, put(USAGE, b"\x01")), owner("platform.keys", 1)),
    "PDH for signatures": (part(PDH, put(ALGORITHM, b"\x02")), owner("platform.keys", 1)),
    "point of the PDH off its curve": (part(PDH, flip(QX)), owner("ECDSA public key", 65)),
    "point of the PEK off its curve": (part(PEK, flip(QX)), owner("ECDSA public key", 65)),
    "point of the OCA off its curve": (part(OCA, flip(QY)), owner("ECDSA public key", 65)),
    "point of the CEK off its curve": (part(CEK, flip(QY)), owner("ECDSA public key", 65)),
    "behind the key of the PDH": (part(PDH, flip(BEHIND_QY)), owner("PDH", 65)),
    "signature of the PDH": (part(PDH, flip(FIRST)), owner("platform.pdh", 1)),
    "first signature of the PEK": (part(PEK, flip(FIRST)), owner("platform.pek", 1)),
    "second signature of the PEK": (part(PEK, flip(SECOND)), owner("platform.pek", 1)),
    "signature of the OCA": (part(OCA, flip(FIRST)), owner("platform.oca", 1)),
    "signature of the CEK": (part(CEK, flip(FIRST)), owner("platform.cek", 1)),
    "a certificate is missing": (lambda data: data[SIZE:], owner("platform chain", 65)),
    "PEK and OCA swapped": (
        lambda data: data[:SIZE] + data[2 * SIZE : 3 * SIZE] + data[SIZE : 2 * SIZE] + data[-SIZE:],
        owner("platform.keys", 1),
    ),
}


@pytest.mark.parametrize("name", CHAIN_ROWS)
def test_who_notices_a_changed_platform_chain(host: Host, name: str) -> None:
    change, noticed = CHAIN_ROWS[name]
    assert host.run(SEV, Hands(chain=change)) == noticed


@pytest.mark.parametrize(
    ("index", "check"),
    # A self-signed OCA of anybody's is in order; that the PEK is not its own is noticed.
    [(PDH, "platform.pdh"), (PEK, "platform.pek"), (OCA, "platform.pek"), (CEK, "platform.pek")],
)
def test_another_platforms_certificate_is_noticed(
    host: Host, roots: SimulatedRoots, index: int, check: str
) -> None:
    other = make_host(roots).processor
    pdh, chain = other.sev.pdh_cert_export()
    theirs = (pdh + chain[: 2 * SIZE] + other.identity.signed_cek)[index * SIZE :][:SIZE]
    assert host.run(SEV, Hands(chain=part(index, lambda _: theirs))) == owner(check, 1)


#: Offsets in the 832 bytes of an ASK or ARK: key ID, modulus, signature.
KEY_ID, MODULUS, CA_SIGNATURE, CA_SIZE = 0x04, 0x40 + 256, 0x40 + 512, 832


@pytest.mark.parametrize(
    ("offset", "noticed"),
    [
        (KEY_ID, owner("platform.ask", 1)),
        (MODULUS + 8, owner("platform.ask", 1)),
        (CA_SIGNATURE + 8, owner("platform.ask", 1)),
        # Any change to the ARK makes it another one, which nobody trusts.
        (CA_SIZE + MODULUS + 8, owner("platform.root", 1)),
        (CA_SIZE + CA_SIGNATURE + 8, owner("platform.root", 1)),
    ],
)
def test_who_notices_changed_keys_of_amd(host: Host, offset: int, noticed: Noticed) -> None:
    assert host.run(SEV, Hands(ca=flip(offset))) == noticed


@pytest.mark.parametrize(
    ("which", "check"),
    [("ASK", "platform.ask"), ("ARK", "platform.root"), ("both", "platform.root")],
)
def test_another_amds_keys_are_noticed(host: Host, which: str, check: str) -> None:
    other = make_roots()
    ask = other.ca.ask.data if which != "ARK" else host.roots.ca.ask.data
    ark = other.ca.ark.data if which != "ASK" else host.roots.ca.ark.data
    assert host.run(SEV, Hands(ca=lambda _: ask + ark)) == owner(check, 1)


@pytest.fixture
def session(host: Host) -> LaunchSession:
    platform = host.platform(Hands())
    assert not isinstance(platform, Noticed)
    return new_session(platform, SEV.policy)


def test_a_session_opens_on_its_own_platform_only(
    roots: SimulatedRoots, session: LaunchSession
) -> None:
    other = make_host(roots)
    with pytest.raises(CommandError) as caught:
        other.launch(SEV, session, Hands())
    assert caught.value.status is S.BAD_MEASUREMENT


def test_a_new_diffie_hellman_key_ends_sessions_that_were_not_used(
    roots: SimulatedRoots,
) -> None:
    host = make_host(roots)
    platform = host.platform(Hands())
    assert not isinstance(platform, Noticed)
    made = new_session(platform, SEV.policy)
    host.processor.sev.pdh_gen()
    with pytest.raises(CommandError) as caught:
        host.launch(SEV, made, Hands())
    assert caught.value.status is S.BAD_MEASUREMENT


def test_a_session_that_is_used_twice_is_noticed_by_its_secret(
    host: Host, session: LaunchSession
) -> None:
    with host.launch(SEV, session, Hands()) as first, host.launch(SEV, session, Hands()) as second:
        assert first.measurement != second.measurement
        # The firmware takes a session again, and an old measurement is as genuine as a new one;
        # but the packet that the owner makes for it opens nowhere else.
        replayed = Hands(measurement=lambda _: first.measurement)
        with pytest.raises(CommandError) as caught:
            host.finish(SEV, session, second, replayed)
        assert (caught.value.command, caught.value.status) == ("LAUNCH_SECRET", S.BAD_MEASUREMENT)
        assert host.processor.sev_guests[second.handle].injected == []
        assert host.finish(SEV, session, first, Hands()) == NOBODY


def test_what_comes_after_the_measurement_is_refused(host: Host, session: LaunchSession) -> None:
    guests = host.processor.sev_guests
    with host.launch(SEV, session, Hands()) as guest:
        for command in (
            lambda: guests.launch_update_data(guest.handle, bytes(16)),
            lambda: guests.launch_measure(guest.handle),
        ):
            with pytest.raises(CommandError) as caught:
                command()
            assert caught.value.status is S.INVALID_GUEST_STATE
        assert host.finish(SEV, session, guest, Hands()) == NOBODY


def test_a_secret_for_a_guest_that_runs_is_refused(host: Host, session: LaunchSession) -> None:
    with host.launch(SEV, session, Hands()) as guest:
        guest.run()
        with pytest.raises(CommandError) as caught:
            host.finish(SEV, session, guest, Hands())
        assert caught.value.status is S.INVALID_GUEST_STATE
