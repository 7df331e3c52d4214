"""``sevkit node doctor``: whether a host can run confidential guests, and what to fix if not."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.messages import plain
from sevkit.cli.node_options import host_options, probe
from sevkit.cli.readiness import MARKS, headline, is_ready
from sevkit.cli.render import show_json
from sevkit.errors import ExpectationError, UndecidedError
from sevkit.host.capabilities import decide
from sevkit.host.capability import State, Technology
from sevkit.host.doctor.catalogue import CATALOGUE
from sevkit.host.doctor.check import Memlock, Result, examine, readiness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.host.capability import Asids, Capabilities

SCHEMA: Final = "sevkit.io/node-doctor/v1"


@click.command(cls=Command, short_help="Judge whether a host can run confidential guests.")
@click.option(
    "--require",
    type=click.Choice([one.value for one in Technology]),
    multiple=True,
    help="Ready only with this one, may be repeated.  [default: any]",
)
@click.option(
    "--allow-sev-es-beside-snp",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Give SEV-ES N ASIDs beside SEV-SNP, accepting CVE-2025-48514 of older firmware.",
)
@host_options
def command(**given: Any) -> int:  # noqa: ANN401  # click hands over options by name
    """Judge this host: every check with its verdict and fix, and what it can run.

    The checks of `sevctl ok` and `snphost ok` are among them; none needs root or the msr module.
    Exit code 0: ready; 3: not ready; 4: could not find out. All three are of what is required.

    \b
    Examples:
      sevkit node doctor
      sevkit node doctor --require sev-snp --output json
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    facts = probe(given)
    found = decide(facts, allow_sev_es_beside_snp=given["allow_sev_es_beside_snp"])
    memlock = None if facts.simulated else Memlock(*resource.getrlimit(resource.RLIMIT_MEMLOCK))
    results = examine(facts, found, CATALOGUE, memlock=memlock)
    required = tuple(Technology(word) for word in given["require"])
    code = _code(readiness(found, required))
    if settings().json:
        show_json(_document(found, results, required, code))
    else:
        for line in _lines(found, results, code):
            click.echo(plain(line))
    return code


def _code(state: State) -> int:
    if state is State.USABLE:
        return 0
    return UndecidedError.exit_code if state is State.UNKNOWN else ExpectationError.exit_code


def _document(
    found: Capabilities, results: tuple[Result, ...], required: tuple[Technology, ...], code: int
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "ready": is_ready(code),
        "exit_code": code,
        "required": [one.value for one in required],
        "simulated": found.simulated,
        "product": found.product,
        "firmware_version": None if found.firmware_version is None else str(found.firmware_version),
        "current_tcb": None if found.current_tcb is None else found.current_tcb.components,
        "reported_tcb": None if found.reported_tcb is None else found.reported_tcb.components,
        "c_bit": found.c_bit,
        "reduced_phys_bits": found.reduced_phys_bits,
        "capabilities": {one.value: _capability(found, one) for one in Technology},
        "encrypted_state_asids": _asids(found.encrypted_state),
        "checks": [_check(one) for one in results],
    }


def _capability(found: Capabilities, technology: Technology) -> dict[str, Any]:
    one = found.of(technology)
    return {
        "state": one.state,
        "reason": one.reason,
        "explanation": one.explanation,
        "hint": one.hint,
        "guests": one.guests,
        "asids": _asids(found.asids_of(technology)),
    }


def _asids(asids: Asids) -> dict[str, int | None]:
    return {"total": asids.total, "in_use": asids.in_use}


def _check(one: Result) -> dict[str, Any]:
    return {
        "check": one.check.name,
        "summary": one.check.summary,
        "needed_by": sorted(one.check.needs),
        "verdict": one.verdict,
        "value": one.value,
        "detail": one.detail,
        "fix": one.fix,
        "snphost": one.check.snphost,
        "sevctl": one.check.sevctl,
    }


def _lines(found: Capabilities, results: tuple[Result, ...], code: int) -> Iterator[str]:
    width = max(len(one.check.name) for one in results)
    for one in results:
        words = "; ".join(word for word in (one.value, one.detail) if word)
        yield f"{MARKS[one.verdict]}  {one.check.name:<{width}}  {words}".rstrip()
        if one.fix:
            yield f"      {'':<{width}}  fix: {one.fix}"
    yield ""
    for technology in Technology:
        capability = found.of(technology)
        guests = f", {capability.guests} guests" if capability.guests else ""
        yield f"{technology.spelling}: {capability.state}{guests} ({capability.reason})"
        if capability.state is not State.USABLE:
            yield f"  {capability.explanation}"
            if capability.hint:
                yield f"  fix: {capability.hint}"
    yield ""
    yield headline(code)
