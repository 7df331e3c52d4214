"""Answers a compiled program's CPUID instructions from a simulation, by breakpoints.

Theory of operation. Few processors can trap CPUID, so the program is traced: when it has been
loaded, before its first instruction, every CPUID in its executable's code gets a breakpoint, at
the places that ``cpuid_sites`` is sure of. At a breakpoint the registers are set as CPUID would,
and the program goes on behind it. Threads share their process' breakpoints; forked processes
inherit them with the memory; a program that is executed gets its own. Shared libraries are left
alone, so that the C library chooses its string functions for the processor that there really is.

A new thread's first stop and its parent's word of it come in either order: whichever is first
waits for the other. Everything here happens in one thread, because ptrace knows its tracer by it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from sevkit.testing.device import ptrace
from sevkit.testing.device.cpuid_sites import find_cpuid_sites
from sevkit.testing.device.ptrace import Event, Option, Register

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.device.registers import Cpuid

_OPTIONS: Final = Option.FORK | Option.VFORK | Option.CLONE | Option.EXEC | Option.EXIT_KILL
_NEW: Final = frozenset({Event.FORK, Event.VFORK, Event.CLONE})
_ENDED: Final = frozenset({os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED})
_OURS: Final = ptrace.WAIT_ALL | ptrace.WAIT_NO_THREAD
_INT3: Final = 0xCC
_MASK: Final = 0xFFFF_FFFF
#: ELF, 64 bits, little-endian; at 18, the machine: x86-64.
_ELF: Final = b"\x7fELF\x02\x01"
_X86_64: Final = b"\x3e\x00"


@final
class CpuidTracer:
    """Sees a child of this thread to its end; with ``cpuid``, answers its CPUID instructions.

    The child must have asked to be traced (PTRACE_TRACEME) before it executes the program.
    ``ending`` is called when the child has ended and its number is still its own.
    """

    def __init__(
        self, child: int, cpuid: Cpuid | None, *, ending: Callable[[], None] = lambda: None
    ) -> None:
        self._child: Final = child
        self._cpuid: Final = cpuid
        self._ending: Final = ending
        #: By thread: where its process has breakpoints.
        self._sites: Final[dict[int, frozenset[int]]] = {}
        self._early: Final[set[int]] = set()
        self._announced: Final[set[int]] = set()

    def run(self) -> int:
        """Return the child's exit code, or minus the signal that killed it.

        What it leaves running is killed, as far as it was traced, when this thread ends. If an
        answer raises, the child is ended first.
        """
        try:
            return self._follow()
        except ChildProcessError:
            raise  # somebody else waited for it, and its number may be another's
        except Exception:
            os.kill(self._child, ptrace.SIGKILL)
            self._ending()
            self._reap()
            raise

    def _reap(self) -> None:
        """Wait for the killed child; its traced threads have to be waited for before itself."""
        thread, status = 0, 0
        while thread != self._child or os.WIFSTOPPED(status):
            thread, status = os.waitpid(-1, _OURS)

    def _follow(self) -> int:
        while True:
            news = os.waitid(os.P_ALL, 0, os.WEXITED | os.WSTOPPED | os.WNOWAIT | _OURS)
            if news is None:  # only with WNOHANG
                continue
            if news.si_pid == self._child and news.si_code in _ENDED:
                self._ending()
            thread, status = os.waitpid(news.si_pid, _OURS)
            if not os.WIFSTOPPED(status):
                self._sites.pop(thread, None)
                if thread == self._child:
                    return os.waitstatus_to_exitcode(status)
                continue
            try:
                self._stopped(thread, os.WSTOPSIG(status), status >> 16)
            except OSError as error:
                if error.errno != errno.ESRCH:
                    raise

    def _stopped(self, thread: int, signal: int, event: int) -> None:
        if event in _NEW:
            self._announce(ptrace.event_message(thread), self._sites.get(thread, frozenset()))
        elif event == Event.EXEC:
            self._sites[thread] = _plant(thread)
        elif thread in self._announced and signal == ptrace.SIGSTOP:
            self._announced.discard(thread)
        elif thread not in self._sites and signal == ptrace.SIGSTOP:
            self._early.add(thread)
            return
        elif thread not in self._sites:
            ptrace.set_options(thread, _OPTIONS)
            self._sites[thread] = _plant(thread)
        elif signal != ptrace.SIGTRAP or not self._answered(thread):
            ptrace.resume(thread, signal)
            return
        ptrace.resume(thread)

    def _announce(self, new: int, sites: frozenset[int]) -> None:
        self._sites[new] = sites
        if new in self._early:
            self._early.discard(new)
            ptrace.resume(new)
        else:
            self._announced.add(new)

    def _answered(self, thread: int) -> bool:
        """Carry out the CPUID of the breakpoint that was hit; False if it is none of ours."""
        values = ptrace.registers(thread)
        site = values[Register.RIP] - 1
        if self._cpuid is None or site not in self._sites[thread]:
            return False
        told = self._cpuid(values[Register.RAX] & _MASK, values[Register.RCX] & _MASK)
        order = (Register.RAX, Register.RBX, Register.RCX, Register.RDX)
        for register, value in zip(order, told, strict=True):
            values[register] = value & _MASK
        values[Register.RIP] = site + 2
        ptrace.set_registers(thread, values)
        return True


def _plant(thread: int) -> frozenset[int]:
    """Put breakpoints into the program that a thread has just executed; return where."""
    program = Path(f"/proc/{thread}/exe")
    with program.open("rb") as file:
        head = file.read(20)
    if not head.startswith(_ELF) or head[18:20] != _X86_64:
        return frozenset()
    found: set[int] = set()
    with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
        for start, end in _code_of(thread, str(program.readlink())):
            memory.seek(start)
            code = bytearray(memory.read(end - start))
            places = find_cpuid_sites(bytes(code))
            for place in places:
                code[place] = _INT3
            for word in sorted({place & ~7 for place in places}):
                ptrace.poke(thread, start + word, bytes(code[word : word + 8]))
            found.update(start + place for place in places)
    return frozenset(found)


def _code_of(thread: int, program: str) -> list[tuple[int, int]]:
    """Return the ranges in which a thread's executable is mapped as code."""
    ranges = []
    for line in Path(f"/proc/{thread}/maps").read_text(errors="surrogateescape").splitlines():
        words = line.split(maxsplit=5)
        if len(words) == 6 and words[5] == program and "x" in words[1]:
            start, _, end = words[0].partition("-")
            ranges.append((int(start, 16), int(end, 16)))
    return ranges
