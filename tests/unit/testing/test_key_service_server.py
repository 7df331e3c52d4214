from __future__ import annotations

import socket
import ssl
import time
import urllib.parse

import pytest

from sevkit.testing import key_service_faults as faults
from sevkit.testing.key_service import SimulatedKeyService

HELLO = b"\x16\x03\x01\x00\x01\x01"
REQUEST = b"GET /vcek/v1/Milan/crl HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(service: SimulatedKeyService) -> socket.socket:
    parts = urllib.parse.urlsplit(service.base_url)
    assert parts.hostname is not None
    assert parts.port is not None
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while data := connection.recv(4096):
        found += data
    return found


def trusted(service: SimulatedKeyService, connection: socket.socket) -> ssl.SSLSocket:
    context = ssl.create_default_context(cadata=service.ca.decode())
    return context.wrap_socket(connection, server_hostname="127.0.0.1")


def test_one_request_of_a_connection_is_answered() -> None:
    with (
        SimulatedKeyService(lambda _: b"list") as service,
        connect(service) as bare,
        trusted(service, bare) as connection,
    ):
        connection.sendall(REQUEST + REQUEST)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nlist")
    assert answer.count(b"HTTP/1.1") == 1


def test_what_comes_instead_of_tls_comes_on_the_bare_connection_and_then_it_ends() -> None:
    with SimulatedKeyService(lambda _: b"list") as service:
        service.fail(faults.instead_of_tls(faults.raw(b"220 mail.example\r\n")), times=1)
        with connect(service) as connection:
            connection.sendall(HELLO)
            assert read_all(connection) == b"220 mail.example\r\n"
        assert service.count() == 0
        with connect(service) as bare, trusted(service, bare) as connection:
            connection.sendall(REQUEST)
            assert read_all(connection).endswith(b"list")


@pytest.mark.parametrize("early", [False, True])
def test_leaving_ends_connections_that_a_fault_holds(early: bool) -> None:
    held = faults.drip(b"..", pause=600, after=b"held")
    with SimulatedKeyService(lambda _: b"list") as service:
        service.fail(faults.instead_of_tls(held) if early else held)
        connection = connect(service)
        if not early:
            connection = trusted(service, connection)
        connection.sendall(HELLO if early else REQUEST)
        found = b""
        while len(found) < 5:
            found += connection.recv(5)
        begin = time.monotonic()
    assert time.monotonic() - begin < 5
    with connection:
        assert (found, connection.recv(1)) == (b"held.", b"")


def test_a_client_that_says_nothing_holds_only_itself() -> None:
    with (
        SimulatedKeyService(lambda _: b"list") as service,
        connect(service),
        connect(service) as bare,
        trusted(service, bare) as connection,
    ):
        connection.sendall(REQUEST)
        assert read_all(connection).endswith(b"list")
