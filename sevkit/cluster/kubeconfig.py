"""Kubeconfig files, read strictly: what is not understood is refused, never left out.

An entry that would change who we are (``as``), whom we trust (``insecure-skip-tls-verify``) or what
is run on this machine (``exec``) is an error unless it is obeyed. Several files merge as kubectl
merges them: the first that names a cluster, user, context or current context wins. Paths inside
are relative to the file that has them.

Source: kubernetes.io, "kubeconfig (v1)"; "Organizing Cluster Access Using kubeconfig Files".
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.cluster.access import (
    Access,
    ClientCertificate,
    FixedToken,
    TokenFile,
    check_server,
    check_token,
    read_file,
)
from sevkit.cluster.exec_credential import ExecToken
from sevkit.documents import DOCUMENT_LIMIT, parse_documents
from sevkit.errors import FormatError, InsecureUsage, UsageError
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sevkit.cluster.access import TokenSource
    from sevkit.documents import Json

_STRUCTURE: Final = "kubeconfig"
_KINDS: Final = {"clusters": "cluster", "users": "user", "contexts": "context"}
_CLUSTER_KEYS: Final = frozenset(
    {
        "server",
        "certificate-authority",
        "certificate-authority-data",
        "insecure-skip-tls-verify",
        "tls-server-name",
        "proxy-url",
        "disable-compression",
        "extensions",
    }
)
_USER_KEYS: Final = frozenset(
    {
        "client-certificate",
        "client-certificate-data",
        "client-key",
        "client-key-data",
        "token",
        "tokenFile",
        "exec",
        "extensions",
    }
)
_HINTS: Final = {
    "auth-provider": "it was removed from Kubernetes; use an exec plugin",
    "username": "passwords were removed from Kubernetes; use a token",
    "password": "passwords were removed from Kubernetes; use a token",
}


@final
@dataclass(frozen=True, slots=True)
class _Entry:
    """A cluster, user or context, and the folder of the file that it stands in."""

    what: str
    values: Mapping[str, Json]
    folder: Path

    def text(self, key: str) -> str:
        """Return a text, or "" where there is none."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise FormatError(_STRUCTURE, f"{key} of {self.what} is no text")
        return value or ""

    def flag(self, key: str) -> bool:
        """Return a flag, off where there is none."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise FormatError(_STRUCTURE, f"{key} of {self.what} is neither true nor false")
        return bool(value)

    def data_or_file(self, key: str) -> bytes | Path | None:
        """Return what ``key``-data holds, else the file that ``key`` names."""
        encoded, name = self.text(f"{key}-data"), self.text(key)
        if encoded:
            try:
                return base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError) as error:
                message = f"{key}-data of {self.what} is not base64"
                raise FormatError(_STRUCTURE, message) from error
        return self.folder / name if name else None

    def only(self, known: frozenset[str]) -> None:
        """Refuse keys that are not ``known``; empty ones say nothing."""
        for key, value in self.values.items():
            if key not in known and value not in (None, "", [], {}):
                raise UsageError(
                    f"{self.what} of the kubeconfig has {key[:80]!r}, which is not supported",
                    hint=_HINTS.get(key, "use a context without it"),
                )


def read_kubeconfig(
    paths: Sequence[Path],
    *,
    context: str = "",
    plugin_environ: Mapping[str, str] | None = None,
) -> Access:
    """Return how to reach the API server of ``context``, by default the current one.

    ``plugin_environ`` is the environment for an ``exec`` plugin; None allows no plugin. Files that
    do not exist are passed over, as kubectl does. Raises ``UsageError`` for what is missing or not
    supported, ``InsecureUsage`` for TLS without verification and for a plugin that is not allowed,
    ``FormatError`` for what is no kubeconfig, and ``ClusterError`` for files that cannot be read.
    """
    documents = [(path, _document(path)) for path in paths if path.exists()]
    if not documents:
        raise UsageError("there is no kubeconfig", hint="name one with '--kubeconfig FILE'")
    wanted = context or next(
        (str(current) for _, document in documents if (current := document.get("current-context"))),
        "",
    )
    if not wanted:
        raise UsageError("kubeconfig has no current context", hint="name one with '--context'")
    chosen = _find(documents, "contexts", wanted)
    cluster = _find(documents, "clusters", chosen.text("cluster"))
    user = _find(documents, "users", chosen.text("user")) if chosen.text("user") else None
    return _access(cluster, user, plugin_environ)


def _document(path: Path) -> Mapping[str, Json]:
    data = read_file(path, _STRUCTURE, limit=DOCUMENT_LIMIT)
    found = parse_documents(data, _STRUCTURE)
    document = found[0] if len(found) == 1 else None
    if not isinstance(document, dict):
        raise FormatError(_STRUCTURE, f"{path.name} is not one object")
    return document


def _find(documents: list[tuple[Path, Mapping[str, Json]]], kind: str, name: str) -> _Entry:
    inner = _KINDS[kind]
    for path, document in documents:
        entries = document.get(kind) or []
        if not isinstance(entries, list):
            raise FormatError(_STRUCTURE, f"{kind} of {path.name} is no list")
        for entry in entries:
            values = entry.get(inner) if isinstance(entry, dict) else None
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(values, dict):
                return _Entry(f"{inner} {name[:80]!r}", values, path.parent)
    raise UsageError(f"kubeconfig has no {inner} {name[:80]!r}")


def _access(cluster: _Entry, user: _Entry | None, environ: Mapping[str, str] | None) -> Access:
    cluster.only(_CLUSTER_KEYS)
    if cluster.flag("insecure-skip-tls-verify"):
        raise InsecureUsage(
            f"{cluster.what} of the kubeconfig turns off the check of the API server's certificate",
            hint="set certificate-authority-data instead",
        )
    proxy = cluster.text("proxy-url")
    if proxy and not proxy.startswith("http://"):
        raise UsageError(f"proxy-url of {cluster.what} has to begin with http://")
    server, ca = check_server(cluster.text("server")), cluster.data_or_file("certificate-authority")
    name = cluster.text("tls-server-name")
    certificate = token = None
    if user is not None:
        user.only(_USER_KEYS)
        certificate = _certificate(user)
        token = _token(user) or _plugin(user, environ)
    return Access(server, ca, token, certificate, name or None, proxy or None)


def _certificate(user: _Entry) -> ClientCertificate | None:
    certificate, key = user.data_or_file("client-certificate"), user.data_or_file("client-key")
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError(f"{user.what} of the kubeconfig has only one of certificate and key")
    return ClientCertificate(certificate, Secret(key) if isinstance(key, bytes) else key)


def _token(user: _Entry) -> TokenSource | None:
    """Return the token; a file goes before a value, as in kubectl."""
    file, value = user.text("tokenFile"), user.text("token")
    if file:
        return TokenFile(user.folder / file)
    return FixedToken(check_token(value.encode(), _STRUCTURE)) if value else None


def _plugin(user: _Entry, environ: Mapping[str, str] | None) -> TokenSource | None:
    values = user.values.get("exec")
    if values is None:
        return None
    if environ is None:
        raise InsecureUsage(
            f"{user.what} of the kubeconfig runs a program to get a token",
            hint="'--allow-kubeconfig-exec' lets it, or use a context with a token",
        )
    if not isinstance(values, dict):
        raise FormatError(_STRUCTURE, f"exec of {user.what} is no object")
    return ExecToken(values, user.folder, environ)
