"""Is an SNP attestation report authentic? ``verify_report`` says so, or raises.

Whether it is acceptable is ``validate``'s question, which takes only a ``VerifiedReport``.
Source: 56860 7.3 (attestation), table 23 (report).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.policy import SigningKey
from sevkit.abi.report import Report, parse_report
from sevkit.abi.vek import VekKind
from sevkit.errors import ChainBroken, FormatError, SignatureMismatch, VerificationError

if TYPE_CHECKING:
    from sevkit.abi.tcb import TcbVersion
    from sevkit.attest.chain import VerifiedVek
    from sevkit.attest.verdict import Ledger

_ECDSA: Final = ec.ECDSA(hashes.SHA384())
_KEYS: Final = {SigningKey.VCEK: VekKind.VCEK, SigningKey.VLEK: VekKind.VLEK}
CHIP_ID_SIZE: Final = 64


@final
@dataclass(frozen=True, slots=True)
class VerifiedReport:
    """A report that a verified VEK signed. Only ``verify_report`` makes one."""

    report: Report
    vek: VerifiedVek
    current_tcb: TcbVersion
    reported_tcb: TcbVersion
    committed_tcb: TcbVersion
    launch_tcb: TcbVersion


def verify_report(data: bytes | Report, vek: VerifiedVek, *, ledger: Ledger) -> VerifiedReport:
    """Return the report, verified under ``vek``.

    ``data`` is 1184 bytes, or a report that was parsed from them: the signature is checked over
    the bytes received. Raises ``FormatError`` or ``VerificationError``.
    """
    report = data if isinstance(data, Report) else parse_report(data)
    _require_product(report, vek, ledger)
    current, reported, committed, launch = _tcbs(report, vek, ledger)
    ledger.require(
        "report.signing-key",
        _KEYS.get(report.key_info.signing_key) is vek.chain.kind,
        ChainBroken,
        f"the report names a {report.key_info.signing_key.name}, the certificate is a "
        f"{vek.chain.kind}",
        expected=report.key_info.signing_key.name,
        actual=vek.chain.kind,
    )
    _require_signature(report, vek, ledger)
    ledger.require(
        "tcb.vek",
        reported == vek.extensions.tcb,
        VerificationError,
        "the reported TCB is not the one that the VEK was made for",
        expected=str(vek.extensions.tcb),
        actual=str(reported),
    )
    _require_chip(report, vek, ledger)
    return VerifiedReport(report, vek, current, reported, committed, launch)


def _require_product(report: Report, vek: VerifiedVek, ledger: Ledger) -> None:
    if report.product_line is None:
        ledger.skipped("report.product", f"version {report.version} reports name no product")
        return
    ledger.require(
        "report.product",
        report.product_line is vek.chain.line,
        ChainBroken,
        f"the report is {report.product}'s, the VEK {vek.chain.line}'s",
        expected=vek.chain.line,
        actual=str(report.product),
    )


def _tcbs(report: Report, vek: VerifiedVek, ledger: Ledger) -> tuple[TcbVersion, ...]:
    """Return the TCB versions as the VEK's product line orders them.

    A version 2 report names no product: where its bytes do not fit the VEK's, the VEK is not its.
    """
    line = vek.chain.line
    try:
        return report.tcbs(line)
    except FormatError as error:
        if report.product_line is not None:
            raise
        message = f"the report is no {line}'s: {error.message}"
        ledger.failed("report.product", expected=line, detail=message)
        raise ChainBroken(message, check="report.product") from error


def _require_signature(report: Report, vek: VerifiedVek, ledger: Ledger) -> None:
    try:
        vek.public_key.verify(report.signature.to_der(), report.signed, _ECDSA)
    except InvalidSignature as error:
        message = f"the {vek.chain.kind} did not sign this report"
        ledger.failed("report.signature", detail=message)
        raise SignatureMismatch(
            message,
            check="report.signature",
            hint="the report was changed, or the VEK is another chip's or another TCB's",
        ) from error
    ledger.passed("report.signature", actual="ECDSA P-384 with SHA-384")


def _require_chip(report: Report, vek: VerifiedVek, ledger: Ledger) -> None:
    hwid = vek.extensions.hwid
    if report.chip_id_masked:
        ledger.skipped("chip.id", "the host masks the chip ID")
    elif hwid is None:
        ledger.skipped("chip.id", "a VLEK names no chip")
    else:
        ledger.require(
            "chip.id",
            hwid.ljust(CHIP_ID_SIZE, b"\0") == report.chip_id,
            VerificationError,
            "the chip ID is not the VCEK's hardware ID",
            expected=hwid.hex(),
            actual=report.chip_id.hex(),
        )
