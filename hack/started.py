"""Something that is started on entry and whose every part is ended on exit, whatever happens."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType


class Started(ABC):
    """A context manager: ``_start`` puts what must be ended on ``_stack``, also if it fails."""

    def __init__(self) -> None:
        self._stack: Final = contextlib.ExitStack()

    @abstractmethod
    def _start(self) -> None:
        """Start everything, or raise."""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
