"""From the bytes of a report to a verdict: finds the VEK, the chain and the CRL, and judges.

Theory of operation. 1. The report and every file that was given are parsed, so that what is
malformed is refused before anything is fetched or judged. 2. The VEK comes from the caller, else
from the host's certificate table, else from the certificate source (cache, then key service).
3. ASK or ASVK and ARK come from the caller, else they are the bundled ones. With a root of the
owner's own and no chain, the bundled ones serve a VEK that they signed, the source's any other.
4. Everything is verified from the root down to the report. 5. What is authentic is validated.

What the caller and the host hand over is evidence: if it is bad, that is a verdict. What the cache
or the key service hand over is not: a VEK, chain or CRL from there that does not verify is dropped
from the cache, fetched anew, and in the end "could not find out", never "no".
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
    read_vek_extensions,
    verify_vek,
)
from sevkit.attest.checks import SNP_REPORT
from sevkit.attest.crl import RevocationList, parse_crl
from sevkit.attest.describe import describe_certificate, describe_report
from sevkit.attest.issuers import Issuers, pair_of
from sevkit.attest.revocation import check_revocation
from sevkit.attest.validate import validate_report
from sevkit.attest.verdict import Ledger, Verdict, conclude
from sevkit.attest.verify import verify_report
from sevkit.attest.x509 import Certificate, parse_certificates
from sevkit.errors import (
    CertificateExpired,
    ChainBroken,
    FormatError,
    KeyServiceError,
    UndecidedError,
    UsageError,
    VerificationError,
)
from sevkit.kds.roots import SNP_ARK_SHA256
from sevkit.kds.urls import hwid_from_chip_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sevkit.abi.tcb import TcbVersion
    from sevkit.attest.container import ReportContainer
    from sevkit.attest.expectations import Expectations, ExpectedMeasurement
    from sevkit.kds.source import CertificateSource, Sourced

SUBJECT: Final = "snp-report"


@final
@dataclass(frozen=True, slots=True)
class Trust:
    """What a judgement stands on: time, roots, and what the caller brought along.

    ``vek``, ``chain`` and ``crl`` are file contents. ``line`` is the product line that the report
    must come from; a version 2 report without a VEK needs it, because it names none. Without a
    ``source`` nothing is looked up.
    """

    at: datetime
    roots: TrustedRoots
    vek: bytes | None = None
    chain: bytes | None = None
    crl: bytes | None = None
    require_crl: bool = False
    line: ProductLine | None = None
    source: CertificateSource | None = None

    def __post_init__(self) -> None:
        if self.at.utcoffset() is None:
            raise UsageError("the time of verification needs its zone")


def pinned_roots(*owners: bytes) -> TrustedRoots:
    """Return AMD's pinned ARKs, and those that the owner named (each as DER or PEM)."""
    named = (parse_certificates(data) for data in owners)
    return TrustedRoots(
        frozenset(bytes.fromhex(pin) for pin in SNP_ARK_SHA256.values()),
        frozenset(hashlib.sha256(c.der).digest() for certificates in named for c in certificates),
    )


@final
@dataclass(frozen=True, slots=True)
class _Given:
    """The certificates and the list that stand in the caller's files and the host's table."""

    vek: tuple[Certificate, str] | None
    chain: tuple[Certificate, Certificate] | None
    crl: RevocationList | None


def _parse_given(report: Report, container: ReportContainer, trust: Trust) -> _Given:
    if report.product_line is not None:
        report.tcbs(report.product_line)  # bytes that no chip of this product can report
    wanted = VLEK if report.key_info.signing_key is SigningKey.VLEK else VCEK
    data, origin = trust.vek, "given"
    if data is None:
        data, origin = container.certificates.get(wanted), "the host's certificate table"
    return _Given(
        vek=None if data is None else (_only(parse_certificates(data)), origin),
        chain=None if trust.chain is None else pair_of(parse_certificates(trust.chain)),
        crl=None if trust.crl is None else parse_crl(trust.crl),
    )


