"""The webhook in Go, which ours is measured against, makes the patch that ours makes."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Final

import pytest

from hack.bench_admission import instance
from hack.bench_webhook import GoWebhook, go_program
from hack.webhook_load import WHOLE
from hack.webhook_scene import HANDLES, PATH, REVIEW
from sevkit.testing.kubevirt.json_patch import apply_patch
from webhooks.exchange import Request

if TYPE_CHECKING:
    from pathlib import Path

_INJECTED: Final = "sevkit.io/injected"


def response(body: bytes) -> dict[str, object]:
    found = json.loads(body)["response"]
    assert found["allowed"] is True
    patched = apply_patch(instance(), json.loads(base64.b64decode(found["patch"])))
    assert patched["metadata"]["annotations"].pop(_INJECTED).startswith("snp; policy ")
    return patched


def test_it_makes_of_a_vmi_what_ours_makes_of_it(tmp_path: Path) -> None:
    if not os.access(go_program(), os.X_OK):
        pytest.skip("no go-webhook: hack/peers go-webhook builds it")
    with GoWebhook(go_program(), tmp_path) as server, server.connect() as connection:
        connection.sendall(WHOLE)
        answer = b""
        while not answer.endswith(b"}\n") and not answer.endswith(b"}"):
            answer += connection.recv(1 << 16)
    theirs = answer.partition(b"\r\n\r\n")[2]
    ours = HANDLES["decide"](Request(PATH, REVIEW)).body
    assert response(theirs) == response(ours)
    assert response(ours) != instance()
