"""The key service over HTTPS: bounded in size and in time, patient with 429, and never a verdict.

Theory of operation. ``fetch`` asks up to ``ATTEMPTS`` times within one budget of seconds. 429 and
503 are waited out: as long as Retry-After says, else 10 s, 20 s, 40 s …; a wait that would end
after the budget is not begun. Everything else that is not the resource itself is a
``KeyServiceError`` at once: status, redirect (never followed: it could lead anywhere), TLS, size,
shape. Text of the other side never gets into a message.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import socket
import ssl
import time
import urllib.parse
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, final

import urllib3
import urllib3.exceptions
from urllib3.connection import HTTPSConnection

from sevkit import __version__
from sevkit.errors import FormatError, KeyServiceError, UsageError, causes_of
from sevkit.kds.content import check_content, size_limit
from sevkit.kds.deadline import CONNECT_SECONDS, Deadline, DeadlineContext, connect
from sevkit.kds.urls import AMD_KEY_SERVICE, Resource, check_base_url

if TYPE_CHECKING:
    from collections.abc import Callable

ATTEMPTS: Final = 5
BUDGET_SECONDS: Final = 60.0
ATTEMPT_SECONDS: Final = 30.0
#: AMD's key service allows about one request in ten seconds.
FIRST_BACKOFF_SECONDS: Final = 10.0
RETRY_AFTER_CAP: Final = 24 * 3600.0
_BUSY: Final = (429, 503)
_CHUNK: Final = 1 << 16
_OFFLINE: Final = "where there is a network, 'sevkit kds fetch --dest DIR'; here '--cache DIR'"


@final
@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes of one resource, and the address that they came from."""

    data: bytes
    url: str


class Fetcher(Protocol):
    """What gives resources: ``KeyService``, or something simulated."""

    @property
    def base_url(self) -> str:
        """The address under which the resources are."""

    def fetch(self, resource: Resource) -> Fetched:
        """Return ``resource``, in shape but not verified, or raise ``KeyServiceError``."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@final
@dataclass(frozen=True, slots=True)
class Clock:
    """Time, as far as the client needs it; replaceable, so that no test has to wait."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = _utc_now


