"""Contract tests: what an implementation of one of sevkit's Protocols must do, for pytest.

Derive a class named ``Test…`` from a contract, override its fixtures, and every test of it runs
against your implementation. sevkit's simulated hardware and its real counterparts pass the same.
"""

from __future__ import annotations

import pytest

for _name in ("hypervisor", "launch_endpoints", "sev_device"):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")
