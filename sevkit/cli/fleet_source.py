"""The fleet as a cluster tells it: nodes first, then what their pods ask for, if need be."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import click

from sevkit.cluster.errors import Forbidden, Rejected
from sevkit.cluster.fleet_nodes import fold_nodes
from sevkit.cluster.pods import LAUNCHERS, fold_requests
from sevkit.errors import UsageError
from sevkit.kubevirt.labels import KEYS
from sevkit.kubevirt.node_summary import Readiness, summarize_node

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.cluster.api import ApiServer
    from sevkit.cluster.fleet_nodes import FleetNode
    from sevkit.kubevirt.node_summary import NodeSummary

_READINESS: Final = {True: Readiness.READY, False: Readiness.NOT_READY, None: Readiness.UNKNOWN}
_TECHNOLOGIES: Final = {key: technology for technology, key in KEYS.items()}


@final
@dataclass(frozen=True, slots=True)
class Fleet:
    """Every node that was asked for. ``refusal`` says why pods could not be listed, else "".

    With it no node's requests are known.
    """

    nodes: tuple[NodeSummary, ...]
    refusal: str = ""


def read_fleet(server: ApiServer, *, selector: str, all_pods: bool) -> Fleet:
    """Return the fleet. Pods are asked for only where some node can run a guest.

    Raises ``UsageError`` for a selector that the API server refuses, else ``ClusterError``.
    """
    try:
        nodes = fold_nodes(server, summarize, selector=selector, told=_progress("nodes"))
    except Rejected as error:
        if not selector or error.status != 400:
            raise
        raise UsageError(
            f"label selector is refused: {error.said}", hint="--selector 'key=value,key!=value'"
        ) from error
    finally:
        _clear()
    if not any(tier.total for node in nodes for tier in node.tiers.values()):
        return Fleet(tuple(nodes))
    try:
        requested = fold_requests(
            server,
            KEYS.values(),
            selector="" if all_pods else LAUNCHERS,
            told=_progress("pods"),
        )
    except Forbidden as error:
        return Fleet(tuple(nodes), error.said or error.message)
    finally:
        _clear()
    counts = {
        name: {_TECHNOLOGIES[key]: count for key, count in sums.items()}
        for name, sums in requested.items()
    }
    return Fleet(tuple(node.with_requests(counts.get(node.name, {})) for node in nodes))


def summarize(node: FleetNode) -> NodeSummary:
    """Return the summary of a node of the API server's list."""
    view = node.view
    return summarize_node(
        view.name,
        view.labels,
        view.annotations,
        view.capacity,
        {technology: node.count(key) for technology, key in KEYS.items()},
        readiness=_READINESS[node.ready],
        cordoned=node.cordoned,
    )


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _progress(what: str) -> Callable[[int], None]:
    """Return what tells how many there were so far, on a terminal only."""

    def show(count: int) -> None:
        if _on_terminal():
            click.echo(f"\rsevkit: {count} {what}", err=True, nl=False)

    return show


def _clear() -> None:
    if _on_terminal():
        click.echo("\r\x1b[K", err=True, nl=False)
