"""The webhook's configurations as ``deploy/webhook`` installs them, for another address."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any, Final

from hack.deploy_manifests import FOLDER, read

if TYPE_CHECKING:
    from collections.abc import Callable

#: Sorts before ``virt-api-mutator``, so that KubeVirt's defaults come after ours.
NAME: Final = "sevkit-webhook"


def registration(client: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Return the mutating configuration; ``client`` gives an entry's client config by its path."""
    return _for("mutating", client)


def warnings(client: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Return the validating configuration, which only warns; ``client`` as above."""
    return _for("validating", client)


def _for(kind: str, client: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    found = copy.deepcopy(_installed(kind))
    for entry in found["webhooks"]:
        entry["clientConfig"] = client(entry["clientConfig"]["service"]["path"])
    return found


@functools.cache
def _installed(kind: str) -> dict[str, Any]:
    path = FOLDER / f"webhook/base/configuration-{kind}.yaml"
    (found,) = read(path.read_bytes())
    document: dict[str, Any] = found
    return document
