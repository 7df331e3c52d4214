"""HTTP/1.1 on one connection: uvicorn's h11 protocol, held to the stages of ``limits``.

uvicorn has no bound on how long a head or a body may take, answers what is no HTTP with a line
in the log, and counts connections where requests are meant. What is added here: each change of
h11's state is told to ``Guests``, whose deadlines the server enforces; nothing is logged; and
nothing that a client sends ends in an exception.

h11 and not httptools: h11 refuses what is ambiguous, is one dependency of uvicorn's that is there
anyway and not one more in C, and the parser is not what limits the rate (hack/bench_webhook.py).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from webhooks.exchange import Outcome
from webhooks.limits import Stage

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from webhooks.limits import Guest, Guests

#: Where uvicorn's own words go: a flood of bad requests would be a flood of lines.
_SILENCE: Final = logging.getLogger("sevkit.webhooks.silence")
_SILENCE.disabled = True
_ANSWER_IS_DUE: Final = (h11.SEND_RESPONSE, h11.SEND_BODY)


@final
class Protocol(H11Protocol):
    """The protocol of ``guest``, one of ``guests``; ``count`` is told what became of it."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        guest: Guest,
        guests: Guests,
        count: Callable[[Outcome], None],
    ) -> None:
        super().__init__(config, state, {"guest": guest})
        self.logger = self.access_logger = _SILENCE
        self.access_log = False
        self._guest: Final = guest
        self._guests: Final = guests
        self._count: Final = count
        self.is_connected = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
        """TLS is there; a head has to follow."""
        super().connection_made(transport)
        self.is_connected = True
        self._guest.close = transport.abort
        if self._guest in self._guests:
            self._guests.turn(self._guest, Stage.HEAD)
        else:  # pushed out in the moment that its handshake came to an end
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, also by the timer that uvicorn leaves running after a reset."""
        self._guests.leave(self._guest)
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def data_received(self, data: bytes) -> None:
        """Take what came, and see what it makes of the connection."""
        if self.transport.is_closing():
            return
        if self._guest.stage is Stage.IDLE:
            self._guests.turn(self._guest, Stage.HEAD)
        try:
            super().data_received(data)
        except h11.LocalProtocolError:
            # A body turned out broken when its answer was under way already.
            self._count(Outcome.MALFORMED)
            self.transport.abort()
        self._follow()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in the same words for everything."""
        self._count(Outcome.MALFORMED)
        super().send_400_response(msg)

    def on_response_complete(self) -> None:
        """Go on to the next request; the bytes of it may be here already."""
        self._guests.turn(self._guest, Stage.IDLE)
        super().on_response_complete()
        self._follow()

    def shutdown(self) -> None:
        """Close, if nothing has begun here; to be called again until it is so."""
        if self._guest.stage is Stage.IDLE:
            super().shutdown()
            self._follow()

    def _follow(self) -> None:
        if self.transport.is_closing():
            stage = Stage.CLOSING
        elif self.conn.their_state is h11.SEND_BODY:
            stage = Stage.BODY
        elif self.conn.our_state in _ANSWER_IS_DUE:
            if self._guest.stage is Stage.ANSWERING:
                return
            stage = Stage.ASKED
        elif self._guest.stage is Stage.HEAD or self.conn.trailing_data[0]:
            stage = Stage.HEAD
        else:
            stage = Stage.IDLE
        self._guests.turn(self._guest, stage)
