"""What go-sev-guest reads in reports, and which it accepts, against ours.

``show`` prints every field as a protobuf, ``check`` verifies and validates. What it errs in is
tested as such, so that the day it stops is noticed. It accepts no report of Turin, whose VCEKs have
8 bytes of hardware ID and no SPL_4; from version 3 on none of Bergamo or Siena; and none of version
2 under a VCEK of Genoa, because it expects a stepping in the product name. Where it looks at the
platform information at all, it takes bit 6, which real Turin reports have set, for malformed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from sevkit.abi.certtable import VCEK, VLEK, encode_cert_table
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import parse_report
from sevkit.abi.signature import encode_signature
from sevkit.abi.tcb import TcbVersion, encode_tcb
from sevkit.abi.vek import VekKind
from sevkit.attest.container import find_report
from sevkit.attest.expectations import ANY, Expectations, ExpectedMeasurement
from sevkit.attest.snp import Trust, judge_report, pinned_roots
from sevkit.errors import SevkitError
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.measure.vcpu import signature_of
from sevkit.testing.snp_chain import EPOCH, YEAR, SigningSpec
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from subprocess import CompletedProcess

    from sevkit.testing.snp_chain import SimulatedRoots

    Ask = Callable[..., CompletedProcess[bytes]]

#: Exit codes of ``check`` and of ours that mean the same.
GOOD: Final = (0, 0)
MALFORMED: Final = (1, 65)
FORGED: Final = (2, 1)
UNACCEPTABLE: Final = (5, 3)
UNKNOWN_TO_IT: Final = (2, 0)
#: It validates what we verify: whether the certificate is this chip's, and for this TCB.
NOT_ITS_CERTIFICATE: Final = (5, 1)

PRODUCTS: Final = [product for product in Product if product.line.snp]
SMT: Final = 0x30000
DATA: Final = bytes(range(64))
DIGEST: Final = bytes(range(100, 148))
EXPECTED: Final = Expectations(report_data=DATA, measurements=(ExpectedMeasurement(DIGEST),))

#: Numbers of the fields in its message of a report, in their order there.
FIELDS: Final = (
    *("version", "guest_svn", "policy", "family_id", "image_id", "vmpl", "signature_algo"),
    *("current_tcb", "platform_info", "signer_info", "report_data", "measurement", "host_data"),
    *("id_key_digest", "author_key_digest", "report_id", "report_id_ma", "reported_tcb"),
    *("chip_id", "committed_tcb", "current_build", "current_minor", "current_major"),
    *("committed_build", "committed_minor", "committed_major", "launch_tcb", "signature"),
    *("cpuid1eax_fms", "launch_mit_vector", "current_mit_vector"),
)


@pytest.fixture(scope="module")
def show(find_program: Callable[[str, str], Path]) -> Path:
    return find_program("go-sev-guest", "show")


@pytest.fixture(scope="module")
def check(find_program: Callable[[str, str], Path]) -> Path:
    return find_program("go-sev-guest", "check")


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def read_message(data: bytes) -> dict[int, int | bytes]:
    """Return the fields of a protobuf message by number: numbers and byte strings only."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        value, at = varint(data, at)
        assert tag & 7 in {0, 2}
        if tag & 7 == 2:
            found[tag >> 3], at = data[at : at + value], at + value
        else:
            found[tag >> 3] = value
    return found


def ours(data: bytes) -> dict[str, int | bytes]:
    """Return what we read, by its names; zero numbers and empty strings are left out, as there."""
    report = parse_report(data)
    key, now, then = report.key_info, report.current_version, report.committed_version
    values: dict[str, int | bytes] = {
        name: value
        for name in FIELDS
        if isinstance(value := getattr(report, name, None), int | bytes)
    }
    values |= {
        "signature_algo": 1,
        "current_tcb": report.current_tcb_raw,
        "reported_tcb": report.reported_tcb_raw,
        "committed_tcb": report.committed_tcb_raw,
        "launch_tcb": report.launch_tcb_raw,
        "signer_info": key.author_key_en | key.mask_chip_key << 1 | key.signing_key << 2,
        "current_build": now.build,
        "current_minor": now.minor,
        "current_major": now.major,
        "committed_build": then.build,
        "committed_minor": then.minor,
        "committed_major": then.major,
        "signature": encode_signature(report.signature),
        "cpuid1eax_fms": signature_of(*report.cpuid_fms) if report.cpuid_fms else 0,
    }
    assert set(values) <= set(FIELDS)
    return {name: value for name, value in values.items() if value}


