from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.abi.sevfile import split_certificates
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

PARTS = ("pdh", "pek", "oca", "cek")


@pytest.fixture(scope="module")
def naples(vectors: Path) -> bytes:
    return b"".join((vectors / f"sev-crate/naples/{name}.cert").read_bytes() for name in PARTS)


def test_a_whole_export_is_split_by_role(naples: bytes) -> None:
    assert [c.usage.name for c in split_certificates(naples)] == ["PDH", "PEK", "OCA", "CEK"]


def test_an_ark_without_its_signature_is_read(vectors: Path, naples: bytes) -> None:
    bad = (vectors / "sev-crate/naples/ark.cert.bad").read_bytes()
    assert [c.usage.name for c in split_certificates(naples[:2084] + bad)] == ["PDH", "ARK"]


@pytest.mark.parametrize("defect", ["empty", "one byte", "cut", "a byte more", "too many", "zeros"])
def test_anything_else_is_refused(naples: bytes, defect: str) -> None:
    data = {
        "empty": b"",
        "one byte": b"\1",
        "cut": naples[:-1],
        "a byte more": naples + b"\0",
        "too many": naples * 5,
        "zeros": bytes(2084),
    }[defect]
    with pytest.raises(FormatError):
        split_certificates(data)
