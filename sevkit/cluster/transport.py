"""What the kubernetes package sends through: bounded in size and time, and with our errors only.

Theory of operation. The package's own transport keeps a urllib3 pool; here its connections are
made with a TLS context of their own, from authorities and keys that are read at that moment, and
whose sockets give every read only what is left until one moment, armed for each request and
thread. A socket's own timeout starts anew with every byte that comes. Nothing is tried again and
no redirect is followed: the caller knows whether its request may be repeated. An answer that is
no success becomes an error here, from at most ``STATUS_LIMIT`` of its bytes. An answer may also be
read line by line, for as long as it lasts: then the moment is armed for each line, and another
thread can end the wait by ``interrupt``, which shuts down the sockets below TLS.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import urllib3
import urllib3.exceptions
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import RESTClientObject, RESTResponse
from urllib3.connection import HTTPSConnection

from sevkit.cluster.access import Access, ClientCertificate, read_file
from sevkit.cluster.errors import BadAnswer, Timeout, Unreachable, parse_status
from sevkit.errors import ClusterError, causes_of
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kubernetes.client.configuration import Configuration

#: What is read from, head first.
Answer: TypeAlias = urllib3.BaseHTTPResponse

CONNECT_SECONDS: Final = 10.0
STATUS_LIMIT: Final = 64 << 10
_CHUNK: Final = 1 << 16
_TRY: Final = "try again; is the API server up, and reachable from here?"


@final
class Moment(threading.local):
    """When the current thread's request has to be over, on the monotonic clock."""

    end: float = float("inf")

    def arm(self, seconds: float) -> None:
        """Set it ``seconds`` from now."""
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, more than 0, or raise ``TimeoutError``."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("deadline is over")
        return left


@final
class Sockets:
    """The sockets of one transport, so that a thread can end what others wait for."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._open: Final[weakref.WeakSet[socket.socket]] = weakref.WeakSet()
        self._over = False

    def admit(self, one: socket.socket) -> None:
        """Remember a socket, or raise ``ConnectionAbortedError`` after ``interrupt``."""
        with self._lock:
            self._open.add(one)
        self.check()

    def check(self) -> None:
        """Raise ``ConnectionAbortedError`` after ``interrupt``."""
        if self._over:
            raise ConnectionAbortedError("interrupted")

    def interrupt(self) -> None:
        """Shut all of them down, now and when they come."""
        # First the word, then the deed: whoever comes between the two finds one of them.
        self._over = True
        with self._lock:
            found = list(self._open)
        for one in found:
            # Not TLS's own, which would make of what is still to be read plain text.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)


class _Context(ssl.SSLContext):
    moment: Moment
    sockets: Sockets


class _Socket(ssl.SSLSocket):
    def _limit(self) -> None:
        if isinstance(self.context, _Context):
            self.context.sockets.check()
            self.settimeout(self.context.moment.left())

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT002  # ssl's own signature
        if isinstance(self.context, _Context):
            self.context.sockets.admit(self)
        self._limit()
        super().do_handshake(block)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401  # ssl's own signature
        self._limit()
        return super().recv_into(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401  # ssl's own signature
        self._limit()
        return super().send(*args, **kwargs)


def make_context(access: Access, moment: Moment, sockets: Sockets | None = None) -> ssl.SSLContext:
    """Return a TLS context for one connection, from files as they are now.

    Its socket keeps to ``moment``, and is one of ``sockets``.
    Raises ``ClusterError`` for files that cannot be read or hold no certificate.
    """
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.moment = moment
    context.sockets = sockets or Sockets()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _Socket
    if access.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        data = _bytes(access.ca, "certificate authority")
        try:
            context.load_verify_locations(cadata=data.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise ClusterError("certificate authority holds no certificate in PEM") from error
    if access.certificate is not None:
        _load_pair(context, access.certificate)
    return context


def _load_pair(context: ssl.SSLContext, pair: ClientCertificate) -> None:
    """Load a client certificate and its key. ssl reads files only: one in memory, gone at once."""
    certificate = _bytes(pair.certificate, "client certificate")
    key = pair.key.reveal() if isinstance(pair.key, Secret) else read_file(pair.key, "client key")
    descriptor = os.memfd_create("pair")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(certificate.rstrip() + b"\n" + key)
        # A key with a passphrase would be asked for on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    except (ssl.SSLError, ValueError) as error:
        raise ClusterError("client certificate and its key do not fit, or are no PEM") from error
    finally:
        os.close(descriptor)


def _bytes(source: bytes | Path, what: str) -> bytes:
    return source if isinstance(source, bytes) else read_file(source, what)


def _pools(
    access: Access, moment: Moment, sockets: Sockets
) -> dict[str, type[urllib3.HTTPSConnectionPool]]:
    """Return the classes of pools that make connections to ``access``; plain HTTP has none."""

    class Connection(HTTPSConnection):
        def connect(self) -> None:
            self.ssl_context = make_context(access, moment, sockets)
            super().connect()

    class Pool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Connection

    return {"https": Pool}


@final
class Transport(RESTClientObject):
    """Stands in the place of the package's transport; ``seconds`` bound one request as a whole."""

    def __init__(self, configuration: Configuration, access: Access, *, seconds: float) -> None:
        super().__init__(configuration)
        self._seconds: Final = seconds
        self._moment: Final = Moment()
        self._sockets: Final = Sockets()
        self.pool_manager.pool_classes_by_scheme = _pools(access, self._moment, self._sockets)

    def arm(self, seconds: float) -> None:
        """Give what this thread reads next ``seconds``."""
        self._moment.arm(seconds)

    def interrupt(self) -> None:
        """End the requests under way, in whatever thread, and refuse all others from now on."""
        self._sockets.interrupt()

    def request(self, *args: Any, **kwargs: Any) -> RESTResponse:  # noqa: ANN401  # the package's signature
        """Send one request; return its answer, unread, or raise a ``ClusterError``."""
        self._moment.arm(self._seconds)
        kwargs["_request_timeout"] = (min(CONNECT_SECONDS, self._seconds), self._seconds)
        with translated():
            answer: RESTResponse = super().request(*args, **kwargs)  # type: ignore[no-untyped-call]  # as it is
            if 200 <= answer.status < 300:
                return answer
            response = answer.response
            try:
                body = _cut(response)
            finally:
                response.close()
        raise parse_status(answer.status, body, response.headers.get("Retry-After"))


