"""Who a simulated chip is: its ID, its CEK, its VCEKs, and the secret that VLEKs are wrapped with.

Everything of a chip comes from one secret, as with real ones from their fuses: two objects made
with the same secret are the same chip, and a VCEK is a function of the chip and a TCB version, so
a key service can certify what the processor will sign with without asking it.

Sources: 55766 chapter 2.1 (CEK), 56860 chapter 2.2 and 57230 chapter 1 (VCEK derivation, by what
it depends on; the function itself is AMD's secret and ours differs), 56860 8.20 (VLEK hashstick).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sevkit.abi.layout import Layout, integer, raw, zero
from sevkit.abi.sevcert import Algorithm, Usage, encode_sev_certificate
from sevkit.abi.signature import public_key_of
from sevkit.abi.tcb import encode_tcb
from sevkit.abi.vek import VekKind
from sevkit.errors import SignatureMismatch, UsageError
from sevkit.secret import Secret
from sevkit.testing.sev_chain import API, certify
from sevkit.testing.snp_chain import vek_extensions

if TYPE_CHECKING:
    from sevkit.abi.product import Product, ProductLine
    from sevkit.abi.tcb import TcbVersion
    from sevkit.testing import sev_chain, snp_chain

CHIP_ID_SIZE: Final = 64
_ORDER_BYTES: Final = 48
#: A hashstick holds eight values of 48 bytes; the last is the key that signs.
_LAST_STICK: Final = 7 * 48

#: SNP_VLEK_LOAD's input: the VLEK's private key under a key that only this chip and AMD have.
HASHSTICK: Final = Layout(
    "VLEK hashstick",
    432,
    (
        raw(0x000, 12, "iv"),
        zero(0x00C, 4),
        raw(0x010, 384, "wrapped"),
        integer(0x190, 8, "tcb"),
        zero(0x198, 8),
        raw(0x1A0, 16, "tag"),
    ),
)


def read_hashstick_tcb(data: bytes) -> int:
    """Return the raw TCB version that a hashstick says it is for. Raises ``FormatError``."""
    return HASHSTICK.parse(data).int("tcb")


@final
@dataclass(frozen=True)
class ChipIdentity:
    """One chip of ``product`` under simulated AMD keys.

    ``sev_roots`` signs its CEK; ``snp_roots`` signs its VCEKs, and is None where the product has no
    SNP. ``secret`` is what real chips have in fuses; a fresh one is a fresh chip.
    """

    product: Product
    sev_roots: sev_chain.SimulatedRoots
    snp_roots: snp_chain.SimulatedRoots | None = None
    secret: Secret = field(default_factory=lambda: Secret(os.urandom(32)))

    def __post_init__(self) -> None:
        if self.line.snp is not (self.snp_roots is not None):
            have = "needs" if self.line.snp else "has no"
            raise UsageError(f"impossible chip: {self.product} {have} SNP roots")
        if self.snp_roots is not None and self.snp_roots.line is not self.line:
            raise UsageError(f"impossible chip: {self.product} under {self.snp_roots.line} roots")

    @property
    def line(self) -> ProductLine:
        """The product line, under whose roots the chip's keys stand."""
        return self.product.line

    def _derive(self, label: str, size: int = 32) -> bytes:
        """Return ``size`` bytes that depend on the chip's secret and ``label`` alone."""
        shake = hashlib.shake_256(self.secret.reveal() + label.encode())
        return shake.digest(size)

    def _derive_key(self, label: str) -> ec.EllipticCurvePrivateKey:
        number = int.from_bytes(self._derive(label, _ORDER_BYTES), "big")
        # Below the order and not 0: P-384's order is above 2^383.
        return ec.derive_private_key((number >> 1) | 1, ec.SECP384R1())

    @cached_property
    def chip_id(self) -> bytes:
        """CHIP_ID, 64 bytes: from Turin on an ID of 8 bytes and zeros."""
        return self._derive("chip-id", self.line.hwid_size).ljust(CHIP_ID_SIZE, b"\0")

    @property
    def hardware_id(self) -> bytes:
        """The hardware ID as a VCEK has it: 64 bytes, from Turin on 8."""
        return self.chip_id[: self.line.hwid_size]

    @cached_property
    def cek_key(self) -> ec.EllipticCurvePrivateKey:
        """The chip endorsement key."""
        return self._derive_key("cek")

    @cached_property
    def cek(self) -> bytes:
        """The CEK certificate as firmware exports it: without AMD's signature."""
        public = public_key_of(self.cek_key.public_key())
        return encode_sev_certificate(Usage.CEK, Algorithm.ECDSA_SHA256, public, api=API)

    @cached_property
    def signed_cek(self) -> bytes:
        """The CEK certificate as the key service hands it out: signed by the ASK."""
        signers = {Usage.ASK: self.sev_roots.ask_key}
        return certify(Usage.CEK, Algorithm.ECDSA_SHA256, self.cek_key, signers)

    def vcek_key(self, tcb: TcbVersion) -> ec.EllipticCurvePrivateKey:
        """Return the VCEK of this chip at a TCB version: another version, another key."""
        return self._derive_key(f"vcek {encode_tcb(self.line, tcb):#x}")

    def vcek(self, tcb: TcbVersion) -> bytes:
        """Return the VCEK's certificate as DER: the same bytes every time, as AMD's are."""
        raw_tcb = encode_tcb(self.line, tcb)
        if raw_tcb not in self._vceks:
            extensions = vek_extensions(self.line, VekKind.VCEK, tcb, hwid=self.hardware_id)
            public = self.vcek_key(tcb).public_key()
            self._vceks[raw_tcb] = self._roots.make_vek(VekKind.VCEK, public, extensions)
        return self._vceks[raw_tcb]

    @cached_property
    def _vceks(self) -> dict[int, bytes]:
        return {}

    @property
    def _roots(self) -> snp_chain.SimulatedRoots:
        if self.snp_roots is None:
            raise UsageError(f"{self.product} has no VCEK")
        return self.snp_roots

    def _wrapping_key(self, raw_tcb: int) -> AESGCM:
        return AESGCM(self._derive(f"vlek wrapping key {raw_tcb:#x}"))

    def seal_hashstick(self, vlek: Vlek) -> bytes:
        """Return the 432 bytes with which a provider loads ``vlek`` into this chip."""
        iv = os.urandom(12)
        raw_tcb = encode_tcb(self.line, vlek.tcb)
        number = vlek.key.private_numbers().private_value
        sticks = bytes(_LAST_STICK) + number.to_bytes(_ORDER_BYTES, "little")
        sealed = self._wrapping_key(raw_tcb).encrypt(iv, sticks, raw_tcb.to_bytes(16, "little"))
        values: dict[str, int | bytes] = {"iv": iv, "wrapped": sealed[:-16]}
        values |= {"tcb": raw_tcb, "tag": sealed[-16:]}
        return HASHSTICK.encode(values)

    def open_hashstick(self, data: bytes) -> tuple[ec.EllipticCurvePrivateKey, int]:
        """Return the key and the raw TCB version in a hashstick, as the firmware does.

        Raises ``FormatError`` for another shape, ``SignatureMismatch`` if it is for another chip or
        was changed.
        """
        record = HASHSTICK.parse(data)
        tcb = record.int("tcb")
        try:
            sticks = self._wrapping_key(tcb).decrypt(
                record.raw("iv"),
                record.raw("wrapped") + record.raw("tag"),
                tcb.to_bytes(16, "little"),
            )
        except InvalidTag as error:
            raise SignatureMismatch("the hashstick is not for this chip") from error
        number = int.from_bytes(sticks[_LAST_STICK:], "little")
        return ec.derive_private_key(number, ec.SECP384R1()), tcb


@final
@dataclass(frozen=True)
class Vlek:
    """A versioned loaded endorsement key of one cloud provider: for no one chip."""

    roots: snp_chain.SimulatedRoots
    tcb: TcbVersion
    csp_id: str = "CN=cc-test.example"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP384R1())
    )

    @cached_property
    def certificate(self) -> bytes:
        """The VLEK's certificate as DER."""
        extensions = vek_extensions(self.roots.line, VekKind.VLEK, self.tcb, csp_id=self.csp_id)
        return self.roots.make_vek(VekKind.VLEK, self.key.public_key(), extensions)
