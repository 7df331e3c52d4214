"""One request and its answer, as the server hands them to whoever decides. Pure.

Source: Kubernetes, "Dynamic Admission Control", Request and Response; the ``timeout`` of the URL
is a Go ``time.Duration`` as ``Duration.String`` prints it, rounded up to whole seconds (k8s.io/
apiserver, pkg/admission/plugin/webhook/mutating/dispatcher.go).
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

JSON: Final = "application/json"
#: What an API server waits where a configuration does not say, and the most that it may say.
TIMEOUT_SECONDS: Final = 10.0
TIMEOUT_CAP: Final = 30.0
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|h|m|s)){1,4}", re.ASCII)
_PART: Final = re.compile(r"([0-9.]+)(ms|h|m|s)", re.ASCII)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Request(NamedTuple):
    """A whole POST of JSON; ``path`` is unquoted, and one of those that the server was given."""

    path: str
    body: bytes


class Response(NamedTuple):
    """The answer. An API server reads a review only from a status of 200."""

    status: int
    body: bytes
    content_type: str = JSON


#: Decides. Called in the server's event loop: no I/O, and well below a millisecond.
Handle: TypeAlias = Callable[[Request], Response]


class Outcome(StrEnum):
    """What became of a connection or a request; the words are label values of a counter."""

    DECIDED = "decided"
    FAILED = "failed"  # the decision raised: a bug, answered with 500
    LATE = "late"  # the API server's timeout is over: 503
    BUSY = "busy"  # too many, or too much, waits for a decision: 429, come again
    GONE = "gone"  # hung up before there was an answer
    MALFORMED = "malformed"  # no HTTP/1.1: 400
    METHOD = "method"  # 405
    PATH = "path"  # 404
    CONTENT_TYPE = "content-type"  # 415
    TOO_LARGE = "too-large"  # 413
    HEAD_LARGE = "head-large"  # 431
    HANDSHAKE = "handshake"  # no TLS, none that is acceptable, or not in time
    HEAD_SLOW = "head-slow"
    BODY_SLOW = "body-slow"
    ANSWER_SLOW = "answer-slow"
    EVICTED = "evicted"  # made room for another connection, or for another's body


def parse_timeout(query: str) -> float:
    """Return the seconds that the API server waits, by its URL's query.

    What is not there or not a duration counts as the default; above the cap there is none.
    """
    values = urllib.parse.parse_qs(query[:1024], max_num_fields=None).get("timeout")
    if not values or not _DURATION.fullmatch(values[0]):
        return TIMEOUT_SECONDS
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(values[0]))
    return min(seconds, TIMEOUT_CAP)
