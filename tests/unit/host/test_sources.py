from __future__ import annotations

import errno
import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from sevkit.errors import FormatError, UsageError
from sevkit.host.capabilities import decide
from sevkit.host.firmware import silence_document
from sevkit.host.probe import probe_host
from sevkit.host.reading import Cause, Known, Unreadable, absent
from sevkit.host.source import KvmAttribute, KvmExtension, Registers, Rights
from sevkit.host.sources import CapturedHost, HostFiles, NativeHost, open_host, parse_leaves
from sevkit.testing.host.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Refusing:
    """Devices that must not be asked."""

    def ioctl(self, device: str, request: int, argument: bytearray | int) -> int:
        raise AssertionError(device)


class NoDevices:
    """A machine without devices."""

    def ioctl(self, device: str, request: int, argument: bytearray | int) -> int:
        raise FileNotFoundError(2, device)


class Silent:
    """A machine whose secure processor was given up."""

    def ioctl(self, device: str, request: int, argument: bytearray | int) -> int:
        raise OSError(errno.EBUSY, device)


def test_a_copy_has_no_devices_to_ask(tree: Callable[..., Path]) -> None:
    source = CapturedHost(HostFiles(str(tree("milan"))))
    for found in (
        source.kvm_extension(KvmExtension.VM_TYPES),
        source.kvm_attribute(KvmAttribute.VMSA_FEATURES),
        source.rights("dev/sev"),
    ):
        assert isinstance(found, Unreadable)
        assert found.cause is Cause.NOT_ASKED


def test_cpuid_of_a_copy_is_its_own(tree: Callable[..., Path]) -> None:
    source = CapturedHost(HostFiles(str(tree("milan"))))
    spec = PRESETS["milan"]
    assert source.cpuid(0x8000001F) == Known(Registers(*spec.cpuid(0x8000001F)))
    assert source.cpuid(0x8000001F, 1) == absent("/cpuid.json: leaf 0x8000001f")
    assert isinstance(source.cpuid(0x12345678), Unreadable)


def test_a_copy_without_cpuid_does_not_ask_this_machine(tree: Callable[..., Path]) -> None:
    root = tree("intel")
    (root / "cpuid.json").unlink()
    found = CapturedHost(HostFiles(str(root))).cpuid(0)
    assert isinstance(found, Unreadable)
    assert found.cause is Cause.ABSENT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"0x0": []}',
        '{"0x0": ["0x0", "0x0", "0x0"]}',
        '{"0x0": ["0x0", "0x0", "0x0", 0]}',
        '{"0x0": ["0x0", "0x0", "0x0", "0x100000000"]}',
        '{"leaf": ["0x0", "0x0", "0x0", "0x0"]}',
        '{"0x1": ["0x0", "0x0", "0x0", "0x0"], "0x00000001": ["0x0", "0x0", "0x0", "0x0"]}',
        '{"0x1": {"eax": "0x0"}}',
    ],
)
def test_registers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_leaves(text)


