"""SNP guests of simulated chips, judged by other people's programs: snpguest, check, snphost.

Launch digests are compared with snpguest's and sev-snp-measure's; reports, VCEKs and VLEKs are
judged by snpguest and by go-sev-guest's ``check``; certificate tables go through snphost. What a
program cannot judge, or does not look at, is a test of its own with that in its name. snpguest
reads certificate tables from its own device only, so that is not asked here.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sevkit.abi.certtable import ARK, ASK, VCEK, VLEK, encode_cert_table, parse_cert_table
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import parse_report
from sevkit.abi.tcb import TcbVersion
from sevkit.attest.container import find_report
from sevkit.attest.expectations import Expectations, ExpectedMeasurement
from sevkit.attest.snp import Trust, judge_report, pinned_roots
from sevkit.errors import SevkitError
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.kds.roots import snp_chain
from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.vcpu import CPU_MODELS, Registers
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.secure_processor.core import Firmware
from sevkit.testing.secure_processor.identity import ChipIdentity, Vlek
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import make_roots
from sevkit.testing.snp_chain import SimulatedRoots
from sevkit.testing.snp_guest import GuestChannel
from sevkit.testing.virtual_machine import IdentityBlocks, Machine, SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from subprocess import CompletedProcess

    from sevkit.testing import sev_chain

    Ask = Callable[..., CompletedProcess[bytes]]

OVMF: Final = encode_firmware(FirmwareImage())
NONCE: Final = bytes(range(64))
HOST_DATA: Final = bytes(range(32, 64))
MODELS: Final = {
    Product.MILAN: "EPYC-Milan",
    Product.GENOA: "EPYC-Genoa",
    Product.BERGAMO_OR_SIENA: "EPYC-Genoa",
    Product.TURIN: "EPYC-Turin",
    Product.TURIN_DENSE: "EPYC-Turin",
}
VERSIONS: Final = (2, 3, 5)


@pytest.fixture(scope="module")
def snpguest(find_program: Callable[[str, str], Path]) -> Path:
    return find_program("snpguest", "snpguest")


@pytest.fixture(scope="module")
def check(find_program: Callable[[str, str], Path]) -> Path:
    return find_program("go-sev-guest", "check")


@pytest.fixture(scope="module")
def snphost(find_program: Callable[[str, str], Path]) -> Path:
    return find_program("snphost", "snphost")


@pytest.fixture(scope="module")
def sev_snp_measure(find_program: Callable[[str, str], Path]) -> Path:
    return find_program("sev-snp-measure", "sev-snp-measure")


@pytest.fixture(scope="module")
def sev_roots() -> sev_chain.SimulatedRoots:
    return make_roots()


@dataclass(frozen=True)
class Host:
    """One SNP host; with a VLEK that one signs, else the chip's VCEK does."""

    identity: ChipIdentity
    roots: SimulatedRoots
    kvm: SimulatedKvm
    model: str
    vlek: Vlek | None

    @property
    def processor(self) -> SecureProcessor:
        return self.kvm.processor

    @property
    def tcb(self) -> TcbVersion:
        return self.processor.snp.reported_tcb

    @property
    def vek(self) -> bytes:
        return self.identity.vcek(self.tcb) if self.vlek is None else self.vlek.certificate

    @property
    def issuer(self) -> bytes:
        return self.roots.ask if self.vlek is None else self.roots.asvk

    def machine(self, vcpus: int = 2) -> Machine:
        return Machine(OVMF, vcpus, Registers(CPU_MODELS[self.model], 1))

    def report(
        self, machine: Machine | None = None, identity: IdentityBlocks | None = None
    ) -> bytes:
        found = machine or self.machine()
        with self.kvm.launch_snp(found, identity=identity, host_data=HOST_DATA) as guest:
            return GuestChannel(self.kvm, guest).get_report(NONCE)


