"""The agent put together; as a process it is tried in the integration tests."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from typing import TYPE_CHECKING, Any, Final, final

import pytest

from node_agent.app import main
from node_agent.signals import Stopped
from sevkit.testing.host import PRESETS, write_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from node_agent.signals import Signals

    Run = Callable[..., tuple[int, str, list[dict[str, Any]]]]

OUT: Final = ("--sink", "stdout")


@final
class Quiet:
    """Signals that stop the loop at its ``turns``-th sleep; each sleep takes no time."""

    def __init__(self, turns: int = 0) -> None:
        self._turns = turns
        self.slept: list[float] = []

    @property
    def stopping(self) -> bool:
        return len(self.slept) >= self._turns

    def wait(self, seconds: float) -> None:
        self.slept.append(seconds)

    def take_hup(self) -> bool:
        return True


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command line; return the exit code, stdout, and the log."""
    root = logging.getLogger()
    before = (root.level, list(root.handlers))

    def call(*arguments: str, **more: Any) -> tuple[int, str, list[dict[str, Any]]]:  # noqa: ANN401  # the environment, and signals
        signals: Signals = more.pop("signals", Quiet())
        code = main(arguments, more, signals)
        said = capsys.readouterr()
        return code, said.out, [json.loads(line) for line in said.err.splitlines()]

    yield call
    root.setLevel(before[0])
    root.handlers[:] = before[1]


@pytest.fixture
def genoa(tmp_path: Path) -> str:
    write_host(PRESETS["genoa"], tmp_path / "genoa")
    return str(tmp_path / "genoa")


def test_once_prints_one_document(run: Run, genoa: str) -> None:
    code, out, log = run(*OUT, "--once", "--dry-run", "--host-root", genoa)
    assert code == 0
    assert json.loads(out)["labels"]["sevkit.io/sev-snp"] == "true"
    assert log[0]["message"] == "would publish"


def test_the_loop_probes_and_sleeps_until_it_is_to_stop(run: Run, genoa: str) -> None:
    signals = Quiet(4)
    code, out, log = run(*OUT, "--start-spread", "0", "--host-root", genoa, signals=signals)
    assert code == 0
    assert len(out.splitlines()) == 1, "published once"
    assert all(0 < seconds <= 72 for seconds in signals.slept)
    assert log[-1]["message"] == "stopped as asked; what is published stays"


def test_who_is_to_stop_before_the_first_probe_does_nothing(run: Run, genoa: str) -> None:
    assert run(*OUT, "--host-root", genoa, signals=Quiet(0))[:2] == (0, "")


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "said"),
    [
        ((), {}, 2, "node's name is not known"),
        (("--host-root", "/nonexistent", *OUT), {}, 2, "is not a folder"),
        (("--host-sys", "/nonexistent", *OUT), {}, 2, "is not a folder"),
        (("--host-root", "/", "--host-sys", "/sys", *OUT), {}, 2, "nothing outside of it is read"),
        (("--host-root", "/", "--firmware-facts", "f", *OUT), {}, 2, "nothing outside of it is"),
        (("--sink", "nfd", "--nfd-file", "/nonexistent/f", "--once"), {}, 2, "is not a folder"),
        (("--listen", "192.0.2.1:1", *OUT), {}, 2, "cannot listen"),
        (("--once",), {"NODE_NAME": "n"}, None, ""),
        (("--kubeconfig", "/nonexistent", "--once"), {"NODE_NAME": "n"}, None, "kubeconfig"),
    ],
)
def test_what_cannot_work_ends_at_once_with_one_line(
    arguments: tuple[str, ...], environ: dict[str, str], code: int | None, said: str, run: Run
) -> None:
    found, out, log = run(*arguments, **environ)
    assert found in ({code} if code is not None else {2, 4})
    assert out == ""
    (line,) = log
    assert line["level"] == "critical"
    assert said in line["error"]
    assert line["hint"]
    assert "trace" not in line


def test_once_that_was_stopped_says_no_more_than_that_it_is_not_done(run: Run, genoa: str) -> None:
    """It may have been stopped between the publication and its Events."""

    class Stopping(io.StringIO):
        def flush(self) -> None:
            raise Stopped

    with contextlib.redirect_stdout(Stopping()) as out:
        code, _, log = run(*OUT, "--once", "--host-root", genoa)
    assert code == 4
    assert log[-1]["error"] == "UndecidedError: stopped before it was done"
    assert "sevkit.io/sev" in out.getvalue()


def test_a_bug_is_a_bug_with_its_trace(run: Run, genoa: str) -> None:
    class Broken:
        stopping = False

        def take_hup(self) -> bool:
            raise ZeroDivisionError

    code, _, log = run(*OUT, "--host-root", genoa, signals=Broken())
    assert code == 70
    assert log[-1]["message"] == "internal error, a bug"
    assert "ZeroDivisionError" in log[-1]["trace"]


def test_the_log_can_be_less(run: Run, genoa: str) -> None:
    arguments = (*OUT, "--once", "--host-root", genoa, "--log-level", "error")
    assert run(*arguments)[2] == []


def test_what_an_operator_allows_reaches_the_decision(run: Run, tmp_path: Path) -> None:
    write_host(PRESETS["milan"], tmp_path / "milan")
    host = ("--once", "--host-root", str(tmp_path / "milan"))
    found = json.loads(run(*OUT, *host, "--allow-sev-es-beside-snp", "27")[1])
    assert found["capacity"]["sevkit.io/sev-es"] == "27"
    assert json.loads(run(*OUT, *host)[1])["capacity"]["sevkit.io/sev-es"] == "0"
