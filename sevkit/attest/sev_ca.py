"""AMD's two certificates above a CEK: which ARK is a root, and did it sign the ASK.

The ARK must be one of AMD's pinned roots, byte for byte, or one that the caller trusts explicitly.
Source: 55766 appendix B.1.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from sevkit.abi.product import ProductLine
from sevkit.abi.rsa import verify_pss
from sevkit.abi.sevca import UNSIGNED_NAPLES_ARK_SIZE, CaCertificate, CaChain, parse_ca_certificate
from sevkit.abi.sevcert import SevCertificate, Usage
from sevkit.attest.sev_links import LARGE, rsa_link
from sevkit.errors import ChainBroken, SignatureMismatch
from sevkit.kds.roots import SEV_ARK_SHA256, sev_ca

if TYPE_CHECKING:
    from sevkit.attest.verdict import Ledger


def verify_ca(ca: CaChain, ledger: Ledger, *, roots: tuple[bytes, ...] = ()) -> ProductLine | None:
    """Return the product line of the pinned root, or None for a root among ``roots``.

    Records ``platform.root``, ``platform.ark`` and ``platform.ask``. Raises ``ChainBroken`` or
    ``SignatureMismatch``.
    """
    line = _check_root(ca.ark, roots, ledger)
    _check_signatures(ca, ledger)
    return line


def _check_root(ark: CaCertificate, roots: tuple[bytes, ...], ledger: Ledger) -> ProductLine | None:
    digest = ark.sha256.hex()
    line = next((line for line, pin in SEV_ARK_SHA256.items() if pin == digest), None)
    trusted = any(hmac.compare_digest(root, ark.data) for root in roots)
    ledger.require(
        "platform.root",
        line is not None or trusted,
        ChainBroken,
        "the ARK is not one of AMD's pinned roots",
        actual=digest,
    )
    if line is None:
        detail = "not AMD's: trusted only because the caller names it"
        ledger.passed("platform.root", actual=digest, detail=detail)
    return line


def _check_signatures(above: CaChain, ledger: Ledger) -> None:
    ark, ask = above.ark, above.ask
    for check, usage, certificate in (
        ("platform.ark", Usage.ARK, ark),
        ("platform.ask", Usage.ASK, ask),
    ):
        ledger.require(
            check,
            certificate.usage is usage,
            ChainBroken,
            f"the certificate in the {usage.name}'s place is for {certificate.usage.name}",
        )
        ledger.require(
            check,
            hmac.compare_digest(certificate.certifying_id, ark.key_id),
            ChainBroken,
            f"the {usage.name} names another issuer than the ARK",
            expected=ark.key_id.hex(),
            actual=certificate.certifying_id.hex(),
        )
        require_signature(
            ledger,
            check,
            certificate.key.bits == ark.key.bits
            and verify_pss(
                ark.key, certificate.signature, certificate.body, sha384=ark.key.bits == LARGE
            ),
            f"the ARK's signature on the {usage.name} does not verify",
            f"ARK {ark.key_id.hex()}",
        )


def require_signature(ledger: Ledger, check: str, holds: bool, message: str, signers: str) -> None:
    """Record who signed, or that the signature does not verify, and raise."""
    ledger.require(check, holds, SignatureMismatch, message)
    ledger.passed(check, expected=signers, actual=signers)


def find_bundled(cek: SevCertificate) -> CaChain | None:
    """Return the bundled line whose ASK verifies the CEK's signature, or None."""
    for line in ProductLine:
        ask, ark = (parse_ca_certificate(data) for data in sev_ca(line))
        for signature in cek.signatures:
            link = rsa_link(signature, ask.key, cek)
            if link is not None and link.holds():
                return CaChain(ask, ark)
    return None


def complete(ca: CaChain) -> CaChain:
    """Return the chain with the bundled Naples ARK in place of AMD's old file of it.

    That file lacks the signature. Only exactly its bytes are completed: any other unsigned ARK
    stays unsigned, and so is refused.
    """
    if len(ca.ark.data) != UNSIGNED_NAPLES_ARK_SIZE:
        return ca
    bundled = parse_ca_certificate(sev_ca(ProductLine.NAPLES)[1])
    return CaChain(ca.ask, bundled) if hmac.compare_digest(bundled.body, ca.ark.data) else ca
