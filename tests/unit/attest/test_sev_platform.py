from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.product import ProductLine
from sevkit.abi.sevca import CaChain, encode_ca_body, parse_ca_certificate, parse_ca_chain
from sevkit.abi.sevcert import (
    Algorithm,
    SevCertificate,
    Usage,
    encode_sev_certificate,
    parse_sev_certificate,
)
from sevkit.abi.sevchain import PlatformChain, parse_chain_export
from sevkit.abi.signature import public_key_of
from sevkit.attest.checks import SEV_PLATFORM
from sevkit.attest.sev_platform import (
    PlatformExpectations,
    VerifiedPlatform,
    judge_platform,
    verify_platform,
)
from sevkit.attest.verdict import Ledger, Outcome
from sevkit.errors import (
    ChainBroken,
    FormatError,
    SignatureMismatch,
    UndecidedError,
    VerificationError,
)
from sevkit.kds.roots import sev_ca
from sevkit.testing.sev_chain import (
    SimulatedPlatform,
    SimulatedRoots,
    certify,
    make_platform,
    make_roots,
    rsa_public_key,
    sign_ecdsa,
    sign_pss,
)

if TYPE_CHECKING:
    from pathlib import Path

AT: Final = datetime(2026, 11, 23, tzinfo=UTC)
EC: Final = Algorithm.ECDSA_SHA256


def verify(
    chain: PlatformChain, ca: CaChain | None, *roots: bytes, ledger: Ledger | None = None
) -> VerifiedPlatform:
    return verify_platform(chain, ledger or Ledger(SEV_PLATFORM), ca=ca, roots=roots)


def refused(
    chain: PlatformChain,
    roots: SimulatedRoots,
    check: str,
    error: type[VerificationError],
    ca: CaChain | None = None,
) -> None:
    """Assert that a chain under trusted simulated roots fails with this check and error."""
    ledger = Ledger(SEV_PLATFORM)
    with pytest.raises(error) as caught:
        verify(chain, ca or roots.ca, roots.root, ledger=ledger)
    assert caught.value.check == check
    failed = [found.check for found in ledger.findings if found.outcome is Outcome.FAIL]
    assert failed == [check]
    verdict, platform = judge_platform(
        chain, PlatformExpectations(), at=AT, ca=ca or roots.ca, roots=(roots.root,)
    )
    assert (verdict.exit_code, platform) == (1, None)


def cert(data: bytes) -> SevCertificate:
    return parse_sev_certificate(data)


@pytest.fixture(scope="module")
def stranger(sev_roots: SimulatedRoots) -> SimulatedPlatform:
    """Another genuine platform under the same roots."""
    return make_platform(sev_roots)


@pytest.fixture(scope="module")
def forger() -> SimulatedRoots:
    """Somebody else's ARK and ASK."""
    return make_roots()


