from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sevkit.testing.kubevirt import answers

if TYPE_CHECKING:
    from sevkit.testing.kubevirt.answers import Refusal


def test_a_conflict_is_the_status_object_that_virt_api_writes() -> None:
    answer = answers.conflict("one", "VMI is not running").answer()
    assert (answer.status, answer.content_type) == (409, "application/json")
    assert json.loads(answer.body) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "
        '"one": VMI is not running',
        "reason": "Conflict",
        "details": {
            "name": "one",
            "group": "kubevirt.io",
            "kind": "virtualmachineinstance",
        },
        "code": 409,
    }


@pytest.mark.parametrize(
    ("refusal", "code", "reason", "message"),
    [
        (
            answers.not_found("one"),
            404,
            "NotFound",
            'virtualmachineinstance.kubevirt.io "one" not found',
        ),
        (answers.bad_request("no"), 400, "BadRequest", "no"),
        (answers.internal("no"), 500, "InternalError", "Internal error occurred: no"),
        (
            answers.exists("one"),
            409,
            "AlreadyExists",
            'virtualmachineinstances.kubevirt.io "one" already exists',
        ),
        (
            answers.forbidden("one", "no"),
            403,
            "Forbidden",
            'virtualmachineinstance.kubevirt.io "one" is forbidden: no',
        ),
    ],
)
def test_every_refusal_has_its_code_reason_and_message(
    refusal: Refusal, code: int, reason: str, message: str
) -> None:
    status = json.loads(refusal.answer().body)
    assert (status["code"], status["reason"], status["message"]) == (code, reason, message)


def test_an_internal_error_names_its_cause() -> None:
    status = json.loads(answers.internal("no").answer().body)
    assert status["details"] == {"causes": [{"message": "no"}]}


def test_an_entity_is_sorted_indented_and_without_zeros() -> None:
    answer = answers.entity(
        {"policy": 0xFFFFFFFF, "apiMajor": 0, "measurement": "x", "loaderSHA": ""}
    )
    assert answer.body == b'{\n "measurement": "x",\n "policy": 4294967295\n}'