def theirs(ask: Ask, show: Path, data: bytes) -> dict[str, int | bytes]:
    done = ask(show, "-in", "-", "-outform", "proto", data=data)
    assert done.returncode == 0, done.stderr
    report = read_message(done.stdout)[1]
    assert isinstance(report, bytes)
    return {FIELDS[n - 1]: value for n, value in read_message(report).items() if value}


def random_report(chip: SimulatedChip, version: int, rng: random.Random) -> bytes:
    """Return a report with a value of its own in every field that may have any."""
    values: dict[str, Any] = {
        name: encode_tcb(chip.line, replace(chip.tcb, microcode=rng.randrange(256)))
        for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb")
    }
    sizes = {"family_id": 16, "image_id": 16, "host_data": 32, "report_id": 32, "report_id_ma": 32}
    sizes |= {"report_data": 64, "measurement": 48, "id_key_digest": 48, "author_key_digest": 48}
    words = {f"{when}_{part}": 8 for when in ("current", "committed") for part in PARTS}
    words |= {"guest_svn": 32, "platform_info": 64}
    if version >= 5:
        words |= {"launch_mit_vector": 64, "current_mit_vector": 64}
    values |= {name: rng.randbytes(size) for name, size in sizes.items()}
    values |= {name: rng.randrange(1 << bits) for name, bits in words.items()}
    return chip.report(
        version,
        vmpl=rng.choice([0, 1, 2, 3, 0xFFFFFFFF]),
        key_info=rng.randrange(4) | (4 if chip.kind is VekKind.VLEK else 0),
        policy=1 << 17 | (rng.randrange(1 << 26) & ~(1 << 17)),
        **values,
    )


PARTS: Final = ("build", "minor", "major")


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("product", PRODUCTS)
def test_every_field_is_read_alike(
    ask: Ask,
    show: Path,
    roots_of: Mapping[ProductLine, SimulatedRoots],
    product: Product,
    version: int,
) -> None:
    rng = random.Random(f"{product}{version}")  # noqa: S311  # it makes test data, no keys
    for kind in VekKind:
        chip = SimulatedChip(roots_of[product.line], product, kind)
        for data in (chip.report(version), random_report(chip, version, rng)):
            assert theirs(ask, show, data) == ours(data)


@pytest.mark.parametrize("name", ["go-sev-guest/attestation.bin", "sev-crate/report_milan.hex"])
def test_every_field_of_a_real_report_is_read_alike(
    ask: Ask, show: Path, vectors: Path, name: str
) -> None:
    data = find_report((vectors / name).read_bytes()).report
    assert theirs(ask, show, data) == ours(data)


def with_certificate(chip: SimulatedChip, report: bytes, vek: bytes | None = None) -> bytes:
    """Return an extended report: with the host's certificate table behind it."""
    guid = VCEK if chip.kind is VekKind.VCEK else VLEK
    return report + encode_cert_table({guid: vek or chip.vek()})


def bundle(roots: SimulatedRoots, kind: VekKind = VekKind.VCEK) -> bytes:
    intermediate = roots.ask if kind is VekKind.VCEK else roots.asvk
    return encode_pem_certificate(intermediate) + encode_pem_certificate(roots.ark)


class Judges:
    """Asks both about one extended report."""

    def __init__(self, ask: Ask, check: Path, folder: Path) -> None:
        self._ask, self._check, self._folder = ask, check, folder

    def __call__(
        self,
        data: bytes,
        roots: SimulatedRoots,
        *words: str,
        expected: Expectations = EXPECTED,
        kind: VekKind = VekKind.VCEK,
    ) -> tuple[int, int]:
        """Return the exit codes of ``check`` and of ours."""
        path = self._folder / "ca.pem"
        path.write_bytes(bundle(roots, kind))
        said = [f"-product_key_path={path}", f"-product={roots.line}", "-network=false"]
        said += [f"-guest_policy={SMT:#x}", "-vmpl=0", f"-report_data={DATA.hex()}"]
        said += [f"-measurement={DIGEST.hex()}", *words]
        done = self._ask(self._check, "-in", "-", *said, data=data)
        assert done.returncode in range(6), done.stderr
        trust = Trust(datetime.now(UTC), pinned_roots(roots.ark), chain=bundle(roots, kind))
        try:
            return done.returncode, judge_report(find_report(data), expected, trust).exit_code
        except SevkitError as error:
            return done.returncode, error.exit_code


