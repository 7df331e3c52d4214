"""The catalogue of checks, in the order in which a cluster is set up. Names are a promise."""

from __future__ import annotations

from typing import Final

from sevkit.kubevirt.preflight.api_server import API_SERVER
from sevkit.kubevirt.preflight.kubevirt import KUBEVIRT
from sevkit.kubevirt.preflight.net import NET
from sevkit.kubevirt.preflight.nodes import NODES
from sevkit.kubevirt.preflight.tenants import TENANTS
from sevkit.kubevirt.preflight.webhook import WEBHOOK

CATALOGUE: Final = (*API_SERVER, *KUBEVIRT, *WEBHOOK, *NET, *NODES, *TENANTS)
#: The parts of a cluster, in the same order.
GROUPS: Final = tuple(dict.fromkeys(check.group for check in CATALOGUE))
