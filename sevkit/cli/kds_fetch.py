"""``sevkit kds fetch``: fill the certificate cache, here or for a site without a network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.abi.policy import SigningKey
from sevkit.abi.product import ProductLine, parse_product_line
from sevkit.abi.report import parse_report
from sevkit.abi.tcb import TcbVersion, parse_tcb_words
from sevkit.attest.container import find_report
from sevkit.cli.base import Command, settings
from sevkit.cli.files import read_file, refuse_shared_stdin
from sevkit.cli.key_service import key_service_options, open_cache, open_key_service
from sevkit.cli.messages import plain, say
from sevkit.cli.render import show_json
from sevkit.errors import FormatError, HostReadError, KeyServiceError, SevkitError, UsageError
from sevkit.kds import urls
from sevkit.kds.source import CertificateSource, Sourced

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sevkit.abi.report import Report
    from sevkit.kds.cache import CertificateCache
    from sevkit.kds.urls import Resource

SCHEMA: Final = "sevkit.io/kds-fetch/v1"
_REPORT_LIMIT: Final = 5 << 20


@click.command(cls=Command, short_help="Fetch VCEKs, chains and CRLs into the cache.")
@click.option("--product", metavar="NAME", help="Milan, Genoa, Bergamo, Siena or Turin.")
@click.option("--chip", metavar="HEX", help="Chip ID: 64 bytes, or 8 for Turin.")
@click.option("--tcb", metavar="LIST", help="bootloader=N,tee=N,snp=N,microcode=N[,fmc=N].")
@click.option("--report", metavar="FILE", multiple=True, help="What this report needs.")
@click.option("--crl", is_flag=True, help="The line's revocation list too.")
@click.option("--with-chain", is_flag=True, help="ASK and ARK too; AMD's own are bundled.")
@click.option("--vlek", is_flag=True, help="With --product: list and chain of VLEKs, not VCEKs.")
@click.option("--dest", metavar="DIR", help="Folder to fill.  [default: the user's cache]")
@key_service_options
def command(**given: Any) -> int:  # noqa: ANN401  # click hands over options by name
    """Fetch VCEKs, chains and revocation lists of AMD's key service into the certificate cache.

    The chip and its TCB version are taken from attestation reports, or given as --product, --chip
    and --tcb (the report's reported TCB). What the folder already has is not fetched again, so
    one command line can be repeated until the key service has given everything.

    \b
    Example, for a site without a network:
      sevkit kds fetch --report report.bin --crl --dest usb/kds
      sevkit attest report report.bin --offline --cache usb/kds --require-crl ...

    Nothing is verified here: that is for 'sevkit attest'. Exit code 0 all there, 4 not all.
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    refuse_shared_stdin(*given["report"], given["kds_ca"])
    wanted = list(_from_options(given))
    fetcher = open_key_service(given["kds_url"], given["kds_ca"])
    cache = open_cache(given["dest"])
    if cache is None:
        raise UsageError("there is no cache to fill", hint="name a folder with --dest")
    reports = [(path, *_read_report(path, given["product"])) for path in given["report"]]
    failures: list[tuple[str, str]] = []

    def fail(what: str, error: SevkitError) -> None:
        failures.append((what, error.message))
        say(f"{what}: {error.message}", error.hint)

    for path, report, report_line in reports:
        try:
            wanted += _of_report(given, report, report_line)
        except KeyServiceError as error:
            fail(path, error)
    source = CertificateSource(cache, fetcher, notify=say)
    fetched: list[Sourced] = []
    for resource in dict.fromkeys(wanted):
        try:
            fetched.append(_fetch(source, cache, resource))
        except (KeyServiceError, HostReadError) as error:
            fail(str(resource), error)
    if settings().json:
        show_json(_document(cache, fetched, failures))
    else:
        for line in _text(cache, fetched):
            click.echo(line)
    return KeyServiceError.exit_code if failures else 0


def _fetch(source: CertificateSource, cache: CertificateCache, resource: Resource) -> Sourced:
    """Return ``resource``, which is then in the cache, or raise."""
    sourced = source.get(resource)
    if cache.load(resource).entry is None:
        raise HostReadError(
            f"{cache.root}: was fetched, but could not be kept", hint="name a folder with --dest"
        )
    return sourced


def _from_options(given: Mapping[str, Any]) -> Iterator[Resource]:
    """Yield what --product and its companions ask for; whatever is wrong with them is usage."""
    if not given["report"] and given["product"] is None:
        raise UsageError("what should be fetched?", hint="--report FILE, or --product with --chip")
    if (given["chip"] is None) != (given["tcb"] is None):
        raise UsageError("--chip and --tcb belong together")
    if given["vlek"] and given["report"]:
        raise UsageError("--vlek goes with --product; a report says itself which it needs")
    try:
        line = None if given["product"] is None else parse_product_line(given["product"])
        if given["chip"] is not None:
            if line is None or given["vlek"]:
                raise UsageError("--chip and --tcb need --product, and are not for VLEKs")
            tcb = _tcb(given["tcb"])
            yield urls.vcek(line, _hwid(line, given["chip"]), tcb)
        if line is not None and not given["report"]:
            if given["chip"] is None and not (given["crl"] or given["with_chain"]):
                raise UsageError(
                    "what of this product?", hint="--chip with --tcb, --crl or --with-chain"
                )
            yield from _of_line(given, line, vlek=given["vlek"])
    except FormatError as error:
        raise UsageError(error.message, hint=error.hint) from error


def _hwid(line: ProductLine, text: str) -> bytes:
    if not re.fullmatch(r"(?:[0-9a-fA-F]{2})+", text):
        raise UsageError("--chip must be hex digits, two for each byte")
    chip = bytes.fromhex(text)
    # A report's chip ID has 64 bytes for every product, Turin's hardware ID 8 of them.
    return urls.hwid_from_chip_id(line, chip) if len(chip) == urls.CHIP_ID_SIZE else chip


def _tcb(text: str) -> TcbVersion:
    words = parse_tcb_words(text)
    missing = {"bootloader", "tee", "snp", "microcode"} - words.keys()
    if missing:
        raise UsageError(
            f"--tcb lacks {', '.join(sorted(missing))}",
            hint="a VCEK belongs to a whole TCB version",
        )
    return TcbVersion(**words)


def _of_line(given: Mapping[str, Any], line: ProductLine, *, vlek: bool) -> Iterator[Resource]:
    if given["with_chain"]:
        yield urls.chain(line, vlek=vlek)
    if given["crl"]:
        yield urls.crl(line, vlek=vlek)


def _read_report(path: str, product: str | None) -> tuple[Report, ProductLine]:
    """Return a report and its line. Nothing in it is authentic: it only names certificates."""
    report = parse_report(find_report(read_file(path, limit=_REPORT_LIMIT)).report)
    named = None if product is None else parse_product_line(product)
    line = report.product_line or named
    if line is None:
        raise UsageError(f"{path}: a version 2 report names no product", hint="--product NAME")
    if named is not None and line is not named:
        raise UsageError(f"{path}: is of a {line} chip, not of --product {named}")
    return report, line


def _of_report(given: Mapping[str, Any], report: Report, line: ProductLine) -> list[Resource]:
    vlek = report.key_info.signing_key is SigningKey.VLEK
    found = list(_of_line(given, line, vlek=vlek))
    if vlek:
        if not found:
            raise KeyServiceError(
                "signed by a VLEK, which the cloud provider hands out, not the key service",
                hint="the guest has it in its certificate table; pass it with --vek",
            )
        return found
    if report.chip_id_masked:
        raise KeyServiceError(
            "chip ID is masked, so its VCEK cannot be asked for",
            hint="have the VCEK from the host, or unmask chip IDs there (MASK_CHIP_ID)",
        )
    hwid = urls.hwid_from_chip_id(line, report.chip_id)
    return [urls.vcek(line, hwid, report.tcb("reported", line)), *found]


def _document(
    cache: CertificateCache, fetched: list[Sourced], failures: list[tuple[str, str]]
) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "cache": str(cache.root),
        "items": [
            {
                "kind": one.resource.kind.value,
                "product": one.resource.line,
                "chip_id": one.resource.hwid.hex() or None,
                "tcb": None if one.resource.tcb is None else one.resource.tcb.components,
                "path": str(cache.path(one.resource)),
                "sha256": one.sha256,
                "url": one.url,
                "cached": one.cached,
            }
            for one in fetched
        ],
        "failures": [{"what": what, "message": message} for what, message in failures],
        "exit_code": KeyServiceError.exit_code if failures else 0,
    }


def _text(cache: CertificateCache, fetched: list[Sourced]) -> Iterator[str]:
    for one in fetched:
        yield plain(str(one.resource))
        yield f"  sha256  {one.sha256}"
        yield plain(f"  origin  {one.origin}")
        yield plain(f"  file    {cache.path(one.resource)}")
