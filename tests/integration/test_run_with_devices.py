"""Programs on a simulated machine: what they see in /dev, /sys, /proc, CPUID, and how they end."""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.errors import UndecidedError, UsageError
from sevkit.testing.device.kvm import KvmDevice
from sevkit.testing.device.mount import FuseDevices, unavailable_reason
from sevkit.testing.device.registers import CpuidFile, MsrFile
from sevkit.testing.device.run import run_with_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    from sevkit.testing.device.ioctl import IoctlFile, ReadableFile

    Run = Callable[..., CompletedProcess[bytes]]

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"no device files: {unavailable_reason()}"
)

MARK: Final = 0x5EF0_0000

#: Every way to come to a CPUID: in main, in threads, in a fork, in a program executed; and the two
#: bytes inside a constant, which must stay what they are. A handler of its own for SIGTRAP.
SOURCE: Final = r"""
#include <cpuid.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned ask(unsigned leaf, unsigned subleaf) {
    unsigned a, b, c, d;
    __cpuid_count(leaf, subleaf, a, b, c, d);
    return a ^ b ^ c ^ d;
}
static void *in_thread(void *word) {
    for (int i = 0; i < 50; i++)
        if (ask(0x8000001f, 3) != *(unsigned *)word) return "different";
    return NULL;
}
static void trapped(int number) { (void)!write(1, "trapped\n", 8); }
int main(int argc, char **argv) {
    volatile unsigned hidden = 0xa20f89c3;
    unsigned mine = ask(0x8000001f, 3);
    printf("%08x %08x\n", mine, hidden);
    fflush(stdout);
    if (argc < 2) return 0;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, in_thread, &mine);
    for (int i = 0; i < 4; i++) {
        void *found;
        pthread_join(threads[i], &found);
        if (found) return 1;
    }
    signal(SIGTRAP, trapped);
    raise(SIGTRAP);
    int status;
    if (!fork()) { execl(argv[0], argv[0], NULL); return 2; }
    wait(&status);
    if (!fork()) _exit(ask(0x8000001f, 3) != mine);
    int other;
    wait(&other);
    return status || other ? 3 : 42;
}
"""


