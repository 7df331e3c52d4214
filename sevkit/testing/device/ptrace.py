"""ptrace(2) for one purpose: breakpoints in a program's code. Linux on x86-64 only.

Each function raises ``OSError``; ESRCH means that the thread was killed meanwhile.
"""

from __future__ import annotations

import ctypes
import os
from enum import IntEnum, IntFlag
from typing import Final

_CONT: Final = 7
_GETREGS: Final = 12
_SETREGS: Final = 13
_POKETEXT: Final = 4
_SETOPTIONS: Final = 0x4200
_GETEVENTMSG: Final = 0x4201

SIGKILL: Final = 9
SIGSTOP: Final = 19
SIGTRAP: Final = 5

#: waitpid(2): every kind of child, but only of the calling thread.
WAIT_ALL: Final = 0x4000_0000
WAIT_NO_THREAD: Final = 0x2000_0000


class Option(IntFlag):
    """What a traced thread stops for, beside signals; and that it is killed with its tracer."""

    FORK = 1 << 1
    VFORK = 1 << 2
    CLONE = 1 << 3
    EXEC = 1 << 4
    EXIT_KILL = 1 << 20


class Event(IntEnum):
    """Why a thread stopped, in the high bits of its status."""

    FORK = 1
    VFORK = 2
    CLONE = 3
    EXEC = 4


class Register(IntEnum):
    """Positions in ``struct user_regs_struct``."""

    RBX = 5
    RAX = 10
    RCX = 11
    RDX = 12
    RIP = 16


_Registers: Final = ctypes.c_ulong * 27

_ptrace: Final = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


def _call(request: int, thread: int, address: int = 0, data: object = 0) -> None:
    if _ptrace(request, thread, address, data) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace: {os.strerror(code)}")


def set_options(thread: int, options: Option) -> None:
    """Choose what a stopped thread, and every thread it makes from now on, stops for."""
    _call(_SETOPTIONS, thread, data=int(options))


def resume(thread: int, signal: int = 0) -> None:
    """Let a stopped thread go on, delivering ``signal`` unless it is 0."""
    _call(_CONT, thread, data=signal)


def event_message(thread: int) -> int:
    """Return the new thread's number at a stop for FORK, VFORK or CLONE."""
    message = ctypes.c_ulong()
    _call(_GETEVENTMSG, thread, data=ctypes.byref(message))
    return message.value


def poke(thread: int, address: int, word: bytes) -> None:
    """Write eight bytes into a thread's memory, also where its program may not write."""
    _call(_POKETEXT, thread, address, int.from_bytes(word, "little"))


def registers(thread: int) -> ctypes.Array[ctypes.c_ulong]:
    """Return a stopped thread's registers, indexed by ``Register``."""
    values = _Registers()
    _call(_GETREGS, thread, data=ctypes.byref(values))
    return values


def set_registers(thread: int, values: ctypes.Array[ctypes.c_ulong]) -> None:
    """Set a stopped thread's registers."""
    _call(_SETREGS, thread, data=ctypes.byref(values))
