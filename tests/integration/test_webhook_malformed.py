"""Reviews that are none, sent to the decision itself: nothing is admitted, and nothing grows."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import random
import socket
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

from hack.webhook_scene import REVIEW, Process, head, read_all
from sevkit.kubevirt.admission import REVIEW_LIMIT
from sevkit.testing.kubevirt.json_patch import apply_patch

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB: Final = 1 << 20
LAST: Final = b"\r\nConnection: close\r\n\r\n"
CHUNKED: Final = head(0).replace(b"Content-Length: 0\r\n\r\n", b"Transfer-Encoding: chunked" + LAST)
DOCUMENT: Final[dict[str, Any]] = json.loads(REVIEW)
GARBAGE: Final[tuple[Any, ...]] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1e308,
        2**63,
        10**400,
        "",
        "x",
        "\x00",
        "\x1b[2J",
        "\u2028",
        "é" * 99,
    ),
    *([], {}, [[]], [{}], {"": {}}, {"a": None}, [None], ["x"], {"sev": 7}, {"/": {"~": 1}}),
    "y" * 100_000,
)
#: How many connections are held open with half a request.
HELD: Final = 24


def places(value: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:  # noqa: ANN401  # JSON
    """Yield where everything in a document stands."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, found in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(found, *path, key)


PLACES: Final = tuple(places(DOCUMENT))


def written(document: Any, dice: random.Random) -> bytes:  # noqa: ANN401  # JSON
    """Return a document as machines write it, or in another way."""
    dense = dice.choice([True, True, False])
    separators = (",", ":") if dense else (", ", ": ")
    return json.dumps(document, separators=separators, ensure_ascii=not dense).encode()


def wrong_type(dice: random.Random) -> bytes:
    document = copy.deepcopy(DOCUMENT)
    for _ in range(dice.randint(1, 3)):
        target: Any = document
        *path, last = dice.choice(PLACES)
        with contextlib.suppress(TypeError, KeyError, IndexError):  # its parent is garbage already
            for part in path:
                target = target[part]
            target[last] = dice.choice(GARBAGE)
    return written(document, dice)


def missing(dice: random.Random) -> bytes:
    document: Any = copy.deepcopy(DOCUMENT)
    target: Any = document
    *path, last = dice.choice(PLACES)
    for part in path:
        target = target[part]
    del target[last]
    return written(document, dice)


def deep(dice: random.Random) -> bytes:
    depth = dice.choice([90, 101, 1_000, 100_000, 400_000])
    opening, closing = dice.choice([(b'{"a":', b"}"), (b"[", b"]")])
    inner = opening * depth + b"1" + closing * depth
    return dice.choice([inner, REVIEW.replace(b'"labels":{"a":"b"}', b'"labels":' + inner)])


def huge_text(dice: random.Random) -> bytes:
    word = dice.choice([b'"kind":"', b'"uid":"', b'"operation":"', b'"group":"'])
    return REVIEW.replace(word, word + b"z" * dice.choice([10_000, MIB, 2 * MIB]), 1)


def bad_utf8(dice: random.Random) -> bytes:
    at = dice.randrange(len(REVIEW))
    return REVIEW[:at] + dice.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8"]) + REVIEW[at:]


def twice(dice: random.Random) -> bytes:
    at = dice.choice([n for n, byte in enumerate(REVIEW) if byte == ord("{")][:-1])
    key = REVIEW[at + 1 :].partition(b":")[0]
    return REVIEW[: at + 1] + key + b": null, " + REVIEW[at + 1 :]


def no_number(dice: random.Random) -> bytes:
    word = dice.choice([b"NaN", b"Infinity", b"-Infinity", b"1e999", b"01", b"0x1", b"9" * 5000])
    return REVIEW.replace(b'"sockets":2', b'"sockets":' + word, 1)


def cut(dice: random.Random) -> bytes:
    return REVIEW[: dice.randrange(len(REVIEW))]


def noise(dice: random.Random) -> bytes:
    return dice.randbytes(dice.randrange(20_000))


