"""One thing changed around an SNP guest, and who notices: firmware, guest owner, guest, or nobody.

A simulated host launches a guest, carries its messages, and hands its report and certificates to
the owner. Each row of ``ROWS`` changes one thing on the way, and names who stops it first and how.
Then every single byte of the report, of its certificates and of a message is changed in turn.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.guest_message import (
    Message,
    MessageType,
    encode_report_request,
    open_message,
    parse_report_response,
    seal_message,
)
from sevkit.abi.idblock import IdBlock, compute_key_digest, encode_id_auth, encode_id_block
from sevkit.abi.policy import SNP_POLICY_DEFAULT
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import LAYOUT, SIGNED_SIZE
from sevkit.abi.signature import public_key_of
from sevkit.abi.tcb import TcbVersion
from sevkit.abi.vek import VekKind
from sevkit.attest.container import ReportContainer
from sevkit.attest.expectations import Expectations, ExpectedMeasurement
from sevkit.attest.idblock import sign_id_block
from sevkit.attest.snp import Trust, judge_report, pinned_roots
from sevkit.attest.verdict import Outcome
from sevkit.errors import FormatError, SignatureMismatch, UndecidedError
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.launch_digest import compute_snp_digest
from sevkit.measure.ovmf import PAGE
from sevkit.measure.vcpu import CPU_MODELS, Registers
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.kvm_asids import GuestKind
from sevkit.testing.secure_processor.core import DEFAULT_TCBS, Firmware
from sevkit.testing.secure_processor.identity import ChipIdentity, Vlek
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.secure_processor.snp_guests import PageType
from sevkit.testing.sev_chain import make_roots
from sevkit.testing.snp_chain import SimulatedRoots, vek_extensions
from sevkit.testing.snp_guest import GuestChannel
from sevkit.testing.virtual_machine import (
    IdentityBlocks,
    Machine,
    SimulatedKvm,
    SnpMachine,
    snp_pages,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sevkit.secret import Secret
    from sevkit.testing.snp_report import SimulatedChip

    Change = Callable[[bytes], bytes]

AT: Final = datetime(2026, 11, 25, tzinfo=UTC)
OVMF: Final = encode_firmware(FirmwareImage(size=2 * PAGE))
HASHES: Final = compute_kernel_hashes(b"kernel", initrd=b"initrd", cmdline="quiet")
CPU: Final = Registers(CPU_MODELS["EPYC-Milan"], 1)
ROME: Final = Registers(CPU_MODELS["EPYC-Rome"], 1)
MACHINE: Final = Machine(OVMF, 2, CPU, HASHES)
DIGEST: Final = compute_snp_digest(OVMF, CPU, 2, HASHES)
NONCE: Final = bytes(range(64))
HOST_DATA: Final = b"configuration of this very guest"
POLICY: Final = SNP_POLICY_DEFAULT
TCB: Final = DEFAULT_TCBS[ProductLine.MILAN]
LOWER: Final = TcbVersion(TCB.bootloader, TCB.tee, TCB.snp - 1, TCB.microcode)
ID_KEY, AUTHOR_KEY, STRANGER = (ec.generate_private_key(ec.SECP384R1()) for _ in range(3))
BLOCK: Final = IdBlock(
    launch_digest=DIGEST, family_id=b"family".ljust(16), image_id=b"image".ljust(16), guest_svn=3
)


def identify(
    block: IdBlock = BLOCK,
    id_key: ec.EllipticCurvePrivateKey = ID_KEY,
    author_key: ec.EllipticCurvePrivateKey = AUTHOR_KEY,
) -> IdentityBlocks:
    """Return the owner's ID block and its authentication."""
    auth = encode_id_auth(sign_id_block(block, id_key, author_key))
    return IdentityBlocks(encode_id_block(block), auth, author_key=True)


IDENTITY: Final = identify()


def key_digest(key: ec.EllipticCurvePrivateKey) -> bytes:
    return compute_key_digest(public_key_of(key.public_key()))


EXPECTED: Final = Expectations(
    report_data=NONCE,
    measurements=(ExpectedMeasurement(DIGEST),),
    host_data=HOST_DATA,
    id_key_digest=key_digest(ID_KEY),
    author_key_digest=key_digest(AUTHOR_KEY),
    family_id=BLOCK.family_id,
    image_id=BLOCK.image_id,
    minimum_guest_svn=3,
    minimum_tcb=TCB.components,
)


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


