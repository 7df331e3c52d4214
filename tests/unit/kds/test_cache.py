from __future__ import annotations

import hashlib
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.product import ProductLine
from sevkit.abi.tcb import TcbVersion
from sevkit.kds import urls
from sevkit.kds.cache import CertificateCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.kds.urls import Resource

CHIP = bytes(range(64))
VCEK = urls.vcek(ProductLine.MILAN, CHIP, TcbVersion(1, 2, 3, 4))
OTHER = urls.vcek(ProductLine.MILAN, CHIP, TcbVersion(1, 2, 3, 5))
CRL = urls.crl(ProductLine.MILAN, vlek=False)
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
URL = "https://kds.example/vcek"


@pytest.fixture
def data(make_certificate: Callable[[bytes], bytes]) -> bytes:
    return make_certificate(b"vcek")


@pytest.fixture
def cache(tmp_path: Path) -> CertificateCache:
    return CertificateCache(tmp_path / "a" / "kds")


def keep(cache: CertificateCache, data: bytes, resource: Resource = VCEK) -> None:
    assert cache.store(resource, data, url=URL, fetched_at=NOW) == ""


def test_what_was_stored_is_loaded_with_its_origin(cache: CertificateCache, data: bytes) -> None:
    keep(cache, data)
    entry = cache.load(VCEK).entry
    assert entry is not None
    assert (entry.data, entry.url, entry.fetched_at) == (data, URL, NOW)
    assert entry.sha256 == hashlib.sha256(data).hexdigest()


def test_another_chip_tcb_or_kind_is_another_entry(cache: CertificateCache, data: bytes) -> None:
    keep(cache, data)
    others = [
        OTHER,
        urls.vcek(ProductLine.GENOA, CHIP, TcbVersion(1, 2, 3, 4)),
        urls.vcek(ProductLine.MILAN, CHIP[::-1], TcbVersion(1, 2, 3, 4)),
        urls.cek(CHIP),
        CRL,
        urls.crl(ProductLine.MILAN, vlek=True),
        urls.chain(ProductLine.MILAN, vlek=False),
        urls.chain(ProductLine.GENOA, vlek=False),
    ]
    assert len({cache.path(one) for one in [VCEK, *others]}) == len(others) + 1
    assert all(cache.load(one).entry is None for one in others)


def test_a_cache_that_is_not_there_is_a_plain_miss(cache: CertificateCache) -> None:
    found = cache.load(VCEK)
    assert (found.entry, found.reason) == (None, "")
    assert cache.drop(VCEK) == ""


def test_the_folder_is_private_and_nothing_else_is_left_in_it(
    cache: CertificateCache, data: bytes
) -> None:
    keep(cache, data)
    keep(cache, data)
    assert cache.root.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in cache.root.iterdir()] == [cache.path(VCEK).name]
    assert cache.path(VCEK).stat().st_mode & 0o777 == 0o644 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_a_file_name_is_a_hash_and_nothing_of_the_key(cache: CertificateCache) -> None:
    name = cache.path(VCEK).name
    assert len(name.removesuffix(".entry")) == 64
    assert cache.path(VCEK).parent == cache.root
    assert CHIP.hex() not in name


def rewrite(cache: CertificateCache, change: Callable[[bytes], bytes]) -> None:
    path = cache.path(VCEK)
    path.write_bytes(change(path.read_bytes()))


def with_header(**changes: object) -> Callable[[bytes], bytes]:
    def change(text: bytes) -> bytes:
        line, _, body = text.partition(b"\n")
        return json.dumps(json.loads(line) | changes).encode() + b"\n" + body

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + b"\x00",
        lambda text: text[:-1] + bytes([text[-1] ^ 1]),
        lambda text: b"",
        lambda text: text.partition(b"\n")[0],
        lambda text: text.partition(b"\n")[2],
        lambda text: b"\n" + text,
        lambda text: b"[" * 4000 + b"\n",
        lambda text: b"{}\n",
        lambda text: b"[]\n",
        lambda text: b"\xff\n",
        lambda text: b"9" * 5000 + b"\n" + text,
        lambda text: text + bytes(2 << 20),
        with_header(sha256="0" * 64),
        with_header(sha256=None),
        with_header(size=1),
        with_header(size="1"),
        with_header(schema="sevkit.io/kds-entry/v2"),
        with_header(extra=1),
        with_header(key={}),
        with_header(key=None),
        with_header(fetched_at="yesterday"),
        with_header(fetched_at=None),
        with_header(fetched_at="2026-11-23T12:00:00+01:00"),
        with_header(url=7),
        with_header(url="https://x/\x1b[31m"),
    ],
)
def test_a_damaged_entry_is_dropped_and_reported_as_a_miss(
    cache: CertificateCache, data: bytes, change: Callable[[bytes], bytes]
) -> None:
    keep(cache, data)
    rewrite(cache, change)
    found = cache.load(VCEK)
    assert found.entry is None
    assert found.reason.startswith("dropped from the cache: ")
    assert not cache.path(VCEK).exists()
    assert cache.load(VCEK).reason == ""


