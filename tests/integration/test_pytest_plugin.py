"""The fixtures that another project gets by having sevkit installed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

THEIRS: Final = """
import urllib.request, ssl
from sevkit.abi.report import parse_report
from sevkit.testing.rehearsal import launch_guest

def test_a_guest_is_launched_and_reports(sevkit_processor):
    report, digest = launch_guest(sevkit_processor("Milan"), bytes(64))
    assert parse_report(report).measurement == digest

def test_a_host_is_written(sevkit_host):
    assert (sevkit_host("milan", "smee-off") / "proc/cpuinfo").exists()

def test_a_sev_guest_waits_for_its_secret(sevkit_kvm):
    from sevkit.testing.firmware import FirmwareImage, encode_firmware
    from sevkit.testing.virtual_machine import Machine
    with sevkit_kvm("Milan").launch_sev(Machine(encode_firmware(FirmwareImage())), 1) as guest:
        assert len(guest.measurement) == 48

def test_a_key_service_answers(sevkit_key_service, sevkit_processor):
    processor = sevkit_processor("Milan")
    service = sevkit_key_service(processor)
    context = ssl.create_default_context(cadata=service.ca.decode())
    url = service.base_url + "/vcek/v1/Milan/cert_chain"
    with urllib.request.urlopen(url, context=context) as answer:
        assert answer.read().count(b"BEGIN CERTIFICATE") == 2
"""


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_fixtures_are_there_for_a_stranger(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(THEIRS)
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_a_run_that_uses_no_fixture_pays_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import sevkit.testing.pytest_plugin;"
        "print(sorted(set(sys.modules) - before))"
    )
    assert run("-c", code, cwd=tmp_path).stdout.strip() == str(
        ["sevkit", "sevkit.testing", "sevkit.testing.pytest_plugin"]
    )
