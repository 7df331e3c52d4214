from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

KUBECONFIG = """
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--require", "snp"],
        ["--only", "nothing"],
        ["--namespace", "a/b"],
        ["--namespace", ""],
        ["--webhook", "../x"],
        ["--webhook", "a" * 300],
        ["--kubeconfig", "none"],
        ["extra"],
    ],
)
def test_ill_formed_requests_are_usage(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cluster", "preflight", *words]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") <= 2


def test_a_cluster_that_cannot_be_reached_is_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").write_text(KUBECONFIG)
    words = ["cluster", "preflight", "--kubeconfig", str(tmp_path / "config")]
    assert main(words) == 4
    out, err = capsys.readouterr()
    assert not out
    assert "refused the connection" in err


def test_help_shows_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "preflight", "--help"]) == 0
    said = capsys.readouterr().out
    assert "sevkit cluster preflight --require sev-snp" in said
    assert "kubernetes|kubevirt|webhook|policy|nodes|tenants" in said
