"""The cluster's choices for the webhook, one small YAML file; every key has a default. Pure.

    cpuModel: EPYC-Milan        # pin it where the launch digest covers the vCPUs; default: not
    rebootPolicy: attestation   # end a VMI when its guest reboots: never, attestation, always
    passthrough: refuse         # host devices, GPUs and SR-IOV: refuse, allow
    capacityResource: true      # ask for the tier's extended resource of the node agent
    noNode: refuse              # what best takes where no node can run any: refuse, or a tier
    simulatedNodes: false       # whether nodes with simulated hardware count

The file is taken as a whole or not at all: an unknown key or value refuses it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from sevkit.documents import parse_documents
from sevkit.errors import UsageError
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Callable

_STRUCTURE: Final = "policy"
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_REFUSE: Final = "refuse"
_Word = TypeVar("_Word", bound=StrEnum)
#: CPU models that leave it to the host, which is the opposite of pinning.
HOST_MODELS: Final = frozenset({"host-model", "host-passthrough"})


class Reboot(StrEnum):
    """When ``rebootPolicy: Terminate`` is written."""

    NEVER = "never"
    ATTESTATION = "attestation"
    ALWAYS = "always"


class Passthrough(StrEnum):
    """What becomes of VMIs with devices of the host."""

    REFUSE = _REFUSE
    ALLOW = "allow"


@final
@dataclass(frozen=True, slots=True)
class Policy:
    """The choices. ``cpu_model`` is "" for none, ``no_node`` None for refusing."""

    cpu_model: str = ""
    reboot: Reboot = Reboot.ATTESTATION
    passthrough: Passthrough = Passthrough.REFUSE
    capacity_resource: bool = True
    no_node: Tier | None = None
    simulated_nodes: bool = False
    #: Twelve digits in hex that tell one policy from another, for audit.
    digest: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:12]
        object.__setattr__(self, "digest", digest)  # it is frozen


DEFAULT: Final = Policy()


def parse_policy(data: bytes) -> Policy:
    """Return the policy in a YAML file; an empty one is the default.

    Raises ``FormatError`` for what is no YAML, and ``UsageError``, which names the key, for what is
    no policy.
    """
    documents = [one for one in parse_documents(data, _STRUCTURE) if one is not None]
    if not documents:
        return DEFAULT
    found = documents[0]
    if len(documents) > 1 or not isinstance(found, dict):
        raise UsageError("policy is not one mapping of keys to values")
    for key in found:
        if key not in _READERS:
            raise UsageError(
                f"policy has the unknown key {key[:40]!r}", hint=f"known: {', '.join(_READERS)}"
            )
    given = {}
    for key, value in found.items():
        name, read = _READERS[key]
        given[name] = read(key, value)
    return Policy(**given)


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"policy's {key} is not true or false")
    return value


def _word(kind: type[_Word]) -> Callable[[str, object], _Word]:
    def read(key: str, value: object) -> _Word:
        words = [one.value for one in kind]
        if not isinstance(value, str) or value not in words:
            raise UsageError(f"policy's {key} is none of {', '.join(words)}")
        return kind(value)

    return read


def _no_node(key: str, value: object) -> Tier | None:
    words = [_REFUSE, *(tier.value for tier in Tier)]
    if not isinstance(value, str) or value not in words:
        raise UsageError(f"policy's {key} is none of {', '.join(words)}")
    return None if value == _REFUSE else Tier(value)


def _model(key: str, value: object) -> str:
    if value == "":
        return ""
    if not isinstance(value, str) or not _MODEL.fullmatch(value):
        raise UsageError(f"policy's {key} is not the name of a CPU model")
    if value in HOST_MODELS:
        raise UsageError(
            f"policy's {key} leaves the model to the host", hint="name one, such as EPYC-Milan"
        )
    return value


_READERS: Final[dict[str, tuple[str, Callable[[str, object], Any]]]] = {
    "cpuModel": ("cpu_model", _model),
    "rebootPolicy": ("reboot", _word(Reboot)),
    "passthrough": ("passthrough", _word(Passthrough)),
    "capacityResource": ("capacity_resource", _flag),
    "noNode": ("no_node", _no_node),
    "simulatedNodes": ("simulated_nodes", _flag),
}