@pytest.fixture(scope="module")
def make_host(
    sev_roots: sev_chain.SimulatedRoots, roots_of: Mapping[ProductLine, SimulatedRoots]
) -> Callable[..., Host]:
    def make(product: Product = Product.MILAN, *, version: int = 3, vlek: bool = False) -> Host:
        roots = roots_of[product.line]
        identity = ChipIdentity(product, sev_roots, roots)
        processor = SecureProcessor(identity, Firmware(report_version=version))
        kvm = SimulatedKvm(processor)
        loaded = Vlek(roots, processor.snp.reported_tcb) if vlek else None
        if loaded is not None:
            processor.snp.vlek_load(identity.seal_hashstick(loaded))
        return Host(identity, roots, kvm, MODELS[product], loaded)

    return make


@dataclass(frozen=True)
class Evidence:
    """What a guest's owner is handed, as raw as it comes: report, VEK, and who issued it."""

    line: ProductLine
    report: bytes
    vek: bytes
    issuer: bytes
    ark: bytes
    vlek: bool = False

    @property
    def pem(self) -> bytes:
        return encode_pem_certificate(self.issuer) + encode_pem_certificate(self.ark)

    @property
    def extended(self) -> bytes:
        guid = VLEK if self.vlek else VCEK
        return self.report + encode_cert_table({guid: self.vek, ASK: self.issuer, ARK: self.ark})


def evidence_of(host: Host) -> Evidence:
    return Evidence(
        host.identity.line,
        host.report(),
        host.vek,
        host.issuer,
        host.roots.ark,
        host.vlek is not None,
    )


@dataclass(frozen=True)
class Judges:
    """Three who are asked about the same evidence; each is told what the owner expects of it."""

    ask: Ask
    snpguest_path: Path
    check_path: Path
    folder: Path
    digest: bytes

    def snpguest(self, given: Evidence) -> bool:
        """Return whether snpguest accepts both the certificates and the report."""
        certs = self.folder / "certs"
        certs.mkdir(exist_ok=True)
        names = ("asvk", "vlek") if given.vlek else ("ask", "vcek")
        for path in certs.iterdir():
            path.unlink()
        for name, der in zip((*names, "ark"), (given.issuer, given.vek, given.ark), strict=True):
            (certs / f"{name}.pem").write_bytes(encode_pem_certificate(der))
        path = self.folder / "report.bin"
        path.write_bytes(given.report)
        expected = ["--processor-model", given.line.casefold()]
        expected += ["--measurement", f"0x{self.digest.hex()}"]
        expected += ["--report-data", f"0x{NONCE.hex()}", "--host-data", f"0x{HOST_DATA.hex()}"]
        return all(
            self.ask(self.snpguest_path, "verify", *words).returncode == 0
            for words in (("certs", certs), ("attestation", certs, path, *expected))
        )

    def check(self, given: Evidence, *words: str, roots: bytes | None) -> int:
        """Return ``check``'s exit code for an extended report; without ``roots`` AMD's count."""
        said = [f"-product={given.line}", "-network=false", "-guest_policy=0x30000", "-vmpl=0"]
        said += [f"-report_data={NONCE.hex()}", f"-measurement={self.digest.hex()}"]
        said += [f"-host_data={HOST_DATA.hex()}", *words]
        if roots is not None:
            path = self.folder / "ca.pem"
            path.write_bytes(roots)
            said.append(f"-product_key_path={path}")
        done = self.ask(self.check_path, "-in", "-", *said, data=given.extended)
        assert done.returncode in range(6), done.stderr
        return done.returncode

    def ours(self, given: Evidence, *, root: bytes | None) -> int:
        """Return our exit code; without ``root`` only AMD's are trusted."""
        expected = Expectations(
            report_data=NONCE,
            measurements=(ExpectedMeasurement(self.digest),),
            host_data=HOST_DATA,
        )
        roots = pinned_roots() if root is None else pinned_roots(root)
        trust = Trust(datetime.now(UTC), roots, vek=given.vek, chain=given.pem)
        try:
            return judge_report(find_report(given.report), expected, trust).exit_code
        except SevkitError as error:
            return error.exit_code


@pytest.fixture
def make_judges(ask: Ask, snpguest: Path, check: Path, tmp_path: Path) -> Callable[[bytes], Judges]:
    return lambda digest: Judges(ask, snpguest, check, tmp_path, digest)


