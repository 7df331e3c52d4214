"""Who issued a VEK: finds ASK or ASVK and ARK, and verifies them up to a trusted root.

A chain that the caller gave is the only one that is looked at. Without one and without a root of
the owner's own, the bundled chain of AMD's is it. With such a root, a VEK that AMD's bundled ASK
or ASVK signed is AMD's; for any other the certificate source is asked. What the source hands over
is no evidence: a chain from there that does not verify is dropped, fetched anew, and in the end
could not be had.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from sevkit.abi.vek import VekKind
from sevkit.attest.chain import verify_chain
from sevkit.attest.verdict import Ledger
from sevkit.attest.x509 import Certificate, is_signed_by, parse_certificate, parse_certificates
from sevkit.errors import CertificateExpired, FormatError, KeyServiceError, VerificationError
from sevkit.kds.roots import snp_chain

if TYPE_CHECKING:
    from datetime import datetime

    from sevkit.abi.product import ProductLine
    from sevkit.attest.chain import TrustedRoots, VerifiedChain
    from sevkit.kds.source import CertificateSource, Sourced

    Pair = tuple[Certificate, Certificate]


def pair_of(certificates: tuple[Certificate, ...]) -> Pair:
    """Return ASK or ASVK, and ARK, if these are two certificates. Raises ``FormatError``."""
    if len(certificates) != 2:
        raise FormatError(
            "certificate chain",
            f"expected ASK or ASVK and then ARK, got {len(certificates)} certificates",
        )
    return certificates[0], certificates[1]


@final
@dataclass(frozen=True, slots=True)
class Issuers:
    """Where issuers come from, and what is trusted; ``shown`` collects those that were used."""

    roots: TrustedRoots
    at: datetime
    given: Pair | None
    source: CertificateSource | None
    shown: list[tuple[Certificate, str]] = field(default_factory=list)

    def find(
        self, kind: VekKind, line: ProductLine, *, vek: Certificate | None, ledger: Ledger
    ) -> VerifiedChain:
        """Return the verified chain for VEKs of ``kind`` and ``line``.

        A chain that was given may be another's: the caller compares. Raises ``VerificationError``,
        and ``KeyServiceError`` if the source is needed and does not have one.
        """
        if self.given is not None:
            return self._verify(self.given, "given", ledger)
        vlek = kind is VekKind.VLEK
        bundled = pair_of(tuple(parse_certificate(der) for der in snp_chain(line, vlek=vlek)))
        amds = vek is not None and is_signed_by(vek, bundled[0])
        if amds or not self.roots.owners or self.source is None:
            return self._verify(bundled, "bundled", ledger)
        try:
            return self._fetch(self.source, line, vlek=vlek, ledger=ledger)
        except KeyServiceError as error:
            if vek is None:
                # a root that the owner named besides must not cost AMD's own chips their verdict
                return self._verify(bundled, "bundled", ledger)
            hint = "pass ASK or ASVK, and ARK, with --chain"
            raise KeyServiceError(error.message, hint=hint) from error

    def _fetch(
        self, source: CertificateSource, line: ProductLine, *, vlek: bool, ledger: Ledger
    ) -> VerifiedChain:
        sourced = source.chain(line, vlek=vlek)
        wanted = (VekKind.VLEK if vlek else VekKind.VCEK, line)
        found = self._use(sourced, wanted, ledger)
        if isinstance(found, str) and sourced.cached:
            sourced = source.replace(sourced)
            found = self._use(sourced, wanted, ledger)
        if isinstance(found, str):
            source.drop(sourced.resource)
            raise KeyServiceError(f"the chain from {sourced.origin} does not verify: {found}")
        return found

    def _use(
        self, sourced: Sourced, wanted: tuple[VekKind, ProductLine], ledger: Ledger
    ) -> VerifiedChain | str:
        """Return the chain, or why it is of no use: a good one may be for other VEKs."""
        scratch = Ledger(ledger.catalogue)
        try:
            pair = pair_of(parse_certificates(sourced.data))
            chain = self._verify(pair, sourced.origin, scratch)
        except CertificateExpired:
            ledger.adopt(scratch)
            raise
        except (FormatError, VerificationError) as error:
            self.shown.clear()
            return error.message
        if (chain.kind, chain.line) != wanted:
            self.shown.clear()
            return f"it is for {chain.line} {chain.kind}s"
        ledger.adopt(scratch)
        return chain

    def _verify(self, pair: Pair, origin: str, ledger: Ledger) -> VerifiedChain:
        self.shown.extend((certificate, origin) for certificate in pair)
        return verify_chain(*pair, at=self.at, roots=self.roots, ledger=ledger)
