from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.errors import HostReadError
from sevkit.observe.log import TEXT_LIMIT, JsonFormatter, log_as_json
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = b"thirty-two bytes of key material"


def record(text: object, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "sevkit.test", "levelname": "INFO", "msg": text, "args": arguments, **extra}
    )
    made.created = 1764072000.1239
    return made


def written(text: object, *arguments: object, **extra: object) -> dict[str, Any]:
    line = JsonFormatter().format(record(text, *arguments, **extra))
    assert line.isascii()
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_has_time_level_logger_message_and_what_came_with_it() -> None:
    assert written("published %d keys", 7, node="n1", tiers={"sev": True, "sev-es": None}) == {
        "time": "2025-11-25T12:00:00.123Z",
        "level": "info",
        "logger": "sevkit.test",
        "message": "published 7 keys",
        "node": "n1",
        "tiers": {"sev": True, "sev-es": None},
    }


def test_line_breaks_and_other_scripts_stay_in_one_ascii_line() -> None:
    text = "a\nb\u2028c\r\x1b[31m ü \udc80"
    assert written(text)["message"] == text


def error_info(fail: Callable[[], object]) -> tuple[object, ...]:
    """Return what logging has of an error while it is handled."""
    with contextlib.suppress(HostReadError, ZeroDivisionError):
        try:
            fail()
        finally:
            info = sys.exc_info()
    return info


def no_access() -> None:
    raise HostReadError("no access", hint="be root")


def test_an_error_of_ours_gives_its_hint_and_no_trace() -> None:
    found = written("probe", exc_info=error_info(no_access))
    assert found["error"] == "HostReadError: no access"
    assert found["hint"] == "be root"
    assert "trace" not in found


def test_a_bug_gives_its_trace() -> None:
    found = written("probe", exc_info=error_info(lambda: 1 // 0))
    assert found["error"] == "ZeroDivisionError: integer division or modulo by zero"
    assert "test_log.py" in found["trace"]


@pytest.mark.parametrize(
    "value",
    [
        KEY,
        bytearray(KEY),
        memoryview(KEY),
        Secret(KEY),
        [Secret(KEY), KEY],
        {"tik": Secret(KEY)},
        {KEY: 1},
        {"a": {"b": (KEY, {"c": Secret(KEY)})}},
    ],
    ids=lambda value: type(value).__name__,
)
def test_key_material_is_never_written(value: object) -> None:
    line = json.dumps(written("text", key=value))
    assert "thirty" not in line
    assert "74686972" not in line
    assert "32 bytes" in line


@pytest.mark.parametrize(
    "value",
    [KEY, bytearray(KEY), memoryview(KEY), Secret(KEY)],
    ids=lambda value: type(value).__name__,
)
def test_key_material_is_never_formatted_into_a_message(value: object) -> None:
    assert "32 bytes" in written("tik %s", value)["message"]
    assert "thirty" not in written("tik %r", value)["message"]


def test_bytes_in_named_arguments_are_counted_too() -> None:
    made = logging.LogRecord("n", logging.INFO, "", 0, "%(key)s", ({"key": KEY},), None)
    assert json.loads(JsonFormatter().format(made))["message"] == "<32 bytes>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("x",), "no place ('x',)"), ((1, 2), "no place (1, 2)")],
)
def test_a_wrong_log_statement_costs_no_line(arguments: tuple[object, ...], message: str) -> None:
    assert written("no place", *arguments)["message"] == message


def test_a_name_that_is_taken_gets_an_underscore() -> None:
    found = written("text", level="loud", hint="h")
    assert found["level"] == "info"
    assert found["level_"] == "loud"
    assert found["hint_"] == "h"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (math.nan, "nan"),
        (math.inf, "inf"),
        (0.5, 0.5),
        (Path("/dev/sev"), "/dev/sev"),
        ([[[[[[1]]]]]], [[[["list"]]]]),
        (list(range(1000)), list(range(100))),
        ("x" * (TEXT_LIMIT + 1), "x" * TEXT_LIMIT + "…"),
        ({1: 2}, {"1": 2}),
    ],
    ids=["nan", "inf", "float", "path", "deep", "many", "long", "number as key"],
)
def test_any_value_becomes_json_of_bounded_size(value: object, plain: object) -> None:
    assert written("text", value=value)["value"] == plain


def test_a_long_message_is_cut() -> None:
    assert len(written("x" * 10**6)["message"]) == TEXT_LIMIT + 1


@pytest.fixture
def logger() -> logging.Logger:
    made = logging.Logger("alone")  # noqa: LOG001  # not in the tree of loggers, which is global
    made.addHandler(logging.StreamHandler(io.StringIO()))
    return made


def test_a_logger_writes_json_and_nothing_else(logger: logging.Logger) -> None:
    stream = io.StringIO()
    handler = log_as_json(stream, logger=logger)
    assert logger.handlers == [handler]
    say: Callable[..., None] = logger.info
    say("one", extra={"n": 1})
    logger.debug("not shown")
    logger.warning("two")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("info", "one"),
        ("warning", "two"),
    ]
