"""The connection against servers that do everything wrong: each fault is told apart, in time."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self, TypeAlias, final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sevkit.cluster.access import Access, ClientCertificate, FixedToken, TokenFile
from sevkit.cluster.api import APPLY, OBJECT_LIMIT, Call
from sevkit.cluster.connection import Connection
from sevkit.cluster.errors import (
    BadAnswer,
    Forbidden,
    ServerFault,
    StatusError,
    Timeout,
    TooMany,
    Unreachable,
)
from sevkit.errors import ClusterError
from sevkit.pki import create_authority
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sevkit.pki import CertificateAuthority

NOW: Final = datetime.now(UTC)
DAY: Final = timedelta(days=1)
GET: Final = Call("GET", "/api/v1/nodes/n1")
PATCH: Final = Call("PATCH", "/api/v1/nodes/n1/status", body={"a": 1})
GIB: Final = 1 << 30
#: A loaded machine may need this long for what takes milliseconds; what hangs would take 60.
PATIENCE: Final = 15.0
LONG: Final = 60.0

Play: TypeAlias = "bytes | Callable[[ScriptedServer, socket.socket], object]"


def answer(body: bytes = b"{}", status: str = "200 OK", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers)
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


@final
class ScriptedServer:
    """HTTPS on loopback: each request gets what comes next in ``plays``, the last for ever."""

    def __init__(self, authority: CertificateAuthority, folder: Path) -> None:
        self.plays: list[Play] = [answer()]
        self.requests: list[bytes] = []
        self.connections = 0
        self.sent = 0
        self.instead_of_tls: bytes | None = None
        self.stopping = threading.Event()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.use(authority, folder)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._open: list[socket.socket] = []

    def use(self, authority: CertificateAuthority, folder: Path) -> None:
        leaf = authority.issue(["127.0.0.1", "kubernetes.test"], lifetime=DAY, now=NOW)
        (folder / "pair.pem").write_bytes(leaf.key.reveal() + leaf.certificate)
        self.context.load_cert_chain(folder / "pair.pem")

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def hang_up(self) -> None:
        """End every connection."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                bare, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(bare)
            self._threads.append(threading.Thread(target=self._serve, args=(bare,), daemon=True))
            self._threads[-1].start()

    def _serve(self, bare: socket.socket) -> None:
        with contextlib.suppress(OSError), bare:
            if self.instead_of_tls is not None:
                bare.recv(1 << 14)
                bare.sendall(self.instead_of_tls)
                return
            with self.context.wrap_socket(bare, server_side=True) as connection:
                self._open.append(connection)
                while request := self._request(connection):
                    self.requests.append(request)
                    play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
                    if not isinstance(play, bytes):
                        play(self, connection)
                        return
                    connection.sendall(play)

    def _request(self, connection: socket.socket) -> bytes:
        found = b""
        while b"\r\n\r\n" not in found:
            data = connection.recv(1 << 16)
            if not data:
                return b""
            found += data
        head, _, body = found.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")),
            0,
        )
        while len(body) < length:
            body += connection.recv(1 << 16)
        return head + b"\r\n\r\n" + body


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return create_authority("test", lifetime=DAY, now=NOW)


@pytest.fixture
def server(authority: CertificateAuthority, tmp_path: Path) -> Iterator[ScriptedServer]:
    with ScriptedServer(authority, tmp_path) as running:
        yield running


@pytest.fixture
def access(server: ScriptedServer, authority: CertificateAuthority) -> Access:
    return Access(server.url, authority.certificate, FixedToken(Secret(b"t0ken")))


@pytest.fixture
def connection(access: Access) -> Iterator[Connection]:
    with Connection(access, seconds=LONG) as opened:
        yield opened


@pytest.fixture
def hasty(access: Access) -> Iterator[Connection]:
    """A connection whose requests have half a second."""
    with Connection(access, seconds=0.5) as opened:
        yield opened