def same(data: bytes) -> bytes:
    return data


def flip(offset: int, bit: int = 1) -> Change:
    """Change one bit of the byte at ``offset``."""

    def change(data: bytes) -> bytes:
        found = bytearray(data)
        found[offset] ^= bit
        return bytes(found)

    return change


def vcek(
    host: Host,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    hwid: bytes = b"",
    tcb: TcbVersion = TCB,
    signer: rsa.RSAPrivateKey | None = None,
) -> bytes:
    """Return a VCEK that differs from the host's in what is given."""
    mine = host.identity
    extensions = vek_extensions(mine.line, VekKind.VCEK, tcb, hwid=hwid or mine.hardware_id)
    public = (key or mine.vcek_key(TCB)).public_key()
    return host.roots.make_vek(VekKind.VCEK, public, extensions, signer=signer)


@dataclass(frozen=True)
class Hands:
    """What is done to whatever passes through the host's hands; by default nothing."""

    machine: Machine = MACHINE
    policy: int = POLICY
    identity: IdentityBlocks | None = IDENTITY
    host_data: bytes = HOST_DATA
    vmpl: int = 0
    report: Change = same
    #: Given the host, its VEK, and its ASK ‖ ARK in PEM.
    vek: Callable[[Host], bytes] = field(default=lambda host: host.vek)
    chain: Callable[[Host], bytes] = field(default=lambda host: host.chain())
    configure: Callable[[SecureProcessor], None] = field(default=lambda _: None)


@dataclass(frozen=True)
class Host:
    """One host with its secure processor, under simulated AMD keys."""

    identity: ChipIdentity
    roots: SimulatedRoots
    processor: SecureProcessor
    kvm: SimulatedKvm
    vlek: Vlek | None = None

    @property
    def vek(self) -> bytes:
        if self.vlek is not None:
            return self.vlek.certificate
        return self.identity.vcek(self.processor.snp.reported_tcb)

    def chain(self, roots: SimulatedRoots | None = None, *, vlek: bool | None = None) -> bytes:
        found = roots or self.roots
        wants_asvk = self.vlek is not None if vlek is None else vlek
        pair = (found.asvk if wants_asvk else found.ask, found.ark)
        return b"".join(map(encode_pem_certificate, pair))

    def launch(self, hands: Hands) -> SnpMachine:
        return self.kvm.launch_snp(
            hands.machine, hands.policy, identity=hands.identity, host_data=hands.host_data
        )

    def report(self, hands: Hands | None = None) -> bytes:
        hands = hands or Hands()
        with self.launch(hands) as guest:
            return GuestChannel(self.kvm, guest, vmpl=hands.vmpl).get_report(NONCE)

    def run(self, hands: Hands, expected: Expectations = EXPECTED) -> Noticed:
        """Return who noticed what was done between launch and verdict."""
        try:
            hands.configure(self.processor)
            report = hands.report(self.report(hands))
        except CommandError as error:
            return firmware(error.command, error.status)
        except OSError as error:
            return Noticed("KVM", "guest policy", error.errno or 0)
        return self.judge(report, hands.vek(self), hands.chain(self), expected)

    def judge(
        self, report: bytes, vek: bytes, chain: bytes, expected: Expectations = EXPECTED
    ) -> Noticed:
        trust = Trust(AT, pinned_roots(self.roots.ark), vek=vek, chain=chain)
        try:
            verdict = judge_report(ReportContainer(report), expected, trust)
        except FormatError as error:
            return owner(error.structure, error.exit_code)
        except UndecidedError as error:
            return owner("undecided", error.exit_code)
        failed = [row.check for row in verdict.findings if row.outcome is Outcome.FAIL]
        return owner(failed[0], verdict.exit_code) if failed else NOBODY


@pytest.fixture(scope="module")
def roots(milan_chip: SimulatedChip) -> SimulatedRoots:
    return milan_chip.roots


