"""Messages: one line each, whatever they quote."""

from __future__ import annotations

import pytest

from sevkit.cli.messages import plain, say, warn


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é ok", "é ok"),
        ("a\x1b[2Jb\nc", "a\\x1b[2Jb\\nc"),
        ("\u202eevil\u2028", "\\u202eevil\\u2028"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_moves_a_cursor_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_message_and_its_hint_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nb", "c\rd")
    assert capsys.readouterr().err == "sevkit: a\\nb\nsevkit: hint: c\\rd\n"


def test_a_warning_says_that_it_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    warn("a\x1bb")
    assert capsys.readouterr().err == "sevkit: warning: a\\x1bb\n"


def test_a_message_has_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    say("x" * 100_000)
    assert len(capsys.readouterr().err) < 1100
