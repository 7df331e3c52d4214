"""``sevkit attest report``: one SNP report, judged from its bytes up to AMD's root."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.abi.product import ProductLine, parse_product_line
from sevkit.attest.expectation_words import (
    NAMES,
    build_expectations,
    merge,
    parse_expectations_file,
)
from sevkit.cli.base import Command
from sevkit.cli.files import check_new, read_file, refuse_shared_stdin
from sevkit.cli.key_service import key_service_options, open_source
from sevkit.cli.values import WholeNumber
from sevkit.errors import FormatError, UsageError
from sevkit.kds.urls import check_base_url
from sevkit.measure.reference import REFERENCE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.attest.expectations import Expectations

_EVIDENCE: Final = ("vek", "chain", "crl", "kds_ca")
_FILES: Final = (*_EVIDENCE, "reference", "expectations")
_RFC3339: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})"
)


def parse_time(text: str | None) -> datetime:
    """Return an RFC 3339 time with its zone, in UTC; now if there is none."""
    if text is None:
        return datetime.now(UTC)
    try:
        if _RFC3339.fullmatch(text):
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # a month 13, a year that UTC cannot hold: refused as the rest
    raise UsageError(
        "--at: expected an RFC 3339 time with its zone", hint="for example 2026-11-23T00:00:00Z"
    )


def parse_line(text: str | None) -> ProductLine | None:
    """Return the product line of an option's value, one that has SEV-SNP."""
    if text is None:
        return None
    try:
        line = parse_product_line(text)
    except FormatError as error:
        raise UsageError(f"--product: {error.message}", hint=error.hint) from error
    if not line.snp:
        raise UsageError(f"--product: {line} has no SEV-SNP, so no reports")
    return line


def _expectation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    helps = {
        "report-data": "Expected report data: exactly 64 bytes, the nonce that you sent.",
        "allow-any-report-data": "Accept any report data: an old report would do.",
        "measurement": "Expected launch digest, 48 bytes. May be repeated.",
        "reference": "Reference set from 'sevkit measure --output json'.",
        "allow-any-measurement": "Accept any launch digest: any guest would do.",
        "host-data": "Expected host data, 32 bytes.",
        "id-key-digest": "Expected digest of the ID key, 48 bytes.",
        "author-key-digest": "Expected digest of the author key, 48 bytes.",
        "family-id": "Expected family ID, 16 bytes.",
        "image-id": "Expected image ID, 16 bytes.",
        "min-guest-svn": "Least guest SVN.",
        "vmpl": "Expected VMPL.  [default: 0]",
        "allow-debug": "Accept a guest whose memory the host may decrypt for debugging.",
        "allow-migration-agent": "Accept a guest that a migration agent may export.",
        "require-single-socket": "Refuse a policy that allows more than one socket.",
        "require-alias-check": "Refuse a platform that has not ruled out memory aliases (BadRAM).",
        "min-tcb": "Least reported TCB: bootloader=3,tee=0,snp=8,microcode=115[,fmc=1].",
        "chip": "Accepted hardware ID (64 bytes; Turin 8). May be repeated.",
    }
    kinds: dict[str, dict[str, Any]] = {
        "hex": {"metavar": "HEX"},
        "hex list": {"metavar": "HEX", "multiple": True},
        "path": {"metavar": "FILE"},
        "flag": {"is_flag": True, "default": None},
        "number": {"type": WholeNumber(0, 2**32 - 1), "metavar": "N"},
        "tcb": {"metavar": "TCB"},
    }
    for name, kind in reversed(list(NAMES.items())):
        function = click.option(f"--{name}", help=helps[name], **kinds[kind])(function)
    return function


