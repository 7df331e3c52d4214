"""What the API server, or the way to it, said instead of what was asked; told apart by kind.

A caller does something else for each: it waits for ``TooMany``, reports ``Forbidden`` loudly,
leaves out what a ``Conflict`` names, and tries again after ``Unreachable``. The API server's own
sentence is quoted on one line and cut: it says which right is missing and which policy denied.

Source: Kubernetes API conventions, "Response Status Kind"; k8s.io/apimachinery metav1.Status.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, final

from sevkit.documents import parse_json
from sevkit.errors import ClusterError, FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents import Json

SAID_LIMIT: Final = 400
RETRY_AFTER_CAP: Final = 24 * 3600.0
_MANAGER: Final = re.compile(r'conflict with "((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")


class Unreachable(ClusterError):
    """No connection, or it ended before there was an answer. A write may have happened."""


class Timeout(ClusterError):
    """No whole answer in time. A write may have happened."""


class BadAnswer(ClusterError):
    """An answer that no API server gives: not JSON, too large, or a redirect."""


class StatusError(ClusterError):
    """An answer with an HTTP status of 400 or above.

    ``status`` is that number, ``reason`` the machine-readable word of the API server's Status
    object ("Forbidden"), ``said`` its sentence; both are empty where somebody else answered.
    ``retry_after`` is in seconds, or None where nothing was said.
    """

    says: ClassVar[str] = "API server rejects the request"
    does: ClassVar[str] = ""

    def __init__(
        self,
        status: int,
        *,
        reason: str = "",
        said: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            f"{self.says} ({status}{reason and f' {reason}'}){said and f': {said}'}", hint=self.does
        )
        self.status = status
        self.reason = reason
        self.said = said
        self.retry_after = retry_after


class Rejected(StatusError):
    """Any other 4xx: ill-formed, invalid, denied by an admission policy."""


class Unauthorized(StatusError):
    """401: our token or certificate is not accepted."""

    says = "API server does not accept our credentials"
    does = "is the token expired, or of another cluster?"


class Forbidden(StatusError):
    """403: authenticated, but without the right, or denied by an admission policy."""

    says = "API server forbids the request"
    does = "is the ClusterRole of this installation bound to our service account?"


class NotFound(StatusError):
    """404: no such object, or no such kind of object."""

    says = "API server does not have it"


class Gone(StatusError):
    """410: a list or a watch was continued too late; begin again."""

    says = "API server has forgotten where the list began"
    does = "begin again"


class TooMany(StatusError):
    """429: the API server asks to come again, after ``retry_after`` if it says so."""

    says = "API server is busy"
    does = "try again later"


class ServerFault(StatusError):
    """5xx: the API server, or something before it, failed. A write may have happened."""

    says = "API server failed"
    does = "try again later"


@final
@dataclass(frozen=True, slots=True)
class Contested:
    """One field that another manager owns with another value; ``field`` as the server prints it.

    For example ``.metadata.labels.sevkit.io/sev`` and ``kubectl-label``.
    """

    field: str
    manager: str


class Conflict(StatusError):
    """409: other managers own fields that were applied, the object changed, or it exists already.

    ``contested`` names the fields, and is empty in the other two cases.
    """

    says = "API server sees a conflict"

    def __init__(
        self,
        status: int,
        *,
        reason: str = "",
        said: str = "",
        retry_after: float | None = None,
        contested: tuple[Contested, ...] = (),
    ) -> None:
        super().__init__(status, reason=reason, said=said, retry_after=retry_after)
        self.contested = contested


_KINDS: Final[dict[int, type[StatusError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    410: Gone,
    429: TooMany,
}


def parse_status(status: int, body: bytes, retry_after: str | None = None) -> ClusterError:
    """Return the error that an answer with ``status`` (300 and above) means.

    ``body`` is a Status object where the API server itself answered, and may be anything else or
    cut; ``retry_after`` is the header.
    """
    if status < 400:
        return BadAnswer(
            f"API server answered with status {status}, which is not followed",
            hint="is this the API server's address?",
        )
    document = _status_object(body)
    reason = one_line(document.get("reason"), 80)
    said = one_line(document.get("message"))
    wait = parse_retry_after(retry_after)
    if status == 409:
        contested = _contested(document)
        return Conflict(status, reason=reason, said=said, retry_after=wait, contested=contested)
    kind = _KINDS.get(status, ServerFault if status >= 500 else Rejected)
    return kind(status, reason=reason, said=said, retry_after=wait)


def parse_retry_after(word: str | None) -> float | None:
    """Return the seconds of a Retry-After header, at most a day; None for anything but digits."""
    word = (word or "").strip()
    if not (word.isascii() and word.isdigit()):
        return None
    return min(float(word[:9]) if len(word) <= 9 else RETRY_AFTER_CAP, RETRY_AFTER_CAP)


def one_line(value: Json, limit: int = SAID_LIMIT) -> str:
    """Return a text of the other side as one line of printable characters, or "" for no text."""
    if not isinstance(value, str):
        return ""
    words = " ".join(value[: limit * 4].split())
    clean = "".join(letter if letter.isprintable() else "?" for letter in words)
    return clean if len(clean) <= limit else f"{clean[:limit]}…"


def _status_object(body: bytes) -> Mapping[str, Json]:
    try:
        document = parse_json(body, "API server's status")
    except FormatError:
        return {}
    is_status = isinstance(document, dict) and document.get("kind") == "Status"
    return document if is_status and isinstance(document, dict) else {}


def _contested(document: Mapping[str, Json]) -> tuple[Contested, ...]:
    """Return the causes of reason FieldManagerConflict, whose manager stands in the sentence."""
    details = document.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    found = []
    for cause in causes if isinstance(causes, list) else []:
        if not isinstance(cause, dict) or cause.get("reason") != "FieldManagerConflict":
            continue
        field, message = cause.get("field"), cause.get("message")
        if isinstance(field, str) and isinstance(message, str):
            manager = _MANAGER.search(message)
            name = _ESCAPED.sub(r"\1", manager[1]) if manager else ""
            found.append(Contested(field, one_line(name, 128)))
    return tuple(found)