@pytest.fixture(scope="module")
def make_host(roots: SimulatedRoots) -> Callable[..., Host]:
    sev_roots = make_roots()

    def make(*, version: int = 3, vlek: bool = False) -> Host:
        identity = ChipIdentity(Product.MILAN, sev_roots, roots)
        processor = SecureProcessor(identity, Firmware(report_version=version))
        kvm = SimulatedKvm(processor)
        loaded = Vlek(roots, processor.snp.reported_tcb) if vlek else None
        if loaded is not None:
            processor.snp.vlek_load(identity.seal_hashstick(loaded))
        return Host(identity, roots, processor, kvm, loaded)

    return make


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    return make_host()


S: Final = FirmwareStatus
NOT_MEASURED: Final = owner("report.measurement", 3)
BY_KVM: Final = Noticed("KVM", "guest policy", errno.EINVAL)
FORGED: Final = owner("report.signature", 1)
#: The length of a report is not the layout's, or a byte that must be zero is not.
SHAPE: Final = owner(LAYOUT.name, 65)


def with_machine(**fields: object) -> Hands:
    return Hands(machine=replace(MACHINE, **fields), identity=None)  # type: ignore[arg-type]  # a row's own names


def with_identity(block: Change = same, auth: Change = same, *, author_key: bool = True) -> Hands:
    changed = IdentityBlocks(block(IDENTITY.block), auth(IDENTITY.auth), author_key=author_key)
    return Hands(identity=changed)


def refused(status: FirmwareStatus) -> Noticed:
    return firmware("SNP_LAUNCH_FINISH", status)


#: An owner who expects nothing of an ID block.
PLAIN: Final = Expectations(
    report_data=NONCE, measurements=(ExpectedMeasurement(DIGEST),), host_data=HOST_DATA
)


class Row(NamedTuple):
    """One thing that is done, who notices, and what the owner expects."""

    hands: Hands
    noticed: Noticed
    expected: Expectations = EXPECTED