def read_answer(response: Answer, limit: int) -> bytes:
    """Return an answer's body of at most ``limit`` bytes, or raise a ``ClusterError``."""
    try:
        with translated():
            return _read(response, limit)
    except BaseException:
        response.close()
        raise


def read_lines(response: Answer, limit: int, arm: Callable[[], None]) -> Iterator[bytes]:
    """Yield an answer's lines as they come, without their ends, each of at most ``limit`` bytes.

    ``arm`` is called when a line is waited for, and not again until it is whole. Raises a
    ``ClusterError``, also for a last line that has no end. Closing the answer is the caller's.
    """
    _check_head(response)
    found, searched = bytearray(), 0
    while True:
        arm()
        while (end := found.find(b"\n", searched)) < 0:
            searched = len(found)
            if searched > limit:
                raise BadAnswer(f"API server sends a line of more than {limit} bytes")
            with translated():
                chunk = response.read1(_CHUNK, decode_content=False)
            if not chunk and found:
                raise Unreachable(_BROKE_OFF, hint=_TRY)
            if not chunk:
                return
            found += chunk
        if end > limit:
            raise BadAnswer(f"API server sends a line of more than {limit} bytes")
        line = bytes(found[:end])
        del found[: end + 1]
        searched = 0
        yield line


def _read(response: Answer, limit: int) -> bytes:
    declared = response.headers.get("Content-Length", "")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise BadAnswer(f"API server sends more than {limit} bytes")
    _check_head(response)
    found = bytearray()
    while chunk := response.read(_CHUNK, decode_content=False):
        found += chunk
        if len(found) > limit:
            raise BadAnswer(f"API server sends more than {limit} bytes")
    return bytes(found)


def _check_head(response: Answer) -> None:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise BadAnswer("API server compresses its answer, which was not asked for")
    is_framed = response.headers.get("Content-Length") or "Transfer-Encoding" in response.headers
    if not is_framed and response.status != 204:
        # A head that breaks off looks like an empty answer of unknown length: never a success.
        raise Unreachable(_BROKE_OFF, hint=_TRY)


def _cut(response: Answer) -> bytes:
    """Return the beginning of a refusal; its status alone says enough if the rest does not come."""
    found = bytearray()
    with contextlib.suppress(urllib3.exceptions.HTTPError, OSError):
        while len(found) < STATUS_LIMIT and (chunk := response.read(_CHUNK, decode_content=False)):
            found += chunk
    return bytes(found)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn whatever urllib3 and the kubernetes package raise into a ``ClusterError``."""
    try:
        yield
    except ClusterError:
        raise
    except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
        raise explain(error) from error
    except ValueError as error:
        raise BadAnswer(_NO_HTTP, hint=_ADDRESS) from error


_ADDRESS: Final = "is this the API server's address?"
_NO_HTTP: Final = "API server does not speak HTTP"
_BROKE_OFF: Final = "API server broke off in the middle of its answer"

#: What went wrong below HTTP: the first row that fits anything in the chain of causes.
_FAILURES: Final[tuple[tuple[type[BaseException], type[ClusterError], str, str], ...]] = (
    (
        ssl.SSLCertVerificationError,
        Unreachable,
        "API server's TLS certificate is not trusted",
        "is the certificate authority that of this cluster?",
    ),
    (socket.gaierror, Unreachable, "API server's name cannot be resolved", _ADDRESS),
    (
        urllib3.exceptions.ProxyError,
        Unreachable,
        "proxy did not connect to the API server",
        "check the proxy",
    ),
    (ConnectionRefusedError, Unreachable, "API server refused the connection", _TRY),
    (TimeoutError, Timeout, "API server did not answer in time", _TRY),
    (urllib3.exceptions.TimeoutError, Timeout, "API server did not answer in time", _TRY),
    (urllib3.exceptions.InvalidChunkLength, BadAnswer, _NO_HTTP, _ADDRESS),
    (http.client.IncompleteRead, Unreachable, _BROKE_OFF, _TRY),
    (ssl.SSLError, Unreachable, "API server does not speak TLS that we accept", _ADDRESS),
    (ConnectionError, Unreachable, "API server hung up", _TRY),
    (urllib3.exceptions.NewConnectionError, Unreachable, "API server cannot be reached", _TRY),
    (http.client.HTTPException, BadAnswer, _NO_HTTP, _ADDRESS),
    (urllib3.exceptions.InvalidHeader, BadAnswer, _NO_HTTP, _ADDRESS),
    (urllib3.exceptions.ProtocolError, Unreachable, _BROKE_OFF, _TRY),
)


def explain(error: BaseException) -> ClusterError:
    """Return the error that says what ``error``, or what is behind it, means."""
    causes = tuple(causes_of(error))
    for kind, meaning, message, hint in _FAILURES:
        found = next((cause for cause in causes if isinstance(cause, kind)), None)
        if isinstance(found, ssl.SSLCertVerificationError):
            return meaning(f"{message}: {found.verify_message}", hint=hint)
        if found is not None:
            return meaning(message, hint=hint)
    return Unreachable("API server cannot be reached", hint=_TRY)
