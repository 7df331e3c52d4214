"""From which firmware on SEV-ES guests are refused once SNP is initialised.

Source: AMD-SB-3023 (CVE-2025-48514), as the kernel's patch "don't advertise VM types that are
disabled by firmware" applies it: by the SNP component of the current TCB version, not the reported
one. Older firmware runs SEV-ES beside SNP, open to that attack.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sevkit.abi.product import ProductLine

if TYPE_CHECKING:
    from collections.abc import Mapping

#: First SNP security version number of each line that refuses LAUNCH_START of SEV-ES guests.
SEV_ES_BLOCKED_FROM: Final[Mapping[ProductLine, int]] = MappingProxyType(
    {ProductLine.MILAN: 0x1B, ProductLine.GENOA: 0x1B, ProductLine.TURIN: 0x04}
)
