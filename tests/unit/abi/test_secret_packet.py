from __future__ import annotations

import hmac
import uuid

import pytest

from sevkit.abi.secret_packet import (
    DISK_GUID,
    TABLE_GUID,
    SecretEntry,
    SecretPacket,
    check_secret_area,
    encode_secret_table,
    open_packet,
    parse_guid,
    parse_secret_table,
    seal_packet,
)
from sevkit.abi.session import TransportKeys
from sevkit.errors import ExpectationError, FormatError, SignatureMismatch
from sevkit.secret import Secret

KEYS = TransportKeys(tek=Secret(b"T" * 16), tik=Secret(b"I" * 16))
MEASURE = bytes(range(32))
OTHER_GUID = uuid.UUID("11111111-2222-3333-4444-555555555555")


def entry(data: bytes = b"hunter2", guid: uuid.UUID = DISK_GUID) -> SecretEntry:
    return SecretEntry(guid, Secret(data))


def sealed(data: bytes = b"hunter2") -> SecretPacket:
    return seal_packet(KEYS, encode_secret_table([entry(data)]), measure=MEASURE, iv=b"V" * 16)


def test_a_table_has_its_lengths_without_the_padding() -> None:
    table = encode_secret_table([entry()]).reveal()
    assert len(table) == 48
    assert table[:16] == TABLE_GUID.bytes_le
    assert int.from_bytes(table[16:20], "little") == 47
    assert table[20:36] == DISK_GUID.bytes_le
    assert int.from_bytes(table[36:40], "little") == 27
    assert table[40:] == b"hunter2\0"


def test_a_table_is_read_back() -> None:
    entries = (entry(), entry(b"\0" * 40, OTHER_GUID))
    assert parse_secret_table(encode_secret_table(entries)) == entries


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(FormatError, match="no secret"):
        encode_secret_table([])


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(FormatError, match="empty"):
        encode_secret_table([entry(b"")])


def test_a_duplicate_guid_is_refused() -> None:
    with pytest.raises(FormatError, match="twice"):
        encode_secret_table([entry(), entry(b"other")])


@pytest.mark.parametrize("guid", [uuid.UUID(int=0), TABLE_GUID])
def test_a_guid_that_cannot_name_a_secret_is_refused(guid: uuid.UUID) -> None:
    with pytest.raises(FormatError, match="cannot name"):
        encode_secret_table([entry(guid=guid)])


@pytest.mark.parametrize("size", [16343, 16344])
def test_the_largest_secrets_fill_the_command_exactly(size: int) -> None:
    assert len(encode_secret_table([entry(b"x" * size)])) == 16384


@pytest.mark.parametrize("size", [16345, 20000, 1 << 20])
def test_a_secret_that_is_too_large_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="larger than 16384"):
        encode_secret_table([entry(b"x" * size)])


def test_many_secrets_that_are_too_large_together_are_refused() -> None:
    many = [entry(b"x" * 1000, uuid.UUID(int=n)) for n in range(1, 20)]
    with pytest.raises(FormatError, match="larger than 16384"):
        encode_secret_table(many)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "736869e5",
        "736869e584f0497392ec06879ce3da0b",
        "{736869e5-84f0-4973-92ec-06879ce3da0b}",
        "urn:uuid:736869e5-84f0-4973-92ec-06879ce3da0b",
        "736869e5-84f0-4973-92ec-06879ce3da0g",
        " 736869e5-84f0-4973-92ec-06879ce3da0b",
        "736869e5-84f0-4973-92ec-06879ce3da0b\n",
    ],
)
def test_a_guid_has_one_spelling(text: str) -> None:
    with pytest.raises(FormatError):
        parse_guid(text)


def test_a_guid_may_be_in_capitals() -> None:
    assert parse_guid(str(DISK_GUID).upper()) == DISK_GUID


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, b"\0"), (16, b"\x13\0"), (16, b"\x31\0"), (36, b"\x14"), (36, b"\xff\xff"), (47, b"\1")],
)
def test_a_table_with_a_wrong_guid_length_or_padding_is_refused(offset: int, value: bytes) -> None:
    table = bytearray(encode_secret_table([entry()]).reveal())
    table[offset : offset + len(value)] = value
    with pytest.raises(FormatError):
        parse_secret_table(Secret(bytes(table)))


@pytest.mark.parametrize("size", [0, 19, 16400])
def test_a_table_of_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(FormatError):
        parse_secret_table(Secret(bytes(size)))


def test_a_table_whose_length_counts_the_padding_is_read_too() -> None:
    table = bytearray(encode_secret_table([entry()]).reveal())
    table[16:20] = len(table).to_bytes(4, "little")
    assert parse_secret_table(Secret(bytes(table))) == (entry(),)


