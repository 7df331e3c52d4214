"""virtee's snphost on simulated machines: Milan, Genoa and Turin, whatever this machine is.

It opens /dev/sev, /dev/kvm and /dev/cpu/0/msr, reads /sys, and executes CPUID. What it prints must
be what the simulation says; and what it tells the firmware must arrive.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest

from sevkit.abi.firmware_status import FirmwareStatus
from sevkit.abi.platform_status import SnpStatusFlags
from sevkit.abi.product import SNP_LINES
from sevkit.kds.urls import SPL_NAMES
from sevkit.testing.device.kvm import sev_kvm
from sevkit.testing.device.mount import FuseDevices, unavailable_reason
from sevkit.testing.device.registers import MsrFile, Syscfg, encryption_registers
from sevkit.testing.device.run import run_with_devices
from sevkit.testing.driver import SevDevice
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.write import write_host
from sevkit.testing.secure_processor.core import AsidRange
from sevkit.testing.secure_processor.identity import ChipIdentity, Vlek
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import make_roots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from subprocess import CompletedProcess

    from sevkit.abi.product import ProductLine
    from sevkit.abi.tcb import TcbVersion
    from sevkit.testing import sev_chain
    from sevkit.testing.host.spec import HostSpec
    from sevkit.testing.snp_chain import SimulatedRoots

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"no device files: {unavailable_reason()}"
)

RMP: Final = range(0x1_0000_0000, 0x1_8000_0000)
SNP_ON: Final = Syscfg.MEM_ENCRYPTION | Syscfg.SNP | Syscfg.SNP_VMPL
#: What snphost calls a TCB version's components.
WORDS: Final = {
    "Microcode": "microcode",
    "SNP": "snp",
    "TEE": "tee",
    "Boot Loader": "bootloader",
    "FMC": "fmc",
}
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
CHECK: Final = re.compile(r"\[ (PASS|FAIL|SKIP) \] *- (.*)")
POLICY: Final = 0x3_0000
HOSTS: Final = ("milan", "genoa", "turin")


class Host(NamedTuple):
    """A simulated machine with its processor, and snphost on it."""

    spec: HostSpec
    processor: SecureProcessor
    roots: SimulatedRoots
    run: Callable[..., CompletedProcess[bytes]]

    def say(self, *words: str | Path) -> str:
        """Returns what snphost prints."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return COLOUR.sub("", done.stdout.decode()).strip()


@pytest.fixture(scope="module")
def snphost(find_program: Callable[[str, str], Path]) -> Path:
    return find_program("snphost", "snphost")


@pytest.fixture(scope="module")
def sev_roots() -> sev_chain.SimulatedRoots:
    """SEV's own roots, which no question here is about; keys take time to make."""
    return make_roots()


@pytest.fixture(params=HOSTS)
def spec(request: pytest.FixtureRequest) -> HostSpec:
    return PRESETS[request.param]


@pytest.fixture
def host(
    spec: HostSpec,
    snphost: Path,
    sev_roots: sev_chain.SimulatedRoots,
    roots_of: Mapping[ProductLine, SimulatedRoots],
    tmp_path: Path,
) -> Iterator[Host]:
    product = spec.cpu.product
    assert product is not None
    roots = roots_of[product.line]
    processor = SecureProcessor(
        ChipIdentity(product, sev_roots, roots),
        asids=AsidRange(spec.bios.max_asid, spec.bios.min_sev_asid),
    )
    processor.snp.init()
    processor.sev.init(es=True)
    state = write_host(spec, tmp_path / "host")
    with FuseDevices(
        {
            "sev": SevDevice(processor),
            "kvm": sev_kvm(state.vm_types),
            "cpu/0/msr": MsrFile(encryption_registers(SNP_ON, RMP)),
        }
    ) as devices:

        def run(*words: str | Path) -> CompletedProcess[bytes]:
            return run_with_devices(
                [snphost, *words],
                devices,
                host_root=tmp_path / "host",
                cpuid=spec.cpuid,
                cwd=tmp_path,
            )

        yield Host(spec, processor, roots, run)


def components(text: str) -> dict[str, int]:
    """Returns the components of the one TCB version that snphost prints in ``text``."""
    found = dict(re.findall(r"^ +([A-Z][A-Za-z ]*): +(\w+)", text, re.MULTILINE))
    assert set(found) == set(WORDS)
    return {WORDS[word]: int(value) for word, value in found.items() if value != "None"}


def checks(text: str) -> dict[str, str]:
    return {line: verdict for verdict, line in CHECK.findall(COLOUR.sub("", text))}


def lower(tcb: TcbVersion) -> list[str]:
    """Returns ``config set``'s words for a version whose SNP level is one lower, and no masks."""
    values = {**tcb.components, "snp": tcb.snp - 1}
    words = [str(values[name]) for name in ("bootloader", "tee", "snp", "microcode")]
    return [*words, "0", *([str(values["fmc"])] if "fmc" in values else [])]


def test_it_shows_the_firmwares_version_and_the_chips_id(host: Host) -> None:
    version = host.processor.core.firmware.version
    assert host.say("show", "version") == f"{version.major}.{version.minor}"
    assert host.say("show", "identifier") == host.processor.identity.chip_id.hex().upper()


def test_it_counts_the_guests_that_there_are(host: Host) -> None:
    assert host.say("show", "guests") == "0"
    guests = host.processor.snp_guests
    contexts = [guests.gctx_create() for _ in range(2)]
    for context in contexts:
        guests.launch_start(context, POLICY)
    assert host.say("show", "guests") == str(host.processor.snp.guest_count()) == "2"


