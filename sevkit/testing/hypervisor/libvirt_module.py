"""A module that stands in for libvirt-python, over the simulated hypervisor.

    sys.modules["libvirt"] = make_libvirt(lambda uri: hypervisor)   # before libvirt is imported

Programs that were written against libvirt-python (11.3) then run unchanged on simulated SEV: the
calls are there that a guest owner makes, and an error is a ``libvirtError`` with libvirt's code.
A domain is looked up by name, UUID or ID; its ID is
its place among those that were looked up, and is -1 while it is shut off.
"""

from __future__ import annotations

import base64
import functools
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from sevkit.errors import HypervisorError
from sevkit.hypervisor.libvirt_errors import LibvirtCode
from sevkit.hypervisor.parameters import HEADER, MEASUREMENT, SECRET, SECRET_ADDRESS
from sevkit.hypervisor.protocol import DomainState, NoSuchDomain, NotSupported, WrongState

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.testing.hypervisor.connection import SimulatedHypervisor
    from sevkit.testing.hypervisor.domain import SimulatedDomain

_Call = TypeVar("_Call", bound="Callable[..., Any]")

#: VIR_FROM_QEMU
_FROM_QEMU: Final = 10
#: ``virDomainState``
_STATES: Final = {
    DomainState.NO_STATE: 0,
    DomainState.RUNNING: 1,
    DomainState.BLOCKED: 2,
    DomainState.PAUSED: 3,
    DomainState.IN_SHUTDOWN: 4,
    DomainState.SHUT_OFF: 5,
    DomainState.CRASHED: 6,
    DomainState.SUSPENDED: 7,
}
_CODES: Final = (
    (NoSuchDomain, LibvirtCode.NO_DOMAIN),
    (NotSupported, LibvirtCode.OPERATION_UNSUPPORTED),
    (WrongState, LibvirtCode.OPERATION_INVALID),
)