def test_a_table_with_one_guid_twice_is_not_read() -> None:
    first = encode_secret_table([entry(b"a" * 8)]).reveal()
    body = first[20:48] * 2
    table = first[:16] + (20 + len(body)).to_bytes(4, "little") + body
    with pytest.raises(FormatError, match="twice"):
        parse_secret_table(Secret(table.ljust(80, b"\0")))


def test_a_packet_opens_in_the_launch_that_it_was_made_for() -> None:
    table = open_packet(KEYS, sealed(), measure=MEASURE)
    assert parse_secret_table(table) == (entry(),)


def test_a_packet_shows_no_plain_text() -> None:
    packet = sealed(b"hunter2" * 10)
    assert b"hunter2" not in packet.ciphertext + packet.header
    assert len(packet.header) == 52


def test_a_packet_for_another_launch_is_refused() -> None:
    with pytest.raises(SignatureMismatch):
        open_packet(KEYS, sealed(), measure=bytes(32))


@pytest.mark.parametrize("position", [4, 19, 20, 51])
def test_a_changed_header_is_noticed(position: int) -> None:
    packet = sealed()
    header = bytearray(packet.header)
    header[position] ^= 0x80
    with pytest.raises(SignatureMismatch):
        open_packet(KEYS, SecretPacket(bytes(header), packet.ciphertext), measure=MEASURE)


def flagged(flags: int) -> SecretPacket:
    """Return a packet that its owner sealed with ``flags``: the MAC covers them."""
    packet = sealed()
    iv, size = packet.header[4:20], len(packet.ciphertext).to_bytes(4, "little")
    head = flags.to_bytes(4, "little")
    covered = b"\x01" + head + iv + size + size + packet.ciphertext + MEASURE
    mac = hmac.digest(KEYS.tik.reveal(), covered, "sha256")
    return SecretPacket(head + iv + mac, packet.ciphertext)


def test_a_packet_made_by_the_specification_opens() -> None:
    assert parse_secret_table(open_packet(KEYS, flagged(0), measure=MEASURE)) == (entry(),)


@pytest.mark.parametrize("flags", [1, 2, 0x8000_0000])
def test_flags_that_the_owner_set_are_refused_as_such(flags: int) -> None:
    with pytest.raises(FormatError, match="compressed"):
        open_packet(KEYS, flagged(flags), measure=MEASURE)


@pytest.mark.parametrize("flags", [b"\x01", b"\x02"])
def test_a_flag_that_somebody_else_set_is_a_forgery_first(flags: bytes) -> None:
    packet = sealed()
    changed = SecretPacket(flags + packet.header[1:], packet.ciphertext)
    with pytest.raises(SignatureMismatch):
        open_packet(KEYS, changed, measure=MEASURE)


@pytest.mark.parametrize("ciphertext", [b"", b"x" * 15, b"x" * 16400])
def test_a_ciphertext_of_an_impossible_size_is_refused(ciphertext: bytes) -> None:
    with pytest.raises(FormatError):
        open_packet(KEYS, SecretPacket(sealed().header, ciphertext), measure=MEASURE)


@pytest.mark.parametrize(
    ("measure", "iv", "table"),
    [(48, 16, 16), (31, 16, 16), (32, 12, 16), (32, 16, 0), (32, 16, 20), (32, 16, 16400)],
)
def test_a_packet_is_sealed_over_whole_inputs_only(measure: int, iv: int, table: int) -> None:
    with pytest.raises(FormatError):
        seal_packet(KEYS, Secret(bytes(table)), measure=bytes(measure), iv=bytes(iv))


@pytest.mark.parametrize("area", [None, (0, 3072), (0x80C000, 0), (0, 0)])
def test_a_firmware_without_a_secret_area_is_refused(area: tuple[int, int] | None) -> None:
    with pytest.raises(ExpectationError, match=r"^secret\.area: the firmware has no"):
        check_secret_area(encode_secret_table([entry()]), area)


def test_a_table_must_fit_the_secret_area() -> None:
    table = encode_secret_table([entry(b"x" * 3000)])
    check_secret_area(table, (0x80C000, len(table)))
    with pytest.raises(ExpectationError, match=rf"needs {len(table)} bytes.*has {len(table) - 1}"):
        check_secret_area(table, (0x80C000, len(table) - 1))


def test_a_table_whose_last_entry_is_cut_off_is_refused() -> None:
    table = encode_secret_table([entry()]).reveal()[:47]
    longer = table[:16] + (60).to_bytes(4, "little") + table[20:47] + b"x" * 13
    with pytest.raises(FormatError, match="cut off"):
        parse_secret_table(Secret(longer.ljust(64, b"\0")))
