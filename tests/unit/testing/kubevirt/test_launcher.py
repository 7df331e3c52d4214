from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.report import parse_report
from sevkit.attest.sev_session import new_packet
from sevkit.measure.launch_digest import compute_snp_digest
from sevkit.measure.terms import Mode
from sevkit.testing.kubevirt.launch_wish import FIRMWARE_FILES, LaunchWish, parse_wish
from sevkit.testing.kubevirt.launcher import Launcher
from sevkit.testing.kubevirt.lies import Lies
from sevkit.testing.kubevirt.lifecycle import DomainOff
from sevkit.testing.kubevirt.owner_side import TABLE, OwnerSide, make_vmi
from sevkit.testing.kubevirt.qemu_words import LauncherError
from sevkit.testing.snp_guest import GuestChannel
from sevkit.testing.virtual_machine import SevMachine, SnpMachine

if TYPE_CHECKING:
    from sevkit.attest.sev_session import LaunchSession
    from sevkit.testing.kubevirt.host import SimulatedHost

KEY = ("ns", "one")


@pytest.fixture
def told() -> list[Lies]:
    return [Lies()]


@pytest.fixture
def launcher(host: SimulatedHost, firmware: bytes, told: list[Lies]) -> Launcher:
    files = dict.fromkeys(FIRMWARE_FILES.values(), firmware)
    return Launcher(KEY, host, files, deadline=240.0, lies=lambda: told[0])


def wish_of(launcher: Launcher, owner: OwnerSide, mode: Mode) -> tuple[LaunchWish, LaunchSession]:
    wish = parse_wish(make_vmi(mode))
    info = json.dumps(launcher.platform_info()).encode()
    session = owner.new_session(info, wish.policy)
    given = replace(wish, session=session.session_base64, dh_cert=session.godh_base64)
    return given, session


@pytest.mark.parametrize("mode", [Mode.SEV, Mode.SEV_ES])
def test_a_paused_launch_takes_a_secret_and_runs_when_it_is_let(
    launcher: Launcher, owner: OwnerSide, mode: Mode
) -> None:
    wish, session = wish_of(launcher, owner, mode)
    launcher.start(wish)
    assert (launcher.domain, launcher.paused) == (True, True)
    info = json.dumps(launcher.measurement_info()).encode()
    launch = owner.judge(info, session, owner.reference(mode))
    assert launch is not None
    packet = new_packet(launch, session.keys, TABLE)
    header, secret = (
        base64.b64encode(part).decode() for part in (packet.header, packet.ciphertext)
    )
    launcher.inject(header, secret)
    assert launcher.injected == (TABLE,)
    launcher.unpause()
    assert (launcher.domain, launcher.paused) == (True, False)
    launcher.pause()
    with pytest.raises(LauncherError, match=r"Not in correct state: .LSECRET. 3"):
        launcher.inject(header, secret)
    launcher.close()
    assert launcher.host.kvm.asids.current == {"sev": 0, "sev_es": 0}


#: (what the VMI says of its CPU, VMSAs that the processor really takes for SEV-ES)
@pytest.mark.parametrize(
    ("cpu", "vmsas"),
    [
        ({"sockets": 2, "maxSockets": 2}, 1),
        ({"sockets": 2, "cores": 2, "threads": 2, "maxSockets": 2}, 4),
        ({"sockets": 2}, 2),
        ({"sockets": 1, "cores": 4, "maxSockets": 1}, 4),
    ],
)
def test_the_processor_measures_the_vcpus_that_are_not_hot_pluggable(
    launcher: Launcher, cpu: dict[str, int], vmsas: int
) -> None:
    vmi = make_vmi(Mode.SEV_ES, attestation=False)
    vmi["spec"]["domain"]["cpu"] = cpu
    launcher.start(parse_wish(vmi))
    machine = launcher.machine
    assert isinstance(machine, SevMachine)
    assert launcher.host.processor.sev_guests[machine.handle].vmsas == vmsas


def test_an_snp_guest_has_kubevirts_policy_and_the_digest_of_its_firmware(
    launcher: Launcher, firmware: bytes
) -> None:
    wish = parse_wish(make_vmi(Mode.SNP, attestation=False))
    launcher.start(wish)
    machine = launcher.machine
    assert isinstance(machine, SnpMachine)
    guest = launcher.host.processor.snp_guests[machine.context]
    registers = wish.registers(launcher.host.product)
    assert guest.policy == 0x30000
    digest = compute_snp_digest(firmware, registers, wish.vcpus)
    assert guest.digest == digest
    report = parse_report(GuestChannel(launcher.host.kvm, machine).get_report(bytes(64)))
    assert (report.policy, report.measurement) == (0x30000, digest)


