"""Arranges a private view of the machine and becomes another program in it; run as a script.

    python -I -S launch.py PLAN WORD...

PLAN is JSON, as ``run.py`` writes it. The view is this process' own mount namespace: ``/dev`` is a
fresh one with the standard nodes and the simulated devices, and ``/sys`` and files of ``/proc`` are
those of a simulated host. A failure before the program starts is one line on descriptor 3, which
closes when the program does start. Stands alone, so that starting it imports nothing else.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import NoReturn, TypedDict

    class Plan(TypedDict):
        """What to arrange; paths are as seen inside ``namespace``, if there is one."""

        namespace: str | None
        devices: str
        names: list[str]
        host_root: str | None
        folder: str
        trace: bool


REPORT: Final = 3

_NEW_MOUNTS: Final = 0x0002_0000
_NOSUID: Final = 2
_BIND: Final = 4096
_REC: Final = 16384
_SLAVE: Final = 1 << 19
_TRACE_ME: Final = 0

_NODES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_FOLDERS: Final = ("pts", "shm")
_LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: bytes | int | None) -> None:
    words = (ctypes.c_ulong(word) if isinstance(word, int) else word for word in arguments)
    if getattr(_libc, name)(*words) < 0:
        code = ctypes.get_errno()
        told = ", ".join(repr(word) for word in arguments)
        raise OSError(code, f"{name}({told}): {os.strerror(code)}")


def _mount(source: Path, target: Path, flags: int, kind: bytes | None = None) -> None:
    _call("mount", os.fsencode(source), os.fsencode(target), kind, flags, None)


def _own_mounts(namespace: str | None) -> None:
    if namespace is not None:
        descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        _call("setns", descriptor, _NEW_MOUNTS)
        os.close(descriptor)
    _call("unshare", _NEW_MOUNTS)
    _mount(Path("none"), Path("/"), _REC | _SLAVE)


def _fresh_dev(devices: Path, names: list[str]) -> None:
    """Cover /dev: nothing of this machine's own devices is left but what every program needs."""
    dev = Path("/dev")
    old = os.open(dev, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    covered = Path(f"/proc/self/fd/{old}")
    _mount(Path("tmpfs"), dev, _NOSUID, b"tmpfs")
    for name in (*_NODES, *_FOLDERS):
        if (covered / name).exists():
            _bind(covered / name, dev / name)
    for name, target in _LINKS.items():
        (dev / name).symlink_to(target)
    for name in names:
        _bind(devices / name, dev / name)
    os.close(old)


def _bind(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(parents=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(source, target, _BIND | _REC)


def _simulated_host(root: Path) -> None:
    """Cover /sys, and of /proc each file that this kernel has too: there, none can be added."""
    if (root / "sys").is_dir():
        _mount(root / "sys", Path("/sys"), _BIND | _REC)
    proc = root / "proc"
    for source in sorted(path for path in proc.rglob("*") if path.is_file()):
        target = Path("/proc") / source.relative_to(proc)
        if target.exists():
            _mount(source, target, _BIND)


def _become(plan: Plan, words: list[str]) -> NoReturn:
    _own_mounts(plan["namespace"])
    if plan["host_root"] is not None:
        _simulated_host(Path(plan["host_root"]))
    _fresh_dev(Path(plan["devices"]), plan["names"])
    os.chdir(plan["folder"])
    if plan["trace"]:
        _call("ptrace", _TRACE_ME, 0, 0, 0)
    os.execvp(words[0], words)  # noqa: S606  # the caller's program, as given


def main() -> NoReturn:
    """Become the program, or say why not."""
    os.set_inheritable(REPORT, False)  # noqa: FBT003  # takes no names
    try:
        _become(json.loads(sys.argv[1]), sys.argv[2:])
    except OSError as error:
        os.write(REPORT, str(error).encode(errors="replace"))
        os._exit(1)


if __name__ == "__main__":
    main()