@pytest.fixture
def judges(ask: Ask, check: Path, tmp_path: Path) -> Judges:
    return Judges(ask, check, tmp_path)


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", list(VekKind))
@pytest.mark.parametrize("product", [Product.MILAN, Product.GENOA])
def test_good_reports_are_accepted_by_both(
    judges: Judges,
    roots_of: Mapping[ProductLine, SimulatedRoots],
    product: Product,
    kind: VekKind,
    version: int,
) -> None:
    chip = SimulatedChip(roots_of[product.line], product, kind)
    data = with_certificate(chip, chip.report(version))
    nameless = chip.line is ProductLine.GENOA and kind is VekKind.VCEK and version == 2
    assert judges(data, chip.roots, kind=kind) == (UNKNOWN_TO_IT if nameless else GOOD)


@dataclass(frozen=True)
class Case:
    """What is changed before signing, what the words say, and what both answer."""

    codes: tuple[int, int]
    changed: dict[str, int | bytes] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    expected: Expectations = EXPECTED
    patches: dict[int, bytes] = field(default_factory=dict)


LOWER: Final = encode_tcb(ProductLine.MILAN, TcbVersion(9, 0, 22, 213))
HIGHER: Final = encode_tcb(ProductLine.MILAN, TcbVersion(9, 0, 24, 213))
KEY: Final = bytes(range(48))
OTHER: Final = bytes(48)
TRUSTED: Final = ("-require_idblock=true", f"-trusted_id_key_hashes={KEY.hex()}")
AUTHOR: Final = ("-require_author_key=true", f"-trusted_author_key_hashes={KEY.hex()}")

