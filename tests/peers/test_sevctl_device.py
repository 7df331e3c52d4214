"""virtee's sevctl on a simulated Milan: it asks the firmware, and takes the platform's ownership.

Its key pair and certificate of the owner are its own, and so is the signature on the firmware's
request: the simulated firmware checks them. Exporting needs AMD's key service, so it is not here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from sevkit.abi.sevcert import SIZE, Usage, parse_sev_certificate
from sevkit.testing.device.kvm import sev_kvm
from sevkit.testing.device.mount import FuseDevices, unavailable_reason
from sevkit.testing.device.registers import MsrFile, Syscfg, encryption_registers
from sevkit.testing.device.run import run_with_devices
from sevkit.testing.driver import SevDevice
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.write import write_host
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import make_roots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from subprocess import CompletedProcess

    from sevkit.abi.product import ProductLine
    from sevkit.testing.host.spec import HostSpec
    from sevkit.testing.snp_chain import SimulatedRoots

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"no device files: {unavailable_reason()}"
)

RMP: Final = range(0x1_0000_0000, 0x1_8000_0000)


class Host(NamedTuple):
    spec: HostSpec
    processor: SecureProcessor
    run: Callable[..., CompletedProcess[bytes]]

    def say(self, *words: str | Path) -> str:
        """Returns what sevctl prints, without colours."""
        done = self.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout.decode()).strip()


@pytest.fixture
def host(
    find_program: Callable[[str, str], Path],
    roots_of: Mapping[ProductLine, SimulatedRoots],
    tmp_path: Path,
) -> Iterator[Host]:
    sevctl = find_program("sevctl", "sevctl")
    spec = PRESETS["milan"]
    product = spec.cpu.product
    assert product is not None
    processor = SecureProcessor(ChipIdentity(product, make_roots(), roots_of[product.line]))
    processor.snp.init()
    processor.sev.init(es=True)
    root = tmp_path / "host"
    state = write_host(spec, root)
    registers = encryption_registers(Syscfg.MEM_ENCRYPTION | Syscfg.SNP | Syscfg.SNP_VMPL, RMP)
    with FuseDevices(
        {
            "sev": SevDevice(processor),
            "kvm": sev_kvm(state.vm_types),
            "cpu/0/msr": MsrFile(registers),
        }
    ) as devices:

        def run(*words: str | Path) -> CompletedProcess[bytes]:
            return run_with_devices(
                [sevctl, *words], devices, host_root=root, cpuid=spec.cpuid, cwd=tmp_path
            )

        yield Host(spec, processor, run)


def certificates(processor: SecureProcessor) -> tuple[bytes, bytes]:
    """Returns the PDH's certificate, and the OCA's."""
    pdh, chain = processor.sev.pdh_cert_export()
    return pdh, chain[SIZE : 2 * SIZE]


def test_it_shows_what_the_firmware_says(host: Host) -> None:
    assert host.say("show", "version") == str(host.processor.core.firmware.version)
    assert host.say("show", "identifier") == host.processor.identity.chip_id.hex().upper()
    assert host.say("show", "flags").split() == ["es"]
    assert host.say("show", "guests") == str(host.processor.sev.guest_count())


def test_it_finds_nothing_wrong_with_a_healthy_host(host: Host) -> None:
    told = host.say("ok", "snp")
    assert set(re.findall(r"\[ (\w+) \]", told)) == {"PASS"}
    ebx, bios = host.spec.cpuid(0x8000_001F, 0).ebx, host.spec.bios
    assert f"C-bit location: {ebx & 0x3F}\n" in told
    assert f"encrypted guests supported simultaneously: {bios.max_asid}\n" in told
    assert f"SEV-ES disabled guest: {bios.min_sev_asid}\n" in told


def test_it_takes_the_ownership_once_and_gives_it_back(host: Host, tmp_path: Path) -> None:
    host.say("generate", "oca.cert", "oca.key")
    host.say("provision", "oca.cert", "oca.key")
    assert host.processor.sev.externally_owned
    assert certificates(host.processor)[1] == (tmp_path / "oca.cert").read_bytes()
    assert host.say("show", "flags").split() == ["owned", "es"]

    again = host.run("provision", "oca.cert", "oca.key")
    assert again.returncode == 1
    assert b"AlreadyOwned" in again.stderr

    host.say("reset")
    assert not host.processor.sev.externally_owned


def test_an_owner_that_did_not_sign_is_refused(host: Host, tmp_path: Path) -> None:
    for name in ("mine", "other"):
        host.say("generate", f"{name}.cert", f"{name}.key")
    done = host.run("provision", "mine.cert", "other.key")
    assert done.returncode == 1
    assert not host.processor.sev.externally_owned


def test_it_rotates_the_pdh(host: Host) -> None:
    before, owner = certificates(host.processor)
    host.say("rotate")
    after, still = certificates(host.processor)
    assert after != before
    assert still == owner
    assert parse_sev_certificate(after).usage is Usage.PDH
