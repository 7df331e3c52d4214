"""How to reach an API server, and as whom: addresses, trust and credentials, as values.

A pod has a folder with a token, which the kubelet renews long before it expires, and the
authority behind the API server's certificate. Both are read again whenever they are used, so that
nothing has to be told that they were renewed.

Source: kubernetes.io, "Accessing the Kubernetes API from a Pod"; ServiceAccount token projection.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, final

from sevkit.errors import ClusterError, InsecureUsage, UsageError
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_LIMIT: Final = 64 << 10
FILE_LIMIT: Final = 1 << 20
_TOKEN: Final = re.compile(rb"[\x21-\x7e]+")


class TokenSource(Protocol):
    """What has a bearer token, when one is needed."""

    def token(self) -> Secret:
        """Return the token that is valid now, or raise ``ClusterError``."""


@final
@dataclass(frozen=True, slots=True)
class FixedToken:
    """A token that does not change."""

    secret: Secret

    def token(self) -> Secret:
        """Return it."""
        return self.secret


@final
@dataclass(frozen=True, slots=True)
class TokenFile:
    """A token in a file that somebody renews: read anew each time, which costs microseconds."""

    path: Path

    def token(self) -> Secret:
        """Return what the file holds now. Raises ``ClusterError``."""
        return check_token(read_file(self.path, "token file", limit=TOKEN_LIMIT), "token file")


@final
@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate chain and its key, both PEM, or files that hold them and are read anew."""

    certificate: bytes | Path
    key: Secret | Path


@final
@dataclass(frozen=True, slots=True)
class Access:
    """One API server and one identity.

    ``server`` is ``https://HOST[:PORT][/PREFIX]``. ``ca`` is PEM of the only authorities to accept,
    or the file that holds it; None takes the system's. ``tls_name`` is the name to expect in the
    server's certificate, if another than its address; ``proxy`` is ``http://HOST:PORT``. No proxy
    is taken from the environment.
    """

    server: str
    ca: bytes | Path | None = None
    token: TokenSource | None = None
    certificate: ClientCertificate | None = None
    tls_name: str | None = None
    proxy: str | None = None


def in_cluster(environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Access:
    """Return how a pod reaches its API server, as its service account.

    Raises ``UsageError`` where ``environ`` or ``folder`` are not a pod's.
    """
    host = environ.get("KUBERNETES_SERVICE_HOST")
    port = environ.get("KUBERNETES_SERVICE_PORT")
    hint = "in a pod both are there; elsewhere '--kubeconfig FILE'"
    if not host or not port:
        raise UsageError("environment does not say where the API server is", hint=hint)
    token, ca = folder / "token", folder / "ca.crt"
    if not token.is_file() or not ca.is_file():
        raise UsageError(
            "service account's token and authority are not mounted",
            hint="does the pod set automountServiceAccountToken to false?",
        )
    address = f"[{host}]" if ":" in host else host
    return Access(check_server(f"https://{address}:{port}"), ca, TokenFile(token))


def check_server(server: str) -> str:
    """Return an API server's address without a final slash.

    Raises ``InsecureUsage`` for plain HTTP, which shows the token to everyone, and ``UsageError``
    for what is no address.
    """
    try:
        parts = urllib.parse.urlsplit(server)
        is_plain = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise UsageError("API server's address is ill-formed") from error
    if parts.scheme == "http":
        raise InsecureUsage("API server's address is plain http", hint="write https://…")
    ill = parts.username is not None or parts.query or parts.fragment
    if parts.scheme != "https" or not is_plain or ill or not server.isprintable() or " " in server:
        raise UsageError("API server's address must be https://HOST[:PORT]")
    return server.rstrip("/")


def check_token(data: bytes, source: str) -> Secret:
    """Return a token without the white space around it, or raise ``ClusterError``."""
    word = data.strip()
    if not _TOKEN.fullmatch(word):
        # Never quoted; and never sent: a line feed in it would begin another header.
        raise ClusterError(f"{source} holds no bearer token", hint="is it written just now?")
    return Secret(word)


def read_file(path: Path, what: str, *, limit: int = FILE_LIMIT) -> bytes:
    """Return a small file's bytes. Raises ``ClusterError``, which names ``what`` it is."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        reason = (error.strerror or "input/output error").lower()
        raise ClusterError(f"{what} {path.name} cannot be read: {reason}") from error
    if len(data) > limit:
        raise ClusterError(f"{what} {path.name} is larger than {limit} bytes")
    return data
