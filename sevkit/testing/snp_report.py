"""Simulated SNP reports: really signed by a VEK, with any field replaced.

A good report of every version and product, and through ``fields`` and ``patches`` every hostile
one that still carries a genuine signature.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.policy import SNP_POLICY_DEFAULT
from sevkit.abi.product import Product, ProductLine
from sevkit.abi.report import LAYOUT, SIGNED_SIZE
from sevkit.abi.signature import encode_signature, signature_from_der
from sevkit.abi.tcb import TcbVersion, encode_tcb
from sevkit.abi.vek import VekKind
from sevkit.testing.snp_chain import SimulatedRoots, vek_extensions

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Combined family, model and stepping of one chip of each product, as reports give them.
CPUID_FMS: Final[Mapping[Product, tuple[int, int, int]]] = {
    Product.MILAN: (0x19, 0x01, 0x01),
    Product.GENOA: (0x19, 0x11, 0x01),
    Product.BERGAMO_OR_SIENA: (0x19, 0xA0, 0x02),
    Product.TURIN: (0x1A, 0x02, 0x01),
    Product.TURIN_DENSE: (0x1A, 0x11, 0x00),
}

_BEFORE_TURIN: Final = TcbVersion(bootloader=9, tee=0, snp=23, microcode=213)
_TURIN: Final = TcbVersion(bootloader=1, tee=1, snp=4, microcode=80, fmc=1)


@final
@dataclass(frozen=True)
class SimulatedChip:
    """One chip: its product, hardware ID, TCB version and endorsement key."""

    roots: SimulatedRoots
    product: Product
    kind: VekKind = VekKind.VCEK
    hwid: bytes = b""
    csp_id: str = "CN=cc-test.example"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP384R1())
    )

    @property
    def line(self) -> ProductLine:
        """The product's line."""
        return self.product.line

    @property
    def tcb(self) -> TcbVersion:
        """A TCB version with a microcode level above 127, which DER writes with two bytes."""
        return _TURIN if self.line is ProductLine.TURIN else _BEFORE_TURIN

    @property
    def hardware_id(self) -> bytes:
        """The hardware ID, of the size that the line has."""
        return self.hwid or bytes(range(1, self.line.hwid_size + 1))

    def extensions(self) -> dict[str, bytes]:
        """Return AMD's extensions of this chip's VEK."""
        return vek_extensions(
            self.line, self.kind, self.tcb, hwid=self.hardware_id, csp_id=self.csp_id
        )

    def vek(self) -> bytes:
        """Return this chip's good VEK as DER: always the same bytes, as AMD's are."""
        return self._vek

    @cached_property
    def _vek(self) -> bytes:
        return self.roots.make_vek(self.kind, self.key.public_key(), self.extensions())

    def fields(self, version: int) -> dict[str, int | bytes]:
        """Return the fields of a good report of ``version``."""
        tcb = encode_tcb(self.line, self.tcb)
        fms = CPUID_FMS[self.product] if version >= 3 else (0, 0, 0)
        values: dict[str, int | bytes] = {
            row.name: 0 if row.kind == "int" else bytes(row.size)
            for row in LAYOUT.fields
            if row.kind != "zero"
        }
        return values | {
            "version": version,
            "policy": SNP_POLICY_DEFAULT,
            "signature_algo": 1,
            "current_tcb": tcb,
            "reported_tcb": tcb,
            "committed_tcb": tcb,
            "launch_tcb": tcb,
            "key_info": 4 if self.kind is VekKind.VLEK else 0,
            "platform_info": 0x25,
            "report_data": bytes(range(64)),
            "measurement": bytes(range(100, 148)),
            "report_id": bytes(range(32)),
            "report_id_ma": b"\xff" * 32,
            "chip_id": self.hardware_id.ljust(64, b"\0"),
            "cpuid_family": fms[0],
            "cpuid_model": fms[1],
            "cpuid_stepping": fms[2],
            "launch_mit_vector": 3 if version >= 5 else 0,
            "current_mit_vector": 3 if version >= 5 else 0,
            "current_major": 1,
            "current_minor": 55,
            "committed_major": 1,
            "committed_minor": 55,
        }

    def report(
        self,
        version: int = 3,
        *,
        patches: Mapping[int, bytes] | None = None,
        **changed: int | bytes,
    ) -> bytes:
        """Return a signed report; ``changed`` replaces fields, ``patches`` bytes by offset.

        Both happen before signing, so the signature stays genuine.
        """
        body = bytearray(LAYOUT.encode(self.fields(version) | changed)[:SIGNED_SIZE])
        for offset, data in (patches or {}).items():
            body[offset : offset + len(data)] = data
        return self.sign(bytes(body))

    def sign(self, body: bytes) -> bytes:
        """Return the report of a 672-byte body."""
        der = self.key.sign(body, ec.ECDSA(hashes.SHA384()))
        return body + encode_signature(signature_from_der(der))
