"""``python -m node_agent.firmware_reader --out FILE``: the only part that opens /dev/sev.

A separate, opt-in container, because a descriptor of /dev/sev is dangerous: SNP_COMMIT, which
nothing can undo, needs no right to write. It knows the three commands that report a status
(PLATFORM_STATUS 1, GET_ID2 8, SNP_PLATFORM_STATUS 9) and cannot issue another; it listens to
nobody, and speaks to nobody but through one file, ``sevkit.io/firmware/v1``, which the agent reads.

What it cannot read it does not say. A file that was not renewed for ``PATIENCE`` readings is
removed, and then the agent no longer knows, which is not "no".
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

    from sevkit.host.devices import Devices
    from sevkit.host.firmware import FirmwareFacts
    from sevkit.host.reading import Reading

_LOG: Final = logging.getLogger("sevkit.firmware_reader")
PATIENCE: Final = 3


class FirmwareFile:
    """Keeps one file as true as ``devices`` answer."""

    def __init__(self, path: str, devices: Devices) -> None:
        self._path: Final = path
        self._devices: Final = devices
        self._missed = 0
        self._said: Reading[FirmwareFacts] | None = None

    def renew(self) -> bool:
        """Ask the firmware and write what it says; return whether it said anything.

        Raises ``OSError`` where the file cannot be written.
        """
        from node_agent.atomic import replace_file  # noqa: PLC0415  # after the signal handlers
        from sevkit.host.devices import ask_firmware  # noqa: PLC0415  # as above
        from sevkit.host.firmware import firmware_document  # noqa: PLC0415  # as above
        from sevkit.host.reading import Known  # noqa: PLC0415  # as above

        asked = ask_firmware(self._devices)
        is_news, self._said = asked != self._said, asked
        if isinstance(asked, Known):
            self._missed = 0
            document = firmware_document(asked.value)
            replace_file(self._path, json.dumps(document, indent=1).encode() + b"\n")
            if is_news:
                _LOG.info("firmware read", extra={"firmware": document})
            return True
        self._missed += 1
        if is_news:
            _LOG.warning("firmware cannot be read: %s", asked.detail, extra={"cause": asked.cause})
        if self._missed >= PATIENCE:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108  # no pathlib in this small process
        return False


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
    if not 1 <= given.interval <= 86400:
        parser.error("--interval must be 1 to 86400 seconds")
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
