"""AMD's extensions in VCEK and VLEK certificates.

Source: 57230 chapter 3 (table 10 for family 19h, and its counterparts): extensions
1.3.6.1.4.1.3704.1.X. The set of a certificate must be exactly AMD's for its kind: one missing, one
too many or one twice is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.der import OCTET_STRING, parse_ia5_string, parse_small_integer
from sevkit.abi.product import ProductLine, parse_product_line
from sevkit.abi.tcb import TcbVersion
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

ARC: Final = "1.3.6.1.4.1.3704.1."
STRUCT_VERSION: Final = ARC + "1"
PRODUCT_NAME: Final = ARC + "2"
HWID: Final = ARC + "4"
CSP_ID: Final = ARC + "5"
SPLS: Final = {
    "bootloader": ARC + "3.1",
    "tee": ARC + "3.2",
    "snp": ARC + "3.3",
    "microcode": ARC + "3.8",
}
FMC_SPL: Final = ARC + "3.9"

#: SPL 4 to 7: reserved patch levels. AMD's certificates before Turin carry all four, Turin's
#: leave some out; each must be a well-formed SPL where it occurs.
RESERVED_SPLS: Final = tuple(ARC + f"3.{number}" for number in range(4, 8))


class VekKind(StrEnum):
    """Which endorsement key a certificate is for."""

    VCEK = "VCEK"
    VLEK = "VLEK"


@final
@dataclass(frozen=True, slots=True)
class VekExtensions:
    """What AMD says in a VEK: ``hwid`` in a VCEK (8 or 64 bytes), ``csp_id`` in a VLEK."""

    struct_version: int
    product_name: str
    line: ProductLine
    tcb: TcbVersion
    hwid: bytes | None
    csp_id: str | None


def unexpected_oids(kind: VekKind, line: ProductLine, oids: frozenset[str]) -> tuple[str, ...]:
    """Return those of AMD's arc in ``oids`` that a VEK of this kind and line must not have."""
    allowed = {STRUCT_VERSION, PRODUCT_NAME, *SPLS.values(), *RESERVED_SPLS}
    allowed.add(HWID if kind is VekKind.VCEK else CSP_ID)
    if line is ProductLine.TURIN:
        allowed.add(FMC_SPL)
    return tuple(sorted(oid for oid in oids if oid.startswith(ARC) and oid not in allowed))


def parse_product_name(value: bytes) -> tuple[str, ProductLine]:
    """Return productName and its line: ``Milan-B0`` and ``Genoa`` name Milan and Genoa."""
    name = parse_ia5_string(value, "VEK extension productName")
    return name, parse_product_line(name.partition("-")[0])


def parse_vek_extensions(kind: VekKind, values: Mapping[str, bytes]) -> VekExtensions:
    """Return AMD's extensions from ``values``, the contents of each extnValue by dotted OID.

    Raises ``FormatError`` if one is missing or malformed.
    """

    def required(oid: str, name: str) -> bytes:
        if oid not in values:
            raise FormatError(f"{kind} certificate", f"extension {name} ({oid}) is missing")
        return values[oid]

    def spl(oid: str, name: str) -> int:
        return parse_small_integer(required(oid, f"{name} SPL"), f"VEK extension {name} SPL")

    product_name, line = parse_product_name(required(PRODUCT_NAME, "productName"))
    for oid in RESERVED_SPLS:
        if oid in values:
            parse_small_integer(values[oid], f"VEK extension {oid}")
    components = {name: spl(oid, name) for name, oid in SPLS.items()}
    if line is ProductLine.TURIN:
        components["fmc"] = spl(FMC_SPL, "fmc")
    vcek = kind is VekKind.VCEK
    return VekExtensions(
        struct_version=parse_small_integer(
            required(STRUCT_VERSION, "structVersion"), "VEK extension structVersion"
        ),
        product_name=product_name,
        line=line,
        tcb=TcbVersion(**components),
        hwid=_hwid(required(HWID, "hwID"), line) if vcek else None,
        csp_id=None if vcek else parse_ia5_string(required(CSP_ID, "cspID"), "VEK extension cspID"),
    )


def _hwid(value: bytes, line: ProductLine) -> bytes:
    """Return the hardware ID, given raw or as a DER OCTET STRING.

    Decided by length first: a raw hardware ID may itself begin with the byte of a DER tag.
    """
    size = line.hwid_size
    if len(value) == size:
        return value
    if len(value) == size + 2 and value[:2] == bytes((OCTET_STRING, size)):
        return value[2:]
    raise FormatError("VEK extension hwID", f"{line} has {size} bytes, got {len(value)}")
