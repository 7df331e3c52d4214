"""Simulated AMD: the root keys of every product line, and the chips that were made under them.

    amd = SimulatedAmd()
    processor = SecureProcessor(amd.make_chip(Product.GENOA))

Keys are made when they are needed: three of 4096 bits for each line, seconds each. As with the real
ones, a line's ARK and ASK are the same keys in both formats, SEV's own and X.509. ``save`` and
``load`` keep everything in a folder (0700, private keys 0600), so that a rehearsal can go on
tomorrow, and other processes can be given the roots: ``LINE-ark.pem`` and ``LINE-ark.cert``.

Nothing of it is trusted unless a caller passes a root by name.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final, final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.sevca import CaChain, parse_ca_certificate
from sevkit.errors import FormatError, HostReadError, UsageError
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.secret import Secret
from sevkit.testing import sev_chain, snp_chain
from sevkit.testing.secure_processor.identity import ChipIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA: Final = "sevkit.io/simulated-amd/v1"
_CHIPS: Final = "chips.json"
_BITS: Final = {ProductLine.NAPLES: 2048}
_KEYS: Final = ("ark", "ask", "asvk")


@final
class SimulatedAmd:
    """AMD's keys for every line, and its chips."""

    def __init__(self) -> None:
        self._sev: Final[dict[ProductLine, sev_chain.SimulatedRoots]] = {}
        self._snp: Final[dict[ProductLine, snp_chain.SimulatedRoots]] = {}
        self.chips: Final[list[ChipIdentity]] = []

    def sev_roots(self, line: ProductLine) -> sev_chain.SimulatedRoots:
        """Return the line's ARK and ASK in SEV's format."""
        if line not in self._sev:
            keys = {}
            if line.snp:
                snp = self.snp_roots(line)
                keys = {"ark_key": snp.ark_key, "ask_key": snp.ask_key}
            self._sev[line] = sev_chain.make_roots(bits=_BITS.get(line, 4096), **keys)
        return self._sev[line]

    def snp_roots(self, line: ProductLine) -> snp_chain.SimulatedRoots:
        """Return the line's ARK, ASK and ASVK in X.509; raises ``UsageError`` without SNP."""
        if not line.snp:
            raise UsageError(f"{line} has no SNP")
        return self._snp.setdefault(line, snp_chain.SimulatedRoots(line))

    def make_chip(self, product: Product, secret: Secret | None = None) -> ChipIdentity:
        """Return a new chip, which is remembered in ``chips``; ``secret`` makes a known one."""
        line = product.line
        roots = self.snp_roots(line) if line.snp else None
        chip = ChipIdentity(product, self.sev_roots(line), roots, secret or Secret(os.urandom(32)))
        self.chips.append(chip)
        return chip

    def save(self, folder: Path) -> None:
        """Write every root and chip that was made. What is there already is kept as it is."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for line, sev in self._sev.items():
            self._save_line(folder, line, sev)
        chips = [
            {"product": str(chip.product), "secret": chip.secret.reveal().hex()}
            for chip in self.chips
        ]
        document = json.dumps({"schema": SCHEMA, "chips": chips}, indent=2) + "\n"
        _write(folder / _CHIPS, document.encode(), 0o600, replace=True)

    def _save_line(self, folder: Path, line: ProductLine, sev: sev_chain.SimulatedRoots) -> None:
        name = line.casefold()
        keys = {"ark": sev.ark_key, "ask": sev.ask_key}
        public = {"ark.cert": sev.root, "ask-ark.cert": sev.ask_ark}
        snp = self._snp.get(line)
        if snp is not None:
            keys["asvk"] = snp.asvk_key
            pems = {key: encode_pem_certificate(getattr(snp, key)) for key in _KEYS}
            public |= {f"{key}.pem": pem for key, pem in pems.items()}
        for key, private in keys.items():
            pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            _write(folder / f"{name}-{key}.key", pem, 0o600)
        for file, data in public.items():
            _write(folder / f"{name}-{file}", data, 0o644)

    @classmethod
    def load(cls, folder: Path) -> SimulatedAmd:
        """Return what ``save`` wrote; an absent folder is a new AMD.

        Raises ``FormatError`` for what ``save`` did not write, also for chips whose roots are gone:
        new ones would be another AMD's. Raises ``HostReadError`` for a file that cannot be read.
        """
        amd = cls()
        for line in ProductLine:
            if (folder / f"{line.casefold()}-ark.key").exists():
                amd._load_line(folder, line)
        if (folder / _CHIPS).exists():
            for product, secret in _parse_chips(_read(folder / _CHIPS)):
                if product.line not in amd._sev:
                    raise FormatError(_CHIPS, f"names a chip of {product}, whose roots are gone")
                amd.make_chip(product, secret)
        return amd

    def _load_line(self, folder: Path, line: ProductLine) -> None:
        name = line.casefold()
        ark_key, ask_key = (_read_key(folder / f"{name}-{key}.key") for key in ("ark", "ask"))
        chain = _read(folder / f"{name}-ask-ark.cert")
        half = len(chain) // 2
        ca = CaChain(parse_ca_certificate(chain[:half]), parse_ca_certificate(chain[half:]))
        self._sev[line] = sev_chain.SimulatedRoots(ark_key, ask_key, ca)
        if line.snp:
            roots = snp_chain.SimulatedRoots(line)
            roots.ark_key, roots.ask_key = ark_key, ask_key
            roots.asvk_key = _read_key(folder / f"{name}-asvk.key")
            roots.ark, roots.ask, roots.asvk = (
                _read_certificate(folder / f"{name}-{key}.pem") for key in _KEYS
            )
            self._snp[line] = roots


def _parse_chips(data: bytes) -> Iterator[tuple[Product, Secret]]:
    try:
        document = json.loads(data)
        if document["schema"] != SCHEMA:
            raise FormatError(_CHIPS, f"is not a document of {SCHEMA}")
        for row in document["chips"]:
            yield Product(row["product"]), Secret(bytes.fromhex(row["secret"]))
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(_CHIPS, "is not what was saved") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise HostReadError(f"{path}: cannot be read: {error.strerror}") from error


def _read_key(path: Path) -> rsa.RSAPrivateKey:
    try:
        key = load_pem_private_key(_read(path), None)
    except ValueError as error:
        raise FormatError(path.name, "is no private key in PEM") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise FormatError(path.name, "is no RSA key")
    return key


def _read_certificate(path: Path) -> bytes:
    from cryptography import x509  # noqa: PLC0415  # only a saved state needs it

    try:
        return x509.load_pem_x509_certificate(_read(path)).public_bytes(Encoding.DER)
    except ValueError as error:
        raise FormatError(path.name, "is no certificate in PEM") from error


def _write(path: Path, data: bytes, mode: int, *, replace: bool = False) -> None:
    """Write a file whole, with its mode from the start; keep one that is there, unless told."""
    if path.exists() and not replace:
        return
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    fresh.replace(path)