def theirs(ask: Ask, snpguest: Path, folder: Path, host: Host) -> bytes:
    """Return the launch digest that snpguest expects of the host's usual guest."""
    path = folder / "OVMF.fd"
    path.write_bytes(OVMF)
    words = ("--ovmf", path, "--vcpu-type", host.model, "--vcpus", "2", "--guest-features", "0x1")
    done = ask(snpguest, "generate", "measurement", *words)
    assert done.returncode == 0, done.stderr
    return bytes.fromhex(done.stdout.decode().strip().removeprefix("0x"))


CHIPS: Final = [
    (product, version, vlek) for product in MODELS for version in VERSIONS for vlek in (False, True)
]
GENOAS: Final = (Product.GENOA, Product.BERGAMO_OR_SIENA)


def name_of(chip: tuple[Product, int, bool]) -> str:
    product, version, vlek = chip
    return f"{product} {version} {'VLEK' if vlek else 'VCEK'}"


def unknown_to_snpguest(product: Product, version: int) -> bool:
    """Return whether it refuses good evidence; why is what the tests below say."""
    return product.line is ProductLine.TURIN and version == 2


def unknown_to_check(product: Product, version: int, *, vlek: bool) -> bool:
    """Return the same of go-sev-guest's ``check``."""
    if product.line is ProductLine.TURIN:
        return True
    if product is Product.BERGAMO_OR_SIENA and version >= 3:
        return True
    return product in GENOAS and version == 2 and not vlek


@pytest.mark.parametrize("chip", CHIPS, ids=name_of)
def test_good_evidence_is_accepted_with_our_root_and_refused_without(
    make_host: Callable[..., Host],
    make_judges: Callable[[bytes], Judges],
    ask: Ask,
    snpguest: Path,
    tmp_path: Path,
    chip: tuple[Product, int, bool],
) -> None:
    product, version, vlek = chip
    host = make_host(product, version=version, vlek=vlek)
    judges, given = make_judges(theirs(ask, snpguest, tmp_path, host)), evidence_of(host)
    assert parse_report(given.report).version == version
    amds = Evidence(
        given.line, given.report, given.vek, *snp_chain(given.line, vlek=vlek), given.vlek
    )
    assert judges.snpguest(given) is not unknown_to_snpguest(product, version)
    assert not judges.snpguest(amds)
    assert judges.ours(given, root=given.ark) == 0
    assert judges.ours(given, root=None) == judges.ours(amds, root=None) == 1
    known = not unknown_to_check(product, version, vlek=vlek)
    assert judges.check(given, roots=given.pem) == (0 if known else 2)
    assert judges.check(given, roots=None) == 2


def limits(ask: Ask, check: Path, judges: Judges, given: Evidence) -> str:
    """Return why ``check`` refuses good evidence."""
    path = judges.folder / "ca.pem"
    path.write_bytes(given.pem)
    words = (f"-product={given.line}", "-network=false", f"-product_key_path={path}")
    done = ask(check, "-in", "-", *words, data=given.extended)
    assert done.returncode == 2
    return done.stderr.decode()


@pytest.mark.parametrize(
    ("product", "version", "vlek", "words"),
    [
        (Product.TURIN, 3, False, "not an AMD KDS OID: 1.3.6.1.4.1.3704.1.3.9"),
        (Product.TURIN, 3, True, "not an AMD KDS OID: 1.3.6.1.4.1.3704.1.3.9"),
        (Product.TURIN_DENSE, 5, False, "not an AMD KDS OID: 1.3.6.1.4.1.3704.1.3.9"),
        (Product.GENOA, 2, False, 'unknown product name (new stepping published?): "Genoa"'),
        (Product.BERGAMO_OR_SIENA, 3, False, "could not be verified by any trusted roots"),
        (Product.BERGAMO_OR_SIENA, 5, True, "could not be verified by any trusted roots"),
    ],
)
def test_check_knows_no_turin_no_bergamo_and_no_version_2_under_a_vcek_of_genoas(
    make_host: Callable[..., Host],
    make_judges: Callable[[bytes], Judges],
    ask: Ask,
    check: Path,
    product: Product,
    version: int,
    vlek: bool,
    words: str,
) -> None:
    host = make_host(product, version=version, vlek=vlek)
    given = evidence_of(host)
    assert words in limits(ask, check, make_judges(bytes(48)), given)