def read_expectations(given: dict[str, Any], path: str | None, *others: str | None) -> Expectations:
    """Return the expectations of the options and of the expectations file, if any.

    ``others`` are the files that the command reads besides: at most one of all may be '-'.
    """
    values: dict[str, object] = {
        name: value
        for name in NAMES
        if (value := given.get(name.replace("-", "_"))) not in (None, ())
    }
    base = Path()
    if path is not None:
        from_file = parse_expectations_file(read_file(path))
        if "reference" in from_file and path != "-":
            base = Path(path).parent
        values = merge(values, from_file)
    reference = values.get("reference")
    content = None
    if isinstance(reference, str):
        refuse_shared_stdin(reference, path, *others)
        where = reference if reference == "-" else str(base / reference)
        content = read_file(where, limit=REFERENCE_LIMIT)
    return build_expectations(values, content)


@click.command(cls=Command, short_help="Verify an SEV-SNP attestation report.")
@click.argument("report", metavar="REPORT")
@click.option("--vek", metavar="FILE", help="VCEK or VLEK, PEM or DER.")
@click.option("--chain", metavar="FILE", help="ASK or ASVK, then ARK, in PEM.  [default: bundled]")
@click.option("--root", metavar="FILE", multiple=True, help="Trust this ARK too (simulated chips).")
@click.option("--crl", metavar="FILE", help="Revocation list, DER or PEM.")
@click.option("--require-crl", is_flag=True, help="Exit 4 if no revocation list can be had.")
@_expectation_options
@click.option("--expectations", metavar="FILE", help="The same expectations in YAML.")
@click.option(
    "--product",
    metavar="NAME",
    help="Demanded product; needed for version 2 reports that nothing else can place.",
)
@click.option("--at", metavar="TIME", help="Time of verification, RFC 3339.  [default: now]")
@click.option("--offline", is_flag=True, help="Ask no key service; use files and the cache.")
@click.option("--cache", metavar="DIR", help="Certificate cache.  [default: the user's cache]")
@key_service_options
@click.option("--html", metavar="FILE", help="Write the verdict as a page too.")
def command(report: str, **given: Any) -> int:  # noqa: ANN401  # click hands over options by name
    """Verify and validate the SEV-SNP attestation report in REPORT.

    REPORT is raw (1184 bytes), hex or base64, a configfs-tsm outblob, or an extended response with
    its certificate table; '-' is standard input. The VEK comes from --vek, else from the table,
    the cache, or the key service.

    \b
    Example:
      sevkit attest report report.bin --vek vcek.der \\
        --report-data "$NONCE" --reference reference.json

    Exit code 0 accepted, 1 not authentic, 3 authentic but not acceptable, 4 undecided.
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    # options are judged first, then shapes, then what cannot be had
    refuse_shared_stdin(report, *given["root"], *(given[name] for name in _FILES))
    if given["html"] is not None:
        check_new(given["html"])
    at = parse_time(given["at"])
    line = parse_line(given["product"])
    if given["kds_url"] is not None:
        check_base_url(given["kds_url"])
    others = (report, *given["root"], *(given[name] for name in _EVIDENCE))
    expectations = read_expectations(given, given["expectations"], *others)
    files = {
        name: None if given[name] is None else read_file(given[name], limit=5 << 20)
        for name in ("vek", "chain", "crl")
    }
    roots = [read_file(path) for path in given["root"]]
    data = read_file(report, limit=5 << 20)

    from sevkit.attest.container import find_report  # noqa: PLC0415  # after the options
    from sevkit.attest.snp import Trust, judge_report, pinned_roots  # noqa: PLC0415  # costs 40 ms
    from sevkit.cli.render import show_verdict  # noqa: PLC0415  # the same

    source = open_source(
        offline=given["offline"],
        url=given["kds_url"],
        ca_file=given["kds_ca"],
        cache=given["cache"],
    )
    trust = Trust(
        at=at,
        roots=pinned_roots(*roots),
        require_crl=given["require_crl"],
        line=line,
        source=source,
        **files,
    )
    return show_verdict(judge_report(find_report(data), expectations, trust), given["html"])
