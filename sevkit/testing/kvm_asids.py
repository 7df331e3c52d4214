"""KVM's allocation of ASIDs and the misc cgroup that counts them.

Plain SEV guests take an ASID from ``min_sev_asid`` to the maximum and are charged to ``sev``;
SEV-ES and SNP guests take one below it and are charged to ``sev_es``. With ciphertext hiding the
lower range is split: SNP guests get 1 to N, SEV-ES guests the rest, and ``misc.capacity`` still
says nothing of it. A range without an ASID is ENOTTY, one without a free ASID EBUSY.

Source: Linux ``arch/x86/kvm/svm/sev.c`` (sev_asid_new, sev_hardware_setup) and
``kernel/cgroup/misc.c`` (a capacity of 0 is not listed).
"""

from __future__ import annotations

import errno
import threading
from enum import StrEnum
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.secure_processor.core import AsidRange


class GuestKind(StrEnum):
    """What kind of confidential guest an ASID is for."""

    SEV = "sev"
    SEV_ES = "sev-es"
    SNP = "sev-snp"

    @property
    def resource(self) -> str:
        """The misc cgroup's name of what the guest is charged to."""
        return "sev" if self is GuestKind.SEV else "sev_es"


@final
class AsidPool:
    """The ASIDs of one host; ``ciphertext_hiding`` is kvm_amd's parameter, 0 for off."""

    def __init__(self, asids: AsidRange, *, ciphertext_hiding: int = 0) -> None:
        highest = asids.min_sev_asid - 1
        if not 0 <= ciphertext_hiding <= highest:
            message = f"{ciphertext_hiding} ASIDs for ciphertext hiding, of {highest}"
            raise UsageError(f"impossible machine: {message}")
        #: Called after each change, for whoever shows how many are in use.
        self.changed: Callable[[], None] = lambda: None
        self._lock: Final = threading.Lock()
        self._taken: Final[dict[int, GuestKind]] = {}
        self._peak: Final[dict[str, int]] = {"sev": 0, "sev_es": 0}
        hidden = ciphertext_hiding
        self.ranges: Final[dict[GuestKind, range]] = {
            GuestKind.SEV: range(asids.min_sev_asid, asids.maximum + 1),
            GuestKind.SEV_ES: range(hidden + 1, highest + 1),
            GuestKind.SNP: range(1, (hidden or highest) + 1),
        }
        self._capacity: Final = {
            "sev": len(self.ranges[GuestKind.SEV]),
            "sev_es": highest,
        }

    def take(self, kind: GuestKind) -> int:
        """Return a free ASID for a guest of ``kind``, charged to its resource.

        Raises ``OSError``: ENOTTY for a range that is empty, EBUSY where every ASID is taken.
        """
        with self._lock:
            allowed = self.ranges[kind]
            if not allowed:
                raise OSError(errno.ENOTTY, f"there are no ASIDs for {kind} guests")
            free = next((asid for asid in allowed if asid not in self._taken), None)
            if free is None:
                raise OSError(errno.EBUSY, f"all {len(allowed)} ASIDs for {kind} guests are taken")
            self._taken[free] = kind
            used = self._used(kind.resource)
            self._peak[kind.resource] = max(self._peak[kind.resource], used)
        self.changed()
        return free

    def give_back(self, asid: int) -> None:
        """Free an ASID; one that is not taken is a mistake of the caller's."""
        with self._lock:
            del self._taken[asid]
        self.changed()

    @property
    def capacity(self) -> dict[str, int]:
        """``misc.capacity``: names with a capacity of 0 are left out, as Linux does."""
        return {name: count for name, count in self._capacity.items() if count}

    @property
    def current(self) -> dict[str, int]:
        """``misc.current``."""
        with self._lock:
            return {name: self._used(name) for name in self.capacity}

    @property
    def peak(self) -> dict[str, int]:
        """``misc.peak``."""
        with self._lock:
            return {name: self._peak[name] for name in self.capacity}

    def _used(self, resource: str) -> int:
        return sum(kind.resource == resource for kind in self._taken.values())