def test_it_decodes_tcb_versions_in_the_products_own_order(host: Host) -> None:
    host.run("config", "set", *lower(host.processor.snp.current_tcb))
    reported, platform = host.say("show", "tcb").split("Platform TCB:")
    assert components(reported) == host.processor.snp.reported_tcb.components
    assert components(platform) == host.processor.snp.current_tcb.components
    assert host.processor.snp.reported_tcb != host.processor.snp.current_tcb


@pytest.mark.parametrize("kind", ["vcek", "vlek"])
def test_its_addresses_ask_for_what_the_chip_reports(host: Host, kind: str) -> None:
    url = urlsplit(host.say("show", f"{kind}-url"))
    names = {spl: name for name, spl in SPL_NAMES.items()}
    asked = {names[spl]: int(value) for spl, value in parse_qsl(url.query)}
    assert asked == host.processor.snp.reported_tcb.components
    line = host.processor.identity.line
    last = host.processor.identity.chip_id.hex().upper() if kind == "vcek" else "cert"
    assert url.path == f"/{kind}/v1/{line}/{last}"


def test_it_finds_nothing_wrong_with_a_healthy_host(host: Host) -> None:
    done = host.run("ok")
    found = checks(done.stdout.decode())
    assert done.returncode == 0, done.stdout
    assert set(found.values()) == {"PASS"}
    version = host.processor.core.firmware.version
    ebx, bios = host.spec.cpuid(0x8000_001F, 0).ebx, host.spec.bios
    for line in (
        f"SEV firmware version: {version.major}.{version.minor}",
        f"RMP table addresses: {RMP.start:#x} - {RMP.stop - 1:#x}",
        f"C-bit location: {ebx & 0x3F}",
        f"Physical address bit reduction: {ebx >> 6 & 0x3F}",
        f"Number of VMPLs: {ebx >> 12 & 0xF}",
        f"Number of encrypted guests supported simultaneously: {bios.max_asid}",
        f"Minimum ASID value for SEV-enabled, SEV-ES disabled guest: {bios.min_sev_asid}",
        "SNP initialized",
        "SEV-SNP enabled in KVM",
    ):
        assert found[line] == "PASS"


def test_it_finds_firmware_that_is_not_initialised(host: Host) -> None:
    host.processor.sev.shutdown()
    host.processor.core.wbinvd()
    host.processor.sev.df_flush()
    host.processor.snp.shutdown()
    done = host.run("ok")
    failed = {line for line, verdict in checks(done.stdout.decode()).items() if verdict == "FAIL"}
    assert done.returncode != 0
    assert any("SEV initialized" in line for line in failed)
    assert any("SNP initialized" in line for line in failed)


def test_what_it_configures_is_what_the_firmware_reports(host: Host) -> None:
    snp = host.processor.snp
    words = lower(snp.current_tcb)
    words[4] = "3"
    host.say("config", "set", *words)
    assert snp.reported_tcb.components == {
        **snp.current_tcb.components,
        "snp": snp.current_tcb.snp - 1,
    }
    assert (snp.mask_chip_id, snp.mask_chip_key) == (True, True)
    host.say("config", "reset")
    assert snp.reported_tcb == snp.committed_tcb
    assert (snp.mask_chip_id, snp.mask_chip_key) == (False, False)


def test_what_the_firmware_refuses_it_says_by_name(host: Host) -> None:
    words = lower(host.processor.snp.current_tcb)
    words[0] = "255"
    done = host.run("config", "set", *words)
    assert done.returncode == 1
    assert b"InvalidParam" in done.stderr
    assert host.processor.snp.reported_tcb == host.processor.snp.committed_tcb


def test_its_commit_commits(host: Host) -> None:
    host.say("config", "set", *lower(host.processor.snp.current_tcb))
    host.say("commit")
    assert host.processor.core.log[-1] == "SNP_COMMIT"
    assert host.processor.snp.reported_tcb == host.processor.snp.current_tcb


def test_it_loads_a_vlek_that_was_wrapped_for_this_chip(host: Host, tmp_path: Path) -> None:
    vlek = Vlek(host.roots, host.processor.snp.reported_tcb)
    stick = tmp_path / "hashstick.bin"
    stick.write_bytes(host.processor.identity.seal_hashstick(vlek))
    told = host.say("verify", "vlek-hashstick", stick)
    in_stick, reported = told.split("matches reported TCB version:")
    assert components(in_stick) == components(reported) == vlek.tcb.components
    host.say("vlek-load", stick)
    assert host.processor.snp.status().flags & SnpStatusFlags.VLEK_EN


def test_a_vlek_for_another_chip_is_refused(host: Host, tmp_path: Path) -> None:
    other = ChipIdentity(
        host.processor.identity.product, host.processor.identity.sev_roots, host.roots
    )
    vlek = Vlek(host.roots, host.processor.snp.reported_tcb)
    stick = tmp_path / "hashstick.bin"
    stick.write_bytes(other.seal_hashstick(vlek))
    done = host.run("vlek-load", stick)
    assert done.returncode == 1
    assert f"Status Code: {FirmwareStatus.BAD_MEASUREMENT:#x}".encode() in done.stderr
    assert not host.processor.snp.status().flags & SnpStatusFlags.VLEK_EN


def test_every_line_with_snp_is_tried() -> None:
    products = [PRESETS[name].cpu.product for name in HOSTS]
    assert {product.line for product in products if product is not None} == set(SNP_LINES)
