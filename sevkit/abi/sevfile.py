"""Any number of SEV certificates behind each other, of whatever role: for showing, not judging.

Source: 55766 appendix C. Which format stands at a place is told by the usage field, which the two
formats have at different offsets.
"""

from __future__ import annotations

from typing import Final

from sevkit.abi.sevca import UNSIGNED_NAPLES_ARK_SIZE, CaCertificate, parse_ca_certificate
from sevkit.abi.sevcert import SIZE, SevCertificate, Usage, parse_sev_certificate
from sevkit.errors import FormatError

NAME: Final = "SEV certificates"
MAX_CERTIFICATES: Final = 16
_USAGE_OFFSET: Final = 0x08
_MODULUS_BITS_OFFSET: Final = 0x3C
_CA_SIZES: Final = {2048: 832, 4096: 1600}
_ROLES: Final = frozenset({Usage.OCA, Usage.PEK, Usage.PDH, Usage.CEK})


def split_certificates(data: bytes) -> tuple[SevCertificate | CaCertificate, ...]:
    """Return every certificate in ``data``; nothing else may be there. Raises ``FormatError``."""
    found: list[SevCertificate | CaCertificate] = []
    position = 0
    while position < len(data) or not found:
        if len(found) == MAX_CERTIFICATES:
            raise FormatError(NAME, f"more than {MAX_CERTIFICATES}", offset=position)
        rest = data[position:]
        if _word(rest, _USAGE_OFFSET) in _ROLES:
            found.append(parse_sev_certificate(rest[:SIZE]))
            position += SIZE
            continue
        size = _CA_SIZES.get(_word(rest, _MODULUS_BITS_OFFSET))
        if size is None:
            raise FormatError(NAME, "neither a SEV nor a CA certificate", offset=position)
        if len(rest) == UNSIGNED_NAPLES_ARK_SIZE:
            size = len(rest)
        found.append(parse_ca_certificate(rest[:size]))
        position += size
    return tuple(found)


def _word(data: bytes, offset: int) -> int:
    """Return a u32, or -1 where the data is too short to have one."""
    return int.from_bytes(data[offset : offset + 4], "little") if len(data) >= offset + 4 else -1
