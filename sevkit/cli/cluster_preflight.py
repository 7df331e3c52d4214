"""``sevkit cluster preflight``: is a cluster ready for confidential VMs, and what to fix."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.cluster_options import cluster_options, connect
from sevkit.cli.fleet_words import ascii_only
from sevkit.cli.preflight_survey import take_survey
from sevkit.cli.readiness import MARKS, headline, is_ready
from sevkit.cli.render import show_json
from sevkit.errors import UsageError
from sevkit.host.capability import Technology
from sevkit.kubevirt.preflight.catalogue import CATALOGUE, GROUPS
from sevkit.kubevirt.preflight.check import examine, exit_code
from sevkit.kubevirt.preflight.survey import Names
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.kubevirt.preflight.check import Result

SCHEMA: Final = "sevkit.io/cluster-preflight/v1"
_TIERS: Final = dict(zip(Technology, Tier, strict=True))
#: Names that are shown for a check, without --names.
_SHOWN: Final = 5
#: RFC 1123 subdomain, as the API server wants names.
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def _check_name(_: click.Context, __: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise UsageError(f"{value[:80]!r} is no name of an object")
    return value


@click.command(cls=Command, short_help="Judge whether a cluster is ready for confidential VMs.")
@cluster_options
@click.option(
    "--require",
    type=click.Choice([one.value for one in Technology]),
    multiple=True,
    help="Ready only with this one, may be repeated.  [default: any]",
)
@click.option(
    "--only",
    type=click.Choice(GROUPS),
    multiple=True,
    help="Make the checks of this part only, may be repeated.  [default: all]",
)
@click.option(
    "--namespace",
    metavar="NAME",
    default=Names().namespace,
    callback=_check_name,
    help="Where the webhook runs.  [default: sevkit-system]",
)
@click.option(
    "--webhook",
    metavar="NAME",
    default=Names().webhook,
    callback=_check_name,
    help="How it is called: its configurations and its Service.  [default: sevkit-webhook]",
)
@click.option("--names", is_flag=True, help="Show all names of what a check is about.")
def command(**given: Any) -> int:  # noqa: ANN401  # click hands over options by name
    """Judge a cluster: every check with its verdict and fix. Nothing is changed.

    Versions, KubeVirt and its feature gates, the webhook, its order and certificate, the policies
    below it, what nodes say that they can run, and VMIs that run with less than is asked for. What
    may not be asked is skipped, and names the right that is missing. Labels of nodes are their own
    words: a hint for placing; trust comes from attestation.

    Exit code 0: ready; 3: not ready; 4: could not find out, because a check was skipped.

    \b
    Examples:
      sevkit cluster preflight
      sevkit cluster preflight --require sev-snp
      sevkit cluster preflight --only tenants --names
      sevkit cluster preflight --output json | jq '.checks[] | select(.verdict == "fail")'
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    groups = tuple(group for group in GROUPS if group in (given["only"] or GROUPS))
    required = tuple(one for one in Technology if one.value in given["require"])
    names = Names(given["webhook"], given["namespace"])
    tiers = frozenset(_TIERS[one] for one in required)
    with connect(given) as server:
        survey = take_survey(server, groups, names, tiers, datetime.now(UTC))
    results = examine(survey, CATALOGUE, groups)
    code = exit_code(results)
    if settings().json:
        show_json(_document(results, groups, required, code))
    else:
        for line in _lines(results, code, all_names=given["names"]):
            click.echo(ascii_only(line))
    return code


def _document(
    results: tuple[Result, ...],
    groups: tuple[str, ...],
    required: tuple[Technology, ...],
    code: int,
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "ready": is_ready(code),
        "exit_code": code,
        "required": [one.value for one in required],
        "groups": list(groups),
        "checks": [_check(one) for one in results],
    }


def _check(one: Result) -> dict[str, Any]:
    return {
        "check": one.check.name,
        "summary": one.check.summary,
        "verdict": one.verdict,
        "value": one.value,
        "detail": one.detail,
        "fix": one.fix,
        "missing_right": one.right,
        "objects": list(one.objects),
        "source": one.check.source,
    }


def _lines(results: tuple[Result, ...], code: int, *, all_names: bool) -> Iterator[str]:
    width = max(len(one.check.name) for one in results)
    for one in results:
        right = f"needs the right to {one.right}" if one.right else ""
        words = "; ".join(word for word in (one.value, one.detail, right) if word)
        yield f"{MARKS[one.verdict]}  {one.check.name:<{width}}  {words}".rstrip()
        shown = one.objects if all_names else one.objects[:_SHOWN]
        for name in shown:
            yield f"      {'':<{width}}    {name}"
        if len(shown) < len(one.objects):
            yield f"      {'':<{width}}    and {len(one.objects) - len(shown)} more: --names"
        if one.fix and not one.right:
            yield f"      {'':<{width}}  fix: {one.fix}"
    yield ""
    yield headline(code)
