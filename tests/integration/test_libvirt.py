"""The real libvirt: its own ``test:///`` driver, and a libvirtd with QEMU where there is one.

The daemon runs for the time of the tests, as an ordinary user, with every file of its own under a
folder of its own. ``libvirtd`` and ``qemu-system-x86_64`` are those on PATH; for ones that were
unpacked and not installed, set LD_LIBRARY_PATH and LIBVIRT_DRIVER_DIR as well.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.errors import HypervisorError, UsageError
from sevkit.hypervisor.domain_capabilities import parse_domain_capabilities
from sevkit.hypervisor.domain_xml import CpuModel, VirtualCpus, parse_domain_xml
from sevkit.hypervisor.libvirt_connection import LibvirtHypervisor
from sevkit.hypervisor.protocol import (
    DomainState,
    HypervisorUnreachable,
    NotSupported,
    WrongState,
)
from sevkit.testing.contracts.hypervisor import NoSevHypervisorContract

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libvirt") is None, reason="no libvirt-python (extra 'libvirt')"
)

TEST_DRIVER: Final = "test:///default"
SEV_DOMAIN: Final = (
    "<domain type='{kind}'><name>sev</name><memory unit='MiB'>64</memory><os><type>hvm</type></os>"
    "<launchSecurity type='sev'><cbitpos>47</cbitpos><reducedPhysBits>1</reducedPhysBits>"
    "<policy>1</policy></launchSecurity></domain>"
)
TCG_DOMAIN: Final = """
<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>
<vcpu>3</vcpu><vcpus><vcpu id='0' enabled='yes'/><vcpu id='1' enabled='yes' hotpluggable='yes'/>
<vcpu id='2' enabled='no'/></vcpus>
<os><type arch='x86_64' machine='q35'>hvm</type></os>
<cpu mode='custom'><model>EPYC-Rome</model></cpu>
<devices><emulator>{emulator}</emulator></devices></domain>
"""


class TestLibvirtsOwnDriver(NoSevHypervisorContract):
    has_domain_capabilities = False

    @pytest.fixture
    def hypervisor(self) -> Iterator[LibvirtHypervisor]:
        with LibvirtHypervisor(TEST_DRIVER) as found:
            yield found

    @pytest.fixture
    def plain_domain(self, hypervisor: LibvirtHypervisor) -> str:
        assert hypervisor.connection(writable=True).getType() == "TEST"
        return "test"

    def test_sev_calls_are_not_supported_by_this_driver(
        self, hypervisor: LibvirtHypervisor
    ) -> None:
        with pytest.raises(NotSupported, match="not supported by the connection driver"):
            hypervisor.node_sev_info()
        hypervisor.connection(writable=True).createXML(SEV_DOMAIN.format(kind="test"), 0)
        domain = hypervisor.domain("sev")
        security = parse_domain_xml(domain.xml()).launch_security
        assert security is not None
        assert (security.kind, security.policy, security.cbitpos) == ("sev", 1, 47)
        with pytest.raises(NotSupported, match="unsupported flags"):
            domain.launch_security_info()
        with pytest.raises(NotSupported, match="virDomainSetLaunchSecurityState"):
            domain.inject_launch_secret(bytes(52), bytes(16), address=0x810000)

    def test_a_name_or_a_number_that_cannot_be_passed_on_is_a_usage_error(
        self, hypervisor: LibvirtHypervisor
    ) -> None:
        for name in ("a\0b", "\ud800"):
            with pytest.raises(UsageError):
                hypervisor.domain(name)
        with pytest.raises((UsageError, NotSupported)):
            hypervisor.domain("test").inject_launch_secret(bytes(52), bytes(16), address=1 << 64)

    def test_reading_is_done_read_only(self, hypervisor: LibvirtHypervisor) -> None:
        domain = hypervisor.domain("test")
        assert domain.state() is DomainState.RUNNING
        assert domain.xml()
        assert set(hypervisor._connections) == {False}

    def test_a_closed_hypervisor_connects_again(self, hypervisor: LibvirtHypervisor) -> None:
        domain = hypervisor.domain("test")
        domain.pause()
        hypervisor.close()
        hypervisor.close()
        assert domain.state() is DomainState.RUNNING  # the driver's domains are new ones


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+unix:///session?socket=/nonexistent/libvirt-sock",
        "qemu+tcp://127.0.0.1:1/system",
        "nonsense+unix:///x?socket=/nonexistent",
    ],
)
def test_a_libvirt_that_is_not_there_is_unreachable_and_prints_nothing(
    uri: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(HypervisorUnreachable, match="connect to ") as caught:
        LibvirtHypervisor(uri).domain("x")
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")


def test_libvirt_is_not_imported_before_it_is_asked() -> None:
    code = (
        "import sys; from sevkit.hypervisor import libvirt_connection, domain_xml; "
        "sys.exit(any(name in sys.modules for name in ('libvirt', 'lxml', 'cryptography')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("missing", ["libvirt", "lxml"])
def test_a_missing_package_is_a_usage_error_that_names_the_extra(missing: str) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
from sevkit.errors import UsageError
from sevkit.hypervisor.domain_xml import parse_domain_xml
from sevkit.hypervisor.libvirt_connection import LibvirtHypervisor
try:
    LibvirtHypervisor("test:///default")
    parse_domain_xml("<domain/>")
except UsageError as error:
    print(error.hint)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "pip install 'sevkit[libvirt]'\n"


class Libvirtd:
    """A libvirtd of its own and the URI of its socket."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], emulator: str) -> None:
        self.process = process
        self.emulator = emulator
        self.socket = folder / "run/libvirt/libvirt-sock"
        self.uri = f"qemu+unix:///session?socket={self.socket}"


