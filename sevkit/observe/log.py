"""Log lines as JSON: one object a line, in ASCII, bounded, and without key material.

    log_as_json(sys.stderr)
    logging.getLogger("sevkit.agent").info("published", extra={"node": "n1", "labels": 7})

    {"time": "2026-11-25T12:00:00.123Z", "level": "info", "logger": "sevkit.agent",
     "message": "published", "node": "n1", "labels": 7}

Bytes are never written, only how many there are: they may be a key, and a ``Secret`` says no more.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TextIO, TypeAlias, final

from sevkit.errors import SevkitError
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

#: Longest text of one value, in characters: what an API server or a device said may be long.
TEXT_LIMIT: Final = 8192
_ITEMS: Final = 100
_DEPTH: Final = 4
#: What logging itself puts on a record; everything else came with ``extra``.
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FIXED: Final = frozenset({"time", "level", "logger", "message", "error", "hint", "trace"})


@final
class JsonFormatter(logging.Formatter):
    """Turns a record into one line of JSON.

    What came with ``extra`` stands beside ``time`` (UTC, milliseconds), ``level``, ``logger`` and
    ``message``; a name that is taken gets an underscore. An exception gives ``error``, ``hint`` if
    it is a ``SevkitError``, and ``trace`` if it is not: then it is a bug.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Json] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(_message(record)),
        }
        line.update(_extra(record))
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            line["error"] = _cut(f"{type(error).__name__}: {error}")
            if not isinstance(error, SevkitError):
                line["trace"] = _cut(
                    self.formatException((type(error), error, error.__traceback__))
                )
            elif error.hint:
                line["hint"] = _cut(error.hint)
        return json.dumps(line)


def log_as_json(
    stream: TextIO, *, level: int = logging.INFO, logger: logging.Logger | None = None
) -> logging.Handler:
    """Make ``logger``, by default the root of all, write JSON lines to ``stream`` and nothing else.

    Returns the handler that does so.
    """
    target = logger or logging.getLogger()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    for former in tuple(target.handlers):
        target.removeHandler(former)
    target.addHandler(handler)
    target.setLevel(level)
    return handler


def _message(record: logging.LogRecord) -> str:
    """Return the message with its arguments, of which bytes are only counted."""
    arguments = record.args
    if not arguments:
        return str(record.msg)
    safe: object = (
        {name: _hidden(value) for name, value in arguments.items()}
        if isinstance(arguments, Mapping)
        else tuple(map(_hidden, arguments))
    )
    try:
        return str(record.msg) % safe
    except (TypeError, ValueError, KeyError):
        # A wrong log statement must not cost the line, nor what it meant to say.
        return f"{record.msg} {safe}"


def _hidden(value: object) -> object:
    is_bytes = isinstance(value, bytes | bytearray | memoryview)
    return f"<{len(value)} bytes>" if is_bytes else value  # type: ignore[arg-type]  # is sized then


def _extra(record: logging.LogRecord) -> Iterator[tuple[str, Json]]:
    for name, value in vars(record).items():
        if name not in _OWN:
            yield (f"{name}_" if name in _FIXED else name), _plain(value, _DEPTH)


def _plain(value: object, depth: int) -> Json:
    """Return what JSON has for ``value``; texts are cut, and what is nested deep becomes text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Secret):
        return repr(value)
    if depth and isinstance(value, Mapping):
        return {
            _cut(str(_hidden(name))): _plain(item, depth - 1)
            for name, item in list(value.items())[:_ITEMS]
        }
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth - 1) for item in list(value)[:_ITEMS]]
    return _cut(str(_hidden(value)) if depth else type(value).__name__)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}…"
