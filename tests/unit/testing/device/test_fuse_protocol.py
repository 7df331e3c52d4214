from __future__ import annotations

import struct

import pytest

from sevkit.errors import FormatError
from sevkit.testing.device import fuse_protocol as fuse
from sevkit.testing.device.fuse_protocol import Attributes, Header, InitFlag, OpenFlag

ATTRIBUTES = Attributes(7, folder=False, mode=0o600)


def request(opcode: int, body: bytes = b"", *, node: int = 1, length: int | None = None) -> bytes:
    size = 40 + len(body) if length is None else length
    return struct.pack("<IIQQIIIHH", size, opcode, 9, node, 1000, 1000, 4711, 0, 0) + body


def parse(data: bytes) -> tuple[bytearray, int]:
    """Returns a buffer with the request and leftovers of an earlier one behind it."""
    return bytearray(data + b"\xee" * 512), len(data)


def test_a_header_names_the_caller() -> None:
    assert fuse.parse_header(*parse(request(39, b"", node=5))) == Header(39, 9, 5, 4711)


@pytest.mark.parametrize(
    "data", [b"", request(39)[:39], request(39, length=41), request(39, length=39)]
)
def test_a_request_that_is_not_as_long_as_it_says_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="FUSE request"):
        fuse.parse_header(*parse(data))


@pytest.mark.parametrize(
    ("parser", "size"),
    [
        (fuse.parse_init, 16),
        (fuse.parse_open, 8),
        (fuse.parse_handle, 8),
        (fuse.parse_read, 20),
        (fuse.parse_ioctl, 32),
        (fuse.parse_write, 40),
    ],
)
def test_a_body_that_is_too_short_is_refused_and_leftovers_are_not_read(
    parser: object, size: int
) -> None:
    assert callable(parser)
    parser(*parse(request(1, bytes(size))))
    with pytest.raises(FormatError, match="too short"):
        parser(*parse(request(1, bytes(size - 1))))


@pytest.mark.parametrize("body", [b"", b"\0", b"sev", b"sev\0\0", b"sev\0x\0"])
def test_a_lookup_is_for_exactly_one_name(body: bytes) -> None:
    assert fuse.parse_name(*parse(request(1, b"sev\0"))) == "sev"
    with pytest.raises(FormatError, match="one name"):
        fuse.parse_name(*parse(request(1, body)))
    assert fuse.parse_mkdir(*parse(request(9, bytes(8) + b"sev\0"))) == "sev"
    with pytest.raises(FormatError, match="one name"):
        fuse.parse_mkdir(*parse(request(9, bytes(8) + body)))
    with pytest.raises(FormatError, match="too short"):
        fuse.parse_mkdir(*parse(request(9, bytes(7))))


@pytest.mark.parametrize("says", [0, 2, 4, 0xFFFFFFFF])
def test_a_write_with_other_data_than_it_says_is_refused(says: int) -> None:
    good = struct.pack("<QQIIQII", 3, 8, 3, 0, 0, 0, 0) + b"abc"
    assert fuse.parse_write(*parse(request(16, good))) == (3, 8, b"abc")
    body = struct.pack("<QQIIQII", 3, 8, says, 0, 0, 0, 0) + b"abc"
    with pytest.raises(FormatError, match="FUSE WRITE"):
        fuse.parse_write(*parse(request(16, body)))


def test_an_ioctl_brings_its_data() -> None:
    body = struct.pack("<QIIQII", 3, 0, 0xC0105300, 0x7FFF0000, 16, 16) + bytes(range(16))
    found = fuse.parse_ioctl(*parse(request(39, body)))
    assert found == (3, 0, 0xC0105300, 0x7FFF0000, 16, bytes(range(16)))


@pytest.mark.parametrize("in_size", [0, 15, 17, 0xFFFFFFFF])
def test_an_ioctl_with_other_data_than_it_says_is_refused(in_size: int) -> None:
    body = struct.pack("<QIIQII", 3, 0, 0xC0105300, 0, in_size, 16) + bytes(16)
    with pytest.raises(FormatError, match="FUSE IOCTL"):
        fuse.parse_ioctl(*parse(request(39, body)))


@pytest.mark.parametrize(
    ("reply", "size"),
    [
        (fuse.encode_reply(9), 0),
        (fuse.encode_init(9, InitFlag(0)), 64),
        (fuse.encode_entry(9, ATTRIBUTES), 128),
        (fuse.encode_attributes(9, ATTRIBUTES), 104),
        (fuse.encode_open(9, 1, OpenFlag.DIRECT_IO), 16),
        (fuse.encode_ioctl(9, -5, b"abc"), 19),
        (fuse.encode_write(9, 3), 8),
    ],
)
def test_an_answer_has_the_size_of_the_kernels_structure(reply: bytes, size: int) -> None:
    assert struct.unpack_from("<IiQ", reply) == (16 + size, 0, 9)
    assert len(reply) == 16 + size


@pytest.mark.parametrize(
    ("body", "offered"),
    [
        (struct.pack("<IIII", 7, 31, 65536, 0xFFFF_FFFF), InitFlag.EXTENDED),
        (struct.pack("<IIIII44x", 7, 45, 65536, 1 << 30, 1 << 10), InitFlag(1 << 30 | 1 << 42)),
        (struct.pack("<IIIII44x", 7, 36, 65536, 0, 1 << 10), InitFlag(0)),
    ],
)
def test_what_the_kernel_offers_is_read_where_it_says_so(body: bytes, offered: InitFlag) -> None:
    major, minor, *_ = struct.unpack_from("<II", body)
    assert fuse.parse_init(*parse(request(26, body))) == (major, minor, offered)


def test_a_time_limit_is_asked_for_only_where_the_kernel_offers_one() -> None:
    timed = fuse.encode_init(9, InitFlag.EXTENDED | InitFlag.REQUEST_TIMEOUT)[16:]
    assert struct.unpack_from("<I", timed, 12) == (1 << 30,)
    assert struct.unpack_from("<I", timed, 32) == (1 << 10,)
    assert struct.unpack_from("<H", timed, 40) == (fuse.REQUEST_TIMEOUT,)
    for offered in (InitFlag(0), InitFlag.EXTENDED):
        untimed = fuse.encode_init(9, offered)[16:]
        assert not any(untimed[12:16] + untimed[32:])


def test_an_error_is_a_negative_errno_alone() -> None:
    assert fuse.encode_error(9, 25) == struct.pack("<IiQ", 16, -25, 9)


def test_the_result_of_an_ioctl_stands_before_its_data() -> None:
    assert fuse.encode_ioctl(9, -524, b"abc")[16:] == struct.pack("<iIII", -524, 0, 0, 0) + b"abc"


def test_a_folder_is_read_in_as_many_pieces_as_the_caller_has_room_for() -> None:
    entries = [(name, ATTRIBUTES) for name in ("sev", "kvm", "a-name-of-17-bytes")]
    whole = fuse.encode_folder(9, entries, 0, 4096)[16:]
    assert len(whole) == 32 + 32 + 48
    assert fuse.encode_folder(9, entries, 0, 70)[16:] == whole[:64]
    assert fuse.encode_folder(9, entries, 2, 4096)[16:] == whole[64:]
    assert fuse.encode_folder(9, entries, 3, 4096)[16:] == b""
    assert fuse.encode_folder(9, entries, 0, 31)[16:] == b""
