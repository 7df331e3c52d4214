"""The real hypervisor: libvirt through libvirt-python, behind ``sevkit.hypervisor.protocol``.

Connections are opened when they are first needed, and read-only where that is enough: libvirt gives
domain capabilities and everything about SEV to read-write connections only. Nothing is printed:
libvirt's own messages to stderr are turned off for the process. No ``libvirtError`` leaves here.

How long a call may take is libvirt's business: it waits for its daemon for ever, unless keepalive
messages tell that the daemon is dead, and these need an event loop. Whoever wants the bound gives
``dead_after`` and lets a thread of his run an ``EventLoop``, made before the first connection.
Opening a connection is never bounded.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from typing import TYPE_CHECKING, Any, Final, Self, final

from sevkit.errors import HypervisorError, UsageError
from sevkit.hypervisor.libvirt_errors import LibvirtCode, translate_error
from sevkit.hypervisor.parameters import (
    MEASUREMENT,
    encode_launch_secret,
    parse_launch_security_info,
    parse_node_sev_info,
)
from sevkit.hypervisor.protocol import (
    DomainState,
    LaunchSecurityInfo,
    NodeSevInfo,
    NoSuchVirtType,
    NotSupported,
    WrongState,
    check_launch_secret,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

#: ``virDomainState``, whose numbers are the positions.
_STATES: Final = (
    DomainState.NO_STATE,
    DomainState.RUNNING,
    DomainState.BLOCKED,
    DomainState.PAUSED,
    DomainState.IN_SHUTDOWN,
    DomainState.SHUT_OFF,
    DomainState.CRASHED,
    DomainState.SUSPENDED,
)
_RUNS: Final = frozenset({DomainState.RUNNING, DomainState.BLOCKED})


@functools.cache
def _libvirt() -> Any:  # noqa: ANN401  # libvirt-python has no types
    """Return libvirt-python, silenced. It is imported by name: not every build of us has it."""
    try:
        library = importlib.import_module("libvirt")
    except ImportError as error:
        raise UsageError(
            f"libvirt cannot be asked: {error}", hint="pip install 'sevkit[libvirt]'"
        ) from error
    library.registerErrorHandler(lambda _context, _error: None, None)
    return library


def _call(doing: str, function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401  # as above
    try:
        return function(*arguments)
    except _libvirt().libvirtError as error:
        raise translate_error(
            doing,
            error.get_error_code() or LibvirtCode.INTERNAL_ERROR,
            error.get_error_message() or str(error),
            origin=error.get_error_domain() or 0,
        ) from error
    except (ValueError, OverflowError) as error:  # a NUL or a surrogate in a name, a huge number
        raise UsageError(f"{doing}: {error}") from error


@final
class LibvirtHypervisor:
    """One libvirt by its URI, such as ``qemu:///system``. Close it, or use it as a context manager.

    Domain capabilities are asked for of ``arch``, ``machine`` and the first of ``virt_types`` that
    this host has guests of.
    ``dead_after`` is in seconds; see above. Raises ``UsageError`` where libvirt-python is missing.
    """

    def __init__(
        self,
        uri: str,
        *,
        virt_types: Sequence[str] = ("kvm",),
        arch: str = "x86_64",
        machine: str = "q35",
        dead_after: int | None = None,
    ) -> None:
        self._library: Final = _libvirt()
        self._uri: Final = uri
        self._guest: Final = (arch, machine)
        self._virt_types: Final = tuple(virt_types)
        self._dead_after: Final = dead_after
        self._connections: Final[dict[bool, Any]] = {}

    def connection(self, *, writable: bool) -> Any:  # noqa: ANN401  # as above
        """Return libvirt-python's connection, opened if there is none that is good enough."""
        for mode in (writable, True):
            if mode in self._connections:
                return self._connections[mode]
        opener = self._library.open if writable else self._library.openReadOnly
        found = _call(f"connect to {self._uri}", opener, self._uri)
        self._connections[writable] = found
        if self._dead_after is not None:
            with contextlib.suppress(self._library.libvirtError):  # drivers without a daemon
                found.setKeepAlive(max(1, self._dead_after // 3), 2)
        return found

    def hostname(self) -> str:
        """Return what the host calls itself, as the Protocol has it."""
        doing = "name of the host"
        found = str(_call(doing, self.connection(writable=False).getHostname))
        if not found:
            raise HypervisorError(f"{doing}: it has none")
        return found

    def domain_capabilities(self) -> str:
        """Return the XML of ``virsh domcapabilities``, as the Protocol has it."""
        ask = self.connection(writable=True).getDomainCapabilities
        *others, last = self._virt_types
        for virt_type in others:
            with contextlib.suppress(NoSuchVirtType):
                return str(_call("domain capabilities", ask, None, *self._guest, virt_type, 0))
        return str(_call("domain capabilities", ask, None, *self._guest, last, 0))

    def node_sev_info(self) -> NodeSevInfo:
        """Return what the host's secure processor is, as the Protocol has it."""
        ask = self.connection(writable=True).getSEVInfo
        return parse_node_sev_info(_call("SEV information of the host", ask, 0))

    def domain(self, name: str) -> LibvirtDomain:
        """Return a domain by its name, as the Protocol has it."""
        doing = f"domain {name!r}"
        found = _call(doing, self.connection(writable=False).lookupByName, name)
        return LibvirtDomain(self, name, str(_call(doing, found.UUIDString)))

    def close(self) -> None:
        """Close all connections; domains of this object cannot be used after it."""
        while self._connections:
            _, found = self._connections.popitem()
            with contextlib.suppress(self._library.libvirtError):  # it was dead already
                found.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@final
class LibvirtDomain:
    """One domain of a ``LibvirtHypervisor``: the one that had the name then, by its UUID."""

    def __init__(self, hypervisor: LibvirtHypervisor, name: str, uuid: str) -> None:
        self._hypervisor: Final = hypervisor
        self._uuid: Final = uuid
        self.name: Final = name

    def _do(self, doing: str, method: str, *arguments: Any, writable: bool = True) -> Any:  # noqa: ANN401  # as above
        what = f"{doing} {self.name!r}"
        connection = self._hypervisor.connection(writable=writable)
        handle = _call(what, connection.lookupByUUIDString, self._uuid)
        return _call(what, getattr(handle, method), *arguments)

    def xml(self) -> str:
        """Return the domain's XML, as the Protocol has it."""
        return str(self._do("XML of domain", "XMLDesc", 0, writable=False))

    def state(self) -> DomainState:
        """Return what the domain is doing, as the Protocol has it."""
        number, _ = self._do("state of domain", "state", 0, writable=False)
        if not 0 <= number < len(_STATES):
            raise HypervisorError(f"state of domain {self.name!r}: {number} is not known")
        return _STATES[number]

    def launch_security_info(self) -> LaunchSecurityInfo:
        """Return the launch measurement, as the Protocol has it."""
        values = self._do("launch security of domain", "launchSecurityInfo", 0)
        if MEASUREMENT not in values:
            raise NotSupported(
                f"domain {self.name!r} is no SEV guest: it has no launch measurement"
            )
        return parse_launch_security_info(values)

    def inject_launch_secret(
        self, header: bytes, secret: bytes, *, address: int | None = None
    ) -> None:
        """Hand a launch secret packet to the secure processor, as the Protocol has it."""
        check_launch_secret(header, secret)
        values = encode_launch_secret(header, secret, address)
        self._do("inject a secret into domain", "setLaunchSecurityState", values, 0)

    def resume(self) -> None:
        """Let a paused domain run, as the Protocol has it."""
        self._require("resume", frozenset({DomainState.PAUSED}))
        self._do("resume domain", "resume")

    def pause(self) -> None:
        """Stop a running domain's vCPUs, as the Protocol has it."""
        if self._require("pause", _RUNS | {DomainState.PAUSED}) in _RUNS:
            self._do("pause domain", "suspend")

    def destroy(self) -> None:
        """End the domain at once, as the Protocol has it."""
        self._do("destroy domain", "destroy")

    def _require(self, doing: str, wanted: frozenset[DomainState]) -> DomainState:
        """Return the domain's state; drivers differ in how they refuse one that is not wanted."""
        state = self.state()
        if state not in wanted:
            raise WrongState(f"{doing} domain {self.name!r}: it is {state}")
        return state


@final
class EventLoop:
    """libvirt's event loop, which every connection that is opened after it uses.

    Once it is made it must be run, by a thread of the caller's: without that, connections are not
    let go of when they are closed.
    """

    def __init__(self) -> None:
        self._library: Final = _libvirt()
        self._stopped = False
        _call("event loop", self._library.virEventRegisterDefaultImpl)

    def run(self) -> None:
        """Run until ``stop``. Raises ``HypervisorError``."""
        while not self._stopped:
            _call("event loop", self._library.virEventRunDefaultImpl)

    def stop(self) -> None:
        """Let ``run`` come back, from another thread."""
        self._stopped = True
        _call("event loop", self._library.virEventAddTimeout, 0, lambda *_: None, None)
