"""The policy file, read again when it changes, and taken as a whole or not at all.

A ConfigMap that is mounted changes by one link under the file's name, so the file is read and
compared, not watched. One that is no policy leaves the last good one in force, and is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sevkit.errors import HostReadError, SevkitError
from sevkit.kubevirt.policy import DEFAULT, Policy, parse_policy

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT: Final = 64 << 10


@final
class PolicyFile:
    """A policy that is kept current; without a path it is the default, for ever.

    ``problem`` is what is wrong with the file as it is now, "" for nothing: then ``policy`` is the
    last good one. Raises ``SevkitError`` where the first reading fails: an application that starts
    with a wrong policy has no last good one.
    """

    def __init__(self, path: Path | None) -> None:
        self._path: Final = path
        self._data = b""
        self.problem = ""
        self.policy: Policy = DEFAULT
        if path is not None:
            self._data = self._read(path)
            self.policy = parse_policy(self._data)

    def refresh(self) -> bool:
        """Read it again; return whether the policy, or what is wrong with it, is another now."""
        if self._path is None:
            return False
        before = (self.policy, self.problem)
        try:
            data = self._read(self._path)
            if data != self._data or self.problem:
                self.policy = parse_policy(data)
                self._data, self.problem = data, ""
        except SevkitError as error:
            self.problem = error.message
        return before != (self.policy, self.problem)

    @staticmethod
    def _read(path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                data = file.read(_LIMIT + 1)
        except OSError as error:
            reason = (error.strerror or "input/output error").lower()
            raise HostReadError(f"policy {path.name} cannot be read: {reason}") from error
        if len(data) > _LIMIT:
            raise HostReadError(f"policy {path.name} is larger than {_LIMIT} bytes")
        return data
