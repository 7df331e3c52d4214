"""The nodes: who says that it can run what, where both who place guests agree, and how many.

Nodes' labels are their own words. Placing goes by them, and so does this; trust does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.errors import FormatError, UsageError
from sevkit.host.doctor.check import Verdict
from sevkit.kubevirt.claims import DEVICE, SCHEDULABLE
from sevkit.kubevirt.policy import DEFAULT, Policy
from sevkit.kubevirt.preflight.check import Check, Found
from sevkit.kubevirt.preflight.survey import NotAskedError, Unasked, known
from sevkit.kubevirt.preflight.webhook import choices_of
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sevkit.kubevirt.claims import NodeClaims
    from sevkit.kubevirt.preflight.survey import Survey


def _under_policy(look: Callable[[Survey, Policy], Found]) -> Callable[[Survey], Found]:
    """Return a check that goes by the webhook's policy, and by the default where that is unknown.

    A no that another policy would make none, or the other way about, is then no answer.
    """

    def judge(survey: Survey) -> Found:
        try:
            return look(survey, choices_of(survey))
        except NotAskedError as error:
            why = error.unasked
        except (FormatError, UsageError):
            why = Unasked("the webhook's policy file is ill-formed")
        found = look(survey, DEFAULT)
        is_no = found.verdict is Verdict.FAIL
        others = (look(survey, policy).verdict for policy in _POLICIES)
        if any((one is Verdict.FAIL) != is_no for one in others):
            raise NotAskedError(why)
        return found

    return judge


#: Every policy that says something else of nodes.
_POLICIES: Final = tuple(
    Policy(capacity_resource=capacity, simulated_nodes=simulated)
    for capacity in (True, False)
    for simulated in (True, False)
)


def runnable_tiers(survey: Survey) -> frozenset[Tier]:
    """Return the tiers that some node can run, by the default policy where that is unknown."""
    try:
        policy = choices_of(survey)
    except (FormatError, UsageError, NotAskedError):
        policy = DEFAULT
    return _tiers(_counted(survey, policy))


def _tiers(nodes: Iterable[NodeClaims]) -> frozenset[Tier]:
    return frozenset[Tier]().union(*(node.runnable for node in nodes))


def _counted(survey: Survey, policy: Policy) -> tuple[NodeClaims, ...]:
    """Return the nodes that count for the webhook: all, or without those that are simulated."""
    nodes = known(survey.nodes)
    return nodes if policy.simulated_nodes else tuple(one for one in nodes if not one.simulated)


def _names(nodes: Iterable[NodeClaims]) -> tuple[str, ...]:
    return tuple(sorted(node.name for node in nodes))


def _of(some: int, all_of_them: int) -> str:
    return f"{some} of {all_of_them}"


def _agent(survey: Survey) -> Found:
    nodes = known(survey.nodes)
    silent = _names(node for node in nodes if not node.has_agent)
    value = _of(len(nodes) - len(silent), len(nodes))
    if len(silent) == len(nodes):
        return Found(Verdict.FAIL, value, "no node has published anything of ours")
    return Found(Verdict.PASS, value)


def _handler(survey: Survey) -> Found:
    nodes = known(survey.nodes)
    able = sum(node.schedulable for node in nodes)
    verdict = Verdict.PASS if able else Verdict.FAIL
    detail = "" if able else f"no node has {SCHEDULABLE}=true"
    return Found(verdict, _of(able, len(nodes)), detail)


def _any(survey: Survey, policy: Policy) -> Found:
    tiers = _tiers(_counted(survey, policy))
    if not tiers:
        return Found(Verdict.FAIL, "none", "no node can run a confidential guest")
    return Found(Verdict.PASS, ", ".join(tier.spelling for tier in Tier if tier in tiers))


def _tier(tier: Tier) -> Callable[[Survey], Found]:
    def look(survey: Survey, policy: Policy) -> Found:
        nodes = _counted(survey, policy)
        able = [node for node in nodes if tier in node.runnable]
        if able:
            return Found(Verdict.PASS, _of(len(able), len(nodes)))
        reasons = {
            "by our label only: KubeVirt's is missing": [
                node for node in nodes if tier in node.ours - node.theirs
            ],
            "by KubeVirt's label only": [node for node in nodes if tier in node.theirs - node.ours],
            f"not {SCHEDULABLE}": [
                node for node in nodes if tier in node.ours & node.theirs and not node.schedulable
            ],
        }
        words = [f"{len(some)} {why}" for why, some in reasons.items() if some]
        verdict = Verdict.FAIL if tier in survey.required else Verdict.WARN
        who = [node for some in reasons.values() for node in some]
        return Found(verdict, "none", "; ".join(words) or "no node says that it can", _names(who))

    return _under_policy(look)


def _false_claims(survey: Survey) -> Found:
    wrong = {
        tier: [node for node in known(survey.nodes) if tier in node.theirs & node.denied]
        for tier in Tier
    }
    who = tuple(
        f"{name} ({tier.spelling})" for tier, nodes in wrong.items() for name in _names(nodes)
    )
    if not who:
        return Found(Verdict.PASS, "none")
    detail = "KubeVirt goes by what libvirt lists, and would place guests that cannot start there"
    return Found(Verdict.WARN, str(len(who)), detail, who)


def _capacity(survey: Survey, policy: Policy) -> Found:
    if not policy.capacity_resource:
        return Found(Verdict.PASS, "not asked for", "capacityResource is off")
    return _offered(
        _counted(survey, policy),
        lambda node, tier: node.capacity[tier],
        lambda tier: tier.resource,
    )


def _devices(survey: Survey, policy: Policy) -> Found:
    return _offered(_counted(survey, policy), lambda node, _: node.devices, lambda _: DEVICE)


def _offered(
    nodes: tuple[NodeClaims, ...],
    count: Callable[[NodeClaims, Tier], int | None],
    resource: Callable[[Tier], str],
) -> Found:
    """Judge what nodes offer for the tiers that they run: nothing at all is a no."""
    # Several tiers may ask for the same resource, which then counts once.
    offers = {
        (resource(tier), node.name): count(node, tier) or 0
        for tier in Tier
        for node in nodes
        if tier in node.runnable
    }
    sums: dict[str, int] = {}
    for (name, _), number in offers.items():
        sums[name] = sums.get(name, 0) + number
    who = tuple(sorted(f"{node} ({name})" for (name, node), number in offers.items() if not number))
    value = ", ".join(f"{name} {total}" for name, total in sums.items())
    nothing = [name for name, total in sums.items() if not total]
    if nothing:
        detail = f"no node offers {', '.join(nothing)}, so that such guests wait for ever"
        return Found(Verdict.FAIL, value, detail, who)
    if who:
        return Found(Verdict.WARN, value, "some nodes that could run guests offer none", who)
    return Found(Verdict.PASS, value)


def _simulated(survey: Survey, policy: Policy) -> Found:
    who = _names(node for node in known(survey.nodes) if node.simulated)
    if not who:
        return Found(Verdict.PASS, "none")
    detail = (
        "they count: best may choose what they only pretend"
        if policy.simulated_nodes
        else "they do not count"
    )
    return Found(Verdict.WARN, str(len(who)), detail, who)


_AGENT: Final = "install the node agent, or look at its pods' log"
_WHY: Final = "sevkit cluster nodes says why not, and what to do"
_OWN: Final = "sevkit, the node agent's labels"
_SELECTED: Final = "KubeVirt virt-controller, node selectors of launcher pods"
NODES: Final[tuple[Check, ...]] = (
    Check("nodes.agent", "the node agent has published", _agent, _AGENT, _OWN),
    Check(
        "nodes.kubevirt",
        "KubeVirt runs VMIs on nodes",
        _handler,
        "look at the virt-handler pods: they label their nodes",
        _SELECTED,
    ),
    *(
        Check(
            f"nodes.{word}",
            f"a node can run {tier.spelling}",
            _tier(tier),
            _WHY,
            _SELECTED,
            "nodes.agent",
        )
        for word, tier in (("sev", Tier.SEV), ("sev-es", Tier.SEV_ES), ("sev-snp", Tier.SNP))
    ),
    Check(
        "nodes.any",
        "a node can run any of them",
        _under_policy(_any),
        _WHY,
        _SELECTED,
        "nodes.agent",
    ),
    Check(
        "nodes.false-claims",
        "KubeVirt's labels promise nothing that our agent denies",
        _false_claims,
        "leave capacityResource on, which keeps guests away; sevkit cluster nodes says why not",
        "KubeVirt node-labeller: domcapabilities, not what the host does",
        "nodes.agent",
    ),
    Check(
        "nodes.capacity",
        "they offer our extended resources, which guests ask for",
        _under_policy(_capacity),
        "let the node agent publish capacity, or turn capacityResource off in the webhook's policy",
        "kubernetes.io, Extended Resources",
        "nodes.any",
    ),
    Check(
        "nodes.devices",
        f"they offer {DEVICE}, which KubeVirt asks for",
        _under_policy(_devices),
        "turn the feature gate on; virt-handler's device plugin needs /dev/sev on the node",
        "KubeVirt virt-controller, launcher pods",
        "nodes.any",
    ),
    Check(
        "nodes.simulated",
        "no node has simulated hardware",
        _under_policy(_simulated),
        "fine for a rehearsal; else restart the agent there without --host-root",
        _OWN,
    ),
)
