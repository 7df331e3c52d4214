"""The completion scripts in real shells: commands, options, choices, and file names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

#: The words before the cursor, the last of them unfinished, and what completes it.
CASES: Final = (
    (("me",), {"measure"}),
    (("attest", "re"), {"report"}),
    (("attest", "launch", "--vcpu-t"), {"--vcpu-type"}),
    (("measure", "--mode", "sev-"), {"sev-es"}),
    (("attest", "report", "--vek", "ev"), {"evidence.bin"}),
    (("attest", "report", "ev"), {"evidence.bin"}),
)

#: bash and fish are asked directly; zsh's completion needs a terminal, so its script is asked
#: for what it hands to zsh.
BASH: Final = """
source {script}
COMP_WORDS=(sevkit "$@"); COMP_CWORD=$#
compopt() {{ :; }}
COMPREPLY=(); _sevkit_completion sevkit
test ${{#COMPREPLY[@]}} != 0 || COMPREPLY=($(compgen -f -- "${{@: -1}}"))
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH: Final = "source {script}; complete -C (string join ' ' -- sevkit $argv)"
ZSH: Final = """
compdef() {{ :; }}
_describe() {{ local -a all=("${{(@P)3}}"); print -l -- "${{(@)all%%:*}}"; }}
compadd() {{ print -l -- "${{(@P)argv[-1]}}"; }}
_path_files() {{ print -l -- ${{words[-1]}}*; }}
source {script}
words=(sevkit "$@"); CURRENT=$#words
_sevkit_completion
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file, and with our command as ``sevkit`` in ``bin``."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "evidence.bin").touch()
    (folder / "bin").mkdir()
    command = folder / "bin" / "sevkit"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sevkit "$@"\n')
    command.chmod(0o755)
    return folder


@pytest.mark.parametrize(("words", "found"), CASES, ids="-".join)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes(
    shell: str, words: tuple[str, ...], found: set[str], place: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    environment = os.environ | {"PATH": f"{place / 'bin'}:{os.environ['PATH']}"}

    def run(*command: str) -> str:
        return subprocess.run(
            command,
            env=environment,
            cwd=place,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    script = place / f"script.{shell}"
    if not script.exists():
        script.write_text(run("sevkit", "completion", shell))
    body = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell].format(script=script)
    start = {"bash": ("--norc", "-c", body, "x"), "zsh": ("-f", "-c", body, "x")}
    out = run(shell, *start.get(shell, ("--no-config", "-c", body)), *words)
    assert {line.partition("\t")[0] for line in out.split("\n")} - {""} == found


def test_a_script_is_not_a_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash", "--output", "json"]) == 2
    assert '"UsageError"' in capsys.readouterr().out
