"""What can go wrong with a secure processor, injected on demand.

A fault is met when a command arrives: the processor may be dead, may not answer in time, may
answer with a status of the fault's choice, or may give a length that the specification does not
have. Real ones did all of these; each has left tools of the field without an explanation.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.errors import FirmwareError

if TYPE_CHECKING:
    from collections.abc import Mapping


class NoAnswer(FirmwareError):
    """The secure processor did not answer a command in time, or is known to be dead."""


@dataclass(slots=True)
class _Fault:
    command: str
    status: FirmwareStatus | None  # None: it never answers
    left: int | None


@final
class Faults:
    """Faults of one processor; they may be added and removed while it runs."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._faults: Final[list[_Fault]] = []
        self._lengths: Final[dict[str, int]] = {}
        self._dead = False

    @property
    def dead(self) -> bool:
        """Whether the processor answers nothing any more: until the host is booted again."""
        return self._dead

    @property
    def lengths(self) -> Mapping[str, int]:
        """The wrong length, in bytes, that commands by these names report."""
        return self._lengths

    def kill(self) -> None:
        """Let the processor die: no command is answered from now on."""
        self._dead = True

    def fail(self, command: str, status: FirmwareStatus, *, times: int | None = None) -> None:
        """Refuse ``command`` with ``status``, ``times`` times or always."""
        with self._lock:
            self._faults.append(_Fault(command, status, times))

    def hang(self, command: str) -> None:
        """Never answer ``command``: the processor is dead after that, as Linux treats it."""
        with self._lock:
            self._faults.append(_Fault(command, None, None))

    def misreport_length(self, command: str, length: int) -> None:
        """Let ``command`` report ``length`` bytes, whatever it has."""
        self._lengths[command] = length

    def heal(self) -> None:
        """Forget all faults, also that the processor is dead. The platform's state stays."""
        with self._lock:
            self._faults.clear()
            self._lengths.clear()
            self._dead = False

    def meet(self, command: str) -> None:
        """Raise what ``command`` is to meet, if anything: ``NoAnswer`` or ``CommandError``."""
        with self._lock:
            if self._dead:
                raise NoAnswer(f"{command}: the secure processor is dead", hint=_REBOOT)
            for fault in self._faults:
                if fault.command != command or fault.left == 0:
                    continue
                fault.left = None if fault.left is None else fault.left - 1
                if fault.status is not None:
                    raise CommandError(command, fault.status, "injected")
                self._dead = True
                raise NoAnswer(f"{command}: the secure processor did not answer", hint=_REBOOT)


_REBOOT: Final = "only booting the host again brings it back"
