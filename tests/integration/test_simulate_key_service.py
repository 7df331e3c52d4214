"""``sevkit simulate key-service`` as a process, and ``sevkit attest report`` against it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NONCE: Final = "5a" * 64


@contextmanager
def served(state: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run the command until the block ends; yield the process and its answer."""
    command = [sys.executable, "-m", "sevkit", "simulate", "key-service", "--state", str(state)]
    process = subprocess.Popen(
        [*command, "--output", "json", *words], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, "it ended before it answered"
            text += line
        yield process, json.loads(text)
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state with one Milan chip and its report: keys cost seconds."""
    folder = tmp_path_factory.mktemp("simulated") / "amd"
    with served(folder, "--report-data", NONCE):
        pass
    return folder


def attest(answer: dict[str, Any], cache: Path, *words: str) -> int:
    (chip,) = answer["chips"]
    return main(
        [
            *("attest", "report", chip["report"], "--report-data", NONCE, "--cache", str(cache)),
            *("--measurement", chip["measurement"]),
            *("--kds-url", answer["url"], "--kds-ca", answer["ca"], *words),
        ]
    )


def test_its_report_is_accepted_with_its_root_and_only_then(state: Path, tmp_path: Path) -> None:
    with served(state, "--report-data", NONCE) as (process, answer):
        root = answer["chips"][0]["root"]
        assert attest(answer, tmp_path / "one", "--root", root, "--require-crl") == 0
        assert attest(answer, tmp_path / "two") == 4
        process.terminate()
        assert process.wait(20) == 0


def test_the_same_state_is_the_same_chip(state: Path) -> None:
    with served(state) as (_, first), served(state) as (_, second):
        assert first["chips"] == second["chips"]
        assert first["url"] != second["url"]


@pytest.mark.parametrize("fault", ["not-found", "web-page"])
def test_a_fault_is_no_verdict(state: Path, fault: str, tmp_path: Path) -> None:
    with served(state, "--report-data", NONCE, "--fault", fault) as (_, answer):
        assert attest(answer, tmp_path, "--root", answer["chips"][0]["root"]) == 4


def test_an_interrupt_is_said(state: Path) -> None:
    with served(state) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


@pytest.mark.parametrize("nonce", ["", "zz", "5a" * 63, "5a" * 65])
def test_a_nonce_of_another_size_is_refused_before_anything_is_made(
    tmp_path: Path, nonce: str
) -> None:
    state = tmp_path / "amd"
    command = ["simulate", "key-service", "--state", str(state), "--report-data", nonce]
    assert main(command) == 2
    assert not state.exists()


@pytest.mark.parametrize("address", ["", "80", "localhost", "localhost:65536", "a b:1", ":1"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, address: str) -> None:
    state = str(tmp_path / "amd")
    assert main(["simulate", "key-service", "--state", state, "--listen", address]) == 2


def test_a_state_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chips.json").write_text("{}")
    assert main(["simulate", "key-service", "--state", str(tmp_path)]) == 65
