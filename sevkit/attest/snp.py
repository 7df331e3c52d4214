"""From the bytes of a report to a verdict: finds the VEK, the chain and the CRL, and judges.

Theory of operation. 1. The report is parsed, so that what is malformed is refused before anything
is fetched. 2. The VEK comes from the caller, else from the host's certificate table, else from the
certificate source (cache, then key service). 3. ASK or ASVK and ARK come from the caller, else
they are the bundled ones; with a root of the owner's own and no chain, from the source.
4. Everything is verified from the root down to the report. 5. What is authentic is validated.

What the caller and the host hand over is evidence: if it is bad, that is a verdict. What the cache
or the key service hand over is not: a VEK or CRL from there that does not verify is dropped from
the cache, fetched anew, and in the end "could not find out", never "no".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.abi.certtable import VCEK, VLEK
from sevkit.abi.policy import SigningKey
from sevkit.abi.product import SNP_LINES, ProductLine
from sevkit.abi.report import Report, parse_report
from sevkit.abi.vek import VekKind
from sevkit.attest.chain import (
    TrustedRoots,
    VerifiedChain,
    VerifiedVek,
    identify_chain,
    verify_chain,
    verify_vek,
)
from sevkit.attest.checks import SNP_REPORT
from sevkit.attest.crl import parse_crl, verify_not_revoked
from sevkit.attest.describe import describe_certificate, describe_report
from sevkit.attest.validate import validate_report
from sevkit.attest.verdict import Ledger, Verdict, conclude
from sevkit.attest.verify import verify_report
from sevkit.attest.x509 import Certificate, parse_certificate, parse_certificates
from sevkit.errors import (
    CertificateExpired,
    CertificateRevoked,
    ChainBroken,
    FormatError,
    KeyServiceError,
    UndecidedError,
    VerificationError,
)
from sevkit.kds.roots import SNP_ARK_SHA256, snp_chain
from sevkit.kds.urls import hwid_from_chip_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sevkit.attest.container import ReportContainer
    from sevkit.attest.expectations import Expectations
    from sevkit.kds.source import CertificateSource, Sourced

SUBJECT: Final = "snp-report"


@final
@dataclass(frozen=True, slots=True)
class Trust:
    """What a judgement stands on: time, roots, and what the caller brought along.

    ``vek``, ``chain`` and ``crl`` are file contents; ``line`` helps with version 2 reports, which
    name no product. Without a ``source`` nothing is looked up.
    """

    at: datetime
    roots: TrustedRoots
    vek: bytes | None = None
    chain: bytes | None = None
    crl: bytes | None = None
    require_crl: bool = False
    line: ProductLine | None = None
    source: CertificateSource | None = None


def pinned_roots(*owners: bytes) -> TrustedRoots:
    """Return AMD's pinned ARKs, and those that the owner named (each as DER or PEM)."""
    named = (parse_certificates(data) for data in owners)
    return TrustedRoots(
        frozenset(bytes.fromhex(pin) for pin in SNP_ARK_SHA256.values()),
        frozenset(hashlib.sha256(c.der).digest() for certificates in named for c in certificates),
    )


def judge_report(container: ReportContainer, expectations: Expectations, trust: Trust) -> Verdict:
    """Return the verdict on one report.

    Raises ``FormatError`` for malformed evidence and ``UndecidedError`` if a certificate without
    which nothing can be said could not be had; everything else is in the verdict.
    """
    report = parse_report(container.report)
    judge = _Judge(report, container, trust)
    try:
        judge.run(expectations)
    except VerificationError as error:
        judge.ledger.note(error)
    evidence = describe_report(report, judge.line) | judge.describe()
    digest = hashlib.sha256(container.report).hexdigest()
    return conclude(SUBJECT, digest, trust.at, judge.ledger, evidence)


