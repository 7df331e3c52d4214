"""Simulated AMD keys for SEV-SNP: an ARK, ASK and ASVK of their own, VCEKs, VLEKs and CRLs.

Everything is really signed, with AMD's names, algorithms and extensions, so that the verifier
under test is the real one. The roots are trusted only where a caller passes them by name. Every
builder takes overrides, so that a hostile certificate differs from a good one in one defect.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sevkit.abi.der import SEQUENCE, read_element
from sevkit.abi.product import ProductLine
from sevkit.abi.vek import (
    ARC,
    CSP_ID,
    FMC_SPL,
    HWID,
    PRODUCT_NAME,
    RESERVED_SPLS,
    SPLS,
    STRUCT_VERSION,
    VekKind,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sevkit.abi.tcb import TcbVersion

#: OIDs that no certificate has, by the length of the dotted OID that they stand in for.
_STAND_IN: Final = {len(ARC + tail): ARC + tail for tail in ("9", "9.9")}

EPOCH: Final = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
YEAR: Final = dt.timedelta(days=365)

_SALT: Final = 48


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _small(value: int) -> bytes:
    """DER INTEGER of 0 to 255."""
    return bytes((2, 1, value)) if value < 0x80 else bytes((2, 2, 0, value))


def _ia5(text: str) -> bytes:
    return bytes((0x16, len(text))) + text.encode("ascii")


def vek_extensions(
    line: ProductLine, kind: VekKind, tcb: TcbVersion, *, hwid: bytes = b"", csp_id: str = ""
) -> dict[str, bytes]:
    """Return AMD's extensions of a good VEK as contents of extnValue by dotted OID."""
    stepped = line is ProductLine.MILAN and kind is VekKind.VCEK  # a VLEK is for no one chip
    found = {
        STRUCT_VERSION: _small(1 if line is ProductLine.TURIN else 0),
        PRODUCT_NAME: _ia5(f"{line}-B0" if stepped else str(line)),
    }
    found |= {oid: _small(tcb.components[name]) for name, oid in SPLS.items()}
    if line is ProductLine.TURIN:
        found[FMC_SPL] = _small(tcb.fmc or 0)
        found |= dict.fromkeys(RESERVED_SPLS[1:], _small(0))
    else:
        found |= dict.fromkeys(RESERVED_SPLS, _small(0))
    return found | ({HWID: hwid} if kind is VekKind.VCEK else {CSP_ID: _ia5(csp_id)})


@final
@dataclass(frozen=True, slots=True)
class SigningSpec:
    """How a certificate differs from AMD's: the defaults are a good one."""

    not_before: dt.datetime = EPOCH
    not_after: dt.datetime = EPOCH + 20 * YEAR
    hash_algorithm: hashes.HashAlgorithm = field(default_factory=hashes.SHA384)
    salt: int = _SALT
    ca: bool | None = True
    serial: int = 1
    critical: frozenset[str] = frozenset()


GOOD: Final = SigningSpec()
_LEAF: Final = SigningSpec(ca=None, not_after=EPOCH + 7 * YEAR)


def issue(
    subject: str,
    issuer: str,
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    signer: rsa.RSAPrivateKey,
    *,
    spec: SigningSpec = GOOD,
    extensions: Mapping[str, bytes] | None = None,
    duplicate: str | None = None,
) -> bytes:
    """Return the DER of a certificate with AMD's algorithms; ``spec`` makes it differ.

    ``duplicate`` is the OID of an extension that then occurs twice, which X.509 forbids: the
    certificate is made with a stand-in of the same length, renamed, and signed again.
    """
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public_key)
        .serial_number(spec.serial)
        .not_valid_before(spec.not_before)
        .not_valid_after(spec.not_after)
    )
    if spec.ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(spec.ca, None), critical=True)
    for oid, value in (extensions or {}).items():
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value),
            critical=oid in spec.critical,
        )
    if duplicate is not None:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(
                x509.ObjectIdentifier(_STAND_IN[len(duplicate)]), (extensions or {})[duplicate]
            ),
            critical=False,
        )
    pss = padding.PSS(padding.MGF1(spec.hash_algorithm), spec.salt)
    certificate = builder.sign(signer, spec.hash_algorithm, rsa_padding=pss)  # type: ignore[arg-type]  # any hash on purpose
    der = certificate.public_bytes(Encoding.DER)
    return der if duplicate is None else _rename(der, certificate, duplicate, signer, pss)


def _rename(
    der: bytes, made: x509.Certificate, oid: str, signer: rsa.RSAPrivateKey, pss: padding.PSS
) -> bytes:
    """Give the stand-in its OID, and sign again: signatures of one key have one length."""
    body = made.tbs_certificate_bytes
    renamed = body.replace(_encode_oid(_STAND_IN[len(oid)]), _encode_oid(oid))
    signature = signer.sign(renamed, pss, hashes.SHA384())
    return der.replace(body, renamed).replace(made.signature, signature)


def _without_next_update(
    crl: x509.CertificateRevocationList, signer: rsa.RSAPrivateKey, pss: padding.PSS
) -> bytes:
    """Cut nextUpdate out of a list, and sign what is left."""
    body = crl.tbs_certlist_bytes
    times = [crl.last_update_utc, crl.next_update_utc or crl.last_update_utc]
    first, second = (b"\x17\x0d" + f"{time:%y%m%d%H%M%SZ}".encode() for time in times)
    shorter = _sequence(_content(body).replace(first + second, first))
    signature = signer.sign(shorter, pss, hashes.SHA384())
    whole = _content(crl.public_bytes(Encoding.DER))
    return _sequence(whole.replace(body, shorter).replace(crl.signature, signature))


