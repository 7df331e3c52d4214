"""What the webhook is called for, and the paths at which it is: its configuration's words. Pure."""

from __future__ import annotations

from typing import Final

from sevkit.kubevirt.tiers import VALUES

GROUP: Final = "kubevirt.io"
INSTANCE: Final = "VirtualMachineInstance"
MACHINE: Final = "VirtualMachine"
MUTATE: Final = "/mutate/"
WARN: Final = "/warn/"
#: The last parts of paths for a namespace with another value, and for one without the label.
UNKNOWN: Final = "unknown"
OWN: Final = "own"
#: Every path that there is.
PATHS: Final = frozenset(
    {
        *(f"{MUTATE}{name}" for name in (*VALUES, UNKNOWN, OWN)),
        *(f"{WARN}{name}" for name in (*VALUES, OWN)),
    }
)
