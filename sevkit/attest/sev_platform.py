"""Is this a genuine SEV platform? The chain from AMD's root key to the platform's DH key.

ARK ⊢ ARK, ARK ⊢ ASK, ASK ⊢ CEK, OCA ⊢ OCA, CEK and OCA ⊢ PEK, PEK ⊢ PDH. There are no dates and
no revocation lists in this format. The ARK must be one of AMD's pinned roots, byte for byte, or
one that the caller trusts explicitly (simulated hardware); nothing else makes a root. The OCA is
the platform owner's, self-made as a rule: it says who runs the machine, not that it is genuine.

Source: 55766 chapter 2.1 (keys and who signs them), appendices B and C (formats).

``verify_platform`` answers "is it authentic", ``validate_platform`` "is it on the owner's lists";
the latter takes only what the former returns.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.abi.sevcert import (
    ECDH,
    ECDSA,
    RSA,
    Algorithm,
    SevCertificate,
    Usage,
)
from sevkit.abi.signature import P384, EcPublicKey
from sevkit.attest.checks import SEV_PLATFORM
from sevkit.attest.sev_ca import complete, find_bundled, require_signature, verify_ca
from sevkit.attest.sev_links import read_links
from sevkit.attest.verdict import Ledger, Verdict, conclude
from sevkit.errors import (
    ChainBroken,
    UndecidedError,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sevkit.abi.product import ProductLine
    from sevkit.abi.rsa import RsaPublicKey
    from sevkit.abi.sevca import CaCertificate, CaChain
    from sevkit.abi.sevchain import PlatformChain

SUBJECT: Final = "sev-platform"

#: Algorithms that a key of each role may have. Only the platform owner chooses his own.
_ROLE_ALGORITHMS: Final[Mapping[Usage, frozenset[Algorithm]]] = {
    Usage.CEK: ECDSA,
    Usage.OCA: ECDSA | RSA,
    Usage.PEK: ECDSA,
    Usage.PDH: ECDH,
}
#: Who must have signed each role: every slot filled, none twice, no other.
_SIGNERS: Final[Mapping[Usage, frozenset[Usage]]] = {
    Usage.CEK: frozenset({Usage.ASK}),
    Usage.OCA: frozenset({Usage.OCA}),
    Usage.PEK: frozenset({Usage.CEK, Usage.OCA}),
    Usage.PDH: frozenset({Usage.PEK}),
}
_CHECKS: Final = {
    Usage.CEK: "platform.cek",
    Usage.OCA: "platform.oca",
    Usage.PEK: "platform.pek",
    Usage.PDH: "platform.pdh",
}
GET_CEK: Final = (
    "the firmware exports its CEK without AMD's signature: get the signed one from AMD's key "
    "service (/cek/id/ and the chip's ID, as 'sevctl export' does) and pass it with --cek"
)


@final
@dataclass(frozen=True, slots=True)
class VerifiedPlatform:
    """A platform whose chain verified up to ``ark``; ``verify_platform`` is where it comes from.

    ``line`` is the product line of AMD's pinned root, or None for a root that the caller trusts
    explicitly: simulated hardware.
    """

    chain: PlatformChain
    ark: CaCertificate
    line: ProductLine | None

    @property
    def chip(self) -> str:
        """The chip's name in owners' lists: SHA-256 of the CEK's 1028-byte key field, in hex."""
        return self.chain.cek.key_sha256.hex()

    @property
    def owner(self) -> str:
        """The platform owner's name: SHA-256 of the OCA's 1028-byte key field, in hex."""
        return self.chain.oca.key_sha256.hex()

    def to_json(self) -> dict[str, Any]:
        """Return the evidence that a verdict shows."""
        return {
            "product": self.line.value if self.line else None,
            "simulated": self.line is None,
            "ark_sha256": self.ark.sha256.hex(),
            "cek_key_sha256": self.chip,
            "oca_key_sha256": self.owner,
            "pdh_sha256": hashlib.sha256(self.chain.pdh.data).hexdigest(),
            "api": f"{self.chain.pdh.api_major}.{self.chain.pdh.api_minor}",
        }


@final
@dataclass(frozen=True, slots=True)
class PlatformExpectations:
    """What the owner accepts: chips and platform owners by SHA-256 in hex; empty accepts any."""

    chips: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()


