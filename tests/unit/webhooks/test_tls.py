from __future__ import annotations

import resource
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.errors import CertificateExpired, FormatError, HostReadError, SevkitError
from sevkit.pki import create_authority
from sevkit.secret import Secret
from webhooks.tls import FILE_LIMIT, Certificates, FolderPairs, Pair, load_pair

if TYPE_CHECKING:
    from pathlib import Path

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
AUTHORITY: Final = create_authority("test", lifetime=timedelta(days=100), now=NOW)


def make_pair(*, lifetime: timedelta = timedelta(days=1), now: datetime = NOW) -> Pair:
    leaf = AUTHORITY.issue(["a.b.svc"], lifetime=lifetime, now=now)
    return Pair(leaf.certificate, leaf.key)


GOOD: Final = make_pair()
OTHER: Final = make_pair(lifetime=timedelta(days=2))


class Shelf:
    def __init__(self, pair: Pair) -> None:
        self.pair: Pair | SevkitError = pair

    def read(self) -> Pair:
        if isinstance(self.pair, SevkitError):
            raise self.pair
        return self.pair


def write(folder: Path, pair: Pair) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key.reveal())


def test_a_good_pair_gives_a_strict_context() -> None:
    loaded = load_pair(GOOD, NOW)
    assert loaded.not_after == NOW + timedelta(days=1)
    assert loaded.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert loaded.context.options & ssl.OP_NO_RENEGOTIATION
    names = {cipher["name"] for cipher in loaded.context.get_ciphers()}
    assert all(name.startswith(("TLS_", "ECDHE-")) for name in names)
    assert not any("CBC" in name or "SHA1" in name or name.endswith("-SHA") for name in names)


def test_a_chain_is_loaded_with_its_leaf() -> None:
    load_pair(Pair(GOOD.certificate + AUTHORITY.certificate, GOOD.key), NOW)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (Pair(GOOD.certificate, OTHER.key), "is not the certificate's key"),
        (Pair(GOOD.certificate, Secret(b"")), "is not the certificate's key"),
        (Pair(GOOD.certificate, Secret(GOOD.key.reveal()[:100])), "is not the certificate's key"),
        (Pair(AUTHORITY.certificate + GOOD.certificate, GOOD.key), "is not the certificate's key"),
        (Pair(b"", GOOD.key), "is not a chain"),
        (Pair(GOOD.certificate[:200], GOOD.key), "is not a chain"),
        (Pair(GOOD.certificate + b"-----BEGIN CERTIFICATE-----\nxx", GOOD.key), "is not"),
        (Pair(b"\x30\x82" + bytes(500), GOOD.key), "is not a chain"),
    ],
)
def test_what_is_no_pair_is_refused(pair: Pair, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        load_pair(pair, NOW)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password() -> None:
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415  # only here

    private = form.load_pem_private_key(GOOD.key.reveal(), None)
    locked = private.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"word")
    )
    with pytest.raises(FormatError):
        load_pair(Pair(GOOD.certificate, Secret(locked)), NOW)


@pytest.mark.parametrize("moment", [NOW - timedelta(days=1), NOW + timedelta(days=1)])
def test_a_pair_is_refused_outside_of_its_time(moment: datetime) -> None:
    with pytest.raises(CertificateExpired, match="from 2029-12-31 to 2030-01-02 only"):
        load_pair(GOOD, moment)


def test_another_pair_takes_the_place_of_the_former() -> None:
    shelf, told = Shelf(GOOD), list[SevkitError | None]()
    certificates = Certificates(shelf, told=told.append, clock=lambda: NOW)
    assert (certificates.current, certificates.seconds_left) == (None, None)
    certificates.poll()
    first = certificates.current
    assert first is not None
    assert certificates.seconds_left == 86400
    certificates.poll()
    assert certificates.current is first
    shelf.pair = OTHER
    certificates.poll()
    assert certificates.current not in (None, first)
    assert certificates.seconds_left == 2 * 86400
    assert told == [None, None]


@pytest.mark.parametrize(
    "bad",
    [
        Pair(OTHER.certificate, GOOD.key),
        Pair(b"nonsense", GOOD.key),
        make_pair(now=NOW - timedelta(days=20)),
        HostReadError("cannot read it"),
    ],
    ids=["mismatch", "nonsense", "expired", "unreadable"],
)
def test_a_bad_pair_changes_nothing_and_is_told_once(bad: Pair | SevkitError) -> None:
    shelf, told = Shelf(GOOD), list[SevkitError | None]()
    certificates = Certificates(shelf, told=told.append, clock=lambda: NOW)
    certificates.poll()
    first = certificates.current
    shelf.pair = bad
    for _ in range(3):
        certificates.poll()
    assert certificates.current is first
    assert len(told) == 2
    assert isinstance(told[1], SevkitError)
    shelf.pair = GOOD
    for _ in range(3):
        certificates.poll()
    assert certificates.current is first
    assert told[2:] == [None]
    shelf.pair = bad
    certificates.poll()
    assert len(told) == 4


def test_without_a_descriptor_the_former_pair_serves_and_it_is_told() -> None:
    shelf, told = Shelf(GOOD), list[SevkitError | None]()
    certificates = Certificates(shelf, told=told.append, clock=lambda: NOW)
    certificates.poll()
    first = certificates.current
    shelf.pair = OTHER
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        certificates.poll()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert certificates.current is first
    assert isinstance(told[1], HostReadError)
    assert "too many open files" in told[1].message
    certificates.poll()
    assert certificates.current is not first
    assert told[2:] == [None]


def test_seconds_left_are_negative_when_nobody_renewed() -> None:
    moment = [NOW]
    certificates = Certificates(Shelf(GOOD), told=lambda _: None, clock=lambda: moment[0])
    certificates.poll()
    moment[0] += timedelta(days=3)
    assert certificates.seconds_left == -2 * 86400


def test_a_folder_is_read_and_again_when_it_is_swapped(tmp_path: Path) -> None:
    for name, pair in (("..1", GOOD), ("..2", OTHER)):
        write(tmp_path / name, pair)
    (tmp_path / "..data").symlink_to("..1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    pairs = FolderPairs(tmp_path)
    assert pairs.read() == GOOD
    (tmp_path / "..next").symlink_to("..2")
    (tmp_path / "..next").rename(tmp_path / "..data")
    assert pairs.read() == OTHER


def test_a_plain_folder_is_read_too(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert FolderPairs(tmp_path).read() == GOOD


def test_what_cannot_be_read_is_told_so(tmp_path: Path) -> None:
    pairs = FolderPairs(tmp_path)
    with pytest.raises(HostReadError, match="no such file"):
        pairs.read()
    write(tmp_path, Pair(bytes(FILE_LIMIT + 1), GOOD.key))
    with pytest.raises(HostReadError, match=r"tls\.crt is larger"):
        pairs.read()
    (tmp_path / "..data").symlink_to("gone")
    with pytest.raises(HostReadError, match="no such file"):
        pairs.read()


def test_a_key_stands_in_no_repr() -> None:
    assert GOOD.key.reveal().decode()[40:80] not in repr(GOOD)
