"""Words of whoever judges whether something is ready, check by check: a host, or a cluster."""

from __future__ import annotations

from typing import Final

from sevkit.errors import ExpectationError, UndecidedError
from sevkit.host.doctor.check import Verdict

#: How each check came out; a no stands out.
MARKS: Final = {
    Verdict.PASS: "pass",
    Verdict.FAIL: "FAIL",
    Verdict.WARN: "warn",
    Verdict.SKIP: "skip",
}
_READY: Final = {0: True, ExpectationError.exit_code: False, UndecidedError.exit_code: None}
_HEADLINES: Final = {
    True: "ready",
    False: "NOT READY",
    None: "could not find out whether it is ready",
}


def is_ready(code: int) -> bool | None:
    """Return what an exit code of 0, 3 or 4 says, None for that it is not known."""
    return _READY[code]


def headline(code: int) -> str:
    """Return the last line for people."""
    return f"{_HEADLINES[is_ready(code)]} (exit code {code})"
