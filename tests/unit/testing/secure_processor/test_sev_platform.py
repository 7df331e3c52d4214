from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.platform_status import PlatformState, StatusFlags
from sevkit.abi.product import Product
from sevkit.abi.report import FirmwareVersion
from sevkit.abi.sevcert import (
    BODY_SIZE,
    SIZE,
    Algorithm,
    Usage,
    encode_sev_certificate,
    parse_sev_certificate,
)
from sevkit.abi.sevchain import PlatformChain, parse_parts
from sevkit.attest.sev_platform import PlatformExpectations, judge_platform
from sevkit.errors import UsageError
from sevkit.testing.secure_processor.core import Firmware
from sevkit.testing.sev_chain import certify, rsa_public_key, sign_ecdsa, sign_pss

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.secure_processor.processor import SecureProcessor
    from sevkit.testing.secure_processor.sev_platform import SevPlatform

    Refusal = Callable[[Callable[[], object]], FirmwareStatus]
    ProcessorOf = Callable[..., SecureProcessor]

AT: Final = datetime(2026, 11, 23, tzinfo=UTC)
EC: Final = Algorithm.ECDSA_SHA256
#: Every command that takes no argument, and the PSTATEs in which 55766 allows it.
UNINIT, INIT, WORKING = PlatformState
ALLOWED: Final = {
    "init": {UNINIT},
    "shutdown": {UNINIT, INIT, WORKING},
    "factory_reset": {UNINIT},
    "status": {UNINIT, INIT, WORKING},
    "pek_gen": {INIT},
    "pek_csr": {INIT, WORKING},
    "pdh_cert_export": {INIT, WORKING},
    "pdh_gen": {INIT, WORKING},
    "df_flush": {UNINIT, INIT, WORKING},
    "get_id": {UNINIT, INIT, WORKING},
}


def chain_of(processor: SecureProcessor) -> PlatformChain:
    return parse_parts(*processor.sev.pdh_cert_export())


def parts(processor: SecureProcessor) -> dict[str, bytes]:
    chain = chain_of(processor)
    return {name: getattr(chain, name).data for name in ("pdh", "pek", "oca", "cek")}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def judge(processor: SecureProcessor, *roots: bytes) -> int:
    """Return the exit code of our own verdict, with the CEK that the key service signed."""
    chip = processor.identity
    chain = chain_of(processor).with_cek(parse_sev_certificate(chip.signed_cek))
    verdict, _ = judge_platform(
        chain, PlatformExpectations(), at=AT, ca=chip.sev_roots.ca, roots=roots
    )
    return verdict.exit_code


def accepted(processor: SecureProcessor) -> bool:
    return judge(processor, processor.identity.sev_roots.root) == 0


