"""Simulated SEV hosts: a root directory with everything that a node probe reads.

``write_host(PRESETS["genoa"], root)`` writes a healthy Genoa; ``with_defects("genoa",
["smee-off"])`` is one that is broken in a known way; ``boot`` says what Linux makes of any of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sevkit.testing.host.booting import boot
    from sevkit.testing.host.defects import DEFECTS, Defect, apply_defects, with_defects
    from sevkit.testing.host.firmware_view import firmware_facts
    from sevkit.testing.host.presets import PRESETS
    from sevkit.testing.host.processor import make_processor
    from sevkit.testing.host.spec import HostSpec
    from sevkit.testing.host.state import HostState
    from sevkit.testing.host.write import write_host

__all__ = [
    "DEFECTS",
    "PRESETS",
    "Defect",
    "HostSpec",
    "HostState",
    "apply_defects",
    "boot",
    "firmware_facts",
    "make_processor",
    "with_defects",
    "write_host",
]

_HOMES: Final = {
    "DEFECTS": "defects",
    "Defect": "defects",
    "HostSpec": "spec",
    "HostState": "state",
    "PRESETS": "presets",
    "apply_defects": "defects",
    "boot": "booting",
    "firmware_facts": "firmware_view",
    "make_processor": "processor",
    "with_defects": "defects",
    "write_host": "write",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
