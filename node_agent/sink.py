"""Where a node's word goes: the sinks' Protocol, and the two that need no cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Protocol, TextIO, final

from sevkit.errors import HostReadError
from sevkit.kubevirt.labels import NodeWord

if TYPE_CHECKING:
    from sevkit.cluster.errors import Contested
    from sevkit.cluster.events import Event


class Sink(Protocol):
    """Something that publishes words. Every method may raise a ``SevkitError``."""

    def recall(self) -> NodeWord:
        """Return what was published before, by whoever ran here before; nothing is empty."""
        ...

    def holds(self, word: NodeWord) -> bool:
        """Return whether exactly this is published already; asked after ``recall`` only."""
        ...

    def publish(self, word: NodeWord, *, whole: bool) -> tuple[Contested, ...]:
        """Make ``word`` what is published, and return the fields that were left to others.

        ``whole``: try again what was left to others before.
        """
        ...

    def tell(self, event: Event) -> None:
        """Tell people of one event, where this sink can; nothing depends on it."""
        ...


@final
class StdoutSink:
    """One JSON document a word: ``{"labels": …, "annotations": …, "capacity": …}``, one a line."""

    def __init__(self, stream: TextIO, *, indent: int | None = None) -> None:
        self._stream: Final = stream
        self._indent: Final = indent

    def recall(self) -> NodeWord:
        """Return nothing: nobody was here before."""
        return NodeWord()

    def holds(self, word: NodeWord) -> bool:  # noqa: ARG002  # the Protocol's signature
        """Return False: nothing is known of a stream's past."""
        return False

    def publish(self, word: NodeWord, *, whole: bool) -> tuple[Contested, ...]:  # noqa: ARG002  # the Protocol's
        """Print it."""
        try:
            print(json.dumps(word.to_json(), indent=self._indent), file=self._stream, flush=True)
        except OSError as error:
            reason = (error.strerror or "input/output error").lower()
            raise HostReadError(f"standard output cannot be written: {reason}") from error
        return ()

    def tell(self, event: Event) -> None:
        """Leave it to the log."""


@final
class DryRun:
    """What a sink would publish, printed instead: it is asked, and never told."""

    def __init__(self, sink: Sink, printer: StdoutSink) -> None:
        self._sink: Final = sink
        self._printer: Final = printer

    def recall(self) -> NodeWord:
        """Return what the sink recalls."""
        return self._sink.recall()

    def holds(self, word: NodeWord) -> bool:  # noqa: ARG002  # the Protocol's signature
        """Print it in any case: that is what was asked for."""
        return False

    def publish(self, word: NodeWord, *, whole: bool) -> tuple[Contested, ...]:
        """Print it."""
        return self._printer.publish(word, whole=whole)

    def tell(self, event: Event) -> None:
        """Tell nobody."""
