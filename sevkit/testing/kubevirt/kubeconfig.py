"""How to reach an API server, from a kubeconfig file: address, authority, and who we are.

Only what stands in the file or in files that it names: programs that fetch credentials are not run,
and a server whose certificate is not to be checked is not spoken to.

Source: Kubernetes ``client-go/tools/clientcmd/api/v1`` (Config).
"""

from __future__ import annotations

import base64
import binascii
import ssl
import tempfile
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.documents import parse_documents
from sevkit.errors import FormatError, HostReadError, UsageError
from sevkit.secret import Secret

if TYPE_CHECKING:
    from sevkit.testing.kubevirt.launch_wish import Document

_NAME: Final = "kubeconfig"


@final
@dataclass(frozen=True, slots=True)
class Access:
    """One API server as one user; ``token`` may be empty where a client certificate speaks."""

    host: str
    port: int
    context: ssl.SSLContext
    token: Secret


def read_access(path: Path) -> Access:
    """Return the current context of a kubeconfig file.

    Raises ``HostReadError``, ``FormatError``, and ``UsageError`` for what is not supported.
    """
    (config,) = parse_documents(_read(path), _NAME) or ({},)
    if not isinstance(config, dict):
        raise FormatError(_NAME, "is not a mapping")
    context = _entry(config, "context", config.get("current-context"))
    cluster = _entry(config, "cluster", context.get("cluster"))
    user = _entry(config, "user", context.get("user"))
    server = urllib.parse.urlsplit(str(cluster.get("server", "")))
    if server.scheme != "https" or not server.hostname or server.path.strip("/"):
        raise UsageError(f"{_NAME}: the server is not an https address without a path")
    if cluster.get("insecure-skip-tls-verify"):
        raise UsageError(f"{_NAME}: insecure-skip-tls-verify is not supported")
    for name in ("exec", "auth-provider", "username"):
        if name in user:
            raise UsageError(f"{_NAME}: credentials by {name} are not supported")
    folder = path.parent
    authority = _data(cluster, "certificate-authority", folder)
    tls = ssl.create_default_context(cadata=authority.decode("ascii") if authority else None)
    _load_client(tls, user, folder)
    token = user.get("token", "")
    if not token and "tokenFile" in user:
        token = _read(folder / str(user["tokenFile"])).decode("ascii").strip()
    return Access(server.hostname, server.port or 443, tls, Secret(str(token).encode()))


def _entry(config: Document, kind: str, name: object) -> Document:
    rows = config.get(f"{kind}s") or []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and row.get("name") == name:
            found = row.get(kind)
            return found if isinstance(found, dict) else {}
    raise FormatError(_NAME, f"has no {kind} {str(name)[:40]!r}")


def _data(entry: Document, name: str, folder: Path) -> bytes:
    inline: Any = entry.get(f"{name}-data")
    if inline:
        try:
            return base64.b64decode(str(inline), validate=True)
        except binascii.Error as error:
            raise FormatError(_NAME, f"{name}-data is not base64") from error
    return _read(folder / str(entry[name])) if entry.get(name) else b""


def _load_client(tls: ssl.SSLContext, user: Document, folder: Path) -> None:
    certificate, key = (_data(user, f"client-{name}", folder) for name in ("certificate", "key"))
    if not certificate:
        return
    with tempfile.TemporaryDirectory(prefix="sevkit-kubeconfig-") as temporary:
        # ssl reads keys from files only; the folder is 0700 and gone when the key is loaded.
        pair = Path(temporary, "pair.pem")
        pair.write_bytes(key + b"\n" + certificate)
        tls.load_cert_chain(pair)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise HostReadError(f"{path}: cannot be read: {error.strerror}") from error
