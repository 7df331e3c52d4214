"""The folder that simulated device files stand in: names such as ``cpu/0/msr``, and node numbers.

Node 1 is the folder itself, as FUSE wants it. The tree is made once; what changes later are the
entries of an ``EntryFolder``. No number is ever used again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import UsageError
from sevkit.testing.device.fuse_protocol import ROOT_NODE, Attributes
from sevkit.testing.device.ioctl import EntryAttribute, EntryFolder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from sevkit.testing.device.ioctl import IoctlFile, ReadableFile

    #: What may stand at a name.
    Served: TypeAlias = IoctlFile | ReadableFile | EntryFolder

_NAME_MAX: Final = 255


@final
@dataclass(frozen=True, slots=True)
class EntryFile:
    """One file of one entry of ``folder``."""

    folder: EntryFolder
    entry: str
    name: str

    @property
    def attribute(self) -> EntryAttribute:
        """What kind of file it is."""
        return self.folder.attributes[self.name]


@final
@dataclass(frozen=True, slots=True)
class Node:
    """A file if ``file`` is one; a folder without it, and if it is an ``EntryFolder``."""

    number: int
    file: Served | EntryFile | None = None
    children: dict[str, int] = field(default_factory=dict)

    @property
    def attributes(self) -> Attributes:
        """What stat shows: devices are root's alone, as the real nodes are."""
        if isinstance(self.file, EntryFile):
            return Attributes(self.number, folder=False, mode=self.file.attribute.mode)
        folder = self.file is None or isinstance(self.file, EntryFolder)
        return Attributes(self.number, folder, 0o755 if folder else 0o600)


def entry_nodes(folder: EntryFolder, entry: str, first: int) -> list[Node]:
    """Return the nodes of a new entry, numbered from ``first``: its own, then one for each file."""
    files = [
        Node(number, EntryFile(folder, entry, name))
        for number, name in enumerate(folder.attributes, first + 1)
    ]
    children = dict(zip(folder.attributes, (node.number for node in files), strict=True))
    return [Node(first, children=children), *files]


def make_tree(files: Mapping[str, Served]) -> dict[int, Node]:
    """Return all nodes by number; raises ``UsageError`` for a name that cannot be one.

    Names are relative, with ``/`` between folders, and no name is also a folder's.
    """
    nodes = {ROOT_NODE: Node(ROOT_NODE)}
    for name, file in files.items():
        *folders, last = parts_of(name)
        node = nodes[ROOT_NODE]
        for part in folders:
            number = node.children.setdefault(part, len(nodes) + 1)
            node = nodes.setdefault(number, Node(number))
            if node.file is not None:
                raise UsageError(f"device name {name!r} needs a folder where there is a device")
        if last in node.children:
            raise UsageError(f"device name {name!r} is there already")
        number = len(nodes) + 1
        node.children[last] = number
        nodes[number] = Node(number, file)
    return nodes


def parts_of(name: str) -> list[str]:
    """Return the parts of a device's name; raises ``UsageError``."""
    parts = name.split("/")
    for part in parts:
        bad = part in {"", ".", ".."} or "\0" in part or not part.isascii()
        if bad or len(part) > _NAME_MAX:
            raise UsageError(
                f"device name {name[:64]!r} is not a relative path", hint="such as cpu/0/msr"
            )
    return parts
