"""Chains of a real Naples and a real Rome platform, under AMD's pinned roots."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.product import ProductLine
from sevkit.abi.sevca import parse_ca_certificate
from sevkit.abi.sevchain import PlatformChain, parse_chain_export
from sevkit.attest.sev_platform import PlatformExpectations, judge_platform
from sevkit.attest.verdict import Outcome
from sevkit.cli.main import main
from sevkit.kds.roots import sev_ca

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2026, 11, 23, tzinfo=UTC)


def export(vectors: Path, line: str) -> bytes:
    folder = vectors / "sev-crate" / line
    return b"".join((folder / f"{n}.cert").read_bytes() for n in ("pdh", "pek", "oca", "cek"))


def read(vectors: Path, line: str) -> PlatformChain:
    return parse_chain_export(export(vectors, line))[0]


@pytest.mark.parametrize("line", [ProductLine.NAPLES, ProductLine.ROME])
def test_a_real_chain_finds_its_own_roots_and_verifies(vectors: Path, line: ProductLine) -> None:
    verdict, platform = judge_platform(read(vectors, line.lower()), PlatformExpectations(), at=AT)
    assert platform is not None
    assert (verdict.exit_code, platform.line) == (0, line)
    made = [
        f.outcome for f in verdict.findings if f.check not in {"platform.chip", "platform.owner"}
    ]
    assert set(made) == {Outcome.PASS}


@pytest.mark.parametrize("line", ["naples", "rome"])
def test_a_real_chain_verifies_from_the_command_line(
    vectors: Path, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sev.chain"
    path.write_bytes(export(vectors, line))
    assert main(["attest", "platform", "--chain", str(path)]) == 0
    assert "accepted" in capsys.readouterr().out
    folder = vectors / "sev-crate" / line
    parts = [f"--{n}={folder / n}.cert" for n in ("pdh", "pek", "oca", "cek")]
    assert main(["attest", "platform", *parts]) == 0


@pytest.mark.parametrize("role", ["pdh", "pek", "oca", "cek"])
def test_two_real_platforms_do_not_mix(vectors: Path, role: str) -> None:
    naples, rome = read(vectors, "naples"), read(vectors, "rome")
    mixed = replace(naples, **{role: getattr(rome, role)})
    verdict, platform = judge_platform(mixed, PlatformExpectations(), at=AT)
    assert (verdict.exit_code, platform) == (1, None)


def test_amds_broken_naples_ark_is_the_pinned_one_but_for_the_signature(vectors: Path) -> None:
    folder = vectors / "sev-crate" / "naples"
    broken = (folder / "ark.cert.bad").read_bytes()
    _, ark = sev_ca(ProductLine.NAPLES)
    assert broken + (folder / "ark.cert.sig").read_bytes() == ark
    assert parse_ca_certificate(broken).signature == b""


def test_amds_broken_naples_ark_is_accepted_from_the_command_line(
    vectors: Path, tmp_path: Path
) -> None:
    chain, ca = tmp_path / "sev.chain", tmp_path / "ask_ark"
    chain.write_bytes(export(vectors, "naples"))
    broken = (vectors / "sev-crate" / "naples" / "ark.cert.bad").read_bytes()
    ask = sev_ca(ProductLine.NAPLES)[0]
    ca.write_bytes(ask + broken)
    assert main(["attest", "platform", "--chain", str(chain), "--ca", str(ca)]) == 0
    ca.write_bytes(ask + broken[:-1] + bytes([broken[-1] ^ 0x40]))
    assert main(["attest", "platform", "--chain", str(chain), "--ca", str(ca)]) == 1
