"""``python -m node_agent.firmware_reader --out FILE``: the only part that opens /dev/sev.

A separate, opt-in container, because a descriptor of /dev/sev is dangerous: SNP_COMMIT, which
nothing can undo, needs no right to write. It knows the three commands that report a status
(PLATFORM_STATUS 1, GET_ID2 8, SNP_PLATFORM_STATUS 9) and cannot issue another; it listens to
nobody, and speaks to nobody but through one file, ``sevkit.io/firmware/v1``, which the agent reads.

What it cannot read it does not say. A file that was not renewed for ``PATIENCE`` readings is
removed, and then the agent no longer knows, which is not "no". If the reader itself is gone, the
agent no longer believes its file after as much time. A secure processor that its driver has given
up is an answer, and is said at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Final

from node_agent.signals import Signals, Stopped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sevkit.host.devices import Devices
    from sevkit.host.firmware import FirmwareFacts
    from sevkit.host.reading import Reading

_LOG: Final = logging.getLogger("sevkit.firmware_reader")
PATIENCE: Final = 3
#: Longest time between readings, in seconds: as many as ``PATIENCE`` are all that the agent waits.
LONGEST: Final = 300


class FirmwareFile:
    """Keeps one file as true as ``devices`` answer."""

    def __init__(self, path: str, devices: Devices) -> None:
        self._path: Final = path
        self._devices: Final = devices
        self._missed = 0
        self._said: Reading[FirmwareFacts] | None = None

    def renew(self) -> bool:
        """Ask the firmware and write what is known; return whether it said anything.

        Raises ``OSError`` where the file cannot be written.
        """
        from node_agent.atomic import replace_file  # noqa: PLC0415  # after the signal handlers
        from sevkit.host.devices import ask_firmware  # noqa: PLC0415  # as above
        from sevkit.host.reading import Known  # noqa: PLC0415  # as above

        asked = ask_firmware(self._devices)
        document = _document(asked)
        self._missed += 1
        try:
            if document is not None:
                replace_file(self._path, json.dumps(document, indent=1).encode() + b"\n")
                self._missed = 0
        finally:
            if self._missed >= PATIENCE:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)  # noqa: PTH108  # no pathlib in this small process
        is_news, self._said = asked != self._said, asked
        if isinstance(asked, Known):
            if is_news:
                _LOG.info("firmware read", extra={"firmware": document})
        elif is_news:
            _LOG.warning("firmware cannot be read: %s", asked.detail, extra={"cause": asked.cause})
        return isinstance(asked, Known)


def _document(asked: Reading[FirmwareFacts]) -> dict[str, Any] | None:
    """Return what is to be in the file, or None where nothing is known."""
    from sevkit.host.firmware import (  # noqa: PLC0415  # after the signal handlers
        firmware_document,
        silence_document,
    )
    from sevkit.host.reading import Cause, Known  # noqa: PLC0415  # as above

    if isinstance(asked, Known):
        return firmware_document(asked.value)
    return silence_document() if asked.cause is Cause.SILENT else None


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m node_agent.firmware_reader",
        description="Write what the secure processor's status commands say, for the node agent's "
        "--firmware-facts. Exit codes: 0 done or asked to stop, 2 usage, 4 no answer (--once).",
        allow_abbrev=False,
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="the file to keep true")
    parser.add_argument("--once", action="store_true", help="read once, then exit")
    parser.add_argument(
        "--interval", metavar="S", type=float, default=300.0, help="seconds between readings [300]"
    )
    given = parser.parse_args(arguments)
    if not 1 <= given.interval <= LONGEST:
        parser.error(f"--interval must be 1 to {LONGEST} seconds")
    return given


def main(arguments: Sequence[str], signals: Signals) -> int:
    """Run until asked to stop, and return the exit code."""
    given = _arguments(arguments)
    from sevkit.errors import UndecidedError  # noqa: PLC0415  # after the signal handlers
    from sevkit.host.devices import SystemDevices  # noqa: PLC0415  # as above
    from sevkit.observe.log import log_as_json  # noqa: PLC0415  # as above

    log_as_json(sys.stderr)
    file = FirmwareFile(given.out, SystemDevices())
    while not signals.stopping:
        signals.take_hup()
        try:
            is_read = file.renew()
        except OSError as error:
            _LOG.error("%s cannot be written: %s", given.out, error.strerror)  # no bug
            is_read = False
        if given.once:
            return 0 if is_read else UndecidedError.exit_code
        signals.wait(given.interval)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:], Signals()))
    except Stopped:
        sys.exit(0)
