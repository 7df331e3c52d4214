from __future__ import annotations

import json
from typing import Any, Final

import pytest

from sevkit.abi.platform_status import (
    PlatformState,
    parse_platform_status,
    parse_snp_platform_status,
)
from sevkit.errors import FormatError
from sevkit.host.firmware import (
    firmware_document,
    firmware_facts,
    parse_firmware,
    read_firmware,
    silence_document,
)
from sevkit.host.reading import Cause, Known, Unreadable
from sevkit.testing.host.booting import boot
from sevkit.testing.host.firmware_view import firmware_facts as simulated_document
from sevkit.testing.host.presets import PRESETS

#: The document that operators are promised.
DOCUMENT: Final[dict[str, Any]] = {
    "schema": "sevkit.io/firmware/v1",
    "api": "1.55",
    "build": 40,
    "state": "init",
    "es_configured": True,
    "guest_count": 0,
    "snp": {
        "initialized": True,
        "rmp_initialized": True,
        "alias_check_complete": True,
        "guest_count": 0,
        "current_tcb": "0xdb16000000000004",
        "reported_tcb": "0xdb16000000000004",
        "vlek_loaded": False,
        "ciphertext_hiding": False,
    },
}
#: As Linux hands them out: API 1.55, build 40; see the layouts in ``sevkit.abi``.
SEV: Final = bytes.fromhex("01 37 01 00010000 28 00000000")
SNP: Final = bytes.fromhex(
    "01 37 01 03 28000000 00000000 00000000 04000000000016db 04000000000016db"
)


def test_the_document_is_read() -> None:
    found = parse_firmware(json.dumps(DOCUMENT))
    assert str(found.version) == "1.55.40"
    assert found.state is PlatformState.INIT
    assert found.snp is not None
    assert found.snp.current_tcb == 0xDB16_0000_0000_0004


def test_what_is_written_is_what_the_commands_said() -> None:
    found = firmware_facts(parse_platform_status(SEV), parse_snp_platform_status(SNP))
    assert firmware_document(found) == DOCUMENT
    assert parse_firmware(json.dumps(firmware_document(found))) == found
    without = firmware_facts(parse_platform_status(SEV), None)
    assert firmware_document(without)["snp"] is None
    assert parse_firmware(json.dumps(firmware_document(without))) == without


def test_that_nobody_answers_is_written_too_and_is_no_damage() -> None:
    assert silence_document() == {"schema": "sevkit.io/firmware/v1", "state": "silent"}
    text = json.dumps(silence_document())
    found = read_firmware(Known(text))
    assert isinstance(found, Unreadable)
    assert found.cause is Cause.SILENT
    with pytest.raises(FormatError, match="api is not text"):
        parse_firmware(text)


def test_what_cannot_be_read_has_its_reason() -> None:
    facts = firmware_facts(parse_platform_status(SEV), None)
    assert read_firmware(Known(json.dumps(DOCUMENT | {"snp": None}))) == Known(facts)
    gone = Unreadable(Cause.ABSENT, "/firmware.json: not there")
    assert read_firmware(gone) == gone
    for text in ("", "{}", '{"state": "silent"}', '["silent"]'):
        found = read_firmware(Known(text))
        assert isinstance(found, Unreadable)
        assert found.cause is Cause.MALFORMED


def test_simulated_hosts_write_the_same() -> None:
    for spec in PRESETS.values():
        document = simulated_document(boot(spec))
        if document is not None:
            assert firmware_document(parse_firmware(json.dumps(document))) == document


def test_keys_of_newer_readers_are_left_out() -> None:
    assert parse_firmware(json.dumps({**DOCUMENT, "committed": "1.55.40"})).version.build == 40


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "sevkit.io/firmware/v2"},
        {"api": "1"},
        {"api": 1.55},
        {"build": "40"},
        {"build": True},
        {"build": -1},
        {"state": "UP"},
        {"es_configured": 1},
        {"guest_count": None},
        {"snp": []},
        {"snp": {}},
        {"snp": {**DOCUMENT["snp"], "current_tcb": "0x" + "f" * 17}},
        {"snp": {**DOCUMENT["snp"], "current_tcb": 4}},
        {"snp": {**DOCUMENT["snp"], "initialized": "true"}},
    ],
)
def test_half_an_answer_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"firmware\.json"):
        parse_firmware(json.dumps({**DOCUMENT, **change}))


@pytest.mark.parametrize("text", ["", "{", "null", "[" * 100_000, '{"a": 1, "a": 2}', "\0"])
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_firmware(text)