def test_a_request_says_who_and_what_and_nothing_else(
    server: ScriptedServer, connection: Connection
) -> None:
    server.plays = [answer(b'{"kind": "Node"}')]
    call = Call(
        "PATCH", "/a/b%2Fc", (("fieldManager", "m n"), ("force", "false")), {"x": "ü"}, APPLY
    )
    assert connection.call(call) == {"kind": "Node"}
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "PATCH /a/b%2Fc?fieldManager=m%20n&force=false HTTP/1.1"
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    assert headers["authorization"] == "bearer t0ken"
    assert headers["content-type"] == APPLY
    assert headers["accept"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("sevkit/")
    assert json.loads(body) == {"x": "ü"}
    assert len(server.requests) == 1


def test_an_empty_answer_is_none(server: ScriptedServer, connection: Connection) -> None:
    server.plays = [answer(b"", "202 Accepted"), answer(b"null")]
    assert connection.call(GET) is None
    assert connection.call(GET) is None


@pytest.mark.parametrize("call", [GET, PATCH], ids=["get", "patch"])
@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Busy", "500 Oh", "413 Too Large"])
def test_nothing_is_tried_again_whatever_retry_after_says(
    server: ScriptedServer, connection: Connection, status: str, call: Call
) -> None:
    server.plays = [answer(b"", status, "Retry-After: 7")]
    begun = time.monotonic()
    with pytest.raises(StatusError) as caught:
        connection.call(call)
    assert caught.value.status == int(status[:3])
    assert caught.value.retry_after == 7
    assert time.monotonic() - begun < PATIENCE
    assert len(server.requests) == 1


def test_a_refusal_with_a_status_object_is_quoted(
    server: ScriptedServer, connection: Connection
) -> None:
    body = b'{"kind": "Status", "reason": "Forbidden", "message": "nodes is forbidden:\\nno"}'
    server.plays = [answer(body, "403 Forbidden")]
    with pytest.raises(Forbidden, match=r"\(403 Forbidden\): nodes is forbidden: no"):
        connection.call(GET)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 T", "308 P"])
@pytest.mark.parametrize("call", [GET, PATCH], ids=["get", "patch"])
def test_a_redirect_is_not_followed(
    server: ScriptedServer, connection: Connection, status: str, call: Call
) -> None:
    server.plays = [answer(b"", status, f"Location: {server.url}/elsewhere"), answer()]
    with pytest.raises(BadAnswer, match="not followed"):
        connection.call(call)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "play",
    [
        answer(b"<html>sign in</html>"),
        answer(b'{"kind": "No'),
        answer(b'{"a": 1, "a": 2}'),
        answer(b"\xff\xfe"),
        answer(b"[" * 100000),
        answer(b'{"a": NaN}'),
        answer(b"\x1f\x8b\x08", "200 OK", "Content-Encoding: gzip"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["html", "cut", "twice", "binary", "deep", "nan", "gzip", "chunks"],
)
def test_what_is_no_answer_is_told_apart(
    server: ScriptedServer, connection: Connection, play: bytes
) -> None:
    server.plays = [play]
    with pytest.raises(ClusterError) as caught:
        connection.call(GET)
    assert isinstance(caught.value, BadAnswer | Unreachable)


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"\x00" * 100, b"HTTP/1.1 two hundred\r\n\r\n"]
)
def test_what_is_no_http_is_told_apart(
    server: ScriptedServer, connection: Connection, data: bytes
) -> None:
    server.plays = [lambda _, peer: peer.sendall(data)]
    with pytest.raises(BadAnswer if data else Unreachable):
        connection.call(GET)


def test_an_answer_mutated_anyhow_is_an_answer_or_an_error_of_ours(
    server: ScriptedServer, connection: Connection
) -> None:
    dice = random.Random(5)  # noqa: S311  # the same faults in every run
    good = answer(b'{"kind": "Node"}', "200 OK", "Content-Type: application/json")
    for _ in range(60):
        data = bytearray(good)
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        bad = bytes(data)

        def play(_: ScriptedServer, peer: socket.socket, bad: bytes = bad) -> None:
            peer.sendall(bad)

        server.plays = [play]
        with contextlib.suppress(ClusterError):
            connection.call(GET)
    assert len(server.requests) == 60