def verify_platform(
    chain: PlatformChain,
    ledger: Ledger,
    *,
    ca: CaChain | None = None,
    roots: tuple[bytes, ...] = (),
) -> VerifiedPlatform:
    """Return the platform if every link of its chain holds.

    ``ca`` is the ASK and ARK to use; without it, the bundled line whose ASK signed the CEK is
    found, and none is a failure. ``roots`` are the bytes of further ARKs to trust. Findings go to
    ``ledger``, which has the catalogue ``SEV_PLATFORM``.

    Raises ``FormatError`` for keys and signatures without their shape, ``UndecidedError`` for a
    CEK that carries no signature at all, ``ChainBroken`` and ``SignatureMismatch`` otherwise.
    """
    shown = {Usage.CEK: chain.cek, Usage.OCA: chain.oca, Usage.PEK: chain.pek, Usage.PDH: chain.pdh}
    for certificate in shown.values():
        certificate.key.load()  # a point off its curve is a shape, so it is refused first
    above = find_bundled(chain.cek) if ca is None else complete(ca)
    keys: dict[Usage, EcPublicKey | RsaPublicKey] = {
        Usage.OCA: chain.oca.key,
        Usage.CEK: chain.cek.key,
        Usage.PEK: chain.pek.key,
    }
    if above is not None:
        keys[Usage.ASK] = above.ask.key
    links = {role: read_links(certificate, keys) for role, certificate in shown.items()}

    _check_roles(shown, ledger)
    if not chain.cek.signatures:
        ledger.skipped("platform.cek", "the CEK carries no signature")
        ledger.undecided = True
        raise UndecidedError("platform.cek: the CEK carries no signature of AMD's", hint=GET_CEK)
    if above is None:
        message = "no bundled ASK signed this CEK"
        ledger.failed("platform.cek", detail=message)
        raise ChainBroken(
            message, check="platform.cek", hint="pass the platform's own ask ‖ ark with --ca"
        )
    line = verify_ca(above, ledger, roots=roots)
    for role in (Usage.CEK, Usage.OCA, Usage.PEK, Usage.PDH):
        check = _CHECKS[role]
        signers = tuple(signature.usage for signature in shown[role].signatures)
        ledger.require(
            check,
            len(signers) == len(_SIGNERS[role]) and set(signers) == _SIGNERS[role],
            ChainBroken,
            f"the {role.name} is not signed by {_names(_SIGNERS[role])}",
            expected=_names(_SIGNERS[role]),
            actual=_names(signers),
        )
        made = links[role]
        require_signature(
            ledger,
            check,
            len(made) == len(signers) and all(link.holds() for link in made),
            f"a signature on the {role.name} does not verify",
            _names(signers),
        )
    return VerifiedPlatform(chain, above.ark, line)


def validate_platform(
    platform: VerifiedPlatform, expected: PlatformExpectations, ledger: Ledger
) -> None:
    """Record whether the chip and the platform's owner are on the guest owner's lists."""
    for check, accepted, actual, what in (
        ("platform.chip", expected.chips, platform.chip, "any genuine chip is accepted"),
        ("platform.owner", expected.owners, platform.owner, "any platform owner is accepted"),
    ):
        if accepted:
            listed = actual in {entry.lower() for entry in accepted}
            ledger.judge(check, listed, expected=", ".join(accepted), actual=actual)
        else:
            ledger.skipped(check, f"no list was given: {what}")


def judge_platform(
    chain: PlatformChain,
    expected: PlatformExpectations,
    *,
    at: datetime,
    ca: CaChain | None = None,
    roots: tuple[bytes, ...] = (),
) -> tuple[Verdict, VerifiedPlatform | None]:
    """Verify, validate, and return the verdict, and the platform unless the verdict is a no.

    Raises ``FormatError`` only; every other outcome is in the verdict.
    """
    ledger = Ledger(SEV_PLATFORM)
    platform: VerifiedPlatform | None = None
    evidence: dict[str, Any] = {}
    try:
        platform = verify_platform(chain, ledger, ca=ca, roots=roots)
    except VerificationError as error:
        ledger.note(error)
    except UndecidedError as error:
        ledger.undecided = True
        evidence["undecided"] = error.message
        evidence["hint"] = error.hint
    else:
        validate_platform(platform, expected, ledger)
        evidence = platform.to_json()
    digest = hashlib.sha256(chain.encode()).hexdigest()
    verdict = conclude(SUBJECT, digest, at, ledger, evidence)
    return verdict, platform if verdict.accepted else None


def _check_roles(shown: Mapping[Usage, SevCertificate], ledger: Ledger) -> None:
    for role, certificate in shown.items():
        right_key = certificate.algorithm in _ROLE_ALGORITHMS[role] and (
            role is Usage.OCA
            or (isinstance(certificate.key, EcPublicKey) and certificate.key.curve == P384)
        )
        ledger.require(
            "platform.keys",
            certificate.usage is role and right_key,
            ChainBroken,
            f"the certificate in the {role.name}'s place is not a {role.name} on its usual key",
            expected=role.name,
            actual=f"{certificate.usage.name}, {certificate.algorithm.name}",
        )
    used = ", ".join(f"{role.name} {shown[role].algorithm.name}" for role in shown)
    ledger.passed("platform.keys", actual=used)


def _names(usages: frozenset[Usage] | tuple[Usage, ...]) -> str:
    return " and ".join(usage.name for usage in sorted(usages)) or "nobody"
