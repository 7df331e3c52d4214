"""The certificate that is served, and how another takes its place while connections go on.

    certificates = Certificates(FolderPairs(Path("/tls")), told=log_it)
    certificates.poll()        # now, and every few seconds from any thread
    certificates.current       # the context for the next handshake, or None

Theory of operation. A pair is loaded into a context of its own, and only if all is well does that
context take the place of the former: a handshake begins with the context that is current then,
and a connection keeps the one it began with. So a pair that does not match, is cut, or has
expired changes nothing but what is told. (Loading into a context in use would first put the new
certificate there, and then fail over the key.)

Bytes go from memory into OpenSSL through an anonymous file, the only way that Python has: what
was checked is what is loaded, and a key lies on no disk.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, final

from cryptography import x509

from sevkit.errors import CertificateExpired, FormatError, HostReadError, SevkitError
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Of a certificate chain or a key; etcd holds no more of a whole Secret than 1 MiB.
FILE_LIMIT: Final = 1 << 20
#: Forward secrecy and authenticated encryption only, where TLS 1.2 leaves a choice.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_CERTIFICATE: Final = "tls.crt"
_KEY: Final = "tls.key"


@final
@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with what chains it up, leaf first, and the leaf's key; both PEM."""

    certificate: bytes
    key: Secret

    @property
    def digest(self) -> bytes:
        """What tells one pair from another, without being of use to anybody."""
        lengths = f"{len(self.certificate)} {len(self.key)} ".encode()
        return hashlib.sha256(lengths + self.certificate + self.key.reveal()).digest()


@final
@dataclass(frozen=True, slots=True)
class Loaded:
    """A pair that is ready to be served, and the end of its leaf's validity in UTC."""

    context: ssl.SSLContext
    not_after: datetime


def load_pair(pair: Pair, now: datetime) -> Loaded:
    """Return a server context for a pair.

    Raises ``FormatError`` for what is no PEM or no match, ``CertificateExpired`` for a leaf that
    is not valid at ``now``, ``HostReadError`` where the process has no descriptor left.
    """
    try:
        leaf, *_ = x509.load_pem_x509_certificates(pair.certificate)
    except ValueError as error:
        raise FormatError(_CERTIFICATE, "is not a chain of PEM certificates") from error
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        span = f"{leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}"
        raise CertificateExpired(
            f"serving certificate is valid from {span} only",
            hint="is it renewed in time, and is the clock right?",
        )
    return Loaded(_context(pair), leaf.not_valid_after_utc)


def _context(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0  # no API server resumes a session
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        with os.fdopen(os.memfd_create("pair", os.MFD_CLOEXEC), "wb") as file:
            file.write(pair.certificate + b"\n" + pair.key.reveal())
            file.flush()
            # No password: OpenSSL would ask for one on a terminal.
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=b"")
    except (ssl.SSLError, ValueError) as error:  # an SSLError is an OSError, too
        raise FormatError(
            _KEY,
            "is not the certificate's key",
            hint="were the two written at different times?",
        ) from error
    except OSError as error:
        raise HostReadError(
            f"cannot load the serving certificate: {(error.strerror or 'error').lower()}"
        ) from error
    return context


class Pairs(Protocol):
    """Where pairs come from."""

    def read(self) -> Pair:
        """Return the pair as it is now, or raise a ``SevkitError``."""


@final
class FolderPairs:
    """``tls.crt`` and ``tls.key`` in a folder, as cert-manager's Secret is mounted.

    The kubelet swaps all files of a volume at once, by the link ``..data``: it is followed once for
    both files, so that they are of the same time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder

    def read(self) -> Pair:
        """Return the pair; raises ``HostReadError`` where there is none, or it is too large."""
        linked = self._folder / "..data"
        try:
            folder = linked.resolve(strict=True) if linked.is_symlink() else self._folder
            return Pair(_read(folder / _CERTIFICATE), Secret(_read(folder / _KEY)))
        except OSError as error:
            raise HostReadError(
                f"cannot read the serving certificate: {(error.strerror or 'error').lower()}",
                hint="is the Secret mounted, with tls.crt and tls.key?",
            ) from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(FILE_LIMIT + 1)
    if len(data) > FILE_LIMIT:
        raise HostReadError(f"{path.name} is larger than {FILE_LIMIT} bytes")
    return data


@final
class Certificates:
    """The current certificate. ``told`` hears of each pair: None if it is served, or why not.

    The same pair is told of once, and so is the same error; the pair that is served is told of
    again when it is back after another. ``poll`` and ``offer`` from one thread, the rest from any.
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        told: Callable[[SevkitError | None], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pairs: Final = pairs
        self._told: Final = told
        self._clock: Final = clock
        self._loaded: Loaded | None = None
        self._served = b""
        self._refused = ""

    @property
    def current(self) -> ssl.SSLContext | None:
        """The context for the next handshake, or None where there was no good pair yet."""
        loaded = self._loaded
        return loaded and loaded.context

    @property
    def seconds_left(self) -> float | None:
        """How long the certificate that is served is valid; negative if it is so no longer."""
        loaded = self._loaded
        return loaded and (loaded.not_after - self._clock()).total_seconds()

    def poll(self) -> None:
        """Look for another pair, and serve it if all is well with it."""
        try:
            self.offer(self._pairs.read())
        except SevkitError as error:
            self._refuse(error)

    def offer(self, pair: Pair) -> None:
        """Serve ``pair`` if all is well with it."""
        digest = pair.digest
        if digest == self._served:
            if self._refused:
                self._serve(digest)
            return
        try:
            self._loaded = load_pair(pair, self._clock())
        except SevkitError as error:
            self._refuse(error)
            return
        self._serve(digest)

    def _serve(self, digest: bytes) -> None:
        self._served, self._refused = digest, ""
        self._told(None)

    def _refuse(self, error: SevkitError) -> None:
        if error.message != self._refused:
            self._refused = error.message
            self._told(error)
