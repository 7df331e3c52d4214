"""``sevkit inspect certificate``: X.509 and SEV certificates and chains, unjudged."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.files import read_file

if TYPE_CHECKING:
    from sevkit.abi.sevca import CaCertificate
    from sevkit.abi.sevcert import SevCertificate
    from sevkit.attest.x509 import Certificate

SCHEMA: Final = "sevkit.io/inspect-certificate/v1"


@click.command(cls=Command, short_help="An X.509 or SEV certificate or chain.")
@click.argument("file", metavar="FILE")
def command(file: str) -> None:
    """Show the certificates in FILE ('-' is standard input).

    FILE is X.509 (DER, or PEM with one or more certificates: VCEK, VLEK, ASK, ASVK, ARK), or in
    AMD's SEV format (CEK, OCA, PEK, PDH, ASK, ARK, one after another, as sevctl exports them).
    Nothing is verified: 'sevkit attest report' and 'sevkit attest platform' do that.

    \b
    Example:
      sevkit inspect certificate vcek.der
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    from sevkit.cli.render import flatten, show_json  # noqa: PLC0415  # not for --help

    data = read_file(file)
    x509 = data[:1] == b"\x30" or data.lstrip()[:5] == b"-----"
    rows = _describe_x509(data) if x509 else _describe_sev(data)
    if settings().json:
        show_json({"schema": SCHEMA, "verified": False, "certificates": rows})
        return
    click.echo("not verified: these are the file's own words")
    for row in rows:
        click.echo("")
        for name, value in flatten(row):
            click.echo(f"{name:<16} {value}")


def _describe_x509(data: bytes) -> list[dict[str, Any]]:
    from sevkit.attest.x509 import parse_certificates  # noqa: PLC0415  # costs 40 ms

    return [_x509_row(certificate) for certificate in parse_certificates(data)]


def _x509_row(certificate: Certificate) -> dict[str, Any]:
    from sevkit.attest.chain import (  # noqa: PLC0415  # not for --help
        identify_chain,
        read_vek_extensions,
    )
    from sevkit.attest.describe import describe_certificate  # noqa: PLC0415  # not for --help
    from sevkit.errors import FormatError  # noqa: PLC0415  # not for --help

    row: dict[str, Any] = {
        **describe_certificate(certificate, "this file"),
        "serial": certificate.serial,
        "ca": certificate.is_ca,
        "extensions": [extension.oid for extension in certificate.extensions],
    }
    del row["origin"]
    claimed = identify_chain(certificate)
    if claimed is None:
        return row
    try:
        found = read_vek_extensions(claimed[0], certificate)
    except FormatError as error:
        return row | {"problem": error.message}
    return row | {
        "kind": str(claimed[0]),
        "product_name": found.product_name,
        "tcb": found.tcb.components,
        "hwid": found.hwid.hex() if found.hwid else None,
        "csp_id": found.csp_id,
    }


def _describe_sev(data: bytes) -> list[dict[str, Any]]:
    from sevkit.abi.sevfile import split_certificates  # noqa: PLC0415  # not for --help

    return [_sev_row(certificate) for certificate in split_certificates(data)]


def _sev_row(certificate: SevCertificate | CaCertificate) -> dict[str, Any]:
    from sevkit.abi.sevca import CaCertificate  # noqa: PLC0415  # not for --help

    row: dict[str, Any] = {
        "usage": certificate.usage.name,
        "sha256": hashlib.sha256(certificate.data).hexdigest(),
    }
    if isinstance(certificate, CaCertificate):
        return row | {
            "key_id": certificate.key_id.hex(),
            "certifying_id": certificate.certifying_id.hex(),
            "signed": bool(certificate.signature),
        }
    return row | {
        "algorithm": certificate.algorithm.name,
        "api": f"{certificate.api_major}.{certificate.api_minor}",
        "signatures": [slot.usage.name for slot in certificate.signatures],
    }