def cpuid(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    return MARK, leaf & 0xFF, subleaf << 8, 0


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    files: dict[str, IoctlFile | ReadableFile] = {
        "kvm": KvmDevice(),
        "cpu/0/msr": MsrFile({16: 7}),
        "cpu/0/cpuid": CpuidFile(cpuid),
    }
    with FuseDevices(files) as devices:

        def start(*words: str | Path, **options: object) -> CompletedProcess[bytes]:
            settings = {"timeout": 30.0, **options}
            return run_with_devices(words, devices, **settings)  # type: ignore[arg-type]

        yield start


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("program")
    (folder / "ask.c").write_text(SOURCE)
    words = [compiler, "-O0", "-pthread", "-o", "ask", "ask.c"]
    subprocess.run(words, cwd=folder, check=True, timeout=60)
    return folder / "ask"


def test_dev_holds_the_devices_and_what_every_program_needs(run: Run) -> None:
    done = run("ls", "/dev", "/dev/cpu/0")
    assert done.returncode == 0
    found = set(done.stdout.decode().split())
    assert {"kvm", "msr", "cpuid", "null", "urandom", "pts", "fd"} <= found
    assert not found & {"sda", "vda", "fuse", "mem", "sev"}


def test_standard_nodes_work(run: Run) -> None:
    words = "echo lost > /dev/null; head -c 4 /dev/urandom | wc -c; echo x > /dev/fd/2"
    done = run("sh", "-c", words)
    assert (done.stdout, done.stderr) == (b"4\n", b"x\n")


def test_a_device_is_read_at_an_offset(run: Run) -> None:
    words = ("if=/dev/cpu/0/cpuid", "bs=16", "count=1", "skip=31", "iflag=skip_bytes")
    assert run("dd", *words).stdout == struct.pack("<4I", *cpuid(31, 0))


def test_input_output_folder_environment_and_code_are_the_programs(
    run: Run, tmp_path: Path
) -> None:
    done = run(
        "sh",
        "-c",
        'pwd; echo "$WORD" >&2; cat; exit 7',
        data=b"given",
        cwd=tmp_path,
        env={"WORD": "said", "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout == f"{tmp_path}\ngiven".encode()
    assert (done.stderr, done.returncode) == (b"said\n", 7)


@pytest.mark.parametrize("told", [None, cpuid])
def test_a_program_that_dies_of_a_signal_has_its_negative(run: Run, told: object) -> None:
    assert run("sh", "-c", "kill -TERM $$", cpuid=told).returncode == -signal.SIGTERM


@pytest.mark.parametrize("told", [None, cpuid])
def test_a_program_that_is_not_there_cannot_be_run(run: Run, told: object) -> None:
    with pytest.raises(UsageError, match=r"cannot run no-such-program: .*No such file"):
        run("no-such-program", cpuid=told)
    with pytest.raises(UsageError, match="no program"):
        run()


@pytest.mark.parametrize("told", [None, cpuid])
def test_a_program_that_does_not_end_is_killed_with_all_that_it_started(
    run: Run, tmp_path: Path, told: object
) -> None:
    words = "sleep 60 & echo $! $$ > pids; sleep 60"
    with pytest.raises(UndecidedError, match="did not end within"):
        run("sh", "-c", words, cwd=tmp_path, cpuid=told, timeout=0.5)
    assert_gone(tmp_path / "pids")


@pytest.mark.parametrize("told", [None, cpuid])
def test_what_a_program_leaves_behind_is_killed(run: Run, tmp_path: Path, told: object) -> None:
    assert run("sh", "-c", "sleep 60 & echo $! > pids", cwd=tmp_path, cpuid=told).returncode == 0
    assert_gone(tmp_path / "pids")


def assert_gone(pids: Path) -> None:
    """A killed process needs a moment to be reaped by whoever inherited it."""
    deadline = time.monotonic() + 20
    for pid in pids.read_text().split():
        while (status := status_of(pid)) and status[0] != "Z":
            assert time.monotonic() < deadline, f"process {pid} is still there: {status}"
            time.sleep(0.01)


def status_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_simulated_hosts_sys_and_proc_stand_for_the_real_ones(run: Run, tmp_path: Path) -> None:
    parameter = "sys/module/kvm_amd/parameters/sev_snp"
    for name, text in ((parameter, "Y\n"), ("proc/cpuinfo", "flags: sev\n"), ("proc/absent", "")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    before = Path("/proc/cpuinfo").read_text()
    done = run("sh", "-c", f"cat /{parameter} /proc/cpuinfo; ls /sys", host_root=tmp_path)
    assert done.stdout == b"Y\nflags: sev\nmodule\n"
    assert Path("/proc/cpuinfo").read_text().splitlines()[:5] == before.splitlines()[:5]
    assert Path("/sys/kernel").is_dir()


def test_cpuid_is_answered_in_main_in_threads_in_forks_and_after_exec(
    run: Run, program: Path
) -> None:
    line = f"{MARK ^ 0x1F ^ 0x300:08x} a20f89c3\n"
    done = run(program, "all", cpuid=cpuid)
    assert done.stdout.decode() == f"{line}trapped\n{line}"
    assert done.returncode == 42


def test_without_an_answer_cpuid_is_the_processors(run: Run, program: Path) -> None:
    real = subprocess.run([program], capture_output=True, check=True, timeout=30).stdout
    assert run(program).stdout == real


def test_an_error_in_the_answer_ends_the_program_and_is_raised(
    run: Run, program: Path, tmp_path: Path
) -> None:
    def broken(_leaf: int, _subleaf: int) -> tuple[int, int, int, int]:
        raise ZeroDivisionError

    words = f"sleep 60 & echo $! $$ > pids; exec {program}"
    with pytest.raises(ZeroDivisionError):
        run("sh", "-c", words, cwd=tmp_path, cpuid=broken)
    assert status_of((tmp_path / "pids").read_text().split()[1]) == ""
    assert_gone(tmp_path / "pids")


def test_devices_that_everybody_sees_are_found_too(tmp_path: Path) -> None:
    with FuseDevices({"kvm": KvmDevice()}, at=tmp_path) as devices:
        assert run_with_devices(["ls", "/dev/kvm"], devices).stdout == b"/dev/kvm\n"
