"""What the owner expects of an SNP report. An absent expectation is never a pass.

``report_data`` and ``measurements`` must be given: ``ANY`` is the spelt-out way to accept every
value. All other defaults are the strict ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import InsecureUsage, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

REPORT_DATA_SIZE: Final = 64
MEASUREMENT_SIZE: Final = 48
HWID_SIZES: Final = (8, 64)


class AnyValue(Enum):
    """The type of ``ANY``: every value is accepted, because the caller said so by name."""

    ANY = "any"


ANY: Final = AnyValue.ANY


@final
@dataclass(frozen=True, slots=True)
class ExpectedMeasurement:
    """One launch digest (48 bytes), what it is for, and whether it covers kernel hashes.

    ``covers_kernel`` is None where nobody said: a bare digest on the command line.
    ``guest_policy`` is the one that the guest is to have besides (64 bits), or None: the digest
    does not cover it. ``parameters`` is what the digest was computed from, for the verdict.
    """

    digest: bytes
    label: str = ""
    covers_kernel: bool | None = None
    guest_policy: int | None = None
    parameters: Mapping[str, str | int] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True)
class Expectations:
    """Everything that a report must satisfy; see ``validate`` for the checks.

    ``minimum_tcb`` names only the components that it bounds. ``chips`` are hardware IDs of 64
    bytes, or 8 for Turin; empty accepts any genuine chip. ``vmpl`` 0 is the guest's kernel.
    """

    report_data: bytes | AnyValue
    measurements: tuple[ExpectedMeasurement, ...] | AnyValue
    host_data: bytes | None = None
    id_key_digest: bytes | None = None
    author_key_digest: bytes | None = None
    family_id: bytes | None = None
    image_id: bytes | None = None
    minimum_guest_svn: int | None = None
    vmpl: int = 0
    allow_debug: bool = False
    allow_migration_agent: bool = False
    require_single_socket: bool = False
    require_alias_check: bool = False
    minimum_tcb: Mapping[str, int] = field(default_factory=dict)
    chips: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        _size("report data", self.report_data, REPORT_DATA_SIZE)
        for name, value, size in (
            ("host data", self.host_data, 32),
            ("ID key digest", self.id_key_digest, 48),
            ("author key digest", self.author_key_digest, 48),
            ("family ID", self.family_id, 16),
            ("image ID", self.image_id, 16),
        ):
            _size(name, value, size)
        if isinstance(self.measurements, tuple):
            if not self.measurements:
                raise InsecureUsage("an empty list of launch digests would accept none or all")
            for expected in self.measurements:
                _size("launch digest", expected.digest, MEASUREMENT_SIZE)
        for chip in self.chips:
            if not any(chip):
                raise UsageError(
                    "a chip's hardware ID is zero", hint="a masked chip ID names no chip"
                )
            if len(chip) not in HWID_SIZES:
                raise UsageError(
                    f"a chip's hardware ID has 64 bytes, or 8 for Turin, got {len(chip)}"
                )
        if not 0 <= self.vmpl <= 3:
            raise UsageError(f"VMPL must be 0 to 3, got {self.vmpl}")
        if self.minimum_guest_svn is not None and not 0 <= self.minimum_guest_svn < 1 << 32:
            raise UsageError("guest SVN must fit 32 bits")


def _size(name: str, value: bytes | AnyValue | None, size: int) -> None:
    if isinstance(value, bytes) and len(value) != size:
        raise UsageError(f"{name} has {size} bytes, got {len(value)}")
