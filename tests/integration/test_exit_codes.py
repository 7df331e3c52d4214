"""How real processes end: 0, 1 and 3 are verdicts, and nothing but a verdict may be one."""

from __future__ import annotations

import array
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import IO, Final

import pytest

#: Runs one stub command through the real entry point.
RUNNER: Final = """
import sys
from sevkit.cli.main import run
run({"stub": ("stub:command", "A stub.")})
"""
STUB: Final = """
import os, sys, time
import click
from sevkit import errors
from sevkit.cli.base import Command
@click.command(cls=Command)
def command():
    {body}
"""
SEVKIT: Final = (sys.executable, "-m", "sevkit")


def run_stub(
    body: str,
    folder: Path,
    *arguments: str,
    stdout: int | IO[bytes] = subprocess.PIPE,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    (folder / "stub.py").write_text(STUB.format(body=body.replace("\n", "\n    ")))
    return subprocess.run(
        [sys.executable, "-c", RUNNER, "stub", *arguments],
        env=os.environ | {"PYTHONPATH": str(folder)} | (environment or {}),
        stdout=stdout,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return None", 0),
        ("return 0", 0),
        ("return 1", 1),
        ("return 3", 3),
        ("return 4", 4),
        ("return True", 70),
        ("return False", 70),
        ("return 256", 70),
        ("return 130", 70),
        ("return 'accepted'", 70),
        ("raise RuntimeError('x')", 70),
        ("raise AssertionError", 70),
        ("raise RecursionError", 70),
        ("raise MemoryError", 70),
        ("raise OSError(2, 'x')", 70),
        ("raise BaseException", 70),
        ("raise SystemExit", 70),
        ("raise SystemExit(0)", 70),
        ("raise SystemExit(1)", 70),
        ("sys.exit('text')", 70),
        ("click.get_current_context().exit(1)", 70),
        ("raise click.Abort", 130),
        ("raise KeyboardInterrupt", 130),
        ("raise click.FileError('x')", 2),
        ("raise click.ClickException('x')", 2),
        ("raise ModuleNotFoundError('no lxml', name='lxml.etree')", 2),
        ("raise ModuleNotFoundError('no colours', name='colours')", 70),
        ("raise errors.UsageError('x')", 2),
        ("raise errors.FormatError('REPORT', 'x', offset=1)", 65),
        ("raise errors.KeyServiceError('x')", 4),
        ("raise errors.ChainBroken('x')", 1),
        ("raise errors.ExpectationError('x')", 3),
        ("raise errors.InsecureUsage('x')", 5),
        ("raise errors.InternalError('x')", 70),
    ],
)
def test_every_end_of_a_command_has_its_code(body: str, code: int, tmp_path: Path) -> None:
    done = run_stub(body, tmp_path)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr


def test_a_traceback_is_shown_only_when_asked_for(tmp_path: Path) -> None:
    done = run_stub("raise RuntimeError('deep inside')", tmp_path, "--verbose")
    assert done.returncode == 70
    assert b"RuntimeError: deep inside" in done.stderr


def test_a_format_error_says_structure_and_offset_in_json(tmp_path: Path) -> None:
    body = "raise errors.FormatError('ATTESTATION_REPORT', 'too short', offset=16)"
    done = run_stub(body, tmp_path, "--output", "json")
    document = json.loads(done.stdout)
    assert (document["structure"], document["offset"]) == ("ATTESTATION_REPORT", 16)
    assert document["exit_code"] == done.returncode == 65


def test_a_full_disk_under_stdout_is_no_verdict(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run_stub("click.echo('answer'); return 0", tmp_path, stdout=full)
    assert done.returncode == 4
    assert b"could not be written" in done.stderr


@pytest.mark.parametrize("body", ["click.echo('x'); return 1", "sys.stdout.write('x'); return 3"])
def test_a_closed_pipe_is_141_and_not_a_verdict(body: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_stub(body, tmp_path, stdout=writer)
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert not done.stderr


@pytest.mark.parametrize("arguments", ["--version", "--help", "attest --help", "measure --help"])
@pytest.mark.parametrize("redirection", [">&-", "| true"])
def test_a_closed_stdout_is_141_for_real_commands(arguments: str, redirection: str) -> None:
    # The sleep lets the reader of the pipe go first.
    script = f"(sleep 0.2; {sys.executable} -m sevkit {arguments}; echo $? >&2) {redirection}"
    done = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, timeout=60, check=False, text=True
    )
    assert done.stderr.splitlines()[-1:] == ["141"]


def test_a_closed_stderr_and_stdin_do_not_change_the_code() -> None:
    script = f"{sys.executable} -m sevkit --nope 2>&- <&-; exit $?"
    done = subprocess.run(["/bin/sh", "-c", script], timeout=60, check=False)
    assert done.returncode == 2


def _drained(stream: IO[bytes]) -> bool:
    pending = array.array("i", [0])
    fcntl.ioctl(stream, termios.FIONREAD, pending)
    return pending[0] == 0


READERS: Final = (
    "inspect report -",
    "inspect certificate -",
    "inspect firmware -",
    "inspect vmsa -",
    "inspect session -",
    "measure --mode sev --firmware -",
    f"attest explain {'00' * 32} --mode sev --firmware -",
    "attest report - --offline --allow-any-report-data --allow-any-measurement",
    "attest platform --chain -",
    "attest launch --info - --tik /dev/null --guest-policy 1 --firmware /dev/null",
    "session new --chain - --guest-policy 1 --out absent",
    "kds fetch --report -",
)


@pytest.mark.parametrize("arguments", [words.split() for words in READERS], ids=READERS)
def test_an_interrupt_while_reading_is_130(arguments: list[str], tmp_path: Path) -> None:
    with subprocess.Popen(
        [*SEVKIT, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"some of it")
        deadline = time.monotonic() + 30
        while not _drained(process.stdin) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
        assert code == 130
        assert process.stderr.read() == b"sevkit: interrupted\n"


def test_an_ascii_locale_does_not_turn_an_answer_into_a_bug(tmp_path: Path) -> None:
    done = run_stub("print('PDH \\u2026 ARK')", tmp_path, environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout == b"PDH \\u2026 ARK\n"
