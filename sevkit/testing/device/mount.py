"""Real files for simulated devices: a FUSE mount whose files answer ioctls.

    with FuseDevices({"sev": device}) as devices:
        fcntl.ioctl(os.open(devices.path / "sev", os.O_RDWR), SEV_ISSUE_CMD, argument)

The files are regular ones by their mode bits, which SEV programs do not look at; in all else they
behave as the devices do. The mount is made in a mount namespace of its own, so that it ends with
this process however that ends, and is reached through /proc.

Calls from this very process are answered too: the server is a thread, and Python lets it run
during a call. There is one exception: ``fcntl.ioctl`` with more than 1024 bytes, which no request
of /dev/sev or /dev/kvm has. That, and a process that is killed in the middle of a call to itself,
wait until the kernel gives up, half a minute from Linux 6.14 on; older kernels do not.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import platform
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

from sevkit.errors import SevkitError, UndecidedError
from sevkit.testing.device.linux import (
    MountFlag,
    UnmountFlag,
    mount,
    unmount,
    unshare_mounts,
)
from sevkit.testing.device.server import DeviceServer
from sevkit.testing.device.tree import make_tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from sevkit.testing.device.tree import Served

_FUSE: Final = Path("/dev/fuse")
_KIND: Final = "fuse.sevkit"
#: How long a device may take over one request before leaving is given up, in seconds.
_PATIENCE: Final = 10.0


@functools.cache
def unavailable_reason() -> str | None:
    """Return why no device files can be had on this machine, or None if they can.

    It is tried out, once for each process: what a container may do is not to be guessed.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"needs Linux on x86-64, this is {platform.system()} on {platform.machine()}"
    if not _FUSE.exists():
        return "no /dev/fuse: the kernel lacks FUSE, or the container was not given it"
    if os.geteuid() != 0:
        return "mounting needs root"
    try:
        with FuseDevices({}):
            return None
    except SevkitError as error:
        return error.message


@final
class FuseDevices:
    """Serves ``files`` by their names below ``path``. Use it as a context manager, once.

    Without ``at``, the mount is in a private namespace: ``path`` leads there through /proc, which
    serves root's programs; ``sevkit.testing.device.run`` puts the files where programs look. With
    ``at``, an existing folder, it is mounted there for everybody, and a dead mount that a killed
    process left there is removed first.

    Leaving ends calls in flight with ECONNABORTED, and raises what a device raised beside
    ``OSError``. Raises ``UndecidedError`` where ``unavailable_reason`` is not None.
    """

    def __init__(self, files: Mapping[str, Served], *, at: Path | None = None) -> None:
        #: The devices' names below ``path``.
        self.names: Final = tuple(files)
        self._server: Final = DeviceServer(make_tree(files))
        self._at: Final = at
        self._ready: Final = threading.Event()
        self._leave: Final = threading.Event()
        self._failure: Exception | None = None
        self._folder: Path | None = None
        self._namespace = 0
        # Two threads: one answers; the other holds the namespace and can unmount at any time,
        # also while the first waits for a device.
        self._holder: Final = threading.Thread(target=self._hold, name="devices", daemon=True)

    @property
    def path(self) -> Path:
        """The folder of the files, good for this process and for others of root's."""
        if self._folder is None:
            raise UndecidedError("the devices are not mounted", hint="enter the context first")
        return self._root / self._folder.relative_to("/") if self._namespace else self._folder

    @property
    def namespace(self) -> Path | None:
        """The mount namespace that has the files, for setns(2), or None if everybody has them."""
        return self._task / "ns/mnt" if self._namespace else None

    @property
    def folder(self) -> Path:
        """The folder of the files as it is called inside ``namespace``."""
        if self._folder is None:
            raise UndecidedError("the devices are not mounted", hint="enter the context first")
        return self._folder

    @property
    def _task(self) -> Path:
        return Path(f"/proc/{os.getpid()}/task/{self._namespace}")

    @property
    def _root(self) -> Path:
        return self._task / "root"

    @property
    def open_handles(self) -> int:
        """How many open files there are at this moment."""
        return self._server.open_handles

    def __enter__(self) -> Self:
        self._holder.start()
        self._ready.wait()
        if self._failure is not None:
            self._holder.join()
            raise UndecidedError(
                f"cannot mount device files: {self._failure}",
                hint="run as root, with /dev/fuse and CAP_SYS_ADMIN",
            ) from self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave.set()
        self._holder.join()
        defects = [*self._server.defects, *([self._failure] if self._failure else [])]
        if defects and error is None:
            raise defects[0]

    def _hold(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                folder = self._prepare(stack)
                thread = threading.Thread(
                    target=self._serve, args=(_mount(folder),), name="device requests", daemon=True
                )
                thread.start()
                stack.callback(self._wait_for, thread)
                stack.callback(_unmount_now, folder)
                self._folder = folder
                self._ready.set()
                self._leave.wait()
        except Exception as error:  # noqa: BLE001  # handed to the thread that entered
            self._failure = error
        finally:
            self._ready.set()

    def _prepare(self, stack: contextlib.ExitStack) -> Path:
        """Return the folder to mount on, in a namespace of its own unless it is a given one."""
        if self._at is not None:
            folder = self._at.absolute()
            _remove_dead_mount(folder)
            return folder
        unshare_mounts()
        self._namespace = threading.get_native_id()
        folder = Path(tempfile.mkdtemp(prefix="sevkit-devices-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _serve(self, connection: int) -> None:
        try:
            self._server.serve(connection)
        except Exception as error:  # noqa: BLE001  # handed to the thread that leaves
            self._failure = error
        finally:
            os.close(connection)

    def _wait_for(self, thread: threading.Thread) -> None:
        thread.join(_PATIENCE)
        if thread.is_alive():
            self._failure = UndecidedError(f"a device did not answer within {_PATIENCE:g} s")


def _mount(folder: Path) -> int:
    """Mount on ``folder``; return the descriptor that the requests are read from."""
    connection = os.open(_FUSE, os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={connection},rootmode=40000,user_id=0,group_id=0,allow_other"
    flags = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC
    try:
        mount("sevkit", folder, _KIND, flags, f"{options},default_permissions")
    except OSError:
        os.close(connection)
        raise
    return connection


def _unmount_now(folder: Path) -> None:
    """End the connection: callers that wait are let go, and the server's read returns."""
    with contextlib.suppress(OSError):
        unmount(folder, UnmountFlag.FORCE | UnmountFlag.DETACH)


def _remove_dead_mount(folder: Path) -> None:
    try:
        folder.stat()
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        unmount(folder, UnmountFlag.DETACH)
