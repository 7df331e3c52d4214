"""What an API server and virt-api answer, byte by byte: Status objects, and virt-api's plain texts.

Source: apimachinery ``pkg/api/errors`` (reasons, messages, details); KubeVirt 1.9
``pkg/virt-api/rest`` (which of its errors are Status objects and which are text).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
_GROUP: Final = "kubevirt.io"
#: virt-api names the resource in the singular.
_KIND: Final = "virtualmachineinstance"


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer. ``stream`` yields more lines after the body, for a watch."""

    status: int
    body: bytes = b""
    content_type: str = ""
    stream: Iterator[bytes] | None = None


@final
class Refusal(Exception):
    """A request is answered with a Status object, ``message`` being what people read."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.code: Final = code
        self.message: Final = message
        self._reason: Final = reason
        self._details: Final = details

    def answer(self) -> Answer:
        """Return it as virt-api's ``writeError`` does."""
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self._reason,
            **({"details": self._details} if self._details else {}),
            "code": self.code,
        }
        return document(status, self.code)


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "group": _GROUP, "kind": _KIND}


def bad_request(message: str) -> Refusal:
    """400 BadRequest."""
    return Refusal(400, "BadRequest", message, {})


def not_found(name: str) -> Refusal:
    """404 NotFound, of a VMI."""
    message = f'{_KIND}.{_GROUP} "{name}" not found'
    return Refusal(404, "NotFound", message, _named(name))


def conflict(name: str, why: str) -> Refusal:
    """409 Conflict: the VMI is not in the state that the request needs."""
    message = f'Operation cannot be fulfilled on {_KIND}.{_GROUP} "{name}": {why}'
    return Refusal(409, "Conflict", message, _named(name))


def forbidden(name: str, why: str) -> Refusal:
    """403 Forbidden."""
    message = f'{_KIND}.{_GROUP} "{name}" is forbidden: {why}'
    return Refusal(403, "Forbidden", message, _named(name))


def exists(name: str) -> Refusal:
    """409 AlreadyExists."""
    message = f'{_KIND}s.{_GROUP} "{name}" already exists'
    return Refusal(409, "AlreadyExists", message, {**_named(name), "kind": f"{_KIND}s"})


def invalid(message: str) -> Refusal:
    """422 Invalid, as KubeVirt's admission webhook words it."""
    text = (
        f'admission webhook "{_KIND}s-create-validator.kubevirt.io" denied the request: {message}'
    )
    return Refusal(422, "Invalid", text, {})


def expired(message: str) -> Refusal:
    """410 Expired: a resource version that is too old."""
    return Refusal(410, "Expired", message, {})


def internal(message: str) -> Refusal:
    """500 InternalError."""
    details = {"causes": [{"message": message}]}
    return Refusal(500, "InternalError", f"Internal error occurred: {message}", details)


def document(value: dict[str, Any], status: int = 200) -> Answer:
    """Return JSON as an API server writes it."""
    return Answer(status, json.dumps(value).encode(), JSON)


def entity(value: dict[str, Any]) -> Answer:
    """Return what virt-api decoded from virt-handler: indented, keys sorted, no zero or empty."""
    kept = {key: entry for key, entry in value.items() if entry}
    return Answer(200, json.dumps(kept, indent=1, sort_keys=True).encode(), JSON)


def text(status: int, message: str) -> Answer:
    """Return a plain text."""
    return Answer(status, message.encode(), TEXT)
