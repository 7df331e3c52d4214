"""Every known way in which a report or its certificates can be wrong, through the command.

One table each: the defect, the exit code, and the check that must have failed ("" where it must
end before a verdict). Everything is really signed, so that nothing but the defect is wrong.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import parse_report
from sevkit.abi.signature import EcdsaSignature, encode_signature
from sevkit.abi.tcb import TcbVersion, encode_tcb
from sevkit.abi.vek import ARC, HWID, SPLS, VekKind
from sevkit.attest.x509 import parse_certificate
from sevkit.cli.main import main
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.testing.snp_chain import EPOCH, GOOD, YEAR, SigningSpec, SimulatedRoots, issue
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NONCE: Final = bytes(range(64))
DIGEST: Final = bytes(range(100, 148))
EXPECTED: Final = ("--report-data", NONCE.hex(), "--measurement", DIGEST.hex())
ORDER: Final = 2**384 - 1388124618062372383947042015309946732620727252194336364173
TURIN_TCB: Final = TcbVersion(1, 1, 4, 80, fmc=1)
LEAF: Final = SigningSpec(ca=None)
PAST: Final = SigningSpec(not_before=EPOCH - 2 * YEAR, not_after=EPOCH - YEAR)
FUTURE: Final = SigningSpec(not_before=EPOCH + 10 * YEAR, not_after=EPOCH + 11 * YEAR)


class Desk(NamedTuple):
    """An owner offline, with files only."""

    folder: Path
    chip: SimulatedChip
    genoa: SimulatedRoots
    capsys: pytest.CaptureFixture[str]

    def write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def judge(
        self,
        report: bytes | None = None,
        *options: str,
        vek: bytes | None = None,
        chain: bytes | None = None,
        expected: tuple[str, ...] = EXPECTED,
    ) -> tuple[int, set[str]]:
        """Return the exit code and the checks that failed."""
        roots = self.chip.roots
        pem = encode_pem_certificate(roots.ask) + encode_pem_certificate(roots.ark)
        self.capsys.readouterr()
        code = main(
            [
                *("attest", "report"),
                self.write("report.bin", self.chip.report(3) if report is None else report),
                *("--vek", self.write("vek", self.chip.vek() if vek is None else vek)),
                *("--chain", self.write("chain.pem", pem if chain is None else chain)),
                *("--root", self.write("ark.der", roots.ark), "--at", "2026-06-01T00:00:00Z"),
                *("--offline", "--cache", str(self.folder / "cache"), "--output", "json"),
                *expected,
                *options,
            ]
        )
        document = json.loads(self.capsys.readouterr().out)
        assert document["exit_code"] == code
        rows = document.get("findings", [])
        return code, {row["check"] for row in rows if row["outcome"] == "fail"}


@pytest.fixture
def desk(
    tmp_path: Path,
    milan_chip: SimulatedChip,
    genoa_roots: SimulatedRoots,
    capsys: pytest.CaptureFixture[str],
) -> Desk:
    return Desk(tmp_path, milan_chip, genoa_roots, capsys)


def tcb(chip: SimulatedChip, **changed: int) -> int:
    return encode_tcb(chip.line, replace(chip.tcb, **changed))


def resigned(chip: SimulatedChip, change: Callable[[EcdsaSignature], EcdsaSignature]) -> bytes:
    data = chip.report(3)
    return data[:0x2A0] + encode_signature(change(parse_report(data).signature))


def patched(chip: SimulatedChip, offset: int, value: bytes) -> bytes:
    data = bytearray(chip.report(3))
    data[offset : offset + len(value)] = value
    return bytes(data)


REPORTS: Final[dict[str, tuple[Callable[[SimulatedChip], bytes], int, str]]] = {
    "a good report": (lambda c: c.report(3), 0, ""),
    "0 bytes": (lambda _: b"", 65, ""),
    "1183 bytes": (lambda c: c.report(3)[:-1], 65, ""),
    "1185 bytes": (lambda c: c.report(3) + b"\0", 65, ""),
    "2 MiB": (lambda c: c.report(3).ljust(2 << 20, b"\1"), 65, ""),
    "6 MiB": (lambda c: c.report(3).ljust(6 << 20, b"\0"), 65, ""),
    "version 0": (lambda c: c.report(3, patches={0: bytes(4)}), 65, ""),
    "version 1": (lambda c: c.report(3, patches={0: b"\1"}), 65, ""),
    "version 6": (lambda c: c.report(5, patches={0: b"\6"}), 65, ""),
    "version 2**32-1": (lambda c: c.report(3, patches={0: b"\xff" * 4}), 65, ""),
    "signature algorithm 0": (lambda c: c.report(3, signature_algo=0), 65, ""),
    "signature algorithm 2": (lambda c: c.report(3, signature_algo=2), 65, ""),
    "policy bit 17 is 0": (lambda c: c.report(3, policy=0x10000), 65, ""),
    "policy bit 26": (lambda c: c.report(3, policy=0x30000 | 1 << 26), 65, ""),
    "policy bit 63": (lambda c: c.report(3, policy=0x30000 | 1 << 63), 65, ""),
    "policy with an ABI version": (lambda c: c.report(3, policy=0x30137), 0, ""),
    "DEBUG": (lambda c: c.report(3, policy=0x30000 | 1 << 19), 3, "policy.debug"),
    "MIGRATE_MA": (lambda c: c.report(3, policy=0x30000 | 1 << 18), 3, "policy.migration-agent"),
    "VMPL 1": (lambda c: c.report(3, vmpl=1), 3, "report.vmpl"),
    "VMPL 3": (lambda c: c.report(3, vmpl=3), 3, "report.vmpl"),
    "VMPL 4": (lambda c: c.report(3, vmpl=4), 65, ""),
    "VMPL of the host": (lambda c: c.report(3, vmpl=0xFFFFFFFF), 3, "report.vmpl"),
    "VLEK named, VCEK used": (lambda c: c.report(3, key_info=4), 1, "report.signing-key"),
    "no signing key": (lambda c: c.report(3, key_info=7 << 2)[:0x2A0] + bytes(512), 65, ""),
    "reserved signing key": (lambda c: c.report(3, key_info=2 << 2), 65, ""),
    "key info bit 31": (lambda c: c.report(3, key_info=1 << 31), 65, ""),
    "r is 0": (lambda c: patched(c, 0x2A0, bytes(72)), 65, ""),
    "s is 0": (lambda c: patched(c, 0x2E8, bytes(72)), 65, ""),
    "r is the order": (lambda c: patched(c, 0x2A0, ORDER.to_bytes(72, "little")), 65, ""),
    "s is the order": (lambda c: patched(c, 0x2E8, ORDER.to_bytes(72, "little")), 65, ""),
    "r is the order less 1": (
        lambda c: patched(c, 0x2A0, (ORDER - 1).to_bytes(72, "little")),
        1,
        "report.signature",
    ),
    "r has a high byte": (lambda c: patched(c, 0x2A0 + 71, b"\1"), 65, ""),
    "s has a high byte": (lambda c: patched(c, 0x2E8 + 48, b"\1"), 65, ""),
    "s and its twin": (
        lambda c: resigned(c, lambda signature: replace(signature, s=ORDER - signature.s)),
        0,
        "",
    ),
    "the tail of the signature": (lambda c: patched(c, 0x330, b"\1"), 65, ""),
    "the end of the signature": (lambda c: patched(c, 0x49F, b"\1"), 65, ""),
    "reserved 0x4c": (lambda c: c.report(3, patches={0x4C: b"\1"}), 65, ""),
    "reserved 0x18b": (lambda c: c.report(3, patches={0x18B: b"\1"}), 65, ""),
    "reserved 0x1eb": (lambda c: c.report(3, patches={0x1EB: b"\1"}), 65, ""),
    "reserved 0x1ef": (lambda c: c.report(3, patches={0x1EF: b"\1"}), 65, ""),
    "reserved 0x208": (lambda c: c.report(3, patches={0x208: b"\1"}), 65, ""),
    "reserved byte of a TCB": (lambda c: c.report(3, patches={0x3A: b"\1"}), 65, ""),
    "another nonce": (lambda c: c.report(3, report_data=NONCE[::-1]), 3, "report.data"),
    "the zero nonce": (lambda c: c.report(3, report_data=bytes(64)), 3, "report.data"),
    "the nonce in the other half": (
        lambda c: c.report(3, report_data=NONCE[32:] + NONCE[:32]),
        3,
        "report.data",
    ),
    "half of the nonce": (
        lambda c: c.report(3, report_data=NONCE[:32] + bytes(32)),
        3,
        "report.data",
    ),
    "an older report": (lambda c: c.report(3, report_data=b"\7" * 64), 3, "report.data"),
    "another guest": (lambda c: c.report(3, measurement=DIGEST[::-1]), 3, "report.measurement"),
    "no measurement": (lambda c: c.report(3, measurement=bytes(48)), 3, "report.measurement"),
    "a changed measurement": (lambda c: patched(c, 0x90, b"\0"), 1, "report.signature"),
    "a masked chip": (lambda c: c.report(3, chip_id=bytes(64)), 0, ""),
    "another chip": (lambda c: c.report(3, chip_id=b"\7" * 64), 1, "chip.id"),
    "committed above current": (
        lambda c: c.report(3, committed_tcb=tcb(c, snp=24)),
        3,
        "tcb.order",
    ),
    "reported above committed": (
        lambda c: c.report(3, committed_tcb=tcb(c, snp=22)),
        3,
        "tcb.order",
    ),
    "launch above current": (lambda c: c.report(3, launch_tcb=tcb(c, tee=1)), 3, "tcb.order"),
    "another reported TCB": (lambda c: c.report(3, reported_tcb=tcb(c, snp=22)), 1, "tcb.vek"),
    "version 2": (lambda c: c.report(2), 0, ""),
    "version 2 with a CPUID": (lambda c: c.report(2, patches={0x188: b"\x19\x01\x01"}), 65, ""),
    "version 2 with a TCB of Turin's": (
        lambda c: c.report(2, current_tcb=encode_tcb(ProductLine.TURIN, TURIN_TCB)),
        1,
        "report.product",
    ),
    "version 3 without a CPUID": (
        lambda c: c.report(3, cpuid_family=0, cpuid_model=0, cpuid_stepping=0),
        65,
        "",
    ),
    "version 3 of an unknown product": (lambda c: c.report(3, cpuid_model=0x50), 65, ""),
    "version 3 of another product": (lambda c: c.report(3, cpuid_model=0x11), 1, "report.product"),
    "version 4": (lambda c: c.report(4), 0, ""),
    "version 4 with mitigation vectors": (lambda c: c.report(4, launch_mit_vector=1), 65, ""),
    "version 5": (lambda c: c.report(5), 0, ""),
    "version 5 without mitigation vectors": (
        lambda c: c.report(5, launch_mit_vector=0, current_mit_vector=0),
        0,
        "",
    ),
    "unknown platform bits": (lambda c: c.report(5, platform_info=1 << 63 | 0x65), 0, ""),
}


@pytest.mark.parametrize("defect", REPORTS)
def test_a_report_with_a_defect_has_its_exit_code(desk: Desk, defect: str) -> None:
    make, code, check = REPORTS[defect]
    assert desk.judge(make(desk.chip)) == (code, {check} if check else set())


@pytest.mark.parametrize(
    ("why", "options", "code"),
    [
        ("a short nonce", ("--report-data", NONCE[:63].hex(), "--measurement", DIGEST.hex()), 2),
        ("a nonce with a prefix", ("--report-data", "0x" + NONCE.hex()), 2),
        ("an empty nonce", ("--report-data", ""), 2),
        ("an empty digest", ("--measurement", ""), 2),
        ("no nonce", ("--measurement", DIGEST.hex()), 5),
        ("no digest", ("--report-data", NONCE.hex()), 5),
        ("neither", (), 5),
        ("no nonce and a TCB that is none", ("--min-tcb", "ucode=1"), 2),
        ("no digest and a short nonce", ("--report-data", "00"), 2),
        ("any nonce and one", (*EXPECTED, "--allow-any-report-data"), 2),
        ("any digest and one", (*EXPECTED, "--allow-any-measurement"), 2),
        ("any of both", ("--allow-any-report-data", "--allow-any-measurement"), 0),
        ("the zero digest", ("--report-data", NONCE.hex(), "--measurement", "00" * 48), 3),
        ("host data", (*EXPECTED, "--host-data", "01" * 32), 3),
        ("no host data", (*EXPECTED, "--host-data", "00" * 32), 0),
        ("short host data", (*EXPECTED, "--host-data", "01" * 31), 2),
        ("an ID key", (*EXPECTED, "--id-key-digest", "01" * 48), 3),
        ("an author key", (*EXPECTED, "--author-key-digest", "01" * 48), 3),
        ("a family", (*EXPECTED, "--family-id", "01" * 16), 3),
        ("an image", (*EXPECTED, "--image-id", "01" * 16), 3),
        ("a guest SVN", (*EXPECTED, "--min-guest-svn", "1"), 3),
        ("a negative guest SVN", (*EXPECTED, "--min-guest-svn", "-1"), 2),
        ("a guest SVN of 33 bits", (*EXPECTED, "--min-guest-svn", str(1 << 32)), 2),
        ("VMPL 1", (*EXPECTED, "--vmpl", "1"), 3),
        ("VMPL 4", (*EXPECTED, "--vmpl", "4"), 2),
        ("a single socket", (*EXPECTED, "--require-single-socket"), 3),
        ("an alias check", (*EXPECTED, "--require-alias-check"), 0),
        ("a higher TCB", (*EXPECTED, "--min-tcb", "microcode=214"), 3),
        ("Turin's TCB", (*EXPECTED, "--min-tcb", "fmc=0"), 3),
        ("a TCB of 256", (*EXPECTED, "--min-tcb", "snp=256"), 2),
        ("another chip", (*EXPECTED, "--chip", "01" * 64), 3),
        ("a Turin chip", (*EXPECTED, "--chip", "01" * 8), 3),
        ("no chip at all", (*EXPECTED, "--chip", "00" * 64), 2),
        ("this chip", (*EXPECTED, "--chip", bytes(range(1, 65)).hex()), 0),
        ("this product", (*EXPECTED, "--product", "Milan"), 0),
        ("another product", (*EXPECTED, "--product", "Genoa"), 3),
        ("a product without SNP", (*EXPECTED, "--product", "Rome"), 2),
        ("no product", (*EXPECTED, "--product", "Venus"), 2),
        ("a time without a zone", (*EXPECTED, "--at", "2026-06-01T00:00:00"), 2),
        ("the first year", (*EXPECTED, "--at", "0001-01-01T00:00:00Z"), 1),
        ("the last year", (*EXPECTED, "--at", "9999-12-31T23:59:59Z"), 1),
        ("before time", (*EXPECTED, "--at", "0001-01-01T00:00:00+23:59"), 2),
        ("plain HTTP", (*EXPECTED, "--kds-url", "http://localhost"), 2),
        ("plain HTTP and no nonce", ("--kds-url", "http://localhost"), 2),
        ("a list that cannot be had", (*EXPECTED, "--require-crl"), 4),
        ("that and a wrong nonce", ("--require-crl", "--report-data", "01" * 64, *EXPECTED[2:]), 4),
    ],
)
def test_an_option_has_its_exit_code(
    desk: Desk, why: str, options: tuple[str, ...], code: int
) -> None:
    assert desk.judge(None, *options, expected=())[0] == code, why


def vcek(chip: SimulatedChip, **changed: bytes | None) -> bytes:
    """A VCEK whose extensions differ: OIDs are written with ``_`` for the dots, None takes out."""
    extensions = chip.extensions()
    for name, value in changed.items():
        oid = ARC + name.removeprefix("x").replace("_", ".")
        if value is None:
            del extensions[oid]
        else:
            extensions[oid] = value
    return chip.roots.make_vek(VekKind.VCEK, chip.key.public_key(), extensions)


def spec(chip: SimulatedChip, **changed: object) -> bytes:
    """A VCEK that is signed or dated in another way."""
    how = replace(LEAF, **changed)  # type: ignore[arg-type]  # fields of SigningSpec
    key = chip.key.public_key()
    return chip.roots.make_vek(VekKind.VCEK, key, chip.extensions(), spec=how)


def other_key(chip: SimulatedChip, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return chip.roots.make_vek(VekKind.VCEK, key, chip.extensions())


VEKS: Final[dict[str, tuple[Callable[[SimulatedChip], bytes], int, str]]] = {
    "expired": (
        lambda c: spec(c, not_before=PAST.not_before, not_after=PAST.not_after),
        1,
        "chain.not-after",
    ),
    "not yet valid": (
        lambda c: spec(c, not_before=FUTURE.not_before, not_after=FUTURE.not_after),
        1,
        "chain.not-before",
    ),
    "signed by the ARK": (
        lambda c: c.roots.make_vek(
            VekKind.VCEK, c.key.public_key(), c.extensions(), signer=c.roots.ark_key
        ),
        1,
        "chain.vek",
    ),
    "issued by the ARK": (
        lambda c: c.roots.make_vek(
            VekKind.VCEK,
            c.key.public_key(),
            c.extensions(),
            signer=c.roots.ark_key,
            issuer_cn="ARK-Milan",
        ),
        1,
        "chain.names",
    ),
    "signed by the ASVK": (
        lambda c: c.roots.make_vek(
            VekKind.VCEK, c.key.public_key(), c.extensions(), signer=c.roots.asvk_key
        ),
        1,
        "chain.vek",
    ),
    "of another line": (
        lambda c: c.roots.make_vek(
            VekKind.VCEK, c.key.public_key(), c.extensions(), issuer_cn="SEV-Genoa"
        ),
        1,
        "chain.names",
    ),
    "another chip's": (
        lambda c: SimulatedChip(c.roots, Product.MILAN, hwid=b"\7" * 64).vek(),
        1,
        "report.signature",
    ),
    "a VLEK": (
        lambda c: SimulatedChip(c.roots, Product.MILAN, VekKind.VLEK).vek(),
        1,
        "chain.names",
    ),
    "the ASK": (lambda c: c.roots.ask, 1, "chain.names"),
    "the ARK": (lambda c: c.roots.ark, 1, "chain.names"),
    "a CA": (lambda c: spec(c, ca=True), 1, "chain.constraints"),
    "a CA that says no": (lambda c: spec(c, ca=False), 0, ""),
    "productName missing": (lambda c: vcek(c, x2=None), 1, "vek.extensions"),
    "hwID missing": (lambda c: vcek(c, x4=None), 1, "vek.extensions"),
    "microcode SPL missing": (lambda c: vcek(c, x3_8=None), 1, "vek.extensions"),
    "structVersion missing": (lambda c: vcek(c, x1=None), 1, "vek.extensions"),
    "microcode SPL twice": (
        lambda c: c.roots.make_vek(
            VekKind.VCEK, c.key.public_key(), c.extensions(), duplicate=SPLS["microcode"]
        ),
        1,
        "vek.unique",
    ),
    "hwID twice": (
        lambda c: c.roots.make_vek(
            VekKind.VCEK, c.key.public_key(), c.extensions(), duplicate=HWID
        ),
        1,
        "vek.unique",
    ),
    "an unknown OID of AMD's": (lambda c: vcek(c, x77=b"\5\0"), 1, "vek.known"),
    "Turin's OID": (lambda c: vcek(c, x3_9=b"\2\1\0"), 1, "vek.known"),
    "a VLEK's OID": (lambda c: vcek(c, x5=b"\x16\1x"), 1, "vek.known"),
    "an SPL of 256": (lambda c: vcek(c, x3_3=b"\2\2\1\0"), 1, "vek.extensions"),
    "an SPL of -1": (lambda c: vcek(c, x3_3=b"\2\1\xff"), 1, "vek.extensions"),
    "an SPL that is not minimal": (lambda c: vcek(c, x3_3=b"\2\2\0\x17"), 1, "vek.extensions"),
    "another SPL": (lambda c: vcek(c, x3_3=b"\2\1\x16"), 1, "tcb.vek"),
    "another microcode": (lambda c: vcek(c, x3_8=b"\2\2\0\xd6"), 1, "tcb.vek"),
    "another product": (lambda c: vcek(c, x2=b"\x16\5Genoa"), 1, "vek.product"),
    "a hardware ID in an OCTET STRING": (
        lambda c: vcek(c, x4=b"\x04\x40" + c.hardware_id),
        0,
        "",
    ),
    "a hardware ID of 8 bytes": (lambda c: vcek(c, x4=c.hardware_id[:8]), 1, "vek.extensions"),
    "a hardware ID of 65 bytes": (lambda c: vcek(c, x4=c.hardware_id + b"x"), 1, "vek.extensions"),
    "another hardware ID": (lambda c: vcek(c, x4=b"\7" * 64), 1, "chip.id"),
    "a key on P-256": (
        lambda c: other_key(c, ec.generate_private_key(ec.SECP256R1()).public_key()),
        1,
        "chain.algorithms",
    ),
    "an RSA key": (
        lambda c: other_key(c, rsa.generate_private_key(65537, 2048).public_key()),
        1,
        "chain.algorithms",
    ),
    "SHA-256": (lambda c: spec(c, hash_algorithm=hashes.SHA256()), 1, "chain.algorithms"),
    "a salt of 32": (lambda c: spec(c, salt=32), 1, "chain.vek"),
    "PEM": (lambda c: encode_pem_certificate(c.vek()), 0, ""),
    "PEM with CRLF": (
        lambda c: encode_pem_certificate(c.vek()).replace(b"\n", b"\r\n"),
        0,
        "",
    ),
    "PEM with junk before": (lambda c: b"junk\n" + encode_pem_certificate(c.vek()), 65, ""),
    "PEM with junk behind": (lambda c: encode_pem_certificate(c.vek()) + b"junk", 65, ""),
    "two certificates": (lambda c: encode_pem_certificate(c.vek()) * 2, 65, ""),
    "DER in an armour twice": (
        lambda c: encode_pem_certificate(encode_pem_certificate(c.vek())),
        65,
        "",
    ),
    "base64 without an armour": (lambda c: base64.b64encode(c.vek()), 65, ""),
    "hex": (lambda c: c.vek().hex().encode(), 65, ""),
    "a byte more": (lambda c: c.vek() + b"\0", 65, ""),
    "a byte less": (lambda c: c.vek()[:-1], 65, ""),
    "nothing": (lambda _: b"", 65, ""),
    "an endless PEM": (lambda _: b"-----BEGIN CERTIFICATE-----\n" + b"A" * (4 << 20), 65, ""),
    "16 KiB of lines": (lambda _: b"\n" * (16 << 10), 65, ""),
}


@pytest.mark.parametrize("defect", VEKS)
def test_a_vek_with_a_defect_has_its_exit_code(desk: Desk, defect: str) -> None:
    make, code, check = VEKS[defect]
    assert desk.judge(vek=make(desk.chip)) == (code, {check} if check else set())


def test_a_vcek_with_serial_number_0_is_accepted_and_a_negative_one_is_none(desk: Desk) -> None:
    chip = desk.chip
    good = chip.vek()
    at = good.index(b"\xa0\3\2\1\2") + 5
    assert good[at : at + 3] == b"\2\1\1"
    assert desk.judge(vek=good[: at + 2] + b"\xff" + good[at + 3 :])[0] == 65
    # not signed again, so the signature is what fails; real VCEKs with 0 are in the vectors
    assert desk.judge(vek=good[: at + 2] + b"\0" + good[at + 3 :]) == (1, {"chain.vek"})


def test_a_hardware_id_may_begin_like_der(desk: Desk) -> None:
    for start in (b"\2", b"\4\x40", b"\4\x3e"):
        chip = SimulatedChip(
            desk.chip.roots, Product.MILAN, hwid=start.ljust(64, b"\x5a"), key=desk.chip.key
        )
        assert desk.judge(chip.report(3), vek=chip.vek()) == (0, set())


def pems(*ders: bytes) -> bytes:
    return b"".join(map(encode_pem_certificate, ders))


def test_a_chain_with_a_defect_has_its_exit_code(desk: Desk) -> None:
    roots, genoa = desk.chip.roots, desk.genoa
    fake = SimulatedRoots(ProductLine.MILAN)
    fake.__dict__ |= {"ark_key": roots.asvk_key, "ask_key": roots.ask_key}
    kind = VekKind.VCEK
    table: dict[str, tuple[bytes, int, str]] = {
        "reversed": (pems(roots.ark, roots.ask), 1, "chain.root"),
        "the ASVK for a VCEK": (pems(roots.asvk, roots.ark), 1, "chain.names"),
        "another line's": (pems(genoa.ask, genoa.ark), 1, "chain.root"),
        "this ASK under another line's ARK": (pems(roots.ask, genoa.ark), 1, "chain.root"),
        "another line's ASK under this ARK": (pems(genoa.ask, roots.ark), 1, "chain.names"),
        "self-made with the same names": (pems(fake.ask, fake.ark), 1, "chain.root"),
        "an ASK of a self-made ARK": (pems(fake.ask, roots.ark), 1, "chain.ask"),
        "an ASK that is no CA": (
            pems(roots.make_intermediate(kind, replace(GOOD, ca=False)), roots.ark),
            1,
            "chain.constraints",
        ),
        "an ASK that says nothing of CAs": (
            pems(roots.make_intermediate(kind, replace(GOOD, ca=None)), roots.ark),
            1,
            "chain.constraints",
        ),
        "an expired ASK": (
            pems(roots.make_intermediate(kind, PAST), roots.ark),
            1,
            "chain.not-after",
        ),
        "an ASK of the future": (
            pems(roots.make_intermediate(kind, FUTURE), roots.ark),
            1,
            "chain.not-before",
        ),
        "an ASK with SHA-256": (
            pems(
                roots.make_intermediate(kind, replace(GOOD, hash_algorithm=hashes.SHA256())),
                roots.ark,
            ),
            1,
            "chain.algorithms",
        ),
        "an ASK with a salt of 32": (
            pems(roots.make_intermediate(kind, replace(GOOD, salt=32)), roots.ark),
            1,
            "chain.ask",
        ),
        "the ARK twice": (pems(roots.ark, roots.ark), 1, "chain.names"),
        "one certificate": (pems(roots.ask), 65, ""),
        "three": (pems(roots.ask, roots.ark, roots.ark), 65, ""),
        "nine": (pems(*[roots.ask] * 9), 65, ""),
        "nothing": (b"", 65, ""),
        "junk between": (pems(roots.ask) + b"junk\n" + pems(roots.ark), 65, ""),
        "CRLF": (pems(roots.ask, roots.ark).replace(b"\n", b"\r\n"), 0, ""),
    }
    for defect, (data, code, check) in table.items():
        assert desk.judge(chain=data) == (code, {check} if check else set()), defect


def test_a_list_with_a_defect_has_its_exit_code(desk: Desk) -> None:
    roots, genoa = desk.chip.roots, desk.genoa
    ask = parse_certificate(roots.ask).serial
    pem = b"-----BEGIN X509 CRL-----\n%s\n-----END X509 CRL-----\n"
    good = pem % base64.b64encode(roots.make_crl())
    table: dict[str, tuple[bytes, int, str]] = {
        "good": (roots.make_crl(), 0, ""),
        "PEM": (good, 0, ""),
        "the ASK": (roots.make_crl([ask]), 1, "chain.revocation"),
        "the ARK": (roots.make_crl([parse_certificate(roots.ark).serial]), 1, "chain.revocation"),
        "stale": (roots.make_crl(next_update=EPOCH + YEAR), 1, "crl.dates"),
        "of the future": (roots.make_crl(this_update=EPOCH + 10 * YEAR), 1, "crl.dates"),
        "without nextUpdate": (roots.make_crl(next_update=None), 1, "crl.dates"),
        "signed by the ASK": (roots.make_crl(signer=roots.ask_key), 1, "crl.signature"),
        "of another issuer": (roots.make_crl(issuer_cn="ARK-Genoa"), 1, "crl.signature"),
        "another line's": (genoa.make_crl(), 1, "crl.signature"),
        "two lists": (good + good, 65, ""),
        "junk before": (b"junk\n" + good, 65, ""),
        "junk behind": (good + b"junk", 65, ""),
        "a byte more": (roots.make_crl() + b"\0", 65, ""),
        "a certificate": (roots.ark, 65, ""),
        "a web page": (b"<html>", 65, ""),
        "nothing": (b"", 65, ""),
    }
    for defect, (data, code, check) in table.items():
        path = desk.write("crl", data)
        found = desk.judge(None, "--crl", path, "--require-crl")
        assert found == (code, {check} if check else set()), defect


@pytest.mark.parametrize("name", ["--vek", "--chain", "--crl", "--root"])
def test_shapes_are_judged_before_what_cannot_be_had_and_before_authenticity(
    desk: Desk, name: str
) -> None:
    junk = desk.write("junk", b"junk")
    forged = patched(desk.chip, 0x90, b"\0")
    roots = desk.chip.roots
    untrusted = pems(roots.ark, roots.ask)
    masked = desk.chip.report(3, chip_id=bytes(64))
    assert desk.judge(forged, name, junk)[0] == 65
    assert desk.judge(None, "--require-crl", name, junk, chain=untrusted)[0] == 65
    command = [
        *("attest", "report", desk.write("masked.bin", masked), *EXPECTED, "--offline"),
        *("--cache", str(desk.folder / "cache"), name, junk),
    ]
    assert main(command) == 65
    assert main(command[:-2]) == 4


def test_tcbs_that_the_product_cannot_have_are_judged_before_what_cannot_be_had(
    desk: Desk,
) -> None:
    report = desk.write("r.bin", desk.chip.report(3, patches={0x1F2: b"\1"}))
    assert main(["attest", "report", report, *EXPECTED, "--offline"]) == 65


def test_a_root_that_is_no_ark_makes_nothing_pass(desk: Desk) -> None:
    roots, genoa = desk.chip.roots, desk.genoa
    report, vek = desk.write("r.bin", desk.chip.report(3)), desk.write("v.der", desk.chip.vek())
    chain = desk.write("c.pem", pems(roots.ask, roots.ark))
    base = ["attest", "report", report, "--vek", vek, *EXPECTED, "--offline"]
    cache = ["--cache", str(desk.folder / "none"), "--at", "2026-06-01T00:00:00Z"]
    for root in (roots.ask, roots.asvk, desk.chip.vek(), genoa.ark, genoa.ask):
        path = desk.write("root.der", root)
        assert main([*base, *cache, "--root", path, "--chain", chain]) == 1
        short = desk.write("short.pem", pems(desk.chip.vek(), roots.ask))
        assert main([*base, *cache, "--root", path, "--chain", short]) == 1
    good = desk.write("root.der", roots.ark)
    assert main([*base, *cache, "--root", good, "--chain", chain]) == 0


def test_a_vleks_report_under_a_vcek_and_the_reverse(desk: Desk) -> None:
    roots = desk.chip.roots
    vlek = SimulatedChip(roots, Product.MILAN, VekKind.VLEK)
    chain = pems(roots.asvk, roots.ark)
    assert desk.judge(vlek.report(3), vek=vlek.vek(), chain=chain) == (0, set())
    wrong = vlek.report(3, key_info=0)
    assert desk.judge(wrong, vek=vlek.vek(), chain=chain) == (1, {"report.signing-key"})
    assert desk.judge(vlek.report(3), vek=vlek.vek()) == (1, {"chain.names"})
    assert desk.judge(vek=desk.chip.vek(), chain=chain) == (1, {"chain.names"})


def test_what_an_attacker_wrote_moves_no_cursor_and_runs_no_script(desk: Desk) -> None:
    evil = "CN=<img src=x onerror=alert(1)>&'\"]]>{{7*7}}"
    name = "SEV-VCEK\u001b[2J\u202e\n<b>"
    chip = SimulatedChip(desk.chip.roots, Product.MILAN, VekKind.VLEK, csp_id=evil)
    roots = desk.chip.roots
    hostile = issue(name, name, chip.key.public_key(), roots.ask_key, extensions={})
    page = desk.folder / "page.html"
    common = [
        *("attest", "report", desk.write("r.bin", desk.chip.report(3)), *EXPECTED, "--offline"),
        *("--vek", desk.write("v.der", hostile), "--cache", str(desk.folder / "none")),
    ]
    desk.capsys.readouterr()
    assert main([*common, "--html", str(page)]) == 1
    printed = desk.capsys.readouterr()
    for text in (printed.out, printed.err, page.read_text()):
        assert "\u001b" not in text
        assert "\u202e" not in text
    assert "<b>" not in page.read_text()
    assert main(["inspect", "certificate", desk.write("v.der", hostile)]) == 0
    assert "\u001b" not in desk.capsys.readouterr().out
    assert main(["inspect", "certificate", desk.write("vlek.der", chip.vek())]) == 0


@pytest.mark.parametrize("target", ["-", "absent/page.html", "taken.html", "link.html", "."])
def test_a_page_that_cannot_be_written_is_refused_before_any_work(desk: Desk, target: str) -> None:
    (desk.folder / "taken.html").write_text("mine")
    (desk.folder / "link.html").symlink_to(desk.folder / "elsewhere.html")
    path = target if target == "-" else str(desk.folder / target)
    missing = str(desk.folder / "no-such-report")
    desk.capsys.readouterr()
    assert main(["attest", "report", missing, *EXPECTED, "--html", path]) == 2
    assert "report" not in desk.capsys.readouterr().err
    assert (desk.folder / "taken.html").read_text() == "mine"
    assert not (desk.folder / "elsewhere.html").exists()


def test_times_at_the_ends_of_the_calendar_are_written_whole(desk: Desk) -> None:
    desk.judge(None, "--at", "0001-01-01T00:00:00Z")
    desk.capsys.readouterr()
    main(
        [
            *("attest", "report", str(desk.folder / "report.bin"), *EXPECTED, "--offline"),
            *("--vek", str(desk.folder / "vek"), "--chain", str(desk.folder / "chain.pem")),
            *("--root", str(desk.folder / "ark.der"), "--at", "0001-01-01T00:00:00Z"),
            *("--output", "json"),
        ]
    )
    assert json.loads(desk.capsys.readouterr().out)["at"] == "0001-01-01T00:00:00Z"


def test_standard_input_is_one_file_wherever_it_is_named(desk: Desk) -> None:
    report = desk.write("r.bin", desk.chip.report(3))
    words = f'report-data: "{NONCE.hex()}"\nreference: "-"\n'.encode()
    path = desk.write("e.yaml", words)
    common = ["--expectations", path, "--offline"]
    assert main(["attest", "report", "-", *common]) == 2
    assert main(["attest", "report", report, *common, "--vek", "-"]) == 2
    assert main(["attest", "report", report, *common, "--root", "-"]) == 2
