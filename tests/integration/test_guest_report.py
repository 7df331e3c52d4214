"""``sevkit guest report`` as a process in a simulated guest, and its owner, who verifies.

Both doors are files that the kernel's FUSE serves: folders are made and removed in configfs-tsm,
attributes written and read through real descriptors, ioctls issued with pointers into the process.
Behind them is a simulated secure processor, which signs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.abi.certtable import VCEK, encode_cert_table
from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.product import Product
from sevkit.attest.container import find_report
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.measure.vcpu import Registers
from sevkit.testing.device.mount import FuseDevices, unavailable_reason
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import make_roots
from sevkit.testing.snp_guest_driver import GuestDriver, SevGuestDevice
from sevkit.testing.tsm_reports import PATH, TsmReports
from sevkit.testing.virtual_machine import Machine, SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    from sevkit.testing.device.tree import Served
    from sevkit.testing.snp_report import SimulatedChip

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"no device files: {unavailable_reason()}"
)

MACHINE: Final = Machine(encode_firmware(FirmwareImage()), 2, Registers(0xA00F11, 1))
DEVICE: Final = "dev/sev-guest"
#: The interpreter may be where only root can read it: all is imported before the rights go.
AS_NOBODY: Final = """
import locale, os, sys
import sevkit.cli.guest_report, sevkit.cli.groups, sevkit.guest.fetch, sevkit.guest.patience
from sevkit.cli.main import main
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
sys.exit(main(sys.argv[1:]))
"""


def sevkit(*words: str) -> CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sevkit", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@dataclass
class Guest:
    """One SNP guest, the files of its kernel, and its owner's folder."""

    processor: SecureProcessor
    folder: Path
    vmpl: int = 0
    nonce: bytes = field(default_factory=lambda: os.urandom(64))

    def __post_init__(self) -> None:
        kvm = SimulatedKvm(self.processor)
        self.machine = kvm.launch_snp(MACHINE)
        self.table = self.processor.messages.cert_table()
        self.driver = GuestDriver(kvm, self.machine, vmpl=self.vmpl, table=self.table)
        self.reports = TsmReports(self.driver)

    @property
    def files(self) -> dict[str, Served]:
        return {DEVICE: SevGuestDevice(self.driver), PATH: self.reports}

    @property
    def out(self) -> Path:
        return self.folder / "report.bin"

    def fetch(self, root: Path, *more: str) -> CompletedProcess[str]:
        words = ["guest", "report", "--nonce", self.nonce.hex(), "--out", str(self.out)]
        return sevkit(*words, "--root", str(root), *more)

    def attest(self, *more: str) -> CompletedProcess[str]:
        """Let the owner judge what came out; the VCEK is in the table, or in ``more``."""
        roots = self.processor.identity.snp_roots
        assert roots is not None
        for name, ders in (("ark", [roots.ark]), ("chain", [roots.ask, roots.ark])):
            pems = b"".join(encode_pem_certificate(der) for der in ders)
            (self.folder / f"{name}.pem").write_bytes(pems)
        digest = self.processor.snp_guests[self.machine.context].digest.hex()
        return sevkit(
            *("attest", "report", str(self.out), "--offline", "--cache", str(self.folder / "c")),
            *("--root", str(self.folder / "ark.pem"), "--chain", str(self.folder / "chain.pem")),
            *("--report-data", self.nonce.hex(), "--measurement", digest, *more),
        )


@pytest.fixture
def guest_at(milan_chip: SimulatedChip, tmp_path: Path) -> Callable[[int], Guest]:
    identity = ChipIdentity(Product.MILAN, make_roots(), milan_chip.roots)
    return lambda vmpl: Guest(SecureProcessor(identity), tmp_path, vmpl)


@pytest.fixture
def guest(guest_at: Callable[[int], Guest]) -> Guest:
    return guest_at(0)


