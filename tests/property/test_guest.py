"""Whatever device, kernel and host answer: a report over our nonce, or an error of ours."""

from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hypothesis import example, given
from hypothesis import strategies as st

from sevkit.attest.container import find_report
from sevkit.errors import FormatError, UndecidedError, UsageError
from sevkit.guest.device import fetch_from_device
from sevkit.guest.patience import Patience
from sevkit.guest.report import ReportRequest
from sevkit.guest.tsm import fetch_from_tsm
from sevkit.testing.device.linux import ProcessMemory

if TYPE_CHECKING:
    from sevkit.guest.report import GuestReport

NONCE: Final = bytes(range(64))
MEMORY: Final = ProcessMemory(os.getpid())
REQUEST: Final = struct.Struct("<B7xQQQ")
EXTENDED: Final = struct.Struct("<96sQI4x")
#: A report over the nonce at VMPL 0, as far as a guest looks at one, and one over another.
REPORT: Final = b"\3" + bytes(0x4F) + NONCE + bytes(1184 - 0x90)
OTHER: Final = b"\3" + bytes(1183)
GUID: Final = bytes(range(16))
TABLE: Final = struct.pack("<16sII", GUID, 48, 4) + bytes(24) + b"cert"

CODES: Final = st.sampled_from((1, 2, 4, 5, 6, 11, 13, 14, 16, 19, 22, 25, 28, 74, 110, 131, 524))
REPORTS: Final = st.sampled_from((REPORT, REPORT, OTHER)) | st.binary(max_size=1300)
TABLES: Final = st.sampled_from((b"", TABLE, TABLE + b"\0", TABLE + b"x")) | st.binary(max_size=600)
WORDS: Final = st.integers(0, (1 << 32) - 1)


def patience() -> Patience:
    slept: list[float] = []
    return Patience(10, sleep=slept.append, now=lambda: sum(slept))


def check(found: GuestReport) -> None:
    """What came out is what the owner reads, over the nonce, whatever the host added."""
    read = find_report(found.encode())
    assert read.report[0x50:0x90] == NONCE
    assert dict(read.certificates) == dict(found.certificates)


RESPONSES: Final = st.binary(max_size=4000) | st.builds(
    lambda status, size, reserved, report: struct.pack("<II", status, size) + reserved + report,
    st.sampled_from((0, 0, 0, 0x16)) | WORDS,
    st.sampled_from((1184, 1184, 1184, 0)) | WORDS,
    st.sampled_from((bytes(24), bytes(24), b"\1" * 24)),
    REPORTS,
)


@dataclass(frozen=True)
class Reaction:
    """What the driver does to one request."""

    code: int = 0
    exitinfo2: int = 0
    wanted: int = 0
    response: bytes = b""
    table: bytes = b""


REACTIONS: Final = st.builds(
    Reaction,
    code=st.sampled_from((0, 0, 5)) | CODES,
    exitinfo2=st.sampled_from((0, 0xFF, 1 << 32, 2 << 32, 0x16)) | st.integers(0, (1 << 64) - 1),
    wanted=st.sampled_from((0, 0x1000, 0x5000, 0x8000, 0x10_0000, 0xFFFF_F000)) | WORDS,
    response=RESPONSES,
    table=TABLES,
)


@dataclass
class Device:
    """A driver that does as it was told, and the last of it for ever."""

    reactions: list[Reaction]
    requests: int = 0

    def __call__(self, request: int, argument: bytearray, /) -> int:
        reaction = self.reactions[min(self.requests, len(self.reactions) - 1)]
        self.requests += 1
        assert request in {0xC020_5300, 0xC020_5302}
        version, asked_at, answer_at, info = REQUEST.unpack(argument)
        assert (version, info) == (1, 0)
        assert MEMORY.read(asked_at, 96) == NONCE + bytes(32)
        argument[-8:] = reaction.exitinfo2.to_bytes(8, "little")
        if request == 0xC020_5302:
            payload, address, room = EXTENDED.unpack(MEMORY.read(asked_at, EXTENDED.size))
            MEMORY.write(address, reaction.table[:room])
            MEMORY.write(asked_at, EXTENDED.pack(payload, address, reaction.wanted))
        MEMORY.write(answer_at, reaction.response[:4000])
        if reaction.code:
            raise OSError(reaction.code, os.strerror(reaction.code))
        return 0


