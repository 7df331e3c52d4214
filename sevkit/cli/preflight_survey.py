"""The questions of a preflight, put to the API server: those that the chosen groups need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from sevkit.cluster.fleet_nodes import parse_fleet_node
from sevkit.cluster.kinds import (
    BINDINGS,
    CONFIG_MAPS,
    DEFINITIONS,
    INSTANCE_DEFINITION,
    INSTANCES,
    KUBEVIRTS,
    MUTATING,
    NAMESPACES,
    NODES,
    POLICIES,
    SERVICES,
    SLICES,
    VALIDATING,
)
from sevkit.cluster.preflight_source import Refusal, fold_objects, get_object, get_version
from sevkit.kubevirt.claims import NodeClaims, read_claims
from sevkit.kubevirt.json_patch import member
from sevkit.kubevirt.preflight.guests import Guests, WeakGuest, judge_guest
from sevkit.kubevirt.preflight.net import POLICIES as POLICY_NAMES
from sevkit.kubevirt.preflight.survey import Names, Survey, Unasked
from sevkit.kubevirt.preflight.webhook import CHOICES, KUBEVIRT_MUTATOR
from sevkit.kubevirt.tiers import LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from sevkit.cluster.api import ApiServer
    from sevkit.kubevirt.preflight.survey import Document
    from sevkit.kubevirt.tiers import Tier

_SERVICE_NAME: Final = "kubernetes.io/service-name"
_T = TypeVar("_T")


def take_survey(
    server: ApiServer,
    groups: Collection[str],
    names: Names,
    required: frozenset[Tier],
    now: datetime,
) -> Survey:
    """Return what the cluster answers to all that the checks of ``groups`` ask.

    Raises ``ClusterError`` where it cannot be reached, or does not know us.
    """
    found: dict[str, object] = {"version": _answer(get_version(server))}
    for question in _QUESTIONS:
        if question.groups & set(groups):
            found |= question.ask(server, names)
    return Survey(now, required, names, **found)  # type: ignore[arg-type]  # each as its field has it


def _kubevirt(server: ApiServer, _: Names) -> dict[str, object]:
    return {
        "kubevirts": _answer(fold_objects(server, KUBEVIRTS, _whole)),
        "definition": _answer(get_object(server, DEFINITIONS, INSTANCE_DEFINITION)),
    }


def _webhook(server: ApiServer, names: Names) -> dict[str, object]:
    selector = f"{_SERVICE_NAME}={names.webhook}"
    slices = fold_objects(server, SLICES, _whole, namespace=names.namespace, selector=selector)
    return {
        "mutating": _answer(get_object(server, MUTATING, names.webhook)),
        "kubevirt_mutating": _answer(get_object(server, MUTATING, KUBEVIRT_MUTATOR)),
        "validating": _answer(get_object(server, VALIDATING, names.webhook)),
        "service": _answer(get_object(server, SERVICES, names.webhook, namespace=names.namespace)),
        "slices": _answer(slices),
    }


def _choices(server: ApiServer, names: Names) -> dict[str, object]:
    document = get_object(server, CONFIG_MAPS, CHOICES, namespace=names.namespace)
    return {"choices": _answer(document)}


def _net(server: ApiServer, _: Names) -> dict[str, object]:
    return {
        "policies": {name: _answer(get_object(server, POLICIES, name)) for name in POLICY_NAMES},
        "bindings": _answer(fold_objects(server, BINDINGS, _whole)),
    }


def _nodes(server: ApiServer, _: Names) -> dict[str, object]:
    def claims(document: Document) -> NodeClaims:
        node = parse_fleet_node(document)
        return read_claims(node.view.name, node.view.labels, node.count)

    return {"nodes": _answer(fold_objects(server, NODES, claims))}


def _tenants(server: ApiServer, _: Names) -> dict[str, object]:
    labelled = _answer(fold_objects(server, NAMESPACES, _label, selector=LABEL))
    namespaces = labelled if isinstance(labelled, Unasked) else dict(labelled)
    guests = namespaces if isinstance(namespaces, Unasked) else _guests(server, namespaces)
    return {"namespaces": namespaces, "guests": guests}


def _guests(server: ApiServer, namespaces: Mapping[str, str]) -> Guests | Unasked:
    def judge(document: Document) -> WeakGuest | bool | None:
        return judge_guest(document, namespaces) or None

    found = fold_objects(server, INSTANCES, judge)
    if isinstance(found, Refusal):
        return Unasked(found.reason, found.right)
    return Guests(len(found), tuple(one for one in found if isinstance(one, WeakGuest)))


def _label(document: Document) -> tuple[str, str]:
    value = member(document, "metadata", "labels", LABEL)
    return str(member(document, "metadata", "name")), str(value)


def _whole(document: Document) -> Document:
    return document


def _answer(answer: _T | Refusal) -> _T | Unasked:
    return Unasked(answer.reason, answer.right) if isinstance(answer, Refusal) else answer


class _Question(NamedTuple):
    """What is asked once if checks of any of ``groups`` are made."""

    groups: frozenset[str]
    ask: Callable[[ApiServer, Names], dict[str, object]]


_QUESTIONS: Final = (
    _Question(frozenset({"kubevirt"}), _kubevirt),
    _Question(frozenset({"webhook"}), _webhook),
    _Question(frozenset({"webhook", "nodes", "tenants"}), _choices),
    _Question(frozenset({"policy"}), _net),
    _Question(frozenset({"nodes", "tenants"}), _nodes),
    _Question(frozenset({"tenants"}), _tenants),
)
