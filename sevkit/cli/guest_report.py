"""``sevkit guest report``: inside an SNP guest, a report over the owner's nonce."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sevkit.attest.expectation_words import parse_hex
from sevkit.cli.base import Command, settings
from sevkit.cli.files import check_new, read_file, write_new
from sevkit.cli.messages import plain, say, warn
from sevkit.cli.values import WholeNumber
from sevkit.errors import FormatError, UsageError

if TYPE_CHECKING:
    from sevkit.guest.report import GuestReport

SCHEMA: Final = "sevkit.io/guest-report/v1"
_SIZE: Final = 64
_DIGITS: Final = re.compile(r"[0-9a-fA-F]+")
_MAX_WAIT: Final = 3600


def read_nonce(word: str) -> bytes:
    """Return the 64 bytes that ``word`` is in hex, or that the file of that name has.

    What has nothing but hex digits is hex. A file has the bytes, or their hex digits in ASCII. A
    shorter nonce is not padded: whoever judges the report must expect the very bytes. Raises
    ``UsageError``, ``FormatError`` for a file that has something else, and as ``read_file``.
    """
    if _DIGITS.fullmatch(word):
        nonce = parse_hex(word, "--nonce")
        if len(nonce) != _SIZE:
            raise UsageError(f"--nonce: expected {_SIZE} bytes, got {len(nonce)}", hint=_MAKE)
        return nonce
    data = read_file(word, limit=_SIZE << 4)
    if len(data) == _SIZE:
        return data
    try:
        text = "".join(data.decode("ascii").split())
        nonce = parse_hex(text, word)
    except (UnicodeDecodeError, UsageError):
        nonce = data
    if len(nonce) != _SIZE:
        raise FormatError(word, f"expected {_SIZE} bytes or {2 * _SIZE} hex digits", hint=_MAKE)
    return nonce


_MAKE: Final = f"head -c {_SIZE} /dev/urandom > nonce.bin"


@click.command(cls=Command, short_help="Fetch a report over a nonce.")
@click.option(
    "--nonce",
    metavar="HEX|FILE",
    required=True,
    help="The owner's nonce: 128 hex digits, or a file with 64 bytes or their hex digits.",
)
@click.option("--out", metavar="FILE", required=True, help="Where the report goes; must be new.")
@click.option(
    "--vmpl", type=WholeNumber(0, 3), metavar="N", help="VMPL in the report.  [default: this one]"
)
@click.option(
    "--timeout",
    type=WholeNumber(0, _MAX_WAIT),
    metavar="S",
    default="60",
    show_default=True,
    help="Seconds to wait for a host that throttles requests.",
)
@click.option(
    "--root",
    metavar="DIR",
    default="/",
    show_default=True,
    help="Where the guest's file system begins: a simulated or a captured guest.",
)
def command(nonce: str, out: str, vmpl: int | None, timeout: int, root: str) -> None:
    """Fetch an attestation report over the owner's nonce, inside an SNP guest.

    Asks configfs-tsm, else /dev/sev-guest; both are root's. FILE is what `sevkit attest report`
    reads: the report of 1184 bytes, and behind it the host's certificate table if it gives one.
    Nothing is verified here: the owner does that, with the same nonce.

    \b
    Example:
      sevkit guest report --nonce "$NONCE" --out report.bin
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    check_new(out)
    _check_root(root)
    report_data = read_nonce(nonce)

    from sevkit.guest.fetch import fetch_report  # noqa: PLC0415  # not for --help
    from sevkit.guest.patience import Patience  # noqa: PLC0415  # not for --help
    from sevkit.guest.report import ReportRequest  # noqa: PLC0415  # not for --help

    found = fetch_report(root, ReportRequest(report_data, vmpl), Patience(timeout))
    write_new(out, found.encode())
    _show(found, out, report_data)


def _check_root(root: str) -> None:
    try:
        found = Path(root).is_dir()
    except (OSError, ValueError):
        found = False  # a name that is too long, or none
    if not found:
        raise UsageError(f"--root: {root} is no folder")


def _show(found: GuestReport, out: str, report_data: bytes) -> None:
    from sevkit.abi.certtable import NAMES  # noqa: PLC0415  # not for --help

    if settings().verbose:
        for reason in found.closed:
            say(reason)
    if found.left_out:
        warn(found.left_out)
    names = [NAMES.get(guid, str(guid)) for guid in found.certificates]
    if settings().json:
        from sevkit.cli.render import show_json  # noqa: PLC0415  # not for --help

        show_json(
            {
                "schema": SCHEMA,
                "out": out,
                "source": found.source,
                "vmpl": found.vmpl,
                "report_data": report_data.hex(),
                "certificates": names,
            }
        )
        return
    click.echo(f"report\t{plain(out)}")
    click.echo(f"source\t{found.source}")
    click.echo(f"vmpl\t{found.vmpl}")
    click.echo(f"certificates\t{', '.join(names) or 'none'}")
