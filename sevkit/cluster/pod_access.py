"""How a component of ours reaches its cluster: as its pod, or by a kubeconfig that it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevkit.cluster.access import in_cluster

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sevkit.cluster.access import Access


def component_access(kubeconfig: Path | None, context: str, environ: Mapping[str, str]) -> Access:
    """Return the access of ``kubeconfig``, else the pod's own. Raises as both of them do."""
    if kubeconfig is None:
        return in_cluster(environ)
    # Only outside of pods, where nobody counts what a YAML parser takes.
    from sevkit.cluster.kubeconfig import read_kubeconfig  # noqa: PLC0415

    return read_kubeconfig([kubeconfig], context=context)
