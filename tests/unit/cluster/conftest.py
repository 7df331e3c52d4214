from __future__ import annotations

from typing import TYPE_CHECKING, final

import pytest

if TYPE_CHECKING:
    from sevkit.cluster.api import Call
    from sevkit.documents import Json


@final
class Recorded:
    """An API server that gives the answers it was given, in order, and keeps the calls."""

    def __init__(self) -> None:
        self.answers: list[Json | Exception] = []
        self.calls: list[Call] = []

    def call(self, call: Call) -> Json:
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def server() -> Recorded:
    return Recorded()
