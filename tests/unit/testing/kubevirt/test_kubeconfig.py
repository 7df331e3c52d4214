from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.errors import FormatError, HostReadError, UsageError
from sevkit.pki import create_authority
from sevkit.testing.kubevirt.kubeconfig import read_access

if TYPE_CHECKING:
    from pathlib import Path

CA = create_authority("test", lifetime=timedelta(days=1))


def config(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> bytes:
    server = {"server": "https://127.0.0.1:6443"} if cluster is None else cluster
    return json.dumps(
        {
            "current-context": "here",
            "contexts": [
                {"name": "there", "context": {}},
                {"name": "here", "context": {"cluster": "c", "user": "u"}},
            ],
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": {"token": "t"} if user is None else user}],
        }
    ).encode()


def test_the_current_context_is_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(CA.certificate)
    path = tmp_path / "config"
    for entry in (
        {"certificate-authority": "ca.pem"},
        {"certificate-authority-data": base64.b64encode(CA.certificate).decode()},
    ):
        path.write_bytes(config({"server": "https://127.0.0.1:6443"} | entry))
        access = read_access(path)
        assert (access.host, access.port, access.token.reveal()) == ("127.0.0.1", 6443, b"t")
        assert len(access.context.get_ca_certs()) == 1


def test_a_token_file_and_a_client_certificate_are_read(tmp_path: Path) -> None:
    leaf = CA.issue(["client"], lifetime=timedelta(days=1), now=datetime.now(UTC))
    (tmp_path / "token").write_text("from a file\n")
    (tmp_path / "key.pem").write_bytes(leaf.key.reveal())
    path = tmp_path / "config"
    user = {
        "tokenFile": "token",
        "client-certificate-data": base64.b64encode(leaf.certificate).decode(),
        "client-key": "key.pem",
    }
    path.write_bytes(config(user=user))
    assert read_access(path).token.reveal() == b"from a file"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"[]", FormatError),
        (b"", FormatError),
        (b"{}", FormatError),
        (config({"server": "http://127.0.0.1"}), UsageError),
        (config({"server": "https://127.0.0.1/prefix"}), UsageError),
        (config({}), UsageError),
        (config({"server": "https://x", "insecure-skip-tls-verify": True}), UsageError),
        (config({"server": "https://x", "certificate-authority-data": "!"}), FormatError),
        (config({"server": "https://x", "certificate-authority": "absent"}), HostReadError),
        (config(user={"exec": {}}), UsageError),
        (config(user={"auth-provider": {}}), UsageError),
        (config(user={"username": "admin"}), UsageError),
    ],
)
def test_what_is_not_supported_is_refused(
    tmp_path: Path, data: bytes, error: type[Exception]
) -> None:
    path = tmp_path / "config"
    path.write_bytes(data)
    with pytest.raises(error):
        read_access(path)


def test_an_absent_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(HostReadError):
        read_access(tmp_path / "absent")
