"""What the key service has, and the address of each thing: AMD's URL scheme. Pure.

A ``Resource`` is asked for by value (kind, line, chip, TCB version); it is also the key of the
certificate cache, so that no text of an outsider ever becomes part of a path or an address.
Source: 57230 chapter 4 (interface of the key service). A VLEK is not here: AMD gives it only to
cloud providers, who hand it to their guests.
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.tcb import POSITIONS, TcbVersion, encode_tcb
from sevkit.errors import FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.abi.product import ProductLine

#: AMD's own key service.
AMD_KEY_SERVICE: Final = "https://kdsintf.amd.com"
CHIP_ID_SIZE: Final = 64

#: The key service's name of each component of a TCB version, in the order of AMD's table.
SPL_NAMES: Final[Mapping[str, str]] = {
    "fmc": "fmcSPL",
    "bootloader": "blSPL",
    "tee": "teeSPL",
    "snp": "snpSPL",
    "microcode": "ucodeSPL",
}


class Kind(StrEnum):
    """What a resource is."""

    VCEK = "vcek"
    VCEK_CHAIN = "vcek-chain"
    VLEK_CHAIN = "vlek-chain"
    VCEK_CRL = "vcek-crl"
    VLEK_CRL = "vlek-crl"
    CEK = "cek"


_LINE_PATHS: Final[Mapping[Kind, str]] = {
    Kind.VCEK_CHAIN: "/vcek/v1/{}/cert_chain",
    Kind.VLEK_CHAIN: "/vlek/v1/{}/cert_chain",
    Kind.VCEK_CRL: "/vcek/v1/{}/crl",
    Kind.VLEK_CRL: "/vlek/v1/{}/crl",
}


@final
@dataclass(frozen=True, slots=True)
class Resource:
    """One thing that the key service has. Made by ``vcek``, ``chain``, ``crl`` and ``cek``.

    ``line`` is None for a CEK, whose address does not name it; ``hwid`` is empty and ``tcb`` None
    for what belongs to a whole line.
    """

    kind: Kind
    line: ProductLine | None
    hwid: bytes = b""
    tcb: TcbVersion | None = None

    @property
    def target(self) -> str:
        """The path, and query if any, at a key service."""
        if self.kind is Kind.CEK:
            return f"/cek/id/{self.hwid.hex()}"
        if self.tcb is None:
            return _LINE_PATHS[self.kind].format(self.line)
        # Two digits at least, as AMD prints them; 100 and above have three.
        components = self.tcb.components
        query = "&".join(
            f"{spl}={components[name]:02d}" for name, spl in SPL_NAMES.items() if name in components
        )
        return f"/vcek/v1/{self.line}/{self.hwid.hex()}?{query}"

    def url(self, base: str = AMD_KEY_SERVICE) -> str:
        """Return the address at the key service ``base``, which ``check_base_url`` has judged."""
        return base + self.target

    def __str__(self) -> str:
        parts = [self.kind.value, self.line or "", self.hwid.hex(), str(self.tcb or "")]
        return " ".join(part for part in parts if part)


def vcek(line: ProductLine, hwid: bytes, tcb: TcbVersion) -> Resource:
    """Return the VCEK of one chip at one TCB version, which is the report's *reported* one.

    ``hwid`` has 64 bytes, for Turin 8 (see ``hwid_from_chip_id``). Raises ``FormatError`` for
    another size, an all-zero (masked) hardware ID, or a TCB version with other components than the
    line's.
    """
    if line not in POSITIONS:
        raise FormatError("product line", f"{line} has no SEV-SNP, so no VCEK")
    _check_chip("hardware ID", hwid, line.hwid_size)
    encode_tcb(line, tcb)
    return Resource(Kind.VCEK, line, hwid, tcb)


def chain(line: ProductLine, *, vlek: bool) -> Resource:
    """Return the chain of a line in PEM: ASK, or ASVK if ``vlek``, then ARK."""
    return _of_line(Kind.VLEK_CHAIN if vlek else Kind.VCEK_CHAIN, line)


def crl(line: ProductLine, *, vlek: bool) -> Resource:
    """Return a line's revocation list in DER, signed by the ARK; two addresses have it."""
    return _of_line(Kind.VLEK_CRL if vlek else Kind.VCEK_CRL, line)


def cek(chip_id: bytes) -> Resource:
    """Return the CEK certificate of a chip by the 64 bytes that GET_ID gives (55766 5.10)."""
    _check_chip("chip ID", chip_id, CHIP_ID_SIZE)
    return Resource(Kind.CEK, None, chip_id)


def hwid_from_chip_id(line: ProductLine, chip_id: bytes) -> bytes:
    """Return the hardware ID that a VCEK is asked for by, of a report's 64-byte chip ID.

    For Turin the first 8 bytes, and the rest must be zero (57230 3.1). An all-zero chip ID is
    masked and names no chip. Raises ``FormatError``.
    """
    if len(chip_id) != CHIP_ID_SIZE:
        raise FormatError("chip ID", f"expected {CHIP_ID_SIZE} bytes, got {len(chip_id)}")
    hwid, rest = chip_id[: line.hwid_size], chip_id[line.hwid_size :]
    if any(rest):
        message = f"a {line} chip ID has {line.hwid_size} bytes and zeros"
        raise FormatError("chip ID", message, offset=line.hwid_size)
    _check_chip("chip ID", hwid, line.hwid_size)
    return hwid


def check_base_url(url: str) -> str:
    """Return the address of a key service without its final slash, or raise ``UsageError``.

    Always https: a certificate proves itself, but an old revocation list in place of the new one
    does not, and the address of a VCEK names a chip.
    """
    hint = f"for example {AMD_KEY_SERVICE}"
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise UsageError("key service address has characters that no URL has", hint=hint)
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"key service address is ill-formed: {error}", hint=hint) from error
    if parts.scheme != "https" or not parts.hostname or port == 0:
        raise UsageError("key service address must be https://HOST[:PORT][/PATH]", hint=hint)
    if parts.username is not None or parts.password is not None:
        raise UsageError("key service address must not hold credentials", hint=hint)
    if "?" in url or "#" in url:
        raise UsageError("key service address must have no query and no fragment", hint=hint)
    return url.rstrip("/")


def _of_line(kind: Kind, line: ProductLine) -> Resource:
    if not line.snp:
        raise FormatError("product line", f"{line} has no SEV-SNP, so no {kind.value}")
    return Resource(kind, line)


def _check_chip(structure: str, chip: bytes, size: int) -> None:
    if len(chip) != size:
        raise FormatError(structure, f"expected {size} bytes, got {len(chip)}")
    if not any(chip):
        raise FormatError(
            structure,
            "is all zero: masked, it names no chip",
            hint="the host masks chip IDs (MASK_CHIP_ID); have the VCEK from the host itself",
        )
