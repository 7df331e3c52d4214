from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from sevkit.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

BLOB = bytes(range(128))


def inspect(path: Path, *more: str) -> int:
    return main(["inspect", "session", str(path), *more])


@pytest.mark.parametrize("data", [BLOB, base64.b64encode(BLOB), base64.b64encode(BLOB) + b"\n"])
def test_a_session_is_shown_from_bytes_and_base64(
    tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "session"
    path.write_bytes(data)
    assert inspect(path) == 0
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert shown["nonce"] == BLOB[:16].hex()
    assert "".join(shown.values()) == BLOB.hex()
    assert inspect(path, "--output=json") == 0
    assert json.loads(capsys.readouterr().out)["fields"] == shown


@pytest.mark.parametrize(
    "data",
    [b"", BLOB[:-1], BLOB + b"\0", base64.b64encode(BLOB[:-1]), b"*" * 172, b"\xff" * 172],
)
def test_what_is_no_session_is_malformed(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "session"
    path.write_bytes(data)
    assert inspect(path) == 65


def test_a_missing_file_is_usage(tmp_path: Path) -> None:
    assert inspect(tmp_path / "missing") == 2