@pytest.mark.parametrize("vlek", [False, True], ids=["VCEK", "VLEK"])
def test_snpguest_takes_no_version_2_of_turin(
    make_host: Callable[..., Host], ask: Ask, snpguest: Path, tmp_path: Path, vlek: bool
) -> None:
    host = make_host(Product.TURIN, version=2, vlek=vlek)
    name = "vlek.pem" if vlek else "vcek.pem"
    (tmp_path / name).write_bytes(encode_pem_certificate(host.vek))
    (tmp_path / "report.bin").write_bytes(host.report())
    words = ("verify", "attestation", tmp_path, tmp_path / "report.bin")
    done = ask(snpguest, *words, "--processor-model", "turin")
    assert done.returncode == 1
    assert b"Turin Attestation is not supported in version 2 of the report" in done.stderr


def test_snpguest_trusts_whatever_root_lies_in_its_folder(
    make_host: Callable[..., Host], make_judges: Callable[[bytes], Judges]
) -> None:
    host = make_host()
    given = evidence_of(host)
    judges = make_judges(parse_report(given.report).measurement)
    # It is told no root: that the certificates are AMD's, the folder's owner must know.
    assert judges.snpguest(given)
    assert judges.ours(given, root=None) == 1


@pytest.fixture(scope="module")
def strangers(roots_of: Mapping[ProductLine, SimulatedRoots]) -> SimulatedRoots:
    """Another AMD: the same names, other keys, which are the first one's in other roles."""
    milan = roots_of[ProductLine.MILAN]
    made = SimulatedRoots(ProductLine.MILAN)
    made.ark_key, made.ask_key, made.asvk_key = milan.asvk_key, milan.asvk_key, milan.ask_key
    return made


def flipped(data: bytes, offset: int) -> bytes:
    found = bytearray(data)
    found[offset] ^= 1
    return bytes(found)


#: Fields of a report, by their offsets: every one that says something of the guest or its host.
FIELDS: Final = {
    "policy": 0x08,
    "family ID": 0x10,
    "VMPL": 0x30,
    "current TCB": 0x38,
    "platform information": 0x40,
    "author key": 0x48,
    "report data": 0x50,
    "measurement": 0x90,
    "host data": 0xC0,
    "ID key digest": 0xE0,
    "report ID": 0x140,
    "reported TCB": 0x180,
    "chip ID": 0x1A0,
    "committed TCB": 0x1E0,
    "launch TCB": 0x1F0,
    "r": 0x2A0,
    "s": 0x2A0 + 72,
}


@pytest.mark.parametrize("vlek", [False, True], ids=["VCEK", "VLEK"])
@pytest.mark.parametrize("field", FIELDS)
def test_a_report_that_was_changed_is_refused_by_all(
    make_host: Callable[..., Host],
    make_judges: Callable[[bytes], Judges],
    field: str,
    vlek: bool,
) -> None:
    host = make_host(vlek=vlek)
    given = evidence_of(host)
    judges = make_judges(parse_report(given.report).measurement)
    changed = Evidence(
        given.line, flipped(given.report, FIELDS[field]), given.vek, given.issuer, given.ark, vlek
    )
    assert not judges.snpguest(changed)
    assert judges.check(changed, roots=given.pem) == 2
    assert judges.ours(changed, root=given.ark) == 1


#: What is put in place of a good certificate.
SWAPS: Final = (
    "the VCEK of another TCB",
    "another chip's VCEK",
    "a VLEK's place",
    "another AMD's ASK",
    "another AMD's ARK",
    "another AMD's ASK and ARK",
    "the ASVK for the ASK",
)


