"""The VMIs of a real API server, for the simulated controllers: get, list, watch and JSON Patch.

A connection for each request; a watch holds one, and is ended from outside when it has to be. The
account needs what KubeVirt's own has: get, list, watch and patch of ``virtualmachineinstances``;
with KubeVirt's admission in place it must be one of KubeVirt's service accounts.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.errors import ClusterError
from sevkit.testing.kubevirt.instances import InstanceConflict, InstanceMissing, WatchExpired
from sevkit.testing.kubevirt.kubeconfig import read_access

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sevkit.testing.kubevirt.kubeconfig import Access
    from sevkit.testing.kubevirt.launch_wish import Document

_GROUP: Final = "/apis/kubevirt.io/v1"
_PLURAL: Final = "virtualmachineinstances"
_TIMEOUT: Final = 30.0
#: Seconds after which the server ends a watch; the next goes on from where it ended.
_WATCH_SECONDS: Final = 300
_POLL: Final = 0.05
_ERRORS: Final = {
    404: InstanceMissing,
    409: InstanceConflict,
    410: WatchExpired,
    422: InstanceConflict,  # what an API server answers where a patch's test fails
}


@final
class ApiServerInstances:
    """Implements ``Instances`` for the API server that ``access`` names."""

    def __init__(self, access: Access) -> None:
        self._access: Final = access

    @classmethod
    def from_kubeconfig(cls, path: Path) -> ApiServerInstances:
        """Return those of a kubeconfig's current context; errors as ``read_access``."""
        return cls(read_access(path))

    def get(self, namespace: str, name: str) -> Document | None:
        """Return a VMI, or None."""
        try:
            return self._json("GET", _path(namespace, name))
        except InstanceMissing:
            return None

    def read_all(self) -> tuple[list[Document], str]:
        """Return all VMIs of all namespaces, and the version at which they were read."""
        found = self._json("GET", f"{_GROUP}/{_PLURAL}")
        return found["items"], found["metadata"]["resourceVersion"]

    def patch(self, namespace: str, name: str, operations: list[Document]) -> Document:
        """Apply a JSON Patch."""
        body = json.dumps(operations).encode()
        return self._json("PATCH", _path(namespace, name), body)

    def watch(self, version: str, stop: threading.Event) -> Iterator[tuple[str, Document]]:
        """Yield changes since ``version``, bookmarks too, until the server ends it or ``stop``."""
        query = f"watch=true&allowWatchBookmarks=true&timeoutSeconds={_WATCH_SECONDS}"
        connection = self._connect(timeout=_WATCH_SECONDS + _TIMEOUT)
        over = threading.Event()
        try:
            target = f"{_GROUP}/{_PLURAL}?{query}&resourceVersion={version}"
            connection.request("GET", target, headers=self._headers())
            held = connection.sock
            guard = threading.Thread(target=_hang_up, args=(held, stop, over), daemon=True)
            guard.start()
            answer = connection.getresponse()
            if answer.status >= 400:
                raise _error(answer.status, answer.read())
            while line := answer.readline():
                yield _event(json.loads(line))
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not stop.is_set():
                raise ClusterError(f"the API server cannot be watched: {error}") from error
        finally:
            over.set()
            connection.close()

    def _json(self, method: str, target: str, body: bytes | None = None) -> Document:
        connection = self._connect(timeout=_TIMEOUT)
        try:
            connection.request(method, target, body, self._headers())
            answer = connection.getresponse()
            said = answer.read()
            if answer.status >= 400:
                raise _error(answer.status, said)
            found: Document = json.loads(said)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ClusterError(f"the API server cannot be asked: {error}") from error
        else:
            return found
        finally:
            connection.close()

    def _connect(self, *, timeout: float) -> http.client.HTTPSConnection:
        access = self._access
        return http.client.HTTPSConnection(
            access.host, access.port, context=access.context, timeout=timeout
        )

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "Content-Type": "application/json-patch+json"}
        token = self._access.token.reveal().decode("ascii")
        return headers | ({"Authorization": f"Bearer {token}"} if token else {})


def _path(namespace: str, name: str) -> str:
    return f"{_GROUP}/namespaces/{namespace}/{_PLURAL}/{name}"


def _error(status: int, body: bytes) -> ClusterError:
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the API server answered {status}"
    return _ERRORS.get(status, ClusterError)(message)


def _event(event: Any) -> tuple[str, Document]:  # noqa: ANN401  # any JSON value
    if event["type"] == "ERROR":
        status = event["object"]
        raise _error(int(status.get("code", 500)), json.dumps(status).encode())
    return event["type"], event["object"]


def _hang_up(held: socket.socket | None, stop: threading.Event, over: threading.Event) -> None:
    """End a connection that somebody reads from, as soon as ``stop`` is set."""
    while not over.is_set():
        if stop.wait(_POLL):
            with contextlib.suppress(OSError):
                if held is not None:
                    # Not SSLSocket's own: that would change state under its reader's feet.
                    socket.socket.shutdown(held, socket.SHUT_RDWR)
            return
