"""``sevkit inject``: the webhook's mutation, offline, for manifests in a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from sevkit.cli.base import Command, settings
from sevkit.cli.file_exchange import Exchange, exchange_files
from sevkit.cli.files import read_file, refuse_shared_stdin
from sevkit.cli.inject_answer import CHANGED, Answer, answer, exit_code, to_json
from sevkit.cli.inject_options import KubeVirtVersion, Tiers
from sevkit.cli.messages import say, warn
from sevkit.cli.render import show_json
from sevkit.documents import DOCUMENT_LIMIT
from sevkit.errors import UsageError
from sevkit.kubevirt.injection import Settings
from sevkit.kubevirt.installation import UNKNOWN, Installation
from sevkit.kubevirt.launch_security import REQUIRED, Around
from sevkit.kubevirt.policy import DEFAULT, parse_policy
from sevkit.kubevirt.tiers import BEST, VALUES, Tier

if TYPE_CHECKING:
    from sevkit.kubevirt.launch_security import Requirement

_ONE: Final = "--check, --in-place or --output json take several"


@click.command(cls=Command, short_help="Make the VMs of manifests confidential.")
@click.option(
    "--filename",
    "-f",
    "files",
    multiple=True,
    required=True,
    metavar="FILE",
    help="Manifests, YAML or JSON; - is standard input. May be repeated.",
)
@click.option(
    "--confidential",
    type=click.Choice(VALUES),
    help="As if the namespace had this label.  [default: each object's own label]",
)
@click.option("--policy", metavar="FILE", help="The webhook's policy file.")
@click.option(
    "--attestation",
    type=click.Choice([REQUIRED]),
    help="SEV and SEV-ES start paused and wait for their guest owner.",
)
@click.option("--tiers", type=Tiers(), help="What best may choose from: snp,sev-es,sev.")
@click.option(
    "--kubevirt-version",
    "installation",
    type=KubeVirtVersion(),
    help="The cluster's KubeVirt, for fields that not every version takes.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Change nothing; exit 3 if something would change or be refused.",
)
@click.option(
    "--in-place", is_flag=True, help="Write the changed files anew; none if one is refused."
)
def command(
    *,
    files: tuple[str, ...],
    confidential: str | None,
    policy: str | None,
    attestation: str | None,
    tiers: frozenset[Tier] | None,
    installation: Installation | None,
    check: bool,
    in_place: bool,
) -> int:
    """Write into manifests what the webhook would write into their VMIs.

    VMs, VMIs, replica sets and pools are changed where they hold the VMI's template, also as items
    of a list. Text is only put in or cut out: comments, order and style stay, and every other
    object stays byte for byte as it is. The answer is the whole stream, read back before it is
    given. If anything is refused, every reason is said, and nothing is answered or written.

    Use --confidential for what the namespace's label will say. Without it, only templates that
    carry the label sevkit.io/confidential themselves are changed.

    \b
    Examples:
      sevkit inject -f vm.yaml --confidential snp > vm-confidential.yaml
      kustomize build . | sevkit inject -f - --confidential snp | kubectl apply -f -
      sevkit inject --check -f vm.yaml -f pool.yaml --confidential snp
      sevkit inject --in-place -f vm.yaml --confidential best --tiers snp,sev-es

    Exit code 0: done; 3: refused, or with --check something would change.
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    _check_options(files, policy, check=check, in_place=in_place)
    asked = Settings(
        _requirement(confidential),
        DEFAULT if policy is None else parse_policy(read_file(policy)),
        Around(UNKNOWN if installation is None else installation, tiers),
        attestation=attestation is not None,
    )
    answers = [answer(path, read_file(path, limit=DOCUMENT_LIMIT), asked) for path in files]
    code = exit_code(answers, check=check)
    if in_place and not code:
        exchange_files(
            Exchange(one.path, one.before, one.data) for one in answers if one.outcome == CHANGED
        )
    _show(answers, check=check, in_place=in_place)
    return code


def _check_options(
    files: tuple[str, ...], policy: str | None, *, check: bool, in_place: bool
) -> None:
    refuse_shared_stdin(*files, policy)
    if check and in_place:
        raise UsageError("--check changes nothing, and --in-place does: give one of them")
    if in_place and "-" in files:
        raise UsageError("standard input has no place", hint="name a file, or leave out --in-place")
    if len(files) > 1 and not (check or in_place or settings().json):
        raise UsageError(f"{len(files)} files do not make one stream", hint=_ONE)
    if len(set(files)) < len(files):
        raise UsageError("a file is given twice")


def _requirement(value: str | None) -> Requirement | None:
    if value is None:
        return None
    return BEST if value == BEST else Tier(value)


def _show(answers: list[Answer], *, check: bool, in_place: bool) -> None:
    for one in answers:
        for line in one.warnings():
            warn(line)
        for line in one.refusals():
            say(line)
    if settings().json:
        show_json(to_json(answers, check=check))
    elif check:
        for one in answers:
            for line in one.changes():
                say(line)
    elif not in_place and not exit_code(answers, check=False):
        click.echo(b"".join(one.data for one in answers), nl=False)
