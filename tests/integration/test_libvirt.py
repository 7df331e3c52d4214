"""The real libvirt: its own ``test:///`` driver, and a libvirtd with QEMU where there is one.

The daemon runs for the time of the tests, as an ordinary user, with every file of its own under a
folder of its own. ``libvirtd`` and ``qemu-system-x86_64`` are those on PATH; for ones that were
unpacked and not installed, set LD_LIBRARY_PATH and LIBVIRT_DRIVER_DIR as well.

A second libvirtd is made to believe that it has SEV: by its cache of capabilities, and by a QEMU
whose answers about SEV come from the simulated secure processor. Through it runs the whole contract
of a hypervisor with SEV, so that every call and parameter is libvirt's own, both ways.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.product import Product
from sevkit.abi.secret_packet import DISK_GUID, SecretEntry, encode_secret_table
from sevkit.abi.session import (
    TransportKeys,
    compute_shared_secret,
    encode_godh,
    godh_key,
    seal_session,
)
from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.attest.sev_session import LaunchSession
from sevkit.errors import HypervisorError, UsageError
from sevkit.host.capabilities import decide
from sevkit.host.capability import State, Technology
from sevkit.host.probe import probe_host
from sevkit.host.reading import Cause, Known, Unreadable
from sevkit.host.reasons import Reason
from sevkit.host.sources import open_host
from sevkit.hypervisor.domain_capabilities import parse_domain_capabilities
from sevkit.hypervisor.domain_xml import CpuModel, VirtualCpus, parse_domain_xml
from sevkit.hypervisor.libvirt_connection import LibvirtHypervisor
from sevkit.hypervisor.protocol import (
    DomainState,
    HypervisorUnreachable,
    NoSuchVirtType,
    NotSupported,
    WrongState,
)
from sevkit.measure.launch_digest import compute_sev_digest, compute_sev_es_digest
from sevkit.measure.terms import Era
from sevkit.measure.vcpu import Registers, signature_of_model
from sevkit.secret import Secret
from sevkit.testing.contracts.hypervisor import (
    NoSevHypervisorContract,
    SevHypervisorContract,
    SevLaunch,
)
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.hypervisor.connection import SimulatedHypervisor
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import make_roots
from sevkit.testing.virtual_machine import SevMachine, SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sevkit.abi.secret_packet import SecretPacket
    from sevkit.hypervisor.protocol import Domain, Hypervisor
    from sevkit.testing.hypervisor.domain import SimulatedDomain

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libvirt") is None, reason="no libvirt-python (extra 'libvirt')"
)

TEST_DRIVER: Final = "test:///default"
PLAIN_DOMAIN: Final = (
    "<domain type='test'><name>{name}</name><memory unit='MiB'>64</memory>"
    "<os><type>hvm</type></os></domain>"
)
SEV_DOMAIN: Final = (
    "<domain type='{kind}'><name>{name}</name><memory unit='MiB'>64</memory>"
    "<os><type>hvm</type></os>"
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


#: QEMU loads no ROM that is not a multiple of 64 KiB.
FIRMWARE: Final = encode_firmware(FirmwareImage(size=1 << 16))
LAUNCH_DOMAIN: Final = """
<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><loader type='rom'>{folder}/ovmf.fd</loader></os>
<cpu mode='custom'><model>EPYC-Rome</model></cpu>
<devices><emulator>{emulator}</emulator></devices>
<launchSecurity type='sev'><policy>{policy}</policy>
<dhCert>{godh}</dhCert><session>{session}</session></launchSecurity></domain>
"""


class TestLibvirtsOwnDriver(NoSevHypervisorContract):
    has_domain_capabilities = False

    @pytest.fixture
    def hypervisor(self) -> Iterator[LibvirtHypervisor]:
        with LibvirtHypervisor(TEST_DRIVER) as found:
            yield found

    @pytest.fixture
    def plain_domain(self, hypervisor: LibvirtHypervisor) -> str:
        # A new one each time: the driver's own domain may have been destroyed by another test.
        name = f"plain-{os.urandom(4).hex()}"
        hypervisor.connection(writable=True).createXML(PLAIN_DOMAIN.format(name=name), 0)
        return name

    def test_sev_calls_are_not_supported_by_this_driver(
        self, hypervisor: LibvirtHypervisor
    ) -> None:
        with pytest.raises(NotSupported, match="not supported by the connection driver"):
            hypervisor.node_sev_info()
        name = f"sev-{os.urandom(4).hex()}"
        xml = SEV_DOMAIN.format(kind="test", name=name)
        hypervisor.connection(writable=True).createXML(xml, 0)
        domain = hypervisor.domain(name)
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
        assert parse_domain_xml(domain.xml()).vcpus == VirtualCpus(2, 2)
        assert set(hypervisor._connections) == {False}

    def test_a_closed_hypervisor_connects_again(self, hypervisor: LibvirtHypervisor) -> None:
        domain = hypervisor.domain("test")
        hypervisor.close()
        hypervisor.close()
        assert domain.state() is DomainState.RUNNING


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


#: What libvirt 9.0 keeps of a QEMU and a host with SEV: a PDH and a chain go into it.
SEV_FLAGS: Final = "<flag name='sev-guest'/><flag name='sev-inject-launch-secret'/>"
SEV_CACHE: Final = (
    "<sev><cbitpos>47</cbitpos><reducedPhysBits>1</reducedPhysBits>"
    "<pdh>{}</pdh><certChain>{}</certChain></sev>"
)


class Libvirtd:
    """A libvirtd of its own, in a folder of its own, that runs inside of the context manager."""

    def __init__(self, folder: Path, daemon: str, emulator: str) -> None:
        self.folder = folder
        self.emulator = emulator
        self.socket = folder / "run/libvirt/libvirt-sock"
        self.uri = f"qemu+unix:///session?socket={self.socket}"
        self.process: subprocess.Popen[bytes]
        self._daemon = daemon
        (folder / "config/libvirt").mkdir(parents=True)
        (folder / "config/libvirt/qemu.conf").write_text('stdio_handler = "file"\n')
        (folder / "libvirtd.conf").write_text(
            f'auth_unix_rw = "none"\nlog_outputs = "2:file:{folder}/log"\n'
        )
        (folder / "run").mkdir(mode=0o700)
        self._give_away()

    def _give_away(self) -> None:
        if not os.geteuid():
            user = pwd.getpwnam("nobody")
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid)

    def __enter__(self) -> Self:
        kept = ("LD_LIBRARY_PATH", "LIBVIRT_DRIVER_DIR")
        self.process = subprocess.Popen(
            [*_as_nobody(), self._daemon, "-f", str(self.folder / "libvirtd.conf")],
            cwd=self.folder,
            env={
                **{name: os.environ[name] for name in kept if name in os.environ},
                "PATH": f"{Path(self.emulator).parent}:{os.environ['PATH']}",
                "HOME": str(self.folder),
                "XDG_RUNTIME_DIR": str(self.folder / "run"),
                "XDG_CONFIG_HOME": str(self.folder / "config"),
                "XDG_CACHE_HOME": str(self.folder / "cache"),
                "XDG_DATA_HOME": str(self.folder / "data"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._await()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _await(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.socket.exists():
                with contextlib.suppress(HypervisorError), LibvirtHypervisor(self.uri) as found:
                    found.connection(writable=False)
                    return
            time.sleep(0.1)
        log = self.folder / "log"
        said = log.read_text()[-500:] if log.exists() else "no log"
        pytest.fail(f"libvirtd did not come up: {said}")

    def claim_sev(self, pdh: bytes, chain: bytes) -> None:
        """Write into the cache of capabilities, which a libvirtd believes when it starts."""
        (cache,) = self.folder.glob("cache/libvirt/qemu/cache/capabilities/*.xml")
        certificates = (base64.b64encode(data).decode() for data in (pdh, chain))
        sev = SEV_CACHE.format(*certificates)
        text = cache.read_text().replace("<version>", f"{SEV_FLAGS}<version>", 1)
        cache.write_text(text.replace("</qemuCaps>", f"{sev}</qemuCaps>"))


def _as_nobody() -> list[str]:
    """Return the words before a command that make it an ordinary user's: root has another mode."""
    if os.geteuid():
        return []
    return ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]


