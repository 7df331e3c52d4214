from __future__ import annotations

from typing import Final

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sevkit.abi.guest_message import (
    HEADER,
    HEADER_SIZE,
    MAX_MESSAGE,
    REPORT_REQ,
    REPORT_RSP,
    KeySelect,
    Message,
    MessageType,
    encode_report_request,
    open_message,
    parse_report_response,
    read_header,
    seal_message,
)
from sevkit.errors import FormatError, SignatureMismatch
from sevkit.secret import Secret

KEY: Final = Secret(bytes(range(32)))
REQUEST: Final = Message(MessageType.REPORT_REQ, bytes(range(96)), 0x1_0000_0001, 2)


def test_a_message_opens_with_the_key_that_sealed_it() -> None:
    assert open_message(seal_message(REQUEST, KEY), KEY) == REQUEST


def test_a_message_stands_where_the_tables_say() -> None:
    data = seal_message(REQUEST, KEY)
    assert len(data) == 96 + 96
    assert data[0x10:0x20] == bytes(16)
    assert int.from_bytes(data[0x20:0x28], "little") == REQUEST.seqno
    # AES-256-GCM, header version 1, 0x60 bytes of header, type 5, message version 1, 0x60 bytes
    assert data[0x30:0x38] == bytes.fromhex("01 01 6000 05 01 6000")
    assert data[0x3C] == 2
    assert not any(data[0x3D:0x60])


def test_the_sequence_number_is_the_iv_and_the_header_from_the_algorithm_on_is_covered() -> None:
    data = seal_message(REQUEST, KEY)
    iv = REQUEST.seqno.to_bytes(8, "little") + bytes(4)
    sealed = AESGCM(KEY.reveal()).encrypt(iv, REQUEST.payload, data[0x30:0x60])
    assert (data[0x60:], data[:0x10]) == (sealed[:-16], sealed[-16:])


@pytest.mark.parametrize("position", range(192))
def test_a_flipped_bit_is_noticed_wherever_it_is(position: int) -> None:
    data = bytearray(seal_message(REQUEST, KEY))
    data[position] ^= 1
    with pytest.raises((FormatError, SignatureMismatch)):
        open_message(bytes(data), KEY)


def test_another_key_opens_nothing() -> None:
    with pytest.raises(SignatureMismatch) as caught:
        open_message(seal_message(REQUEST, KEY), Secret(bytes(32)))
    assert caught.value.check == "message.tag"


@pytest.mark.parametrize(
    ("offset", "value", "what"),
    [
        (0x30, b"\0", "algo is 0"),
        (0x30, b"\2", "algo is 2"),
        (0x31, b"\2", "header_version is 2"),
        (0x32, b"\x61\0", "header_size is 97"),
        (0x36, b"\0\0", "a payload of 0 bytes"),
        (0x36, b"\x61\0", "a payload of 97 bytes"),
        (0x36, b"\x70\0", "a payload of 112 bytes"),
        (0x3C, b"\4", "no VMPCK 4"),
        (0x10, b"\1", "reserved byte"),
        (0x28, b"\1", "reserved byte"),
        (0x38, b"\1", "reserved byte"),
        (0x5F, b"\1", "reserved byte"),
    ],
)
def test_a_header_that_is_none_is_refused_by_its_field(
    offset: int, value: bytes, what: str
) -> None:
    data = bytearray(seal_message(REQUEST, KEY))
    data[offset : offset + len(value)] = value
    with pytest.raises(FormatError, match=what) as caught:
        read_header(bytes(data))
    assert caught.value.offset == offset


def test_a_size_that_cuts_the_ciphertext_is_left_to_the_tag() -> None:
    data = bytearray(seal_message(REQUEST, KEY))
    data[0x36] = 0x50
    assert len(read_header(bytes(data)).payload) == 0x50
    with pytest.raises(SignatureMismatch):
        open_message(bytes(data), KEY)


@pytest.mark.parametrize("size", [0, 95, MAX_MESSAGE + 1])
def test_a_message_is_a_header_at_least_and_a_page_at_most(size: int) -> None:
    with pytest.raises(FormatError, match="expected 96 to 4096 bytes"):
        read_header(bytes(size))


def test_what_follows_a_message_in_its_page_is_not_looked_at() -> None:
    page = seal_message(REQUEST, KEY).ljust(MAX_MESSAGE, b"\xff")
    assert open_message(page, KEY) == REQUEST


def test_the_largest_message_fills_a_page() -> None:
    message = Message(MessageType.REPORT_RSP, bytes(MAX_MESSAGE - HEADER_SIZE), 2)
    assert open_message(seal_message(message, KEY), KEY) == message


def test_a_report_request_is_report_data_vmpl_and_key() -> None:
    payload = encode_report_request(b"\xaa" * 64, vmpl=3, key_select=KeySelect.VLEK)
    assert payload == b"\xaa" * 64 + bytes.fromhex("03000000 02000000") + bytes(24)
    assert len(payload) == REPORT_REQ.size


def test_a_report_response_is_status_size_and_report() -> None:
    report = b"\xbb" * 1184
    values: dict[str, int | bytes] = {"status": 0x16, "size": 1184, "report": report}
    payload = REPORT_RSP.encode(values)
    assert (len(payload), payload[:8]) == (0x4C0, bytes.fromhex("16000000 a0040000"))
    assert parse_report_response(payload) == (0x16, report)


def test_reserved_bytes_of_a_response_are_refused() -> None:
    values: dict[str, int | bytes] = {"status": 0, "size": 1184, "report": bytes(1184)}
    payload = bytearray(REPORT_RSP.encode(values))
    payload[0x1F] = 1
    with pytest.raises(FormatError):
        parse_report_response(bytes(payload))


def test_message_types_have_amds_numbers() -> None:
    assert [(kind.name, kind.value) for kind in MessageType] == [
        ("CPUID_REQ", 1),
        ("CPUID_RSP", 2),
        ("KEY_REQ", 3),
        ("KEY_RSP", 4),
        ("REPORT_REQ", 5),
        ("REPORT_RSP", 6),
        ("TSC_INFO_REQ", 17),
        ("TSC_INFO_RSP", 18),
    ]


def test_every_row_of_the_header_is_where_it_is() -> None:
    assert {row.name: row.offset for row in HEADER.fields if row.kind != "zero"} == {
        "tag": 0x00,
        "seqno": 0x20,
        "algo": 0x30,
        "header_version": 0x31,
        "header_size": 0x32,
        "type": 0x34,
        "version": 0x35,
        "size": 0x36,
        "vmpck": 0x3C,
    }