def judge_report(container: ReportContainer, expectations: Expectations, trust: Trust) -> Verdict:
    """Return the verdict on one report.

    Raises ``FormatError`` for malformed evidence and ``UndecidedError`` if a certificate without
    which nothing can be said could not be had; everything else is in the verdict.
    """
    report = parse_report(container.report)
    judge = _Judge(report, _parse_given(report, container, trust), trust)
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

    def __init__(self, report: Report, given: _Given, trust: Trust) -> None:
        self.ledger: Final = Ledger(SNP_REPORT)
        self.line: ProductLine | None = report.product_line or trust.line
        self._report: Final = report
        self._given: Final = given
        self._trust: Final = trust
        self._certificates: list[tuple[Certificate, str]] = []
        self._authentic = False
        self._matched: ExpectedMeasurement | None = None

    def run(self, expectations: Expectations) -> None:
        vek = self._from_evidence(*self._given.vek) if self._given.vek else self._from_source()
        verified = verify_report(self._report, vek, ledger=self.ledger)
        self._authentic = True
        self._matched = validate_report(verified, expectations, ledger=self.ledger)
        self._demanded_product(vek.chain.line)

    def _demanded_product(self, line: ProductLine) -> None:
        demanded = self._trust.line
        if demanded is None:
            self.ledger.skipped("product.demanded", "no product was demanded")
        else:
            holds = line is demanded
            self.ledger.judge("product.demanded", holds, expected=demanded, actual=line)

    def _from_evidence(self, vek: Certificate, origin: str) -> VerifiedVek:
        self._certificates.append((vek, origin))
        claimed = identify_chain(vek)
        if claimed is None:
            message = f"{vek.subject_cn} issued by {vek.issuer_cn} is no VEK of a known product"
            raise ChainBroken(message, check="chain.names")
        chain = self._chain(*claimed, self.ledger, vek)
        self._revocation(chain, self.ledger)
        return verify_vek(chain, vek, ledger=self.ledger)

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
        for line in [self.line] if self.line else _guess_lines(report, self._given.chain):
            # a guess that came to nothing must leave no finding behind
            scratch = Ledger(SNP_REPORT)
            try:
                found = self._look_up(source, line, scratch)
            except UndecidedError as error:
                problem = problem or error
                continue
            except VerificationError:
                self.ledger.adopt(scratch)
                raise
            self.ledger.adopt(scratch)
            return found
        raise problem or UndecidedError("no product has this chip")

    def _look_up(self, source: CertificateSource, line: ProductLine, ledger: Ledger) -> VerifiedVek:
        self._certificates = []
        tcb = self._report.tcb("reported", line)
        hwid = hwid_from_chip_id(line, self._report.chip_id)
        chain = self._chain(VekKind.VCEK, line, ledger)
        if (chain.kind, chain.line) != (VekKind.VCEK, line):
            # asking on would blame the key service for the caller's chain
            message = f"the chain that was given is for {chain.line} {chain.kind}s"
            ledger.failed("chain.names", expected=f"{line} VCEKs", detail=message)
            raise ChainBroken(message, check="chain.names")
        sourced = source.vcek(line, hwid, tcb)
        found = self._use_vcek(sourced, chain, (hwid, tcb), ledger)
        if isinstance(found, str) and sourced.cached:
            sourced = source.replace(sourced)
            found = self._use_vcek(sourced, chain, (hwid, tcb), ledger)
        if isinstance(found, str):
            source.drop(sourced.resource)
            raise KeyServiceError(
                f"the VCEK from {sourced.origin} does not verify: {found}",
                hint="pass a good one with --vek, or ask another key service with --kds-url",
            )
        self._certificates.append((found.certificate, sourced.origin))
        self._revocation(chain, ledger)
        return found

    def _use_vcek(
        self,
        sourced: Sourced,
        chain: VerifiedChain,
        wanted: tuple[bytes, TcbVersion],
        ledger: Ledger,
    ) -> VerifiedVek | str:
        """Return the VEK, or why it is not the one that was asked for.

        Whose it is comes first: that another chip's VEK has expired says nothing of this one.
        """
        scratch = Ledger(SNP_REPORT)
        try:
            certificate = _only(parse_certificates(sourced.data))
            claims = read_vek_extensions(VekKind.VCEK, certificate)
            if (claims.hwid, claims.tcb) != wanted:
                return "it is another chip's or another TCB's"
            vek = verify_vek(chain, certificate, ledger=scratch)
        except CertificateExpired:
            ledger.adopt(scratch)
            raise
        except (FormatError, VerificationError) as error:
            return error.message
        ledger.adopt(scratch)
        return vek

    def _chain(
        self, kind: VekKind, line: ProductLine, ledger: Ledger, vek: Certificate | None = None
    ) -> VerifiedChain:
        issuers = Issuers(self._trust.roots, self._trust.at, self._given.chain, self._trust.source)
        try:
            chain = issuers.find(kind, line, vek=vek, ledger=ledger)
        finally:
            self._certificates += issuers.shown
        self.line = self._report.product_line or chain.line
        return chain

    def _revocation(self, chain: VerifiedChain, ledger: Ledger) -> None:
        trust = self._trust
        check_revocation(
            chain,
            given=self._given.crl,
            source=trust.source,
            required=trust.require_crl,
            ledger=ledger,
        )

    def describe(self) -> dict[str, Any]:
        described: dict[str, Any] = {
            "authentic": self._authentic,
            "certificates": [describe_certificate(*row) for row in self._certificates],
        }
        if self._matched is not None and self._matched.label:
            described |= {
                "matched": self._matched.label,
                "parameters": dict(self._matched.parameters),
            }
        return described


def _only(certificates: tuple[Certificate, ...]) -> Certificate:
    if len(certificates) != 1:
        raise FormatError("VEK", f"expected one certificate, got {len(certificates)}")
    return certificates[0]


def _guess_lines(
    report: Report, chain: tuple[Certificate, Certificate] | None
) -> Iterator[ProductLine]:
    """Yield the lines whose chips a version 2 report may come from: 8-byte IDs are Turin's.

    A chain that was given leaves no choice: it names its line.
    """
    named = [line for line in SNP_LINES if chain and chain[1].subject_cn == f"ARK-{line}"]
    if named:
        yield from named
        return
    turin = not any(report.chip_id[ProductLine.TURIN.hwid_size :])
    yield from (line for line in SNP_LINES if (line is ProductLine.TURIN) == turin)
