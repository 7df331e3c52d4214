from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.session import compute_shared_secret, godh_key, open_session, parse_session
from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.cli.main import main
from sevkit.cli.session_new import FILES

if TYPE_CHECKING:
    from pathlib import Path

    from sevkit.testing.sev_chain import SimulatedPlatform, SimulatedRoots


@pytest.fixture
def trusted(
    tmp_path: Path, sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> list[str]:
    chain, root = tmp_path / "sev.chain", tmp_path / "ark.cert"
    chain.write_bytes(sev_platform.chain.encode() + sev_roots.ask_ark)
    root.write_bytes(sev_roots.root)
    return ["--chain", str(chain), "--root", str(root)]


def new(*arguments: str) -> int:
    return main(["session", "new", *arguments])


def left(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.iterdir()} - {"sev.chain", "ark.cert"}


@pytest.mark.parametrize(
    ("policy", "value"), [("1", 1), ("5", 5), ("0x5", 5), ("0X37010005", 0x37010005)]
)
def test_the_platform_opens_the_session_that_was_written(
    trusted: list[str], tmp_path: Path, sev_platform: SimulatedPlatform, policy: str, value: int
) -> None:
    out = tmp_path / "launch"
    assert new(*trusted, "--guest-policy", policy, "--out", str(out)) == 0
    godh = parse_sev_certificate(base64.b64decode((out / "godh.b64").read_bytes(), validate=True))
    blob = parse_session(base64.b64decode((out / "session.b64").read_bytes(), validate=True))
    shared = compute_shared_secret(sev_platform.pdh_key, godh_key(godh))
    keys = open_session(blob, shared, value)
    assert keys.tik.reveal() == (out / "tik.bin").read_bytes()
    assert keys.tek.reveal() == (out / "tek.bin").read_bytes()
    assert json.loads((out / "session.json").read_text())["policy"] == value


def test_the_folder_and_the_files_are_their_owners_only(trusted: list[str], tmp_path: Path) -> None:
    out = tmp_path / "launch"
    old = os.umask(0)
    try:
        assert new(*trusted, "--guest-policy", "5", "--out", str(out)) == 0
    finally:
        os.umask(old)
    assert out.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in out.iterdir()} == set(FILES)
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}


def test_an_empty_folder_of_ours_is_used(trusted: list[str], tmp_path: Path) -> None:
    out = tmp_path / "launch"
    out.mkdir(mode=0o700)
    assert new(*trusted, "--guest-policy", "5", "--out", str(out)) == 0


def test_a_session_is_never_overwritten(trusted: list[str], tmp_path: Path) -> None:
    out = tmp_path / "launch"
    assert new(*trusted, "--guest-policy", "5", "--out", str(out)) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert new(*trusted, "--guest-policy", "5", "--out", str(out)) == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("name", FILES)
def test_one_file_that_exists_is_enough_to_refuse(
    trusted: list[str], tmp_path: Path, name: str
) -> None:
    out = tmp_path / "launch"
    out.mkdir(mode=0o700)
    (out / name).symlink_to(tmp_path / "elsewhere")
    assert new(*trusted, "--guest-policy", "5", "--out", str(out)) == 2
    assert [path.name for path in out.iterdir()] == [name]
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_behind_a_link_is_refused(trusted: list[str], tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert new(*trusted, "--guest-policy", "5", "--out", str(tmp_path / "link")) == 2
    assert list((tmp_path / "real").iterdir()) == []


def test_a_folder_where_others_can_write_is_refused(trusted: list[str], tmp_path: Path) -> None:
    out = tmp_path / "launch"
    out.mkdir()
    out.chmod(0o777)
    assert new(*trusted, "--guest-policy", "5", "--out", str(out)) == 2
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("umask", [0, 0o777])
def test_folder_and_files_are_the_owners_whatever_the_umask(
    trusted: list[str], tmp_path: Path, umask: int
) -> None:
    out = tmp_path / "launch"
    before = os.umask(umask)
    try:
        assert new(*trusted, "--guest-policy", "5", "--out", str(out)) == 0
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}


