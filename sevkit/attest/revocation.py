"""Was a certificate of the chain taken back? Asks the list that the caller gave, else the source's.

A list that the caller gave is evidence: if it is not sound, that is a verdict. A list from the
cache or the key service is not: where it is not sound it could not be had. Only a sound list that
names a certificate of the chain is a "no".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.abi.vek import VekKind
from sevkit.attest.crl import RevocationList, parse_crl, verify_not_revoked
from sevkit.attest.verdict import Ledger
from sevkit.errors import (
    CertificateExpired,
    CertificateRevoked,
    FormatError,
    KeyServiceError,
    VerificationError,
)

if TYPE_CHECKING:
    from sevkit.attest.chain import VerifiedChain
    from sevkit.kds.source import CertificateSource, Sourced

_CHECKS: Final = ("crl.signature", "crl.whole", "crl.dates", "chain.revocation")


def check_revocation(
    chain: VerifiedChain,
    *,
    given: RevocationList | None,
    source: CertificateSource | None,
    required: bool,
    ledger: Ledger,
) -> None:
    """Refuse the chain if a sound list names one of its certificates.

    ``given`` goes before ``source``. A list that could not be had is named, and leaves the ledger
    undecided if it is ``required``. Raises ``VerificationError``.
    """
    if given is not None:
        verify_not_revoked(given, chain, ledger=ledger)
        return
    reason = "no list was given and nothing may be looked up"
    if source is not None:
        reason = _look_up(source, chain, ledger)
    if reason:
        for check in _CHECKS:
            ledger.skipped(check, reason)
        ledger.undecided = ledger.undecided or required


def _look_up(source: CertificateSource, chain: VerifiedChain, ledger: Ledger) -> str:
    """Check against a list from the source; return why that could not be done, or nothing."""
    reason = ""
    try:
        sourced = source.crl(chain.line, vlek=chain.kind is VekKind.VLEK, at=chain.at)
        reason, bad = _apply(sourced, chain, ledger)
        if bad and sourced.cached:
            sourced = source.replace(sourced)
            reason, bad = _apply(sourced, chain, ledger)
        if bad:
            source.drop(sourced.resource)
    except KeyServiceError as error:
        return f"{reason}; {error.message}" if reason else error.message
    return reason


def _apply(sourced: Sourced, chain: VerifiedChain, ledger: Ledger) -> tuple[str, bool]:
    """Return why a list is of no use, and whether it is a bad one, to be dropped.

    One that is sound and only not of the time of verification (which may lie in the past) is kept.
    """
    scratch = Ledger(ledger.catalogue)
    try:
        verify_not_revoked(parse_crl(sourced.data), chain, ledger=scratch)
    except CertificateRevoked:
        ledger.adopt(scratch)
        raise
    except (FormatError, VerificationError) as error:
        reason = f"the list from {sourced.origin} is of no use: {error.message}"
        return reason, not isinstance(error, CertificateExpired)
    ledger.adopt(scratch)
    return "", False
