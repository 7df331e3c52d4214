"""The one door to a host: everything that a probe may ask, whoever answers.

A source answers with readings and never raises. Nothing here can change a host: files are read,
devices are opened for reading, and of /dev/sev's commands only those that report a status exist.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from sevkit.host.firmware import FirmwareFacts
    from sevkit.host.reading import Reading


class Registers(NamedTuple):
    """What one CPUID leaf answers."""

    eax: int
    ebx: int
    ecx: int
    edx: int


class KvmExtension(IntEnum):
    """Capabilities of KVM_CHECK_EXTENSION that say something about SEV."""

    SYS_ATTRIBUTES = 209
    GUEST_MEMFD = 234
    VM_TYPES = 235


class KvmAttribute(IntEnum):
    """Attributes of KVM_X86_GRP_SEV, each of 64 bits."""

    VMSA_FEATURES = 0
    SNP_POLICY_BITS = 1
    SNP_REQ_CERTS = 2


class Rights(NamedTuple):
    """What this process may do with a device node; nothing is opened to find out."""

    readable: bool
    writable: bool


class HostSource(Protocol):
    """A host, or a copy of one. Paths are relative to its root, such as ``proc/cpuinfo``."""

    @property
    def simulated(self) -> bool:
        """Whether this is not the machine that we run on: a simulated or captured tree."""
        ...

    def text(self, path: str, *, limit: int = ..., head: bool = ...) -> Reading[str]:
        """Return the text of a file, at most ``limit`` bytes of it."""
        ...

    def names(self, path: str) -> Reading[tuple[str, ...]]:
        """Return the names in a folder, sorted."""
        ...

    def is_there(self, path: str) -> Reading[bool]:
        """Return whether there is anything at ``path``."""
        ...

    def rights(self, path: str) -> Reading[Rights]:
        """Return what this process may do with the device at ``path``."""
        ...

    def cpuid(self, leaf: int, subleaf: int = 0) -> Reading[Registers]:
        """Return what CPUID answers; a leaf beyond the processor's last is not asked for."""
        ...

    def kvm_extension(self, number: KvmExtension) -> Reading[int]:
        """Return what KVM_CHECK_EXTENSION answers; 0 is "no", also of a kernel without it."""
        ...

    def kvm_attribute(self, number: KvmAttribute) -> Reading[int]:
        """Return an attribute of SEV in KVM."""
        ...

    def firmware(self) -> Reading[FirmwareFacts]:
        """Return what the secure processor's status commands say."""
        ...

    def log(self) -> Reading[str]:
        """Return the kernel's log since the boot."""
        ...
