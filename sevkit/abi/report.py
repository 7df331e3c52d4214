"""The SEV-SNP attestation report: 1184 bytes, versions 2 to 5.

Source: 56860 table 23 (ATTESTATION_REPORT). Reserved bytes are checked by version, because what
one version reserves the next one fills; a version that is not known is refused, not guessed at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, final

from sevkit.abi.layout import Field, Layout, check_zero, integer, raw, zero
from sevkit.abi.policy import KeyInfo, SigningKey, SnpPolicy, parse_key_info, parse_snp_policy
from sevkit.abi.product import Product, ProductLine, product_from_model
from sevkit.abi.signature import EcdsaSignature, parse_signature
from sevkit.abi.tcb import TcbVersion, parse_tcb
from sevkit.errors import FormatError

NAME: Final = "SNP attestation report"
SIGNED_SIZE: Final = 0x2A0
VERSIONS: Final = range(2, 6)

#: SIGNATURE_ALGO: ECDSA P-384 with SHA-384 (56860 chapter 10).
ECDSA_P384_SHA384: Final = 1

#: VMPL of a report that the host asked for, not the guest.
VMPL_HOST: Final = 0xFFFFFFFF

LAYOUT: Final = Layout(
    NAME,
    0x4A0,
    (
        integer(0x000, 4, "version"),
        integer(0x004, 4, "guest_svn"),
        integer(0x008, 8, "policy"),
        raw(0x010, 16, "family_id"),
        raw(0x020, 16, "image_id"),
        integer(0x030, 4, "vmpl"),
        integer(0x034, 4, "signature_algo"),
        integer(0x038, 8, "current_tcb"),
        integer(0x040, 8, "platform_info"),
        integer(0x048, 4, "key_info"),
        zero(0x04C, 4),
        raw(0x050, 64, "report_data"),
        raw(0x090, 48, "measurement"),
        raw(0x0C0, 32, "host_data"),
        raw(0x0E0, 48, "id_key_digest"),
        raw(0x110, 48, "author_key_digest"),
        raw(0x140, 32, "report_id"),
        raw(0x160, 32, "report_id_ma"),
        integer(0x180, 8, "reported_tcb"),
        integer(0x188, 1, "cpuid_family"),  # version 3 and later, else reserved
        integer(0x189, 1, "cpuid_model"),
        integer(0x18A, 1, "cpuid_stepping"),
        zero(0x18B, 21),
        raw(0x1A0, 64, "chip_id"),
        integer(0x1E0, 8, "committed_tcb"),
        integer(0x1E8, 1, "current_build"),
        integer(0x1E9, 1, "current_minor"),
        integer(0x1EA, 1, "current_major"),
        zero(0x1EB, 1),
        integer(0x1EC, 1, "committed_build"),
        integer(0x1ED, 1, "committed_minor"),
        integer(0x1EE, 1, "committed_major"),
        zero(0x1EF, 1),
        integer(0x1F0, 8, "launch_tcb"),
        integer(0x1F8, 8, "launch_mit_vector"),  # version 5, else reserved
        integer(0x200, 8, "current_mit_vector"),
        zero(0x208, 152),
        Field(SIGNED_SIZE, 512, "signature", "bytes"),
    ),
)

#: (first version that defines them, offset, size): zero in reports of earlier versions.
_SINCE: Final = ((3, 0x188, 3), (5, 0x1F8, 16))
_TCB_OFFSETS: Final = {"current": 0x038, "reported": 0x180, "committed": 0x1E0, "launch": 0x1F0}


class FirmwareVersion(NamedTuple):
    """Version of the SEV firmware, as AMD orders it."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


