"""What can go wrong between a client and virt-api, injected on demand.

``broken`` takes any fault of ``sevkit.testing.key_service_faults``: a status such as 503, silence,
bytes that drip. The others need the connection or the answer itself.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.key_service_faults import Fault


@final
@dataclass(frozen=True, slots=True)
class HttpFault:
    """One fault; made by the functions below.

    ``delay`` seconds pass first. Then ``fault`` is played in place of an answer, or the connection
    is ``reset``, or the answer goes out with ``mutate`` applied to its body. ``late`` says that the
    request takes effect before the fault is played: the answer alone is lost.
    """

    delay: float = 0.0
    fault: Fault | None = None
    reset: bool = False
    mutate: Callable[[bytes], bytes] = field(default=lambda body: body)
    late: bool = False


def broken(fault: Fault, *, late: bool = False) -> HttpFault:
    """Answer with a fault of the simulated key service; if ``late``, when the work is done."""
    return HttpFault(fault=fault, late=late)


def slow(seconds: float) -> HttpFault:
    """Answer truly, ``seconds`` later."""
    return HttpFault(delay=seconds)


def reset(*, late: bool = False) -> HttpFault:
    """Reset the connection (TCP RST) in place of an answer."""
    return HttpFault(reset=True, late=late)


def mutated(mutate: Callable[[bytes], bytes]) -> HttpFault:
    """Answer with another body; the status stays."""
    return HttpFault(mutate=mutate)


@dataclass(slots=True)
class _Rule:
    pattern: re.Pattern[str]
    fault: HttpFault
    left: int | None


@final
class HttpFaults:
    """Faults that wait for their requests; they may be added and removed at any time."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._rules: Final[list[_Rule]] = []
        self._requests: Final[list[str]] = []

    @property
    def requests(self) -> tuple[str, ...]:
        """Method and target of every request so far, in order."""
        with self._lock:
            return tuple(self._requests)

    def add(self, fault: HttpFault, *, pattern: str = "", times: int | None = None) -> None:
        """Let ``fault`` meet requests whose ``METHOD target`` matches, ``times`` times or always.

        The oldest fault that fits and is not used up is taken.
        """
        with self._lock:
            self._rules.append(_Rule(re.compile(pattern), fault, times))

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._rules.clear()

    def take(self, request: str) -> HttpFault:
        """Note a request, and return the fault that it is to meet; one that does nothing else."""
        with self._lock:
            self._requests.append(request)
            for rule in self._rules:
                if rule.left != 0 and rule.pattern.search(request):
                    rule.left = None if rule.left is None else rule.left - 1
                    return rule.fault
        return HttpFault()
