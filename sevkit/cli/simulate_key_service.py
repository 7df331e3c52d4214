"""``sevkit simulate key-service``: AMD's key service for simulated chips, for rehearsal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.abi.product import Product
from sevkit.cli.base import Command, settings
from sevkit.cli.render import show_json
from sevkit.cli.serving import ListenAddress, until_terminated, wait
from sevkit.cli.simulated_state import PRODUCTS, open_state, replace_file
from sevkit.cli.values import WholeNumber
from sevkit.errors import UsageError
from sevkit.testing.key_service import SimulatedKeyService, processor_provider
from sevkit.testing.key_service_faults import (
    not_found,
    silence,
    status,
    too_many_requests,
    web_page,
)
from sevkit.testing.key_service_rate import RateLimit
from sevkit.testing.rehearsal import launch_guest
from sevkit.testing.secure_processor.processor import SecureProcessor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.testing.key_service_faults import Fault
    from sevkit.testing.secure_processor.identity import ChipIdentity

SCHEMA: Final = "sevkit.io/simulate-key-service/v1"
_NAMES: Final = [name for name, product in PRODUCTS.items() if product.line.snp]
_FAULTS: Final[Mapping[str, Callable[[], Fault]]] = {
    "not-found": not_found,
    "too-many-requests": too_many_requests,
    "unavailable": lambda: status(503),
    "web-page": web_page,
    "silence": silence,
}


@click.command(cls=Command, short_help="Serve simulated chips' certificates.")
@click.option("--state", metavar="DIR", required=True, help="Where keys and chips are kept.")
@click.option(
    "--product",
    type=click.Choice(_NAMES),
    multiple=True,
    help="Make a chip of this product, if the state has none yet.  [default: milan]",
)
@click.option(
    "--listen",
    type=ListenAddress(),
    default="127.0.0.1:0",
    show_default=True,
    help="Where to listen; port 0 takes a free one.",
)
@click.option("--report-data", metavar="HEX", help="Write a report of each chip over this nonce.")
@click.option(
    "--seconds-between",
    type=WholeNumber(1, 3600),
    help="Answer an address once in so many seconds, and else 429, as AMD does.",
)
@click.option(
    "--fault",
    type=click.Choice(list(_FAULTS)),
    help="Answer everything with this, to see what a verifier makes of it.",
)
def command(**given: Any) -> int:  # noqa: ANN401  # click hands over options by name
    """Serve VCEKs, chains, revocation lists and CEKs of simulated chips under AMD's addresses.

    The keys are simulated AMD's own, made once and kept in --state (mode 0700): no verifier
    accepts them unless it is given the root by name. With --report-data a guest is launched on
    each chip, and its attestation report is left beside the keys.

    \b
    Example, with the nonce in $NONCE (64 bytes in hex):
      sevkit simulate key-service --state sim --report-data "$NONCE" &
      sevkit attest report sim/milan-1.report --kds-url URL --kds-ca sim/ca.pem \\
        --root sim/milan-ark.pem --report-data "$NONCE" --measurement DIGEST

    URL and DIGEST are in its answer. It serves until it is interrupted (130) or gets SIGTERM (0).
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    nonce = _nonce(given["report_data"])
    state = Path(given["state"])
    processors = [SecureProcessor(chip) for chip in _open_chips(state, given["product"])]
    if not processors:
        raise UsageError("the state has no chip with SNP", hint="name another --state")
    seconds = given["seconds_between"]
    host, port = given["listen"]
    with until_terminated() as ended:
        service = SimulatedKeyService(
            processor_provider(*processors),
            host=host,
            port=port,
            rate_limit=RateLimit(1, seconds) if seconds else None,
        )
        if given["fault"] is not None:
            service.fail(_FAULTS[given["fault"]]())
        with service:
            replace_file(state / "ca.pem", service.ca)
            rows = [
                _describe(state, number, processor, nonce)
                for number, processor in enumerate(processors, 1)
            ]
            _show(service.base_url, state, rows)
            wait(ended)
    return 0


def _nonce(text: str | None) -> bytes | None:
    try:
        nonce = None if text is None else bytes.fromhex(text)
    except ValueError:
        nonce = b""
    if nonce is not None and len(nonce) != 64:
        raise UsageError("--report-data takes 64 bytes in hex")
    return nonce


def _open_chips(folder: Path, names: tuple[str, ...]) -> list[ChipIdentity]:
    """Return the chips in ``folder``, with one of each product that is asked for."""
    with open_state(folder) as amd:
        have = {chip.product for chip in amd.chips}
        wanted = [PRODUCTS[name] for name in names]
        for product in dict.fromkeys(wanted if names or have else [Product.MILAN]):
            if product not in have:
                amd.make_chip(product)
        return [chip for chip in amd.chips if chip.line.snp]


def _describe(
    state: Path, number: int, processor: SecureProcessor, nonce: bytes | None
) -> dict[str, Any]:
    chip = processor.identity
    row: dict[str, Any] = {
        "product": str(chip.product),
        "chip_id": chip.hardware_id.hex(),
        "tcb": processor.snp.reported_tcb.components,
        "root": str(state / f"{chip.line.casefold()}-ark.pem"),
    }
    if nonce is not None:
        report, digest = launch_guest(processor, nonce)
        path = state / f"{chip.product.casefold().replace(' ', '-')}-{number}.report"
        replace_file(path, report)
        row |= {"report": str(path), "measurement": digest.hex()}
    return row


def _show(url: str, state: Path, rows: list[dict[str, Any]]) -> None:
    ca = str(state / "ca.pem")
    if settings().json:
        show_json({"schema": SCHEMA, "url": url, "ca": ca, "chips": rows})
        return
    click.echo(f"url\t{url}\nca\t{ca}")
    for row in rows:
        tcb = ",".join(f"{name}={value}" for name, value in row["tcb"].items())
        click.echo(f"chip\t{row['product']}\t{row['chip_id']}\t{tcb}\troot {row['root']}")
        if "report" in row:
            click.echo(f"report\t{row['report']}\t{row['measurement']}")
