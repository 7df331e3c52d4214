"""The catalogue of checks, in the order in which a host is set up. Names are a promise.

Sources of the checks that others make too: virtee's sevctl and snphost, ``ok`` of each.
"""

from __future__ import annotations

from typing import Final

from sevkit.host.doctor.capacity import CAPACITY
from sevkit.host.doctor.processor import PROCESSOR
from sevkit.host.doctor.secure_processor import SECURE_PROCESSOR
from sevkit.host.doctor.system import SYSTEM

CATALOGUE: Final = (*PROCESSOR, *SYSTEM, *SECURE_PROCESSOR, *CAPACITY)