def _as_nobody() -> list[str]:
    """Return the words before a command that make it an ordinary user's: root has another mode."""
    if os.geteuid():
        return []
    return ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[Libvirtd]:
    daemon, emulator = shutil.which("libvirtd"), shutil.which("qemu-system-x86_64")
    if not (daemon and emulator):
        pytest.skip("no libvirtd and qemu-system-x86_64 on PATH")
    with contextlib.ExitStack() as stack:
        # Not pytest's folder: the other user cannot enter it, and a socket's path is short.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sevkit-libvirt-")))
        (folder / "config/libvirt").mkdir(parents=True)
        (folder / "config/libvirt/qemu.conf").write_text('stdio_handler = "file"\n')
        (folder / "libvirtd.conf").write_text(
            f'auth_unix_rw = "none"\nlog_outputs = "2:file:{folder}/log"\n'
        )
        (folder / "run").mkdir(mode=0o700)
        if not os.geteuid():
            user = pwd.getpwnam("nobody")
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid)
        kept = ("PATH", "LD_LIBRARY_PATH", "LIBVIRT_DRIVER_DIR")
        process = subprocess.Popen(
            [*_as_nobody(), daemon, "-f", str(folder / "libvirtd.conf")],
            cwd=folder,
            env={
                **{name: os.environ[name] for name in kept if name in os.environ},
                "HOME": str(folder),
                "XDG_RUNTIME_DIR": str(folder / "run"),
                "XDG_CONFIG_HOME": str(folder / "config"),
                "XDG_CACHE_HOME": str(folder / "cache"),
                "XDG_DATA_HOME": str(folder / "data"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(process.wait, timeout=30)
        stack.callback(process.terminate)
        found = Libvirtd(folder, process, emulator)
        _await_daemon(found, folder)
        yield found


def _await_daemon(daemon: Libvirtd, folder: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and daemon.process.poll() is None:
        if daemon.socket.exists():
            with contextlib.suppress(HypervisorError), LibvirtHypervisor(daemon.uri) as found:
                found.connection(writable=False)
                return
        time.sleep(0.1)
    log = folder / "log"
    pytest.fail(f"libvirtd did not come up: {log.read_text()[-500:] if log.exists() else 'no log'}")


class TestLibvirtdWithQemu(NoSevHypervisorContract):
    """Without KVM and so without SEV; domains are QEMU's, emulated."""

    @pytest.fixture
    def hypervisor(self, libvirtd: Libvirtd) -> Iterator[LibvirtHypervisor]:
        with LibvirtHypervisor(libvirtd.uri, virt_type="qemu") as found:
            yield found

    @pytest.fixture
    def plain_domain(self, hypervisor: LibvirtHypervisor, libvirtd: Libvirtd) -> Iterator[str]:
        name = f"plain-{os.urandom(4).hex()}"
        xml = TCG_DOMAIN.format(name=name, emulator=libvirtd.emulator)
        hypervisor.connection(writable=True).createXML(xml, 0)
        yield name
        with contextlib.suppress(HypervisorError):
            hypervisor.domain(name).destroy()

    def test_its_capabilities_know_this_qemu_and_no_sev(
        self, hypervisor: LibvirtHypervisor, libvirtd: Libvirtd
    ) -> None:
        found = parse_domain_capabilities(hypervisor.domain_capabilities())
        assert (found.virt_type, found.path) == ("qemu", libvirtd.emulator)
        assert found.host_model is not None
        assert found.sev is not None
        assert not found.sev.supported

    def test_its_xml_tells_vcpus_that_are_plugged_in_later_apart(
        self, hypervisor: LibvirtHypervisor, plain_domain: str
    ) -> None:
        found = parse_domain_xml(hypervisor.domain(plain_domain).xml())
        assert found.vcpus == VirtualCpus(maximum=3, enabled=2, hotpluggable=1)
        assert isinstance(found.cpu, CpuModel)
        assert (found.cpu.mode, found.cpu.model) == ("custom", "EPYC-Rome")
        assert found.uuid is not None
        assert found.boot.machine is not None

    def test_it_defines_no_sev_domain(self, hypervisor: LibvirtHypervisor) -> None:
        library = hypervisor._library
        with pytest.raises(library.libvirtError, match="SEV launch security is not supported"):
            hypervisor.connection(writable=True).defineXML(SEV_DOMAIN.format(kind="qemu"))

    def test_a_domain_that_is_shut_off_is_not_running(
        self, hypervisor: LibvirtHypervisor, libvirtd: Libvirtd
    ) -> None:
        xml = TCG_DOMAIN.format(name="kept", emulator=libvirtd.emulator)
        handle = hypervisor.connection(writable=True).defineXML(xml)
        try:
            domain = hypervisor.domain("kept")
            assert domain.state() is DomainState.SHUT_OFF
            for call in (domain.resume, domain.pause, domain.destroy):
                with pytest.raises(WrongState):
                    call()
        finally:
            handle.undefine()

    def test_kvm_that_is_not_there_is_an_error_and_no_capability(self, libvirtd: Libvirtd) -> None:
        with LibvirtHypervisor(libvirtd.uri) as found, pytest.raises(HypervisorError, match="kvm"):
            found.domain_capabilities()


#: In a process of its own: libvirt's event loop is the process', and cannot be taken back.
DEAD: Final = """
import os, signal, sys, threading, time
from sevkit.hypervisor.libvirt_connection import EventLoop, LibvirtHypervisor
from sevkit.hypervisor.protocol import HypervisorUnreachable
uri, pid = sys.argv[1], int(sys.argv[2])
loop = EventLoop()
thread = threading.Thread(target=loop.run)
thread.start()
hypervisor = LibvirtHypervisor(uri, virt_type="qemu", dead_after=3)
hypervisor.domain_capabilities()
os.kill(pid, signal.SIGSTOP)
started = time.monotonic()
try:
    hypervisor.domain_capabilities()
except HypervisorUnreachable as error:
    print(round(time.monotonic() - started), error.message)
finally:
    os.kill(pid, signal.SIGCONT)
hypervisor.close()
loop.stop()
thread.join(10)
print("stopped", not thread.is_alive())
"""


def test_a_daemon_that_hangs_is_given_up_in_the_time_that_was_given(libvirtd: Libvirtd) -> None:
    pid = libvirtd.process.pid
    try:
        done = subprocess.run(
            [sys.executable, "-c", DEAD, libvirtd.uri, str(pid)],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    first, second = done.stdout.splitlines()
    seconds, _, said = first.partition(" ")
    assert 2 <= int(seconds) <= 10
    assert "keepalive timeout" in said
    assert second == "stopped True"
