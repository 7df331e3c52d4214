"""When certificates of our own making are looked after: calmly, and never where reviews wait.

    keeper = Keeper(custodian, certificates.offer, terms, told=log_it)
    seconds = keeper.step()  # a pass, and how long to rest; again and again from one thread

Theory of operation. A pass costs an API server three requests that change nothing, unless a step is
due; so there is one in each ``Terms.rest``, a minute, and each replica's at another moment. A pass
that fails is tried again after a second, and ever more rarely. It is told once, and again when it
fails for another reason; that the other replica was faster is told only if it always is. What is
served meanwhile is what was served before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, final

from sevkit.cluster.errors import Conflict
from sevkit.cluster.watch import pause_seconds
from sevkit.errors import ClusterError, SevkitError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from webhooks.rotation import Terms
    from webhooks.tls import Pair

#: Passes in a row in which another was faster, before that is trouble.
_BEATEN: Final = 5
#: How much of a rest is left to chance, more or less.
_SHARE: Final = 0.2


class Custody(Protocol):
    """Whoever takes a step, and has the pair that is to be served after it."""

    @property
    def trouble(self) -> ClusterError | None:
        """What did not work in the last pass, and does not matter yet."""

    def read(self) -> Pair:
        """Take the step that is due, and return the pair, or raise a ``SevkitError``."""


@final
class Keeper:
    """Takes passes, and hands on what is to be served. ``told`` hears of trouble, and of its end.

    ``offer`` raises nothing: what it thinks of a pair it says elsewhere. For one thread.
    """

    def __init__(
        self,
        custody: Custody,
        offer: Callable[[Pair], None],
        terms: Terms,
        *,
        told: Callable[[SevkitError | None], None],
        random: Random,
    ) -> None:
        self._custody: Final = custody
        self._offer: Final = offer
        self._rest: Final = terms.rest.total_seconds()
        self._told: Final = told
        self._random: Final = random
        self._failures = 0
        self._said = ""

    def step(self) -> float:
        """Take a pass, and return the seconds until the next."""
        error = self._pass()
        if error is None:
            self._failures = 0
            self._say(None)
            return self._rest * self._random.uniform(1 - _SHARE, 1 + _SHARE)
        self._failures += 1
        if not isinstance(error, Conflict) or self._failures >= _BEATEN:
            self._say(error)
        return pause_seconds(error, self._failures, self._random)

    def _pass(self) -> SevkitError | None:
        try:
            self._offer(self._custody.read())
        except SevkitError as error:
            return error
        return self._custody.trouble

    def _say(self, error: SevkitError | None) -> None:
        said = error.message if error else ""
        if said != self._said:
            self._said = said
            self._told(error)