@pytest.fixture(scope="module")
def programs() -> tuple[str, str]:
    daemon, emulator = shutil.which("libvirtd"), shutil.which("qemu-system-x86_64")
    if not (daemon and emulator):
        pytest.skip("no libvirtd and qemu-system-x86_64 on PATH")
    return daemon, emulator


@pytest.fixture(scope="module")
def new_folder() -> Iterator[Callable[[], Path]]:
    """Make folders outside of pytest's, which another user cannot enter; their paths are short."""
    with contextlib.ExitStack() as stack:
        yield lambda: Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="sevkit-libvirt-"))
        )


@pytest.fixture(scope="module")
def libvirtd(programs: tuple[str, str], new_folder: Callable[[], Path]) -> Iterator[Libvirtd]:
    with Libvirtd(new_folder(), *programs) as found:
        yield found


class TestLibvirtdWithQemu(NoSevHypervisorContract):
    """Without KVM and so without SEV; domains are QEMU's, emulated."""

    @pytest.fixture
    def hypervisor(self, libvirtd: Libvirtd) -> Iterator[LibvirtHypervisor]:
        with LibvirtHypervisor(libvirtd.uri, virt_types=("qemu",)) as found:
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

    def test_this_machine_is_told_to_have_no_sev_and_why_beside_what_libvirt_says(
        self, hypervisor: LibvirtHypervisor
    ) -> None:
        with open_host() as source:
            facts = probe_host(source, hypervisor=hypervisor)
        said = facts.domain_capabilities
        assert isinstance(said, Known)
        assert said.value.sev is not None
        assert not said.value.sev.supported
        assert isinstance(facts.node_sev, Unreadable)
        assert facts.node_sev.cause is Cause.ABSENT
        for technology in Technology:
            found = decide(facts).of(technology)
            assert found.state in {State.ABSENT, State.UNKNOWN}
            assert found.guests == 0
            assert found.reason is not Reason.USABLE

    @pytest.mark.parametrize("command", ["probe", "doctor"])
    def test_the_command_asks_it_itself(self, command: str, libvirtd: Libvirtd) -> None:
        words = ["node", command, "--connect", libvirtd.uri, "--output", "json"]
        done = subprocess.run(
            [sys.executable, "-m", "sevkit.cli.main", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in {0, 3, 4}, done.stderr
        document = json.loads(done.stdout)
        if command == "probe":
            sources = document["sources"]
            assert sources["domain_capabilities"]["value"]["sev"]["supported"] is False
            assert sources["node_sev"]["unread"] == "absent"
        else:
            (check,) = (
                one for one in document["checks"] if one["check"] == "libvirt.launch-security"
            )
            assert (check["verdict"], check["value"]) == ("pass", "none")
            assert document["capabilities"]["sev"]["hint"]

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
            hypervisor.connection(writable=True).defineXML(
                SEV_DOMAIN.format(kind="qemu", name="sev")
            )

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

    def test_guests_of_another_kind_are_an_error_and_no_capability(
        self, libvirtd: Libvirtd
    ) -> None:
        with LibvirtHypervisor(libvirtd.uri, virt_types=("xen", "hvf")) as real:
            found: Hypervisor = real
            with pytest.raises(NoSuchVirtType, match="domain capabilities: invalid argument"):
                found.domain_capabilities()

    def test_the_first_kind_of_guests_that_there_is_has_the_capabilities(
        self, libvirtd: Libvirtd
    ) -> None:
        with LibvirtHypervisor(libvirtd.uri, virt_types=("xen", "qemu", "hvf")) as found:
            assert parse_domain_capabilities(found.domain_capabilities()).virt_type == "qemu"

    def test_another_error_is_no_reason_to_try_the_next_kind(self, libvirtd: Libvirtd) -> None:
        with (
            LibvirtHypervisor(libvirtd.uri, virt_types=("qemu", "xen"), machine="none-such") as it,
            pytest.raises(HypervisorError, match="none-such") as caught,
        ):
            it.domain_capabilities()
        assert not isinstance(caught.value, NoSuchVirtType)


#: In a process of its own: libvirt's event loop is the process', and cannot be taken back.
DEAD: Final = """
import os, signal, sys, threading, time
from sevkit.hypervisor.libvirt_connection import EventLoop, LibvirtHypervisor
from sevkit.hypervisor.protocol import HypervisorUnreachable
uri, pid = sys.argv[1], int(sys.argv[2])
loop = EventLoop()
thread = threading.Thread(target=loop.run)
thread.start()
hypervisor = LibvirtHypervisor(uri, virt_types=("qemu",), dead_after=3)
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


#: A QEMU that libvirt takes for one with SEV. The real one is started without the SEV object; what
#: libvirt asks it about SEV, and that it is to run or to stop, goes to the test's socket.
SEV_QEMU: Final = """#!{python} -IS
import json, os, select, socket, sys
qemu, answers = {qemu!r}, {answers!r}
words = sys.argv[1:]
objects = [i for i, word in enumerate(words) if '"qom-type":"sev-guest"' in word]
if not objects:
    os.execv(qemu, [qemu, *words])
del words[objects[0] - 1 : objects[0] + 1]
name = next(w for w in words if w.startswith("guest=")).partition("=")[2].partition(",")[0]
inner = socket.socket(socket.AF_UNIX)
inner.bind(os.path.join(os.path.dirname(answers), name + ".qmp"))
inner.listen(1)
inner.set_inheritable(True)
for i, word in enumerate(words):
    words[i] = word.replace(",confidential-guest-support=lsec0", "")
    if word.startswith("socket,id=charmonitor,fd="):
        fd = int(word.partition("fd=")[2].partition(",")[0])
        words[i] = word.replace(f"fd={{fd}}", f"fd={{inner.fileno()}}")
if os.fork():
    os.execv(qemu, [qemu, *words])
libvirt, _ = socket.socket(fileno=fd).accept()
monitor = socket.socket(socket.AF_UNIX)
monitor.connect(inner.getsockname())
inner.close()
test = socket.socket(socket.AF_UNIX)
test.connect(answers)
reader = test.makefile("r")
ours = ("query-sev", "query-sev-launch-measure", "sev-inject-launch-secret")
rest = b""
while True:
    for ready in select.select([libvirt, monitor], [], [])[0]:
        data = ready.recv(1 << 16)
        if not data:
            sys.exit()
        if ready is monitor:
            libvirt.sendall(data)
            continue
        *lines, rest = (rest + data).split(b"\\n")
        for line in lines:
            command = json.loads(line)
            answer = {{}}
            if command["execute"] in (*ours, "cont", "stop"):
                test.sendall(json.dumps({{"domain": name, **command}}).encode() + b"\\n")
                answer = json.loads(reader.readline())
            if command["execute"] in ours or "error" in answer:
                answer["id"] = command["id"]
                libvirt.sendall(json.dumps(answer).encode() + b"\\r\\n")
            else:
                monitor.sendall(line + b"\\n")
"""


class SevAnswers(socketserver.StreamRequestHandler):
    """Answers what a QEMU with SEV would, from the simulated domain of the same name."""

    hypervisor: ClassVar[SimulatedHypervisor]

    def handle(self) -> None:
        for line in self.rfile:
            command = json.loads(line)
            try:
                domain = self.hypervisor.domain(command["domain"])
                answer = {"return": self._answer(domain, command)}
            except HypervisorError as error:
                answer = {"error": {"class": "GenericError", "desc": error.message}}
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    @staticmethod
    def _answer(domain: SimulatedDomain, command: dict[str, Any]) -> dict[str, Any]:
        arguments = command.get("arguments", {})
        match command["execute"]:
            case "query-sev-launch-measure":
                measurement = domain.launch_security_info().measurement
                return {"data": base64.b64encode(measurement).decode()}
            case "query-sev":
                info = domain.launch_security_info()
                numbers = {"api-major": info.api_major, "api-minor": info.api_minor}
                numbers |= {"build-id": info.build_id, "policy": info.policy, "handle": 1}
                return {"enabled": True, "state": "launch-secret", **numbers}
            case "sev-inject-launch-secret":
                domain.inject_launch_secret(
                    base64.b64decode(arguments["packet-header"]),
                    base64.b64decode(arguments["secret"]),
                    address=arguments.get("gpa"),
                )
            case "cont" if domain.state() is DomainState.PAUSED:
                domain.resume()
            case "stop":
                domain.pause()
        return {}


@pytest.fixture(scope="module")
def kvm() -> SimulatedKvm:
    return SimulatedKvm(SecureProcessor(ChipIdentity(Product.NAPLES, make_roots())))


@pytest.fixture(scope="module")
def sev_libvirtd(
    programs: tuple[str, str], new_folder: Callable[[], Path], kvm: SimulatedKvm
) -> Iterator[Libvirtd]:
    """A libvirtd that believes to have SEV; its QEMUs have it from the simulated processor."""
    daemon, qemu = programs
    python = sys.executable if os.geteuid() else shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("no python3 that an ordinary user can run")
    folder = new_folder()
    (folder / "bin").mkdir()
    answers = folder / "answers"
    emulator = folder / "bin" / "qemu-system-x86_64"
    emulator.write_text(SEV_QEMU.format(python=python, qemu=qemu, answers=str(answers)))
    emulator.chmod(0o755)
    (folder / "ovmf.fd").write_bytes(FIRMWARE)
    found = Libvirtd(folder, daemon, str(emulator))
    with found, LibvirtHypervisor(found.uri, virt_types=("qemu",)) as hypervisor:
        hypervisor.domain_capabilities()
    found.claim_sev(*kvm.processor.sev.pdh_cert_export())
    with socketserver.ThreadingUnixStreamServer(str(answers), SevAnswers) as server:
        server.daemon_threads = True
        answers.chmod(0o666)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with found:
                yield found
        finally:
            server.shutdown()
            thread.join()


class TestLibvirtdOverTheSimulatedProcessor(SevHypervisorContract):
    """All of libvirt is real, and so is QEMU's life; what the firmware does is simulated."""

    @pytest.fixture
    def hypervisor(self, sev_libvirtd: Libvirtd, kvm: SimulatedKvm) -> Iterator[LibvirtHypervisor]:
        firmware = {str(sev_libvirtd.folder / "ovmf.fd"): FIRMWARE}
        with (
            SimulatedHypervisor(kvm, firmware) as SevAnswers.hypervisor,
            LibvirtHypervisor(sev_libvirtd.uri, virt_types=("qemu",)) as found,
        ):
            yield found

    @pytest.fixture
    def plain_domain(self, hypervisor: LibvirtHypervisor, sev_libvirtd: Libvirtd) -> Iterator[str]:
        name = f"plain-{os.urandom(4).hex()}"
        xml = TCG_DOMAIN.format(name=name, emulator=sev_libvirtd.emulator)
        hypervisor.connection(writable=True).createXML(xml, 0)
        yield name
        with contextlib.suppress(HypervisorError):
            hypervisor.domain(name).destroy()

    @pytest.fixture(params=[1, 5], ids=["sev", "sev-es"])
    def sev_launch(
        self,
        request: pytest.FixtureRequest,
        hypervisor: LibvirtHypervisor,
        sev_libvirtd: Libvirtd,
        kvm: SimulatedKvm,
    ) -> Iterator[SevLaunch]:
        name = f"sev-{os.urandom(4).hex()}"
        session = _seal(kvm, request.param)
        xml = LAUNCH_DOMAIN.format(
            name=name,
            folder=sev_libvirtd.folder,
            emulator=sev_libvirtd.emulator,
            policy=f"{session.policy:#x}",
            godh=session.godh_base64,
            session=session.session_base64,
        )
        SevAnswers.hypervisor.define(xml).start()
        library = hypervisor._library
        connection = hypervisor.connection(writable=True)
        connection.createXML(xml, library.VIR_DOMAIN_START_PAUSED)
        registers = Registers(signature_of_model("EPYC-Rome"), 0, era=Era.INIT)
        digest = (
            compute_sev_digest(FIRMWARE)
            if session.policy == 1
            else compute_sev_es_digest(FIRMWARE, registers, 1)
        )
        yield SevLaunch(name, session.keys, session.policy, digest)
        with contextlib.suppress(HypervisorError):
            hypervisor.domain(name).destroy()

    def test_an_address_arrives_as_it_was_given(
        self, sev: Domain, packet: SecretPacket, kvm: SimulatedKvm, sev_launch: SevLaunch
    ) -> None:
        sev.inject_launch_secret(packet.header, packet.ciphertext, address=0x1_0000_9000)
        guest = SevAnswers.hypervisor.domain(sev_launch.domain).guest
        assert isinstance(guest, SevMachine)
        ((where, _),) = kvm.processor.sev_guests[guest.handle].injected
        assert where == 0x1_0000_9000

    def test_the_command_injects_what_was_sent_and_resumes(
        self, tmp_path: Path, sev_libvirtd: Libvirtd, kvm: SimulatedKvm, sev_launch: SevLaunch
    ) -> None:
        table = encode_secret_table([SecretEntry(DISK_GUID, Secret(b"of the command"))])
        domain = SevAnswers.hypervisor.domain(sev_launch.domain)
        guest = domain.guest
        assert isinstance(guest, SevMachine)
        injected = kvm.processor.sev_guests[guest.handle].injected
        words = _command_of(tmp_path, sev_libvirtd.uri, sev_launch)

        done = _run(*words)
        assert done.returncode == 5
        assert "domain.remote" in done.stderr
        assert (injected, domain.state()) == ([], DomainState.PAUSED)

        done = _run(*words, "--accept=local-hypervisor")
        assert done.returncode == 0, done.stderr
        assert [data.reveal() for _, data in injected] == [table.reveal()]
        assert domain.state() is DomainState.RUNNING
        assert json.loads(done.stdout)["evidence"]["injected"] is True

        done = _run(*words, "--accept=local-hypervisor")
        assert done.returncode == 3
        assert len(injected) == 1


def _command_of(folder: Path, uri: str, launch: SevLaunch) -> list[str]:
    """Write the owner's files; return the words that attest a domain with them."""
    files = {
        "ovmf.fd": FIRMWARE,
        "tik": launch.keys.tik.reveal(),
        "tek": launch.keys.tek.reveal(),
        "key": b"of the command",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    cpus = ["--vcpus=1", "--vcpu-type=EPYC-Rome"] if launch.policy & 4 else []
    return [
        "attest",
        "domain",
        launch.domain,
        f"--connect={uri}",
        f"--guest-policy={launch.policy}",
        f"--secret={DISK_GUID}={folder / 'key'}",
        *(f"--{name}={folder / name}" for name in ("tik", "tek")),
        f"--firmware={folder / 'ovmf.fd'}",
        "--accept=unmeasured-boot",
        "--accept=unmeasured-variables",
        "--output=json",
        *cpus,
    ]


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sevkit", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("word", ["", "--accept=local-hypervisor"])
def test_the_command_has_nothing_to_judge_in_libvirts_own_driver(tmp_path: Path, word: str) -> None:
    launch = SevLaunch("test", TransportKeys(Secret(bytes(16)), Secret(b"x" * 16)), 1, b"")
    done = _run(*_command_of(tmp_path, TEST_DRIVER, launch), *filter(None, [word]))
    assert done.returncode == 3
    assert "domain.launch-security" in done.stderr


def _seal(kvm: SimulatedKvm, policy: int) -> LaunchSession:
    pdh = parse_sev_certificate(kvm.processor.sev.pdh_cert_export()[0])
    private = ec.generate_private_key(ec.SECP384R1())
    keys = TransportKeys(Secret(os.urandom(16)), Secret(os.urandom(16)))
    blob = seal_session(
        compute_shared_secret(private, godh_key(pdh)),
        keys,
        policy,
        nonce=os.urandom(16),
        iv=os.urandom(16),
    )
    return LaunchSession(blob, encode_godh(private), keys, policy, "", simulated=True)
