from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.cli.main import main
from sevkit.testing.host.defects import with_defects
from sevkit.testing.host.write import write_host

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def host(tmp_path: Path) -> Callable[..., list[str]]:
    """Return the words that examine a simulated host."""

    def write(preset: str, *defects: str) -> list[str]:
        root = tmp_path / "-".join([preset, *defects])
        if not root.exists():
            write_host(with_defects(preset, defects), root)
        return ["node", "doctor", "--host-root", str(root)]

    return write


def document(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main([*words, "--output", "json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_host_that_is_ready_says_so_last(
    host: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*host("milan"), "--require", "sev-snp", "--require", "sev"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "ready (exit code 0)"
    assert "SEV-SNP: usable, 127 guests (usable)" in lines
    assert "pass  firmware.version         1.55.40" in lines


def test_a_host_that_is_not_says_why_and_what_to_do(
    host: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(host("milan", "smee-off")) == 3
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "NOT READY (exit code 3)"
    assert "SEV: disabled (smee-off)\n" in out
    assert "  fix: BIOS: CBS > CPU Common Options > SMEE = Enabled\n" in out
    assert "FAIL  bios.smee                off\n" in out


@pytest.mark.parametrize(
    ("names", "required", "code"),
    [
        (("rome",), [], 0),
        (("rome",), ["sev"], 0),
        (("rome",), ["sev-es"], 3),
        (("rome-es",), ["sev", "sev-es"], 0),
        (("rome-es",), ["sev", "sev-snp"], 3),
        (("milan", "es-blocked-by-firmware"), ["sev-es"], 3),
        (("milan", "es-blocked-by-firmware"), ["sev-snp"], 0),
        (("intel",), [], 3),
    ],
)
def test_exit_codes_are_about_what_is_required(
    names: tuple[str, ...],
    required: list[str],
    code: int,
    host: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [word for name in required for word in ("--require", name)]
    found, said = document([*host(*names), *words], capsys)
    assert found == code == said["exit_code"]
    assert said["ready"] is (code == 0)
    assert said["required"] == required


def test_what_could_not_be_found_out_is_exit_4_only_if_it_is_required(
    host: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = host("milan")
    (tmp_path / "milan/sys/module/kvm_amd/parameters/sev_snp").unlink()
    code, said = document([*words, "--require", "sev-snp"], capsys)
    assert (code, said["ready"]) == (4, None)
    assert said["capabilities"]["sev-snp"]["reason"] == "kvm-unread"
    assert main([*words, "--require", "sev"]) == 0
    (tmp_path / "milan/cpuid.json").unlink()
    capsys.readouterr()
    assert main(words) == 4
    assert "could not find out" in capsys.readouterr().out


def test_json_has_every_check_and_capability(
    host: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, said = document(host("turin", "guests-running"), capsys)
    assert said["schema"] == "sevkit.io/node-doctor/v1"
    assert (said["product"], said["firmware_version"]) == ("turin", "1.55.61")
    assert said["current_tcb"] == {
        "fmc": 1,
        "bootloader": 1,
        "tee": 1,
        "snp": 3,
        "microcode": 75,
    }
    assert said["capabilities"]["sev"]["asids"] == {"total": 907, "in_use": 2}
    assert said["encrypted_state_asids"] == {"total": 99, "in_use": 3}
    one = next(row for row in said["checks"] if row["check"] == "firmware.sev-snp")
    assert one == {
        "check": "firmware.sev-snp",
        "summary": "SEV-SNP is initialised",
        "needed_by": ["sev-snp"],
        "verdict": "pass",
        "value": "yes",
        "detail": "",
        "fix": "",
        "snphost": "SNP initialized",
        "sevctl": "",
    }


def test_an_operator_may_accept_the_risk_of_sev_es(
    host: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*host("milan"), "--require", "sev-es"]
    assert main(words) == 3
    capsys.readouterr()
    code, said = document([*words, "--allow-sev-es-beside-snp", "7"], capsys)
    assert code == 0
    assert said["capabilities"]["sev-es"]["guests"] == 7
    assert said["capabilities"]["sev-snp"]["guests"] == 120
    assert main([*words, "--allow-sev-es-beside-snp", "-1"]) == 2