def pour(server: ScriptedServer, peer: socket.socket) -> None:
    """Send 1 GiB, and count what is taken."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    while server.sent < GIB and not server.stopping.is_set():
        peer.sendall(chunk)
        server.sent += len(chunk)


def endless(status: str) -> Play:
    def play(server: ScriptedServer, peer: socket.socket) -> None:
        peer.sendall(f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        pour(server, peer)

    return play


@pytest.mark.parametrize(
    ("status", "kind", "bound"),
    [
        ("200 OK", BadAnswer, OBJECT_LIMIT),
        ("500 Oh", ServerFault, 0),
        ("429 Wait", TooMany, 0),
        ("302 Found", BadAnswer, 0),
    ],
)
def test_of_a_gibibyte_only_what_is_allowed_is_taken(
    server: ScriptedServer,
    connection: Connection,
    status: str,
    kind: type[ClusterError],
    bound: int,
) -> None:
    server.plays = [endless(status)]
    with pytest.raises(kind):
        connection.call(GET)
    # What lies in the sockets' buffers was sent, but not taken.
    assert server.sent < bound + (16 << 20)


def test_a_declared_gibibyte_is_not_even_begun(
    server: ScriptedServer, connection: Connection
) -> None:
    server.plays = [f"HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n".encode()]
    begun = time.monotonic()
    with pytest.raises(BadAnswer, match="more than"):
        connection.call(GET)
    assert time.monotonic() - begun < PATIENCE


def test_a_call_may_allow_less(server: ScriptedServer, connection: Connection) -> None:
    server.plays = [answer(b'"' + b"x" * 98 + b'"'), answer(b'"' + b"x" * 99 + b'"')]
    call = Call("GET", "/", limit=100)
    assert connection.call(call) == "x" * 98
    with pytest.raises(BadAnswer, match="more than 100 bytes"):
        connection.call(call)


def reset(_: ScriptedServer, peer: socket.socket) -> None:
    peer.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"kind":')
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


@pytest.mark.parametrize(
    "play",
    [
        lambda _, peer: peer.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"kind":'),
        lambda _, peer: peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Le"),
        lambda _, peer: peer.sendall(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}"
        ),
        lambda _, peer: peer.sendall(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
        ),
        lambda *_: None,
        reset,
    ],
    ids=["body", "head", "chunk", "no last chunk", "silence", "reset"],
)
def test_a_connection_that_ends_half_way_is_no_answer(
    server: ScriptedServer, connection: Connection, play: Play
) -> None:
    server.plays = [play]
    with pytest.raises(Unreachable):
        connection.call(PATCH)
    assert len(server.requests) == 1


def drip(head: bytes) -> Play:
    """Send ``head`` at once and then a byte every tenth of a second, for ever."""

    def play(server: ScriptedServer, peer: socket.socket) -> None:
        peer.sendall(head)
        while not server.stopping.wait(0.1):
            peer.sendall(b"x")

    return play


@pytest.mark.parametrize(
    "play",
    [
        lambda server, _: server.stopping.wait(LONG),
        drip(b"HTTP/1.1 200 OK\r\nX-Slow: "),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"),
        drip(b""),
    ],
    ids=["never", "head", "body", "status"],
)
def test_however_slowly_it_comes_the_whole_ends_in_time(
    server: ScriptedServer, hasty: Connection, play: Play
) -> None:
    server.plays = [play]
    begun = time.monotonic()
    with pytest.raises(Timeout):
        hasty.call(GET)
    assert 0.3 < time.monotonic() - begun < PATIENCE


def test_a_refusal_whose_body_never_comes_is_still_that_refusal(
    server: ScriptedServer, hasty: Connection
) -> None:
    server.plays = [drip(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10000\r\n\r\n")]
    begun = time.monotonic()
    with pytest.raises(Forbidden):
        hasty.call(GET)
    assert time.monotonic() - begun < PATIENCE


def test_silence_instead_of_tls_ends_in_time(authority: CertificateAuthority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        access = Access(f"https://127.0.0.1:{silent.getsockname()[1]}", authority.certificate)
        begun = time.monotonic()
        with Connection(access, seconds=0.5) as connection, pytest.raises(Timeout):
            connection.call(GET)
        assert time.monotonic() - begun < PATIENCE


def test_http_instead_of_tls_is_told_apart(server: ScriptedServer, connection: Connection) -> None:
    server.instead_of_tls = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    with pytest.raises(Unreachable, match="TLS that we accept"):
        connection.call(GET)


def test_a_refused_connection_is_told_apart(authority: CertificateAuthority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with (
        Connection(Access(f"https://127.0.0.1:{port}", authority.certificate)) as connection,
        pytest.raises(Unreachable, match="refused"),
    ):
        connection.call(GET)


def test_after_any_fault_the_next_request_is_whole(
    server: ScriptedServer, connection: Connection
) -> None:
    good = answer(b'{"n": 1}')
    faults = (answer(b"", "500 Oh"), answer(b"html"), reset, endless("200 OK"))
    for fault in faults:
        server.plays = [fault, good]
        with pytest.raises(ClusterError):
            connection.call(GET)
        assert connection.call(GET) == {"n": 1}


def test_after_a_timeout_the_next_request_is_whole(server: ScriptedServer, access: Access) -> None:
    server.plays = [drip(b"HTTP"), answer(b'{"n": 1}')]
    with Connection(access, seconds=3) as opened:
        with pytest.raises(Timeout):
            opened.call(GET)
        assert opened.call(GET) == {"n": 1}


def test_a_connection_is_kept_and_made_anew_where_it_was_dropped(
    server: ScriptedServer, connection: Connection
) -> None:
    for _ in range(3):
        connection.call(PATCH)
    assert server.connections == 1
    server.hang_up()
    time.sleep(0.1)
    connection.call(PATCH)
    assert (server.connections, len(server.requests)) == (2, 4)


def test_several_threads_have_deadlines_of_their_own(
    server: ScriptedServer, access: Access
) -> None:
    server.plays = [lambda peers, _: peers.stopping.wait(LONG), answer(b'{"n": 1}')]
    with Connection(access, seconds=3) as shared:
        found: list[object] = []

        def slow() -> None:
            begun = time.monotonic()
            with contextlib.suppress(Timeout):
                shared.call(GET)
                return
            found.append(time.monotonic() - begun)

        thread = threading.Thread(target=slow)
        thread.start()
        while not server.requests:
            time.sleep(0.01)
        time.sleep(2)
        # Its own three seconds begin now, and do not move those of the other.
        assert shared.call(GET) == {"n": 1}
        thread.join()
    assert len(found) == 1


def test_the_token_is_read_for_each_request(
    server: ScriptedServer, access: Access, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    source = TokenFile(path)
    with Connection(Access(access.server, access.ca, source)) as connection:
        for word in ("first", "second"):
            path.write_text(word)
            connection.call(GET)
        path.unlink()
        with pytest.raises(ClusterError, match="token file token cannot be read"):
            connection.call(GET)
    sent = [request for request in server.requests if b"authorization" in request.lower()]
    assert [word in request for word, request in zip((b"first", b"second"), sent, strict=True)] == [
        True,
        True,
    ]


def test_a_new_authority_is_believed_as_soon_as_its_file_says_so(
    server: ScriptedServer, authority: CertificateAuthority, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.certificate)
    with Connection(Access(server.url, ca)) as connection:
        connection.call(GET)
        renewed = create_authority("renewed", lifetime=DAY, now=NOW)
        server.use(renewed, tmp_path)
        server.hang_up()
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            connection.call(GET)
        ca.write_bytes(renewed.certificate)
        connection.call(GET)


def test_a_certificate_of_another_authority_or_name_is_not_trusted(
    server: ScriptedServer, authority: CertificateAuthority
) -> None:
    other = create_authority("other", lifetime=DAY, now=NOW)
    for access in (
        Access(server.url, other.certificate),
        Access(server.url),
        Access(server.url.replace("127.0.0.1", "localhost"), authority.certificate),
        Access(server.url, authority.certificate, tls_name="other.test"),
    ):
        with (
            Connection(access) as connection,
            pytest.raises(Unreachable, match="certificate is not trusted"),
        ):
            connection.call(GET)
    with Connection(
        Access(server.url, authority.certificate, tls_name="kubernetes.test")
    ) as connection:
        connection.call(GET)
    assert len(server.requests) == 1


def client_pair() -> tuple[bytes, Secret]:
    """Return a self-signed client certificate and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "agent")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return certificate.public_bytes(pem), Secret(key.private_bytes(pem, *plain))