def test_the_answer_names_the_declared_firmware_and_the_policy(
    launcher: Launcher, firmware: bytes, told: list[Lies]
) -> None:
    told[0] = Lies(firmware=firmware[:-1] + b"\x01", api=(0, 24, 0), reported_policy=3)
    launcher.start(parse_wish(make_vmi(Mode.SEV, attestation=False)))
    info = launcher.measurement_info()
    assert info["loaderSHA"] == hashlib.sha256(firmware).hexdigest()
    assert [info[name] for name in ("apiMajor", "apiMinor", "buildID", "policy")] == [0, 24, 0, 3]


def test_before_there_is_a_domain_only_the_chain_is_told(launcher: Launcher) -> None:
    assert set(launcher.platform_info()) == {"pdh", "certChain"}
    for command in (launcher.measurement_info, launcher.pause, launcher.unpause):
        with pytest.raises(LauncherError, match="Code=42, Domain=10"):
            command()
    with pytest.raises(LauncherError, match=r"command InjectLaunchSecret failed: .*Code=42"):
        launcher.inject("AAAA", "AAAA")


@pytest.mark.parametrize(
    ("header", "secret", "said"),
    [
        ("", "", "Header is required"),
        ("AAAA", "", "Secret is required"),
        ("!!", "AAAA", "SEV: Failed to decode sequence header"),
        ("AAAA", "!!", "SEV: Failed to decode secret"),
        ("AAAA", "AAAA", "fw_error=4 'Buffer too small'"),
    ],
)
def test_a_packet_that_is_none_is_refused(
    launcher: Launcher, owner: OwnerSide, header: str, secret: str, said: str
) -> None:
    launcher.start(wish_of(launcher, owner, Mode.SEV)[0])
    with pytest.raises(LauncherError, match=said):
        launcher.inject(header, secret)


def test_a_session_for_another_policy_is_refused_and_leaves_nothing(
    launcher: Launcher, owner: OwnerSide
) -> None:
    wish, _ = wish_of(launcher, owner, Mode.SEV)
    other = replace(wish, mode=Mode.SEV_ES, policy=5)
    with pytest.raises(LauncherError, match="fw_error=11 'Bad measurement'"):
        launcher.start(other)
    assert not launcher.domain
    assert launcher.host.kvm.asids.current == {"sev": 0, "sev_es": 0}
    launcher.start(wish)
    assert launcher.domain


def test_a_missing_firmware_file_is_named(host: SimulatedHost) -> None:
    bare = Launcher(KEY, host, {}, deadline=0)
    with pytest.raises(LauncherError, match=r"EFI OVMF roms missing .*OVMF_CODE\.cc\.fd"):
        bare.start(parse_wish(make_vmi(Mode.SEV)))


def test_a_cpu_that_no_node_has_is_refused(launcher: Launcher) -> None:
    vmi = make_vmi(Mode.SNP)
    vmi["spec"]["domain"]["cpu"]["model"] = "Skylake-Server"
    with pytest.raises(LauncherError, match="command SyncVMI failed"):
        launcher.start(parse_wish(vmi))


def test_a_refusal_in_words_of_ones_own(launcher: Launcher, told: list[Lies]) -> None:
    told[0] = Lies(refuse="qemu-system-x86_64: out of memory")
    with pytest.raises(LauncherError, match="out of memory"):
        launcher.start(LaunchWish())


def test_a_dead_processor_is_an_error_and_not_a_verdict(
    launcher: Launcher, host: SimulatedHost
) -> None:
    host.processor.faults.kill()
    with pytest.raises(LauncherError, match="command GetSEVInfo failed"):
        launcher.platform_info()
    with pytest.raises(LauncherError, match="failed to initialize ret=-5"):
        launcher.start(parse_wish(make_vmi(Mode.SNP)))


def test_a_guest_that_is_not_confidential_has_no_measurement(launcher: Launcher) -> None:
    launcher.start(LaunchWish(paused=True))
    assert (launcher.domain, launcher.paused, launcher.machine) == (True, True, None)
    with pytest.raises(LauncherError, match="launch security is not SEV"):
        launcher.measurement_info()
    launcher.unpause()
    assert not launcher.paused


def test_the_end_of_a_guest_is_told_by_how_it_came(launcher: Launcher) -> None:
    launcher.start(LaunchWish())
    assert launcher.ended is None
    launcher.power_off(crashed=True)
    assert launcher.ended == DomainOff(crashed=True)


def test_a_closed_launcher_starts_nothing(launcher: Launcher) -> None:
    launcher.close()
    launcher.start(parse_wish(make_vmi(Mode.SNP)))
    assert not launcher.domain
    launcher.close()
