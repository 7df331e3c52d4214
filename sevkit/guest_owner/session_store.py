"""Where launches are kept across a crash: a folder that only its owner can open.

Theory of operation. The folder is 0700 and ours, or refused; each launch is one file in it, 0600,
named by a hash of the VMI's UID, because a UID is the cluster's word. A file is written beside its
place, synced, renamed over it, and the folder synced: after a crash there is the old one or the
new one, whole. What was being written when a process died was never acted on, so it is removed. One
process has the folder at a time, by a lock that ends with it. Everything is opened relative to the
folder that was checked, links are not followed.

A launch has one session: where there is a record of its UID, none is made. From then on a record
only goes forward, and its keys go when nothing needs them any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
import threading
from typing import TYPE_CHECKING, Final, Self, final

from sevkit.errors import FormatError, HostReadError, InternalError, UsageError
from sevkit.guest_owner.record import RECORD_LIMIT, Record, encode_record, parse_record
from sevkit.guest_owner.terms import Stage
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from sevkit.abi.secret_packet import SecretPacket
    from sevkit.documents import Json

LOCK: Final = "lock"
_ENDING: Final = ".json"
_UNFINISHED: Final = ".new-"
_OTHERS: Final = 0o077
_ORDER: Final = tuple(Stage)


@final
class SessionStore:
    """The launches kept in ``folder``, made if it is not there; safe for several threads.

    Use it as a context manager: it is locked while it is entered. Raises ``UsageError`` for a
    folder that others can open or that is not ours, ``HostReadError`` where it cannot be used or is
    in use, ``FormatError`` for a record that is not whole.
    """

    def __init__(self, folder: Path) -> None:
        self._path: Final = folder
        self._folder = -1
        self._lock = -1
        self._one_at_a_time: Final = threading.RLock()
        #: Namespace, name and stage of every record, by UID: the folder is ours while locked.
        self._known: Final[dict[str, tuple[str, str, Stage]]] = {}

    def __enter__(self) -> Self:
        self._folder = _open_folder(self._path)
        try:
            self._lock = self._take_lock()
            self._sweep()
            self._known.clear()
            for found in self.records():
                self._known[found.uid] = (found.namespace, found.name, found.stage)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def load(self, uid: str) -> Record | None:
        """Return what is kept of the launch of this VMI, or None."""
        found = self._read(_file_name(uid))
        if found is not None and found.uid != uid:
            raise FormatError("launch record", "is of another VMI than its name says")
        return found

    def records(self) -> Iterator[Record]:
        """Yield all that is kept. Raises at the first record that is not whole."""
        for name in self._names():
            found = self._read(name) if name.endswith(_ENDING) else None
            if found is not None:
                yield found

    def keep_session(self, record: Record) -> None:
        """Keep a session that is about to be sent; one for each VMI, ever."""
        if record.stage is not Stage.SESSION:
            raise InternalError(f"a new launch in stage {record.stage}")
        with self._one_at_a_time:
            if record.uid in self._known:
                raise InternalError("a second session for one launch")
            self._write(record)

    def keep_packet(self, uid: str, packet: SecretPacket, report: Mapping[str, Json]) -> Record:
        """Keep the one packet of a launch, and drop its keys."""
        with self._one_at_a_time:
            return self._write(self._kept(uid).with_packet(packet, report))

    def keep_injected(self, uid: str, report: Mapping[str, Json]) -> Record:
        """Keep that the packet is in, and drop it."""
        with self._one_at_a_time:
            return self._write(self._kept(uid).injected(report))

    def end(self, record: Record) -> None:
        """Keep of a launch only that it is over, so that nothing is begun for it again."""
        if record.stage is not Stage.ENDED:
            raise InternalError(f"an ended launch in stage {record.stage}")
        with self._one_at_a_time:
            self._write(record)

    def forget(self, uid: str) -> None:
        """Remove what is kept of a VMI that is gone, if anything is."""
        with self._one_at_a_time:
            self._unlink(_file_name(uid))
            self._known.pop(uid, None)

    def forget_namesakes(self, uid: str, namespace: str, name: str) -> None:
        """Forget the launches of other VMIs that had this name: where it is, they are gone."""
        with self._one_at_a_time:
            for other, known in list(self._known.items()):
                if known[:2] == (namespace, name) and other != uid:
                    self.forget(other)

    def uids(self) -> frozenset[str]:
        """Return the UIDs of all that is kept."""
        with self._one_at_a_time:
            return frozenset(self._known)

    def _kept(self, uid: str) -> Record:
        found = self.load(uid)
        if found is None:
            raise InternalError("nothing is kept of this launch")
        return found

    def _take_lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(LOCK, flags, 0o600, dir_fd=self._folder)
        except OSError as error:
            raise self._failed("lock", error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise HostReadError(
                f"{self._path}: in use by another process",
                hint="one process at a time: wait for it, or give each a folder of its own",
            ) from error
        return descriptor

    def _leave(self) -> None:
        for descriptor in (self._lock, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._folder = -1

    def _sweep(self) -> None:
        for name in self._names():
            if name.startswith(_UNFINISHED):
                self._unlink(name)

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._folder))  # noqa: PTH208  # of a descriptor
        except OSError as error:
            raise self._failed("list", error) from error

    def _read(self, name: str) -> Record | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=self._folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed("read", error, name) from error
        with os.fdopen(descriptor, "rb") as file:
            _check(os.fstat(descriptor), self._path / name, stat.S_ISREG, "file", "600")
            try:
                data = file.read(RECORD_LIMIT + 1)
            except OSError as error:
                raise self._failed("read", error, name) from error
        try:
            return parse_record(Secret(data))
        except FormatError as error:
            raise FormatError(
                f"{self._path / name}: {error.message}", "", hint=error.hint
            ) from None

    def _write(self, record: Record) -> Record:
        before = self._known.get(record.uid)
        goes_on = before is None or _ORDER.index(record.stage) > _ORDER.index(before[2])
        if not goes_on and record.stage is not Stage.ENDED:
            raise InternalError(f"a launch goes back to {record.stage}")
        unfinished = f"{_UNFINISHED}{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(unfinished, flags, 0o600, dir_fd=self._folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    os.fchmod(descriptor, 0o600)  # a umask may have taken our own rights
                    file.write(encode_record(record).reveal())
                    file.flush()
                    os.fsync(descriptor)
                name = _file_name(record.uid)
                os.rename(unfinished, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            except BaseException:
                with contextlib.suppress(OSError):  # the reason is on its way already
                    os.unlink(unfinished, dir_fd=self._folder)
                raise
            os.fsync(self._folder)
        except OSError as error:
            raise self._failed("write", error) from error
        self._known[record.uid] = (record.namespace, record.name, record.stage)
        return record

    def _unlink(self, name: str) -> None:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)
            os.fsync(self._folder)
        except OSError as error:
            raise self._failed("remove from", error, name) from error

    def _failed(self, verb: str, error: OSError, name: str = "") -> HostReadError:
        where = self._path / name if name else self._path
        return HostReadError(f"{where}: cannot {verb}: {error.strerror or error}")


def _file_name(uid: str) -> str:
    return hashlib.sha256(uid.encode("utf-8", "surrogatepass")).hexdigest() + _ENDING


def _open_folder(path: Path) -> int:
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            path.chmod(0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: its parent folder does not exist") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise HostReadError(f"{path}: cannot be used as a state folder: {reason}") from error
    try:
        _check(os.fstat(descriptor), path, stat.S_ISDIR, "folder", "700")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(
    found: os.stat_result, path: Path, is_kind: Callable[[int], bool], what: str, mode: str
) -> None:
    """Refuse what is not ours alone: keys lie in it."""
    if not is_kind(found.st_mode):
        raise UsageError(f"{path}: is not a {what}")
    if found.st_uid != os.geteuid():
        raise UsageError(f"{path}: belongs to another user", hint="name a folder of your own")
    if found.st_mode & _OTHERS:
        raise UsageError(
            f"{path}: others can open it (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"chmod {mode} it, if nobody else has written there",
        )
