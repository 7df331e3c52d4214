"""``sevkit attest vmi`` from its options to its exit code, on simulated KubeVirt."""

from __future__ import annotations

import base64
import json
import logging
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack.owner_scene import (
    FILES,
    PASSPHRASE,
    RISKS,
    TABLE,
    Hardware,
    create,
    make_hardware,
    write_kubeconfig,
    write_owner,
)
from sevkit.abi.secret_packet import DISK_GUID
from sevkit.cli.main import main
from sevkit.measure.terms import Mode
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.kubevirt import lies
from sevkit.testing.kubevirt.lies import Lies
from sevkit.testing.kubevirt.simulation import SimulatedKubeVirt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sevkit.cluster.launch_endpoints import Target


@pytest.fixture(scope="module")
def hardware() -> Hardware:
    return make_hardware()


@pytest.fixture
def kubevirt(hardware: Hardware) -> Iterator[SimulatedKubeVirt]:
    with SimulatedKubeVirt(hardware.hosts, FILES, retry=0.05) as running:
        yield running


class Owner:
    """The owner's folder, and his command."""

    def __init__(self, folder: Path, hardware: Hardware, kubevirt: SimulatedKubeVirt) -> None:
        self.folder = folder
        self.kubevirt = kubevirt
        self.state = folder / "state"
        self.file = write_owner(folder, hardware)
        self.kubeconfig = write_kubeconfig(folder, kubevirt)

    def arguments(self, vmi: str, *more: str, owner: bool = True) -> list[str]:
        file = [f"--owner={self.file}"] if owner else []
        where = [f"--kubeconfig={self.kubeconfig}", f"--state={self.state}"]
        return ["attest", "vmi", vmi, *where, *file, *more]

    def attest(self, vmi: str, *more: str, owner: bool = True) -> int:
        return main(self.arguments(vmi, *more, owner=owner))

    def options(self, policy: int = 5) -> list[str]:
        folder = self.folder
        return [
            f"--firmware={folder / 'OVMF.fd'}",
            f"--guest-policy={policy}",
            f"--secret={DISK_GUID}={folder / 'disk.key'}",
            f"--root={folder / 'ark.cert'}",
            f"--ca={folder / 'ca.cert'}",
            f"--cek={folder / 'ceks.cert'}",
            *(f"--accept={risk}" for risk in RISKS),
        ]

    def injected(self, vmi: Target) -> tuple[Any, ...]:
        return self.kubevirt.injected(vmi.namespace, vmi.name)


@pytest.fixture
def owner(tmp_path: Path, hardware: Hardware, kubevirt: SimulatedKubeVirt) -> Owner:
    return Owner(tmp_path, hardware, kubevirt)


CPU: Final = ["--vcpus=2", "--vcpu-type=EPYC-Milan"]