def test_a_simulated_platform_verifies_for_a_caller_who_trusts_its_root(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    platform = verify(sev_platform.chain, sev_roots.ca, sev_roots.root)
    assert platform.line is None
    assert platform.to_json()["simulated"] is True
    assert platform.chip == sev_platform.chain.cek.key_sha256.hex()


def test_a_simulated_root_is_never_trusted_by_itself(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    with pytest.raises(ChainBroken, match="pinned") as caught:
        verify(sev_platform.chain, sev_roots.ca)
    assert caught.value.check == "platform.root"


def test_trusting_one_root_trusts_no_other(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots, forger: SimulatedRoots
) -> None:
    with pytest.raises(ChainBroken, match="pinned"):
        verify(sev_platform.chain, sev_roots.ca, forger.root)


def test_a_root_is_trusted_whole_or_not_at_all(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    for cut in (sev_roots.root[:-1], sev_roots.root[:576], b""):
        with pytest.raises(ChainBroken, match="pinned"):
            verify(sev_platform.chain, sev_roots.ca, cut)


def test_sha384_signatures_and_4096_bit_shapes_are_told_by_their_algorithm(
    sev_roots: SimulatedRoots,
) -> None:
    platform = make_platform(sev_roots, algorithm=Algorithm.ECDSA_SHA384)
    assert verify(platform.chain, sev_roots.ca, sev_roots.root).chain == platform.chain


def test_pek_signatures_count_in_either_order(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    keys = {Usage.CEK: sev_platform.cek_key, Usage.OCA: sev_platform.oca_key}
    pek = cert(certify(Usage.PEK, EC, sev_platform.pek_key, keys))
    assert [slot.usage for slot in pek.signatures] == [Usage.CEK, Usage.OCA]
    verify(replace(sev_platform.chain, pek=pek), sev_roots.ca, sev_roots.root)


@pytest.mark.parametrize("who", [Usage.CEK, Usage.OCA])
def test_a_pek_with_one_signer_only_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots, who: Usage
) -> None:
    keys = {Usage.CEK: sev_platform.cek_key, Usage.OCA: sev_platform.oca_key}
    pek = cert(certify(Usage.PEK, EC, sev_platform.pek_key, {who: keys[who]}))
    chain = replace(sev_platform.chain, pek=pek)
    refused(chain, sev_roots, "platform.pek", ChainBroken)


@pytest.mark.parametrize("who", [Usage.CEK, Usage.OCA])
def test_a_pek_signed_twice_by_one_signer_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots, who: Usage
) -> None:
    signer = sev_platform.cek_key if who is Usage.CEK else sev_platform.oca_key
    body = sev_platform.chain.pek.body
    slot = (who, EC, sign_ecdsa(signer, body))
    pek = encode_sev_certificate(
        Usage.PEK, EC, sev_platform.chain.pek.key, api=(1, 55), signatures=(slot, slot)
    )
    assert cert(pek).body == body
    chain = replace(sev_platform.chain, pek=cert(pek))
    refused(chain, sev_roots, "platform.pek", ChainBroken)


def test_a_pek_that_the_oca_signed_in_the_ceks_name_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    keys = {Usage.CEK: sev_platform.oca_key, Usage.OCA: sev_platform.oca_key}
    pek = cert(certify(Usage.PEK, EC, sev_platform.pek_key, keys))
    chain = replace(sev_platform.chain, pek=pek)
    refused(chain, sev_roots, "platform.pek", SignatureMismatch)


@pytest.mark.parametrize(
    ("role", "check"),
    [("cek", "platform.pek"), ("oca", "platform.pek"), ("pek", "platform.pek")],
)
def test_another_platforms_certificate_is_refused(
    sev_platform: SimulatedPlatform,
    stranger: SimulatedPlatform,
    sev_roots: SimulatedRoots,
    role: str,
    check: str,
) -> None:
    chain = {**{n: getattr(sev_platform.chain, n) for n in ("pdh", "pek", "oca", "cek")}}
    chain[role] = getattr(stranger.chain, role)
    refused(PlatformChain(**chain), sev_roots, check, SignatureMismatch)


def test_another_platforms_pdh_is_refused(
    sev_platform: SimulatedPlatform, stranger: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    chain = replace(sev_platform.chain, pdh=stranger.chain.pdh)
    refused(chain, sev_roots, "platform.pdh", SignatureMismatch)


def test_a_pdh_without_a_signature_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    pdh = cert(certify(Usage.PDH, Algorithm.ECDH_SHA256, sev_platform.pdh_key, {}))
    chain = replace(sev_platform.chain, pdh=pdh)
    refused(chain, sev_roots, "platform.pdh", ChainBroken)


def test_a_pdh_signed_by_the_wrong_role_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    pdh = cert(
        certify(
            Usage.PDH,
            Algorithm.ECDH_SHA256,
            sev_platform.pdh_key,
            {Usage.OCA: sev_platform.oca_key},
        )
    )
    chain = replace(sev_platform.chain, pdh=pdh)
    refused(chain, sev_roots, "platform.pdh", ChainBroken)


def test_an_oca_that_did_not_sign_itself_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    oca = cert(certify(Usage.OCA, EC, sev_platform.oca_key, {Usage.OCA: sev_platform.pek_key}))
    chain = replace(sev_platform.chain, oca=oca)
    refused(chain, sev_roots, "platform.oca", SignatureMismatch)


def test_an_rsa_oca_is_verified_like_an_ec_one(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots, forger: SimulatedRoots
) -> None:
    owner, rsa = forger.ask_key, Algorithm.RSA_SHA256

    def self_signed(signer: object) -> SevCertificate:
        key = rsa_public_key(owner)
        body = encode_sev_certificate(Usage.OCA, rsa, key)[:0x414]
        assert signer in {forger.ask_key, forger.ark_key}
        made = forger.ask_key if signer is forger.ask_key else forger.ark_key
        slot = (Usage.OCA, rsa, sign_pss(made, body).ljust(512, b"\0"))
        return cert(encode_sev_certificate(Usage.OCA, rsa, key, signatures=(slot,)))

    pek = cert(
        certify(
            Usage.PEK, EC, sev_platform.pek_key, {Usage.OCA: owner, Usage.CEK: sev_platform.cek_key}
        )
    )
    chain = replace(sev_platform.chain, pek=pek, oca=self_signed(forger.ask_key))
    verify(chain, sev_roots.ca, sev_roots.root)
    chain = replace(sev_platform.chain, pek=pek, oca=self_signed(forger.ark_key))
    refused(chain, sev_roots, "platform.oca", SignatureMismatch)


def test_a_cek_without_amds_signature_is_undecided_and_names_the_remedy(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    chain = sev_platform.chain.with_cek(cert(sev_platform.firmware_cek()))
    with pytest.raises(UndecidedError, match=r"platform\.cek") as caught:
        verify(chain, sev_roots.ca, sev_roots.root)
    assert "--cek" in caught.value.hint
    verdict, platform = judge_platform(
        chain, PlatformExpectations(), at=AT, ca=sev_roots.ca, roots=(sev_roots.root,)
    )
    assert (verdict.exit_code, platform) == (4, None)


def test_a_cek_signed_by_somebody_elses_ask_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots, forger: SimulatedRoots
) -> None:
    cek = cert(certify(Usage.CEK, EC, sev_platform.cek_key, {Usage.ASK: forger.ask_key}))
    chain = sev_platform.chain.with_cek(cek)
    refused(chain, sev_roots, "platform.cek", SignatureMismatch)


def test_a_cek_signed_by_the_ark_directly_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    cek = cert(certify(Usage.CEK, EC, sev_platform.cek_key, {Usage.ARK: sev_roots.ark_key}))
    chain = sev_platform.chain.with_cek(cek)
    refused(chain, sev_roots, "platform.cek", ChainBroken)


def test_a_cek_signed_with_the_other_hash_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    data = bytearray(sev_platform.chain.cek.data)
    data[0x418:0x41C] = int(Algorithm.RSA_SHA384).to_bytes(4, "little")
    chain = sev_platform.chain.with_cek(cert(bytes(data)))
    refused(chain, sev_roots, "platform.cek", SignatureMismatch)


def test_bytes_behind_a_short_rsa_signature_are_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    data = bytearray(sev_platform.chain.cek.data)
    data[0x41C + 256] = 1
    chain = sev_platform.chain.with_cek(cert(bytes(data)))
    with pytest.raises(FormatError, match="reserved") as caught:
        verify(chain, sev_roots.ca, sev_roots.root)
    assert caught.value.offset == 0x41C + 256


def test_no_bundled_line_is_a_fallback_for_an_unknown_cek(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    with pytest.raises(ChainBroken, match="no bundled ASK") as caught:
        verify(sev_platform.chain, None, sev_roots.root)
    assert (caught.value.check, "--ca" in caught.value.hint) == ("platform.cek", True)


def test_a_self_made_ark_with_amds_key_id_is_refused(
    sev_platform: SimulatedPlatform, forger: SimulatedRoots
) -> None:
    genuine = parse_ca_certificate(sev_ca(ProductLine.NAPLES)[1])
    ark = encode_ca_body(genuine.key_id, genuine.key_id, Usage.ARK, rsa_public_key(forger.ark_key))
    ask = encode_ca_body(b"A" * 16, genuine.key_id, Usage.ASK, rsa_public_key(forger.ask_key))
    ca = CaChain(
        parse_ca_certificate(ask + sign_pss(forger.ark_key, ask)),
        parse_ca_certificate(ark + sign_pss(forger.ark_key, ark)),
    )
    with pytest.raises(ChainBroken, match="pinned"):
        verify(sev_platform.chain, ca)


def test_an_ark_that_did_not_sign_itself_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    ark = sev_roots.ca.ark
    broken = parse_ca_certificate(ark.body + bytes(255) + b"\1")
    ca = CaChain(sev_roots.ca.ask, broken)
    with pytest.raises(SignatureMismatch, match="ARK") as caught:
        verify(sev_platform.chain, ca, broken.data)
    assert caught.value.check == "platform.ark"


def test_an_ask_that_another_ark_signed_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots, forger: SimulatedRoots
) -> None:
    body = sev_roots.ca.ask.body
    ask = parse_ca_certificate(body + sign_pss(forger.ark_key, body))
    ca = CaChain(ask, sev_roots.ca.ark)
    refused(sev_platform.chain, sev_roots, "platform.ask", SignatureMismatch, ca)


def test_an_ask_that_names_another_issuer_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    ask = sev_roots.ca.ask
    body = encode_ca_body(ask.key_id, b"B" * 16, Usage.ASK, ask.key)
    ca = CaChain(parse_ca_certificate(body + sign_pss(sev_roots.ark_key, body)), sev_roots.ca.ark)
    refused(sev_platform.chain, sev_roots, "platform.ask", ChainBroken, ca)


def test_an_ark_in_the_asks_place_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    ca = CaChain(sev_roots.ca.ark, sev_roots.ca.ark)
    refused(sev_platform.chain, sev_roots, "platform.ask", ChainBroken, ca)


def test_ark_and_ask_in_the_wrong_order_are_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    ca = parse_ca_chain(sev_roots.root + sev_roots.ca.ask.data)
    with pytest.raises(ChainBroken) as caught:
        verify(sev_platform.chain, ca, sev_roots.root)
    assert caught.value.check == "platform.root"


def test_an_unsigned_ark_other_than_amds_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    unsigned = parse_ca_certificate(sev_roots.root[:576])
    ca = CaChain(sev_roots.ca.ask, unsigned)
    with pytest.raises(ChainBroken, match="pinned"):
        verify(sev_platform.chain, ca)
    with pytest.raises(SignatureMismatch, match="ARK"):
        verify(sev_platform.chain, ca, unsigned.data)


@pytest.mark.parametrize(
    ("role", "usage", "algorithm"),
    [
        ("pdh", Usage.PDH, Algorithm.ECDSA_SHA256),
        ("pdh", Usage.PEK, Algorithm.ECDH_SHA256),
        ("pek", Usage.PEK, Algorithm.ECDH_SHA256),
        ("pek", Usage.CEK, Algorithm.ECDSA_SHA256),
        ("oca", Usage.OCA, Algorithm.ECDH_SHA384),
        ("oca", Usage.PEK, Algorithm.ECDSA_SHA256),
        ("cek", Usage.CEK, Algorithm.ECDH_SHA256),
        ("cek", Usage.OCA, Algorithm.ECDSA_SHA256),
    ],
)
def test_a_usage_or_algorithm_of_another_role_is_refused(
    sev_platform: SimulatedPlatform,
    sev_roots: SimulatedRoots,
    role: str,
    usage: Usage,
    algorithm: Algorithm,
) -> None:
    key = getattr(sev_platform, f"{role}_key")
    signers = {
        "pdh": {Usage.PEK: sev_platform.pek_key},
        "pek": {Usage.OCA: sev_platform.oca_key, Usage.CEK: sev_platform.cek_key},
        "oca": {Usage.OCA: sev_platform.oca_key},
    }.get(role, {})
    made = (
        certify(usage, algorithm, key, {Usage.ASK: sev_roots.ask_key})
        if role == "cek"
        else certify(usage, algorithm, key, signers)
    )
    chain = replace(sev_platform.chain, **{role: cert(made)})
    refused(chain, sev_roots, "platform.keys", ChainBroken)


def test_a_pdh_on_another_curve_is_refused(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    small = ec.generate_private_key(ec.SECP256R1())
    pdh = certify(Usage.PDH, Algorithm.ECDH_SHA256, small, {Usage.PEK: sev_platform.pek_key})
    chain = replace(sev_platform.chain, pdh=cert(pdh))
    refused(chain, sev_roots, "platform.keys", ChainBroken)


def test_a_point_off_the_curve_is_refused_before_any_signature_is_judged(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    data = bytearray(sev_platform.chain.pdh.data)
    data[0x14] ^= 1
    chain = replace(sev_platform.chain, pdh=cert(bytes(data)))
    with pytest.raises(FormatError, match="curve"):
        verify(chain, sev_roots.ca)


@pytest.mark.parametrize("component", [0x41C, 0x41C + 72])
@pytest.mark.parametrize("value", [bytes(72), b"\xff" * 72, b"\xff" * 48 + bytes(24)])
def test_a_signature_component_out_of_range_is_a_malformed_certificate(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots, component: int, value: bytes
) -> None:
    data = bytearray(sev_platform.chain.pdh.data)
    data[component : component + 72] = value
    chain = replace(sev_platform.chain, pdh=cert(bytes(data)))
    with pytest.raises(FormatError, match="out of range") as caught:
        verify(chain, sev_roots.ca, sev_roots.root)
    assert caught.value.offset == component


def test_a_high_s_is_accepted_as_amds_firmware_makes_it(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    order = int(
        "ffffffffffffffffffffffffffffffffffffffffffffffff"
        "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
        16,
    )
    data = bytearray(sev_platform.chain.pdh.data)
    at = slice(0x41C + 72, 0x41C + 144)
    data[at] = (order - int.from_bytes(data[at], "little")).to_bytes(72, "little")
    chain = replace(sev_platform.chain, pdh=cert(bytes(data)))
    verify(chain, sev_roots.ca, sev_roots.root)


def test_chips_and_owners_are_accepted_by_their_names_only(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    chip = sev_platform.chain.cek.key_sha256.hex()
    owner = sev_platform.chain.oca.key_sha256.hex()

    def code(expected: PlatformExpectations) -> int:
        verdict, platform = judge_platform(
            sev_platform.chain, expected, at=AT, ca=sev_roots.ca, roots=(sev_roots.root,)
        )
        assert (platform is None) == (verdict.exit_code != 0)
        return verdict.exit_code

    assert code(PlatformExpectations()) == 0
    assert code(PlatformExpectations((chip,), (owner,))) == 0
    assert code(PlatformExpectations(("0" * 64, chip.upper()))) == 0
    assert code(PlatformExpectations(("0" * 64,))) == 3
    assert code(PlatformExpectations((owner,))) == 3
    assert code(PlatformExpectations(("é" * 64,))) == 3
    assert code(PlatformExpectations((), ("0" * 64,))) == 3


def test_a_verdict_lists_every_check(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    verdict, _ = judge_platform(sev_platform.chain, PlatformExpectations(), at=AT, ca=sev_roots.ca)
    assert [found.check for found in verdict.findings] == [row.name for row in SEV_PLATFORM]
    assert verdict.exit_code == 1


@pytest.mark.parametrize("cut", [1664, 1408])
def test_amds_naples_ark_counts_with_and_without_its_signature(vectors: Path, cut: int) -> None:
    folder = vectors / "sev-crate" / "naples"
    data = b"".join((folder / f"{name}.cert").read_bytes() for name in ("pdh", "pek", "oca", "cek"))
    chain, _ = parse_chain_export(data)
    ask, ark = sev_ca(ProductLine.NAPLES)
    platform = verify(chain, parse_ca_chain((ask + ark)[:cut]))
    assert platform.line is ProductLine.NAPLES
    assert platform.ark.data == ark


def test_another_products_roots_are_refused(vectors: Path) -> None:
    folder = vectors / "sev-crate" / "rome"
    data = b"".join((folder / f"{name}.cert").read_bytes() for name in ("pdh", "pek", "oca", "cek"))
    chain, _ = parse_chain_export(data)
    ask, ark = sev_ca(ProductLine.MILAN)
    with pytest.raises(SignatureMismatch) as caught:
        verify(chain, parse_ca_chain(ask + ark))
    assert caught.value.check == "platform.cek"


def test_a_point_of_a_foreign_key_type_has_no_links(
    sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    """An EC signature in the ASK's name is not a signature of an RSA key."""
    body = sev_platform.chain.cek.body
    slot = (Usage.ASK, EC, sign_ecdsa(sev_platform.cek_key, body))
    key = public_key_of(sev_platform.cek_key.public_key())
    cek = encode_sev_certificate(Usage.CEK, EC, key, api=(1, 55), signatures=(slot,))
    chain = sev_platform.chain.with_cek(cert(cek))
    refused(chain, sev_roots, "platform.cek", SignatureMismatch)