@pytest.mark.parametrize("line", [Product.MILAN, Product.GENOA])
@pytest.mark.parametrize("swap", SWAPS)
def test_certificates_of_others_are_refused_by_all(
    make_host: Callable[..., Host],
    make_judges: Callable[[bytes], Judges],
    strangers: SimulatedRoots,
    swap: str,
    line: Product,
) -> None:
    host, other = make_host(line), make_host(line)
    good = evidence_of(host)
    tcb = TcbVersion(**host.tcb.components | {"snp": host.tcb.snp - 1})
    vek, issuer, ark = {
        "the VCEK of another TCB": (host.identity.vcek(tcb), good.issuer, good.ark),
        "another chip's VCEK": (other.vek, good.issuer, good.ark),
        "a VLEK's place": (Vlek(host.roots, host.tcb).certificate, good.issuer, good.ark),
        "another AMD's ASK": (good.vek, strangers.ask, good.ark),
        "another AMD's ARK": (good.vek, good.issuer, strangers.ark),
        "another AMD's ASK and ARK": (good.vek, strangers.ask, strangers.ark),
        "the ASVK for the ASK": (good.vek, host.roots.asvk, good.ark),
    }[swap]
    given = Evidence(good.line, good.report, vek, issuer, ark)
    judges = make_judges(parse_report(good.report).measurement)
    assert not judges.snpguest(given)
    # It takes issuers from the file that names its roots, so that is what is swapped.
    assert judges.check(given, roots=given.pem) == 2
    assert judges.ours(given, root=good.ark) == 1


def test_what_the_owner_expects_is_compared_by_all(
    make_host: Callable[..., Host], make_judges: Callable[[bytes], Judges]
) -> None:
    host = make_host()
    given = evidence_of(host)
    other = Evidence(given.line, host.report(host.machine(3)), given.vek, given.issuer, given.ark)
    judges = make_judges(parse_report(given.report).measurement)
    assert not judges.snpguest(other)
    assert judges.check(other, roots=given.pem) == 5
    assert judges.ours(other, root=given.ark) == 3


@pytest.mark.parametrize("vcpus", [1, 4])
@pytest.mark.parametrize("boot", [False, True], ids=["firmware", "kernel"])
@pytest.mark.parametrize("product", [Product.MILAN, Product.GENOA, Product.TURIN])
def test_launch_digests_are_what_strangers_expect(
    make_host: Callable[..., Host],
    ask: Ask,
    snpguest: Path,
    sev_snp_measure: Path,
    ovmf_amdsev: Path,
    tmp_path: Path,
    product: Product,
    boot: bool,
    vcpus: int,
) -> None:
    host = make_host(product)
    words: list[str | Path] = ["--ovmf", ovmf_amdsev, "--vcpu-type", host.model]
    words += ["--vcpus", str(vcpus), "--guest-features", "0x1"]
    hashes = None
    if boot:
        (tmp_path / "kernel").write_bytes(b"a kernel")
        (tmp_path / "initrd").write_bytes(b"an initrd")
        words += ["--kernel", tmp_path / "kernel", "--initrd", tmp_path / "initrd"]
        words += ["--append", "console=ttyS0"]
        hashes = compute_kernel_hashes(b"a kernel", initrd=b"an initrd", cmdline="console=ttyS0")
    registers = Registers(CPU_MODELS[host.model], 1)
    report = host.report(Machine(ovmf_amdsev.read_bytes(), vcpus, registers, hashes))
    digest = parse_report(report).measurement.hex()
    done = ask(snpguest, "generate", "measurement", *words)
    assert done.stdout.decode().strip() == f"0x{digest}", done.stderr
    done = ask(sev_snp_measure, "--mode", "snp", *words)
    assert done.stdout.decode().strip() == digest, done.stderr


@dataclass(frozen=True)
class Signer:
    """A guest owner's ID key and author key, in files."""

    folder: Path

    def make(self, name: str) -> Path:
        key = ec.generate_private_key(ec.SECP384R1())
        path = self.folder / f"{name}.pem"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return path


