"""From a VEK up to AMD's root: the X.509 chain of SEV-SNP.

Theory of operation. ``verify_chain`` takes the ARK and the ASK (for VCEKs) or ASVK (for VLEKs) and
the roots that the caller trusts; it returns a ``VerifiedChain``, which names its product line and
kind. ``verify_vek`` takes that and a VEK and returns a ``VerifiedVek``, the only thing that
``verify_report`` accepts. A root is trusted by the SHA-256 of its whole DER, so that a self-made
ARK with AMD's names is refused before any signature is looked at. ``cryptography``'s own issuer
check looks at neither dates nor constraints; every rule is therefore a row of the ledger here.
Dates come last: what an unsigned certificate says of its dates is not a reason to call genuine
evidence expired. Sources: 57230 chapter 3, RFC 5280 chapters 4 and 6.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sevkit.abi.product import SNP_LINES, ProductLine
from sevkit.abi.vek import ARC, VekExtensions, VekKind, parse_vek_extensions, unexpected_oids
from sevkit.attest.verdict import render_time
from sevkit.attest.x509 import BASIC_CONSTRAINTS, KEY_USAGE, Certificate, is_signed_by
from sevkit.errors import CertificateExpired, ChainBroken, FormatError, SignatureMismatch

if TYPE_CHECKING:
    from datetime import datetime

    from sevkit.attest.verdict import Ledger

#: Criticality means "refuse if you do not know this"; these are known.
_KNOWN_CRITICAL: Final = frozenset({BASIC_CONSTRAINTS, KEY_USAGE})
_RSA_BITS: Final = 4096

_ISSUER_CN: Final = {VekKind.VCEK: "SEV-{}", VekKind.VLEK: "SEV-VLEK-{}"}


@final
@dataclass(frozen=True, slots=True)
class TrustedRoots:
    """SHA-256 of the DER of every ARK that is trusted: AMD's pins, and what the owner named.

    ``owners`` are accepted only because the caller passed them explicitly (simulated hardware).
    """

    pinned: frozenset[bytes]
    owners: frozenset[bytes] = frozenset()

    def origin(self, certificate: Certificate) -> str | None:
        """Return why this root is trusted, or None."""
        digest = hashlib.sha256(certificate.der).digest()
        if digest in self.pinned:
            return "AMD's pinned root"
        return "a root that the owner named" if digest in self.owners else None


@final
@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """ARK and ASK or ASVK of one line, verified at ``at``. Only ``verify_chain`` makes one."""

    line: ProductLine
    kind: VekKind
    ark: Certificate
    intermediate: Certificate
    root_origin: str
    at: datetime


@final
@dataclass(frozen=True, slots=True)
class VerifiedVek:
    """A VEK verified under its chain, with AMD's extensions. Only ``verify_vek`` makes one."""

    chain: VerifiedChain
    certificate: Certificate
    public_key: ec.EllipticCurvePublicKey
    extensions: VekExtensions


def identify_chain(certificate: Certificate) -> tuple[VekKind, ProductLine] | None:
    """Return what a VEK claims to be by its names, which is a hint and no more."""
    for kind in VekKind:
        for line in SNP_LINES:
            if certificate.subject_cn == f"SEV-{kind}" and certificate.issuer_cn == _ISSUER_CN[
                kind
            ].format(line):
                return kind, line
    return None


def verify_chain(
    intermediate: Certificate,
    ark: Certificate,
    *,
    at: datetime,
    roots: TrustedRoots,
    ledger: Ledger,
) -> VerifiedChain:
    """Return the chain of an ASK or ASVK and its ARK, verified up to a trusted root.

    ``at`` is the time of verification, with its zone. Raises ``VerificationError``.
    """
    origin = roots.origin(ark)
    ledger.require(
        "chain.root",
        origin is not None,
        ChainBroken,
        "the ARK is none of AMD's pinned roots and was not named as a root",
        expected="a pinned root",
        actual=f"{ark.subject_cn}, SHA-256 {hashlib.sha256(ark.der).hexdigest()}",
    )
    found = _roles(intermediate, ark)
    if found is None:
        names = f"{ark.subject_cn}, {intermediate.subject_cn} issued by {intermediate.issuer_cn}"
        ledger.failed("chain.names", expected="ARK-… and SEV-… or SEV-VLEK-…", actual=names)
        raise ChainBroken("the names do not form a chain of AMD's", check="chain.names")
    kind, line = found
    for certificate in (ark, intermediate):
        _require_issuer_rules(certificate, ledger)
    for check, certificate in (("chain.ark", ark), ("chain.ask", intermediate)):
        ledger.require(
            check,
            is_signed_by(certificate, ark),
            SignatureMismatch,
            f"the ARK did not sign {certificate.subject_cn}",
            actual=certificate.subject_cn,
        )
    for certificate in (ark, intermediate):
        _require_in_date(certificate, at, ledger)
    return VerifiedChain(line, kind, ark, intermediate, origin or "", at)


def _roles(intermediate: Certificate, ark: Certificate) -> tuple[VekKind, ProductLine] | None:
    for line in SNP_LINES:
        for kind in VekKind:
            if (
                ark.subject_cn == f"ARK-{line}"
                and ark.subject == ark.issuer == intermediate.issuer
                and intermediate.subject_cn == _ISSUER_CN[kind].format(line)
            ):
                return kind, line
    return None