@final
@dataclass(frozen=True, slots=True)
class Report:
    """A well-formed report. Nothing in it is authentic until its signature has been verified.

    TCB versions are raw, because their bytes mean nothing without the product line: ``tcb`` gives
    them. ``product`` is None for version 2, which does not name one.
    """

    version: int
    guest_svn: int
    policy: int
    policy_flags: SnpPolicy
    family_id: bytes
    image_id: bytes
    vmpl: int
    platform_info: int
    key_info: KeyInfo
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    chip_id: bytes
    product: Product | None
    cpuid_fms: tuple[int, int, int] | None
    current_tcb_raw: int
    reported_tcb_raw: int
    committed_tcb_raw: int
    launch_tcb_raw: int
    current_version: FirmwareVersion
    committed_version: FirmwareVersion
    launch_mit_vector: int | None
    current_mit_vector: int | None
    signature: EcdsaSignature
    signed: bytes

    @property
    def chip_id_masked(self) -> bool:
        """Whether the host hides the chip ID (MASK_CHIP_ID of SNP_SET_CONFIG): all zero."""
        return not any(self.chip_id)

    @property
    def product_line(self) -> ProductLine | None:
        """The line of the product that the report names, or None for version 2."""
        return None if self.product is None else self.product.line

    def tcbs(self, line: ProductLine) -> tuple[TcbVersion, ...]:
        """Return the current, reported, committed and launch TCB versions; errors as ``tcb``."""
        return tuple(self.tcb(which, line) for which in _TCB_OFFSETS)

    def tcb(self, which: str, line: ProductLine) -> TcbVersion:
        """Return the ``current``, ``reported``, ``committed`` or ``launch`` TCB version.

        Raises ``FormatError`` if bytes that are reserved on ``line`` are not zero.
        """
        value = getattr(self, f"{which}_tcb_raw")
        offset = _TCB_OFFSETS[which]
        return parse_tcb(line, value, structure=NAME, offset=offset)


def parse_report(data: bytes) -> Report:
    """Return the report in exactly 1184 bytes.

    Refuses unknown versions, reserved bytes and bits that are not zero for that version, unknown
    signature algorithms, signatures out of range, and from version 3 on a CPUID family and model
    that is no known product. Raises ``FormatError`` with the offset.
    """
    record = LAYOUT.parse(data)
    version = record.int("version")
    if version not in VERSIONS:
        raise FormatError(NAME, f"version {version} is not known", offset=0)
    for since, offset, size in _SINCE:
        if version < since:
            check_zero(NAME, data, offset, size)
    if record.int("signature_algo") != ECDSA_P384_SHA384:
        algo = record.int("signature_algo")
        raise FormatError(NAME, f"signature algorithm {algo} is not 1 (ECDSA P-384)", offset=0x34)
    vmpl = record.int("vmpl")
    if vmpl > 3 and vmpl != VMPL_HOST:
        raise FormatError(NAME, f"VMPL {vmpl} is not 0 to 3", offset=0x30)
    key_info = parse_key_info(record.int("key_info"), structure=NAME, offset=0x48)
    if key_info.signing_key is SigningKey.NONE:
        raise FormatError(NAME, "the report is not signed (SIGNING_KEY is NONE)", offset=0x48)
    fms = (record.int("cpuid_family"), record.int("cpuid_model"), record.int("cpuid_stepping"))
    return Report(
        version=version,
        guest_svn=record.int("guest_svn"),
        policy=record.int("policy"),
        policy_flags=parse_snp_policy(record.int("policy"), structure=NAME, offset=0x08),
        family_id=record.raw("family_id"),
        image_id=record.raw("image_id"),
        vmpl=vmpl,
        platform_info=record.int("platform_info"),
        key_info=key_info,
        report_data=record.raw("report_data"),
        measurement=record.raw("measurement"),
        host_data=record.raw("host_data"),
        id_key_digest=record.raw("id_key_digest"),
        author_key_digest=record.raw("author_key_digest"),
        report_id=record.raw("report_id"),
        report_id_ma=record.raw("report_id_ma"),
        chip_id=record.raw("chip_id"),
        product=_product(fms) if version >= 3 else None,
        cpuid_fms=fms if version >= 3 else None,
        current_tcb_raw=record.int("current_tcb"),
        reported_tcb_raw=record.int("reported_tcb"),
        committed_tcb_raw=record.int("committed_tcb"),
        launch_tcb_raw=record.int("launch_tcb"),
        current_version=FirmwareVersion(
            record.int("current_major"), record.int("current_minor"), record.int("current_build")
        ),
        committed_version=FirmwareVersion(
            record.int("committed_major"),
            record.int("committed_minor"),
            record.int("committed_build"),
        ),
        launch_mit_vector=record.int("launch_mit_vector") if version >= 5 else None,
        current_mit_vector=record.int("current_mit_vector") if version >= 5 else None,
        signature=parse_signature(record.raw("signature"), structure=NAME, offset=SIGNED_SIZE),
        signed=bytes(data[:SIGNED_SIZE]),
    )


def _product(fms: tuple[int, int, int]) -> Product:
    product = product_from_model(fms[0], fms[1])
    if product is None or not product.line.snp:
        raise FormatError(
            NAME,
            f"CPUID family {fms[0]:#x} model {fms[1]:#x} is no product with known SNP keys",
            offset=0x188,
        )
    return product
