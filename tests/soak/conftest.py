"""What the soak tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hack.load import Load

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def load(record_property: Callable[[str, object], None]) -> Load:
    """Threads whose rate is told below the table of lanes."""
    return Load(record_property)
