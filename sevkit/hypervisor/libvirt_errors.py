"""libvirt's errors, and what each of them is in sevkit's tree.

Source: libvirt ``include/libvirt/virterror.h``; the numbers are part of its ABI. A call fails with
a code, the part of libvirt that it came from, and a sentence for people. The sentence is kept, on
one line and bounded: the host writes it.
"""

from __future__ import annotations

import re
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from sevkit.errors import HypervisorError
from sevkit.hypervisor.protocol import (
    HypervisorUnreachable,
    NoSuchDomain,
    NoSuchVirtType,
    NotSupported,
    WrongState,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST: Final = 300
#: VIR_FROM_RPC: the connection itself, whatever the code.
FROM_RPC: Final = 7


class LibvirtCode(IntEnum):
    """``virErrorNumber``, by libvirt's names without VIR_ERR; those that sevkit tells apart."""

    INTERNAL_ERROR = 1
    NO_SUPPORT = 3
    UNKNOWN_HOST = 4
    NO_CONNECT = 5
    INVALID_CONN = 6
    INVALID_DOMAIN = 7
    INVALID_ARG = 8
    OPERATION_FAILED = 9
    OPERATION_DENIED = 29
    SYSTEM_ERROR = 38
    RPC = 39
    GNUTLS_ERROR = 40
    NO_DOMAIN = 42
    AUTH_FAILED = 45
    OPERATION_INVALID = 55
    CONFIG_UNSUPPORTED = 67
    ARGUMENT_UNSUPPORTED = 74
    AUTH_CANCELLED = 79
    OPERATION_UNSUPPORTED = 84
    SSH = 85
    ACCESS_DENIED = 88
    AUTH_UNAVAILABLE = 94
    LIBSSH = 98


class _Kind(NamedTuple):
    error: type[HypervisorError]
    hint: str = ""


_UNREACHABLE: Final = _Kind(
    HypervisorUnreachable, "is libvirt running there, and is the connection URI right?"
)
_REFUSED: Final = _Kind(
    HypervisorUnreachable, "libvirt wants another user or better credentials for this"
)
_GONE: Final = _Kind(NoSuchDomain, "virsh list --all shows what there is")
_UNSUPPORTED: Final = _Kind(
    NotSupported, "it needs a QEMU domain, and a libvirt and a host that have SEV"
)
_NO_GUESTS: Final = _Kind(NoSuchVirtType, "virsh capabilities shows what guests there can be")
_FAILED: Final = _Kind(HypervisorError)

_KINDS: Final[Mapping[int, _Kind]] = MappingProxyType(
    {
        LibvirtCode.NO_SUPPORT: _UNSUPPORTED,
        LibvirtCode.CONFIG_UNSUPPORTED: _UNSUPPORTED,
        LibvirtCode.ARGUMENT_UNSUPPORTED: _UNSUPPORTED,
        LibvirtCode.OPERATION_UNSUPPORTED: _UNSUPPORTED,
        LibvirtCode.UNKNOWN_HOST: _UNREACHABLE,
        LibvirtCode.NO_CONNECT: _UNREACHABLE,
        LibvirtCode.INVALID_CONN: _UNREACHABLE,
        LibvirtCode.RPC: _UNREACHABLE,
        LibvirtCode.GNUTLS_ERROR: _UNREACHABLE,
        LibvirtCode.SSH: _UNREACHABLE,
        LibvirtCode.LIBSSH: _UNREACHABLE,
        LibvirtCode.AUTH_FAILED: _REFUSED,
        LibvirtCode.AUTH_CANCELLED: _REFUSED,
        LibvirtCode.AUTH_UNAVAILABLE: _REFUSED,
        LibvirtCode.OPERATION_DENIED: _REFUSED,
        LibvirtCode.ACCESS_DENIED: _REFUSED,
        LibvirtCode.NO_DOMAIN: _GONE,
        LibvirtCode.INVALID_DOMAIN: _GONE,
        LibvirtCode.OPERATION_INVALID: _Kind(
            WrongState, "virsh domstate shows what the domain is doing"
        ),
    }
)


#: An argument is refused for many reasons, and only the sentence says which it is.
_INVALID: Final = (
    (re.compile("unsupported flags"), _UNSUPPORTED),
    (
        re.compile(r".*(?:unknown virttype: |(?:KVM|the accel '[^']*') is not supported by )"),
        _NO_GUESTS,
    ),
)


def translate_error(doing: str, code: int, message: str, *, origin: int = 0) -> HypervisorError:
    """Return the error that a failed call is; ``doing`` says what was tried, such as ``pause``.

    ``origin`` is libvirt's error domain. A driver that has the call and none of its flags
    (``test:///`` does) answers "unsupported flags", which is as much as not having it.
    """
    kind = _KINDS.get(code, _FAILED)
    if origin == FROM_RPC and kind is _FAILED:
        kind = _UNREACHABLE
    if code == LibvirtCode.INVALID_ARG:
        kind = next((one for words, one in _INVALID if words.match(message)), kind)
    said = " ".join(message.split())[:_LONGEST] or f"libvirt gave code {code} and no reason"
    return kind.error(f"{doing}: {said}", hint=kind.hint)