MAKERS: Final = (
    wrong_type,
    wrong_type,
    wrong_type,
    missing,
    deep,
    huge_text,
    bad_utf8,
    twice,
    no_number,
    cut,
    noise,
)


def ask(process: Process, body: bytes, *, chunked: bool = False) -> bytes:
    """Return the whole answer to a body on a connection of its own."""
    with process.connect() as connection:
        with contextlib.suppress(OSError):  # refused before all is sent
            if chunked:
                connection.sendall(CHUNKED)
                for start in range(0, len(body), 1 << 16):
                    piece = body[start : start + (1 << 16)]
                    connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                connection.sendall(b"0\r\n\r\n")
            else:
                connection.sendall(head(len(body)).replace(b"\r\n\r\n", LAST))
                connection.sendall(body)
        return read_all(connection)


def verdict(answer: bytes, body: bytes) -> str:
    """Return what was answered, which is never that a VMI is admitted unprotected."""
    start, _, said = answer.partition(b"\r\n\r\n")
    if not start:
        return "closed"
    status = start.split(b" ")[1].decode()
    if status != "200":
        return status
    response = json.loads(said)["response"]
    if not response["allowed"]:
        assert response["status"]["message"]
        return "refused"
    request = json.loads(body)["request"]
    if request["operation"] != "CREATE":
        return "not a creation"
    patch = json.loads(base64.b64decode(response["patch"]))
    stored = apply_patch(request["object"], patch)
    assert stored["spec"]["domain"]["launchSecurity"] == {"snp": {}}
    assert stored["spec"]["domain"]["firmware"]["bootloader"]["efi"]["secureBoot"] is False
    return "injected"


class Holder:
    """Keeps some connections open with half a request, the oldest making room for the newest."""

    def __init__(self, process: Process) -> None:
        self._process: Final = process
        self._held: Final[deque[ssl.SSLSocket]] = deque()

    def hold(self, number: int) -> None:
        """Open one more, in one of three ways."""
        connection = self._process.connect()
        with contextlib.suppress(OSError):
            connection.sendall((head(len(REVIEW)) + REVIEW)[: (10, 200, 3000)[number % 3]])
            if number % 2:
                socket.socket.shutdown(connection, socket.SHUT_WR)  # half-closed
        self._held.append(connection)
        while len(self._held) > HELD:
            self._held.popleft().close()

    def close(self) -> None:
        """Hang up everywhere."""
        for connection in self._held:
            connection.close()


def round_of(process: Process, dice: random.Random, holder: Holder, number: int) -> str:
    """Send one malformed review; return what became of it."""
    if number % 10 == 0:
        holder.hold(number // 10)
    if number % 100 == 50:
        body = b" " * dice.choice([REVIEW_LIMIT - 1, REVIEW_LIMIT + 1, 30 * MIB])
        return verdict(ask(process, body, chunked=number % 200 == 50), b"")
    body = dice.choice(MAKERS)(dice)
    return verdict(ask(process, body, chunked=number % 7 == 0), body)


def test_no_malformed_review_is_admitted_unprotected_and_memory_does_not_grow(
    tmp_path: Path, soak: Callable[[int], int]
) -> None:
    dice, total = random.Random(7), max(soak(10_000), 300)  # noqa: S311  # the same ones each time
    seen: Counter[str] = Counter()
    with Process(tmp_path, "decide") as process:
        holder = Holder(process)
        with contextlib.closing(holder):
            for number in range(600):  # what is allocated once is allocated then
                round_of(process, dice, holder, number)
            before = process.rss()
            for number in range(total):
                seen[round_of(process, dice, holder, number)] += 1
            assert process.rss() - before < 10
        whole = ask(process, REVIEW)
        assert verdict(whole, REVIEW) == "injected"
        assert process.complaints() == ""
    assert seen.total() == total
    assert {"400", "413", "refused", "injected"} <= seen.keys()
    assert seen["500"] == seen["closed"] == 0