GOOD: Final = struct.pack("<II24x", 0, 1184) + REPORT


@given(reactions=st.lists(REACTIONS, min_size=1, max_size=6))
@example(reactions=[Reaction(response=GOOD, table=TABLE)])
@example(reactions=[Reaction(5, 1 << 32, 0x8000), Reaction(response=GOOD, table=b"x" * 600)])
@example(reactions=[Reaction(16, 0xFF)])
def test_any_device_gives_a_report_or_an_error(reactions: list[Reaction]) -> None:
    device = Device(reactions)
    with contextlib.suppress(UndecidedError, FormatError):
        check(fetch_from_device(device, ReportRequest(NONCE), 0, patience()))
    assert device.requests <= 20


ATTRIBUTES: Final = ("provider", "generation", "privlevel_floor", "outblob", "auxblob")
ANSWERS: Final = {
    "provider": st.just(b"sev_guest\n") | st.binary(max_size=80),
    "generation": st.none() | st.sampled_from((b"0\n", b"2\n", b"x")) | st.binary(max_size=80),
    "privlevel_floor": st.just(b"0\n") | st.sampled_from((b"3", b"4", b"-1", b"")),
    "outblob": REPORTS,
    "auxblob": TABLES,
}


@dataclass
class Kernel:
    """A folder whose attributes say what they were told, or raise the errno that they were told.

    Without an answer, ``generation`` counts.
    """

    answers: dict[str, list[bytes | int | None]]
    refusals: dict[str, int]
    entries: set[str] = field(default_factory=set)
    written: int = 0
    calls: int = 0

    def make(self, entry: str) -> None:
        self._meet("make")
        self.entries.add(entry)

    def remove(self, entry: str) -> None:
        self.entries.remove(entry)

    def read(self, entry: str, attribute: str) -> bytes:
        self._meet(attribute)
        answers = self.answers[attribute]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, int):
            raise OSError(found, os.strerror(found))
        return f"{self.written}\n".encode() if found is None else found

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        self._meet(attribute)
        assert data == (NONCE if attribute == "inblob" else data)
        self.written += 1

    def _meet(self, moment: str) -> None:
        self.calls += 1
        if moment in self.refusals:
            raise OSError(self.refusals[moment], os.strerror(self.refusals[moment]))


KERNELS: Final = st.builds(
    Kernel,
    answers=st.fixed_dictionaries(
        {name: st.lists(answer | CODES, min_size=1, max_size=4) for name, answer in ANSWERS.items()}
    ),
    refusals=st.just({})
    | st.dictionaries(st.sampled_from(("make", "privlevel", "inblob")), CODES, max_size=1),
)


def honest(outblob: bytes = REPORT, auxblob: bytes = TABLE) -> Kernel:
    return Kernel(
        {
            "provider": [b"sev_guest\n"],
            "generation": [None],
            "privlevel_floor": [b"0\n"],
            "outblob": [outblob],
            "auxblob": [auxblob],
        },
        {},
    )


@given(kernel=KERNELS)
@example(kernel=honest())
@example(kernel=honest(auxblob=b"x" * 600))
@example(kernel=honest(outblob=OTHER))
def test_any_kernel_gives_a_report_or_an_error_and_keeps_no_entry(kernel: Kernel) -> None:
    with contextlib.suppress(UndecidedError, FormatError, UsageError):
        check(fetch_from_tsm(kernel, ReportRequest(NONCE), patience()))
    assert kernel.entries == set()
    assert kernel.calls <= 100