ROWS: Final = {
    "nothing": Row(Hands(), NOBODY),
    "nothing, and no ID block is expected": Row(Hands(identity=None), NOBODY, PLAIN),
    # what is launched
    "first byte of the firmware": Row(with_machine(firmware=flip(0)(OVMF)), NOT_MEASURED, PLAIN),
    "last byte of the firmware": Row(with_machine(firmware=flip(-1)(OVMF)), NOT_MEASURED, PLAIN),
    "a page more": Row(with_machine(firmware=bytes(PAGE) + OVMF), NOT_MEASURED, PLAIN),
    "no kernel hashes": Row(with_machine(hashes=None), NOT_MEASURED, PLAIN),
    "another kernel": Row(
        with_machine(hashes=replace(HASHES, kernel=bytes(32))), NOT_MEASURED, PLAIN
    ),
    "another initrd": Row(
        with_machine(hashes=replace(HASHES, initrd=bytes(32))), NOT_MEASURED, PLAIN
    ),
    "another command line": Row(
        with_machine(hashes=replace(HASHES, cmdline=bytes(32))), NOT_MEASURED, PLAIN
    ),
    "a vCPU more": Row(with_machine(vcpus=3), NOT_MEASURED, PLAIN),
    "a vCPU less": Row(with_machine(vcpus=1), NOT_MEASURED, PLAIN),
    "another CPU": Row(with_machine(registers=ROME), NOT_MEASURED, PLAIN),
    "another SEV_FEATURES": Row(
        with_machine(registers=replace(CPU, sev_features=0x21)), NOT_MEASURED, PLAIN
    ),
    # With an ID block the firmware does not even let another guest start.
    "another guest under the owner's ID block": Row(
        Hands(machine=replace(MACHINE, vcpus=1)), refused(S.BAD_MEASUREMENT)
    ),
    # the guest policy
    "a guest that can be debugged": Row(
        Hands(policy=POLICY | 1 << 19, identity=None), owner("policy.debug", 3), PLAIN
    ),
    "a guest with a migration agent": Row(
        Hands(policy=POLICY | 1 << 18, identity=None), BY_KVM, PLAIN
    ),
    "another policy under the owner's ID block": Row(
        Hands(policy=POLICY | 1 << 19), refused(S.POLICY_FAILURE)
    ),
    "a policy without the bit that must be one": Row(Hands(policy=1 << 16), BY_KVM),
    "a reserved bit of the policy": Row(Hands(policy=POLICY | 1 << 26), BY_KVM),
    "a newer ABI in the policy": Row(
        Hands(policy=POLICY | 1 << 8 | 56), firmware("SNP_LAUNCH_START", S.POLICY_FAILURE)
    ),
    "SMT where the policy forbids it": Row(
        Hands(policy=POLICY & ~(1 << 16)), firmware("SNP_LAUNCH_START", S.POLICY_FAILURE)
    ),
    "other host data": Row(Hands(host_data=HOST_DATA[::-1]), owner("report.host-data", 3)),
    "no host data": Row(Hands(host_data=bytes(32)), owner("report.host-data", 3)),
    # the ID block
    "no ID block": Row(Hands(identity=None), owner("report.id-key", 3)),
    "a stranger's ID key": Row(
        Hands(identity=identify(id_key=STRANGER)), owner("report.id-key", 3)
    ),
    "a stranger's author key": Row(
        Hands(identity=identify(author_key=STRANGER)), owner("report.author-key", 3)
    ),
    "no author key": Row(with_identity(author_key=False), owner("report.author-key", 3)),
    "another family of the owner's": Row(
        Hands(identity=identify(replace(BLOCK, family_id=bytes(16)))), owner("report.family-id", 3)
    ),
    "another image of the owner's": Row(
        Hands(identity=identify(replace(BLOCK, image_id=bytes(16)))), owner("report.image-id", 3)
    ),
    "an older SVN of the owner's": Row(
        Hands(identity=identify(replace(BLOCK, guest_svn=2))), owner("report.guest-svn", 3)
    ),
    "digest in the ID block": Row(with_identity(block=flip(0)), refused(S.BAD_MEASUREMENT)),
    "family in the ID block": Row(with_identity(block=flip(48)), refused(S.BAD_SIGNATURE)),
    "image in the ID block": Row(with_identity(block=flip(64)), refused(S.BAD_SIGNATURE)),
    "version of the ID block": Row(with_identity(block=flip(80)), refused(S.BAD_SIGNATURE)),
    "SVN in the ID block": Row(with_identity(block=flip(84)), refused(S.BAD_SIGNATURE)),
    "policy in the ID block": Row(with_identity(block=flip(88)), refused(S.POLICY_FAILURE)),
    "algorithm of the ID key": Row(with_identity(auth=flip(0, 2)), refused(S.INVALID_PARAM)),
    "algorithm of the author key": Row(with_identity(auth=flip(4, 2)), refused(S.INVALID_PARAM)),
    "signature of the ID block": Row(with_identity(auth=flip(0x40)), refused(S.BAD_SIGNATURE)),
    "ID key": Row(with_identity(auth=flip(0x244)), refused(S.BAD_SIGNATURE)),
    "signature of the ID key": Row(with_identity(auth=flip(0x680)), refused(S.BAD_SIGNATURE)),
    "author key": Row(with_identity(auth=flip(0x884)), refused(S.BAD_SIGNATURE)),
    # the report
    "a report for another VMPL": Row(Hands(vmpl=1), owner("report.vmpl", 3)),
    "a byte of the report less": Row(Hands(report=lambda data: data[:-1]), SHAPE),
    "a byte of the report more": Row(Hands(report=lambda data: data + b"\0"), SHAPE),
    "version of the report": Row(Hands(report=flip(0, 4)), SHAPE),
    "measurement in the report": Row(Hands(report=flip(0x90)), FORGED),
    "data in the report": Row(Hands(report=flip(0x50)), FORGED),
    "r of the signature": Row(Hands(report=flip(SIGNED_SIZE)), FORGED),
    "s of the signature": Row(Hands(report=flip(SIGNED_SIZE + 72)), FORGED),
    "r of the signature above the order": Row(Hands(report=flip(SIGNED_SIZE + 71)), SHAPE),
    "no signature": Row(Hands(report=lambda data: data[:SIGNED_SIZE] + bytes(512)), SHAPE),
    # the platform
    "a chip that is masked, and the owner names chips": Row(
        Hands(configure=lambda processor: processor.snp.config(mask_chip_id=True)),
        owner("chip.allowed", 3),
        replace(EXPECTED, chips=(bytes(range(64)),)),
    ),
    "a chip that the owner does not name": Row(
        Hands(), owner("chip.allowed", 3), replace(EXPECTED, chips=(bytes(range(64)),))
    ),
    "a chip key that is masked": Row(
        Hands(configure=lambda processor: processor.snp.config(mask_chip_key=True)), SHAPE
    ),
    "a lower TCB version than the owner accepts": Row(
        Hands(configure=lambda processor: processor.snp.config(processor.snp.raw(LOWER))),
        owner("tcb.minimum", 3),
    ),
    "a higher TCB version than is committed": Row(
        Hands(configure=lambda processor: processor.snp.config(processor.snp.raw(TCB) + 1)),
        firmware("SNP_CONFIG", S.INVALID_PARAM),
    ),
    # its certificates
    "the VCEK of another TCB version": Row(
        Hands(vek=lambda host: host.identity.vcek(LOWER)), FORGED
    ),
    "the VCEK of a chip with the same ID": Row(
        Hands(vek=lambda host: vcek(host, key=STRANGER)), FORGED
    ),
    "the VCEK of another chip": Row(
        Hands(vek=lambda host: vcek(host, key=STRANGER, hwid=bytes(range(64)))), FORGED
    ),
    "the chip's VCEK under another ID": Row(
        Hands(vek=lambda host: vcek(host, hwid=bytes(range(64)))), owner("chip.id", 1)
    ),
    "the chip's VCEK for another TCB version": Row(
        Hands(vek=lambda host: vcek(host, tcb=LOWER)), owner("tcb.vek", 1)
    ),
    "a VLEK for the VCEK": Row(
        Hands(
            vek=lambda host: Vlek(host.roots, TCB).certificate,
            chain=lambda host: host.chain(vlek=True),
        ),
        owner("report.signing-key", 1),
    ),
    "the ASVK for the ASK": Row(
        Hands(chain=lambda host: host.chain(vlek=True)), owner("chain.names", 1)
    ),
    "a stranger's VCEK under his own name": Row(
        Hands(vek=lambda host: vcek(host, signer=rsa.generate_private_key(65537, 2048))),
        owner("chain.vek", 1),
    ),
    "a VCEK that the ARK signed": Row(
        Hands(vek=lambda host: vcek(host, signer=host.roots.ark_key)), owner("chain.vek", 1)
    ),
    "a VCEK that the ASVK signed": Row(
        Hands(vek=lambda host: vcek(host, signer=host.roots.asvk_key)), owner("chain.vek", 1)
    ),
    "a VCEK that signed itself": Row(
        Hands(vek=lambda host: host.roots.ask), owner("chain.names", 1)
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_who_notices(host: Host, name: str) -> None:
    row = ROWS[name]
    assert host.run(row.hands, row.expected) == row.noticed
    assert host.processor.snp_guests.contexts == ()
    assert host.kvm.asids.current == {"sev": 0, "sev_es": 0}


def launch_without_kvm(host: Host, policy: int) -> SnpMachine:
    """Launch the machine as a host would that does not ask KVM."""
    guests, asid = host.processor.snp_guests, host.kvm.asids.take(GuestKind.SNP)
    context = guests.gctx_create()
    guests.launch_start(context, policy)
    guests.activate(context, asid)
    for kind, gpa, contents in snp_pages(MACHINE):
        guests.launch_update(context, kind, contents, gpa=gpa)
    for page in MACHINE.vmsas():
        guests.launch_update(context, PageType.VMSA, page)
    guests.launch_finish(context, host_data=HOST_DATA)
    return SnpMachine(host.kvm, context, asid)


def test_what_kvm_refuses_would_be_noticed_without_it_too(host: Host) -> None:
    with launch_without_kvm(host, POLICY | 1 << 18) as guest:
        report = GuestChannel(host.kvm, guest).get_report(NONCE)
    noticed = host.judge(report, host.vek, host.chain(), PLAIN)
    assert noticed == owner("policy.migration-agent", 3)
    with pytest.raises(CommandError) as caught:
        launch_without_kvm(host, 1 << 16)
    assert caught.value.status is S.POLICY_FAILURE


@pytest.fixture(scope="module")
def stranger(genoa_roots: SimulatedRoots) -> SimulatedRoots:
    """Another AMD, with the names and other keys."""
    made = SimulatedRoots(ProductLine.MILAN)
    made.ark_key, made.ask_key = genoa_roots.ark_key, genoa_roots.ask_key
    return made


@pytest.mark.parametrize(
    ("which", "check"),
    [
        ("ASK", "chain.ask"),
        ("ARK", "chain.root"),
        ("both", "chain.root"),
        ("other line", "chain.root"),
    ],
)
def test_another_amds_keys_are_noticed(
    host: Host, stranger: SimulatedRoots, genoa_roots: SimulatedRoots, which: str, check: str
) -> None:
    chain = {
        "ASK": (stranger.ask, host.roots.ark),
        "ARK": (host.roots.ask, stranger.ark),
        "both": (stranger.ask, stranger.ark),
        "other line": (genoa_roots.ask, genoa_roots.ark),
    }[which]
    pem = b"".join(map(encode_pem_certificate, chain))
    assert host.run(Hands(chain=lambda _: pem)) == owner(check, 1)


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("vlek", [False, True], ids=["VCEK", "VLEK"])
def test_no_byte_of_a_report_can_be_changed(
    make_host: Callable[..., Host], version: int, vlek: bool
) -> None:
    host = make_host(version=version, vlek=vlek)
    report, vek, chain = host.report(), host.vek, host.chain()
    assert host.judge(report, vek, chain) == NOBODY
    found = {
        host.judge(flip(offset, 1 << offset % 8)(report), vek, chain).code
        for offset in range(len(report))
    }
    # Every bit that has a place in the layout breaks the signature, every other one the shape.
    assert found == {1, 65}


@pytest.mark.parametrize("vlek", [False, True], ids=["VCEK", "VLEK"])
def test_no_byte_of_its_certificates_can_be_changed(
    make_host: Callable[..., Host], vlek: bool
) -> None:
    host = make_host(vlek=vlek)
    report, vek, chain = host.report(), host.vek, host.chain()
    intermediate = host.roots.asvk if vlek else host.roots.ask
    ark = encode_pem_certificate(host.roots.ark)
    codes = {
        host.judge(report, flip(offset, 1 << offset % 8)(vek), chain).code
        for offset in range(len(vek))
    }
    assert codes == {1, 65}
    codes = set()
    for offset in range(len(intermediate)):
        changed = encode_pem_certificate(flip(offset, 1 << offset % 8)(intermediate))
        codes.add(host.judge(report, vek, changed + ark).code)
    assert codes == {1, 65}


def test_a_report_is_of_its_own_guest_and_moment(host: Host) -> None:
    with host.launch(Hands()) as guest:
        channel = GuestChannel(host.kvm, guest)
        old = channel.get_report(bytes(64))
        assert host.judge(old, host.vek, host.chain()) == owner("report.data", 3)
    with host.launch(Hands(machine=replace(MACHINE, vcpus=1), identity=None)) as other:
        report = GuestChannel(host.kvm, other).get_report(NONCE)
        assert host.judge(report, host.vek, host.chain()) == NOT_MEASURED


@dataclass
class Channel:
    """A guest's messages, sealed and opened by hand: what a host may do is done between."""

    host: Host
    guest: SnpMachine

    @property
    def key(self) -> Secret:
        return self.host.processor.snp_guests[self.guest.context].vmpcks[0]

    def request(self, seqno: int = 1, *, vmpl: int = 0) -> bytes:
        payload = encode_report_request(NONCE, vmpl=vmpl)
        return seal_message(Message(MessageType.REPORT_REQ, payload, seqno), self.key)

    def carry(self, message: bytes) -> Message | FirmwareStatus:
        """Return the opened answer, or the status with which the firmware refuses."""
        try:
            return open_message(self.guest.request(message), self.key)
        except CommandError as error:
            return error.status

    def report(self, seqno: int) -> bytes:
        answer = self.carry(self.request(seqno))
        assert isinstance(answer, Message)
        assert answer.seqno == seqno + 1
        status, report = parse_report_response(answer.payload)
        assert status == S.SUCCESS
        return report


@pytest.fixture
def channel(host: Host) -> Iterator[Channel]:
    with host.launch(Hands()) as guest:
        yield Channel(host, guest)


#: Bytes of a message's header that are no secret's and no counter's: what the firmware can name.
NAMED: Final = {*range(0x10, 0x20), *range(0x28, 0x34), *range(0x36, 0x3C), *range(0x3D, 0x60)}


def test_no_byte_of_a_request_can_be_changed(channel: Channel) -> None:
    request = channel.request()
    for offset in range(len(request)):
        status = channel.carry(flip(offset)(request))
        named = S.INVALID_PARAM if offset in NAMED else S.BAD_MEASUREMENT
        assert status == named, f"{offset:#x}"
    # None of them moved the counter: the guest's own request still arrives.
    assert channel.host.judge(channel.report(1), channel.host.vek, channel.host.chain()) == NOBODY


def test_no_byte_of_an_answer_can_be_changed(channel: Channel) -> None:
    answer = channel.guest.request(channel.request())
    for offset in range(len(answer)):
        with pytest.raises((SignatureMismatch, FormatError)):
            open_message(flip(offset)(answer), channel.key)
    assert open_message(answer, channel.key).kind == MessageType.REPORT_RSP


def test_a_message_is_taken_once_and_in_its_order(channel: Channel) -> None:
    request = channel.request()
    channel.report(1)
    assert channel.carry(request) is S.AEAD_OFLOW
    assert channel.carry(channel.request(5)) is S.AEAD_OFLOW
    channel.report(3)


def test_a_message_of_another_guest_is_not_taken(host: Host, channel: Channel) -> None:
    with host.launch(Hands()) as other:
        assert Channel(host, other).carry(channel.request()) is S.BAD_MEASUREMENT
        answer = other.request(Channel(host, other).request())
        with pytest.raises(SignatureMismatch):
            open_message(answer, channel.key)


def test_an_answer_to_another_question_is_noticed_by_the_guest(host: Host) -> None:
    with host.launch(Hands()) as guest:
        channel = Channel(host, guest)
        first = guest.request(channel.request(1))
        guest.request(channel.request(3))
        answer = open_message(first, channel.key)
        # It opens, because it is genuine; its number says that it is an old one.
        assert answer.seqno != 4


def test_software_at_a_lower_privilege_gets_no_report_of_a_higher_one(host: Host) -> None:
    with host.launch(Hands()) as guest:
        key = host.processor.snp_guests[guest.context].vmpcks[2]
        payload = encode_report_request(NONCE, vmpl=0)
        request = seal_message(Message(MessageType.REPORT_REQ, payload, 1, 2), key)
        status, report = parse_report_response(open_message(guest.request(request), key).payload)
        assert status == S.INVALID_PARAM
        assert not any(report)


@pytest.mark.parametrize(
    ("offset", "status"),
    [
        (0x000, S.BAD_MEASUREMENT),  # IV
        (0x00C, S.INVALID_PARAM),  # reserved
        (0x010, S.BAD_MEASUREMENT),  # the wrapped key
        (0x18F, S.BAD_MEASUREMENT),
        (0x190, S.BAD_SVN),  # the TCB version that it is for
        (0x198, S.INVALID_PARAM),  # reserved
        (0x1A0, S.BAD_MEASUREMENT),  # the tag
    ],
)
def test_a_wrapped_vlek_cannot_be_changed(
    host: Host, roots: SimulatedRoots, offset: int, status: FirmwareStatus
) -> None:
    stick = host.identity.seal_hashstick(Vlek(roots, TCB))
    with pytest.raises(CommandError) as caught:
        host.processor.snp.vlek_load(flip(offset)(stick))
    assert caught.value.status is status
    host.processor.snp.vlek_load(stick)


def test_a_wrapped_vlek_is_for_one_chip_and_one_tcb_version(
    make_host: Callable[..., Host], host: Host, roots: SimulatedRoots
) -> None:
    other = make_host()
    for stick, status in (
        (other.identity.seal_hashstick(Vlek(roots, TCB)), S.BAD_MEASUREMENT),
        (host.identity.seal_hashstick(Vlek(roots, LOWER)), S.BAD_SVN),
    ):
        with pytest.raises(CommandError) as caught:
            host.processor.snp.vlek_load(stick)
        assert caught.value.status is status


def test_the_vlek_of_another_provider_is_not_the_one_that_signed(
    make_host: Callable[..., Host], roots: SimulatedRoots
) -> None:
    host = make_host(vlek=True)
    stranger = Vlek(roots, TCB, csp_id="CN=other.example")
    assert host.run(Hands(vek=lambda _: stranger.certificate)) == FORGED
    assert host.run(Hands()) == NOBODY