CASES: Final = {
    "as expected": Case(GOOD),
    "any report data": Case(
        GOOD, {"report_data": bytes(64)}, ("-report_data=",), replace(EXPECTED, report_data=ANY)
    ),
    "other report data": Case(UNACCEPTABLE, {"report_data": DATA[::-1]}),
    "other measurement": Case(UNACCEPTABLE, {"measurement": DIGEST[::-1]}),
    "host data": Case(
        GOOD,
        {"host_data": KEY[:32]},
        (f"-host_data={KEY[:32].hex()}",),
        replace(EXPECTED, host_data=KEY[:32]),
    ),
    "other host data": Case(
        UNACCEPTABLE, {}, (f"-host_data={KEY[:32].hex()}",), replace(EXPECTED, host_data=KEY[:32])
    ),
    "other family": Case(
        UNACCEPTABLE, {}, (f"-family_id={KEY[:16].hex()}",), replace(EXPECTED, family_id=KEY[:16])
    ),
    "other image": Case(
        UNACCEPTABLE, {}, (f"-image_id={KEY[:16].hex()}",), replace(EXPECTED, image_id=KEY[:16])
    ),
    "debug": Case(UNACCEPTABLE, {"policy": SMT | 1 << 19}),
    "debug is allowed": Case(
        GOOD,
        {"policy": SMT | 1 << 19},
        (f"-guest_policy={SMT | 1 << 19:#x}",),
        replace(EXPECTED, allow_debug=True),
    ),
    "migration agent": Case(UNACCEPTABLE, {"policy": SMT | 1 << 18}),
    "migration agent is allowed": Case(
        GOOD,
        {"policy": SMT | 1 << 18},
        (f"-guest_policy={SMT | 1 << 18:#x}",),
        replace(EXPECTED, allow_migration_agent=True),
    ),
    "several sockets": Case(
        UNACCEPTABLE,
        {},
        (f"-guest_policy={SMT | 1 << 20:#x}",),
        replace(EXPECTED, require_single_socket=True),
    ),
    "VMPL 1": Case(UNACCEPTABLE, {"vmpl": 1}),
    "VMPL 1 as expected": Case(GOOD, {"vmpl": 1}, ("-vmpl=1",), replace(EXPECTED, vmpl=1)),
    "reported TCB is not the certificate's": Case(NOT_ITS_CERTIFICATE, {"reported_tcb": LOWER}),
    "committed TCB is above the current one": Case(UNACCEPTABLE, {"committed_tcb": HIGHER}),
    "TCB below the minimum": Case(
        UNACCEPTABLE,
        {},
        (f"-minimum_tcb={HIGHER}",),
        replace(EXPECTED, minimum_tcb={"snp": 24, "bootloader": 9, "tee": 0, "microcode": 213}),
    ),
    "TCB at the minimum": Case(
        GOOD, {}, (f"-minimum_tcb={LOWER}",), replace(EXPECTED, minimum_tcb={"snp": 22})
    ),
    "another chip": Case(NOT_ITS_CERTIFICATE, {"chip_id": bytes(range(2, 66))}),
    "masked chip": Case(GOOD, {"chip_id": bytes(64)}),
    "ID key": Case(GOOD, {"id_key_digest": KEY}, TRUSTED, replace(EXPECTED, id_key_digest=KEY)),
    "other ID key": Case(
        UNACCEPTABLE, {"id_key_digest": OTHER}, TRUSTED, replace(EXPECTED, id_key_digest=KEY)
    ),
    "author key": Case(
        GOOD,
        {"author_key_digest": KEY, "key_info": 1},
        AUTHOR,
        replace(EXPECTED, author_key_digest=KEY),
    ),
    "other author key": Case(
        UNACCEPTABLE,
        {"author_key_digest": OTHER, "key_info": 1},
        AUTHOR,
        replace(EXPECTED, author_key_digest=KEY),
    ),
    # No firmware gives the digest of an author key without saying that there is one.
    "an author key that is not announced": Case(
        (5, 0), {"author_key_digest": KEY}, AUTHOR, replace(EXPECTED, author_key_digest=KEY)
    ),
    "policy bit 17 is not set": Case(MALFORMED, {"policy": 0x10000}),
    "policy bit 26 is set": Case(MALFORMED, {"policy": SMT | 1 << 26}),
    "signing key 2": Case(MALFORMED, {"key_info": 2 << 2}),
    "key information bit 5": Case(MALFORMED, {"key_info": 1 << 5}),
    "reserved byte 0x4C": Case(MALFORMED, patches={0x4C: b"\1"}),
    "reserved byte 0x19F": Case(MALFORMED, patches={0x19F: b"\1"}),
    "reserved byte 0x1EB": Case(MALFORMED, patches={0x1EB: b"\1"}),
    "reserved byte 0x1EF": Case(MALFORMED, patches={0x1EF: b"\1"}),
    "reserved byte 0x29F": Case(MALFORMED, patches={0x29F: b"\1"}),
}


@pytest.fixture(scope="module")
def milan(roots_of: Mapping[ProductLine, SimulatedRoots]) -> SimulatedChip:
    return SimulatedChip(roots_of[ProductLine.MILAN], Product.MILAN)


@pytest.mark.parametrize("name", CASES)
def test_both_give_the_same_verdict(judges: Judges, milan: SimulatedChip, name: str) -> None:
    case = CASES[name]
    data = with_certificate(milan, milan.report(3, patches=case.patches, **case.changed))
    assert judges(data, milan.roots, *case.words, expected=case.expected) == case.codes


@pytest.mark.parametrize("offset", [0x50, 0x90, 0x1A0, 0x29F - 0x98, 0x2A0, 0x2A0 + 72])
def test_both_refuse_a_report_that_was_changed(
    judges: Judges, milan: SimulatedChip, offset: int
) -> None:
    data = bytearray(milan.report(5))
    data[offset] ^= 1
    assert judges(with_certificate(milan, bytes(data)), milan.roots) == FORGED


