"""A simulated machine as a whole: real programs see its files, devices and CPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import pytest

from sevkit.abi.product import Product
from sevkit.cli.main import main
from sevkit.errors import UsageError
from sevkit.testing.device.mount import unavailable_reason
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.host import PRESETS, with_defects
from sevkit.testing.simulated_amd import SimulatedAmd
from sevkit.testing.simulated_machine import open_machine
from sevkit.testing.virtual_machine import Machine

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"no device files: {unavailable_reason()}"
)
#: Asks /dev/sev and /dev/kvm what there is, and prints what they say.
PROBE: Final = """
import ctypes, fcntl, json, os, struct
room = ctypes.create_string_buffer(64)
sev, kvm = (os.open(f"/dev/{name}", os.O_RDONLY) for name in ("sev", "kvm"))
def ask(command):
    argument = bytearray(struct.pack("<IQI", command, ctypes.addressof(room), 0))
    try:
        fcntl.ioctl(sev, 0xC0105300, argument)
    except OSError as error:
        return [error.errno, struct.unpack("<IQI", argument)[2]]
    return room.raw[:12].hex()
print(json.dumps({
    "status": ask(1), "gen": ask(2), "none": ask(99),
    "types": fcntl.ioctl(kvm, 0xAE03, 235),
    "syscfg": os.pread(os.open("/dev/cpu/0/msr", os.O_RDONLY), 8, 0xC0010010).hex(),
    "sev": open("/sys/module/kvm_amd/parameters/sev").read(),
    "model": [l for l in open("/proc/cpuinfo") if l.startswith("model name")][0],
}))
"""


@pytest.fixture(scope="module")
def amd() -> SimulatedAmd:
    """Roots that cost nothing where nobody asks for them."""
    return SimulatedAmd()


def test_a_program_sees_the_whole_machine(amd: SimulatedAmd) -> None:
    spec = PRESETS["naples"]
    with open_machine(spec, amd.make_chip(Product.NAPLES)) as machine:
        done = machine.run([sys.executable, "-c", PROBE])
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert machine.processor is not None
        assert found["status"] == machine.processor.sev.status().encode().hex()
        assert found["types"] == machine.state.vm_types
    assert found["gen"] == [1, 0]  # EPERM: the file is not open for writing
    assert found["none"] == [22, 0]
    assert int.from_bytes(bytes.fromhex(found["syscfg"]), "little") >> 23 & 3 == 1
    assert found["sev"] in {"1\n", "Y\n"}
    assert "EPYC 7601" in found["model"]


def test_a_defect_is_seen_in_the_devices_too(amd: SimulatedAmd) -> None:
    spec = with_defects("naples", ["smee-off"])
    with open_machine(spec, amd.make_chip(Product.NAPLES)) as machine:
        assert machine.run(["ls", "/dev/sev"]).returncode != 0
        done = machine.run(["cat", "/sys/module/kvm_amd/parameters/sev"])
        assert done.stdout in {b"0\n", b"N\n"}


def test_guests_are_seen_in_the_misc_cgroup_by_programs(amd: SimulatedAmd) -> None:
    read = ["cat", "/sys/fs/cgroup/misc.capacity", "/sys/fs/cgroup/kubepods.slice/misc.current"]
    guest = Machine(encode_firmware(FirmwareImage()))
    with open_machine(PRESETS["rome-es"], amd.make_chip(Product.ROME)) as machine:
        kvm = machine.start_kvm()
        with kvm.launch_sev(guest, 1):
            found = machine.run(read).stdout.decode().splitlines()
        assert found[2:] == ["sev 1", "sev_es 0"]
        assert machine.run(read).stdout.decode().splitlines()[2:] == ["sev 0", "sev_es 0"]


def test_a_host_without_sev_has_no_kvm_for_it(amd: SimulatedAmd) -> None:
    spec = with_defects("naples", ["kvm-sev-off"])
    with (
        open_machine(spec, amd.make_chip(Product.NAPLES)) as machine,
        pytest.raises(UsageError, match="no SEV"),
    ):
        machine.start_kvm()


def test_a_chip_of_another_product_is_refused(amd: SimulatedAmd) -> None:
    with (
        pytest.raises(UsageError, match="Naples in a host of Rome"),
        open_machine(PRESETS["rome"], amd.make_chip(Product.NAPLES)),
    ):
        pass


def test_a_machine_without_sev_has_no_device(amd: SimulatedAmd) -> None:
    with open_machine(PRESETS["intel"]) as machine:
        assert machine.processor is None
        assert machine.run(["ls", "/dev/sev"]).returncode != 0


def test_this_machine_is_as_it_was_before() -> None:
    device = Path("/dev/sev")
    assert not device.exists() or device.is_char_device()


def test_the_command_runs_a_program_and_tells_how_it_ended(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    words = ["simulate", "host", "naples", "--"]
    assert main([*words, "cat", "/sys/module/kvm_amd/parameters/sev"]) == 0
    assert capfdbinary.readouterr().out in {b"1\n", b"Y\n"}
    assert main([*words, "sh", "-c", "echo no >&2; exit 3"]) == 4
    captured = capfdbinary.readouterr()
    assert captured.err.startswith(b"no\n")
    assert b"sh ended with exit code 3" in captured.err


def test_the_command_takes_the_chip_of_a_state(
    tmp_path: Path, amd: SimulatedAmd, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    amd.save(tmp_path / "amd")
    words = ["simulate", "host", "--state", str(tmp_path / "amd")]
    assert main([*words, "naples", "--", "true"]) == 0
    assert main([*words, "milan", "--", "true"]) == 2
    assert b"no chip of Milan" in capfdbinary.readouterr().err
