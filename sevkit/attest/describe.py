"""What evidence says, as plain values for people and programs; nothing is judged here."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sevkit.abi.policy import PlatformInfo
from sevkit.attest.verdict import render_time
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from sevkit.abi.product import ProductLine
    from sevkit.abi.report import Report
    from sevkit.attest.x509 import Certificate


def describe_report(report: Report, line: ProductLine | None) -> dict[str, Any]:
    """Return what a report says, for people and programs; nothing of it is judged here.

    TCB versions are given by component where the product is known, else as raw numbers.
    """
    product = report.product or line
    described: dict[str, Any] = {
        "product": str(product) if product else "unknown",
        "version": report.version,
        "measurement": report.measurement.hex(),
        "report_data": report.report_data.hex(),
        "host_data": report.host_data.hex(),
        "policy": f"{report.policy:#x}",
        "policy_flags": [str(flag.name) for flag in report.policy_flags],
        "vmpl": report.vmpl,
        "guest_svn": report.guest_svn,
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "signing_key": report.key_info.signing_key.name,
        "chip_id": report.chip_id.hex(),
        "report_id": report.report_id.hex(),
        "report_id_ma": report.report_id_ma.hex(),
        "platform_info": f"{report.platform_info:#x}",
        "platform_info_flags": [
            str(flag.name) for flag in PlatformInfo if report.platform_info & flag
        ],
        "current_version": str(report.current_version),
        "committed_version": str(report.committed_version),
    }
    for which in ("current", "reported", "committed", "launch"):
        described[f"{which}_tcb"] = _describe_tcb(report, which, line)
    if report.cpuid_fms is not None:
        described["cpuid_fms"] = "/".join(f"{part:02x}" for part in report.cpuid_fms)
    if report.current_mit_vector is not None and report.launch_mit_vector is not None:
        described["launch_mit_vector"] = f"{report.launch_mit_vector:#x}"
        described["current_mit_vector"] = f"{report.current_mit_vector:#x}"
    return described


def _describe_tcb(report: Report, which: str, line: ProductLine | None) -> dict[str, int] | str:
    raw = getattr(report, f"{which}_tcb_raw")
    if line is None:
        return f"{raw:#018x}"
    try:
        return report.tcb(which, line).components
    except FormatError:
        return f"{raw:#018x}"


def describe_certificate(certificate: Certificate, origin: str) -> dict[str, str]:
    """Return the names, dates, SHA-256 and origin of a certificate."""
    return {
        "subject": certificate.subject_cn,
        "issuer": certificate.issuer_cn,
        "not_before": render_time(certificate.not_before),
        "not_after": render_time(certificate.not_after),
        "sha256": hashlib.sha256(certificate.der).hexdigest(),
        "origin": origin,
    }