def test_both_refuse_strangers(
    judges: Judges, milan: SimulatedChip, roots_of: Mapping[ProductLine, SimulatedRoots]
) -> None:
    other = SimulatedChip(milan.roots, Product.MILAN)
    assert judges(with_certificate(milan, milan.report(3), other.vek()), milan.roots) == FORGED
    expired = milan.roots.make_vek(
        VekKind.VCEK,
        milan.key.public_key(),
        milan.extensions(),
        spec=SigningSpec(ca=None, not_after=EPOCH + YEAR),
    )
    assert judges(with_certificate(milan, milan.report(3), expired), milan.roots) == FORGED
    selfmade = milan.roots.make_vek(
        VekKind.VCEK,
        milan.key.public_key(),
        milan.extensions(),
        signer=rsa.generate_private_key(65537, 2048),
    )
    assert judges(with_certificate(milan, milan.report(3), selfmade), milan.roots) == FORGED
    genoa = SimulatedChip(roots_of[ProductLine.GENOA], Product.GENOA)
    assert judges(with_certificate(genoa, genoa.report(3)), milan.roots) == FORGED


@pytest.mark.parametrize("version", [1, 6])
def test_versions_that_nobody_knows(judges: Judges, milan: SimulatedChip, version: int) -> None:
    data = with_certificate(milan, milan.report(3, patches={0: bytes((version,))}))
    assert judges(data, milan.roots)[0] in {1, 2}
    assert judges(data, milan.roots)[1] == 65


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("product", [Product.TURIN, Product.TURIN_DENSE])
def test_it_cannot_verify_turin(
    judges: Judges,
    roots_of: Mapping[ProductLine, SimulatedRoots],
    product: Product,
    version: int,
) -> None:
    chip = SimulatedChip(roots_of[product.line], product)
    assert judges(with_certificate(chip, chip.report(version)), chip.roots) == UNKNOWN_TO_IT


def test_it_does_not_know_bergamo_and_siena(
    judges: Judges, roots_of: Mapping[ProductLine, SimulatedRoots]
) -> None:
    chip = SimulatedChip(roots_of[ProductLine.GENOA], Product.BERGAMO_OR_SIENA)
    assert judges(with_certificate(chip, chip.report(3)), chip.roots) == UNKNOWN_TO_IT


def test_it_takes_platform_information_bit_6_for_malformed(
    judges: Judges, milan: SimulatedChip
) -> None:
    words = ("-platform_info=0x25",)
    data = with_certificate(milan, milan.report(3, platform_info=0x25))
    assert judges(data, milan.roots, *words) == GOOD
    data = with_certificate(milan, milan.report(3, platform_info=0x65))
    assert judges(data, milan.roots) == GOOD
    assert judges(data, milan.roots, *words) == (5, 0)


def test_it_refuses_firmware_that_is_not_committed_unless_told(
    judges: Judges, milan: SimulatedChip
) -> None:
    data = with_certificate(milan, milan.report(3, current_tcb=HIGHER))
    assert judges(data, milan.roots) == (5, 0)
    assert judges(data, milan.roots, "-provisional=true") == GOOD


def test_a_real_report_that_allows_debugging(ask: Ask, check: Path, vectors: Path) -> None:
    folder = vectors / "go-sev-guest"
    report, vek = (folder / "attestation.bin").read_bytes(), (folder / "vcek.testcer").read_bytes()
    data = find_report(report).report + encode_cert_table({VCEK: vek})
    expected = Expectations(report_data=ANY, measurements=ANY)
    trust = Trust(datetime.now(UTC), pinned_roots())
    for policy, allow, codes in ((SMT, False, UNACCEPTABLE), (SMT | 1 << 19, True, GOOD)):
        words = ("-network=false", "-product=Milan", f"-guest_policy={policy:#x}")
        done = ask(check, "-in", "-", *words, data=data)
        verdict = judge_report(find_report(data), replace(expected, allow_debug=allow), trust)
        assert (done.returncode, verdict.exit_code) == codes, done.stderr


def test_a_real_milan_report(ask: Ask, check: Path, vectors: Path) -> None:
    folder = vectors / "sev-crate"
    report = find_report((folder / "report_milan.hex").read_bytes()).report
    data = report + encode_cert_table({VCEK: (folder / "vcek_milan.der").read_bytes()})
    words = ("-network=false", "-product=Milan", f"-guest_policy={SMT:#x}")
    done = ask(check, "-in", "-", *words, data=data)
    expected = Expectations(report_data=ANY, measurements=ANY)
    verdict = judge_report(find_report(data), expected, Trust(datetime.now(UTC), pinned_roots()))
    assert (done.returncode, verdict.exit_code) == GOOD, done.stderr
