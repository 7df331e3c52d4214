"""The node agent as a process: what it prints, what it reads, and how it ends."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, final

import pytest

from sevkit.host.capabilities import decide
from sevkit.host.probe import probe_host
from sevkit.host.sources import open_host
from sevkit.kubevirt.labels import CAPABILITIES, LABELS, RESOURCES, encode_node_word
from sevkit.testing.host import PRESETS, with_defects, write_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
AGENT: Final = (sys.executable, "-m", "node_agent")
ONCE: Final = ("--sink", "stdout", "--once", "--dry-run")
LOOP: Final = ("--sink", "stdout", "--start-spread", "0")
#: A loaded machine may need this long for what takes milliseconds.
PATIENCE: Final = 20.0
#: What SIGTERM may take at most, in seconds.
STOP: Final = 2.0
DEFECTS: Final = (
    ("milan", "smee-off"),
    ("milan", "sev-unreadable"),
    ("milan", "psp-dead"),
    ("genoa", "iommu-passthrough"),
    ("genoa", "cgroup-v1"),
    ("turin", "ciphertext-hiding"),
    ("rome", "bios-off"),
)


def run(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AGENT, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@final
class Process:
    """An agent that goes on until it is left; what it wrote can be read at any time."""

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        self._files = [folder / name for name in ("stdout", "stderr")]
        self._words = [*AGENT, *map(str, arguments)]

    def __enter__(self) -> Self:
        with self._files[0].open("wb") as out, self._files[1].open("wb") as log:
            self.process = subprocess.Popen(self._words, cwd=ROOT, stdout=out, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._files[0].read_text().splitlines()]

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._files[1].read_text().splitlines()]

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """End it as the kubelet does, and return its exit code."""
        begun = time.monotonic()
        self.send(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        assert time.monotonic() - begun < STOP
        return code

    def peak(self) -> int:
        """Return the most memory that it ever had, in MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(one for one in text.splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) >> 10


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "does not happen"
        time.sleep(0.02)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A healthy Genoa."""
    root = tmp_path / "host"
    write_host(PRESETS["genoa"], root)
    return root


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start an agent that ends with the test."""
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str | Path) -> Process:
            folder = Path(tempfile.mkdtemp(dir=tmp_path))
            return stack.enter_context(Process(folder, *arguments))

        yield begin


def put(host: Path, path: str, text: str) -> None:
    """Change one file of a host, as sysfs does: at once."""
    (host / path).unlink()
    (host / path).write_text(text)


SNP: Final = "sys/module/kvm_amd/parameters/sev_snp"


