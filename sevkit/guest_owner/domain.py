"""Take one libvirt domain of SEV or SEV-ES through attestation: read, judge, inject, resume.

Theory of operation. The domain was started paused, with a session of the owner's in its XML; from
then on the host can only wait. The steps are in an order in which each depends on the one before:

1. the hypervisor must be another machine, and the domain of SEV or SEV-ES and not insecure;
2. its launch measurement is read and judged with the owner's TIK over his own digests;
3. only if the verdict accepts, and ``sevkit.attest.release`` releases the secret, it is packed for
   this very measurement and injected;
4. only after that the domain is resumed.

Whatever goes wrong leaves the domain paused: nothing is injected or resumed twice, taken back or
tried again. The packet opens in the verified launch alone, so a host that exchanges the domain
between two steps gains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, final

from sevkit.attest.release import decide_release, parse_accepted
from sevkit.attest.sev_domain import (
    LOCAL_HYPERVISOR,
    DomainClaim,
    DomainExpectations,
    check_risks,
    judge_domain,
    require_sev,
)
from sevkit.attest.sev_launch import LaunchClaim
from sevkit.attest.sev_session import new_packet
from sevkit.errors import ExpectationError, HypervisorError
from sevkit.hypervisor.domain_xml import parse_domain_xml
from sevkit.hypervisor.protocol import DomainState, WrongState
from sevkit.measure.launch_measurement import parse_launch_measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from datetime import datetime

    from sevkit.abi.session import TransportKeys
    from sevkit.attest.release import Release
    from sevkit.attest.verdict import Verdict
    from sevkit.hypervisor.protocol import Domain, Hypervisor
    from sevkit.measure.reference import Reference
    from sevkit.secret import Secret

#: States in which there is no guest at all, so no measurement of one.
_OFF: Final = frozenset({DomainState.NO_STATE, DomainState.SHUT_OFF, DomainState.CRASHED})


@final
@dataclass(frozen=True, slots=True)
class SecretOffer:
    """What the owner would release: the table, the keys of the session, and the firmware's room.

    ``area`` is (base, size) of the launch secret area in bytes, or None where there is none.
    """

    table: Secret
    keys: TransportKeys
    area: tuple[int, int] | None


@final
@dataclass(frozen=True, slots=True)
class DomainOwner:
    """What the owner of a domain brings along.

    ``references`` are his digests; ``accepted`` the words of the risks that he takes; ``offer`` is
    None where there is no secret to release. ``explain`` as for ``judge_launch``.
    """

    tik: Secret
    references: tuple[Reference, ...]
    expected: DomainExpectations
    accepted: frozenset[str] = frozenset()
    offer: SecretOffer | None = None
    explain: Callable[[Callable[[bytes], bool]], str] | None = field(default=None, repr=False)


def attest_domain(
    hypervisor: Hypervisor,
    name: str,
    owner: DomainOwner,
    *,
    own_names: Collection[str],
    elsewhere: bool,
    at: datetime,
    inject: bool = True,
    resume: bool = True,
) -> Verdict:
    """Return the verdict on a domain, with what was done about it in its evidence.

    ``own_names`` are the names of the machine that this runs on, and ``elsewhere`` says that the
    hypervisor was reached under another machine's name; both have to say that it is not this
    one, as a name alone is the host's own word. Without ``inject`` everything is
    decided as with it and no secret is sent; without ``resume`` the domain stays paused.

    Raises ``InsecureUsage`` and ``ExpectationError`` for a domain that is refused and for a secret
    that is not released, ``HypervisorError`` where the hypervisor fails, ``FormatError`` for
    answers without their shape.
    """
    local = not elsewhere or is_local(hypervisor.hostname(), own_names)
    domain = hypervisor.domain(name)
    claim = DomainClaim(parse_domain_xml(domain.xml()), domain.state(), local=local)
    if claim.definition.name != name:
        shown = claim.definition.name[:80]
        raise ExpectationError(f"for domain {name!r} the hypervisor shows the XML of {shown!r}")
    require_sev(claim.definition)
    risks = check_risks(claim, owner.expected, owner.accepted)
    if claim.state in _OFF:
        raise WrongState(
            f"domain {name!r} is {claim.state}: it has no launch measurement",
            hint="virsh start --paused starts it so that it can be verified",
        )
    verdict, launch = judge_domain(
        claim,
        _read_launch(domain),
        owner.tik,
        owner.references,
        owner.expected,
        accepted=owner.accepted,
        at=at,
        explain=owner.explain,
    )
    if not verdict.accepted:
        return _noting(verdict, risks, injected=False, resumed=False)
    offer = owner.offer
    if offer is not None:
        accepted = parse_accepted(owner.accepted - {LOCAL_HYPERVISOR})
        release = decide_release(verdict, launch, accepted, area=offer.area, table=offer.table)
        risks = tuple(dict.fromkeys((*risks, *map(str, release.risks))))
        if inject:
            _inject(domain, release, offer.keys)
    injected = offer is not None and inject
    if resume:
        _resume(domain, injected=injected)
    return _noting(verdict, risks, injected=injected, resumed=resume)


def is_local(hostname: str, own_names: Iterable[str]) -> bool:
    """Return whether a host's name is one of this machine's.

    Names are compared without case, and without their domains where one of the two has none.
    """
    theirs = hostname.casefold().rstrip(".")
    return any(_same_host(theirs, name.casefold().rstrip(".")) for name in own_names)


def _same_host(one: str, other: str) -> bool:
    if "." in one and "." in other:
        return one == other
    return one.partition(".")[0] == other.partition(".")[0]


def _read_launch(domain: Domain) -> LaunchClaim:
    info = domain.launch_security_info()
    return LaunchClaim(
        parse_launch_measurement(info.measurement),
        info.api_major,
        info.api_minor,
        info.build_id,
        info.policy,
    )


def _inject(domain: Domain, release: Release, keys: TransportKeys) -> None:
    """Pack the secret for the launch that it was released to, and send it once."""
    packet = new_packet(release.launch, keys, release.table)
    try:
        domain.inject_launch_secret(packet.header, packet.ciphertext)
    except HypervisorError as error:
        raise type(error)(
            f"the domain stays paused, and its secret may not be in: {error.message}",
            hint=error.hint,
        ) from error


def _resume(domain: Domain, *, injected: bool) -> None:
    try:
        domain.resume()
    except HypervisorError as error:
        done = "the secret is in, but the domain" if injected else "the domain was accepted, but"
        raise type(error)(f"{done} was not resumed: {error.message}", hint=error.hint) from error


def _noting(verdict: Verdict, risks: tuple[str, ...], *, injected: bool, resumed: bool) -> Verdict:
    """Return the verdict with what was done about it; ``risks`` are those that were needed."""
    done = {"accepted_risks": list(risks), "injected": injected, "resumed": resumed}
    return replace(verdict, evidence={**verdict.evidence, **done})
