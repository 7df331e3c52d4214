from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from sevkit.errors import FormatError, UsageError
from sevkit.pki import (
    SKEW,
    CertificateAuthority,
    ServerCertificate,
    create_authority,
    parse_authority,
)
from sevkit.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return create_authority("sevkit test", lifetime=30 * DAY, now=NOW)


def handshake(leaf: ServerCertificate, ca: bytes, name: str, folder: Path) -> str:
    """Return "" if Python's own TLS accepts ``leaf`` for ``name``, else its reason."""
    pair = folder / "pair.pem"
    pair.write_bytes(leaf.key.reveal() + leaf.certificate)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(pair)
    client_context = ssl.create_default_context(cadata=ca.decode())
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server_context.wrap_socket(theirs, server_side=True) as stream:
                stream.recv(1)
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client_context.wrap_socket(ours, server_hostname=name) as stream:
            stream.send(b"x")
    except ssl.SSLCertVerificationError as error:
        ours.close()
        return error.verify_message
    finally:
        thread.join()
    return ""


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (["sevkit-webhook.sevkit.svc", "localhost"], "sevkit-webhook.sevkit.svc"),
        (["sevkit-webhook.sevkit.svc", "localhost"], "localhost"),
        (["127.0.0.1"], "127.0.0.1"),
        (["::1"], "::1"),
    ],
)
def test_a_leaf_is_accepted_by_strict_tls_for_its_names(
    authority: CertificateAuthority, names: list[str], asked: str, tmp_path: Path
) -> None:
    leaf = authority.issue(names, lifetime=DAY, now=NOW)
    assert handshake(leaf, authority.certificate, asked, tmp_path) == ""


def test_a_leaf_is_refused_for_another_name_and_by_another_authority(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    leaf = authority.issue(["localhost"], lifetime=DAY, now=NOW)
    assert "mismatch" in handshake(leaf, authority.certificate, "example.org", tmp_path)
    other = create_authority("sevkit test", lifetime=DAY, now=NOW)
    assert handshake(leaf, other.certificate, "localhost", tmp_path)


def test_an_expired_leaf_is_refused(authority: CertificateAuthority, tmp_path: Path) -> None:
    leaf = authority.issue(["localhost"], lifetime=DAY, now=NOW - 2 * DAY)
    assert "expired" in handshake(leaf, authority.certificate, "localhost", tmp_path)


def test_a_leaf_never_outlives_its_authority_and_may_start_a_little_early(
    authority: CertificateAuthority,
) -> None:
    leaf = authority.issue(["localhost"], lifetime=365 * DAY, now=NOW)
    assert leaf.not_after == authority.not_after == NOW + 30 * DAY
    parsed = x509.load_pem_x509_certificate(leaf.certificate)
    assert parsed.not_valid_before_utc == NOW - SKEW
    with pytest.raises(UsageError, match="expired"):
        authority.issue(["localhost"], lifetime=DAY, now=NOW + 30 * DAY)


def test_a_leaf_can_sign_nothing_and_only_serve(authority: CertificateAuthority) -> None:
    leaf = x509.load_pem_x509_certificate(
        authority.issue(["localhost"], lifetime=DAY, now=NOW).certificate
    )
    find = leaf.extensions.get_extension_for_class
    assert not find(x509.BasicConstraints).value.ca
    assert not find(x509.KeyUsage).value.key_cert_sign
    assert find(x509.KeyUsage).critical
    assert [usage.dotted_string for usage in find(x509.ExtendedKeyUsage).value] == [
        "1.3.6.1.5.5.7.3.1"
    ]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a..b",
        "UPPER.example",
        "-a",
        "a-",
        "a_b",
        "*.example",
        "a" * 64,
        "ä.example",
        "a/b",
        "1.2.3.4/8",
        "a\0b",
        ".".join(["abc"] * 64),
    ],
)
def test_what_is_no_name_is_refused(authority: CertificateAuthority, name: str) -> None:
    with pytest.raises(UsageError):
        authority.issue([name], lifetime=DAY, now=NOW)


def test_a_leaf_without_a_name_and_a_ca_without_one_are_refused(
    authority: CertificateAuthority,
) -> None:
    with pytest.raises(UsageError):
        authority.issue([], lifetime=DAY, now=NOW)
    for name in ("", "n" * 65):
        with pytest.raises(UsageError):
            create_authority(name, lifetime=DAY)


def test_an_authority_is_read_back_and_issues_for_the_same_trust(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    again = parse_authority(authority.certificate, authority.key)
    leaf = again.issue(["localhost"], lifetime=DAY, now=NOW)
    assert handshake(leaf, authority.certificate, "localhost", tmp_path) == ""


def test_what_is_no_authority_is_refused(authority: CertificateAuthority) -> None:
    leaf = authority.issue(["localhost"], lifetime=DAY, now=NOW)
    other = create_authority("other", lifetime=DAY)
    for certificate, key in (
        (b"", authority.key),
        (authority.certificate, Secret(b"")),
        (authority.certificate, Secret(b"\xff" * 64)),
        (authority.certificate, other.key),
        (leaf.certificate, leaf.key),
        (authority.key.reveal(), authority.key),
    ):
        with pytest.raises(FormatError):
            parse_authority(certificate, key)


def test_keys_do_not_show(authority: CertificateAuthority) -> None:
    leaf = authority.issue(["localhost"], lifetime=DAY, now=NOW)
    assert "PRIVATE" not in repr(leaf)
    assert "PRIVATE" not in repr(authority)
