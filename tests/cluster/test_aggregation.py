"""The aggregation layer: the API server passes requests on to a server of ours, and says whose."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from hack.control_plane_client import ApiError
from sevkit.pki import create_authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hack.control_plane import ControlPlane

GROUP = "subresources.test.sevkit.io"


class _Handler(BaseHTTPRequestHandler):
    users: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.users.append(self.headers.get("X-Remote-User", ""))
        resources: list[dict[str, Any]] = [
            {"name": "things", "namespaced": True, "kind": "Thing", "verbs": ["get"]}
        ]
        body: dict[str, Any] = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{GROUP}/v1",
            "resources": resources,
        }
        if "/things/" in self.path:
            body = {"kind": "Thing", "apiVersion": f"{GROUP}/v1", "path": self.path}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def backend(namespace: str, tmp_path: Path) -> Iterator[tuple[int, bytes]]:
    """An HTTPS server on loopback, and the authority behind the name that the service has."""
    now, week = datetime.now(UTC), timedelta(days=7)
    authority = create_authority("test", lifetime=week, now=now)
    leaf = authority.issue([f"backend.{namespace}.svc"], lifetime=week, now=now)
    pair = tmp_path / "pair.pem"
    pair.write_bytes(leaf.key.reveal() + leaf.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1], authority.certificate
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_api_service_may_stand_on_an_external_name(
    control_plane: ControlPlane, namespace: str, backend: tuple[int, bytes]
) -> None:
    port, authority = backend
    admin = control_plane.admin
    admin.create(
        f"/api/v1/namespaces/{namespace}/services",
        {
            "metadata": {"name": "backend"},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        },
    )
    services = "/apis/apiregistration.k8s.io/v1/apiservices"
    admin.create(
        services,
        {
            "metadata": {"name": f"v1.{GROUP}"},
            "spec": {
                "group": GROUP,
                "version": "v1",
                "groupPriorityMinimum": 1000,
                "versionPriority": 10,
                "caBundle": base64.b64encode(authority).decode(),
                "service": {"name": "backend", "namespace": namespace, "port": port},
            },
        },
    )
    path = f"/apis/{GROUP}/v1/namespaces/{namespace}/things/one"
    deadline = time.monotonic() + 20
    found: dict[str, Any] = {}
    while time.monotonic() < deadline and not found:
        try:
            found = admin.get(path)
        except ApiError:
            time.sleep(0.2)
    admin.delete(f"{services}/v1.{GROUP}")
    assert found["path"] == path
    assert "admin" in _Handler.users