@pytest.fixture
def root(guest: Guest) -> Iterator[Path]:
    """The guest's file system, as far as it has anything to do with reports."""
    with FuseDevices(guest.files) as mounted:
        yield mounted.path
    assert guest.reports.entries == ()


def test_a_report_is_fetched_and_its_owner_accepts_it(guest: Guest, root: Path) -> None:
    done = guest.fetch(root, "--output", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "schema": "sevkit.io/guest-report/v1",
        "out": str(guest.out),
        "source": "configfs-tsm",
        "vmpl": 0,
        "report_data": guest.nonce.hex(),
        "certificates": ["VCEK", "ASK", "ARK"],
    }
    assert guest.out.read_bytes()[1184:] == guest.table
    judged = guest.attest()
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_without_configfs_the_device_is_asked(guest: Guest) -> None:
    with FuseDevices({DEVICE: guest.files[DEVICE]}) as mounted:
        done = guest.fetch(mounted.path, "--verbose")
    assert done.returncode == 0
    assert "source\t/dev/sev-guest\n" in done.stdout
    assert "sevkit: no configfs mounted at /sys/kernel/config" in done.stderr
    judged = guest.attest()
    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.parametrize("door", [DEVICE, PATH])
def test_a_host_without_certificates_leaves_the_vcek_to_the_owner(guest: Guest, door: str) -> None:
    guest.driver.table = b""
    with FuseDevices({door: guest.files[door]}) as mounted:
        done = guest.fetch(mounted.path)
    assert (done.returncode, guest.out.stat().st_size) == (0, 1184)
    assert "certificates\tnone\n" in done.stdout
    vek = guest.folder / "vcek.der"
    vek.write_bytes(guest.processor.identity.vcek(guest.processor.snp.reported_tcb))
    judged = guest.attest("--vek", str(vek))
    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.parametrize("door", [DEVICE, PATH])
def test_a_guest_below_a_service_module_asks_at_its_own_vmpl(
    guest_at: Callable[[int], Guest], door: str
) -> None:
    guest = guest_at(2)
    with FuseDevices({door: guest.files[door]}) as mounted:
        if door == DEVICE:
            done = guest.fetch(mounted.path)  # the device does not say which it is
            assert done.returncode == 4
            assert "returned 0x16 INVALID_PARAM" in done.stderr
            assert "--vmpl" in done.stderr
            assert guest.fetch(mounted.path, "--vmpl", "2").returncode == 0
        else:
            done = guest.fetch(mounted.path, "--vmpl", "1")
            assert (done.returncode, guest.out.exists()) == (2, False)
            assert "--vmpl 2" in done.stderr
            assert guest.fetch(mounted.path).returncode == 0
    assert guest.attest().returncode == 3
    assert guest.attest("--vmpl", "2").returncode == 0


