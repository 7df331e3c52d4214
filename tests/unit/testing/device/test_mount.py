from __future__ import annotations

import pytest

from sevkit.errors import UndecidedError, UsageError
from sevkit.testing.device.kvm import KvmDevice
from sevkit.testing.device.mount import FuseDevices, unavailable_reason


def test_why_devices_cannot_be_had_is_a_line_or_nothing() -> None:
    reason = unavailable_reason()
    assert reason is None or (reason and "\n" not in reason and not reason.endswith("."))


def test_before_they_are_mounted_devices_have_no_path() -> None:
    devices = FuseDevices({"sev": KvmDevice()})
    assert devices.names == ("sev",)
    assert devices.namespace is None
    with pytest.raises(UndecidedError, match="not mounted"):
        _ = devices.path
    with pytest.raises(UndecidedError, match="not mounted"):
        _ = devices.folder


def test_a_bad_name_is_refused_before_anything_is_mounted() -> None:
    with pytest.raises(UsageError, match="not a relative path"):
        FuseDevices({"/dev/sev": KvmDevice()})
