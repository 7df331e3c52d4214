"""Several files that mean something only together: all are written, or none is left."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from sevkit.cli.files import write_new
from sevkit.errors import HostReadError, SevkitError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


def write_together(contents: Mapping[str, bytes], *, private: bool = True) -> None:
    """Write files that must not exist yet, mode 0600 if ``private``, in the order given.

    If one cannot be written, those written before are removed again, and the error's hint says
    so. A file that was there before is never touched. Raises as ``write_new``.
    """
    written: list[str] = []
    try:
        for path, data in contents.items():
            write_new(path, data, private=private)
            written.append(path)
    except BaseException as error:
        for path in written:
            with contextlib.suppress(OSError):  # the reason is on its way already
                Path(path).unlink(missing_ok=True)
        if isinstance(error, (UsageError, HostReadError)):
            raise _with_hint(error, written) from error
        raise


def _with_hint(error: UsageError | HostReadError, written: list[str]) -> SevkitError:
    names = ", ".join(Path(path).name for path in written) or "nothing"
    return type(error)(error.message, hint=f"written and removed again: {names}")
