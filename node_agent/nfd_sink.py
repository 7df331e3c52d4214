"""Publish through node-feature-discovery: a file in its worker's ``features.d`` folder.

For clusters where node-feature-discovery alone may touch Nodes. Labels are lines of the file, and
guests are features without a label, which a NodeFeatureRule turns into extended resources
(``deploy/node-agent/components/nfd``). Annotations have no place there. The file is replaced as a
whole and never removed: its end would be the end of the labels. Source: node-feature-discovery,
"Feature file format" of the local source.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, final

from node_agent.atomic import replace_file
from sevkit.errors import HostReadError, UsageError
from sevkit.kubevirt.labels import DOMAIN, NodeWord, parse_node_word

if TYPE_CHECKING:
    from sevkit.cluster.errors import Contested
    from sevkit.cluster.events import Event

NFD_FILE: Final = "/etc/kubernetes/node-feature-discovery/features.d/sevkit"
#: node-feature-discovery itself reads no more than this of a file.
_LIMIT: Final = 64 << 10
#: Features of this name have no label of theirs; the rest is the extended resource's name.
_GUESTS: Final = "capacity."
_LINE: Final = re.compile(rf"{re.escape(DOMAIN)}/({re.escape(_GUESTS)})?([A-Za-z0-9._-]+)=(.*)")


@final
class NfdSink:
    """Keeps ``path`` true. Raises ``UsageError`` for a folder that is not there."""

    def __init__(self, path: str) -> None:
        folder = os.path.dirname(path) or "."  # noqa: PTH120  # a folder to look at, no path is kept
        if not os.path.isdir(folder):  # noqa: PTH112  # as above
            raise UsageError(
                f"{folder} is not a folder", hint="is node-feature-discovery's features.d mounted?"
            )
        self._path: Final = path

    def recall(self) -> NodeWord:
        """Return what the file says; one that is not there, or not ours, says nothing."""
        try:
            with open(self._path, "rb") as file:  # noqa: PTH123  # as above
                data = file.read(_LIMIT)
        except FileNotFoundError:
            return NodeWord()
        except OSError as error:
            raise HostReadError(f"{self._path} cannot be read: {_why(error)}") from error
        return parse_features(data.decode("utf-8", "replace"))

    def holds(self, word: NodeWord) -> bool:
        """Return whether the file says this."""
        return self.recall() == NodeWord(word.labels, {}, word.capacity)

    def publish(self, word: NodeWord, *, whole: bool) -> tuple[Contested, ...]:  # noqa: ARG002  # the Protocol's
        """Replace the file."""
        try:
            replace_file(self._path, encode_features(word).encode())
        except OSError as error:
            raise HostReadError(
                f"{self._path} cannot be written: {_why(error)}",
                hint="is the folder mounted writable, and does it belong to the agent's group?",
            ) from error
        return ()

    def tell(self, event: Event) -> None:
        """Leave it to the log."""


def encode_features(word: NodeWord) -> str:
    """Return the file's text."""
    labels = [f"{key}={value}" for key, value in sorted(word.labels.items())]
    # The directive is for the next line alone.
    guests = [
        f"# +no-label\n{_renamed(key)}={value}" for key, value in sorted(word.capacity.items())
    ]
    return "\n".join([*labels, *guests, ""])


def parse_features(text: str) -> NodeWord:
    """Return what a file of ours says; lines that are not ours are left out."""
    labels: dict[str, str] = {}
    capacity: dict[str, str] = {}
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found:
            (capacity if found[1] else labels)[f"{DOMAIN}/{found[2]}"] = found[3]
    return parse_node_word(labels, {}, capacity)


def _renamed(key: str) -> str:
    domain, _, name = key.partition("/")
    return f"{domain}/{_GUESTS}{name}"


def _why(error: OSError) -> str:
    return (error.strerror or "input/output error").lower()
