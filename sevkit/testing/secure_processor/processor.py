"""One simulated secure processor: its platform and guest commands for SEV and for SNP.

    processor = SecureProcessor(ChipIdentity(Product.MILAN, sev_roots, snp_roots))
    processor.snp.init()
    processor.sev.init(es=True)
    handle = processor.sev_guests.launch_start(policy, session=…, godh=…)

Commands are methods. What the firmware refuses is a ``CommandError`` with its status; a processor
that does not answer raises ``NoAnswer``. Nothing here knows of an operating system: what Linux
makes of it is ``sevkit.testing.driver``, what KVM does is ``sevkit.testing.virtual_machine``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, final

from sevkit.testing.secure_processor.core import AsidRange, Core, Firmware
from sevkit.testing.secure_processor.sev_guests import SevGuests
from sevkit.testing.secure_processor.sev_platform import SevPlatform
from sevkit.testing.secure_processor.snp_guests import SnpGuests
from sevkit.testing.secure_processor.snp_messages import SnpMessages
from sevkit.testing.secure_processor.snp_platform import SnpPlatform

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import RLock

    from sevkit.testing.secure_processor.faults import Faults
    from sevkit.testing.secure_processor.identity import ChipIdentity


@final
class SecureProcessor:
    """The firmware of one chip. Give ``draw`` a generator of known bytes for known answers."""

    def __init__(
        self,
        identity: ChipIdentity,
        firmware: Firmware | None = None,
        *,
        asids: AsidRange | None = None,
        draw: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.core: Final = Core(identity, firmware, asids=asids, draw=draw)
        self.sev: Final = SevPlatform(self.core)
        self.sev_guests: Final = SevGuests(self.core, self.sev)
        self.snp: Final = SnpPlatform(self.core, self.sev)
        self.snp_guests: Final = SnpGuests(self.core, self.snp)
        self.messages: Final = SnpMessages(self.core, self.snp, self.snp_guests)

    @property
    def identity(self) -> ChipIdentity:
        """Who the chip is."""
        return self.core.identity

    @property
    def faults(self) -> Faults:
        """What is to go wrong."""
        return self.core.faults

    @property
    def lock(self) -> RLock:
        """The mailbox: hold it around a command, or around several that belong together."""
        return self.core.lock
