from __future__ import annotations

from typing import Final

import pytest

from sevkit.errors import HypervisorError
from sevkit.hypervisor.libvirt_errors import FROM_RPC, LibvirtCode, translate_error
from sevkit.hypervisor.protocol import (
    HypervisorUnreachable,
    NoSuchDomain,
    NoSuchVirtType,
    NotSupported,
    WrongState,
)

#: What real ones said (libvirt 9.0 and 11.3): code, origin, sentence, and what it is.
SAID: Final = (
    (
        3,
        20,
        "this function is not supported by the connection driver: virNodeGetSEVInfo",
        NotSupported,
    ),
    (8, 12, "unsupported flags (0x4) in function testDomainGetLaunchSecurityInfo", NotSupported),
    (84, 10, "Operation not supported: QEMU does not support SEV guest", NotSupported),
    (
        67,
        10,
        "unsupported configuration: SEV launch security is not supported with this QEMU binary",
        NotSupported,
    ),
    (42, 10, "Domain not found: no domain with matching name 'x'", NoSuchDomain),
    (55, 10, "Requested operation is not valid: domain must be in a paused state", WrongState),
    (55, 10, "Requested operation is not valid: domain is not running", WrongState),
    (38, 7, "Failed to connect socket to '/x': No such file or directory", HypervisorUnreachable),
    (1, 7, "internal error: connection closed due to keepalive timeout", HypervisorUnreachable),
    (1, 7, "internal error: client socket is closed", HypervisorUnreachable),
    (6, 20, "invalid connection pointer in virConnectGetURI", HypervisorUnreachable),
    (45, 7, "authentication failed: no agent is available", HypervisorUnreachable),
    (
        29,
        20,
        "operation forbidden: read only access prevents virDomainSuspend",
        HypervisorUnreachable,
    ),
    (
        8,
        10,
        "invalid argument: the accel 'kvm' is not supported by '/x' on this host",
        NoSuchVirtType,
    ),
    (8, 10, "invalid argument: KVM is not supported by '/x' on this host", NoSuchVirtType),
    (8, 10, "invalid argument: unknown virttype: x", NoSuchVirtType),
    (
        8,
        10,
        "invalid argument: the machine 'x' is not supported by emulator '/x'",
        HypervisorError,
    ),
    (1, 10, "internal error: KVM is not supported by '/x' on this host", HypervisorError),
    (1, 10, "internal error: unable to execute QEMU command 'x': y", HypervisorError),
    (9999, 10, "of a newer libvirt", HypervisorError),
)


@pytest.mark.parametrize(("code", "origin", "said", "kind"), SAID)
def test_errors_are_told_apart_by_their_codes(
    code: int, origin: int, said: str, kind: type[HypervisorError]
) -> None:
    found = translate_error("pause domain 'x'", code, said, origin=origin)
    assert type(found) is kind
    assert found.message == f"pause domain 'x': {said}"
    assert bool(found.hint) is (kind is not HypervisorError)


def test_what_the_host_says_is_one_bounded_line() -> None:
    found = translate_error("x", LibvirtCode.INTERNAL_ERROR, "a\nb\t c" + "d" * 1000)
    assert found.message.startswith("x: a b cd")
    assert len(found.message) < 310


def test_an_error_without_a_sentence_says_its_code() -> None:
    assert translate_error("x", 9, " \n").message == "x: libvirt gave code 9 and no reason"


def test_the_connections_own_errors_keep_their_kind() -> None:
    found = translate_error("x", LibvirtCode.NO_SUPPORT, "unknown procedure: 400", origin=FROM_RPC)
    assert type(found) is NotSupported
