"""Credential plugins as real programs."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.cluster.exec_credential import ExecToken
from sevkit.errors import ClusterError
from sevkit.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from sevkit.documents import Json

VERSION: Final = "client.authentication.k8s.io/v1"
PATH: Final = {"PATH": "/usr/bin:/bin"}
END: Final = 1795608000.0  # 2026-11-25T12:00:00Z


def plugin(folder: Path, script: str) -> dict[str, Json]:
    """Write a program; return the kubeconfig's words for it."""
    program = folder / "get-token"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {
        "apiVersion": VERSION,
        "command": "./get-token",
        "args": ["eks", "two words; rm"],
        "env": [{"name": "PROFILE", "value": "prod"}],
    }


def counting(folder: Path, *, expires: bool) -> dict[str, Json]:
    """Return a plugin whose token says how often it ran."""
    end = ', "expirationTimestamp": "2026-11-25T12:00:00Z"' if expires else ""
    status = f'{{"token": "run-\'$(wc -c < {folder}/runs)\'"{end}}}'
    return plugin(
        folder,
        f"printf x >> {folder}/runs\n"
        f'echo \'{{"kind": "ExecCredential", "apiVersion": "{VERSION}", "status": {status}}}\'',
    )


def test_a_plugin_is_told_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    script = f'printf "%s\\n" "$@" > {tmp_path}/args; env > {tmp_path}/env; exit 3'
    source = ExecToken(plugin(tmp_path, script), tmp_path, PATH)
    with pytest.raises(ClusterError, match="get-token failed with status 3"):
        source.token()
    assert (tmp_path / "args").read_text() == "eks\ntwo words; rm\n"
    found = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert found["PROFILE"] == "prod"
    assert json.loads(found["KUBERNETES_EXEC_INFO"]) == {
        "apiVersion": VERSION,
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    assert not {"HOME", "KUBECONFIG"} & found.keys()


def test_a_token_is_kept_until_shortly_before_its_end(tmp_path: Path) -> None:
    now = [END - 3600]
    source = ExecToken(counting(tmp_path, expires=True), tmp_path, PATH, clock=lambda: now[0])
    assert source.token() == source.token() == Secret(b"run-1")
    now[0] = END - 31
    assert source.token() == Secret(b"run-1")
    now[0] = END - 29
    assert source.token() == Secret(b"run-2")


def test_a_token_without_an_end_is_kept(tmp_path: Path) -> None:
    source = ExecToken(counting(tmp_path, expires=False), tmp_path, PATH, clock=lambda: 1e12)
    assert source.token() == source.token() == Secret(b"run-1")


def test_what_a_plugin_says_of_its_failure_becomes_the_hint(tmp_path: Path) -> None:
    words = plugin(tmp_path, 'echo "session expired,\nlog in again" >&2; exit 1')
    with pytest.raises(ClusterError) as caught:
        ExecToken(words, tmp_path, PATH).token()
    assert caught.value.hint == "session expired, log in again"


def test_a_plugin_that_is_not_there_is_named(tmp_path: Path) -> None:
    words: dict[str, Json] = {"apiVersion": VERSION, "command": "no-such-program-anywhere"}
    with pytest.raises(ClusterError, match="no-such-program-anywhere cannot be run: no such file"):
        ExecToken(words, tmp_path, PATH).token()
