"""Reviews over HTTP: which bodies are reviews, and what they are answered with."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, Protocol, final

from sevkit.errors import FormatError
from sevkit.kubevirt.launch_security import Around
from sevkit.kubevirt.webhook import Answer, answer
from webhooks.exchange import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.kubevirt.installation import Installation
    from sevkit.kubevirt.policy import Policy
    from sevkit.kubevirt.tiers import Tier

_LOG: Final = logging.getLogger("sevkit.webhook")
_PLAIN: Final = "text/plain; charset=utf-8"


class Surroundings(Protocol):
    """What is known of the cluster; answers at once, from memory."""

    @property
    def installation(self) -> Installation:
        """What KubeVirt's own resource says."""
        ...

    def runnable(self, *, simulated: bool) -> frozenset[Tier] | None:
        """Return the tiers that some node can run, None where that is not known now."""
        ...


class Tally(Protocol):
    """Whoever counts."""

    def answered(self, found: Answer, seconds: float) -> None:
        """Learn of an answer, and how long it took."""
        ...

    def rejected(self) -> None:
        """Learn of a request that was no review."""
        ...


@final
class Reviewer:
    """Answers requests with what becomes of the objects in them.

    ``policy`` is asked for each review, because it may be another one by then.
    """

    def __init__(
        self, policy: Callable[[], Policy], surroundings: Surroundings, tally: Tally
    ) -> None:
        self._policy: Final = policy
        self._surroundings: Final = surroundings
        self._tally: Final = tally

    def __call__(self, request: Request) -> Response:
        """Return the answer to one request; the server has looked at its head, and bounds it."""
        begun = time.perf_counter()
        policy = self._policy()
        around = Around(
            self._surroundings.installation,
            self._surroundings.runnable(simulated=policy.simulated_nodes),
        )
        try:
            found = answer(request.path, request.body, policy, around)
        except FormatError as error:
            self._tally.rejected()
            return Response(400, f"{error.message}\n".encode(), _PLAIN)
        self._tally.answered(found, time.perf_counter() - begun)
        if found.decision not in {"admitted", "ignored", "warned"}:
            more = {"decision": found.decision, "tier": found.tier, "reason": found.reason}
            _LOG.info("answered", extra={"path": request.path, **more})
        return Response(200, found.body)
