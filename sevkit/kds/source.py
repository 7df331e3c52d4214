"""Where a verifier has its certificates from: the cache first, then the key service.

A VCEK never changes, so what is cached is used for ever; a revocation list until its nextUpdate.
Nothing is verified here. A verifier that finds a cached certificate bad calls ``replace``, which
drops it and asks the key service, so that a poisoned cache costs a request and never a verdict.
Equal requests at the same time become one: the key service allows about one in ten seconds.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import KeyServiceError
from sevkit.kds import urls
from sevkit.kds.content import CRLS, crl_next_update
from sevkit.kds.urls import Kind, Resource

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.abi.product import ProductLine
    from sevkit.abi.tcb import TcbVersion
    from sevkit.kds.cache import CertificateCache, Entry
    from sevkit.kds.client import Fetcher

    _Flight = tuple[Resource, datetime | None, str]

#: One chip at one TCB version has one VCEK and one chip one CEK, whoever hands it out.
_IMMUTABLE: Final = (Kind.VCEK, Kind.CEK)


def _utc_now() -> datetime:
    return datetime.now(UTC)


@final
@dataclass(frozen=True, slots=True)
class Sourced:
    """The bytes of one resource, in shape but not verified.

    ``origin`` says for people where they are from, ``url`` which address gave them once. ``cached``
    says that the cache had them: then ``CertificateSource.replace`` may still find better ones.
    """

    resource: Resource
    data: bytes
    url: str
    origin: str
    cached: bool

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()


@final
class CertificateSource:
    """A cache and a key service as one. Either may be None; ``fetcher`` None means offline.

    ``notify`` is told, in one line, of cache entries that were dropped and could not be kept. Safe
    for use by several threads.
    """

    def __init__(
        self,
        cache: CertificateCache | None,
        fetcher: Fetcher | None,
        *,
        notify: Callable[[str], None] | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._cache: Final = cache
        self._fetcher: Final = fetcher
        self._notify: Final = notify
        self._now: Final = now
        self._lock: Final = threading.Lock()
        self._flights: Final[dict[_Flight, Future[Sourced]]] = {}

    def vcek(self, line: ProductLine, hwid: bytes, tcb: TcbVersion) -> Sourced:
        """Return a VCEK in DER. ``urls.vcek`` says what is asked, and raises for what cannot be.

        Raises ``KeyServiceError`` if it could not be had.
        """
        return self.get(urls.vcek(line, hwid, tcb))

    def chain(self, line: ProductLine, *, vlek: bool) -> Sourced:
        """Return ASK, or ASVK if ``vlek``, and ARK in PEM; errors as ``vcek``."""
        return self.get(urls.chain(line, vlek=vlek))

    def crl(self, line: ProductLine, *, vlek: bool, at: datetime | None = None) -> Sourced:
        """Return a line's revocation list in DER, one whose nextUpdate is later than ``at``.

        ``at`` is the time of verification, else now. A list that is cached and past its nextUpdate,
        or without one, is fetched again; offline that is a ``KeyServiceError``. The verifier checks
        signature and times of what it gets.
        """
        return self.get(urls.crl(line, vlek=vlek), at=at)

    def cek(self, chip_id: bytes) -> Sourced:
        """Return a CEK certificate in AMD's SEV format; errors as ``vcek``."""
        return self.get(urls.cek(chip_id))

    def get(self, resource: Resource, *, at: datetime | None = None) -> Sourced:
        """Return ``resource`` from the cache, else from the key service, and keep it."""
        moment = at or self._now()
        # What is fresh depends on the moment, so those who name different ones do not share.
        return self._once(
            (resource, at, "get"), lambda: self._cached(resource, moment) or self._fetch(resource)
        )

    def replace(self, sourced: Sourced) -> Sourced:
        """Drop a cached entry that did not verify, and ask the key service for another.

        Raises ``KeyServiceError`` offline, or if the key service does not give it.
        """
        if self._cache is not None:
            self._say(self._cache.drop(sourced.resource))
        return self._once(
            (sourced.resource, None, "replace"),
            lambda: self._fetch(sourced.resource, "the cached one does not verify and was dropped"),
        )

    def drop(self, resource: Resource) -> None:
        """Drop what the cache has of ``resource``: what was fetched and stored did not verify."""
        if self._cache is not None:
            self._say(self._cache.drop(resource))

    def _cached(self, resource: Resource, moment: datetime) -> Sourced | None:
        if self._cache is None:
            return None
        found = self._cache.load(resource)
        self._say(found.reason)
        entry = found.entry
        if entry is None or not self._usable(resource, entry, moment):
            return None
        when = entry.fetched_at.strftime("%Y-%m-%d")
        origin = f"cache, from {entry.url} on {when}"
        return Sourced(resource, entry.data, entry.url, origin, cached=True)

    def _usable(self, resource: Resource, entry: Entry, moment: datetime) -> bool:
        """Whether a cached entry still stands for what the key service would give."""
        other_service = self._fetcher is not None and entry.url != resource.url(
            self._fetcher.base_url
        )
        if other_service and resource.kind not in _IMMUTABLE:
            # A rehearsal's list or chain says nothing of AMD's, and the other way round.
            return False
        if resource.kind not in CRLS:
            return True
        later = crl_next_update(entry.data)
        if later is not None and moment < later:
            return True
        if self._fetcher is None:
            raise KeyServiceError(
                f"cached {resource} is past its nextUpdate, and this is offline", hint=_FILL
            )
        return False

    def _fetch(self, resource: Resource, why: str = "it is not in the cache") -> Sourced:
        if self._fetcher is None:
            raise KeyServiceError(f"{resource}: {why}, and this is offline", hint=_FILL)
        fetched = self._fetcher.fetch(resource)
        if self._cache is not None:
            self._say(
                self._cache.store(resource, fetched.data, url=fetched.url, fetched_at=self._now())
            )
        return Sourced(resource, fetched.data, fetched.url, fetched.url, cached=False)

    def _once(self, key: _Flight, work: Callable[[], Sourced]) -> Sourced:
        """Do ``work``, or wait for a thread that is doing it, and share its answer or error."""
        with self._lock:
            flight = self._flights.get(key)
            first = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if not first:
            try:
                return flight.result()
            except KeyServiceError as error:
                raise KeyServiceError(
                    error.message, hint=error.hint, retry_after=error.retry_after
                ) from error
        try:
            answer = work()
        except BaseException as error:
            with self._lock:
                del self._flights[key]
            flight.set_exception(error)
            raise
        with self._lock:
            del self._flights[key]
        flight.set_result(answer)
        return answer

    def _say(self, message: str) -> None:
        if message and self._notify is not None:
            self._notify(message)


_FILL: Final = "fill it where there is a network: sevkit kds fetch --dest DIR; then --cache DIR"
