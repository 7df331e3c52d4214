"""AdmissionReview, version 1: a request read strictly, and its answer written. Pure.

A review that is no review raises ``FormatError``; what it asks about is judged elsewhere, and may
be as ill-formed as a tenant likes, because the API server checks the schema only after it has
called webhooks. Nothing is ever allowed because of an error.

Source: kubernetes.io, "Dynamic Admission Control"; k8s.io/api/admission/v1.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sevkit.documents.quick import parse_machine_json, write_json
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sevkit.documents import Json
    from sevkit.kubevirt.json_patch import Operation
    from sevkit.kubevirt.launch_rules import Refusal

VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
#: Largest review, in bytes: an object of 1.5 MiB, twice for an update, and what is around it.
REVIEW_LIMIT: Final = 3 << 20
#: The API server passes a warning of up to 256 characters on, and 4 KiB of them together.
_WARNINGS: Final = 4096
_MESSAGE: Final = 2048
_UID: Final = 128
_STRUCTURE: Final = "AdmissionReview"


class Review(NamedTuple):
    """What is asked. ``document`` is the new object, empty where there is none."""

    uid: str
    group: str
    kind: str
    operation: str
    namespace: str
    document: Mapping[str, Json]


def parse_review(data: bytes) -> Review:
    """Return the request of a review. Raises ``FormatError``."""
    document = parse_machine_json(data, _STRUCTURE, limit=REVIEW_LIMIT)
    if not isinstance(document, dict):
        raise FormatError(_STRUCTURE, "not an object")
    if document.get("apiVersion") != VERSION or document.get("kind") != KIND:
        raise FormatError(_STRUCTURE, f"not a {KIND} of {VERSION}")
    request = _object(document, "request")
    uid = _text(request, "uid")
    if not 0 < len(uid) <= _UID or not uid.isprintable():
        raise FormatError(_STRUCTURE, "uid is none")
    kind = _object(request, "kind")
    found = request.get("object")
    return Review(
        uid,
        _text(kind, "group"),
        _text(kind, "kind"),
        _text(request, "operation"),
        _text(request, "namespace", ""),
        found if isinstance(found, dict) else {},
    )


def _object(document: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    found = document.get(key)
    if not isinstance(found, dict):
        raise FormatError(_STRUCTURE, f"{key} is no object")
    return found


def _text(document: Mapping[str, Json], key: str, default: str | None = None) -> str:
    found = document.get(key, default)
    if not isinstance(found, str):
        raise FormatError(_STRUCTURE, f"{key} is no text")
    return found


def encode_allowed(
    uid: str,
    operations: Sequence[Operation] = (),
    *,
    warnings: Iterable[str] = (),
    audit: Mapping[str, str] | None = None,
) -> bytes:
    """Return the answer that admits an object, changed by ``operations``."""
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if operations:
        patch = write_json([one.to_json() for one in operations], _STRUCTURE)
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(patch).decode()
    return _encode(response, warnings, audit)


def encode_refused(
    uid: str,
    refusals: Sequence[Refusal],
    *,
    undecided: bool = False,
    warnings: Sequence[str] = (),
    audit: Mapping[str, str] | None = None,
) -> bytes:
    """Return the answer that refuses an object, with every reason.

    ``undecided``: it is not the object's fault, and may be tried again.
    """
    code, reason = (503, "ServiceUnavailable") if undecided else (422, "Invalid")
    message = _plain("; ".join(map(str, refusals)))
    details: dict[str, Any] = {
        "causes": [
            {
                "reason": "FieldValueInvalid",
                "field": one.field,
                "message": _plain(f"{one.message}; {one.fix}"),
            }
            for one in refusals
        ]
    }
    if undecided:
        details["retryAfterSeconds"] = 30
    status = {
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message if len(message) <= _MESSAGE else f"{message[:_MESSAGE]}…",
        "details": details,
    }
    response = {"uid": uid, "allowed": False, "status": status}
    return _encode(response, warnings, audit)


def encode_error(uid: str, message: str) -> bytes:
    """Return the answer to a review of what this webhook does not judge."""
    status = {"status": "Failure", "code": 400, "reason": "BadRequest", "message": message}
    return _encode({"uid": uid, "allowed": False, "status": status}, (), None)


def _encode(
    response: dict[str, Any], warnings: Iterable[str], audit: Mapping[str, str] | None
) -> bytes:
    kept, room = [], _WARNINGS
    for warning in map(_plain, warnings):
        room -= len(warning)
        if room < 0:
            break
        kept.append(warning)
    if kept:
        response["warnings"] = kept
    if audit:
        response["auditAnnotations"] = dict(audit)
    document = {"apiVersion": VERSION, "kind": KIND, "response": response}
    return write_json(document, _STRUCTURE)


def _plain(text: str) -> str:
    """Return a text without what moves a terminal's cursor: names in it are the tenant's.

    An API server drops a warning with a control character (k8s.io/apimachinery, pkg/util/net,
    NewWarningHeader).
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
