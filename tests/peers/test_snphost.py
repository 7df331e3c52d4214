"""Certificate tables that virtee's snphost writes are read by us, and ours by it.

Its verdict on a chain is not compared: ``snphost verify certs`` answers 0 whatever it finds, which
the last test shows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.certtable import (
    ARK,
    ASK,
    VCEK,
    VLEK,
    encode_cert_table,
    parse_cert_table,
)
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.vek import VekKind
from sevkit.attest.container import find_report
from sevkit.attest.expectations import ANY, Expectations
from sevkit.attest.snp import Trust, judge_report, pinned_roots
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from subprocess import CompletedProcess

    from sevkit.testing.snp_chain import SimulatedRoots

    Ask = Callable[..., CompletedProcess[bytes]]

FILES: Final = {"ark": ARK, "ask": ASK, "vcek": VCEK, "vlek": VLEK}


@pytest.fixture(scope="module")
def snphost(find_program: Callable[[str, str], Path]) -> Path:
    return find_program("snphost", "snphost")


@pytest.fixture(scope="module", params=list(VekKind))
def chip(
    request: pytest.FixtureRequest, roots_of: Mapping[ProductLine, SimulatedRoots]
) -> SimulatedChip:
    return SimulatedChip(roots_of[ProductLine.MILAN], Product.MILAN, request.param)


def certificates(chip: SimulatedChip) -> dict[str, bytes]:
    """Return the chain by the names that its files have there; it knows an ASVK as an ASK."""
    vlek = chip.kind is VekKind.VLEK
    return {
        "ark": chip.roots.ark,
        "ask": chip.roots.asvk if vlek else chip.roots.ask,
        "vlek" if vlek else "vcek": chip.vek(),
    }


@pytest.mark.parametrize("encoding", ["pem", "der"])
def test_its_tables_are_read(
    ask: Ask, snphost: Path, chip: SimulatedChip, tmp_path: Path, encoding: str
) -> None:
    given: dict[uuid.UUID, bytes] = {}
    folder = tmp_path / "certs"
    folder.mkdir()
    for name, der in certificates(chip).items():
        data = der if encoding == "der" else encode_pem_certificate(der)
        (folder / f"{name}.{encoding}").write_bytes(data)
        given[FILES[name]] = data
    done = ask(snphost, "import", folder, tmp_path / "table.bin")
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "table.bin").read_bytes()
    assert parse_cert_table(table) == given

    chain = b"".join(
        encode_pem_certificate(der) for der in list(certificates(chip).values())[1::-1]
    )
    trust = Trust(datetime.now(UTC), pinned_roots(chip.roots.ark), chain=chain)
    verdict = judge_report(
        find_report(chip.report(3) + table),
        Expectations(report_data=ANY, measurements=ANY),
        trust,
    )
    assert verdict.accepted


def test_it_reads_our_tables(ask: Ask, snphost: Path, chip: SimulatedChip, tmp_path: Path) -> None:
    given = certificates(chip)
    table = encode_cert_table({FILES[name]: der for name, der in given.items()})
    (tmp_path / "table.bin").write_bytes(table)
    done = ask(snphost, "export", "der", tmp_path / "table.bin", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = {path.stem: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert found == given


def test_it_answers_0_also_for_a_chain_that_does_not_verify(
    ask: Ask, snphost: Path, roots_of: Mapping[ProductLine, SimulatedRoots], tmp_path: Path
) -> None:
    chip = SimulatedChip(roots_of[ProductLine.MILAN], Product.MILAN)
    vek = chip.roots.make_vek(
        VekKind.VCEK, chip.key.public_key(), chip.extensions(), signer=chip.roots.asvk_key
    )
    for name, der in (certificates(chip) | {"vcek": vek}).items():
        (tmp_path / f"{name}.pem").write_bytes(encode_pem_certificate(der))
    done = ask(snphost, "verify", "certs", tmp_path)
    assert done.returncode == 0
