"""``sevkit attest platform``: is this a genuine SEV platform."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from sevkit.attest.sev_platform import judge_platform
from sevkit.cli.base import Command
from sevkit.cli.messages import warn
from sevkit.cli.render import show_verdict
from sevkit.cli.sev_options import (
    check_platform_options,
    platform_expectations,
    platform_options,
    read_platform,
)


@click.command(cls=Command, short_help="Verify a SEV platform chain.")
@platform_options
@click.option("--html", metavar="FILE", help="Also write the verdict as a page for people.")
def command(html: str | None, **given: Any) -> int:  # noqa: ANN401  # the options of platform_options
    """Verify a SEV platform's certificate chain, from AMD's root key to its Diffie-Hellman key.

    The ARK must be one of AMD's pinned roots. Without --ca the ASK and ARK that belong to the
    chip are found among the bundled ones.

    A chain that comes from KubeVirt, libvirt or QEMU has the CEK as the firmware exports it,
    without AMD's signature: the answer is then undecided (exit 4) until --cek gives the signed
    one from AMD's key service. sevctl's export has it already.

    \b
    Example:
      sevkit attest platform --chain sev.chain --chip 98a5…
      sevkit attest platform --chain platforminfo.json --cek cek.cert
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    check_platform_options(given)
    chain, ca, roots = read_platform(given)
    verdict, _ = judge_platform(
        chain, platform_expectations(given), at=datetime.now(UTC), ca=ca, roots=roots
    )
    if "hint" in verdict.evidence:
        warn(str(verdict.evidence["hint"]))
    return show_verdict(verdict, html)