def _content(der: bytes) -> bytes:
    return der[read_element(der, 0, len(der), "DER").content :]


def _sequence(content: bytes) -> bytes:
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    header = bytes((size,)) if size < 0x80 else bytes((0x80 | len(length),)) + length
    return bytes((SEQUENCE,)) + header + content


def _encode_oid(oid: str) -> bytes:
    """Return an OID of AMD's arc as its DER, all arcs below 128 but 3704."""
    arcs = [int(arc) for arc in oid.split(".")]
    content = bytes((40 * arcs[0] + arcs[1],))
    for arc in arcs[2:]:
        content += bytes((0x80 | arc >> 7, arc & 0x7F)) if arc > 127 else bytes((arc,))
    return bytes((6, len(content))) + content


@final
class SimulatedRoots:
    """An ARK, an ASK and an ASVK of one line, with their private keys."""

    def __init__(self, line: ProductLine) -> None:
        self.line: Final = line

    @cached_property
    def ark_key(self) -> rsa.RSAPrivateKey:
        """The root key; making one takes about a second, so it is made when it is needed."""
        return rsa.generate_private_key(65537, 4096)

    @cached_property
    def ask_key(self) -> rsa.RSAPrivateKey:
        """The key that signs VCEKs."""
        return rsa.generate_private_key(65537, 4096)

    @cached_property
    def asvk_key(self) -> rsa.RSAPrivateKey:
        """The key that signs VLEKs."""
        return rsa.generate_private_key(65537, 4096)

    def intermediate_cn(self, kind: VekKind) -> str:
        """Return the common name of the ASK or ASVK."""
        return f"SEV-{self.line}" if kind is VekKind.VCEK else f"SEV-VLEK-{self.line}"

    def intermediate_key(self, kind: VekKind) -> rsa.RSAPrivateKey:
        """Return the key that signs VEKs of ``kind``."""
        return self.ask_key if kind is VekKind.VCEK else self.asvk_key

    @cached_property
    def ark(self) -> bytes:
        """The self-signed ARK as DER."""
        return self.make_ark()

    def make_ark(self, spec: SigningSpec = GOOD) -> bytes:
        """Return a self-signed ARK as DER."""
        name = f"ARK-{self.line}"
        return issue(name, name, self.ark_key.public_key(), self.ark_key, spec=spec)

    def make_intermediate(self, kind: VekKind, spec: SigningSpec | None = None) -> bytes:
        """Return an ASK or ASVK that the ARK signed, as DER."""
        return issue(
            self.intermediate_cn(kind),
            f"ARK-{self.line}",
            self.intermediate_key(kind).public_key(),
            self.ark_key,
            spec=spec or SigningSpec(serial=2 if kind is VekKind.VCEK else 3),
        )

    @cached_property
    def ask(self) -> bytes:
        """The ASK as DER."""
        return self.make_intermediate(VekKind.VCEK)

    @cached_property
    def asvk(self) -> bytes:
        """The ASVK as DER."""
        return self.make_intermediate(VekKind.VLEK)

    def make_vek(
        self,
        kind: VekKind,
        public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
        extensions: Mapping[str, bytes],
        *,
        spec: SigningSpec = _LEAF,
        signer: rsa.RSAPrivateKey | None = None,
        issuer_cn: str | None = None,
        duplicate: str | None = None,
    ) -> bytes:
        """Return a VCEK or VLEK as DER; ``signer`` and ``issuer_cn`` replace the right ones.

        The extension with the OID ``duplicate`` occurs twice.
        """
        return issue(
            f"SEV-{kind}",
            issuer_cn or self.intermediate_cn(kind),
            public_key,
            signer or self.intermediate_key(kind),
            spec=spec,
            extensions=extensions,
            duplicate=duplicate,
        )

    def make_crl(
        self,
        serials: Iterable[int] = (),
        *,
        this_update: dt.datetime = EPOCH,
        next_update: dt.datetime | None = EPOCH + 20 * YEAR,
        signer: rsa.RSAPrivateKey | None = None,
        issuer_cn: str | None = None,
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
        entry_extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        """Return a revocation list as DER, signed by the ARK unless told otherwise.

        Without a next update it is one that X.509 forbids to issue, made by cutting the field.
        ``extensions`` are the list's, ``entry_extensions`` every entry's, each with whether it is
        critical.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(issuer_cn or f"ARK-{self.line}"))
            .last_update(this_update)
            .next_update(next_update or this_update + YEAR)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        for serial in serials:
            entry = (
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(this_update)
            )
            for extension, critical in entry_extensions:
                entry = entry.add_extension(extension, critical=critical)
            builder = builder.add_revoked_certificate(entry.build())
        pss = padding.PSS(padding.MGF1(hashes.SHA384()), _SALT)
        key = signer or self.ark_key
        crl = builder.sign(key, hashes.SHA384(), rsa_padding=pss)
        if next_update is not None:
            return crl.public_bytes(Encoding.DER)
        return _without_next_update(crl, key, pss)