def test_an_id_block_of_snpguests_is_taken_and_its_keys_are_reported(
    make_host: Callable[..., Host],
    make_judges: Callable[[bytes], Judges],
    ask: Ask,
    snpguest: Path,
    tmp_path: Path,
) -> None:
    host = make_host()
    digest = theirs(ask, snpguest, tmp_path, host)
    keys = [Signer(tmp_path).make(name) for name in ("id", "author")]
    block, auth = tmp_path / "block", tmp_path / "auth"
    words = ("--family-id", "11" * 16, "--image-id", "22" * 16, "--svn", "7", "--policy", "0x30000")
    files = ("--id-file", block, "--auth-file", auth)
    done = ask(snpguest, "generate", "id-block", *keys, f"0x{digest.hex()}", *words, *files)
    assert done.returncode == 0, done.stderr
    blocks = IdentityBlocks(
        base64.b64decode(block.read_bytes()), base64.b64decode(auth.read_bytes()), author_key=True
    )
    given = Evidence(
        host.identity.line, host.report(identity=blocks), host.vek, host.issuer, host.roots.ark
    )
    report = parse_report(given.report)
    found = [
        ask(snpguest, "generate", "key-digest", key).stdout.decode().strip().removeprefix("0x")
        for key in keys
    ]
    assert [report.id_key_digest.hex(), report.author_key_digest.hex()] == found
    assert (report.family_id, report.image_id, report.guest_svn) == (b"\x11" * 16, b"\x22" * 16, 7)

    judges = make_judges(digest)
    assert judges.snpguest(given)
    trusted = [
        *("-require_idblock=true", f"-trusted_id_key_hashes={found[0]}"),
        *("-require_author_key=true", f"-trusted_author_key_hashes={found[1]}"),
    ]
    assert judges.check(given, *trusted, roots=given.pem) == 0
    without = Evidence(given.line, host.report(), given.vek, given.issuer, given.ark)
    assert judges.check(without, *trusted, roots=given.pem) == 5


@pytest.mark.parametrize("vlek", [False, True], ids=["VCEK", "VLEK"])
def test_a_hosts_certificate_table_is_read_and_written_alike(
    make_host: Callable[..., Host], ask: Ask, snphost: Path, tmp_path: Path, vlek: bool
) -> None:
    host = make_host(vlek=vlek)
    table = host.processor.messages.cert_table(host.vlek)
    (tmp_path / "table.bin").write_bytes(table)
    done = ask(snphost, "export", "der", tmp_path / "table.bin", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    names = ("vlek.der", "asvk.der") if vlek else ("vcek.der", "ask.der")
    assert found == {names[0]: host.vek, names[1]: host.issuer, "ark.der": host.roots.ark}

    done = ask(snphost, "import", tmp_path / "out", tmp_path / "again.bin")
    assert done.returncode == 0, done.stderr
    again = (tmp_path / "again.bin").read_bytes()
    assert parse_cert_table(again) == parse_cert_table(table)


@pytest.mark.parametrize("vlek", [False, True], ids=["VCEK", "VLEK"])
def test_an_extended_report_with_snphosts_table_is_accepted(
    make_host: Callable[..., Host],
    ask: Ask,
    snphost: Path,
    check: Path,
    tmp_path: Path,
    vlek: bool,
) -> None:
    host = make_host(Product.GENOA, vlek=vlek)
    given = evidence_of(host)
    certs = tmp_path / "certs"
    certs.mkdir()
    for name, der in (
        ("vlek" if vlek else "vcek", host.vek),
        ("ask", host.issuer),
        ("ark", host.roots.ark),
    ):
        (certs / f"{name}.der").write_bytes(der)
    done = ask(snphost, "import", certs, tmp_path / "table.bin")
    assert done.returncode == 0, done.stderr
    extended = given.report + (tmp_path / "table.bin").read_bytes()
    (tmp_path / "ca.pem").write_bytes(given.pem)
    words = ("-network=false", "-product=Genoa", f"-product_key_path={tmp_path / 'ca.pem'}")
    done = ask(check, "-in", "-", *words, "-guest_policy=0x30000", data=extended)
    assert done.returncode == 0, done.stderr
    digest = parse_report(given.report).measurement
    expected = Expectations(
        report_data=NONCE, measurements=(ExpectedMeasurement(digest),), host_data=HOST_DATA
    )
    trust = Trust(datetime.now(UTC), pinned_roots(given.ark), chain=given.pem)
    assert judge_report(find_report(extended), expected, trust).accepted
