"""``sevkit inject``: its options, what it says and answers, and files that are written anew."""

from __future__ import annotations

import json
import os
import stat
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

VM: Final = """\
# ours
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: web
spec:
  runStrategy: Always
  template:
    metadata: {}
    spec:
      domain:
        devices: {}   # none
        memory: {guest: 1Gi}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
"""
BIOS: Final = VM.replace("devices: {}", "firmware: {bootloader: {bios: {}}}\n        devices: {}")


@pytest.fixture
def vm(tmp_path: Path) -> Path:
    path = tmp_path / "vm.yaml"
    path.write_text(VM)
    return path


def say(
    capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0
) -> tuple[str, list[str]]:
    """Run the command; return its answer, and the lines on stderr."""
    found = main(["inject", *map(str, words)])
    out, err = capsys.readouterr()
    assert found == code, err
    return out, err.splitlines()


def test_the_answer_is_the_whole_stream_with_what_is_missing(
    vm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = say(capsys, "-f", vm, "--confidential", "snp")
    assert err == []
    before = VM.splitlines()
    added = [line for line in out.splitlines() if line not in before]
    assert [line for line in out.splitlines() if line in before] == [
        line for line in before if line != "    metadata: {}"
    ]
    assert [line.strip() for line in added if "sevkit" not in line] == [
        "metadata:",
        "annotations:",
        "launchSecurity:",
        "snp: {}",
        "firmware:",
        "bootloader:",
        "efi:",
        "secureBoot: false",
        "resources:",
        "requests:",
        "limits:",
        "evictionStrategy: LiveMigrateIfPossible",
    ]
    assert VM.endswith(out[-60:])


def test_its_own_answer_is_left_as_it_is(
    vm: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, _ = say(capsys, "-f", vm, "--confidential", "sev-es")
    again = tmp_path / "again.yaml"
    again.write_text(out)
    assert say(capsys, "-f", again, "--confidential", "sev-es") == (out, [])
    assert say(capsys, "-f", again, "--confidential", "sev-es", "--check") == ("", [])


def test_what_asks_for_nothing_passes_byte_for_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vm.yaml"
    text = "\ufeff" + VM.replace("\n", "\r\n")
    path.write_bytes(text.encode())
    assert main(["inject", "-f", str(path)]) == 0
    assert capsys.readouterr().out.replace("\r\n", "\n") == "\ufeff" + VM
    assert main(["inject", "--check", "-f", str(path)]) == 0


def test_a_refusal_says_every_reason_and_answers_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vm.yaml"
    path.write_text(f"{BIOS}---\n{BIOS.replace('name: web', 'generateName: web-')}")
    out, err = say(capsys, "-f", path, "--confidential", "snp", code=3)
    assert out == ""
    prefix = "spec.template.spec.domain.firmware.bootloader.bios: SEV-SNP needs EFI; "
    assert [line[: line.index("EFI") + 5] for line in err] == [
        f"sevkit: {path}:2: VirtualMachine/web: {prefix}",
        f"sevkit: {path}:21: VirtualMachine/web-…: {prefix}",
    ]


def test_warnings_do_not_change_the_answer(vm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = say(capsys, "-f", vm, "--confidential", "sev", "--attestation", "required")
    assert "startStrategy: Paused" in out
    assert "sevkit.io/attestation: required" in out
    (line,) = err
    assert line.startswith(f"sevkit: warning: {vm}:2: VirtualMachine/web: the VMI waits for its ")


def test_check_says_what_would_change(vm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = say(capsys, "-f", vm, "--confidential", "snp", "--check", code=3)
    assert out == ""
    head = f"sevkit: {vm}:2: VirtualMachine/web: would "
    assert all(line.startswith(head) for line in err)
    assert f'{head}add /spec/template/spec/domain/launchSecurity: {{"snp": {{}}}}' in err


def test_check_says_what_would_be_taken_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vm.yaml"
    path.write_text(VM.replace("{guest: 1Gi}", "{guest: 1Gi, maxGuest: 2Gi}"))
    _, err = say(capsys, "-f", path, "--confidential", "snp", "--check", code=3)
    assert any(
        line.endswith("would remove /spec/template/spec/domain/memory/maxGuest") for line in err
    )


def test_json_tells_of_every_object(vm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, _ = say(capsys, "-f", vm, "--confidential", "snp")
    out, err = say(capsys, "-f", vm, "--confidential", "snp", "--output", "json")
    found = json.loads(out)
    (file,) = found.pop("files")
    assert found == {"schema": "sevkit.io/inject/v1", "exit_code": 0}
    assert (file["file"], file["outcome"], file["stream"]) == (str(vm), "changed", text)
    changed, passed = file["documents"]
    assert passed == {
        "number": 2,
        "line": 15,
        "kind": "ConfigMap",
        "name": "other",
        "outcome": "passed",
    }
    operations = changed.pop("operations")
    assert operations[0] == {
        "op": "add",
        "path": "/spec/template/spec/domain/launchSecurity",
        "value": {"snp": {}},
    }
    assert changed == {
        "number": 1,
        "line": 2,
        "kind": "VirtualMachine",
        "name": "web",
        "outcome": "changed",
        "tier": "snp",
        "refusals": [],
        "warnings": [],
    }
    assert err == []


def documents(out: str) -> list[dict[str, Any]]:
    return [one for file in json.loads(out)["files"] for one in file["documents"]]


def test_json_of_a_refusal_and_of_a_check_has_no_stream(
    tmp_path: Path, vm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bios = tmp_path / "bios.yaml"
    bios.write_text(BIOS)
    both = ("-f", bios, "-f", vm, "--confidential", "snp", "--output", "json")
    out, err = say(capsys, *both, code=3)
    found = json.loads(out)
    assert found["exit_code"] == 3
    assert [file["stream"] for file in found["files"]] == [None, None]
    assert [one["outcome"] for one in documents(out)] == ["refused", "passed", "changed", "passed"]
    (refusal,) = documents(out)[0]["refusals"]
    assert refusal["code"] == "bios"
    assert refusal.keys() == {"code", "field", "message", "fix"}
    assert len(err) == 1
    out, _ = say(capsys, "-f", vm, "--confidential", "snp", "--check", "--output", "json", code=3)
    assert json.loads(out)["files"][0]["stream"] is None
    out, _ = say(capsys, "-f", vm, "--check", "--output", "json")
    assert [one["outcome"] for one in documents(out)] == ["passed", "passed"]


def test_what_cannot_be_changed_safely_is_a_refusal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vm.yaml"
    shared = VM.replace("metadata: {}", "metadata: &m {}").replace(
        "  # none\n", "\n        resources: *m\n"
    )
    path.write_text(f"{VM}---\n{shared}")
    out, err = say(capsys, "-f", path, "--confidential", "snp", code=3)
    assert out == ""
    why = "is used again as *m (line 27), and cannot be changed safely; write out each of them"
    assert err == [f"sevkit: {path}:20: VirtualMachine/web: spec.template.metadata: {why}"]
    out, _ = say(capsys, "-f", path, "--confidential", "snp", "--output", "json", code=3)
    assert [one["outcome"] for one in documents(out)] == ["changed", "passed", "refused", "passed"]
    assert documents(out)[2]["operations"] == []
    assert documents(out)[2]["refusals"][0]["code"] == "not-editable"


def test_of_a_list_only_the_object_in_question_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "list.yaml"
    head = "- apiVersion: kubevirt.io/v1\n  kind: VirtualMachine\n  metadata: {name: %s}\n"
    good = head % "a" + "  spec: {template: {spec: {domain: {devices: {}}}}}\n"
    bad = head % "b" + "  ? spec\n  : {template: {spec: {domain: {devices: {}}}}}\n"
    path.write_text(f"apiVersion: v1\nkind: List\nitems:\n{good}{bad}")
    out, err = say(capsys, "-f", path, "--confidential", "snp", "--output", "json", code=3)
    assert [one["outcome"] for one in documents(out)] == ["changed", "refused"]
    (line,) = err
    assert line.startswith(f"sevkit: {path}:1: VirtualMachine/b: items[1].spec: is not written as")


def test_best_chooses_from_the_tiers_that_there_are(
    vm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = ("-f", vm, "--confidential", "best")
    out, err = say(capsys, *best, code=2)
    assert out == ""
    assert err == [
        f"sevkit: {vm}:2: VirtualMachine/web: best needs to know the tiers",
        "sevkit: hint: --tiers snp,sev-es says what there is; or ask for one by its name",
    ]
    assert "snp: {}" in say(capsys, *best, "--tiers", "sev,snp")[0]
    assert "encryptedState: true" in say(capsys, *best, "--tiers", "sev,sev-es")[0]
    attested = (*best, "--attestation", "required", "--tiers", "snp")
    _, err = say(capsys, *attested, code=3)
    assert "no node can run SEV, SEV-ES" in err[0]


def test_a_policy_is_the_webhook_s(
    vm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("capacityResource: no\ncpuModel: EPYC-Milan\n")
    out, _ = say(capsys, "-f", vm, "--confidential", "snp", "--policy", policy)
    assert "model: EPYC-Milan" in out
    assert "sevkit.io/sev-snp" not in out
    policy.write_text("cpuModels: EPYC-Milan\n")
    _, err = say(capsys, "-f", vm, "--policy", policy, code=2)
    assert "unknown key" in err[0]


def test_a_version_decides_what_it_takes(vm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attested = ("-f", vm, "--confidential", "sev-es", "--attestation", "required")
    assert "rebootPolicy" not in say(capsys, *attested)[0]
    assert "rebootPolicy" not in say(capsys, *attested, "--kubevirt-version", "v1.8.2")[0]
    assert "rebootPolicy: Terminate" in say(capsys, *attested, "--kubevirt-version", "1.9")[0]
    old = ("-f", vm, "--confidential", "snp", "--kubevirt-version", "1.6.0")
    assert "KubeVirt has SEV-SNP since 1.7" in say(capsys, *old, code=3)[1][0]


def test_files_are_written_anew_with_their_mode_and_through_links(
    vm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = say(capsys, "-f", vm, "--confidential", "snp")
    vm.chmod(0o640)
    link, other = tmp_path / "link.yaml", tmp_path / "other.yaml"
    link.symlink_to(vm)
    other.write_text("a: 1\n")
    before = other.stat().st_ino
    words = ("--in-place", "-f", link, "-f", other, "--confidential", "snp")
    assert say(capsys, *words) == ("", [])
    assert vm.read_text() == out
    assert stat.S_IMODE(vm.stat().st_mode) == 0o640
    assert link.is_symlink()
    assert other.stat().st_ino == before
    assert {path.name for path in tmp_path.iterdir()} == {"vm.yaml", "link.yaml", "other.yaml"}


def test_no_file_is_written_if_one_is_refused(
    vm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bios = tmp_path / "bios.yaml"
    bios.write_text(BIOS)
    say(capsys, "--in-place", "-f", vm, "-f", bios, "--confidential", "snp", code=3)
    assert (vm.read_text(), bios.read_text()) == (VM, BIOS)


def test_what_is_no_file_is_not_written_anew(
    vm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(VM,))
    writer.start()
    _, err = say(capsys, "--in-place", "-f", pipe, "--confidential", "snp", code=2)
    writer.join()
    assert err == [f"sevkit: {pipe}: is no file that could be written anew"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-f", "-", "-f", "-"], "standard input can be only one"),
        (["-f", "-", "--policy", "-"], "standard input can be only one"),
        (["-f", "-", "--in-place"], "standard input has no place"),
        (["-f", "a", "--in-place", "--check"], "give one of them"),
        (["-f", "a", "-f", "b"], "2 files do not make one stream"),
        (["-f", "a", "-f", "a", "--check"], "a file is given twice"),
        (["-f", "absent"], "absent: no such file"),
        (["-f", "a", "--tiers", "snp,snp"], "each once"),
        (["-f", "a", "--tiers", "best"], "is not of sev, sev-es, snp"),
        (["-f", "a", "--tiers", ""], "is not of sev"),
        (["-f", "a", "--kubevirt-version", "1"], "is not a version of KubeVirt"),
        (["-f", "a", "--attestation", "no"], "attestation"),
        ([], "missing option"),
    ],
)
def test_options_are_judged_first(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = say(capsys, *words, code=2)
    assert out == ""
    assert said in err[0]


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("", 2, "holds no objects"),
        ("# nothing\n---\n", 2, "holds no objects"),
        ("text\n", 65, "the document at line 1 is not an object"),
        ("a: 1\n---\n- b\n", 65, "the document at line 3 is not an object"),
        ("a: [\n", 65, "not YAML"),
        ('{"a": 1, "a": 2}', 65, "occurs twice"),
        ("a: 1\na: 2\n", 65, "occurs twice"),
        (f"{VM}items: []\n".replace("kind: ConfigMap", "kind: List"), 0, ""),
        (VM.replace("spec:", "items: []\nspec:", 1), 65, "has items, and is not a list (document"),
    ],
)
def test_what_is_no_stream_of_objects_is_refused_in_one_line(
    text: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vm.yaml"
    path.write_text(text)
    out, err = say(capsys, "-f", path, code=code)
    assert (out, len(err)) == ((text, 0) if not code else ("", 1))
    assert said in "".join(err)