class LibvirtError(Exception):
    """``libvirt.libvirtError``."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self._code: Final = code

    def get_error_code(self) -> int:
        """Return ``virErrorNumber``."""
        return self._code

    def get_error_domain(self) -> int:
        """Return ``virErrorDomain``."""
        return _FROM_QEMU

    def get_error_message(self) -> str:
        """Return the sentence."""
        return str(self)


def _libvirts_errors(call: _Call) -> _Call:
    @functools.wraps(call)
    def wrapper(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # libvirt has no types
        try:
            return call(*arguments, **named)
        except HypervisorError as error:
            codes = (code for kind, code in _CODES if isinstance(error, kind))
            raise LibvirtError(next(codes, LibvirtCode.INTERNAL_ERROR), error.message) from error

    return wrapper  # type: ignore[return-value]  # the same call


@final
class _Domain:
    """``virDomain``."""

    def __init__(self, domain: SimulatedDomain, number: int) -> None:
        self._domain: Final = domain
        self._number: Final = number

    def name(self) -> str:
        return self._domain.name

    def ID(self) -> int:  # noqa: N802  # libvirt's name
        return self._number if self.isActive() else -1

    def UUIDString(self) -> str:  # noqa: N802  # libvirt's name
        return self._domain.definition.uuid or f"{self._number:032x}"

    @_libvirts_errors
    def isActive(self) -> bool:  # noqa: N802  # libvirt's name
        return self._domain.state() is not DomainState.SHUT_OFF

    @_libvirts_errors
    def state(self, _flags: int = 0) -> list[int]:
        return [_STATES[self._domain.state()], 0]

    @_libvirts_errors
    def info(self) -> list[int]:
        """Return state, largest and present memory in KiB, vCPUs, and CPU time in ns."""
        return [*self.state()[:1], 1 << 20, 1 << 20, self._domain.definition.vcpus.enabled, 0]

    @_libvirts_errors
    def XMLDesc(self, _flags: int = 0) -> str:  # noqa: N802  # libvirt's name
        return self._domain.xml()

    @_libvirts_errors
    def launchSecurityInfo(self, _flags: int = 0) -> dict[str, Any]:  # noqa: N802  # libvirt's name
        info = self._domain.launch_security_info()
        return {
            MEASUREMENT: base64.b64encode(info.measurement).decode("ascii"),
            "sev-api-major": info.api_major,
            "sev-api-minor": info.api_minor,
            "sev-build-id": info.build_id,
            "sev-policy": info.policy,
        }

    @_libvirts_errors
    def setLaunchSecurityState(self, values: dict[str, Any], _flags: int = 0) -> int:  # noqa: N802  # libvirt's name
        self._domain.inject_launch_secret(
            base64.b64decode(values[HEADER], validate=True),
            base64.b64decode(values[SECRET], validate=True),
            address=values.get(SECRET_ADDRESS),
        )
        return 0

    @_libvirts_errors
    def resume(self) -> int:
        self._domain.resume()
        return 0

    @_libvirts_errors
    def suspend(self) -> int:
        self._domain.pause()
        return 0

    @_libvirts_errors
    def destroy(self) -> int:
        self._domain.destroy()
        return 0


@final
class _Connection:
    """``virConnect``."""

    def __init__(self, hypervisor: SimulatedHypervisor, found: list[_Domain]) -> None:
        self._hypervisor: Final = hypervisor
        self._found: Final = found

    def getHostname(self) -> str:  # noqa: N802  # libvirt's name
        return self._hypervisor.hostname()

    def getCapabilities(self) -> str:  # noqa: N802  # libvirt's name
        """Return ``virsh capabilities``, without the signature that older libvirts lack too."""
        return "<capabilities><host><cpu><arch>x86_64</arch></cpu></host></capabilities>"

    @_libvirts_errors
    def getDomainCapabilities(self, *_: Any) -> str:  # noqa: ANN401, N802  # libvirt's name
        return self._hypervisor.domain_capabilities()

    @_libvirts_errors
    def lookupByName(self, name: str) -> _Domain:  # noqa: N802  # libvirt's name
        domain = self._hypervisor.domain(name)
        for known in self._found:
            if known.name() == name:
                return known
        self._found.append(_Domain(domain, len(self._found) + 1))
        return self._found[-1]

    def lookupByUUIDString(self, uuid: str) -> _Domain:  # noqa: N802  # libvirt's name
        return self._known(lambda one: one.UUIDString() == uuid, f"uuid '{uuid}'")

    def lookupByID(self, number: int) -> _Domain:  # noqa: N802  # libvirt's name
        return self._known(lambda one: one.ID() == number, f"id {number}")

    def _known(self, test: Callable[[_Domain], bool], what: str) -> _Domain:
        for known in self._found:
            if test(known):
                return known
        message = f"Domain not found: no domain with matching {what}"
        raise LibvirtError(LibvirtCode.NO_DOMAIN, message)

    def setKeepAlive(self, _interval: int, _count: int) -> int:  # noqa: N802  # libvirt's name
        return 0

    def close(self) -> int:
        return 0


def make_libvirt(open_uri: Callable[[str], SimulatedHypervisor]) -> ModuleType:
    """Return the module; its connections are to what ``open_uri`` returns for their URI."""
    module = ModuleType("libvirt", "libvirt-python, simulated")
    found: dict[int, list[_Domain]] = {}

    @_libvirts_errors
    def connect(uri: str | None = None) -> _Connection:
        hypervisor = open_uri(uri or "")
        return _Connection(hypervisor, found.setdefault(id(hypervisor), []))

    values: dict[str, Any] = {
        "libvirtError": LibvirtError,
        "open": connect,
        "openReadOnly": connect,
        "registerErrorHandler": lambda *_: None,
        **{f"VIR_DOMAIN_{state.name}": number for state, number in _STATES.items()},
    }
    for name, value in values.items():
        setattr(module, name, value)
    return module