def test_an_entry_moved_to_another_key_is_dropped(cache: CertificateCache, data: bytes) -> None:
    keep(cache, data)
    cache.path(VCEK).rename(cache.path(OTHER))
    assert "something else" in cache.load(OTHER).reason
    assert not cache.path(OTHER).exists()


def test_an_entry_rewritten_with_its_hash_is_for_the_verifier_to_drop(
    cache: CertificateCache, data: bytes, make_certificate: Callable[[bytes], bytes]
) -> None:
    keep(cache, make_certificate(b"forged"))
    entry = cache.load(VCEK).entry
    assert entry is not None
    assert entry.data != data
    assert cache.drop(VCEK) == ""
    assert cache.load(VCEK).entry is None


def test_a_rewritten_entry_that_is_not_even_in_shape_is_dropped_at_load(
    cache: CertificateCache,
) -> None:
    keep(cache, b"<html>not a certificate</html>")
    assert "web page" in cache.load(VCEK).reason


def test_a_link_in_place_of_an_entry_is_not_followed(
    cache: CertificateCache, data: bytes, tmp_path: Path
) -> None:
    keep(cache, data)
    elsewhere = tmp_path / "elsewhere"
    cache.path(VCEK).rename(elsewhere)
    cache.path(VCEK).symlink_to(elsewhere)
    assert cache.load(VCEK).entry is None
    keep(cache, data)
    assert not cache.path(VCEK).is_symlink()


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("make", ["fifo", "folder"])
def test_what_is_no_file_is_not_read(cache: CertificateCache, data: bytes, make: str) -> None:
    keep(cache, data, OTHER)
    path = cache.path(VCEK)
    if make == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    before = open_descriptors()
    found = cache.load(VCEK)
    assert found.entry is None
    assert found.reason
    assert open_descriptors() == before


@pytest.mark.parametrize("mode", [0o777, 0o703, 0o1777])
def test_a_folder_that_anyone_may_write_to_is_not_used(
    cache: CertificateCache, data: bytes, mode: int
) -> None:
    keep(cache, data)
    cache.root.chmod(mode)
    assert "writable by everyone" in cache.load(VCEK).reason
    assert "writable by everyone" in cache.store(VCEK, data, url=URL, fetched_at=NOW)
    assert "writable by everyone" in cache.drop(VCEK)
    cache.root.chmod(0o755)
    assert cache.load(VCEK).entry is not None


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = CertificateCache(tmp_path / "file" / "kds")
    assert cache.store(VCEK, data, url=URL, fetched_at=NOW).startswith("not kept in the cache")
    assert cache.load(VCEK).entry is None
    over = CertificateCache(tmp_path / "file")
    assert over.store(VCEK, data, url=URL, fetched_at=NOW).startswith("not kept in the cache")


def test_an_address_without_end_is_not_kept(cache: CertificateCache, data: bytes) -> None:
    assert "too long" in cache.store(VCEK, data, url="https://" + "a" * 5000, fetched_at=NOW)
    assert cache.load(VCEK).entry is None


def test_readers_never_see_half_of_what_writers_write(
    cache: CertificateCache, make_certificate: Callable[[bytes], bytes]
) -> None:
    contents = [make_certificate(bytes([value]) * 20000) for value in range(4)]
    keep(cache, contents[0])
    seen: list[bool] = []

    def write(data: bytes) -> None:
        for _ in range(10):
            keep(cache, data)

    def read() -> None:
        for _ in range(60):
            entry = cache.load(VCEK).entry
            seen.append(entry is not None and entry.data in contents)

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 120
    assert all(seen)
    assert len(list(cache.root.iterdir())) == 1