@final
class KeyService:
    """AMD's key service, or another that has its addresses.

    ``ca`` is PEM of the only certificate authorities to accept, else the system's are. ``proxy`` is
    ``http://[USER:PASSWORD@]HOST:PORT``; TLS goes through it end to end. ``notify`` is told of
    waits. ``budget`` bounds one ``fetch``, waits included, ``attempt`` one request; in seconds.
    Safe for use by several threads. Raises ``UsageError`` (addresses) and ``FormatError`` (``ca``).
    """

    def __init__(
        self,
        base_url: str = AMD_KEY_SERVICE,
        *,
        ca: bytes | None = None,
        proxy: str | None = None,
        budget: float = BUDGET_SECONDS,
        attempt: float = ATTEMPT_SECONDS,
        notify: Callable[[str], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._base: Final = check_base_url(base_url)
        self._ca: Final = ca
        self._proxy: Final = None if proxy is None else check_proxy(proxy)
        self._budget: Final = budget
        self._attempt: Final = attempt
        self._notify: Final = notify
        self._clock: Final = clock or Clock()
        if ca is not None:
            try:
                DeadlineContext.make(ca, Deadline(1, self._clock.monotonic))
            except (ssl.SSLError, ValueError) as error:
                raise FormatError("key service CA", "holds no certificate in PEM") from error

    @property
    def base_url(self) -> str:
        """The address of the key service, without a final slash."""
        return self._base

    def fetch(self, resource: Resource) -> Fetched:
        """Return ``resource`` in its outer shape, not verified, or raise ``KeyServiceError``."""
        end = self._clock.monotonic() + self._budget
        backoff = FIRST_BACKOFF_SECONDS
        attempt = 1
        while True:
            left = end - self._clock.monotonic()
            try:
                return self._ask(resource, min(self._attempt, left))
            except _Busy as busy:
                wait = backoff if busy.retry_after is None else max(busy.retry_after, 1.0)
                if attempt == ATTEMPTS or wait >= end - self._clock.monotonic():
                    raise KeyServiceError(
                        f"key service is busy (status {busy.status}), try again in {wait:.0f} s",
                        hint=f"it allows about one request in ten seconds; or {_OFFLINE}",
                        retry_after=wait,
                    ) from None
            if self._notify is not None:
                self._notify(f"key service asks to wait {wait:.0f} s")
            self._clock.sleep(wait)
            backoff *= 2
            attempt += 1

    def _ask(self, resource: Resource, seconds: float) -> Fetched:
        deadline = Deadline(seconds, self._clock.monotonic)
        url = resource.url(self._base)
        try:
            data = self._transfer(resource, url, deadline)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise _explain(error) from error
        except ValueError as error:
            raise KeyServiceError("key service does not speak HTTP", hint=_CHECK_URL) from error
        try:
            check_content(resource, data)
        except FormatError as error:
            raise KeyServiceError(
                f"key service answered with something else: {error.message}",
                hint="does a proxy or a captive portal answer in its place?",
            ) from error
        return Fetched(data, url)

    def _transfer(self, resource: Resource, url: str, deadline: Deadline) -> bytes:
        context = DeadlineContext.make(self._ca, deadline)
        with contextlib.closing(context), _pools(self._proxy, context) as pools:
            response = pools.request(
                "GET",
                url,
                headers={"User-Agent": f"sevkit/{__version__}", "Accept-Encoding": "identity"},
                timeout=urllib3.Timeout(
                    connect=min(CONNECT_SECONDS, deadline.left()), read=deadline.left()
                ),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                self._check_status(resource, response)
                return _read(response, size_limit(resource))
            finally:
                response.close()

    def _check_status(self, resource: Resource, response: urllib3.BaseHTTPResponse) -> None:
        status = response.status
        if status == 200:
            return
        if status in _BUSY:
            word = response.headers.get("Retry-After")
            raise _Busy(status, parse_retry_after(word, self._clock.now()))
        if 300 <= status < 400:
            message = f"key service answered with a redirect ({status}), which is not followed"
            raise KeyServiceError(message, hint=_CHECK_URL)
        if status == 404:
            raise KeyServiceError(
                f"key service does not know {resource}",
                hint="is the product the chip's, and the TCB version the report's reported one?",
            )
        raise KeyServiceError(f"key service answered with status {status}", hint=_CHECK_URL)


class _Busy(Exception):
    """The key service asks to come again."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(status)
        self.status = status
        self.retry_after = retry_after


class _Connection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        if not isinstance(self.ssl_context, DeadlineContext):
            raise TypeError
        return connect(self._dns_host, self.port, self.ssl_context.deadline)


class _Pool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Connection


def _pools(proxy: str | None, context: DeadlineContext) -> urllib3.PoolManager:
    if proxy is None:
        pools = urllib3.PoolManager(ssl_context=context)
    else:
        parts = urllib.parse.urlsplit(proxy)
        credentials = (
            f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            if parts.username is not None
            else None
        )
        pools = urllib3.ProxyManager(
            f"http://{parts.netloc.rpartition('@')[2]}",
            proxy_headers=urllib3.make_headers(proxy_basic_auth=credentials),
            ssl_context=context,
        )
    pools.pool_classes_by_scheme = {"https": _Pool}
    return pools


def check_proxy(proxy: str) -> str:
    """Return the address of an HTTP proxy, or raise ``UsageError``, which never quotes it."""
    hint = "for example http://proxy.example:3128"
    try:
        parts = urllib.parse.urlsplit(proxy)
        known = parts.scheme == "http" and parts.hostname and parts.port is not None
    except ValueError as error:
        raise UsageError("proxy address is ill-formed", hint=hint) from error
    if not known or parts.query or parts.fragment or parts.path not in {"", "/"}:
        raise UsageError("proxy address must be http://[USER:PASSWORD@]HOST:PORT", hint=hint)
    return proxy


def parse_retry_after(word: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for, 0 to a day, or None.

    Seconds or an HTTP date (RFC 9110 10.2.3); what is neither counts as absent.
    """
    word = (word or "").strip()
    if word.isascii() and word.isdigit():
        return min(float(word[:9]) if len(word) <= 9 else RETRY_AFTER_CAP, RETRY_AFTER_CAP)
    try:
        moment = email.utils.parsedate_to_datetime(word[:64])
        seconds = (moment.astimezone(UTC) - now).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_CAP)


def _read(response: urllib3.BaseHTTPResponse, limit: int) -> bytes:
    too_large = KeyServiceError(
        f"key service sends more than {limit} bytes",
        hint="does a proxy or a captive portal answer in its place?",
    )
    declared = response.headers.get("Content-Length", "")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise too_large
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise KeyServiceError("key service compresses its answer, which was not asked for")
    found = bytearray()
    while chunk := response.read(_CHUNK):
        found += chunk
        if len(found) > limit:
            raise too_large
    return bytes(found)


_CHECK_URL: Final = "check --kds-url"

#: What went wrong below HTTP: the first row that fits anything in the chain of causes.
_FAILURES: Final[tuple[tuple[type[BaseException], str, str], ...]] = (
    (
        ssl.SSLCertVerificationError,
        "key service's TLS certificate is not trusted",
        "--kds-ca FILE names the authority of a private key service",
    ),
    (socket.gaierror, "key service's name cannot be resolved", _OFFLINE),
    (urllib3.exceptions.ProxyError, "proxy did not connect to the key service", "check the proxy"),
    (ConnectionRefusedError, "key service refused the connection", _OFFLINE),
    (TimeoutError, "key service did not answer in time", f"try again; or {_OFFLINE}"),
    (urllib3.exceptions.TimeoutError, "key service did not answer in time", _OFFLINE),
    (http.client.IncompleteRead, "key service broke off in the middle of its answer", "try again"),
    (
        http.client.RemoteDisconnected,
        "key service hung up without an answer",
        f"try again; or {_OFFLINE}",
    ),
    (http.client.HTTPException, "key service does not speak HTTP", _CHECK_URL),
    (urllib3.exceptions.InvalidHeader, "key service does not speak HTTP", _CHECK_URL),
    (ssl.SSLError, "key service does not speak TLS that we accept", _CHECK_URL),
    (ConnectionError, "key service hung up", f"try again; or {_OFFLINE}"),
)


def _explain(error: BaseException) -> KeyServiceError:
    causes = tuple(causes_of(error))
    for kind, message, hint in _FAILURES:
        found = next((cause for cause in causes if isinstance(cause, kind)), None)
        if isinstance(found, ssl.SSLCertVerificationError):
            return KeyServiceError(f"{message}: {found.verify_message}", hint=hint)
        if found is not None:
            return KeyServiceError(message, hint=hint)
    return KeyServiceError("key service cannot be reached", hint=_OFFLINE)