@pytest.mark.parametrize("out", ["", "-"])
def test_an_unset_variable_does_not_name_a_folder(
    trusted: list[str], tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert new(*trusted, "--guest-policy", "5", "--out", out) == 2
    assert left(tmp_path) == set()


def test_a_folder_without_a_parent_is_refused(trusted: list[str], tmp_path: Path) -> None:
    assert new(*trusted, "--guest-policy", "5", "--out", str(tmp_path / "a" / "b")) == 2
    assert left(tmp_path) == set()


def test_no_session_is_made_for_a_platform_that_does_not_verify(
    trusted: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "launch"
    assert new(*trusted[:2], "--guest-policy", "5", "--out", str(out)) == 1
    assert left(tmp_path) == set()


def test_no_session_is_made_for_a_platform_that_is_not_listed(
    trusted: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--guest-policy", "5", "--out", str(tmp_path / "launch")]
    assert new(*trusted, *out, "--chip", "0" * 64) == 3
    assert "platform.chip" in capsys.readouterr().err
    assert new(*trusted, *out, "--owner", "0" * 64) == 3
    assert left(tmp_path) == set()


def test_no_session_is_made_for_a_cek_that_amd_did_not_sign_yet(
    trusted: list[str], tmp_path: Path, sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots
) -> None:
    cek = parse_sev_certificate(sev_platform.firmware_cek())
    chain = sev_platform.chain.with_cek(cek).encode() + sev_roots.ask_ark
    (tmp_path / "sev.chain").write_bytes(chain)
    assert new(*trusted, "--guest-policy", "5", "--out", str(tmp_path / "launch")) == 4
    assert left(tmp_path) == set()


@pytest.mark.parametrize("policy", ["0", "4", "0x2", "0x01000000"])
def test_a_policy_without_nodbg_is_refused_as_insecure(
    trusted: list[str], tmp_path: Path, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "launch"
    assert new(*trusted, "--guest-policy", policy, "--out", str(out)) == 5
    assert "--allow-debug" in capsys.readouterr().err
    assert left(tmp_path) == set()
    assert new(*trusted, "--guest-policy", policy, "--out", str(out), "--allow-debug") == 0


@pytest.mark.parametrize(
    "policy",
    [
        *("", "x", "5x", "-1", "+5", "5.0", " 5", "0x", "0b101", "1_0"),
        "\N{ARABIC-INDIC DIGIT FIVE}",
        *("65", "0x8001", str(1 << 32), "0x100000001", "9" * 400),
    ],
)
def test_a_policy_that_is_no_policy_is_usage(
    trusted: list[str], tmp_path: Path, policy: str
) -> None:
    out = str(tmp_path / "launch")
    assert new(*trusted, f"--guest-policy={policy}", "--out", out, "--allow-debug") == 2
    assert left(tmp_path) == set()


def test_options_are_judged_before_files(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    out = ["--out", str(tmp_path / "launch")]
    assert new("--chain", missing, "--guest-policy", "0", *out) == 5
    assert new("--chain", missing, "--guest-policy", "1", *out) == 2
    assert left(tmp_path) == set()


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_key_is_ever_printed(
    trusted: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    out = tmp_path / "launch"
    options = ["--verbose", "--output", form, "--guest-policy", "5", "--out", str(out)]
    assert new(*trusted, *options) == 0
    assert new(*trusted, *options) == 2
    seen = "".join(capsys.readouterr()) + (out / "session.json").read_text()
    for name in ("tik.bin", "tek.bin"):
        key = (out / name).read_bytes()
        assert key.hex() not in seen
        assert base64.b64encode(key).decode() not in seen
        assert repr(key)[2:-1] not in seen


def test_json_names_the_files(
    trusted: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "launch"
    assert new(*trusted, "--guest-policy", "5", "--out", str(out), "--output=json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "sevkit.io/session/v1"
    assert document["files"] == {name: str(out / name) for name in FILES}
    assert document["simulated"] is True


def test_a_folder_whose_name_is_too_long_is_undecided(trusted: list[str], tmp_path: Path) -> None:
    assert new(*trusted, "--guest-policy", "5", "--out", str(tmp_path / ("x" * 300))) == 4
    assert left(tmp_path) == set()


def test_a_session_that_cannot_be_written_leaves_nothing_behind(
    trusted: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder's path just fits the system's limit of 4095 bytes, those of its files do not."""
    parent = tmp_path
    while 4088 - len(str(parent)) > 250:
        parent /= "d" * 100
    parent.mkdir(parents=True)
    out = parent / ("o" * (4088 - len(str(parent)) - 1))
    assert len(str(out)) == 4088
    assert new(*trusted, "--guest-policy", "5", "--out", str(out)) == 4
    assert "removed again: nothing" in capsys.readouterr().err
    assert list(parent.iterdir()) == []


def test_files_written_before_a_failure_are_removed_and_named(
    trusted: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here tik.bin and tek.bin still fit the limit, godh.b64 does not."""
    parent = tmp_path
    while 4086 - len(str(parent)) > 250:
        parent /= "d" * 100
    parent.mkdir(parents=True)
    out = parent / ("o" * (4086 - len(str(parent)) - 1))
    assert new(*trusted, "--guest-policy", "5", "--out", str(out)) == 4
    assert "removed again: tik.bin, tek.bin" in capsys.readouterr().err
    assert list(parent.iterdir()) == []