@pytest.mark.parametrize(
    ("preset", "defects"),
    [*((name, ()) for name in PRESETS), *((name, (defect,)) for name, defect in DEFECTS)],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_one_document_is_printed_and_a_json_log(
    preset: str, defects: tuple[str, ...], tmp_path: Path
) -> None:
    write_host(with_defects(preset, defects), tmp_path)
    done = run(*ONCE, "--host-root", tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document.keys() == {"labels", "annotations", "capacity"}
    assert set(document["labels"]) <= set(LABELS)
    assert set(document["capacity"]) <= set(RESOURCES)
    assert document["labels"]["sevkit.io/simulated"] == "true"
    for key, number in document["capacity"].items():
        assert (number != "0") is (document["labels"][key] == "true")
    with open_host(str(tmp_path)) as source:
        assert document == encode_node_word(decide(probe_host(source))).to_json()
    for line in done.stderr.splitlines():
        assert json.loads(line).keys() >= {"time", "level", "logger", "message"}


#: Runs the agent and tells what it did outside of Python's own files, from its first probe on.
SPY: Final = """
import os, sys
import node_agent.app
from node_agent.signals import Signals
seen = []
def hook(event, arguments):
    if event in {"open", "os.listdir", "os.scandir"} and isinstance(arguments[0], (str, bytes)):
        seen.append(os.fsdecode(arguments[0]))
    elif event.startswith(("fcntl.ioctl", "mmap", "ctypes.dlopen", "socket", "subprocess")):
        seen.append(f"/{event}")
sys.addaudithook(hook)
code = node_agent.app.main(sys.argv[1:], {}, Signals())
outside = [name for name in seen if name.startswith("/") and not name.startswith(sys.argv[-1])]
print(*outside, sep="\\n", file=sys.stderr)
sys.exit(code)
"""


def spy(*arguments: str | Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", SPY, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    python = (sys.prefix, sys.base_prefix, str(ROOT))
    names = {name for name in done.stderr.splitlines() if name.startswith("/")}
    return done, {name for name in names if not name.startswith(python)}


def test_of_a_captured_host_nothing_outside_is_read(host: Path) -> None:
    done, outside = spy(*ONCE, "--host-root", host)
    assert done.returncode == 0, done.stderr
    assert outside == set()
    # And what is read of this machine is seen in the same way.
    _, outside = spy(*ONCE, "--device-plugins", "/nonexistent")
    assert outside & {"/proc", "/", "/sys", "/dev", "/proc/cpuinfo"}


def test_a_captured_host_without_anything_is_not_this_machine(tmp_path: Path) -> None:
    captured = json.loads(run(*ONCE, "--host-root", tmp_path).stdout)
    states = captured["annotations"][CAPABILITIES]
    assert {states[name]["state"] for name in ("sev", "sev-es", "sev-snp")} == {"unknown"}
    assert captured["labels"] == {"sevkit.io/simulated": "true"}
    assert captured["capacity"] == {}
    ours = json.loads(run(*ONCE).stdout)
    assert "sevkit.io/simulated" not in ours["labels"]
    states = ours["annotations"][CAPABILITIES]
    assert {states[name]["state"] for name in ("sev", "sev-es", "sev-snp")} != {"unknown"}


def test_a_change_of_the_host_changes_what_is_said(
    host: Path, start: Callable[..., Process]
) -> None:
    agent = start(*LOOP, "--interval", "1", "--host-root", host)
    until(lambda: len(agent.documents) == 1)
    put(host, SNP, "N\n")
    until(lambda: len(agent.documents) == 2)
    first, second = agent.documents
    assert first["labels"]["sevkit.io/sev-snp"] == "true"
    assert second["labels"]["sevkit.io/sev-snp"] == "false"
    assert agent.stop() == 0
    assert agent.log[-1]["message"] == "stopped as asked; what is published stays"
    assert any(line.get("reason") == "CapabilityLost" for line in agent.log)
    assert len(agent.documents) == 2


def test_a_hup_probes_at_once(host: Path, start: Callable[..., Process]) -> None:
    agent = start(*LOOP, "--interval", "3600", "--host-root", host)
    until(lambda: agent.documents)
    for word in ("N\n", "Y\n", "N\n"):
        before = len(agent.documents)
        put(host, SNP, word)
        agent.send(signal.SIGHUP)
        until(lambda: len(agent.documents) > before)  # noqa: B023  # asked within this turn
    assert len(agent.documents) == 4
    assert agent.stop() == 0


def test_node_feature_discoverys_file_is_kept_and_never_removed(
    host: Path, start: Callable[..., Process], tmp_path: Path
) -> None:
    file = tmp_path / "features.d" / "sevkit"
    file.parent.mkdir()
    options = ("--sink", "nfd", "--nfd-file", file, "--start-spread", "0", "--interval", "1")
    agent = start(*options, "--host-root", host)
    until(lambda: file.exists() and agent.log)
    assert "sevkit.io/sev-snp=true" in file.read_text()
    put(host, SNP, "N\n")
    until(lambda: "sevkit.io/sev-snp=false" in file.read_text())
    assert agent.stop() == 0
    written = file.stat().st_mtime_ns
    # A restart finds it as it is; a tree that is gone takes nothing away.
    agent = start(*options, "--host-root", host)
    until(lambda: agent.log)
    shutil.rmtree(host)
    until(lambda: any("probe failed" in line["message"] for line in agent.log))
    assert agent.stop() == 0
    assert file.stat().st_mtime_ns == written
    assert [one.name for one in file.parent.iterdir()] == ["sevkit"]


def test_a_host_that_vanishes_and_comes_back_is_told_once(
    host: Path, start: Callable[..., Process]
) -> None:
    agent = start(*LOOP, "--interval", "3600", "--host-root", host)
    until(lambda: agent.documents)
    host.rename(host.with_name("away"))
    for _ in range(3):
        agent.send(signal.SIGHUP)
        time.sleep(0.1)
    until(lambda: [line for line in agent.log if "probe failed" in line["message"]])
    host.with_name("away").rename(host)
    put(host, SNP, "N\n")
    agent.send(signal.SIGHUP)
    until(lambda: len(agent.documents) == 2)
    assert len([line for line in agent.log if "probe failed" in line["message"]]) == 1
    assert agent.stop() == 0


def as_fifo(path: Path) -> None:
    os.mkfifo(path)


def as_garbage(path: Path) -> None:
    path.write_bytes(os.urandom(1 << 16))


def as_gigabyte(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 30)


def as_way_out(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("way", [as_fifo, as_garbage, as_gigabyte, as_way_out])
def test_evil_files_cost_little_time_and_little_memory(
    way: Callable[[Path], None], host: Path, start: Callable[..., Process]
) -> None:
    for name in (
        *("cpuid.json", "firmware.json", "proc/cpuinfo", "proc/cmdline", "var/log/dmesg", SNP),
        "sys/fs/cgroup/misc.capacity",
    ):
        (host / name).unlink(missing_ok=True)
        way(host / name)
    agent = start(*LOOP, "--interval", "3600", "--host-root", host)
    until(lambda: agent.documents)
    states = agent.documents[0]["annotations"][CAPABILITIES]
    assert states["sev"]["state"] == states["sev-snp"]["state"] == "unknown"
    assert agent.peak() < 64
    assert agent.stop() == 0


#: Root may read everything. Whoever is root becomes nobody, after a first run, because nobody may
#: not be allowed to read Python's own files.
UNPRIVILEGED: Final = """
import contextlib, io, os, sys
from node_agent.app import main
from node_agent.signals import Signals
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main(sys.argv[1:], {}, Signals())
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
sys.exit(main(sys.argv[1:], {}, Signals()))
"""


def test_files_that_may_not_be_read_are_not_known_and_say_so() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is for its user alone
        Path(folder).chmod(0o755)
        root = Path(folder) / "host"
        write_host(PRESETS["genoa"], root)
        for name in ("proc/cpuinfo", SNP, "firmware.json"):
            (root / name).chmod(0)
        words = [sys.executable, "-c", UNPRIVILEGED, *ONCE, "--host-root", str(root)]
        done = subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)["annotations"][CAPABILITIES]
    assert states["sev"]["state"] == "unknown"
    assert states["sev"]["explanation"] == "/proc/cpuinfo could not be read"


@pytest.mark.parametrize("moment", [0.0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3])
def test_a_stop_at_any_moment_ends_it_in_time(
    moment: float, host: Path, start: Callable[..., Process]
) -> None:
    """From the first of the imports on the exit code is 0; before, there is no agent yet."""
    agent = start(*LOOP, "--host-root", host)
    time.sleep(moment * random.uniform(0.7, 1.3))  # noqa: S311  # any moment
    code = agent.stop()
    assert code in {0, -signal.SIGTERM}
    if agent.documents:
        assert code == 0


def test_a_second_stop_changes_nothing(host: Path, start: Callable[..., Process]) -> None:
    agent = start(*LOOP, "--host-root", host)
    until(lambda: agent.documents)
    agent.send(signal.SIGTERM)
    agent.send(signal.SIGINT)
    assert agent.stop() == 0


def test_a_stop_during_a_request_that_hangs_ends_it_in_time(
    host: Path, start: Callable[..., Process], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": {"server": f"https://127.0.0.1:{port}"}}],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                }
            )
        )
        agent = start(
            *("--kubeconfig", kubeconfig, "--node-name", "n1", "--start-spread", "0"),
            *("--host-root", host),
        )
        server.settimeout(PATIENCE)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b"\x16", "it says hello, and nobody answers"
            assert agent.stop() == 0


def test_metrics_and_health_are_served_where_it_was_asked_to(
    host: Path, start: Callable[..., Process], name_chip: Callable[[Path], str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def get(path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    chip = name_chip(host)
    # Nothing is published before a moment of the first hours.
    options = ("--sink", "stdout", "--host-root", host, "--listen", f"127.0.0.1:{port}")
    agent = start(*options, "--start-spread", "604800")
    until(functools.partial(_is_open, port))
    assert get("/healthz")[0] == 200
    assert get("/readyz") == (503, "nothing is published yet\n")
    assert agent.stop() == 0

    agent = start(*options, "--start-spread", "0")
    until(lambda: agent.documents)
    assert get("/readyz")[0] == 200
    status, text = get("/metrics")
    assert status == 200
    assert 'sevkit_node_capability{reason="usable",state="usable",technology="sev-snp"} 1.0' in text
    assert "sevkit_node_probe_seconds_count 1.0" in text
    assert "process_resident_memory_bytes" in text
    assert "sevkit_node_firmware_info" in text
    assert get("/debug")[0] == 404
    assert agent.stop() == 0
    for said in (text, json.dumps(agent.documents), json.dumps(agent.log)):
        assert chip not in said.lower()


def _is_open(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_firmware_facts_are_of_this_machine_only(tmp_path: Path) -> None:
    done = run(*ONCE, "--host-root", tmp_path, "--firmware-facts", tmp_path / "firmware.json")
    assert done.returncode == 2
    assert json.loads(done.stderr)["hint"]


def test_a_wrong_command_line_is_one_line_of_json() -> None:
    done = run("--sink", "crd")
    assert (done.returncode, done.stdout) == (2, "")
    line = json.loads(done.stderr)
    assert "invalid choice: 'crd'" in line["error"]
    assert line["hint"] == "python -m node_agent --help"


def test_output_that_nobody_takes_is_a_failure(host: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*AGENT, *ONCE, "--host-root", str(host)],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
