from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.cluster.access import Access, ClientCertificate, FixedToken, TokenFile
from sevkit.cluster.exec_credential import ExecToken
from sevkit.cluster.kubeconfig import read_kubeconfig
from sevkit.errors import ClusterError, FormatError, InsecureUsage, UsageError
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

PEM = b"-----BEGIN CERTIFICATE-----\n"
PLUGIN = {"apiVersion": "client.authentication.k8s.io/v1", "command": "get-token"}


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a kubeconfig of one context, ``here``, and returns its path."""

    def make(
        *,
        user: dict[str, Any] | None = None,
        cluster: dict[str, Any] | None = None,
        name: str = "config",
        **top: object,
    ) -> Path:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [
                {"name": "c", "cluster": {"server": "https://api:6443", **(cluster or {})}}
            ],
            "users": [{"name": "u", "user": {"token": "t"} if user is None else user}],
            **top,
        }
        path = tmp_path / name
        path.write_text(json.dumps(document))
        return path

    return make


def test_values_in_the_file_are_taken(write: Callable[..., Path]) -> None:
    path = write(
        cluster={
            "certificate-authority-data": encoded(PEM),
            "tls-server-name": "kubernetes",
            "proxy-url": "http://proxy:3128",
            "disable-compression": True,
        },
        user={
            "token": "one.two",
            "client-certificate-data": encoded(b"cert"),
            "client-key-data": encoded(b"key"),
        },
    )
    assert read_kubeconfig([path]) == Access(
        "https://api:6443",
        PEM,
        FixedToken(Secret(b"one.two")),
        ClientCertificate(b"cert", Secret(b"key")),
        "kubernetes",
        "http://proxy:3128",
    )


def test_files_are_relative_to_the_kubeconfig(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(
        cluster={"certificate-authority": "pki/ca.crt"},
        user={
            "tokenFile": "token",
            "client-certificate": "/abs/cert",
            "client-key": "pki/key",
            "token": "loses against the file",
        },
    )
    assert read_kubeconfig([path]) == Access(
        "https://api:6443",
        tmp_path / "pki/ca.crt",
        TokenFile(tmp_path / "token"),
        ClientCertificate(Path("/abs/cert"), tmp_path / "pki/key"),
    )


def test_data_goes_before_a_file(write: Callable[..., Path]) -> None:
    path = write(cluster={"certificate-authority": "f", "certificate-authority-data": encoded(PEM)})
    assert read_kubeconfig([path]).ca == PEM


def test_yaml_is_read_as_kubectl_reads_it(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        """\
apiVersion: v1
kind: Config
current-context: here
preferences: {}
contexts:
- context: {cluster: c}
  name: here
clusters:
- cluster:
    server: https://api:6443/
  name: c
users: null
"""
    )
    assert read_kubeconfig([tmp_path / "config"]) == Access("https://api:6443")


def test_the_first_file_that_names_something_wins(write: Callable[..., Path]) -> None:
    one = write(name="one", users=[], user={"token": "unused"})
    two = write(
        name="two",
        user={"token": "second"},
        cluster={"server": "https://loses"},
        **{"current-context": "elsewhere"},
    )
    access = read_kubeconfig([Path("/nonexistent/config"), one, two])
    assert access.server == "https://api:6443"
    assert access.token == FixedToken(Secret(b"second"))


def test_a_context_may_be_named(write: Callable[..., Path]) -> None:
    path = write(**{"current-context": "there"})
    assert read_kubeconfig([path], context="here").server == "https://api:6443"
    with pytest.raises(UsageError, match="no context 'there'"):
        read_kubeconfig([path])


@pytest.mark.parametrize(
    ("user", "word"),
    [
        ({"auth-provider": {"name": "gcp"}}, "auth-provider"),
        ({"username": "a", "password": "p4ss"}, "username"),
        ({"token": "t", "as": "system:admin"}, "as"),
        ({"token": "t", "as-groups": ["system:masters"]}, "as-groups"),
        ({"token": "t", "something-new": 1}, "something-new"),
    ],
)
def test_who_we_are_is_never_left_out(
    write: Callable[..., Path], user: dict[str, object], word: str
) -> None:
    with pytest.raises(UsageError, match=f"'{word}', which is not supported") as caught:
        read_kubeconfig([write(user=user)])
    assert "p4ss" not in caught.value.message


def test_a_program_is_run_only_if_the_caller_allows_it(write: Callable[..., Path]) -> None:
    path = write(user={"exec": PLUGIN})
    with pytest.raises(InsecureUsage, match="runs a program"):
        read_kubeconfig([path])
    assert isinstance(read_kubeconfig([path], plugin_environ={}).token, ExecToken)


def test_a_token_goes_before_a_program(write: Callable[..., Path]) -> None:
    path = write(user={"token": "t", "exec": PLUGIN})
    assert read_kubeconfig([path]).token == FixedToken(Secret(b"t"))


def test_tls_without_verification_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(InsecureUsage, match="turns off the check"):
        read_kubeconfig([write(cluster={"insecure-skip-tls-verify": True})])
    read_kubeconfig([write(cluster={"insecure-skip-tls-verify": False})])


@pytest.mark.parametrize(
    ("kind", "values", "error"),
    [
        ("cluster", {"server": ""}, UsageError),
        ("cluster", {"server": "http://api"}, InsecureUsage),
        ("cluster", {"server": 7}, FormatError),
        ("cluster", {"certificate-authority-data": "%%%"}, FormatError),
        ("cluster", {"insecure-skip-tls-verify": "yes please"}, FormatError),
        ("cluster", {"proxy-url": "socks5://x:1"}, UsageError),
        ("cluster", {"new-kind-of-trust": "x"}, UsageError),
        ("user", {"client-certificate": "c"}, UsageError),
        ("user", {"client-key-data": encoded(b"k")}, UsageError),
        ("user", {"token": "two words"}, ClusterError),
        ("user", {"token": "line\nfeed"}, ClusterError),
        ("user", {"token": ["t"]}, FormatError),
        ("user", {"exec": "rm -rf /"}, FormatError),
        ("user", {"exec": {}}, UsageError),
    ],
)
def test_what_is_ill_formed_is_refused(
    write: Callable[..., Path], kind: str, values: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        read_kubeconfig([write(**{kind: values})], plugin_environ={})


@pytest.mark.parametrize(
    ("top", "error", "message"),
    [
        ({"current-context": ""}, UsageError, "no current context"),
        ({"contexts": []}, UsageError, "no context 'here'"),
        ({"contexts": {}}, UsageError, "no context 'here'"),
        ({"contexts": "here"}, FormatError, "is no list"),
        ({"contexts": [None, {"name": "here"}]}, UsageError, "no context"),
        ({"contexts": [{"name": "here", "context": {}}]}, UsageError, "no cluster ''"),
        ({"clusters": []}, UsageError, "no cluster 'c'"),
        ({"users": []}, UsageError, "no user 'u'"),
    ],
)
def test_what_is_missing_is_named(
    write: Callable[..., Path], top: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_kubeconfig([write(**top)])


def test_without_any_file_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no kubeconfig"):
        read_kubeconfig([tmp_path / "config"])


@pytest.mark.parametrize("text", ["", "[]", "a: b\n---\nc: d\n", "a: [", "\x00"])
def test_what_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(FormatError):
        read_kubeconfig([path])


def test_a_kubeconfig_does_not_show_its_secrets(write: Callable[..., Path]) -> None:
    user = {"token": "s3cret", "client-certificate": "c", "client-key-data": encoded(b"s3cret")}
    assert "s3cret" not in repr(read_kubeconfig([write(user=user)]))