def _require_issuer_rules(certificate: Certificate, ledger: Ledger) -> None:
    key = certificate.public_key
    ledger.require(
        "chain.algorithms",
        certificate.pss_sha384 and isinstance(key, rsa.RSAPublicKey) and key.key_size == _RSA_BITS,
        ChainBroken,
        f"{certificate.subject_cn} is not RSA 4096 signed with RSASSA-PSS and SHA-384",
    )
    ledger.require(
        "chain.constraints",
        certificate.is_ca and _only_known_critical(certificate),
        ChainBroken,
        f"{certificate.subject_cn} may not issue certificates, or has an unknown critical "
        "extension",
    )


def _only_known_critical(certificate: Certificate) -> bool:
    return all(not e.critical or e.oid in _KNOWN_CRITICAL for e in certificate.extensions)


def _require_in_date(certificate: Certificate, at: datetime, ledger: Ledger) -> None:
    name = certificate.subject_cn
    ledger.require(
        "chain.not-before",
        certificate.not_before <= at,
        CertificateExpired,
        f"{name} is not valid before {render_time(certificate.not_before)}",
        actual=render_time(at),
    )
    ledger.require(
        "chain.not-after",
        at <= certificate.not_after,
        CertificateExpired,
        f"{name} expired at {render_time(certificate.not_after)}",
        actual=render_time(at),
    )


def verify_vek(chain: VerifiedChain, vek: Certificate, *, ledger: Ledger) -> VerifiedVek:
    """Return the VEK, verified under ``chain``, with AMD's extensions.

    Raises ``VerificationError``; a defect of the extensions is one, because they are evidence.
    """
    ledger.require(
        "chain.names",
        vek.subject_cn == f"SEV-{chain.kind}" and vek.issuer == chain.intermediate.subject,
        ChainBroken,
        f"{vek.subject_cn} issued by {vek.issuer_cn} does not belong under "
        f"{chain.intermediate.subject_cn}",
        expected=f"SEV-{chain.kind} issued by {chain.intermediate.subject_cn}",
        actual=f"{vek.subject_cn} issued by {vek.issuer_cn}",
    )
    key = vek.public_key
    if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)):
        ledger.failed("chain.algorithms", expected="EC P-384", actual=type(key).__name__)
        raise ChainBroken("the VEK is no key on P-384", check="chain.algorithms")
    ledger.require(
        "chain.algorithms",
        vek.pss_sha384,
        ChainBroken,
        f"{vek.subject_cn} is not signed with RSASSA-PSS and SHA-384",
        actual="RSA 4096, RSASSA-PSS with SHA-384, EC P-384",
    )
    ledger.require(
        "chain.constraints",
        not any(e.oid == BASIC_CONSTRAINTS for e in vek.extensions) or not vek.is_ca,
        ChainBroken,
        f"{vek.subject_cn} says that it is a CA",
    )
    ledger.require(
        "chain.vek",
        is_signed_by(vek, chain.intermediate),
        SignatureMismatch,
        f"{chain.intermediate.subject_cn} did not sign the {chain.kind}",
        actual=vek.subject_cn,
    )
    extensions = _extensions(chain, vek, ledger)
    _require_in_date(vek, chain.at, ledger)
    return VerifiedVek(chain, vek, key, extensions)


def read_vek_extensions(kind: VekKind, certificate: Certificate) -> VekExtensions:
    """Return what a certificate claims in AMD's extensions; nothing is verified.

    Raises ``FormatError`` if one is missing or malformed.
    """
    values = {e.oid: e.value for e in certificate.extensions if e.oid.startswith(ARC)}
    return parse_vek_extensions(kind, values)


def _extensions(chain: VerifiedChain, vek: Certificate, ledger: Ledger) -> VekExtensions:
    oids = [extension.oid for extension in vek.extensions]
    twice = sorted({oid for oid in oids if oids.count(oid) > 1})
    ledger.require(
        "vek.unique", not twice, ChainBroken, f"extension {', '.join(twice)} occurs twice"
    )
    strange = unexpected_oids(chain.kind, chain.line, frozenset(oids))
    critical = sorted(
        e.oid
        for e in vek.extensions
        if e.critical and not e.oid.startswith(ARC) and e.oid not in _KNOWN_CRITICAL
    )
    ledger.require(
        "vek.known",
        not strange and not critical,
        ChainBroken,
        f"extension {', '.join([*strange, *critical])} is not one of a {chain.line} {chain.kind}",
    )
    try:
        found = read_vek_extensions(chain.kind, vek)
    except FormatError as error:
        ledger.failed("vek.extensions", detail=error.message)
        raise ChainBroken(error.message, check="vek.extensions") from error
    ledger.passed("vek.extensions", actual=f"{found.product_name}, {found.tcb}")
    ledger.require(
        "vek.product",
        found.line is chain.line,
        ChainBroken,
        f"a {found.product_name} VEK does not belong under {chain.line}'s root",
        expected=chain.line,
        actual=found.product_name,
    )
    return found
