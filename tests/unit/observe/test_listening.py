"""Where a server listens, as it is written and as it is opened."""

from __future__ import annotations

import socket

import pytest

from sevkit.errors import UsageError
from sevkit.observe.listening import listen, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("webhook.example-1.org:65535", ("webhook.example-1.org", 65535)),
        ("[::1]:9443", ("::1", 9443)),
        ("[::ffff:10.0.0.7]:9443", ("::ffff:10.0.0.7", 9443)),
    ],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9443",
        ":9443",
        "[]:9443",
        "host:",
        "host:-1",
        "host:http",
        "host:65536",
        "host:123456",
        "host:٣",
        "::1:9443",
        "a b:1",
        "host:1\n",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_it_listens_and_never_blocks(host: str) -> None:
    with listen((host, 0), backlog=5) as listener:
        with pytest.raises(BlockingIOError):
            listener.accept()
        with socket.create_connection((host, listener.getsockname()[1]), timeout=5):
            pass


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (("127.0.0.1", 65536), "65536 is no port"),
        (("127.0.0.1", -1), "-1 is no port"),
        (("no.such.host.invalid", 0), "cannot listen on no.such.host.invalid"),
        (("203.0.113.7", 0), "cannot listen on 203.0.113.7 port 0"),
        (("x" * 300, 0), "no such address"),
    ],
)
def test_where_it_cannot_listen_it_says_so(address: tuple[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        listen(address, backlog=5)


def test_a_port_that_is_taken_is_told() -> None:
    with (
        listen(("127.0.0.1", 0), backlog=5) as first,
        pytest.raises(UsageError, match="address already in use"),
    ):
        listen(("127.0.0.1", first.getsockname()[1]), backlog=5)