def test_a_file_and_options_lead_to_the_same(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    page = owner.folder / "verdict.html"
    for mode, arguments in (
        (Mode.SEV_ES, [f"--html={page}"]),
        (Mode.SEV_ES, [*owner.options(), *CPU]),
        (Mode.SEV, owner.options(1)),
    ):
        vmi = create(owner.kubevirt, mode)
        code = owner.attest(vmi.name, *arguments, "--output=json", owner="html" in arguments[0])
        captured = capsys.readouterr()
        assert code == 0, captured
        document = json.loads(captured.out)
        assert document["schema"] == "sevkit.io/verdict/v1"
        assert document["subject"]["kind"] == "kubevirt-launch"
        assert (document["accepted"], document["evidence"]["outcome"]) == (True, "attested")
        assert owner.injected(vmi) == (TABLE,)
        assert [path.name for path in owner.state.iterdir()] == ["lock"]
    text = page.read_text()
    assert "Launch of a SEV guest in KubeVirt" in text
    assert "launch.measurement" in text


def test_a_text_verdict_and_progress_on_stderr(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    vmi = create(owner.kubevirt)
    assert owner.attest(vmi.name, "--verbose") == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "accepted (exit code 0)"
    assert "sevkit: verifying the launch measurement" in captured.err
    assert all(line.startswith("sevkit: ") for line in captured.err.splitlines())
    quiet = create(owner.kubevirt)
    assert owner.attest(quiet.name) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (lies.flipped(), 1),
        (Lies(reported_policy=0), 3),
        (lies.truncated(), 65),
    ],
    ids=["flipped", "policy", "truncated"],
)
def test_exit_codes_of_refusals(
    owner: Owner, told: Lies, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    owner.kubevirt.lie(told)
    vmi = create(owner.kubevirt)
    assert owner.attest(vmi.name, "--output=json") == code
    document = json.loads(capsys.readouterr().out)
    assert (document["exit_code"], document["accepted"]) == (code, False)
    assert owner.injected(vmi) == ()
    owner.kubevirt.wait_for(vmi.namespace, vmi.name, "Running", paused=True)


def test_what_was_not_accepted_is_refused_before_anything_is_asked(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    vmi = create(owner.kubevirt)
    arguments = [entry for entry in owner.options() if not entry.startswith("--accept")]
    assert owner.attest(vmi.name, *arguments, *CPU, owner=False) == 5
    said = capsys.readouterr().err
    assert "coverage.kernel" in said
    assert "--accept unmeasured-boot" in said
    assert owner.kubevirt.faults.requests == ()
    assert owner.attest(vmi.name, *arguments, *CPU, "--no-inject", owner=False) == 0


def test_no_or_too_small_a_secret_area_is_refused_before_anything_is_asked(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    vmi = create(owner.kubevirt)
    (owner.folder / "disk.key").write_bytes(bytes(3072))
    assert owner.attest(vmi.name) == 3
    (owner.folder / "OVMF.fd").write_bytes(encode_firmware(FirmwareImage(secret_area=None)))
    assert owner.attest(vmi.name) == 3
    assert capsys.readouterr().err.count("secret.area") == 2
    assert owner.kubevirt.faults.requests == ()


def test_verify_first_and_release_later(owner: Owner, capsys: pytest.CaptureFixture[str]) -> None:
    vmi = create(owner.kubevirt)
    assert owner.attest(vmi.name, "--no-inject", "--no-unpause") == 0
    assert "the session is kept" in capsys.readouterr().err
    owner.kubevirt.wait_for(vmi.namespace, vmi.name, "Running", paused=True)
    assert owner.injected(vmi) == ()
    assert owner.attest(vmi.name) == 0
    assert owner.injected(vmi) == (TABLE,)


def test_a_vmi_that_is_not_there_and_time_that_is_over_are_4(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert owner.attest("nobody") == 4
    assert "there is no VMI default/nobody" in capsys.readouterr().err
    vmi = create(owner.kubevirt)
    owner.kubevirt.lie(Lies(refuse="out of luck"))
    assert owner.attest(vmi.name, "--timeout=2", "--output=json") == 4
    document = json.loads(capsys.readouterr().out)
    finding = next(row for row in document["findings"] if row["check"] == "vmi.launch")
    assert "out of luck" in finding["detail"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no firmware is named"),
        (["--firmware=OVMF.fd"], "no guest policy is named"),
        (["--firmware=OVMF.fd", "--guest-policy=5"], "SEV-ES needs --vcpus"),
        (["--firmware=OVMF.fd", "--guest-policy=0"], "no policy of KubeVirt's"),
        (["--owner=owner.json", "--vcpus=2"], "--vcpus with --owner"),
        (["--owner=owner.json", "--secret=a=b"], "--secret with --owner"),
        (["--owner=owner.json", "--ca=ca.cert"], "--ca with --owner"),
        (["--owner=owner.json", "--state="], "--state needs a folder"),
        (["--owner=owner.json", "--timeout=0"], "not a number from 1"),
        (["--owner=owner.json", "--accept=everything"], "everything"),
        (["--owner=owner.json", "-n", ""], "--namespace is no name"),
        (["--owner=nothing.json"], "no such file"),
        (
            ["--firmware=OVMF.fd", "--guest-policy=1", "--secret=passphrase"],
            "--secret is not GUID=FILE",
        ),
        (
            ["--firmware=OVMF.fd", "--guest-policy=5", "--reference=r.json", *CPU],
            "--reference with --vcpus",
        ),
    ],
)
def test_wrong_options_are_2_and_quote_no_secret(
    owner: Owner,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(owner.folder)
    kubeconfig = f"--kubeconfig={owner.kubeconfig}"
    assert main(["attest", "vmi", "ledger", kubeconfig, *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "passphrase" not in error


def test_a_secret_whose_file_is_not_there_is_not_quoted(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [entry for entry in owner.options(1) if not entry.startswith("--secret")]
    arguments.append(f"--secret={DISK_GUID}=hunter2")
    assert owner.attest("ledger", *arguments, owner=False) == 2
    assert "hunter2" not in capsys.readouterr().err


def spellings(secret: bytes) -> set[bytes]:
    """Return how a secret might be written down."""
    return {
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        base64.b64encode(secret),
        base64.urlsafe_b64encode(secret),
        repr(secret).encode(),
    }


def test_no_secret_is_told_or_left_lying_about(
    owner: Owner,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger().setLevel(logging.DEBUG)
    vmi = create(owner.kubevirt)
    assert owner.attest(vmi.name, "--no-inject", "--no-unpause", "--verbose") == 0
    (record,) = (path for path in owner.state.iterdir() if path.name != "lock")
    keys = json.loads(record.read_bytes())["session"]
    secrets = {base64.b64decode(keys[name]) for name in ("tek", "tik")} | {PASSPHRASE}
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    page = owner.folder / "verdict.html"
    assert owner.attest(vmi.name, "--verbose", "--output=json", f"--html={page}") == 0
    owner.kubevirt.lie(lies.flipped())
    refused = create(owner.kubevirt)
    assert owner.attest(refused.name, "--verbose") == 1
    owner.kubevirt.lie(Lies(refuse="later"))
    late = create(owner.kubevirt)
    assert owner.attest(late.name, "--verbose", "--timeout=1") == 4
    (record,) = (path for path in owner.state.iterdir() if path.name != "lock")
    keys = json.loads(record.read_bytes())["session"]
    secrets |= {base64.b64decode(keys[name]) for name in ("tek", "tik")}
    record.write_bytes(record.read_bytes()[:-40])  # a traceback, or an error, of half a record
    assert owner.attest(late.name, "--verbose") == 65
    captured = capsys.readouterr()
    told = (captured.out + captured.err + caplog.text).encode()
    for secret in secrets:
        for spelling in spellings(secret):
            assert spelling not in told
            for path in owner.folder.rglob("*"):
                if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077:
                    assert spelling not in path.read_bytes(), path


def test_a_process_interrupted_half_way_goes_on(owner: Owner) -> None:
    vmi = create(owner.kubevirt)
    owner.kubevirt.lie(Lies(refuse="not yet"))
    arguments = owner.arguments(vmi.name, "--verbose")
    home = {**os.environ, "HOME": str(owner.folder)}
    command = [sys.executable, "-m", "sevkit", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=home, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "not yet" in line:
                break
        process.kill()
    owner.kubevirt.be_honest()
    assert owner.attest(vmi.name) == 0
    assert owner.injected(vmi) == (TABLE,)
    sessions = [r for r in owner.kubevirt.faults.requests if "setupsession" in r]
    assert len(sessions) == 1


def test_the_state_of_each_vmi_has_a_folder_of_its_own_by_default(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(owner.folder / "xdg"))
    for _ in range(2):
        vmi = create(owner.kubevirt)
        where = f"--kubeconfig={owner.kubeconfig}"
        assert main(["attest", "vmi", vmi.name, where, f"--owner={owner.file}"]) == 0
    folders = list((owner.folder / "xdg" / "sevkit" / "launches").iterdir())
    assert len(folders) == 2
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
