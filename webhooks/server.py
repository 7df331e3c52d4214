"""The webhook's HTTPS server: one event loop, from which no hostile client keeps an API server.

    server = Server(handle, lambda: certificates.current, ("10.0.0.7", 9443), paths=PATHS)
    with server:
        server.run(stop)  # until ``stop`` is set, and what is under way is answered

Theory of operation. Connections are accepted here and not by asyncio's own server, which says
nothing of a connection before its TLS handshake is done: so each is a guest of ``limits.Guests``
from its first moment, one among a bounded number, and each handshake begins with the certificate
that is current by then. Ten times a second whoever is overdue is ended, without ceremony.

Asked to stop, the server says so by ``is_accepting`` and goes on for ``Limits.drain`` seconds, in
which every answer closes its connection: by then endpoints no longer name this pod, and no API
server has a connection left here. Then it stops listening, lets what has begun come to its end,
closes what is idle, and after ``Limits.grace`` ends the rest.

HTTP/1.1 only, as an API server asks for nothing else (k8s.io/apiserver, pkg/util/webhook, sets
``NextProtos`` to it so that connections spread over replicas). TLS is ``tls``'s matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
import time
from typing import TYPE_CHECKING, Final, Self, final

from uvicorn.config import Config
from uvicorn.server import ServerState

from sevkit.observe.listening import listen
from webhooks.application import Application
from webhooks.bugs import Bugs
from webhooks.exchange import Handle, Outcome, Request, Response
from webhooks.limits import OVERDUE, Guests, Limits
from webhooks.protocol import Protocol

if TYPE_CHECKING:
    import ssl
    import threading
    from collections.abc import Callable, Collection, Mapping
    from types import TracebackType

    from webhooks.limits import Guest

__all__ = ["Handle", "Limits", "Outcome", "Request", "Response", "Server"]

_BACKLOG: Final = 1024
_TICK: Final = 0.1
#: How long a TLS connection is given to be closed in form.
_FAREWELL: Final = 1.0
#: What ``accept`` fails with when the process or the machine has nothing left.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CLOSE: Final = (b"connection", b"close")


def ignore(outcome: Outcome) -> None:
    """Count nothing."""
    del outcome


@final
class Server:
    """Listens on ``address`` (host or IP, and port; 0 for any) from when it is entered.

    ``context`` returns the TLS context for the next connection, or None where there is no
    certificate yet: then connections are closed at once. ``count`` is told every ``Outcome`` in
    the event loop. Raises ``UsageError`` where it cannot listen.
    """

    def __init__(
        self,
        handle: Handle,
        context: Callable[[], ssl.SSLContext | None],
        address: tuple[str, int],
        *,
        paths: Collection[str],
        limits: Limits | None = None,
        count: Callable[[Outcome], None] = ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits: Final = limits or Limits()
        self._context: Final = context
        self._address: Final = address
        self._count: Final = count
        self._clock: Final = clock
        self._guests: Final = Guests(self._limits, clock)
        self._bugs: Final = Bugs()
        application = Application(
            handle, paths, self._guests, self._limits, clock=clock, count=count, bugs=self._bugs
        )
        self._config: Final = Config(
            application,
            interface="asgi3",
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=int(2 * self._limits.idle) + 1,  # ours is the one that counts
        )
        self._config.load()
        self._state: Final = ServerState()
        self._greetings: Final[set[asyncio.Task[None]]] = set()
        self._stack: Final = contextlib.ExitStack()
        self._is_accepting = False

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def is_accepting(self) -> bool:
        """Whether it serves, and was not asked to stop. Any thread may ask."""
        return self._is_accepting

    @property
    def connections(self) -> int:
        """How many connections there are. Any thread may ask."""
        return len(self._guests)

    def __enter__(self) -> Self:
        self._listener = self._stack.enter_context(listen(self._address, backlog=_BACKLOG))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set and everything is at its end."""
        asyncio.run(self.serve(stop.is_set))

    async def serve(self, is_stopping: Callable[[], bool]) -> None:
        """Do the same in a running event loop."""
        asyncio.get_running_loop().set_exception_handler(self._look_at)
        accepting = asyncio.create_task(self._accept())
        self._is_accepting = True
        try:
            await self._until(is_stopping, accepting)
            self._is_accepting = False
            self._state.default_headers = [_CLOSE]
            end = self._clock() + self._limits.drain
            await self._until(lambda: self._clock() >= end, accepting)
        finally:
            self._is_accepting = False
            accepting.cancel()
            await asyncio.wait([accepting])
        await self._finish()

    def _look_at(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
        """Tell of what went wrong outside of a request, unless it is a client's doing."""
        del loop
        error = context.get("exception")
        if isinstance(error, OSError):
            return  # of TLS or TCP: it ends its connection, and is nobody's business beyond
        if isinstance(error, BaseException):
            self._bugs.tell(error)
        else:
            self._bugs.tell_of(str(context.get("message")))

    async def _until(self, is_over: Callable[[], bool], accepting: asyncio.Task[None]) -> None:
        while not is_over():
            self._sweep()
            if accepting.done():
                accepting.result()  # raises what no accept should
            await asyncio.sleep(_TICK)

    def _sweep(self) -> None:
        for guest in self._guests.overdue():
            outcome = OVERDUE[guest.stage]
            self._end(guest, outcome)

    def _end(self, guest: Guest, outcome: Outcome | None) -> None:
        if outcome:
            self._count(outcome)
        self._guests.leave(guest)
        guest.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._make_room()
                    await asyncio.sleep(_TICK)
                continue  # otherwise it has hung up already
            self._welcome(connection, str(address[0]))

    def _make_room(self) -> None:
        """End who would have to go for a newcomer: there is no descriptor for one."""
        if evicted := self._guests.evict():
            self._end(evicted, Outcome.EVICTED)

    def _welcome(self, connection: socket.socket, address: str) -> None:
        context = self._context()
        if context is None:
            connection.close()
            return
        # An answer is written in parts, and asyncio does not know this for a TCP socket.
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        guest, evicted = self._guests.enter(address, functools.partial(_hang_up, connection))
        if evicted:
            self._end(evicted, Outcome.EVICTED)
        greeting = asyncio.create_task(self._greet(connection, guest, context))
        self._greetings.add(greeting)
        greeting.add_done_callback(self._greetings.discard)

    async def _greet(
        self, connection: socket.socket, guest: Guest, context: ssl.SSLContext
    ) -> None:
        protocol = Protocol(self._config, self._state, guest, self._guests, self._count)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=context,
                ssl_handshake_timeout=2 * self._limits.greeting,  # ours is the one that counts
                ssl_shutdown_timeout=_FAREWELL,
            )
        except OSError:
            if guest in self._guests:
                self._count(Outcome.HANDSHAKE)
        finally:
            if not protocol.is_connected:
                self._guests.leave(guest)
                connection.close()

    async def _finish(self) -> None:
        """Answer what has begun, close what is idle, and end the rest when the time is over."""
        end = self._clock() + self._limits.grace
        for connection, address in _left(self._listener):
            self._welcome(connection, address)
        self._listener.close()
        while len(self._guests) and self._clock() < end:
            self._sweep()
            for protocol in list(self._state.connections):
                if isinstance(protocol, Protocol):
                    protocol.shutdown()
            await asyncio.sleep(_TICK / 4)
        for guest in self._guests:
            self._end(guest, None)
        for task in [*self._greetings, *self._state.tasks]:
            task.cancel()
        if tasks := [*self._greetings, *self._state.tasks]:
            await asyncio.wait(tasks, timeout=_FAREWELL)


def _hang_up(connection: socket.socket) -> None:
    """End a connection whose handshake is under way: whoever reads it sees its end."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _left(listener: socket.socket) -> list[tuple[socket.socket, str]]:
    """Return the connections that were made and not yet accepted."""
    left: list[tuple[socket.socket, str]] = []
    with contextlib.suppress(OSError):
        while len(left) < _BACKLOG:
            connection, address = listener.accept()
            left.append((connection, str(address[0])))
    return left
