"""Thousands of changed SNP reports: none is accepted but the one that was signed."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import SIGNED_SIZE
from sevkit.attest.chain import TrustedRoots, VerifiedVek, verify_chain, verify_vek
from sevkit.attest.checks import SNP_REPORT
from sevkit.attest.verdict import Ledger
from sevkit.attest.verify import verify_report
from sevkit.attest.x509 import parse_certificate
from sevkit.errors import SevkitError
from sevkit.testing.snp_chain import SimulatedRoots
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from collections.abc import Callable

    from hack.load import Load
FULL: Final = 20_000
SEED: Final = 56860
AT: Final = datetime(2026, 6, 1, tzinfo=UTC)
PRODUCTS: Final = (Product.MILAN, Product.GENOA, Product.TURIN)
VERSIONS: Final = (2, 3, 5)


def vek_of(chip: SimulatedChip) -> VerifiedVek:
    ark = parse_certificate(chip.roots.ark)
    trusted = TrustedRoots(frozenset(), frozenset({hashlib.sha256(ark.der).digest()}))
    ledger = Ledger(SNP_REPORT)
    ask = parse_certificate(chip.roots.ask)
    chain = verify_chain(ask, ark, at=AT, roots=trusted, ledger=ledger)
    return verify_vek(chain, parse_certificate(chip.vek()), ledger=ledger)


def change(good: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Return a report that differs from ``good`` as an attacker's, or a broken wire's, would."""
    data = bytearray(good)
    manner = chance.randrange(7)
    if manner == 0:  # one bit
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif manner == 1:  # a few bytes
        for _ in range(chance.randrange(1, 9)):
            data[chance.randrange(len(data))] = chance.randrange(256)
    elif manner == 2:  # a field's worth, of another place of the same report
        size, start, end = (chance.randrange(1, 64) for _ in range(3))
        start, end = start * 16, end * 16
        data[end : end + size] = data[start : start + size]
    elif manner == 3:  # the body of one and the signature of another
        other = chance.choice(others)
        data[:SIGNED_SIZE] = other[:SIGNED_SIZE]
    elif manner == 4:  # the signed part is whole, what follows is not
        data[chance.randrange(SIGNED_SIZE, len(data))] = chance.randrange(256)
    elif manner == 5:  # too short or too long
        size = chance.randrange(len(data) + 64)
        data = data[:size].ljust(size, b"\0")
    else:  # any bytes where the signature is
        data[SIGNED_SIZE : SIGNED_SIZE + 144] = chance.randbytes(144)
    return bytes(data)


def test_no_changed_report_is_accepted(soak: Callable[[int], int], load: Load) -> None:
    chance = random.Random(SEED)  # noqa: S311  # the same ones each time
    veks = {}
    reports = []
    for product in PRODUCTS:
        chip = SimulatedChip(SimulatedRoots(ProductLine(product.line)), product)
        vek = vek_of(chip)
        for version in VERSIONS:
            reports.append(chip.report(version, report_data=chance.randbytes(64)))
            veks[reports[-1]] = vek
    for report in reports:
        verify_report(report, veks[report], ledger=Ledger(SNP_REPORT))
    outcomes: Counter[str] = Counter()

    def judge(row: tuple[bytes, bytes]) -> None:
        good, changed = row
        # The other reports are genuine too, under a VEK of their own and under no other.
        genuine = changed == good or veks.get(changed) is veks[good]
        try:
            verify_report(changed, veks[good], ledger=Ledger(SNP_REPORT))
        except SevkitError as error:
            if genuine:
                raise
            outcomes[type(error).__name__] += 1
        else:
            assert genuine
            outcomes["genuine"] += 1

    def rows() -> list[tuple[bytes, bytes]]:
        chosen = (chance.choice(reports) for _ in range(soak(FULL)))
        return [(good, change(good, reports, chance)) for good in chosen]

    tried = rows()
    load.run("changed reports refused", 1, judge, tried)
    assert sum(outcomes.values()) == len(tried)
    assert outcomes["SignatureMismatch"] > len(tried) // 10
    assert outcomes["genuine"] < len(tried) // 10
