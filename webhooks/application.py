"""The ASGI application: reads a request, waits for its turn, has it decided, answers.

A request that cannot be a review is refused by its head, and its body is not read. Decisions are
made one at a time in the order in which requests became whole, and between two of them the event
loop gets a turn, so that others connect and read meanwhile. Who would have to wait behind too
many is answered with 429 and ``Retry-After: 1``: an API server then asks again within its own
timeout (k8s.io/client-go, rest/with_retry.go), and, as the connection ends, maybe another replica.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, final

from webhooks.exchange import JSON, Outcome, Request, Response, parse_timeout
from webhooks.limits import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

    from webhooks.bugs import Bugs
    from webhooks.exchange import Handle
    from webhooks.limits import Guest, Guests, Limits

    Count: TypeAlias = Callable[[Outcome], None]

_PLAIN: Final = "text/plain; charset=utf-8"
_REFUSALS: Final = {
    Outcome.METHOD: Response(405, b"only POST is answered here\n", _PLAIN),
    Outcome.PATH: Response(404, b"no such path\n", _PLAIN),
    Outcome.CONTENT_TYPE: Response(415, b"only application/json is read here\n", _PLAIN),
    Outcome.TOO_LARGE: Response(413, b"the review is too large\n", _PLAIN),
    Outcome.HEAD_LARGE: Response(431, b"the head is too large\n", _PLAIN),
    Outcome.BUSY: Response(429, b"too many reviews at once, come again\n", _PLAIN),
    Outcome.LATE: Response(503, b"the time for a decision is over\n", _PLAIN),
    Outcome.FAILED: Response(500, b"internal error, nothing is decided\n", _PLAIN),
}
_HEADERS: Final = {
    Outcome.METHOD: [(b"allow", b"POST")],
    Outcome.BUSY: [(b"retry-after", b"1")],
}
_CLOSE: Final = (b"connection", b"close")
#: An API server's heads have some hundred bytes. h11 bounds only heads that come in pieces.
_HEAD_BYTES: Final = 16 << 10


@final
@dataclass(frozen=True, slots=True)
class Head:
    """What of a request is known before its body is read; ``size`` and ``length`` in bytes."""

    method: str
    path: str
    query: str
    content_type: str
    size: int
    length: int

    def refusal(self, paths: Collection[str], limit: int) -> Outcome | None:
        """Return why this is refused whatever its body is, or None."""
        refused = {
            Outcome.HEAD_LARGE: self.size > _HEAD_BYTES,
            Outcome.PATH: self.path not in paths,
            Outcome.METHOD: self.method != "POST",
            Outcome.CONTENT_TYPE: self.content_type != JSON,
            Outcome.TOO_LARGE: self.length > limit,
        }
        return next((outcome for outcome, is_so in refused.items() if is_so), None)


def read_head(scope: HTTPScope) -> Head:
    """Return the head of ASGI's scope; h11 has seen to it that the length is one number."""
    kind, length = b"", 0
    size = len(scope["raw_path"]) + len(scope["query_string"])
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name == b"content-type":
            kind = value
        elif name == b"content-length":
            length = int(value)
    return Head(
        scope["method"],
        scope["path"],
        scope["query_string"].decode("latin-1"),
        kind.partition(b";")[0].strip().lower().decode("latin-1"),
        size,
        length,
    )


@final
class Application:
    """What the protocol calls for each request. ``paths`` are the ones that ``handle`` knows."""

    def __init__(
        self,
        handle: Handle,
        paths: Collection[str],
        guests: Guests,
        limits: Limits,
        *,
        clock: Callable[[], float],
        count: Count,
        bugs: Bugs,
    ) -> None:
        self._handle: Final = handle
        self._paths: Final = frozenset(paths)
        self._guests: Final = guests
        self._limits: Final = limits
        self._clock: Final = clock
        self._count: Final = count
        self._turn: Final = asyncio.Lock()
        self._bugs: Final = bugs
        self._waiting = 0

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Answer one request. What raises is a bug; uvicorn then answers 500, or hangs up."""
        if scope["type"] != "http":
            return
        try:
            await self._respond(scope, receive, send)
        except Exception as error:
            self._bugs.tell(error)
            self._count(Outcome.FAILED)
            raise

    async def _respond(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        guest: Guest = scope["state"]["guest"]
        head = read_head(scope)
        outcome = head.refusal(self._paths, self._limits.body_bytes)
        response: Response | None = None
        if outcome is None:
            try:
                outcome, response = await self._decided(guest, head, receive)
            finally:
                self._guests.release(guest)
        self._count(outcome)
        if outcome is Outcome.GONE:
            return
        if outcome is not Outcome.DECIDED:
            response = _REFUSALS[outcome]
        if response is not None:
            guest.proven |= response.status == 200
            self._guests.turn(guest, Stage.ANSWERING)
            await _answer(send, outcome, response)

    async def _decided(
        self, guest: Guest, head: Head, receive: ASGIReceiveCallable
    ) -> tuple[Outcome, Response | None]:
        body = await self._body(guest, receive)
        if isinstance(body, Outcome):
            return body, None
        if self._waiting >= self._limits.waiting or self._guests.is_crowded:
            return Outcome.BUSY, None
        deadline = guest.began + parse_timeout(head.query)
        self._waiting += 1
        try:
            async with self._turn:
                await asyncio.sleep(0)
                return self._decide(guest, head.path, body, deadline)
        finally:
            self._waiting -= 1

    async def _body(self, guest: Guest, receive: ASGIReceiveCallable) -> bytes | Outcome:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return Outcome.GONE
            body += message["body"]
            if len(body) > self._limits.body_bytes:
                return Outcome.TOO_LARGE
            evicted = self._guests.hold(guest, len(body))
            if evicted:
                self._count(Outcome.EVICTED)
                evicted.close()
            if evicted is guest:
                return Outcome.GONE
            if not message["more_body"]:
                return bytes(body)

    def _decide(
        self, guest: Guest, path: str, body: bytes, deadline: float
    ) -> tuple[Outcome, Response | None]:
        if guest not in self._guests:
            return Outcome.GONE, None
        if deadline - self._clock() < self._limits.lead:
            return Outcome.LATE, None
        try:
            return Outcome.DECIDED, self._handle(Request(path, body))
        except Exception as error:  # noqa: BLE001  # a bug is answered, and never with an admission
            self._bugs.tell(error)
            return Outcome.FAILED, None


async def _answer(send: ASGISendCallable, outcome: Outcome, response: Response) -> None:
    headers = [
        (b"content-type", response.content_type.encode("latin-1")),
        (b"content-length", str(len(response.body)).encode()),
        *_HEADERS.get(outcome, ()),
    ]
    if outcome is not Outcome.DECIDED:
        headers.append(_CLOSE)
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": False})
