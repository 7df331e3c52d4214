"""TLS as clients see it: what is offered, what is refused, and a certificate that changes."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from hack.webhook_scene import HOST, PATIENCE, Identity, Running, post, read_all
from webhooks.exchange import Outcome
from webhooks.tls import Certificates, FolderPairs, Pair

if TYPE_CHECKING:
    import http.client
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sevkit.errors import SevkitError

SECONDS: Final = 1.5


@pytest.fixture
def running() -> Iterator[Running]:
    with Running() as opened:
        yield opened


def greet(running: Running, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection(running.address, timeout=PATIENCE)
    try:
        return context.wrap_socket(raw, server_hostname=HOST)
    except OSError:
        raw.close()
        raise


def a_client(running: Running) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=running.identity.certificate.decode())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken_with_forward_secrecy(
    running: Running, version: ssl.TLSVersion
) -> None:
    context = a_client(running)
    context.minimum_version = context.maximum_version = version
    with greet(running, context) as connection:
        name, said, _ = connection.cipher() or ("", "", 0)
        assert said == version.name.replace("_", ".")
        assert name.startswith(("ECDHE-", "TLS_"))
        assert connection.compression() is None


def test_older_tls_is_refused(running: Running) -> None:
    # A hello of TLS 1.0, as Python itself only offers with a warning.
    hello = bytes.fromhex("0301") + bytes(32) + b"\x00" + b"\x00\x04\xc0\x09\xc0\x0a" + b"\x01\x00"
    message = b"\x01" + len(hello).to_bytes(3, "big") + hello
    with socket.create_connection(running.address, timeout=PATIENCE) as connection:
        connection.sendall(b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)
        answer = read_all(connection)
    assert answer[:1] in {b"\x15", b""}  # an alert at most
    assert answer[5:7] in {b"\x02\x46", b"\x02\x28", b""}  # fatal: protocol version, or failure
    while not running.counts[Outcome.HANDSHAKE]:
        time.sleep(0.01)


def test_weak_ciphers_are_refused(running: Running) -> None:
    context = a_client(running)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256:AES128-GCM-SHA256:ECDHE-ECDSA-AES256-SHA")
    with pytest.raises(ssl.SSLError):
        greet(running, context)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), (["h2"], None), ([], None)],
)
def test_http_1_1_is_chosen(running: Running, offered: list[str], chosen: str | None) -> None:
    context = a_client(running)
    if offered:
        context.set_alpn_protocols(offered)
    with greet(running, context) as connection:
        assert connection.selected_alpn_protocol() == chosen


def test_no_session_is_resumed_and_none_is_offered(running: Running) -> None:
    context = a_client(running)
    with greet(running, context) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        read_all(connection)
        assert connection.session is None or not connection.session.has_ticket


class Folder:
    """A volume of a Secret as the kubelet mounts it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0
        for name in ("tls.crt", "tls.key"):
            (path / name).symlink_to(f"..data/{name}")

    def swap(self, pair: Pair) -> None:
        self._count += 1
        new = self.path / f"..{self._count}"
        new.mkdir()
        (new / "tls.crt").write_bytes(pair.certificate)
        (new / "tls.key").write_bytes(pair.key.reveal())
        (self.path / "..tmp").symlink_to(new.name)
        (self.path / "..tmp").rename(self.path / "..data")


def fingerprint(connection: http.client.HTTPSConnection) -> str:
    assert isinstance(connection.sock, ssl.SSLSocket)
    return hashlib.sha256(connection.sock.getpeercert(binary_form=True) or b"").hexdigest()


def test_a_certificate_changes_under_load_without_one_failure(tmp_path: Path) -> None:
    identity, folder = Identity(), Folder(tmp_path)
    folder.swap(identity.pair())
    told: list[SevkitError | None] = []
    certificates = Certificates(FolderPairs(tmp_path), told=told.append)
    certificates.poll()
    failures: list[BaseException] = []
    seen: set[str] = set()
    done = threading.Event()

    def keep_asking() -> None:
        with server.client() as client:
            while not done.is_set():
                assert post(client)[0] == 200

    def connect_anew() -> None:
        while not done.is_set():
            with server.client() as client:
                assert post(client)[0] == 200
                seen.add(fingerprint(client))

    def noting(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001  # told below
            failures.append(error)

    with Running(identity=identity, context=lambda: certificates.current) as server:
        jobs = (keep_asking, connect_anew, connect_anew)
        threads = [threading.Thread(target=noting, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        end = time.monotonic() + SECONDS
        turns = 0
        while time.monotonic() < end:
            turns += 1
            good = identity.pair()
            folder.swap(good if turns % 2 else Pair(good.certificate, identity.pair().key))
            certificates.poll()
            time.sleep(0.05)
        done.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert failures == []
    assert len(seen) > 3
    assert any(error is not None for error in told)
    assert Outcome.HANDSHAKE not in server.counts


def test_a_mismatched_pair_keeps_the_old_one_serving(tmp_path: Path) -> None:
    identity, folder = Identity(), Folder(tmp_path)
    folder.swap(identity.pair())
    told: list[SevkitError | None] = []
    certificates = Certificates(FolderPairs(tmp_path), told=told.append)
    certificates.poll()
    with Running(identity=identity, context=lambda: certificates.current) as running:
        prints = []
        for turn in range(3):
            if turn == 1:
                folder.swap(Pair(identity.pair().certificate, identity.pair().key))
            if turn == 2:
                folder.swap(identity.pair(lifetime=timedelta(hours=2)))
            certificates.poll()
            with running.client() as client:
                assert post(client)[0] == 200
                prints.append(fingerprint(client))
    assert prints[0] == prints[1] != prints[2]
    assert [error is None for error in told] == [True, False, True]


def test_a_connection_outlives_the_certificate_that_it_began_with(tmp_path: Path) -> None:
    identity, folder = Identity(), Folder(tmp_path)
    folder.swap(identity.pair())
    certificates = Certificates(FolderPairs(tmp_path), told=lambda _: None)
    certificates.poll()
    with (
        Running(identity=identity, context=lambda: certificates.current) as running,
        running.client() as kept,
    ):
        assert post(kept)[0] == 200
        old = fingerprint(kept)
        folder.swap(identity.pair())
        certificates.poll()
        with running.client() as new:
            assert post(new)[0] == 200
            assert fingerprint(new) != old
        assert post(kept)[0] == 200
        assert fingerprint(kept) == old
