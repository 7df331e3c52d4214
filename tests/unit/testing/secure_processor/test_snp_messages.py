"""What a guest asks and what it gets: judged by our own verifier, which was given the root."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.guest_message import (
    KeySelect,
    Message,
    MessageType,
    encode_report_request,
    open_message,
    parse_report_response,
    seal_message,
)
from sevkit.abi.idblock import IdBlock, compute_key_digest, encode_id_auth, encode_id_block
from sevkit.abi.policy import PlatformInfo, SigningKey
from sevkit.abi.product import Product
from sevkit.abi.report import LAYOUT, FirmwareVersion, Report, parse_report
from sevkit.abi.signature import public_key_of
from sevkit.abi.tcb import TcbVersion
from sevkit.attest.container import find_report
from sevkit.attest.expectations import Expectations, ExpectedMeasurement
from sevkit.attest.idblock import sign_id_block
from sevkit.attest.snp import Trust, judge_report, pinned_roots
from sevkit.errors import FormatError, SignatureMismatch
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.testing.secure_processor.core import Firmware
from sevkit.testing.secure_processor.identity import Vlek
from sevkit.testing.secure_processor.snp_guests import PageType
from sevkit.testing.snp_report import CPUID_FMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.attest.verdict import Verdict
    from sevkit.testing.secure_processor.processor import SecureProcessor

    Refusal = Callable[[Callable[[], object]], FirmwareStatus]
    ProcessorOf = Callable[..., SecureProcessor]

S: Final = FirmwareStatus
AT: Final = datetime(2026, 11, 23, tzinfo=UTC)
NONCE: Final = bytes(range(64))
VERSIONS: Final = {2: (1, 55, 25), 3: (1, 55, 40), 5: (1, 58, 2)}


@dataclass
class Guest:
    """A running guest that speaks with every key it has, and may say anything."""

    processor: SecureProcessor
    context: int

    def seal(
        self,
        payload: bytes,
        *,
        vmpck: int = 0,
        seqno: int | None = None,
        kind: int = MessageType.REPORT_REQ,
        version: int = 1,
    ) -> bytes:
        guest = self.processor.snp_guests[self.context]
        number = guest.counters[vmpck] + 1 if seqno is None else seqno
        message = Message(kind, payload, number, vmpck, version)
        return seal_message(message, guest.vmpcks[vmpck])

    def send(self, message: bytes) -> bytes:
        return self.processor.messages.guest_request(self.context, message)

    def ask(self, payload: bytes, vmpck: int = 0) -> tuple[int, bytes]:
        """Return status and report of the answer to a payload."""
        answer = self.send(self.seal(payload, vmpck=vmpck))
        key = self.processor.snp_guests[self.context].vmpcks[vmpck]
        message = open_message(answer, key)
        assert message.kind == MessageType.REPORT_RSP
        return parse_report_response(message.payload)

    def report(self, *, select: int = KeySelect.VLEK_ELSE_VCEK, vmpl: int = 0) -> bytes:
        payload = encode_report_request(NONCE, vmpl=vmpl, key_select=select)
        status, report = self.ask(payload)
        assert status == S.SUCCESS
        return report

    @property
    def counters(self) -> list[int]:
        return self.processor.snp_guests[self.context].counters

    @property
    def digest(self) -> bytes:
        return self.processor.snp_guests[self.context].digest

    def load_vlek(self) -> Vlek:
        identity = self.processor.identity
        assert identity.snp_roots is not None
        vlek = Vlek(identity.snp_roots, self.processor.snp.reported_tcb)
        self.processor.snp.vlek_load(identity.seal_hashstick(vlek))
        return vlek

    def judge(
        self,
        report: bytes,
        *,
        vlek: Vlek | None = None,
        vek: bytes | None = None,
        root: bool = True,
    ) -> Verdict:
        """Return our verdict, with the certificates that the host would hand over."""
        roots = self.processor.identity.snp_roots
        assert roots is not None
        issuer = roots.asvk if vlek else roots.ask
        table = self.processor.messages.cert_table(vlek)
        trust = Trust(
            at=AT,
            roots=pinned_roots(roots.ark) if root else pinned_roots(),
            vek=vek,
            chain=b"".join(encode_pem_certificate(der) for der in (issuer, roots.ark)),
        )
        expected = Expectations(report_data=NONCE, measurements=(ExpectedMeasurement(self.digest),))
        return judge_report(find_report(report + table), expected, trust)


def launch(processor: SecureProcessor, *, vcek_disabled: bool = False) -> Guest:
    """Launch a guest of one page and its secrets; SNP is initialised where it is not."""
    if not processor.core.snp_initialized:
        processor.snp.init()
        processor.snp.df_flush()
    guests = processor.snp_guests
    context = guests.gctx_create()
    guests.launch_start(context, 0x30000)
    guests.activate(context, 1)
    guests.launch_update(context, PageType.NORMAL, bytes(4096), gpa=0xFFFF_F000)
    guests.launch_update(context, PageType.SECRETS, gpa=0x80_D000)
    guests.launch_finish(context, vcek_disabled=vcek_disabled)
    return Guest(processor, context)


@pytest.fixture
def guest(milan: SecureProcessor) -> Guest:
    return launch(milan)


@pytest.mark.parametrize("version", list(VERSIONS))
@pytest.mark.parametrize("product", [product for product in Product if product.line.snp])
def test_reports_of_every_product_and_version_are_accepted_with_the_root_alone(
    processor_of: ProcessorOf, product: Product, version: int
) -> None:
    guest = launch(processor_of(product, Firmware(FirmwareVersion(*VERSIONS[version]))))
    data = guest.report()
    report = parse_report(data)
    assert report.version == version
    assert report.product is (product if version >= 3 else None)
    assert guest.judge(data).exit_code == 0
    assert guest.judge(data, root=False).exit_code == 1


@pytest.mark.parametrize("product", [Product.MILAN, Product.GENOA, Product.TURIN])
def test_a_vleks_reports_are_accepted_as_such(processor_of: ProcessorOf, product: Product) -> None:
    guest = launch(processor_of(product))
    vlek = guest.load_vlek()
    data = guest.report()
    assert parse_report(data).key_info.signing_key is SigningKey.VLEK
    assert guest.judge(data, vlek=vlek).exit_code == 0
    assert guest.judge(data, vlek=vlek, root=False).exit_code == 1


def test_a_changed_report_is_refused(guest: Guest) -> None:
    data = bytearray(guest.report())
    data[0x0C0] ^= 1
    assert guest.judge(bytes(data)).exit_code == 1


def test_another_chips_vcek_does_not_vouch(guest: Guest, processor_of: ProcessorOf) -> None:
    other = processor_of().identity
    vek = other.vcek(guest.processor.snp.reported_tcb)
    assert guest.judge(guest.report(), vek=vek).exit_code == 1


def test_a_report_says_what_firmware_and_guest_are(guest: Guest) -> None:
    processor = guest.processor
    processor.snp.platform_info |= PlatformInfo.TSME_EN
    report = parse_report(guest.report(vmpl=2))
    context = processor.snp_guests[guest.context]
    raw = processor.snp.raw(processor.snp.current_tcb)
    assert report.cpuid_fms == CPUID_FMS[Product.MILAN]
    assert report.vmpl == 2
    assert (report.policy, report.guest_svn) == (0x30000, 0)
    assert (report.report_data, report.measurement) == (NONCE, context.digest)
    assert (report.report_id, report.report_id_ma) == (context.report_id, b"\xff" * 32)
    assert report.chip_id == processor.identity.chip_id == processor.sev.get_id()
    assert {
        report.current_tcb_raw,
        report.reported_tcb_raw,
        report.committed_tcb_raw,
        report.launch_tcb_raw,
    } == {raw}
    assert report.current_version == report.committed_version == (1, 55, 40)
    assert report.platform_info == (
        PlatformInfo.SMT_EN
        | PlatformInfo.TSME_EN
        | PlatformInfo.ECC_EN
        | PlatformInfo.ALIAS_CHECK_COMPLETE
    )
    assert report.key_info == (False, False, SigningKey.VCEK)


def test_mitigation_vectors_are_there_from_version_5_on(processor_of: ProcessorOf) -> None:
    firmware = Firmware(FirmwareVersion(1, 58, 2), mit_vector=5)
    processor = processor_of(Product.TURIN, firmware)
    guest = launch(processor)
    processor.snp.update_firmware(replace(processor.core.firmware, mit_vector=7))
    report = parse_report(guest.report())
    assert (report.launch_mit_vector, report.current_mit_vector) == (5, 7)


@pytest.mark.parametrize("alias_check", [False, True])
@pytest.mark.parametrize("hiding", [False, True])
def test_the_firmwares_own_platform_info_is_shown(
    processor_of: ProcessorOf, alias_check: bool, hiding: bool
) -> None:
    firmware = Firmware(
        ciphertext_hiding_capable=True, ciphertext_hiding=hiding, alias_check=alias_check
    )
    info = parse_report(launch(processor_of(firmware=firmware)).report()).platform_info
    assert bool(info & PlatformInfo.ALIAS_CHECK_COMPLETE) is alias_check
    assert bool(info & PlatformInfo.CIPHERTEXT_HIDING_DRAM_EN) is hiding


def test_the_vcek_is_the_reported_tcbs(guest: Guest) -> None:
    snp, identity = guest.processor.snp, guest.processor.identity
    current = snp.current_tcb
    lower = replace(current, snp=1)
    snp.config(snp.raw(lower))
    data = guest.report()
    report = parse_report(data)
    assert (report.reported_tcb_raw, report.current_tcb_raw) == (snp.raw(lower), snp.raw(current))
    assert guest.judge(data).exit_code == 0
    assert guest.judge(data, vek=identity.vcek(current)).exit_code == 1


def test_an_update_shows_in_the_current_version_and_a_commit_in_the_rest(guest: Guest) -> None:
    snp = guest.processor.snp
    old = snp.raw(snp.current_tcb)
    firmware = Firmware(FirmwareVersion(1, 55, 41), TcbVersion(5, 0, 25, 220))
    snp.update_firmware(firmware)
    new = snp.raw(snp.current_tcb)

    def seen(report: Report) -> tuple[int, ...]:
        return (
            report.current_tcb_raw,
            report.committed_tcb_raw,
            report.reported_tcb_raw,
            report.launch_tcb_raw,
        )

    before = guest.report()
    snp.commit()
    after = guest.report()
    assert seen(parse_report(before)) == (new, old, old, old)
    assert seen(parse_report(after)) == (new, new, new, old)
    assert parse_report(before).committed_version.build == 40
    assert parse_report(after).committed_version.build == 41
    assert guest.judge(after).exit_code == 0


def test_an_id_block_shows_in_reports(snp: SecureProcessor) -> None:
    guests = snp.snp_guests
    context = guests.gctx_create()
    guests.launch_start(context, 0x30000)
    guests.activate(context, 1)
    guests.launch_update(context, PageType.NORMAL, bytes(4096))
    keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(2)]
    block = IdBlock(guests[context].digest, b"F" * 16, b"I" * 16, 9)
    auth = encode_id_auth(sign_id_block(block, *keys))
    guests.launch_finish(
        context,
        id_block=encode_id_block(block),
        id_auth=auth,
        author_key=True,
        host_data=b"H" * 32,
    )
    report = parse_report(Guest(snp, context).report())
    assert (report.family_id, report.image_id, report.guest_svn) == (b"F" * 16, b"I" * 16, 9)
    assert report.host_data == b"H" * 32
    digests = [compute_key_digest(public_key_of(key.public_key())) for key in keys]
    assert [report.id_key_digest, report.author_key_digest] == digests
    assert report.key_info.author_key_en


VCEK, VLEK, NONE = SigningKey.VCEK, SigningKey.VLEK, SigningKey.NONE
INVALID_KEY: Final = S.INVALID_KEY


@pytest.mark.parametrize(
    ("select", "vlek", "disabled", "masked", "expected"),
    [
        (0, False, False, False, VCEK),
        (0, True, False, False, VLEK),
        (0, False, True, False, INVALID_KEY),
        (0, True, True, False, VLEK),
        (0, False, False, True, NONE),
        (0, True, False, True, VLEK),
        (0, False, True, True, INVALID_KEY),
        (1, False, False, False, VCEK),
        (1, True, False, False, VCEK),
        (1, False, True, False, INVALID_KEY),
        (1, True, True, False, INVALID_KEY),
        (1, True, False, True, NONE),
        (1, False, True, True, INVALID_KEY),
        (2, False, False, False, INVALID_KEY),
        (2, True, False, False, VLEK),
        (2, True, True, True, VLEK),
        (2, False, False, True, INVALID_KEY),
        (3, False, False, False, INVALID_KEY),
        (3, True, False, False, INVALID_KEY),
    ],
)
def test_the_key_is_what_guest_platform_and_launch_agree_on(
    milan: SecureProcessor,
    select: int,
    vlek: bool,
    disabled: bool,
    masked: bool,
    expected: SigningKey | FirmwareStatus,
) -> None:
    guest = launch(milan, vcek_disabled=disabled)
    if vlek:
        guest.load_vlek()
    milan.snp.config(mask_chip_key=masked)
    status, data = guest.ask(encode_report_request(NONCE, key_select=select))
    if isinstance(expected, FirmwareStatus):
        assert (status, data) == (expected, bytes(1184))
        return
    key_info = LAYOUT.parse(data).int("key_info")
    assert (status, key_info) == (0, masked << 1 | expected << 2)
    assert any(data[0x2A0:]) is (expected is not NONE)


def test_a_report_that_nobody_signed_is_refused_by_its_reader(guest: Guest) -> None:
    guest.processor.snp.config(mask_chip_key=True)
    with pytest.raises(FormatError, match="not signed"):
        guest.judge(guest.report())


def test_a_masked_chip_id_is_zero_and_the_report_still_holds(guest: Guest) -> None:
    guest.processor.snp.config(mask_chip_id=True)
    data = guest.report()
    assert parse_report(data).chip_id_masked
    verdict = guest.judge(data)
    failed = {found.check for found in verdict.findings if found.outcome == "fail"}
    assert failed == set()
    assert verdict.exit_code == 0


def test_a_vlek_goes_on_signing_after_the_reported_tcb_has_changed(guest: Guest) -> None:
    vlek = guest.load_vlek()
    snp = guest.processor.snp
    snp.config(snp.raw(replace(snp.current_tcb, snp=1)))
    data = guest.report()
    assert parse_report(data).key_info.signing_key is SigningKey.VLEK
    assert guest.judge(data, vlek=vlek).exit_code == 1  # it is another version's


@pytest.mark.parametrize(
    ("vmpck", "vmpl", "taken"),
    [
        *((key, level, key <= level) for key in range(4) for level in range(4)),
        (0, 4, False),
        (3, 4, False),
        (0, 0xFFFF_FFFF, False),
    ],
)
def test_a_guest_speaks_for_its_own_vmpl_and_those_below(
    guest: Guest, vmpck: int, vmpl: int, taken: bool
) -> None:
    status, report = guest.ask(encode_report_request(NONCE, vmpl=vmpl), vmpck)
    assert status == (S.SUCCESS if taken else S.INVALID_PARAM)
    assert any(report) is taken
    if taken:
        assert parse_report(report).vmpl == vmpl


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (encode_report_request(NONCE)[:80], S.INVALID_PARAM),
        (encode_report_request(NONCE) + bytes(16), S.INVALID_PARAM),
        (encode_report_request(NONCE)[:-1] + b"\1", S.INVALID_PARAM),
        (encode_report_request(NONCE, key_select=4), S.INVALID_PARAM),
        (encode_report_request(NONCE, key_select=7), S.INVALID_PARAM),  # reserved bits first
        (encode_report_request(NONCE, key_select=3, vmpl=9), S.INVALID_KEY),  # then the key
        (encode_report_request(NONCE, vmpl=9), S.INVALID_PARAM),  # then the VMPL
    ],
)
def test_a_bad_payload_is_answered_and_moves_the_counter(
    guest: Guest, payload: bytes, expected: FirmwareStatus
) -> None:
    assert guest.ask(payload) == (expected, bytes(1184))
    assert guest.counters == [2, 0, 0, 0]


def test_answers_count_up_by_two_for_each_key_apart(guest: Guest) -> None:
    payload = encode_report_request(NONCE, vmpl=3)
    keys = guest.processor.snp_guests[guest.context].vmpcks
    seen = []
    for vmpck in (0, 0, 1, 0, 3):
        answer = open_message(guest.send(guest.seal(payload, vmpck=vmpck)), keys[vmpck])
        seen.append((answer.vmpck, answer.seqno))
    assert seen == [(0, 2), (0, 4), (1, 2), (0, 6), (3, 2)]
    assert guest.counters == [6, 2, 0, 2]


def test_a_replayed_message_is_refused_and_moves_nothing(guest: Guest, refusal: Refusal) -> None:
    first = guest.seal(encode_report_request(NONCE))
    guest.send(first)
    assert refusal(partial(guest.send, first)) is S.AEAD_OFLOW
    assert guest.counters[0] == 2


@pytest.mark.parametrize("seqno", [0, 2, 3, 1 << 63])
def test_a_message_out_of_order_is_refused(guest: Guest, refusal: Refusal, seqno: int) -> None:
    message = guest.seal(encode_report_request(NONCE), seqno=seqno)
    assert refusal(partial(guest.send, message)) is S.AEAD_OFLOW
    assert guest.counters[0] == 0


def test_the_last_sequence_number_is_never_passed(guest: Guest, refusal: Refusal) -> None:
    payload = encode_report_request(NONCE)
    guest.counters[0] = (1 << 64) - 4
    guest.ask(payload)
    assert guest.counters[0] == (1 << 64) - 2
    assert refusal(partial(guest.send, guest.seal(payload))) is S.AEAD_OFLOW


def test_every_flipped_byte_of_a_request_is_refused_and_moves_nothing(
    guest: Guest, refusal: Refusal
) -> None:
    good = guest.seal(encode_report_request(NONCE))
    seen = set()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 0x01
        seen.add(refusal(partial(guest.send, bytes(bad))))
        assert guest.counters == [0, 0, 0, 0]
    assert seen == {S.INVALID_PARAM, S.BAD_MEASUREMENT}
    guest.send(good)
    assert guest.counters[0] == 2


def test_a_message_under_another_guests_key_is_refused(
    guest: Guest, snp_roots_of: object, refusal: Refusal
) -> None:
    guests = guest.processor.snp_guests
    other = guests.gctx_create()
    guests.launch_start(other, 0x30000)
    message = Message(MessageType.REPORT_REQ, encode_report_request(NONCE), 1)
    forged = seal_message(message, guests[other].vmpcks[0])
    assert refusal(partial(guest.send, forged)) is S.BAD_MEASUREMENT


def test_header_tag_number_version_and_type_are_looked_at_in_this_order(
    guest: Guest, refusal: Refusal
) -> None:
    payload = encode_report_request(NONCE)
    everything = bytearray(guest.seal(payload, seqno=7, kind=99, version=9))
    everything[0] ^= 1  # the tag
    everything[0x31] = 2  # the header's version
    assert refusal(partial(guest.send, bytes(everything))) is S.INVALID_PARAM
    everything[0x31] = 1
    assert refusal(partial(guest.send, bytes(everything))) is S.BAD_MEASUREMENT
    numbered = guest.seal(payload, seqno=7, kind=99, version=9)
    assert refusal(partial(guest.send, numbered)) is S.AEAD_OFLOW
    for kind, version in ((MessageType.REPORT_REQ, 0), (MessageType.REPORT_REQ, 2), (99, 1)):
        message = guest.seal(payload, kind=kind, version=version)
        assert refusal(partial(guest.send, message)) is S.INVALID_PARAM
    assert guest.counters == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", [0, 2, 4, 6, 18, 255])
def test_what_is_no_request_is_refused(guest: Guest, refusal: Refusal, kind: int) -> None:
    message = guest.seal(encode_report_request(NONCE), kind=kind)
    assert refusal(partial(guest.send, message)) is S.INVALID_PARAM


@pytest.mark.parametrize("size", [0, 95, 96, 4097])
def test_bytes_that_are_no_message_are_refused(guest: Guest, refusal: Refusal, size: int) -> None:
    assert refusal(partial(guest.send, bytes(size))) is S.INVALID_PARAM


def test_an_answer_is_for_the_guest_alone(guest: Guest) -> None:
    answer = guest.send(guest.seal(encode_report_request(NONCE)))
    assert NONCE not in answer
    keys = guest.processor.snp_guests[guest.context].vmpcks
    for key in keys[1:]:
        with pytest.raises(SignatureMismatch):
            open_message(answer, key)


def test_only_a_running_guest_is_answered(snp: SecureProcessor, refusal: Refusal) -> None:
    context = snp.snp_guests.gctx_create()
    send = partial(snp.messages.guest_request, context, bytes(192))
    assert refusal(send) is S.INVALID_GUEST_STATE
    snp.snp_guests.launch_start(context, 0x30000)
    assert refusal(send) is S.INVALID_GUEST_STATE


def test_a_chip_without_snp_has_no_certificate_table(processor_of: ProcessorOf) -> None:
    assert processor_of(Product.ROME).messages.cert_table() == b""
