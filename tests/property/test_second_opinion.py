"""A second, independent verifier: what sevkit accepts, ``cryptography``'s path validation accepts.

Not the other way round: it knows nothing of AMD's names, keys and extensions, and looks at no
revocation list. AMD's own certificates write out the default trailer field of RSASSA-PSS, which it
forbids, so its opinion is asked of simulated ones; of AMD's only who issued what.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)
from hypothesis import event, given, settings
from hypothesis import strategies as st

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.vek import VekKind
from sevkit.attest.chain import TrustedRoots, verify_chain, verify_vek
from sevkit.attest.checks import SNP_REPORT
from sevkit.attest.verdict import Ledger
from sevkit.attest.x509 import parse_certificate
from sevkit.errors import SevkitError
from sevkit.kds.roots import snp_chain
from sevkit.testing.snp_chain import EPOCH, GOOD, YEAR, SigningSpec, SimulatedRoots
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from pathlib import Path

AT: Final = datetime(2026, 6, 1, tzinfo=UTC)
CHIP: Final = SimulatedChip(SimulatedRoots(ProductLine.MILAN), Product.MILAN)


def ours(leaf: bytes, intermediate: bytes, root: bytes, at: datetime = AT) -> bool:
    trusted = TrustedRoots(frozenset(), frozenset({hashlib.sha256(root).digest()}))
    ledger = Ledger(SNP_REPORT)
    try:
        parsed = [parse_certificate(der) for der in (leaf, intermediate, root)]
        chain = verify_chain(parsed[1], parsed[2], at=at, roots=trusted, ledger=ledger)
        verify_vek(chain, parsed[0], ledger=ledger)
    except SevkitError:
        return False
    return True


def theirs(leaf: bytes, intermediate: bytes, root: bytes, at: datetime = AT) -> bool:
    cas = ExtensionPolicy.permit_all().require_present(
        x509.BasicConstraints, Criticality.AGNOSTIC, None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parsed = [x509.load_der_x509_certificate(der) for der in (leaf, intermediate, root)]
            verifier = (
                PolicyBuilder()
                .store(Store([parsed[2]]))
                .time(at)
                .extension_policies(ca_policy=cas, ee_policy=ExtensionPolicy.permit_all())
                .build_client_verifier()
            )
            verifier.verify(parsed[0], [parsed[1]])
        except (VerificationError, ValueError):
            return False
    return True


def test_both_accept_a_good_chain_of_either_kind() -> None:
    roots = CHIP.roots
    vlek = SimulatedChip(roots, Product.MILAN, VekKind.VLEK)
    for leaf, intermediate in ((CHIP.vek(), roots.ask), (vlek.vek(), roots.asvk)):
        assert ours(leaf, intermediate, roots.ark, AT)
        assert theirs(leaf, intermediate, roots.ark, AT)


@pytest.mark.parametrize(("name", "line"), [("milan", "Milan"), ("turin", "Turin")])
def test_both_say_who_issued_amds_own_certificates(vectors: Path, name: str, line: str) -> None:
    vek = (vectors / f"sev-crate/vcek_{name}.der").read_bytes()
    intermediate, root = snp_chain(ProductLine(line), vlek=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        leaf, ask, ark = map(x509.load_der_x509_certificate, (vek, intermediate, root))
    for issued, issuer in ((leaf, ask), (ask, ark), (ark, ark)):
        issued.verify_directly_issued_by(issuer)
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    second = timedelta(seconds=1)
    for at, inside in (
        (start - second, False),
        (start, True),
        (end, True),
        (end + second, False),
    ):
        assert ours(vek, intermediate, root, at) is inside


def test_no_order_of_the_certificates_is_accepted_but_the_right_one() -> None:
    roots = CHIP.roots
    everyone = (CHIP.vek(), roots.ask, roots.asvk, roots.ark)
    for leaf, intermediate, root in itertools.product(everyone, repeat=3):
        right = (leaf, intermediate, root) == (CHIP.vek(), roots.ask, roots.ark)
        assert ours(leaf, intermediate, root) is right
        assert theirs(leaf, intermediate, root) or not right


SPECS: Final = st.builds(
    SigningSpec,
    not_before=st.sampled_from([EPOCH] * 3 + [EPOCH - 40 * YEAR, EPOCH + YEAR, EPOCH + 3 * YEAR]),
    not_after=st.sampled_from([EPOCH + 20 * YEAR] * 3 + [EPOCH + 4 * YEAR, EPOCH + 3.5 * YEAR]),
    hash_algorithm=st.sampled_from([hashes.SHA384()] * 4 + [hashes.SHA256()]),
    salt=st.sampled_from([48] * 5 + [32, 0]),
    ca=st.sampled_from([True] * 5 + [False, None]),
    serial=st.integers(1, 2**64),
)


@settings(max_examples=80)
@given(odd=SPECS, which=st.integers(0, 2), years=st.integers(0, 8))
def test_what_we_accept_is_a_valid_path(odd: SigningSpec, which: int, years: int) -> None:
    roots, at = CHIP.roots, EPOCH + years * YEAR
    ark, ask, leaf = (odd if which == place else GOOD for place in range(3))
    vek = roots.make_vek(
        VekKind.VCEK, CHIP.key.public_key(), CHIP.extensions(), spec=replace(leaf, ca=None)
    )
    intermediate, root = roots.make_intermediate(VekKind.VCEK, ask), roots.make_ark(ark)
    accepted = ours(vek, intermediate, root, at)
    event(f"accepted: {accepted}")
    if accepted:
        assert theirs(vek, intermediate, root, at)


@settings(max_examples=100)
@given(data=st.data())
def test_no_change_of_one_byte_is_accepted(data: st.DataObject) -> None:
    roots = CHIP.roots
    trio = [CHIP.vek(), roots.ask, roots.ark]
    which = data.draw(st.integers(0, 1))
    changed = bytearray(trio[which])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    trio[which] = bytes(changed)
    assert not ours(trio[0], trio[1], trio[2])
