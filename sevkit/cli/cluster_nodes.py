"""``sevkit cluster nodes``: which node can run which guests, how many more, and why not."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.cluster_options import cluster_options, connect
from sevkit.cli.files import check_new, write_new
from sevkit.cli.fleet_source import read_fleet
from sevkit.cli.fleet_words import counted
from sevkit.cli.messages import say, warn
from sevkit.errors import ExpectationError, UndecidedError
from sevkit.host.capability import Technology
from sevkit.kubevirt.fleet import availability

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sevkit.cli.fleet_source import Fleet

#: Without a terminal, and without COLUMNS.
_SIZE: Final = (120, 24)


@click.command(cls=Command, short_help="Show which node can run which guests, and why not.")
@cluster_options
@click.option(
    "--selector", metavar="LABELS", default="", help="Only nodes with these labels, as in kubectl."
)
@click.option(
    "--require",
    type=click.Choice([one.value for one in Technology]),
    multiple=True,
    help="Exit 3 if no node can run guests of this kind; may be repeated.",
)
@click.option("--all-pods", is_flag=True, help="Count all pods, not only KubeVirt's launchers.")
@click.option("--names", is_flag=True, help="Show every node's name, however long that gets.")
@click.option("--html", metavar="FILE", help="Write a page for people as well.")
def command(**given: Any) -> int:  # noqa: ANN401  # click hands over options by name
    """Show what the nodes of a cluster can do, in groups of equal nodes, the most useful first.

    For SEV, SEV-ES and SEV-SNP: how many guests are free of how many, or why there are none and
    how to fix it, as each node's agent says in its labels and in one annotation. These are a hint
    for scheduling; trust comes from attestation. Free is what pods do not ask for: it needs the
    right to list pods, and is '?' without it. 'no agent' is a node on which nothing was published.

    Exit code 0: done, and what is required is there; 3: it is not; 4: the cluster could not be
    asked, or nodes that might have it do not say.

    \b
    Examples:
      sevkit cluster nodes
      sevkit cluster nodes --selector '!node-role.kubernetes.io/control-plane'
      sevkit cluster nodes --require sev-snp && kubectl create -f vm.yaml
      sevkit cluster nodes --html fleet.html
      sevkit cluster nodes --output json | jq '.groups[] | [.count, .product, .tiers["sev-snp"]]'
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    if given["html"] is not None:
        check_new(given["html"])
    required = tuple(dict.fromkeys(map(Technology, given["require"])))
    with connect(given) as server:
        fleet = read_fleet(server, selector=given["selector"], all_pods=given["all_pods"])
    code = _code(fleet, required)
    if given["html"] is not None:
        from sevkit.cli.fleet_page import render_fleet_page  # noqa: PLC0415  # only with --html

        page = render_fleet_page(fleet, required, at=datetime.now(UTC))
        write_new(given["html"], page.encode())
    _show(fleet, required, code, all_names=given["names"])
    return code


def _code(fleet: Fleet, required: Sequence[Technology]) -> int:
    """Return the exit code: a certain no goes before what could not be found out."""
    answers = {availability(fleet.nodes, one) for one in required}
    if False in answers:
        return ExpectationError.exit_code
    return UndecidedError.exit_code if None in answers else 0


def _show(fleet: Fleet, required: Sequence[Technology], code: int, *, all_names: bool) -> None:
    if fleet.refusal:
        warn(f"pods may not be listed, so that free guests are not known: {fleet.refusal}")
    if code == UndecidedError.exit_code:
        silent = sum(
            any(availability([node], one) is None for one in required) for node in fleet.nodes
        )
        say(
            f"{counted(silent)} might have what is required and do not say",
            hint="--selector leaves out nodes that are not meant to",
        )
    if settings().json:
        from sevkit.cli.fleet_document import fleet_document  # noqa: PLC0415  # only for JSON
        from sevkit.cli.render import show_json  # noqa: PLC0415  # as above

        show_json(fleet_document(fleet, required, code))
        return
    from sevkit.cli.fleet_text import render_fleet  # noqa: PLC0415  # only for text

    width = shutil.get_terminal_size(_SIZE).columns
    lines = render_fleet(
        fleet, required, width=width, all_names=all_names, colour=sys.stdout.isatty()
    )
    for line in lines:
        click.echo(line)
