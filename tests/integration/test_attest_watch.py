"""``sevkit attest watch`` on simulated KubeVirt: many launches at once, and crashes at any step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.owner_scene import (
    FILES,
    TABLE,
    Hardware,
    create,
    make_hardware,
    write_kubeconfig,
    write_owner,
)
from sevkit.cli.main import main
from sevkit.measure.terms import Mode
from sevkit.testing.kubevirt import http_faults, lies
from sevkit.testing.kubevirt.lies import Lies
from sevkit.testing.kubevirt.simulation import SimulatedKubeVirt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sevkit.cluster.launch_endpoints import Target

VMIS: Final = [{"namespace": "default", "labelSelector": "app=ledger"}]
LABELS: Final[Any] = {"app": "ledger"}


@pytest.fixture(scope="module")
def hardware() -> Hardware:
    return make_hardware()


@pytest.fixture
def kubevirt(hardware: Hardware) -> Iterator[SimulatedKubeVirt]:
    with SimulatedKubeVirt(hardware.hosts, FILES, retry=0.05) as running:
        yield running


class Watch:
    """The command in a process of its own, and what it says."""

    def __init__(self, folder: Path, kubevirt: SimulatedKubeVirt) -> None:
        self._kubevirt = kubevirt
        self._command = [
            *(sys.executable, "-m", "sevkit", "attest", "watch", "--verbose"),
            f"--owner={folder / 'owner.json'}",
            f"--state={folder / 'state'}",
            f"--kubeconfig={write_kubeconfig(folder, kubevirt)}",
            "--listen=127.0.0.1:0",
        ]
        self.lines: list[dict[str, Any]] = []
        self.log: list[str] = []
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for stream, take in (
            (process.stdout, lambda line: self.lines.append(json.loads(line))),
            (process.stderr, self.log.append),
        ):
            assert stream is not None
            threading.Thread(target=self._read, args=(stream, take), daemon=True).start()
        return process

    @staticmethod
    def _read(stream: Any, take: Callable[[str], None]) -> None:  # noqa: ANN401  # a pipe
        with stream:
            for line in stream:
                take(line)

    def restart(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def wait_for(self, holds: Callable[[], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, (self.lines, self.log)
            assert self.process.poll() is None, self.log
            time.sleep(0.02)

    def outcomes(self) -> list[tuple[str, str]]:
        return [
            (line["evidence"]["vmi"].partition("/")[2], line["evidence"]["outcome"])
            for line in list(self.lines)
        ]

    def get(self, path: str) -> str:
        port = next(json.loads(line)["port"] for line in self.log if '"port"' in line)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
            return text


@contextmanager
def watching(folder: Path, kubevirt: SimulatedKubeVirt) -> Iterator[Watch]:
    watch = Watch(folder, kubevirt)
    try:
        yield watch
        watch.process.send_signal(signal.SIGTERM)
        assert watch.process.wait(20) == 0, watch.log
    finally:
        watch.process.kill()
        watch.process.wait()


@pytest.fixture
def folder(tmp_path: Path, hardware: Hardware) -> Path:
    write_owner(tmp_path, hardware, vmis=VMIS)
    return tmp_path


def arrived(kubevirt: SimulatedKubeVirt, vmi: Target) -> set[bytes]:
    return {table.reveal() for table in kubevirt.injected(vmi.namespace, vmi.name)}


def records(folder: Path) -> list[dict[str, Any]]:
    files = [path for path in (folder / "state").iterdir() if path.suffix == ".json"]
    return [json.loads(path.read_bytes()) for path in files]


def test_vmis_are_led_at_once_and_reboots_get_new_sessions(
    folder: Path, kubevirt: SimulatedKubeVirt
) -> None:
    before = [create(kubevirt, mode, labels=LABELS) for mode in (Mode.SEV, Mode.SEV_ES)]
    with watching(folder, kubevirt) as watch:
        after = [create(kubevirt, labels=LABELS) for _ in range(6)]
        other = create(kubevirt)
        watch.wait_for(lambda: len(watch.lines) == 8)
        assert set(watch.outcomes()) == {(vmi.name, "attested") for vmi in (*before, *after)}
        for vmi in (*before, *after):
            assert arrived(kubevirt, vmi) == {TABLE.reveal()}
            kubevirt.wait_for(vmi.namespace, vmi.name, "Running", paused=False)
        assert watch.get("/readyz")
        metrics = watch.get("/metrics")
        assert 'sevkit_launches_total{outcome="attested"} 8.0' in metrics
        assert not any(vmi.name in metrics for vmi in (*before, *after))
        kubevirt.delete("default", after[0].name)
        watch.wait_for(lambda: kubevirt.get("default", after[0].name) is None)
        create(kubevirt, labels=LABELS, name=after[0].name)
        watch.wait_for(lambda: watch.outcomes().count((after[0].name, "attested")) == 2)
        assert arrived(kubevirt, after[0]) == {TABLE.reveal()}
        kubevirt.wait_for("default", other.name, "Scheduled")
        assert all(record["stage"] == "ended" for record in records(folder))
        assert len(records(folder)) == 8
    sessions = [r for r in kubevirt.faults.requests if "setupsession" in r]
    assert len(sessions) == 9


def test_lies_are_told_once_and_not_again_after_a_restart(
    folder: Path, kubevirt: SimulatedKubeVirt
) -> None:
    kubevirt.lie(lies.flipped())
    vmi = create(kubevirt, labels=LABELS)
    with watching(folder, kubevirt) as watch:
        watch.wait_for(lambda: len(watch.lines) == 1)
        assert watch.lines[0]["exit_code"] == 1
        watch.restart()
        fine = create(kubevirt, labels=LABELS)
        kubevirt.be_honest()
        watch.wait_for(lambda: (fine.name, "attested") in watch.outcomes())
        assert len(watch.lines) == 2
    assert arrived(kubevirt, vmi) == set()
    kubevirt.wait_for(vmi.namespace, vmi.name, "Running", paused=True)


#: A request at which the process is killed, and whether it is answered before that.
STATES: Final = [
    ("fetchcertchain", False),
    ("setupsession", False),
    ("setupsession", True),
    ("querylaunchmeasurement", False),
    ("injectlaunchsecret", False),
    ("injectlaunchsecret", True),
    ("unpause", False),
    ("unpause", True),
]


@pytest.mark.parametrize(("request_", "late"), STATES)
def test_killed_at_any_state_it_goes_on_where_it_was(
    folder: Path, kubevirt: SimulatedKubeVirt, request_: str, *, late: bool
) -> None:
    """The request hangs, or its answer does, and the process dies meanwhile."""
    from sevkit.testing import key_service_faults  # noqa: PLC0415  # one use

    hang = http_faults.broken(key_service_faults.silence(), late=late)
    kubevirt.faults.add(hang, pattern=request_, times=1)
    with watching(folder, kubevirt) as watch:
        vmi = create(kubevirt, labels=LABELS)
        watch.wait_for(lambda: any(request_ in r for r in kubevirt.faults.requests))
        time.sleep(0.1)
        watch.restart()
        watch.wait_for(lambda: len(watch.lines) == 1)
        assert watch.outcomes() == [(vmi.name, "attested")]
        assert watch.lines[0]["accepted"] is True
        assert arrived(kubevirt, vmi) == {TABLE.reveal()}
        kubevirt.wait_for(vmi.namespace, vmi.name, "Running", paused=False)
    assert [record["stage"] for record in records(folder)] == ["ended"]


def test_guests_that_never_start_and_deleted_ones_leave_nothing(
    folder: Path, kubevirt: SimulatedKubeVirt
) -> None:
    kubevirt.lie(Lies(refuse="no room"))
    with watching(folder, kubevirt) as watch:
        vmi = create(kubevirt, labels=LABELS)
        watch.wait_for(lambda: any("setupsession" in r for r in kubevirt.faults.requests))
        kubevirt.delete(vmi.namespace, vmi.name)
        watch.wait_for(lambda: len(watch.lines) == 1)
        assert watch.lines[0]["exit_code"] == 4
        watch.wait_for(lambda: not records(folder))


def test_what_is_gone_at_a_restart_is_forgotten(folder: Path, kubevirt: SimulatedKubeVirt) -> None:
    kubevirt.lie(Lies(refuse="no room"))
    with watching(folder, kubevirt) as watch:
        vmi = create(kubevirt, labels=LABELS)
        watch.wait_for(lambda: any("setupsession" in r for r in kubevirt.faults.requests))
        watch.process.kill()
        watch.process.wait()
        assert [record["stage"] for record in records(folder)] == ["session"]
        kubevirt.delete(vmi.namespace, vmi.name)
        deadline = time.monotonic() + 10
        while kubevirt.get(vmi.namespace, vmi.name) is not None:
            assert time.monotonic() < deadline
        watch.restart()
        watch.wait_for(lambda: not records(folder))


def test_one_process_has_a_state_folder(
    folder: Path, kubevirt: SimulatedKubeVirt, capsys: pytest.CaptureFixture[str]
) -> None:
    with watching(folder, kubevirt) as watch:
        watch.wait_for(lambda: any('"port"' in line for line in watch.log))
        arguments = ["attest", "watch", f"--owner={folder / 'owner.json'}"]
        where = f"--kubeconfig={folder / 'kubeconfig'}"
        assert main([*arguments, f"--state={folder / 'state'}", where]) == 4
        assert "in use by another process" in capsys.readouterr().err


def test_a_file_without_vmis_or_acceptance_is_refused(
    folder: Path, hardware: Hardware, capsys: pytest.CaptureFixture[str]
) -> None:
    for changes, code in (({}, 2), ({"vmis": VMIS, "accept": []}, 5)):
        file = write_owner(folder, hardware, **changes)
        assert main(["attest", "watch", f"--owner={file}", f"--state={folder / 's'}"]) == code
    assert not os.path.lexists(folder / "s")
    assert "coverage.kernel" in capsys.readouterr().err