@final
class _Judge:
    """One judgement under way."""

    def __init__(self, report: Report, container: ReportContainer, trust: Trust) -> None:
        self.ledger: Final = Ledger(SNP_REPORT)
        self.line: ProductLine | None = report.product_line or trust.line
        self._report: Final = report
        self._container: Final = container
        self._trust: Final = trust
        self._certificates: list[tuple[Certificate, str]] = []
        self._authentic = False

    def run(self, expectations: Expectations) -> None:
        given = self._given_vek()
        vek = self._from_evidence(*given) if given else self._from_source()
        verified = verify_report(self._report, vek, ledger=self.ledger)
        self._authentic = True
        validate_report(verified, expectations, ledger=self.ledger)

    def _given_vek(self) -> tuple[bytes, str] | None:
        if self._trust.vek is not None:
            return self._trust.vek, "given"
        wanted = VLEK if self._report.key_info.signing_key is SigningKey.VLEK else VCEK
        found = self._container.certificates.get(wanted)
        return None if found is None else (found, "the host's certificate table")

    def _from_evidence(self, data: bytes, origin: str) -> VerifiedVek:
        vek = _only(parse_certificates(data))
        self._certificates.append((vek, origin))
        claimed = identify_chain(vek)
        if claimed is None:
            message = f"{vek.subject_cn} issued by {vek.issuer_cn} is no VEK of a known product"
            raise ChainBroken(message, check="chain.names")
        kind, line = claimed
        return verify_vek(self._chain(kind, line), vek, ledger=self.ledger)

    def _from_source(self) -> VerifiedVek:
        report, source = self._report, self._trust.source
        if report.key_info.signing_key is SigningKey.VLEK:
            raise UndecidedError(
                "the report is signed by a VLEK, which the key service gives to providers only",
                hint="pass it with --vek, or pass the extended report with its certificate table",
            )
        if source is None or report.chip_id_masked:
            raise UndecidedError(
                "the host masks the chip ID, so its VCEK cannot be looked up"
                if report.chip_id_masked
                else "no VCEK was given and nothing may be looked up",
                hint="pass it with --vek",
            )
        problem: UndecidedError | None = None
        for line in [self.line] if self.line else _guess_lines(report):
            try:
                return self._fetched_vek(source, line)
            except UndecidedError as error:
                problem = problem or error
        raise problem or UndecidedError("no product has this chip")

    def _fetched_vek(self, source: CertificateSource, line: ProductLine) -> VerifiedVek:
        self._certificates = []
        chain = self._chain(VekKind.VCEK, line)
        hwid = hwid_from_chip_id(line, self._report.chip_id)
        sourced = source.vcek(line, hwid, self._report.tcb("reported", line))
        found = self._use_vcek(sourced, chain)
        if isinstance(found, str) and sourced.cached:
            sourced = source.replace(sourced)
            found = self._use_vcek(sourced, chain)
        if isinstance(found, str):
            source.drop(sourced.resource)
            raise KeyServiceError(
                f"the VCEK from {sourced.origin} does not verify: {found}",
                hint="pass a good one with --vek, or ask another key service with --kds-url",
            )
        self._certificates.append((found.certificate, sourced.origin))
        return found

    def _use_vcek(self, sourced: Sourced, chain: VerifiedChain) -> VerifiedVek | str:
        """Return the VEK, or why it is not the one that was asked for."""
        report, scratch = self._report, Ledger(SNP_REPORT)
        try:
            vek = verify_vek(chain, _only(parse_certificates(sourced.data)), ledger=scratch)
        except CertificateExpired:
            self.ledger.adopt(scratch)
            raise
        except (FormatError, VerificationError) as error:
            return error.message
        hwid = hwid_from_chip_id(chain.line, report.chip_id)
        if (vek.extensions.hwid, vek.extensions.tcb) != (hwid, report.tcb("reported", chain.line)):
            return "it is another chip's or another TCB's"
        self.ledger.adopt(scratch)
        return vek

    def _chain(self, kind: VekKind, line: ProductLine) -> VerifiedChain:
        trust = self._trust
        vlek = kind is VekKind.VLEK
        if trust.chain is not None:
            certificates, origin = parse_certificates(trust.chain), "given"
        elif trust.roots.owners and trust.source is not None:
            sourced = trust.source.chain(line, vlek=vlek)
            certificates, origin = parse_certificates(sourced.data), sourced.origin
        else:
            certificates = tuple(parse_certificate(der) for der in snp_chain(line, vlek=vlek))
            origin = "bundled"
        if len(certificates) != 2:
            raise FormatError(
                "certificate chain",
                f"expected ASK or ASVK and then ARK, got {len(certificates)} certificates",
            )
        intermediate, ark = certificates
        self._certificates += [(intermediate, origin), (ark, origin)]
        chain = verify_chain(intermediate, ark, at=trust.at, roots=trust.roots, ledger=self.ledger)
        self.line = chain.line
        self._revocation(chain)
        return chain

    def _revocation(self, chain: VerifiedChain) -> None:
        trust = self._trust
        if trust.crl is not None:
            verify_not_revoked(parse_crl(trust.crl), chain, ledger=self.ledger)
            return
        reason = "no list was given and nothing may be looked up"
        if trust.source is not None:
            found = self._fetched_crl(trust.source, chain)
            if found is None:
                return
            reason = found
        for check in ("crl.signature", "crl.dates", "chain.revocation"):
            self.ledger.skipped(check, reason)
        self.ledger.undecided = trust.require_crl

    def _fetched_crl(self, source: CertificateSource, chain: VerifiedChain) -> str | None:
        """Check against a fetched list; return why that could not be done, or None."""
        reason = ""
        vlek = chain.kind is VekKind.VLEK
        try:
            sourced = source.crl(chain.line, vlek=vlek, at=chain.at)
            reason = self._use_crl(sourced, chain)
            if reason and sourced.cached:
                sourced = source.replace(sourced)
                reason = self._use_crl(sourced, chain)
            if reason:
                source.drop(sourced.resource)
        except KeyServiceError as error:
            return f"{reason}; {error.message}" if reason else error.message
        return reason or None

    def _use_crl(self, sourced: Sourced, chain: VerifiedChain) -> str:
        """Return why a list from the source is of no use, or nothing once it has been applied.

        Only a sound list that names a certificate of the chain is a "no".
        """
        scratch = Ledger(SNP_REPORT)
        try:
            verify_not_revoked(parse_crl(sourced.data), chain, ledger=scratch)
        except CertificateRevoked:
            self.ledger.adopt(scratch)
            raise
        except (FormatError, VerificationError) as error:
            return f"the list from {sourced.origin} is of no use: {error.message}"
        self.ledger.adopt(scratch)
        return ""

    def describe(self) -> dict[str, Any]:
        return {
            "authentic": self._authentic,
            "certificates": [describe_certificate(*row) for row in self._certificates],
        }


def _only(certificates: tuple[Certificate, ...]) -> Certificate:
    if len(certificates) != 1:
        raise FormatError("VEK", f"expected one certificate, got {len(certificates)}")
    return certificates[0]


def _guess_lines(report: Report) -> Iterator[ProductLine]:
    """Yield the lines whose chips a version 2 report may come from: 8-byte IDs are Turin's."""
    turin = not any(report.chip_id[ProductLine.TURIN.hwid_size :])
    for line in SNP_LINES:
        if (line is ProductLine.TURIN) == turin:
            yield line
