"""How a refused launch sounds: QEMU's words, wrapped by libvirt, wrapped by virt-launcher.

People and programs find the cause in these texts, so they are the real ones. Sources: QEMU 9 and
10 ``target/i386/sev.c``; libvirt ``virerror.h`` (numbers); KubeVirt
``pkg/virt-handler/cmd-client`` (the outer text, quoted as Go's %q does).
"""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.errors import SevkitError

if TYPE_CHECKING:
    from collections.abc import Mapping

_INTERNAL: Final = 1  # VIR_ERR_INTERNAL_ERROR
_NO_DOMAIN: Final = 42  # VIR_ERR_NO_DOMAIN
_QEMU: Final = 10  # VIR_FROM_QEMU

#: QEMU's sentence for each status of the firmware that a launch can meet.
_SENTENCES: Final[Mapping[FirmwareStatus, str]] = {
    FirmwareStatus.INVALID_PLATFORM_STATE: "Platform state is invalid",
    FirmwareStatus.INVALID_GUEST_STATE: "Guest state is invalid",
    FirmwareStatus.INVALID_CONFIG: "Platform configuration is invalid",
    FirmwareStatus.INVALID_LEN: "Buffer too small",
    FirmwareStatus.INVALID_CERTIFICATE: "Certificate is invalid",
    FirmwareStatus.POLICY_FAILURE: "Policy is not allowed",
    FirmwareStatus.INACTIVE: "Guest is not active",
    FirmwareStatus.INVALID_ADDRESS: "Invalid address",
    FirmwareStatus.BAD_SIGNATURE: "Bad signature",
    FirmwareStatus.BAD_MEASUREMENT: "Bad measurement",
    FirmwareStatus.ASID_OWNED: "ASID is already owned",
    FirmwareStatus.INVALID_ASID: "Invalid ASID",
    FirmwareStatus.WBINVD_REQUIRED: "WBINVD is required",
    FirmwareStatus.DFFLUSH_REQUIRED: "DF_FLUSH is required",
    FirmwareStatus.INVALID_GUEST: "Guest handle is invalid",
    FirmwareStatus.ACTIVE: "Guest is active",
    FirmwareStatus.HWERROR_PLATFORM: "Hardware error",
    FirmwareStatus.HWERROR_UNSAFE: "Hardware unsafe",
    FirmwareStatus.UNSUPPORTED: "Feature not supported",
    FirmwareStatus.INVALID_PARAM: "Invalid parameter",
    FirmwareStatus.RESOURCE_LIMIT: "Required firmware resource depleted",
}
#: QEMU's function around each firmware command that can refuse a launch.
_FUNCTIONS: Final[Mapping[str, str]] = {
    "LAUNCH_START": "sev_launch_start: LAUNCH_START",
    "SNP_LAUNCH_START": "sev_snp_launch_start: SNP_LAUNCH_START",
    "LAUNCH_UPDATE_VMSA": "sev_launch_update_vmsa: LAUNCH_UPDATE_VMSA",
    "LAUNCH_MEASURE": "sev_launch_get_measure: LAUNCH_MEASURE",
}


@final
class LauncherError(SevkitError):
    """What virt-launcher answers instead of a result; ``message`` is the whole text."""


def server_error(command: str, text: str) -> LauncherError:
    """Return virt-launcher's refusal of a command in a text of its own."""
    # Go's %q and JSON quote alike what occurs here.
    return LauncherError(f"server error. command {command} failed: {json.dumps(text)}")


def libvirt_error(command: str, text: str, *, code: int = _INTERNAL) -> LauncherError:
    """Return virt-launcher's refusal in libvirt's words; ``code`` is a VIR_ERR number."""
    return server_error(command, f"LibvirtError(Code={code}, Domain={_QEMU}, Message='{text}')")


def no_domain(command: str, namespace: str, name: str) -> LauncherError:
    """Return what libvirt says where there is no domain."""
    text = f"Domain not found: no domain with matching name '{namespace}_{name}'"
    return libvirt_error(command, text, code=_NO_DOMAIN)


def start_refused(namespace: str, name: str, said: str) -> LauncherError:
    """Return the error of a domain whose QEMU ended with ``said`` on its stderr."""
    where = f"vm='{namespace}_{name}'"
    text = f"internal error: QEMU unexpectedly closed the monitor ({where}): {said}"
    return libvirt_error("SyncVMI", text)


def launch_words(error: OSError | SevkitError) -> str:
    """Return what QEMU says of a launch that KVM or the firmware refused."""
    if isinstance(error, CommandError):
        where = _FUNCTIONS.get(error.command, f"sev_common_kvm_init: {error.command}")
        return f"qemu-system-x86_64: {where} ret={-errno.EIO} {firmware_words(error.status)}"
    number = (error.errno or errno.EIO) if isinstance(error, OSError) else errno.EIO
    refused = f"failed to initialize ret={-number} fw_error=0 ''"
    return f"qemu-system-x86_64: sev_common_kvm_init: {refused}"


def session_words() -> str:
    """Return what QEMU says where session or DH certificate decode to nothing: KVM's EINVAL."""
    return f"qemu-system-x86_64: sev_launch_start: LAUNCH_START ret={-errno.EINVAL} fw_error=0 ''"


def secret_words(status: FirmwareStatus) -> str:
    """Return what QEMU says of a packet that the firmware refused."""
    return f"SEV: failed to inject secret ret={-errno.EIO} {firmware_words(status)}"


def firmware_words(status: FirmwareStatus) -> str:
    """Return the firmware's status as QEMU writes it."""
    return f"fw_error={status.value} '{_SENTENCES.get(status, 'unknown error')}'"
