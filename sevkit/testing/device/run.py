"""Runs a program on a simulated machine: its devices, its /sys and /proc, its CPUID.

    with FuseDevices({"sev": …, "kvm": …}) as devices:
        done = run_with_devices(["snphost", "ok"], devices, host_root=root, cpuid=cpuid)

The program sees ``/dev/sev`` and so on where it looks for them, and nothing else changes: the view
is a mount namespace of its own. Nothing that it starts outlives the call.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, TYPE_CHECKING, Final, final

from sevkit.errors import UndecidedError, UsageError
from sevkit.testing.device import ptrace
from sevkit.testing.device.cpuid_tracer import CpuidTracer
from sevkit.testing.device.real_cpuid import runnable_cpuid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sevkit.testing.device.launch import Plan
    from sevkit.testing.device.mount import FuseDevices
    from sevkit.testing.device.registers import Cpuid

_LAUNCH: Final = Path(__file__).with_name("launch.py")
_REPORT: Final = 3


def run_with_devices(
    words: Sequence[str | Path],
    devices: FuseDevices,
    *,
    host_root: Path | None = None,
    cpuid: Cpuid | None = None,
    data: bytes = b"",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> CompletedProcess[bytes]:
    """Run a program with ``data`` on its stdin, and return what it wrote and its exit code.

    ``devices`` appear below /dev by their names. ``host_root`` is a simulated host's folder, whose
    ``sys`` stands for /sys, and whose files in ``proc`` for those of /proc. ``cpuid`` answers the
    CPUID instructions of the program itself, as far as ``cpuid_sites`` finds them, without claiming
    instructions that this processor lacks. ``timeout`` is in seconds; then the program is killed.
    Raises ``UsageError`` if it cannot be started, and ``UndecidedError`` if it did not end.
    """
    plan: Plan = {
        "namespace": None if devices.namespace is None else str(devices.namespace),
        "devices": str(devices.folder),
        "names": list(devices.names),
        "host_root": None if host_root is None else str(host_root.absolute()),
        "folder": str(Path.cwd() if cwd is None else cwd.absolute()),
        "trace": cpuid is not None,
    }
    told = [str(word) for word in words]
    if not told:
        raise UsageError("no program to run")
    command = [sys.executable, "-I", "-S", str(_LAUNCH), json.dumps(plan), *told]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(4)]
        files[0].write(data)
        for file in files:
            file.seek(0)
        child = _Child(
            command,
            dict(os.environ if env is None else env),
            [file.fileno() for file in files],
            None if cpuid is None else runnable_cpuid(cpuid),
        )
        code = child.run(timeout)
        _, output, errors, report = (_all_of(file) for file in files)
    if report:
        raise UsageError(f"cannot run {told[0]}: {report.decode(errors='replace')}")
    return CompletedProcess(told, code, output, errors)


def _all_of(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


@final
class _Child:
    """One program in a session of its own, started, traced and waited for in one thread."""

    def __init__(
        self,
        command: list[str],
        env: dict[str, str],
        descriptors: list[int],
        cpuid: Cpuid | None,
    ) -> None:
        self._command: Final = command
        self._env: Final = env
        self._descriptors: Final = descriptors
        self._cpuid: Final = cpuid
        self._lock: Final = threading.Lock()
        self._pid = 0
        self._code = 0
        self._failure: Exception | None = None

    def run(self, timeout: float) -> int:
        thread = threading.Thread(target=self._see_through, name="traced program", daemon=True)
        thread.start()
        try:
            thread.join(timeout)
            late = thread.is_alive()
        finally:
            self._end_session()
            thread.join()
        if self._failure is not None:
            raise self._failure
        if late:
            raise UndecidedError(f"the program did not end within {timeout:g} s")
        return self._code

    def _see_through(self) -> None:
        try:
            with self._lock:
                child = self._pid = os.posix_spawn(
                    self._command[0],
                    self._command,
                    self._env,
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, descriptor, number)
                        for number, descriptor in enumerate(self._descriptors)
                    ],
                    setsid=True,
                )
            tracer = CpuidTracer(child, self._cpuid, ending=self._end_session)
            self._code = tracer.run()
        except Exception as error:  # noqa: BLE001  # handed to the thread that waits
            self._failure = error

    def _end_session(self) -> None:
        """Kill whatever is left of the program, once, while its number cannot be another's."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._pid:
                os.killpg(self._pid, ptrace.SIGKILL)
                self._pid = 0
