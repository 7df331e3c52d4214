"""What people are told of the policy file, as Events of the webhook's own pod.

    news = PolicyNews(tell, lambda: file.problem, clock=time.monotonic, random=SystemRandom())
    seconds = news.step()  # again and again, from a thread in which an API server may be waited for

A file that is none is told at once, and again while it lasts, because an API server forgets an
Event after an hour; that it is mended is told once. Between two Events there is half a minute,
whatever is written to the file.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, final

from sevkit.cluster.events import Event
from sevkit.cluster.watch import pause_seconds
from sevkit.errors import SevkitError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

CONTROLLER: Final = "sevkit.io/webhook"
REFUSED: Final = "PolicyRefused"
ACCEPTED: Final = "PolicyAccepted"
READ: Final = "ReadPolicy"
#: How often what is told is compared with what is so; this asks nobody.
LOOK_SECONDS: Final = 5.0
#: How often it is told again while it lasts: twice in an API server's hour.
AGAIN_SECONDS: Final = 1800.0
_GAP_SECONDS: Final = 30.0
_LOG: Final = logging.getLogger("sevkit.webhooks.news")


def policy_event(problem: str, *, serves: bool = True) -> Event:
    """Return the Event for what is wrong with the policy file, "" for nothing.

    ``serves`` is whether there is a policy before it that stays in force.
    """
    if not problem:
        return Event(ACCEPTED, READ, "the policy file is in force")
    rest = "the last good one stays in force" if serves else "the webhook does not start without"
    return Event(REFUSED, READ, f"the policy file is refused: {problem}; {rest}", "Warning")


@final
class PolicyNews:
    """Tells of the policy file. ``tell`` may raise a ``SevkitError``: then it is tried again."""

    def __init__(
        self,
        tell: Callable[[Event], None],
        problem: Callable[[], str],
        *,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._tell: Final = tell
        self._problem: Final = problem
        self._clock: Final = clock
        self._random: Final = random
        self._said = ""
        self._not_before = self._again = clock()
        self._failures = 0

    def step(self) -> float:
        """Tell what is due, and return the seconds until the next step."""
        problem, now = self._problem(), self._clock()
        is_news = problem != self._said
        if now >= self._not_before and (is_news or (problem and now >= self._again)):
            self._try(problem, now)
        return LOOK_SECONDS

    def _try(self, problem: str, now: float) -> None:
        try:
            self._tell(policy_event(problem))
        except SevkitError as error:
            self._failures += 1
            self._not_before = now + pause_seconds(error, self._failures, self._random)
            if self._failures == 1:
                _LOG.warning("events cannot be told", exc_info=error)
            return
        self._failures, self._said = 0, problem
        self._not_before = now + _GAP_SECONDS
        self._again = now + AGAIN_SECONDS * self._random.uniform(0.8, 1.2)
