from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sevkit.cluster.access import (
    FILE_LIMIT,
    TOKEN_LIMIT,
    FixedToken,
    TokenFile,
    check_server,
    check_token,
    in_cluster,
    read_file,
)
from sevkit.errors import ClusterError, InsecureUsage, UsageError
from sevkit.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

ENVIRON = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("one.two.three\n")
    (tmp_path / "ca.crt").write_text("pem")
    return tmp_path


def test_a_pod_reaches_its_api_server_as_its_service_account(folder: Path) -> None:
    access = in_cluster(ENVIRON, folder)
    assert access.server == "https://10.96.0.1:443"
    assert access.ca == folder / "ca.crt"
    assert access.token is not None
    assert access.token.token() == Secret(b"one.two.three")
    assert access.proxy is None


def test_an_ipv6_service_gets_brackets(folder: Path) -> None:
    environ = {**ENVIRON, "KUBERNETES_SERVICE_HOST": "fd00::1"}
    assert in_cluster(environ, folder).server == "https://[fd00::1]:443"


@pytest.mark.parametrize("missing", sorted(ENVIRON))
@pytest.mark.parametrize("value", ["", None])
def test_outside_of_a_pod_it_is_refused(folder: Path, missing: str, value: str | None) -> None:
    environ = {name: word for name, word in ENVIRON.items() if name != missing}
    if value is not None:
        environ[missing] = value
    with pytest.raises(UsageError, match="environment does not say"):
        in_cluster(environ, folder)


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_a_pod_without_a_token_is_told_why(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(UsageError, match="not mounted") as caught:
        in_cluster(ENVIRON, folder)
    assert "automountServiceAccountToken" in caught.value.hint


def test_a_renewed_token_is_seen_at_once(tmp_path: Path) -> None:
    """As the kubelet renews: a new folder, and a link to it that is replaced."""
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "token").write_text(f"token-{number}")
    (tmp_path / "data").symlink_to("1")
    source = TokenFile(tmp_path / "data" / "token")
    assert source.token() == Secret(b"token-1")
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").rename(tmp_path / "data")
    assert source.token() == Secret(b"token-2")


@pytest.mark.parametrize(
    "data", [b"", b" \n", b"a b", b"a\nX-Header: b", b"a\x00b", b"a\xffb", "tökén".encode()]
)
def test_what_is_no_token_is_neither_sent_nor_quoted(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(data)
    with pytest.raises(ClusterError) as caught:
        TokenFile(path).token()
    assert caught.value.message == "token file holds no bearer token"


def test_a_token_that_is_gone_or_huge_is_an_error_and_not_nobody(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no such file"):
        TokenFile(tmp_path / "token").token()
    (tmp_path / "token").write_bytes(b"x" * (TOKEN_LIMIT + 1))
    with pytest.raises(ClusterError, match="larger than"):
        TokenFile(tmp_path / "token").token()
    with pytest.raises(ClusterError, match="is a directory"):
        TokenFile(tmp_path).token()


def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 1 << 40)
    with pytest.raises(ClusterError, match=f"larger than {FILE_LIMIT} bytes"):
        read_file(path, "file")


def test_a_token_does_not_show_itself() -> None:
    source = FixedToken(check_token(b"very-secret", "test"))
    assert "very-secret" not in repr(source)


@pytest.mark.parametrize(
    ("server", "plain"),
    [
        ("https://10.0.0.1:6443", "https://10.0.0.1:6443"),
        ("https://api.example/", "https://api.example"),
        ("https://rancher.example/k8s/clusters/c-1", "https://rancher.example/k8s/clusters/c-1"),
        ("https://[::1]:1", "https://[::1]:1"),
    ],
)
def test_an_address_is_https(server: str, plain: str) -> None:
    assert check_server(server) == plain


@pytest.mark.parametrize(
    "server",
    [
        "",
        "10.0.0.1:6443",
        "https://",
        "https://:6443",
        "ftp://x",
        "https://x:port",
        "https://x:99999",
        "https://x:0",
        "https://user:word@x",
        "https://x?y",
        "https://x#y",
        "https://x y",
        "https://[::1",
        "https://x/\r\nHost: y",
    ],
)
def test_another_address_is_refused(server: str) -> None:
    with pytest.raises(UsageError):
        check_server(server)


def test_plain_http_would_show_the_token() -> None:
    with pytest.raises(InsecureUsage, match="plain http"):
        check_server("http://127.0.0.1:8080")
