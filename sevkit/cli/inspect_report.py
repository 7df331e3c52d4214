"""``sevkit inspect report``: what an SNP report says, unjudged."""

from __future__ import annotations

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.files import read_file

SCHEMA = "sevkit.io/inspect-report/v1"


@click.command(cls=Command, short_help="An SNP attestation report.")
@click.argument("file", metavar="FILE")
@click.option("--product", metavar="NAME", help="Product, for the TCBs of version 2 reports.")
def command(file: str, product: str | None) -> None:
    """Show the fields of the SNP attestation report in FILE ('-' is standard input).

    FILE is what 'sevkit attest report' takes. Nothing is verified: that command does it.

    \b
    Example:
      sevkit inspect report report.bin --output json
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    from sevkit.abi.certtable import NAMES  # noqa: PLC0415  # not for --help
    from sevkit.abi.report import parse_report  # noqa: PLC0415  # not for --help
    from sevkit.attest.container import MAX_SIZE, find_report  # noqa: PLC0415  # not for --help
    from sevkit.attest.describe import describe_report  # noqa: PLC0415  # not for --help
    from sevkit.cli.attest_report import parse_line  # noqa: PLC0415  # not for --help
    from sevkit.cli.render import flatten, show_json  # noqa: PLC0415  # not for --help

    line = parse_line(product)
    container = find_report(read_file(file, limit=MAX_SIZE))
    report = parse_report(container.report)
    described = describe_report(report, report.product_line or line)
    described["certificate_table"] = [
        {"guid": str(guid), "name": NAMES.get(guid, "unknown"), "size": len(blob)}
        for guid, blob in container.certificates.items()
    ]
    if settings().json:
        show_json({"schema": SCHEMA, "verified": False, **described})
        return
    click.echo("not verified: these are the file's own words")
    for name, value in flatten(described):
        click.echo(f"{name:<20} {value}")
