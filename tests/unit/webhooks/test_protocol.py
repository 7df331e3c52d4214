"""The protocol's stages, byte by byte, on a transport that is none."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from webhooks.application import Application
from webhooks.bugs import Bugs
from webhooks.exchange import Outcome, Request, Response
from webhooks.limits import Guests, Limits, Stage
from webhooks.protocol import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD: Final = (
    b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
)


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401  # asyncio's
        return default

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Line:
    """A connection without a network, in a running loop."""

    def __init__(self, handle: Callable[[Request], Response], limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.counts: Counter[Outcome] = Counter()
        self.now = 0.0
        self.guests = Guests(limits, lambda: self.now)
        application = Application(
            handle,
            ["/x"],
            self.guests,
            limits,
            clock=lambda: self.now,
            count=lambda outcome: self.counts.update([outcome]),
            bugs=Bugs(),
        )
        config = Config(
            application,
            interface="asgi3",
            http=Protocol,
            lifespan="off",
            ws="none",
            log_config=None,
        )
        config.load()
        self.guest, _ = self.guests.enter("x", lambda: None)
        self.transport = Transport()
        self.protocol = Protocol(
            config,
            ServerState(),
            self.guest,
            self.guests,
            lambda outcome: self.counts.update([outcome]),
        )

    def stage(self) -> Stage:
        return self.guest.stage

    def made(self) -> None:
        self.protocol.connection_made(self.transport)

    async def said(self, data: bytes) -> Stage:
        self.protocol.data_received(data)
        stage = self.guest.stage
        await asyncio.sleep(0.01)
        return stage


def ok(_: Request) -> Response:
    return Response(200, b"{}")


def run(check: Callable[[Line], Any], *, limits: Limits | None = None) -> Line:
    async def inside() -> Line:
        line = Line(ok, limits)
        line.made()
        await check(line)
        line.protocol.connection_lost(None)
        await asyncio.sleep(0)
        assert len(line.guests) == 0
        return line

    return asyncio.run(inside())


def test_a_request_goes_through_the_stages() -> None:
    async def check(line: Line) -> None:
        assert line.stage() is Stage.HEAD
        assert await line.said(HEAD[:10]) is Stage.HEAD
        assert await line.said(HEAD[10:]) is Stage.BODY
        assert await line.said(b"{") is Stage.BODY
        assert await line.said(b"}") is Stage.ASKED
        assert line.stage() is Stage.IDLE
        assert line.guest.proven
        assert await line.said(HEAD + b"{}") is Stage.ASKED
        assert line.stage() is Stage.IDLE
        assert await line.said(HEAD + b"{}" + HEAD[:5]) is Stage.ASKED
        assert line.stage() is Stage.HEAD

    assert run(check).counts == {Outcome.DECIDED: 3}


def test_no_stage_is_prolonged_by_bytes() -> None:
    async def check(line: Line) -> None:
        for byte in HEAD[:20]:
            await line.said(bytes([byte]))
            line.now += 0.1
        assert line.guest.deadline == Limits().head
        await line.said(HEAD[20:])
        begun = line.now
        line.now += 1
        await line.said(b"{")
        assert line.guest.deadline == begun + Limits().body

    run(check)


def test_what_follows_a_refusal_is_not_looked_at() -> None:
    async def check(line: Line) -> None:
        assert await line.said(HEAD.replace(b": 2", b": 9999999")) is Stage.BODY
        assert line.stage() is Stage.CLOSING
        assert await line.said(b"x" * 100_000) is Stage.CLOSING

    line = run(check)
    assert line.counts == {Outcome.TOO_LARGE: 1}
    assert line.transport.written.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        HEAD.replace(b": 2", b": x"),
        b"\x00\r\n\r\n",
        HEAD + b"{}nonsense\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_closed(data: bytes) -> None:
    async def check(line: Line) -> None:
        await line.said(data)
        assert line.stage() is Stage.CLOSING

    line = run(check)
    assert line.counts[Outcome.MALFORMED] == 1
    assert b"HTTP/1.1 400" in line.transport.written


def test_only_an_idle_connection_is_shut_down() -> None:
    async def check(line: Line) -> None:
        for data in (HEAD[:9], HEAD[9:], b"{"):
            await line.said(data)
            line.protocol.shutdown()
            assert not line.transport.is_closing()
        await line.said(b"}")
        line.protocol.shutdown()
        assert line.transport.is_closing()
        assert line.stage() is Stage.CLOSING

    run(check)


def test_who_was_pushed_out_during_his_handshake_is_not_let_in() -> None:
    async def inside() -> None:
        line = Line(ok)
        line.guests.leave(line.guest)
        line.made()
        assert line.transport.is_aborted
        assert len(line.guests) == 0

    asyncio.run(inside())


def test_a_body_that_is_pushed_out_is_decided_by_nobody() -> None:
    async def check(line: Line) -> None:
        await line.said(HEAD.replace(b": 2", b": 900"))
        await line.said(b"x" * 200)
        assert line.transport.is_aborted

    line = run(check, limits=Limits(held=100))
    assert line.counts == {Outcome.EVICTED: 1, Outcome.GONE: 1}
