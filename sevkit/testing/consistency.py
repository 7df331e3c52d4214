"""Impossible machines are refused: a test that passes on one proves nothing.

A machine is judged twice: by what it is made of (``sevkit.testing.host.spec_rules``), and by what
it is like after it booted (``state_rules``), so that also a state that was made by hand has to be
one that a real machine could be in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevkit.errors import UsageError
from sevkit.testing.host.booting import boot
from sevkit.testing.host.spec_rules import SPEC_RULES
from sevkit.testing.host.state_rules import STATE_RULES

if TYPE_CHECKING:
    from sevkit.testing.host.spec import HostSpec
    from sevkit.testing.host.state import HostState


def check_host(spec: HostSpec) -> None:
    """Refuse a machine that cannot be, with every reason.

    Raises ``UsageError``. What the machine boots to is judged too, if its parts are possible.
    """
    found = contradictions(spec) or state_contradictions(spec, boot(spec))
    if found:
        raise UsageError(f"impossible machine: {'; '.join(found)}")


def check_state(spec: HostSpec, state: HostState) -> None:
    """Refuse a state in which this machine cannot be. Raises ``UsageError``."""
    found = state_contradictions(spec, state)
    if found:
        raise UsageError(f"impossible state: {'; '.join(found)}")


def contradictions(spec: HostSpec) -> tuple[str, ...]:
    """Return one finding for each thing that cannot be in a spec."""
    return tuple(finding for rule in SPEC_RULES for finding in rule(spec))


def state_contradictions(spec: HostSpec, state: HostState) -> tuple[str, ...]:
    """Return one finding for each thing that cannot be in a state of this machine."""
    return tuple(message for broken, message in STATE_RULES if broken(spec, state))
