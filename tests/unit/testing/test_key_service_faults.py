from __future__ import annotations

import threading

import pytest

from sevkit.testing import key_service_faults as faults


def played(fault: faults.Fault, *, most: int = 10_000_000) -> bytes:
    """Return what a client gets that hangs up after ``most`` bytes."""
    sent = bytearray()

    def write(data: bytes) -> None:
        sent.extend(data)
        if len(sent) > most:
            raise BrokenPipeError

    try:
        faults.play(fault, write, threading.Event())
    except BrokenPipeError:
        return bytes(sent)
    return bytes(sent)


@pytest.mark.parametrize(
    ("fault", "first", "last"),
    [
        (faults.not_found(), b"HTTP/1.1 404 ", b"not found"),
        (faults.too_many_requests(), b"HTTP/1.1 429 ", b"\r\nContent-Length: 0\r\n\r\n"),
        (faults.web_page(), b"HTTP/1.1 200 ", b"</html>\n"),
        (faults.content(b"abc"), b"HTTP/1.1 200 ", b"Content-Length: 3\r\n\r\nabc"),
        (faults.truncated(b"abc"), b"HTTP/1.1 200 ", b"Content-Length: 103\r\n\r\nabc"),
        (faults.wrong_length(b"abc", declared=2), b"HTTP/1.1 200 ", b"Length: 2\r\n\r\nabc"),
        (faults.mislabelled(b"abc", "text/html"), b"HTTP/1.1 200 ", b"Length: 3\r\n\r\nabc"),
        (faults.redirect("https://x/"), b"HTTP/1.1 302 ", b"Content-Length: 0\r\n\r\n"),
        (faults.status(500), b"HTTP/1.1 500 ", b"Content-Length: 0\r\n\r\n"),
        (faults.raw(b"junk"), b"junk", b"junk"),
        (faults.drip(b"ab", pause=0), b"HTTP/1.1 200 ", b"Content-Length: 2\r\n\r\nab"),
        (faults.drip(b"ab", pause=0, after=b"x"), b"xab", b"xab"),
    ],
)
def test_each_fault_is_what_it_says(fault: faults.Fault, first: bytes, last: bytes) -> None:
    sent = played(fault)
    assert sent.startswith(first)
    assert sent.endswith(last)


def test_headers_of_a_fault_are_sent_as_given() -> None:
    assert b"\r\nRetry-After: soon\r\n" in played(faults.too_many_requests("soon"))
    assert b"\r\nLocation: https://x/\r\n" in played(faults.redirect("https://x/"))
    assert b"\r\nContent-Type: text/html\r\n" in played(faults.mislabelled(b"x", "text/html"))


def test_what_comes_instead_of_tls_is_the_same_fault_at_another_time() -> None:
    early = faults.instead_of_tls(faults.raw(b"220 mail.example ESMTP\r\n"))
    assert early.early
    assert not faults.raw(b"").early
    assert played(early) == b"220 mail.example ESMTP\r\n"


@pytest.mark.parametrize("declared", [True, False])
def test_an_endless_stream_ends_when_the_client_hangs_up(declared: bool) -> None:
    sent = played(faults.endless(declared=declared))
    assert 10_000_000 < len(sent) < 10_200_000
    assert (b"Content-Length: 10737418240" in sent[:200]) == declared


def test_what_holds_a_connection_ends_with_the_service() -> None:
    stopping = threading.Event()
    stopping.set()
    sent: list[bytes] = []
    for fault in (
        faults.silence(),
        faults.drip(b"abc", pause=1000),
        faults.endless(declared=False),
    ):
        faults.play(fault, sent.append, stopping)
    assert b"".join(sent).count(b"HTTP/1.1 200") == 2