class Attribute:
    """A file of sysfs."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def read_at(self, offset: int, size: int) -> bytes:
        return self.text[offset : offset + size]


def test_where_the_kernel_says_its_vmpl_the_device_is_asked_for_it(
    guest_at: Callable[[int], Guest],
) -> None:
    guest = guest_at(2)
    files = {DEVICE: guest.files[DEVICE], "sys/devices/system/cpu/sev/vmpl": Attribute(b"2\n")}
    with FuseDevices(files) as mounted:
        done = guest.fetch(mounted.path)
    assert (done.returncode, "vmpl\t2\n" in done.stdout) == (0, True)


def test_a_table_that_the_kernel_has_no_room_for_is_left_out(guest: Guest, root: Path) -> None:
    guest.driver.table = encode_cert_table({VCEK: bytes(0x8000)})
    done = guest.fetch(root)
    assert (done.returncode, guest.out.stat().st_size) == (0, 1184)
    assert "sevkit: warning: the host's certificates are left out" in done.stderr


def test_a_table_that_is_none_is_left_out(guest: Guest, root: Path) -> None:
    guest.driver.table = b"\1" * 480
    done = guest.fetch(root)
    assert (done.returncode, guest.out.stat().st_size) == (0, 1184)
    assert "certificates are left out: certificate table" in done.stderr


class Neighbour:
    """Who uses every new entry too, once: the folder that the kernel serves."""

    def __init__(self, inner: TsmReports) -> None:
        self.inner = inner
        self.attributes = inner.attributes
        self.made: list[str] = []
        self.meddled = False

    def make(self, entry: str) -> None:
        self.made.append(entry)
        self.inner.make(entry)

    def remove(self, entry: str) -> None:
        self.inner.remove(entry)

    def read(self, entry: str, attribute: str) -> bytes:
        if attribute == "outblob" and not self.meddled:
            self.meddled = True
            self.inner.write(entry, "inblob", bytes(64))
        return self.inner.read(entry, attribute)

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        self.inner.write(entry, attribute, data)


def test_a_report_over_a_neighbours_nonce_is_not_taken(guest: Guest) -> None:
    neighbour = Neighbour(guest.reports)
    with FuseDevices({PATH: neighbour}) as mounted:
        assert guest.fetch(mounted.path).returncode == 0
    assert len(neighbour.made) == 2
    assert find_report(guest.out.read_bytes()).report[0x50:0x90] == guest.nonce
    assert guest.reports.entries == ()


def test_what_the_firmware_refuses_is_undecided_and_told(guest: Guest, root: Path) -> None:
    faults = guest.processor.faults
    faults.fail("SNP_GUEST_REQUEST", FirmwareStatus.HWERROR_PLATFORM, times=1)
    done = guest.fetch(root)
    assert (done.returncode, guest.out.exists()) == (4, False)
    assert "the driver has given up its key to the secure processor" in done.stderr
    assert "boot the guest again" in done.stderr


def test_the_device_tells_the_firmwares_status(guest: Guest) -> None:
    guest.processor.faults.fail("SNP_GUEST_REQUEST", FirmwareStatus.INVALID_GUEST, times=1)
    with FuseDevices({DEVICE: guest.files[DEVICE]}) as mounted:
        done = guest.fetch(mounted.path)
    assert done.returncode == 4
    assert "SNP_GUEST_REQUEST returned 0x10 INVALID_GUEST" in done.stderr


def test_a_host_that_throttles_for_minutes_is_undecided(guest: Guest, root: Path) -> None:
    guest.driver.throttled = 10_000
    done = guest.fetch(root, "--timeout", "2", "--output", "json")
    assert done.returncode == 4
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["kind"] == "FirmwareError"
    assert "after being throttled by the host" in document["message"]


def test_a_driver_that_is_not_loaded_is_said(guest: Guest, root: Path) -> None:
    guest.reports.provider = None
    with FuseDevices({PATH: guest.reports}) as mounted:
        done = guest.fetch(mounted.path)
    assert done.returncode == 4
    assert "not an SNP guest, or one whose driver is not loaded" in done.stderr


def test_who_is_not_root_is_told_to_be(guest: Guest) -> None:
    with tempfile.TemporaryDirectory(prefix="sevkit-guest-") as folder:
        at = Path(folder)
        at.chmod(0o755)
        with FuseDevices(guest.files, at=at):
            words = ["--nonce", guest.nonce.hex(), "--out", f"{folder}.bin", "--root", folder]
            done = subprocess.run(
                [sys.executable, "-c", AS_NOBODY, "guest", "report", *words],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
    assert done.returncode == 4, done.stderr
    assert "configfs-tsm: Permission denied; /dev/sev-guest: Permission denied" in done.stderr
    assert "hint: run as root" in done.stderr
    assert guest.reports.entries == ()


def test_a_file_that_is_there_is_kept_and_nobody_is_asked(guest: Guest, root: Path) -> None:
    guest.out.write_bytes(b"mine")
    assert guest.fetch(root).returncode == 2
    assert guest.out.read_bytes() == b"mine"
    assert guest.driver.request(bytes(96)).code == 0
    assert guest.processor.snp_guests[guest.machine.context].counters[0] == 2