class Owner:
    """An external owner, with a key on P-384."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.oca = certify(Usage.OCA, EC, self.key, {Usage.OCA: self.key})

    def sign(self, csr: bytes) -> bytes:
        filled = (Usage.OCA.to_bytes(4, "little") + EC.to_bytes(4, "little")).ljust(8, b"\0")
        signed = filled + sign_ecdsa(self.key, csr[:BODY_SIZE])
        return csr[:BODY_SIZE] + signed + csr[BODY_SIZE + len(signed) :]

    def take(self, sev: SevPlatform) -> None:
        sev.pek_cert_import(self.sign(sev.pek_csr()), self.oca)


@pytest.fixture
def owner() -> Owner:
    return Owner()


def bring_to(processor: SecureProcessor, state: PlatformState) -> None:
    if state is not PlatformState.UNINIT:
        processor.sev.init()
    if state is PlatformState.WORKING:
        processor.sev_guests.launch_start(0)
    assert processor.sev.status().state is state


@pytest.mark.parametrize("state", list(PlatformState))
@pytest.mark.parametrize("command", list(ALLOWED))
def test_each_command_is_legal_in_its_states_only(
    milan: SecureProcessor, refusal: Refusal, command: str, state: PlatformState
) -> None:
    bring_to(milan, state)
    run = getattr(milan.sev, command)
    if state in ALLOWED[command]:
        run()
        return
    before = milan.sev.status()
    assert refusal(run) is FirmwareStatus.INVALID_PLATFORM_STATE
    assert milan.sev.status() == before


@pytest.mark.parametrize("state", list(PlatformState))
def test_an_import_is_legal_in_init_only_and_the_state_comes_first(
    milan: SecureProcessor, refusal: Refusal, state: PlatformState
) -> None:
    bring_to(milan, state)
    expected = FirmwareStatus.INVALID_PLATFORM_STATE
    if state is PlatformState.INIT:
        expected = FirmwareStatus.INVALID_LEN
    assert refusal(lambda: milan.sev.pek_cert_import(b"", b"")) is expected


@pytest.mark.parametrize("state", list(PlatformState))
def test_firmware_is_downloaded_before_anything_is_initialised(
    milan: SecureProcessor, refusal: Refusal, state: PlatformState
) -> None:
    bring_to(milan, state)
    newer = Firmware(FirmwareVersion(1, 58, 1))
    run = partial(milan.sev.download_firmware, newer)
    if state is not PlatformState.UNINIT:
        assert refusal(run) is FirmwareStatus.INVALID_PLATFORM_STATE
        return
    milan.snp.init()
    assert refusal(run) is FirmwareStatus.INVALID_PLATFORM_STATE
    milan.snp.df_flush()
    milan.snp.shutdown()
    run()
    assert milan.sev.status().api_minor == 58
    assert milan.core.committed == milan.core.firmware
    older = Firmware(FirmwareVersion(1, 55, 1))
    assert refusal(lambda: milan.sev.download_firmware(older)) is FirmwareStatus.UPDATE_FAILED


@pytest.mark.parametrize("product", list(Product))
def test_the_chain_of_a_fresh_platform_verifies_on_every_product(
    processor_of: ProcessorOf, product: Product
) -> None:
    processor = processor_of(product)
    processor.sev.init()
    assert accepted(processor)


def test_a_simulated_platform_is_not_genuine_for_who_was_not_given_its_root(
    sev: SecureProcessor,
) -> None:
    assert judge(sev) == 1


def test_the_firmwares_own_cek_carries_no_signature(sev: SecureProcessor) -> None:
    chain = chain_of(sev)
    assert chain.cek.signatures == ()
    chip = sev.identity
    roots = (chip.sev_roots.root,)
    verdict, _ = judge_platform(
        chain, PlatformExpectations(), at=AT, ca=chip.sev_roots.ca, roots=roots
    )
    assert verdict.exit_code == 4


def test_certificates_say_the_firmware_that_made_them(processor_of: ProcessorOf) -> None:
    processor = processor_of(Product.ROME, Firmware(FirmwareVersion(1, 49, 3)))
    processor.sev.init()
    chain = chain_of(processor)
    assert {(c.api_major, c.api_minor) for c in (chain.pdh, chain.pek, chain.oca)} == {(1, 49)}


def test_the_pek_is_signed_by_the_oca_first_and_then_by_the_cek(sev: SecureProcessor) -> None:
    chain = chain_of(sev)
    assert [slot.usage for slot in chain.pek.signatures] == [Usage.OCA, Usage.CEK]
    assert [slot.usage for slot in chain.pdh.signatures] == [Usage.PEK]
    assert [slot.usage for slot in chain.oca.signatures] == [Usage.OCA]
    assert chain.pdh.algorithm is Algorithm.ECDH_SHA256


def test_what_is_stored_survives_a_shutdown(sev: SecureProcessor) -> None:
    before = parts(sev)
    sev.sev.shutdown()
    sev.sev.init()
    assert parts(sev) == before


def test_a_factory_reset_makes_everything_anew_but_the_cek(sev: SecureProcessor) -> None:
    before = parts(sev)
    sev.sev.shutdown()
    sev.sev.factory_reset()
    sev.sev.init()
    assert changed(before, parts(sev)) == {"pdh", "pek", "oca"}
    assert accepted(sev)


def test_pek_gen_makes_everything_anew_but_the_cek(sev: SecureProcessor) -> None:
    before = parts(sev)
    sev.sev.pek_gen()
    assert changed(before, parts(sev)) == {"pdh", "pek", "oca"}
    assert accepted(sev)


def test_pdh_gen_makes_a_pdh_alone(sev: SecureProcessor) -> None:
    before = parts(sev)
    sev.sev.pdh_gen()
    assert changed(before, parts(sev)) == {"pdh"}
    assert accepted(sev)


def test_damaged_storage_is_found_once_and_erased(
    sev: SecureProcessor, refusal: Refusal, owner: Owner
) -> None:
    owner.take(sev.sev)
    before = parts(sev)
    sev.sev.shutdown()
    sev.sev.spoil_store()
    assert refusal(sev.sev.init) is FirmwareStatus.SECURE_DATA_INVALID
    assert sev.sev.state is PlatformState.UNINIT
    sev.sev.init()
    assert changed(before, parts(sev)) == {"pdh", "pek", "oca"}
    assert not sev.sev.status().flags & StatusFlags.OWNED
    assert accepted(sev)


def test_a_factory_reset_mends_damaged_storage(milan: SecureProcessor) -> None:
    milan.sev.spoil_store()
    milan.sev.factory_reset()
    milan.sev.init()
    assert accepted(milan)


@pytest.mark.parametrize("es", [False, True])
def test_status_says_version_state_es_and_guests(milan: SecureProcessor, es: bool) -> None:
    status = milan.sev.status()
    assert (status.api_major, status.api_minor, status.build) == (1, 55, 40)
    assert (status.state, status.flags, status.guest_count) == (UNINIT, StatusFlags(0), 0)
    milan.sev.init(es=es)
    flags = StatusFlags.CONFIG_ES if es else StatusFlags(0)
    assert (milan.sev.status().state, milan.sev.status().flags) == (INIT, flags)
    milan.sev_guests.launch_start(0)
    milan.sev_guests.launch_start(0)
    status = milan.sev.status()
    assert (status.state, status.flags, status.guest_count) == (WORKING, flags, 2)
    milan.sev.shutdown()
    status = milan.sev.status()
    assert (status.state, status.flags, status.guest_count) == (UNINIT, StatusFlags(0), 0)


def test_es_is_what_the_last_init_asked_for(milan: SecureProcessor) -> None:
    milan.sev.init(es=True)
    milan.sev.shutdown()
    assert not milan.sev.es
    milan.sev.init()
    assert milan.sev.status().flags == StatusFlags(0)


def test_a_shutdown_ends_guests_and_frees_their_asids(
    sev: SecureProcessor, refusal: Refusal
) -> None:
    guests = sev.sev_guests
    handle = guests.launch_start(0)
    guests.activate(handle, 5)
    guests.launch_measure(handle)
    guests.launch_finish(handle)
    sev.sev.shutdown()
    assert guests.handles == ()
    assert not sev.core.owned_asids
    assert refusal(sev.sev.df_flush) is FirmwareStatus.WBINVD_REQUIRED


def test_an_init_leaves_every_asid_to_be_flushed(milan: SecureProcessor, refusal: Refusal) -> None:
    milan.sev.init()
    handle = milan.sev_guests.launch_start(0)
    activate = partial(milan.sev_guests.activate, handle, 5)
    assert refusal(activate) is FirmwareStatus.DFFLUSH_REQUIRED
    milan.sev.df_flush()
    activate()


def test_a_request_is_the_peks_certificate_without_signatures(sev: SecureProcessor) -> None:
    csr = sev.sev.pek_csr()
    assert len(csr) == SIZE
    parsed = parse_sev_certificate(csr)
    assert parsed.body == chain_of(sev).pek.body
    assert parsed.signatures == ()


def test_an_external_owner_takes_the_platform(sev: SecureProcessor, owner: Owner) -> None:
    before = parts(sev)
    owner.take(sev.sev)
    after = parts(sev)
    assert changed(before, after) == {"pdh", "pek", "oca"}
    assert after["oca"] == owner.oca
    assert after["pek"][:BODY_SIZE] == before["pek"][:BODY_SIZE]
    assert [s.usage for s in chain_of(sev).pek.signatures] == [Usage.OCA, Usage.CEK]
    assert sev.sev.status().flags & StatusFlags.OWNED
    assert accepted(sev)


@pytest.mark.parametrize(
    ("bits", "algorithm"), [(2048, Algorithm.RSA_SHA256), (4096, Algorithm.RSA_SHA384)]
)
def test_an_owner_with_an_rsa_key_takes_the_platform(
    sev: SecureProcessor, bits: int, algorithm: Algorithm
) -> None:
    key = rsa.generate_private_key(65537, bits)
    public = rsa_public_key(key)
    body = encode_sev_certificate(Usage.OCA, algorithm, public)[:BODY_SIZE]
    own = ((Usage.OCA, algorithm, sign_pss(key, body).ljust(512, b"\0")),)
    oca = encode_sev_certificate(Usage.OCA, algorithm, public, signatures=own)
    csr = sev.sev.pek_csr()
    head = Usage.OCA.to_bytes(4, "little") + algorithm.to_bytes(4, "little")
    signed = head + sign_pss(key, csr[:BODY_SIZE]).ljust(512, b"\0")
    sev.sev.pek_cert_import(csr[:BODY_SIZE] + signed + csr[BODY_SIZE + 520 :], oca)
    assert chain_of(sev).oca.algorithm is algorithm
    assert accepted(sev)


def test_a_request_made_before_new_firmware_can_still_be_imported_after(
    milan: SecureProcessor, owner: Owner
) -> None:
    milan.sev.init()
    pek = owner.sign(milan.sev.pek_csr())
    milan.sev.shutdown()
    milan.sev.download_firmware(Firmware(FirmwareVersion(1, 58, 1)))
    milan.sev.init()
    assert owner.sign(milan.sev.pek_csr())[:BODY_SIZE] == pek[:BODY_SIZE]
    milan.sev.pek_cert_import(pek, owner.oca)
    assert accepted(milan)


@pytest.mark.parametrize("sizes", [(SIZE - 1, SIZE), (SIZE, SIZE + 1), (0, SIZE), (SIZE, 0)])
def test_an_import_of_another_size_is_refused(
    sev: SecureProcessor, refusal: Refusal, sizes: tuple[int, int]
) -> None:
    run = partial(sev.sev.pek_cert_import, bytes(sizes[0]), bytes(sizes[1]))
    assert refusal(run) is FirmwareStatus.INVALID_LEN


def test_an_owned_platform_is_taken_by_nobody_else(
    sev: SecureProcessor, refusal: Refusal, owner: Owner
) -> None:
    owner.take(sev.sev)
    before = parts(sev)
    assert refusal(lambda: Owner().take(sev.sev)) is FirmwareStatus.ALREADY_OWNED
    # before sizes are looked at
    assert refusal(lambda: sev.sev.pek_cert_import(b"", b"")) is FirmwareStatus.ALREADY_OWNED
    assert parts(sev) == before


@pytest.mark.parametrize("what", ["pek", "oca"])
def test_a_refused_import_changes_nothing(
    sev: SecureProcessor, refusal: Refusal, owner: Owner, what: str
) -> None:
    before = parts(sev)
    pek, oca = owner.sign(sev.sev.pek_csr()), owner.oca
    spoilt = {"pek": (pek[:0x41C] + bytes(8) + pek[0x424:], oca)}
    spoilt["oca"] = (pek, oca[:0x41C] + bytes(8) + oca[0x424:])
    run = partial(sev.sev.pek_cert_import, *spoilt[what])
    assert refusal(run) is FirmwareStatus.BAD_SIGNATURE
    assert parts(sev) == before
    assert not sev.sev.status().flags & StatusFlags.OWNED


def test_an_owner_stays_over_shutdown_and_pdh_gen(sev: SecureProcessor, owner: Owner) -> None:
    owner.take(sev.sev)
    sev.sev.pdh_gen()
    assert accepted(sev)
    before = parts(sev)
    sev.sev.shutdown()
    assert not sev.sev.status().flags & StatusFlags.OWNED  # it is not said before INIT
    sev.sev.init()
    assert sev.sev.status().flags & StatusFlags.OWNED
    assert parts(sev) == before


@pytest.mark.parametrize("how", ["pek_gen", "factory_reset"])
def test_a_platform_can_be_taken_back_from_its_owner_and_taken_again(
    sev: SecureProcessor, owner: Owner, how: str
) -> None:
    owner.take(sev.sev)
    if how == "factory_reset":
        sev.sev.shutdown()
        sev.sev.factory_reset()
        sev.sev.init()
    else:
        sev.sev.pek_gen()
    assert not sev.sev.status().flags & StatusFlags.OWNED
    assert parts(sev)["oca"] != owner.oca
    assert accepted(sev)
    Owner().take(sev.sev)
    assert sev.sev.status().flags & StatusFlags.OWNED
    assert accepted(sev)


def test_the_owner_knows_his_platform_by_the_oca(sev: SecureProcessor, owner: Owner) -> None:
    owner.take(sev.sev)
    chip = sev.identity
    chain = chain_of(sev).with_cek(parse_sev_certificate(chip.signed_cek))
    mine = parse_sev_certificate(owner.oca).key_sha256.hex()
    for owners, code in (((mine,), 0), (("00" * 32,), 3)):
        verdict, _ = judge_platform(
            chain,
            PlatformExpectations(owners=owners),
            at=AT,
            ca=chip.sev_roots.ca,
            roots=(chip.sev_roots.root,),
        )
        assert verdict.exit_code == code


def test_the_id_is_the_chips(milan: SecureProcessor) -> None:
    assert milan.sev.get_id() == milan.identity.chip_id
    assert len(milan.sev.get_id()) == 64


def test_firmware_that_the_chip_cannot_run_is_a_usage_error(milan: SecureProcessor) -> None:
    with pytest.raises(UsageError):
        milan.sev.download_firmware(Firmware(report_version=9))


def test_every_command_is_in_the_log_refused_or_not(
    milan: SecureProcessor, refusal: Refusal
) -> None:
    milan.sev.init()
    refusal(milan.sev.init)
    milan.sev.pdh_gen()
    assert list(milan.core.log) == ["INIT", "INIT", "PDH_GEN"]


def test_a_download_keeps_what_is_stored(milan: SecureProcessor) -> None:
    milan.sev.init()
    before = parts(milan)
    milan.sev.shutdown()
    milan.sev.download_firmware(replace(milan.core.firmware, report_version=5))
    milan.sev.init()
    assert parts(milan) == before
