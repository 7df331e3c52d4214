"""ASIDs as the misc cgroup controller counts them: how many there are, and how many are in use.

``misc.capacity`` is in the root cgroup only, so a container sees it only on the host's own mount;
a resource without capacity has no line at all. Guests of SEV-ES and of SEV-SNP are both counted as
``sev_es``. Up to Linux 6.4 the root has no ``misc.current``, and what its children use is added
up. Source: Linux, kernel/cgroup/misc.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import FormatError
from sevkit.host.reading import Cause, Known, Reading, Unreadable, convert

if TYPE_CHECKING:
    from sevkit.host.source import HostSource

#: Where version 2 and version 1 mount the controller.
ROOTS: Final = ("sys/fs/cgroup", "sys/fs/cgroup/misc")
#: Most children of the root that are added up.
_CHILDREN: Final = 1024


@final
@dataclass(frozen=True, slots=True)
class AsidCounts:
    """ASIDs of SEV alone, and those that SEV-ES and SEV-SNP share; no line is 0."""

    sev: int = 0
    encrypted_state: int = 0


@final
@dataclass(frozen=True, slots=True)
class MiscFacts:
    """What the controller may hand out, and what it has."""

    capacity: Reading[AsidCounts]
    current: Reading[AsidCounts]


def probe_misc(source: HostSource) -> MiscFacts:
    """Read the controller where it is mounted, version 2 first."""
    for root in ROOTS:
        capacity = source.text(f"{root}/misc.capacity")
        if isinstance(capacity, Known) or capacity.cause is not Cause.ABSENT:
            return MiscFacts(convert(capacity, parse_counts), _current(source, root))
    missing = Unreadable(Cause.ABSENT, "misc.capacity: not there, or not this cgroup's to see")
    return MiscFacts(missing, missing)


def parse_counts(text: str) -> AsidCounts:
    """Return the two counts; other resources are left out. Raises ``FormatError``."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if not (value.isascii() and value.isdigit() and len(value) <= 20):
            raise FormatError("misc cgroup", f"{line[:40]!r} is not a name and a number")
        if found.setdefault(name, int(value)) != int(value):
            raise FormatError("misc cgroup", f"{name[:20]} is there twice")
    return AsidCounts(found.get("sev", 0), found.get("sev_es", 0))


def _current(source: HostSource, root: str) -> Reading[AsidCounts]:
    own = source.text(f"{root}/misc.current")
    if isinstance(own, Known) or own.cause is not Cause.ABSENT:
        return convert(own, parse_counts)
    names = source.names(root)
    if isinstance(names, Unreadable):
        return names
    sev = shared = counted = 0
    for name in names.value[:_CHILDREN]:
        child = convert(source.text(f"{root}/{name}/misc.current"), parse_counts)
        if isinstance(child, Known):
            sev, shared = sev + child.value.sev, shared + child.value.encrypted_state
            counted += 1
        elif child.cause is not Cause.ABSENT:
            return child
    # One child that counts is enough: the controller is on for all or for none.
    return Known(AsidCounts(sev, shared)) if counted else own
