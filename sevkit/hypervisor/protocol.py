"""What sevkit asks of a hypervisor: a Protocol that libvirt and the simulated one both implement.

Everything that comes back is the host's word. What of it is true is shown by a signature (the
certificate chain) or by an HMAC (the launch measurement), never by where it came from.

Whatever fails raises a ``HypervisorError``; its subclasses tell apart what a caller does different
things about. An answer that does not have libvirt's shape is a ``FormatError``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, final

from sevkit.abi.secret_packet import MAX_TABLE_SIZE, PACKET_HEADER
from sevkit.errors import FormatError, HypervisorError

#: One block of AES, of which a launch secret has a whole number.
_BLOCK: Final = 16


class HypervisorUnreachable(HypervisorError):
    """There is no connection, or it broke, or it was refused."""


class NoSuchDomain(HypervisorError):
    """There is no domain of that name, or not any more."""


class NotSupported(HypervisorError):
    """There is no such function for this libvirt, driver, host or domain."""


class NoSuchVirtType(HypervisorError):
    """There are no guests of that kind on this host; KVM's need KVM."""


class WrongState(HypervisorError):
    """The domain is not in the state that this needs: it is not paused, or not running at all."""


@final
class DomainState(StrEnum):
    """What a domain is doing, by the words of ``virsh domstate``."""

    NO_STATE = "no state"
    RUNNING = "running"
    BLOCKED = "idle"
    PAUSED = "paused"
    IN_SHUTDOWN = "in shutdown"
    SHUT_OFF = "shut off"
    CRASHED = "crashed"
    SUSPENDED = "pmsuspended"


@final
@dataclass(frozen=True, slots=True)
class NodeSevInfo:
    """What ``virsh nodesevinfo`` shows of the host's secure processor, as bytes.

    ``pdh`` has 2,084 bytes, ``cert_chain`` (pek ‖ oca ‖ cek) 6,252. libvirt has them from its cache
    of capabilities, so a PDH that was made since then is not seen. ``cpu0_id`` and the numbers of
    guests are None where this libvirt does not give them; the numbers are CPUID's ranges of ASIDs.
    """

    pdh: bytes
    cert_chain: bytes
    cbitpos: int
    reduced_phys_bits: int
    cpu0_id: bytes | None = None
    max_guests: int | None = None
    max_es_guests: int | None = None


@final
@dataclass(frozen=True, slots=True)
class LaunchSecurityInfo:
    """What ``virsh domlaunchsecinfo`` shows of a SEV or SEV-ES guest.

    ``measurement`` is measure ‖ mnonce, 48 bytes; the rest is what the HMAC covers beside the
    digest: API level and build of the firmware (8 bits each) and the guest policy (32 bits).
    """

    measurement: bytes
    api_major: int
    api_minor: int
    build_id: int
    policy: int


class Domain(Protocol):
    """One domain. Every method raises ``HypervisorError``; ``NoSuchDomain`` once it is gone."""

    @property
    def name(self) -> str:
        """The domain's name."""

    def xml(self) -> str:
        """Return the domain's XML, without what libvirt keeps secret."""

    def state(self) -> DomainState:
        """Return what the domain is doing."""

    def launch_security_info(self) -> LaunchSecurityInfo:
        """Return the launch measurement and what belongs to it.

        Raises ``NotSupported`` for a domain without launch security, ``WrongState`` for one that
        was not started.
        """

    def inject_launch_secret(
        self, header: bytes, secret: bytes, *, address: int | None = None
    ) -> None:
        """Hand a launch secret packet to the secure processor.

        ``header`` has 52 bytes, ``secret`` is the ciphertext; ``address`` is the guest address it
        goes to, or None for where the firmware says. Raises ``FormatError`` for other sizes,
        ``NotSupported`` for a domain that is not of SEV or SEV-ES, ``WrongState`` for one that is
        not paused.
        """

    def resume(self) -> None:
        """Let a paused domain run. Raises ``WrongState`` for one that is not paused."""

    def pause(self) -> None:
        """Stop a running domain's vCPUs. A domain that is paused stays so."""

    def destroy(self) -> None:
        """End the domain at once. A domain that libvirt does not keep is gone after it."""


class Hypervisor(Protocol):
    """One host's hypervisor. Every method raises ``HypervisorError``."""

    def hostname(self) -> str:
        """Return what the host calls itself: a name of its own choice, never empty."""

    def domain_capabilities(self) -> str:
        """Return the XML of ``virsh domcapabilities`` for this host's kind of guests."""

    def node_sev_info(self) -> NodeSevInfo:
        """Return what the host's secure processor is. Raises ``NotSupported`` without SEV."""

    def domain(self, name: str) -> Domain:
        """Return a domain by its name. Raises ``NoSuchDomain``."""


def check_launch_secret(header: bytes, secret: bytes) -> None:
    """Refuse a packet that no firmware takes, before the one launch it is for is spent on it.

    An empty secret is one of these: libvirt would hand it on. Raises ``FormatError``.
    """
    if len(header) != PACKET_HEADER.size:
        message = f"expected {PACKET_HEADER.size} bytes, got {len(header)}"
        raise FormatError(PACKET_HEADER.name, message)
    size = len(secret)
    if not 0 < size <= MAX_TABLE_SIZE or size % _BLOCK:
        raise FormatError("launch secret", f"{size} bytes cannot be injected")