def test_a_client_certificate_is_shown_and_its_key_touches_no_disk(
    server: ScriptedServer, authority: CertificateAuthority
) -> None:
    certificate, key = client_pair()
    server.context.verify_mode = ssl.CERT_REQUIRED
    server.context.load_verify_locations(cadata=certificate.decode())
    pair = ClientCertificate(certificate, key)
    with Connection(Access(server.url, authority.certificate, certificate=pair)) as connection:
        assert connection.call(GET) == {}
    with (
        Connection(Access(server.url, authority.certificate)) as connection,
        pytest.raises(Unreachable),
    ):
        connection.call(GET)


def test_no_proxy_is_taken_from_the_environment(
    server: ScriptedServer, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with Connection(access) as connection:
        assert connection.call(GET) == {}


def test_a_proxy_that_was_named_is_used_and_sees_no_token(
    access: Access, server: ScriptedServer
) -> None:
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def serve() -> None:
            peer, _ = proxy.accept()
            with peer:
                seen.append(peer.recv(1 << 16))
                peer.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        named = Access(access.server, access.ca, access.token, proxy=address)
        with (
            Connection(named) as connection,
            pytest.raises(Unreachable, match="proxy did not connect"),
        ):
            connection.call(GET)
        thread.join()
    assert seen[0].startswith(b"CONNECT 127.0.0.1:")
    assert b"t0ken" not in seen[0]
    assert server.requests == []


IMPORTS: Final = """
import sys
import sevkit.cluster.kubeconfig, sevkit.cluster.nodes, sevkit.cluster.events
import sevkit.cluster.connection, sevkit.observe.log, sevkit.observe.server, sevkit.observe.metrics
heavy = {"kubernetes", "urllib3", "prometheus_client", "ruamel", "cryptography", "http"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_nothing_heavy_is_imported_before_a_connection_is_made() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n"
