"""A simulated SEV platform's certificates: own ARK and ASK, CEK, OCA, PEK and PDH, really signed.

For rehearsals and for tests, ours and yours: the chain verifies like a real one, but only for a
caller who trusts its ARK explicitly (``--root``), because AMD's roots are pinned.
Formats as in 55766 appendices B and C. RSA keys of 2048 bits (as Naples has) are made in a
fraction of a second, of 4096 bits (as every later line) in seconds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from sevkit.abi.rsa import RsaPublicKey
from sevkit.abi.sevca import CaChain, encode_ca_body, parse_ca_certificate
from sevkit.abi.sevcert import (
    BODY_SIZE,
    SHA384,
    Algorithm,
    Usage,
    encode_sev_certificate,
    parse_sev_certificate,
)
from sevkit.abi.sevchain import PlatformChain
from sevkit.abi.signature import encode_signature, public_key_of, signature_from_der

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The API level that simulated firmware writes into its certificates.
API: Final = (1, 55)


@final
@dataclass(frozen=True, slots=True)
class SimulatedRoots:
    """An ARK and an ASK with their private keys; they can sign any number of platforms."""

    ark_key: rsa.RSAPrivateKey
    ask_key: rsa.RSAPrivateKey
    ca: CaChain

    @property
    def root(self) -> bytes:
        """The ARK's bytes: what ``--root`` and ``roots=`` take."""
        return self.ca.ark.data

    @property
    def ask_ark(self) -> bytes:
        """The file ask ‖ ark: what ``--ca`` takes."""
        return self.ca.ask.data + self.ca.ark.data


@final
@dataclass(frozen=True, slots=True)
class SimulatedPlatform:
    """One platform's chain with its private keys."""

    cek_key: ec.EllipticCurvePrivateKey
    oca_key: ec.EllipticCurvePrivateKey
    pek_key: ec.EllipticCurvePrivateKey
    pdh_key: ec.EllipticCurvePrivateKey
    chain: PlatformChain

    def firmware_cek(self) -> bytes:
        """Return the CEK as real firmware exports it: without AMD's signature."""
        return encode_sev_certificate(
            Usage.CEK, Algorithm.ECDSA_SHA256, public_key_of(self.cek_key.public_key()), api=API
        )


def make_roots(
    *,
    bits: int = 2048,
    ark_key: rsa.RSAPrivateKey | None = None,
    ask_key: rsa.RSAPrivateKey | None = None,
) -> SimulatedRoots:
    """Return an ARK and an ASK that it signed, of fresh keys of 2048 or 4096 bits or the given."""
    ark_key = ark_key or rsa.generate_private_key(65537, bits)
    ask_key = ask_key or rsa.generate_private_key(65537, bits)
    ark_id, ask_id = os.urandom(16), os.urandom(16)
    ark = encode_ca_body(ark_id, ark_id, Usage.ARK, rsa_public_key(ark_key))
    ask = encode_ca_body(ask_id, ark_id, Usage.ASK, rsa_public_key(ask_key))
    return SimulatedRoots(
        ark_key,
        ask_key,
        CaChain(
            parse_ca_certificate(ask + sign_pss(ark_key, ask)),
            parse_ca_certificate(ark + sign_pss(ark_key, ark)),
        ),
    )


def make_platform(
    roots: SimulatedRoots, *, algorithm: Algorithm = Algorithm.ECDSA_SHA256
) -> SimulatedPlatform:
    """Return a fresh platform under ``roots``; ``algorithm`` is what CEK, OCA and PEK sign with."""
    cek, oca, pek, pdh = (ec.generate_private_key(ec.SECP384R1()) for _ in range(4))
    chain = PlatformChain(
        pdh=parse_sev_certificate(
            certify(Usage.PDH, Algorithm.ECDH_SHA256, pdh, {Usage.PEK: pek}, algorithm)
        ),
        pek=parse_sev_certificate(
            certify(Usage.PEK, algorithm, pek, {Usage.OCA: oca, Usage.CEK: cek}, algorithm)
        ),
        oca=parse_sev_certificate(certify(Usage.OCA, algorithm, oca, {Usage.OCA: oca}, algorithm)),
        cek=parse_sev_certificate(certify(Usage.CEK, algorithm, cek, {Usage.ASK: roots.ask_key})),
    )
    return SimulatedPlatform(cek, oca, pek, pdh, chain)


def certify(
    usage: Usage,
    algorithm: Algorithm,
    key: ec.EllipticCurvePrivateKey,
    signers: Mapping[Usage, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey],
    signature_algorithm: Algorithm = Algorithm.ECDSA_SHA256,
    *,
    api: tuple[int, int] = API,
) -> bytes:
    """Return one certificate for ``key``, signed by ``signers`` in their order, two at most.

    RSA signers use the algorithm of their size; ``api`` is the level of the firmware that makes
    the certificate. Nothing stops a caller from certifying what no
    verifier should accept: that is what hostile inputs are made of.
    """
    public = public_key_of(key.public_key())
    body = encode_sev_certificate(usage, algorithm, public, api=api)[:BODY_SIZE]
    slots = []
    for who, signer in signers.items():
        if isinstance(signer, rsa.RSAPrivateKey):
            wide = signer.key_size == _WIDE
            how = Algorithm.RSA_SHA384 if wide else Algorithm.RSA_SHA256
            slots.append((who, how, sign_pss(signer, body).ljust(512, b"\0")))
        else:
            sha384 = signature_algorithm in SHA384
            slots.append((who, signature_algorithm, sign_ecdsa(signer, body, sha384=sha384)))
    return encode_sev_certificate(usage, algorithm, public, api=api, signatures=tuple(slots))


_WIDE: Final = 4096


def sign_pss(key: rsa.RSAPrivateKey, body: bytes) -> bytes:
    """Return an RSASSA-PSS signature in AMD's byte order, as long as the modulus."""
    algorithm = hashes.SHA384() if key.key_size == _WIDE else hashes.SHA256()
    scheme = padding.PSS(mgf=padding.MGF1(algorithm), salt_length=algorithm.digest_size)
    return key.sign(body, scheme, algorithm)[::-1]


def sign_ecdsa(key: ec.EllipticCurvePrivateKey, body: bytes, *, sha384: bool = False) -> bytes:
    """Return an ECDSA signature in AMD's format, 512 bytes."""
    algorithm = hashes.SHA384() if sha384 else hashes.SHA256()
    return encode_signature(signature_from_der(key.sign(body, ec.ECDSA(algorithm))))


def rsa_public_key(key: rsa.RSAPrivateKey) -> RsaPublicKey:
    """Return AMD's view of a key's public half."""
    numbers = key.public_key().public_numbers()
    return RsaPublicKey(key.key_size, numbers.e, numbers.n)
