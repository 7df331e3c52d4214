"""``sevkit node probe``: everything about a host that is about SEV, and where it was read."""

from __future__ import annotations

from typing import Any

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.messages import plain
from sevkit.cli.node_options import host_options, probe
from sevkit.cli.render import show_json
from sevkit.host.facts_document import fact_lines, facts_document


@click.command(cls=Command, short_help="Show what a host says about SEV, source by source.")
@host_options
def command(**given: Any) -> int:  # noqa: ANN401  # click hands over options by name
    """Show every fact about SEV of this host, each with its value or why there is none.

    Nothing is concluded: `sevkit node doctor` does that. Works without root; /dev/kvm and /dev/sev
    add detail where they can be opened, and are only asked for their status.

    \b
    Examples:
      sevkit node probe
      sevkit node probe --host-root host --output json
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    document = facts_document(probe(given))
    if settings().json:
        show_json(document)
        return 0
    lines = [("product", document["product"] or "not an EPYC that is known")]
    lines += fact_lines(document)
    width = max(len(name) for name, _ in lines)
    for name, words in lines:
        click.echo(f"{name:<{width}}  {plain(words)}")
    return 0
