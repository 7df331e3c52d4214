from __future__ import annotations

import http.client
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import urllib3.exceptions
from kubernetes.client.exceptions import ApiException

from sevkit.cluster.access import Access, ClientCertificate
from sevkit.cluster.errors import BadAnswer, NotFound, Timeout, Unreachable
from sevkit.cluster.transport import Moment, explain, make_context, translated
from sevkit.errors import ClusterError
from sevkit.pki import create_authority

if TYPE_CHECKING:
    from pathlib import Path

    from sevkit.pki import ServerCertificate

HOST = "https://api:6443"
POOL = urllib3.HTTPSConnectionPool("api")


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ConnectionRefusedError(), Unreachable, "refused"),
        (ConnectionResetError(), Unreachable, "hung up"),
        (BrokenPipeError(), Unreachable, "hung up"),
        (socket.gaierror(-2, "no name"), Unreachable, "cannot be resolved"),
        (OSError(113, "no route"), Unreachable, "cannot be reached"),
        (TimeoutError(), Timeout, "in time"),
        (urllib3.exceptions.ReadTimeoutError(POOL, "/", "x"), Timeout, "in time"),
        (urllib3.exceptions.ConnectTimeoutError(), Timeout, "in time"),
        (ssl.SSLError("wrong version number"), Unreachable, "TLS that we accept"),
        (
            urllib3.exceptions.ProtocolError("aborted", http.client.RemoteDisconnected("x")),
            Unreachable,
            "hung up",
        ),
        (
            urllib3.exceptions.ProtocolError("aborted", http.client.BadStatusLine("x")),
            BadAnswer,
            "does not speak HTTP",
        ),
        (urllib3.exceptions.IncompleteRead(1, 9), Unreachable, "broke off"),
        (urllib3.exceptions.InvalidHeader("x"), BadAnswer, "does not speak HTTP"),
        (
            caused(ApiException(status=0, reason="SSLError"), ssl.SSLError("alert")),
            Unreachable,
            "TLS that we accept",
        ),
        (
            caused(urllib3.exceptions.HTTPError("pool"), ConnectionRefusedError()),
            Unreachable,
            "refused",
        ),
        (
            urllib3.exceptions.ProxyError("x", OSError("Tunnel connection failed: 403")),
            Unreachable,
            "proxy did not connect",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_goes_wrong_below_http_is_told_apart(
    error: Exception, kind: type[ClusterError], message: str
) -> None:
    assert type(explain(error)) is kind
    assert message in explain(error).message
    with pytest.raises(kind, match=message) as caught, translated():
        raise error
    assert caught.value.hint


def test_an_untrusted_certificate_says_why() -> None:
    error = ssl.SSLCertVerificationError("x")
    error.verify_message = "certificate has expired"
    assert explain(error).message == (
        "API server's TLS certificate is not trusted: certificate has expired"
    )


def test_an_error_of_ours_goes_through_and_so_does_a_bug() -> None:
    ours = NotFound(404)
    with pytest.raises(NotFound) as caught, translated():
        raise ours
    assert caught.value is ours
    with pytest.raises(KeyError), translated():
        raise KeyError


def test_a_circle_of_causes_ends() -> None:
    one, other = ValueError(), RuntimeError()
    one.__cause__, other.__cause__ = other, one
    assert isinstance(explain(one), Unreachable)


def test_a_moment_is_the_threads_own_and_passes() -> None:
    moment = Moment()
    assert moment.left() == float("inf")
    moment.arm(60)
    assert 59 < moment.left() <= 60
    moment.arm(0.01)
    time.sleep(0.02)
    with pytest.raises(TimeoutError):
        moment.left()


@pytest.fixture(scope="module")
def pairs() -> tuple[bytes, ServerCertificate, ServerCertificate]:
    now, day = datetime.now(UTC), timedelta(days=1)
    authority = create_authority("test", lifetime=day, now=now)
    one, other = (authority.issue([name], lifetime=day, now=now) for name in ("one", "other"))
    return authority.certificate, one, other


def test_a_context_checks_certificates_and_names(
    pairs: tuple[bytes, ServerCertificate, ServerCertificate],
) -> None:
    context = make_context(Access(HOST, pairs[0]), Moment())
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1


def test_authorities_and_keys_are_read_when_they_are_needed(
    tmp_path: Path, pairs: tuple[bytes, ServerCertificate, ServerCertificate]
) -> None:
    authority, one, _ = pairs
    ca, certificate, key = (tmp_path / name for name in ("ca", "certificate", "key"))
    access = Access(HOST, ca, certificate=ClientCertificate(certificate, key))
    with pytest.raises(ClusterError, match="authority ca cannot be read: no such file"):
        make_context(access, Moment())
    ca.write_bytes(authority)
    certificate.write_bytes(one.certificate)
    with pytest.raises(ClusterError, match="client key key cannot be read: no such file"):
        make_context(access, Moment())
    key.write_bytes(one.key.reveal())
    make_context(access, Moment())
    make_context(Access(HOST, ca, certificate=ClientCertificate(certificate, one.key)), Moment())


def test_a_key_of_another_certificate_is_refused(
    pairs: tuple[bytes, ServerCertificate, ServerCertificate],
) -> None:
    authority, one, other = pairs
    access = Access(HOST, authority, certificate=ClientCertificate(one.certificate, other.key))
    with pytest.raises(ClusterError, match="do not fit"):
        make_context(access, Moment())


@pytest.mark.parametrize("data", [b"", b"\xff", b"-----BEGIN CERTIFICATE-----\n", b"text"])
def test_what_is_no_authority_is_refused_and_nobody_is_trusted_instead(data: bytes) -> None:
    with pytest.raises(ClusterError, match="no certificate"):
        make_context(Access(HOST, data), Moment())
