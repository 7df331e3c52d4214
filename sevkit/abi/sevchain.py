"""The platform's certificate chain in the files that carry it: sevctl's export and libvirt's chain.

``sevctl export`` writes pdh ‖ pek ‖ oca ‖ cek, 8,336 bytes, and with ``--full`` ask ‖ ark after
them. QEMU, libvirt and KubeVirt give the PDH alone and the rest as one chain, pek ‖ oca ‖ cek.
Sources: 55766 5.10 (PDH_CERT_EXPORT, order of the chain), sevctl's and QEMU's file formats.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, final

from sevkit.abi.sevca import CaChain, parse_ca_chain
from sevkit.abi.sevcert import SIZE, SevCertificate, parse_sev_certificate
from sevkit.errors import FormatError

EXPORT_SIZE: Final = 4 * SIZE
CHAIN_SIZE: Final = 3 * SIZE


@final
@dataclass(frozen=True, slots=True)
class PlatformChain:
    """One platform's four certificates, by their place; nothing is verified, not even usages."""

    pdh: SevCertificate
    pek: SevCertificate
    oca: SevCertificate
    cek: SevCertificate

    def with_cek(self, cek: SevCertificate) -> PlatformChain:
        """Return the chain with another copy of the CEK.

        The firmware exports its CEK without AMD's signature; the signed copy comes from the key
        service and takes its place.
        """
        return replace(self, cek=cek)

    def encode(self) -> bytes:
        """Return pdh ‖ pek ‖ oca ‖ cek, as ``sevctl export`` writes it."""
        return self.pdh.data + self.pek.data + self.oca.data + self.cek.data


def parse_parts(pdh: bytes, chain: bytes) -> PlatformChain:
    """Return the chain in a PDH and pek ‖ oca ‖ cek, as libvirt and KubeVirt give them."""
    if len(chain) != CHAIN_SIZE:
        raise FormatError(
            "pek ‖ oca ‖ cek",
            f"expected {CHAIN_SIZE} bytes, got {len(chain)}",
            offset=min(len(chain), CHAIN_SIZE),
        )
    return PlatformChain(
        parse_sev_certificate(pdh, name="PDH"),
        parse_sev_certificate(chain[:SIZE], name="PEK"),
        parse_sev_certificate(chain[SIZE : 2 * SIZE], name="OCA"),
        parse_sev_certificate(chain[2 * SIZE :], name="CEK"),
    )


def parse_chain_export(data: bytes) -> tuple[PlatformChain, CaChain | None]:
    """Return the chain in sevctl's export, and ask ‖ ark if they follow.

    Raises ``FormatError`` for any other length.
    """
    if len(data) < EXPORT_SIZE:
        raise FormatError(
            "platform chain", f"expected {EXPORT_SIZE} bytes, got {len(data)}", offset=len(data)
        )
    platform = parse_parts(data[:SIZE], data[SIZE:EXPORT_SIZE])
    rest = data[EXPORT_SIZE:]
    return platform, parse_ca_chain(rest) if rest else None