def test_sys_may_be_elsewhere(tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tree("milan")
    (root / "sys").rename(tmp_path / "host-sys")
    with open_host(str(root)) as source:
        assert decide(probe_host(source)).sev.reason == "kvm-unread"
    files = HostFiles(str(root), str(tmp_path / "host-sys"))
    source = CapturedHost(files)
    facts = probe_host(source)
    assert decide(facts).sev_snp.guests == 127
    assert isinstance(facts.secure_processors, Known)
    assert facts.secure_processors.value[0].attributes["device"] == "0x1486"
    missing = source.text("sys/nothing")
    files.close()
    assert isinstance(missing, Unreadable)
    assert missing.detail.startswith("/sys/nothing")


@pytest.mark.parametrize("name", ["nowhere", "cpuid.json", "nul\0"])
def test_a_root_that_is_no_folder_is_refused(name: str, tree: Callable[..., Path]) -> None:
    root = tree("milan")
    with pytest.raises(UsageError, match="is not a folder"), open_host(f"{root}/{name}"):
        pass
    with pytest.raises(UsageError, match="is not a folder"), open_host(sys=f"{root}/{name}"):
        pass


def test_a_copy_is_read_alone(tree: Callable[..., Path]) -> None:
    root = str(tree("milan"))
    for more in ({"sys": f"{root}/sys"}, {"firmware_file": f"{root}/firmware.json"}):
        with pytest.raises(UsageError, match="nothing outside of it"), open_host(root, **more):
            pass


def test_a_host_gives_its_descriptors_back(tree: Callable[..., Path]) -> None:
    root = tree("milan")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a count
    with open_host(str(root)) as source:
        probe_host(source)
        assert len(os.listdir("/proc/self/fd")) > before  # noqa: PTH208  # a count
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208  # a count


def native(root: Path, **edges: object) -> NativeHost:
    return NativeHost(
        HostFiles(str(root)),
        devices=NoDevices(),
        cpuid_function=CapturedHost(HostFiles(str(root))).cpuid,
        log_function=lambda: absent("log"),
        **edges,  # type: ignore[arg-type]  # the firmware's file, if given
    )


def test_this_machine_is_asked_at_its_edges(tree: Callable[..., Path]) -> None:
    root = tree("milan", "sev-unreadable")
    facts = probe_host(native(root))
    assert not facts.simulated
    assert decide(facts).sev_snp.guests == 127
    assert isinstance(facts.firmware, Unreadable)


def test_who_may_ask_the_firmware_can_leave_its_answer(
    tree: Callable[..., Path], tmp_path: Path
) -> None:
    root = tree("milan")
    left = str(root / "firmware.json")
    assert isinstance(probe_host(native(root, firmware_file=left)).firmware, Known)
    gone = probe_host(native(root, firmware_file=str(tmp_path / "none.json"))).firmware
    assert isinstance(gone, Unreadable)
    assert gone.detail.startswith("/dev/sev")
    (tmp_path / "bad.json").write_text("{}")
    bad = probe_host(native(root, firmware_file=str(tmp_path / "bad.json"))).firmware
    assert isinstance(bad, Unreadable)
    assert bad.cause is Cause.MALFORMED


@pytest.mark.parametrize(
    ("age", "is_believed"), [(0, True), (800, True), (-800, True), (1000, False), (-1000, False)]
)
def test_an_answer_that_nobody_renews_is_none(
    age: int, tree: Callable[..., Path], *, is_believed: bool
) -> None:
    """Whoever left it is gone, and SNP may be what it said, or not."""
    root = tree("milan")
    left = root / "firmware.json"
    os.utime(left, (time.time() - age,) * 2)
    found = native(root, firmware_file=str(left)).firmware()
    assert isinstance(found, Known) is is_believed
    if isinstance(found, Unreadable):
        assert found.cause is Cause.FAILED
        assert found.detail == f"{left}: not renewed within 900 seconds"
    # A captured host is of another time, and all of it is.
    assert isinstance(CapturedHost(HostFiles(str(root))).firmware(), Known)


def test_that_the_firmware_no_longer_answers_can_be_left_too(
    tree: Callable[..., Path], tmp_path: Path
) -> None:
    root = tree("milan")
    left = tmp_path / "firmware.json"
    left.write_text(json.dumps(silence_document()))
    found = probe_host(native(root, firmware_file=str(left)))
    assert decide(found).sev_snp.reason == "firmware-silent"
    (root / "firmware.json").write_bytes(left.read_bytes())
    with open_host(str(root)) as source:
        assert decide(probe_host(source)).sev_snp.reason == "firmware-silent"


def test_who_hears_the_silence_himself_does_not_look_for_an_older_answer(
    tree: Callable[..., Path],
) -> None:
    root = tree("milan")
    host = NativeHost(
        HostFiles(str(root)), devices=Silent(), firmware_file=str(root / "firmware.json")
    )
    found = host.firmware()
    assert isinstance(found, Unreadable)
    assert found.cause is Cause.SILENT


def test_a_file_without_a_folder_is_one_here(
    tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree("milan")
    monkeypatch.chdir(root)
    assert isinstance(native(root, firmware_file="firmware.json").firmware(), Known)
    # Below the root there is none, whatever is here.
    assert isinstance(native(root, firmware_file="/firmware.json").firmware(), Unreadable)


def test_rights_are_asked_without_opening_anything(tmp_path: Path) -> None:
    host = NativeHost(HostFiles("/"), devices=Refusing())
    device = tmp_path / "device"
    os.mkfifo(device, 0o600)
    found = host.rights(str(device).removeprefix("/"))
    assert isinstance(found, Known)
    assert isinstance(found.value, Rights)
    assert found.value.readable
    missing = host.rights("dev/there-is-no-such-device")
    assert isinstance(missing, Unreadable)
    assert missing.cause is Cause.ABSENT
