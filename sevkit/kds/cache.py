"""Certificates on disk, each with its origin; good for ever, trusted never.

One entry is one file: a line of JSON (key, origin, size, SHA-256), then the bytes. Its name is the
hash of its key, which is made from values (kind, line, chip, TCB version), so no outsider's text
becomes a path. It is written to a temporary file and renamed, so readers and other writers see all
of it or nothing.

``load`` finds damage: a wrong key, size or hash drops the entry. It cannot find an attacker who
rewrites bytes and hash together, and need not: every certificate is verified after every load, and
whoever verifies calls ``drop`` for what turns out to be bad. A cache that cannot be read or written
is a reason or a warning, never an error: it must not fail a verification that could go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.errors import FormatError
from sevkit.kds.content import check_content, size_limit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sevkit.kds.urls import Resource

SCHEMA: Final = "sevkit.io/kds-entry/v1"
_HEADER_LIMIT: Final = 4096
_FIELDS: Final = {"schema", "key", "url", "fetched_at", "size", "sha256"}


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """What the cache has: the bytes, and where and when they came from."""

    data: bytes
    url: str
    fetched_at: datetime

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()


@final
@dataclass(frozen=True, slots=True)
class Lookup:
    """An entry, or the reason why there is none. ``reason`` is empty for a plain miss."""

    entry: Entry | None
    reason: str = ""


@final
class CertificateCache:
    """The entries in one folder, which is made with mode 0700 when the first is stored.

    A folder that anyone may write to is not used. One that belongs to another user is read, and
    written if he lets us: its entries are verified like our own.
    """

    def __init__(self, root: Path) -> None:
        self.root: Final = root

    def path(self, resource: Resource) -> Path:
        """Return the file that holds ``resource``, whether it exists or not."""
        return self.root / _file_name(resource)

    def load(self, resource: Resource) -> Lookup:
        """Return the entry of ``resource``; a damaged one is dropped and reported as a miss."""
        name = _file_name(resource)
        try:
            with self._folder() as folder:
                try:
                    return Lookup(_read(folder, name, resource))
                except FormatError as error:
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=folder)
                    return Lookup(None, f"dropped from the cache: {error.message}")
        except (FileNotFoundError, NotADirectoryError):
            return Lookup(None)
        except OSError as error:
            return Lookup(None, f"cache cannot be read: {_reason(error)}")

    def store(self, resource: Resource, data: bytes, *, url: str, fetched_at: datetime) -> str:
        """Keep ``data`` as ``resource``; return a warning, empty if it was kept.

        ``fetched_at`` has a time zone. A list's nextUpdate is not kept beside it: it is read from
        the list at every load, so that it cannot be changed without breaking the signature.
        """
        header = {
            "schema": SCHEMA,
            "key": _key(resource),
            "url": url,
            "fetched_at": _encode_time(fetched_at),
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        line = json.dumps(header).encode() + b"\n"
        if len(line) > _HEADER_LIMIT:
            return "not kept in the cache: its address is too long"
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._folder() as folder:
                _write(folder, _file_name(resource), line + data)
        except OSError as error:
            return f"not kept in the cache: {_reason(error)}"
        return ""

    def drop(self, resource: Resource) -> str:
        """Remove an entry that did not verify; return a warning, empty if it is gone."""
        try:
            with self._folder() as folder:
                os.unlink(_file_name(resource), dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            return f"a bad cache entry cannot be removed: {_reason(error)}"
        return ""

    @contextlib.contextmanager
    def _folder(self) -> Iterator[int]:
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.fstat(folder).st_mode & stat.S_IWOTH:
                raise PermissionError(0, "the folder is writable by everyone")
            yield folder
        finally:
            os.close(folder)


def _key(resource: Resource) -> dict[str, Any]:
    return {
        "kind": resource.kind.value,
        "line": resource.line,
        "hwid": resource.hwid.hex(),
        "tcb": None if resource.tcb is None else resource.tcb.components,
    }


def _file_name(resource: Resource) -> str:
    text = json.dumps(_key(resource), sort_keys=True)
    return f"{hashlib.sha256(text.encode()).hexdigest()}.entry"


def _read(folder: int, name: str, resource: Resource) -> Entry:
    """Return one entry; ``FormatError`` if it is damaged, ``OSError`` if it cannot be read."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FormatError("cache entry", "is not a file")
    with os.fdopen(descriptor, "rb") as stream:
        limit = _HEADER_LIMIT + size_limit(resource)
        text = stream.read(limit + 1)
    if len(text) > limit:
        raise FormatError("cache entry", "is too large")
    line, newline, data = text.partition(b"\n")
    if not newline or len(line) > _HEADER_LIMIT:
        raise FormatError("cache entry", "has no header")
    entry = _parse(line, data, resource)
    check_content(resource, data)
    return entry


def _parse(line: bytes, data: bytes, resource: Resource) -> Entry:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError("cache entry", "header is not JSON") from error
    if not isinstance(header, dict) or set(header) != _FIELDS or header["schema"] != SCHEMA:
        raise FormatError("cache entry", "header is not ours")
    if header["key"] != _key(resource):
        raise FormatError("cache entry", "is of something else")
    if header["size"] != len(data) or header["sha256"] != hashlib.sha256(data).hexdigest():
        raise FormatError("cache entry", "bytes are not those that were stored")
    url = header["url"]
    if not isinstance(url, str) or not url.isprintable():
        raise FormatError("cache entry", "header is not ours")
    return Entry(data, url, _parse_time(header["fetched_at"]))


def _encode_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_time(text: object) -> datetime:
    try:
        return datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise FormatError("cache entry", "time is ill-formed") from error


def _write(folder: int, name: str, data: bytes) -> None:
    temporary = f".{secrets.token_hex(16)}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o644, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
