from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.cluster.exec_credential import Credential, ExecToken, parse_credential
from sevkit.errors import ClusterError, FormatError, UsageError
from sevkit.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "client.authentication.k8s.io/v1"


def printed(version: str = VERSION, kind: str = "ExecCredential", **status: object) -> bytes:
    return json.dumps({"apiVersion": version, "kind": kind, "status": status}).encode()


@pytest.mark.parametrize(
    ("moment", "end"),
    [
        (None, None),
        ("2026-11-25T12:00:00Z", 1795608000.0),
        ("2026-11-25T13:00:00+01:00", 1795608000.0),
        ("2026-11-25T12:00:00.5Z", 1795608000.5),
    ],
)
def test_a_credential_is_a_token_and_its_end(moment: str | None, end: float | None) -> None:
    data = printed(token="a.b.c", expirationTimestamp=moment)
    assert parse_credential(data, VERSION) == Credential(Secret(b"a.b.c"), end)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"s3cret",
        b'{"s3cret": 1, "s3cret": 2}',
        b"[]",
        b"{}",
        printed(version="client.authentication.k8s.io/v1beta1", token="s3cret"),
        printed(kind="Secret", token="s3cret"),
        printed(),
        printed(token=7),
        printed(token=""),
        printed(token="s3cret two"),
        printed(token="s3cret", expirationTimestamp="soon"),
        printed(clientCertificateData="c", clientKeyData="s3cret"),
        b" " * (1 << 20),
    ],
    ids=lambda data: str(data[:40]),
)
def test_anything_else_is_refused_and_not_quoted(data: bytes) -> None:
    with pytest.raises(ClusterError) as caught:
        parse_credential(data, VERSION)
    assert "s3cret" not in caught.value.message + caught.value.hint
    assert caught.value.__cause__ is None or "s3cret" not in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"apiVersion": VERSION}, UsageError),
        ({"apiVersion": VERSION, "command": ""}, UsageError),
        ({"apiVersion": VERSION, "command": ["sh"]}, UsageError),
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "x"}, UsageError),
        ({"apiVersion": VERSION, "command": "x", "interactiveMode": "Always"}, UsageError),
        ({"apiVersion": VERSION, "command": "x", "provideClusterInfo": True}, UsageError),
        ({"apiVersion": VERSION, "command": "x", "runAs": "root"}, UsageError),
        ({"apiVersion": VERSION, "command": "x", "args": "-c ls"}, FormatError),
        ({"apiVersion": VERSION, "command": "x", "env": {"A": "b"}}, FormatError),
    ],
)
def test_a_plugin_that_is_not_understood_is_refused_before_it_runs(
    values: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error):
        ExecToken(values, tmp_path, {})
