"""``python -m webhooks --self-managed`` where an API server is reached and says nothing."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from hack.webhook_process import WebhookProcess
from sevkit.pki import create_authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What the server takes to drain, and some.
END_SECONDS: Final = 9.0


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig of an API server that takes connections and does nothing more."""
    authority = create_authority("x", lifetime=timedelta(days=1)).certificate
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        cluster = {
            "server": f"https://127.0.0.1:{listener.getsockname()[1]}",
            "certificate-authority-data": base64.b64encode(authority).decode(),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "c", "user": {"token": "token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        }
        path = tmp_path / "kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        yield path


def test_it_is_not_ready_says_why_and_ends_when_asked(silent: Path, tmp_path: Path) -> None:
    words = ["--kubeconfig", str(silent), "--self-managed", "--namespace", "ours"]
    log = tmp_path / "log"
    with WebhookProcess(words, log) as webhook:
        deadline = time.monotonic() + 30
        status, said = 0, ""
        while status != 503 or "server does not accept" in said:
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError):
                status, said = webhook.get("/readyz")
            time.sleep(0.05)
        assert "no certificate yet" in said
        assert webhook.get("/healthz")[0] == 200
        with (
            socket.create_connection(("127.0.0.1", webhook.port), timeout=5) as client,
            contextlib.suppress(ConnectionResetError),
        ):
            assert client.recv(1) == b"", "without a certificate it hangs up"
        begun = time.monotonic()
        assert webhook.end() == 0
        assert time.monotonic() - begun < END_SECONDS
    assert webhook.log("critical") == []
