"""Exit codes and error documents, in process; real processes are in tests/integration."""

from __future__ import annotations

import json

import pytest

from sevkit import __version__
from sevkit.cli.main import TOP, main


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sevkit {__version__}\n"


def test_top_help_lists_every_command_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, (_, words) in TOP.items():
        assert f"  {name} " in out
        assert words in out


@pytest.mark.parametrize("arguments", [[], ["attest"], ["kds"]])
def test_no_arguments_is_a_usage_error_with_help_on_stderr(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.startswith("Usage: sevkit")


@pytest.mark.parametrize(
    "arguments", [["--output", "json"], ["--output", "json", "attest"], ["kds", "--output=json"]]
)
def test_no_arguments_are_one_document_where_json_is_asked_for(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["kind"], document["exit_code"]) == ("UsageError", 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        ["--nope"],
        ["attest", "nope"],
        ["--output", "xml", "--version"],
        ["completion"],
        ["completion", "klingon"],
        ["completion", "bash", "too", "many"],
    ],
)
def test_an_ill_formed_request_is_2_on_one_line_in_our_manner(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert not captured.out
    first = captured.err.splitlines()[0]
    assert first.startswith("sevkit: ")
    assert first[8].islower() or not first[8].isalpha()
    assert not first.endswith(".")
    assert all(line.startswith("sevkit: ") for line in captured.err.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "json", "completion", "klingon"],
        ["completion", "klingon", "--output", "json"],
        ["completion", "--output=json", "--nope"],
        ["--output", "json", "--nope"],
    ],
)
def test_a_usage_error_is_one_json_document_wherever_the_option_stands(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "sevkit.io/error/v1"
    assert document["kind"] == "UsageError"
    assert document["exit_code"] == 2
    assert document["message"]


def test_an_escape_sequence_in_an_argument_does_not_reach_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["\x1b[2Jnope\r\n\u202e"]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\u202e" not in err
    assert "\\x1b" in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    assert "_SEVKIT_COMPLETE" in capsys.readouterr().out


def test_an_unknown_completion_instruction_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_SEVKIT_COMPLETE", "klingon_source")
    assert main([]) == 2
    assert "_SEVKIT_COMPLETE" in capsys.readouterr().err


def test_completing_a_name_imports_no_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_SEVKIT_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "sevkit a")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert main([], {"absent": ("no.such.module:command", "Not importable.")}) == 0
    assert capsys.readouterr().out == "plain,absent\n"
