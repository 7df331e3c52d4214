from __future__ import annotations

import threading

import pytest

from sevkit.errors import UsageError
from webhooks.application import Head
from webhooks.exchange import Outcome, Response
from webhooks.server import Server

GOOD = Head("POST", "/x", "", "application/json", 100, 100)


def make(address: tuple[str, int]) -> Server:
    return Server(lambda _: Response(200, b""), lambda: None, address, paths=["/x"])


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (("127.0.0.1", 65536), "65536 is no port"),
        (("203.0.113.7", 0), "cannot listen on 203.0.113.7 port 0"),
    ],
)
def test_where_it_cannot_listen_it_says_so(address: tuple[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message), make(address):
        pass


def test_a_port_that_is_taken_is_told() -> None:
    with (
        make(("127.0.0.1", 0)) as server,
        pytest.raises(UsageError, match="address already in use"),
        make(("127.0.0.1", server.port)),
    ):
        pass


def test_it_is_not_accepting_before_it_runs_and_after_it() -> None:
    stop = threading.Event()
    stop.set()
    with Server(
        lambda _: Response(200, b""), lambda: None, ("127.0.0.1", 0), paths=["/x"], clock=Ticks()
    ) as server:
        assert not server.is_accepting
        server.run(stop)
        assert not server.is_accepting
        assert server.connections == 0


class Ticks:
    """A clock that is ahead of the time, so that a drain is soon over."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def test_a_head_is_refused_for_one_reason_the_path_before_the_method() -> None:
    assert GOOD.refusal(["/x"], 100) is None
    assert GOOD.refusal(["/x"], 99) is Outcome.TOO_LARGE
    assert GOOD.refusal(["/y"], 0) is Outcome.PATH
    assert Head("GET", "/x", "", "", 100, 100).refusal(["/x"], 0) is Outcome.METHOD
    assert Head("POST", "/x", "", "text/plain", 0, 0).refusal(["/x"], 0) is Outcome.CONTENT_TYPE
    assert Head("POST", "/x", "", "", 1 << 20, 0).refusal([], 0) is Outcome.HEAD_LARGE
