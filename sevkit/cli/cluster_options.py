"""What commands that ask a cluster share: which API server is meant, and as whom to ask it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.cluster.access import Access
    from sevkit.cluster.connection import Connection

_OPTIONS: Final = (
    click.option(
        "--kubeconfig",
        metavar="FILE",
        help="How to reach the cluster.  [default: $KUBECONFIG, else ~/.kube/config, else the "
        "pod's service account]",
    ),
    click.option(
        "--context",
        metavar="NAME",
        default="",
        help="The kubeconfig's context.  [default: its current one]",
    ),
    click.option(
        "--allow-kubeconfig-exec",
        is_flag=True,
        help="Let the kubeconfig run its program to get a token, as kubectl does.",
    ),
)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a cluster, for ``connect`` to take."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def connect(given: Mapping[str, Any]) -> Connection:
    """Return a connection to the cluster that the options name; nothing is asked yet.

    Raises ``UsageError``, ``InsecureUsage``, ``FormatError`` or ``ClusterError``.
    """
    from sevkit.cluster.connection import Connection  # noqa: PLC0415  # not for --help

    return Connection(find_access(given, os.environ))


def find_access(given: Mapping[str, Any], environ: Mapping[str, str]) -> Access:
    """Return how to reach the cluster: the option's file, else what ``environ`` leads to.

    As kubectl looks for it. Raises as ``connect``.
    """
    from sevkit.cluster.access import in_cluster  # noqa: PLC0415  # not for --help
    from sevkit.cluster.kubeconfig import read_kubeconfig  # noqa: PLC0415  # not for --help

    paths = _paths(given["kubeconfig"], environ)
    if not paths and not given["context"] and "KUBERNETES_SERVICE_HOST" in environ:
        return in_cluster(environ)
    plugin_environ = environ if given["allow_kubeconfig_exec"] else None
    return read_kubeconfig(paths, context=given["context"], plugin_environ=plugin_environ)


def _paths(file: str | None, environ: Mapping[str, str]) -> list[Path]:
    """Return the files that are there, of those where kubectl would look."""
    if file is not None:
        if not _is_file(file):
            raise UsageError(f"{file}: no such file")
        return [Path(file)]
    home = environ.get("HOME")
    listed = [part for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    usual = [str(Path(home) / ".kube" / "config")] if home else []
    return [Path(name) for name in listed or usual if _is_file(name)]


def _is_file(name: str) -> bool:
    # Unlike a Path's, it takes a name that is too long, or holds a NUL, for one that is not there.
    return os.path.isfile(name)  # noqa: PTH113  # as said
