from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").write_text("x")
    for html in (tmp_path / "there", tmp_path / "no" / "page"):
        words = ["cluster", "nodes", "--kubeconfig", str(tmp_path / "none"), "--html", str(html)]
        assert main(words) == 2
        assert str(html) in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--require", "tdx"],
        ["--kubeconfig", "none"],
        ["--selector"],
        ["extra"],
    ],
)
def test_ill_formed_requests_are_usage(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cluster", "nodes", *words]) == 2
    assert not capsys.readouterr().out


def test_help_shows_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "nodes", "--help"]) == 0
    assert "sevkit cluster nodes --require sev-snp" in capsys.readouterr().out
