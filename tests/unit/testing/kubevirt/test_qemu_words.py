from __future__ import annotations

import errno

import pytest

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.errors import UndecidedError
from sevkit.testing.kubevirt import qemu_words


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.EBUSY, "all taken"),
            "sev_common_kvm_init: failed to initialize ret=-16 fw_error=0 ''",
        ),
        (
            OSError(errno.ENOTTY, "none"),
            "sev_common_kvm_init: failed to initialize ret=-25 fw_error=0 ''",
        ),
        (
            CommandError("LAUNCH_START", FirmwareStatus.BAD_MEASUREMENT),
            "sev_launch_start: LAUNCH_START ret=-5 fw_error=11 'Bad measurement'",
        ),
        (
            # as seen in the field: SEV-ES on a host with SNP and new firmware
            CommandError("LAUNCH_START", FirmwareStatus.UNSUPPORTED),
            "sev_launch_start: LAUNCH_START ret=-5 fw_error=21 'Feature not supported'",
        ),
        (
            CommandError("SNP_LAUNCH_START", FirmwareStatus.POLICY_FAILURE),
            "sev_snp_launch_start: SNP_LAUNCH_START ret=-5 fw_error=7 'Policy is not allowed'",
        ),
        (UndecidedError("dead"), "sev_common_kvm_init: failed to initialize ret=-5 fw_error=0 ''"),
    ],
)
def test_a_refused_launch_sounds_as_qemu_says_it(error: OSError, said: str) -> None:
    assert qemu_words.launch_words(error) == f"qemu-system-x86_64: {said}"


def test_libvirt_and_the_launcher_wrap_it() -> None:
    error = qemu_words.start_refused("ns", "one", "said")
    assert error.message == (
        'server error. command SyncVMI failed: "LibvirtError(Code=1, Domain=10, '
        "Message='internal error: QEMU unexpectedly closed the monitor (vm='ns_one'): said')\""
    )


def test_no_domain_is_libvirts_42() -> None:
    assert "Code=42, Domain=10" in qemu_words.no_domain("Pause", "ns", "one").message


def test_quotes_inside_are_escaped_as_go_does() -> None:
    said = qemu_words.server_error("SyncVMI", 'a "b"\n').message
    assert said.endswith(r'failed: "a \"b\"\n"')


def test_a_status_without_a_sentence_is_unknown() -> None:
    assert qemu_words.firmware_words(FirmwareStatus.RMP_INIT_REQUIRED).endswith("'unknown error'")
