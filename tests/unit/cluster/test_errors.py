from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.cluster.errors import (
    RETRY_AFTER_CAP,
    SAID_LIMIT,
    BadAnswer,
    Conflict,
    Contested,
    Forbidden,
    Gone,
    NotFound,
    Rejected,
    ServerFault,
    TooMany,
    Unauthorized,
    one_line,
    parse_retry_after,
    parse_status,
)
from sevkit.errors import ClusterError, UndecidedError

if TYPE_CHECKING:
    from sevkit.cluster.errors import StatusError


def status(**fields: object) -> bytes:
    return json.dumps(
        {"kind": "Status", "apiVersion": "v1", "status": "Failure", **fields}
    ).encode()


#: As kube-apiserver answers when two other managers own what was applied, and one of them twice.
CONFLICT: dict[str, Any] = {
    "message": 'Apply failed with 3 conflicts: conflicts with "kubectl-label" using v1: …',
    "reason": "Conflict",
    "details": {
        "causes": [
            {
                "reason": "FieldManagerConflict",
                "message": 'conflict with "kubectl-label" using v1',
                "field": ".metadata.labels.sevkit.io/sev",
            },
            {
                "reason": "FieldManagerConflict",
                "message": 'conflict with "kube\\"let" with subresource "status" using v1 at …',
                "field": ".status.capacity.sevkit.io/sev-es",
            },
        ]
    },
    "code": 409,
}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, Rejected),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (405, Rejected),
        (409, Conflict),
        (410, Gone),
        (413, Rejected),
        (415, Rejected),
        (422, Rejected),
        (429, TooMany),
        (500, ServerFault),
        (503, ServerFault),
        (504, ServerFault),
        (599, ServerFault),
    ],
)
def test_each_status_is_an_error_of_its_own(code: int, kind: type[StatusError]) -> None:
    found = parse_status(code, status(reason="Because", message="it is so"), "7")
    assert type(found) is kind
    assert isinstance(found, ClusterError)
    assert (found.status, found.reason, found.said) == (code, "Because", "it is so")
    assert found.retry_after == 7
    assert found.message.endswith(f"({code} Because): it is so")
    assert found.exit_code == UndecidedError.exit_code


@pytest.mark.parametrize("code", [301, 302, 307, 304])
def test_a_redirect_is_no_answer(code: int) -> None:
    assert isinstance(parse_status(code, b""), BadAnswer)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502 Bad Gateway</html>",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"kind": "Status"',
        b'{"kind": "Pod", "message": "not a status", "reason": "no"}',
        status(reason=7, message=["x"], details=[]),
        b"[" * 100000,
    ],
    ids=lambda body: str(body[:12]),
)
def test_the_status_alone_is_enough(body: bytes) -> None:
    found = parse_status(502, body)
    assert isinstance(found, ServerFault)
    assert found.message == "API server failed (502)"
    assert found.retry_after is None


def test_a_conflict_names_fields_and_managers() -> None:
    found = parse_status(409, status(**CONFLICT))
    assert isinstance(found, Conflict)
    assert found.contested == (
        Contested(".metadata.labels.sevkit.io/sev", "kubectl-label"),
        Contested(".status.capacity.sevkit.io/sev-es", 'kube"let'),
    )


@pytest.mark.parametrize(
    "details",
    [
        None,
        [],
        {},
        {"causes": None},
        {"causes": {}},
        {"causes": [None, "x", 7, {}, {"reason": "FieldManagerConflict"}]},
        {"causes": [{"reason": "FieldValueInvalid", "field": "f", "message": "m"}]},
        {"causes": [{"reason": "FieldManagerConflict", "field": 1, "message": "m"}]},
    ],
)
def test_a_conflict_of_another_kind_names_none(details: object) -> None:
    found = parse_status(409, status(reason="AlreadyExists", details=details))
    assert isinstance(found, Conflict)
    assert found.contested == ()
    assert found.reason == "AlreadyExists"


def test_what_the_other_side_says_is_one_printable_line_and_cut() -> None:
    assert one_line("a\n\tb  c\x1b[31m\u202ed") == "a b c?[31m?d"
    assert one_line("x" * 10**6) == "x" * SAID_LIMIT + "…"
    assert not one_line(7)
    assert not one_line(None)
    assert "\n" not in parse_status(403, status(message="a\nb")).message


@pytest.mark.parametrize(
    ("word", "seconds"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("86401", RETRY_AFTER_CAP),
        ("9" * 5000, RETRY_AFTER_CAP),
        (None, None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Mon, 23 Nov 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_and_capped(word: str | None, seconds: float | None) -> None:
    assert parse_retry_after(word) == seconds
