"""Every command with everything that is not what it asked for: refused in one line, never judged.

Each command of the tree has a whole command line in ``VALID``; each of its options is then given
what it cannot mean. 0, 1 and 3 are verdicts, so garbage never ends with one of them; 70 is a bug.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import click
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.cli.main import main, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REFUSED: Final = {2, 4, 5, 65}
VERDICTS: Final = {0, 1, 3}
GUID: Final = "736869e5-84f0-4973-92ec-06879ce3da0b="
MEASUREMENT: Final = base64.b64encode(bytes(range(48))).decode()

#: Of an API server that is not there.
KUBECONFIG: Final = b"""
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
"""

VM: Final = b"""
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: web}
spec: {template: {spec: {domain: {devices: {}}}}}
"""

#: One whole command line for each command; files are made by ``place``.
VALID: Final = {
    "attest report": "report --vek vek --offline --cache cache --at 2026-11-23T00:00:00Z"
    " --allow-any-report-data --allow-any-measurement",
    "attest launch": f"--measurement {MEASUREMENT} --tik tik --firmware fw --guest-policy 1"
    " --api-major 1 --api-minor 55 --build-id 24 --no-explain",
    "attest platform": "--chain chain",
    "attest domain": "ledger --connect qemu+unix:///system?socket=/nonexistent --tik tik --tek tek"
    f" --guest-policy 1 --firmware fw --secret {GUID}disk --accept unmeasured-boot"
    " --accept unmeasured-variables --no-explain",
    "attest explain": f"{'00' * 32} --mode sev --firmware fw",
    "attest vmi": "ledger --kubeconfig kubeconfig --firmware fw --guest-policy 1 --state new"
    f" --secret {GUID}disk --accept unmeasured-boot --accept unmeasured-variables --timeout 1",
    "measure": "--mode sev --firmware fw",
    "session new": "--chain chain --guest-policy 1 --out new",
    "secret pack": f"--tik tik --tek tek --measurement {MEASUREMENT} --secret {GUID}disk"
    " --firmware fw --out-header new --out-payload new2",
    "idblock new": f"--measurement {'00' * 48} --id-key key --out-block new --out-auth new2",
    "inspect report": "report",
    "inspect certificate": "vek",
    "inspect firmware": "fw",
    "inspect vmsa": "vmsa",
    "inspect session": "session",
    "kds fetch": "--report report --product Milan --dest cache --kds-url https://127.0.0.1:1",
    "inject": "--filename vm --confidential snp --policy policy",
    "node probe": "--host-root folder",
    "node doctor": "--host-root folder",
    "simulate host": "genoa --out new",
    "guest report": f"--nonce {'00' * 64} --out new --root folder",
    "cluster nodes": "--kubeconfig kubeconfig",
    "cluster preflight": "--kubeconfig kubeconfig",
    "completion": "bash",
}
#: Commands that serve until they are ended; their own tests give them what they refuse.
SERVING: Final = {"attest watch", "simulate key-service", "simulate kubevirt"}
#: What has to be taken away for an option to be read at all.
INSTEAD_OF: Final = {
    "--vmi": ("--mode",),
    "--info": ("--measurement", "--api-major", "--api-minor", "--build-id"),
    "--pdh": ("--chain",),
    "--pek": ("--chain",),
    "--oca": ("--chain",),
    "--reference": ("--allow-any-measurement",),
    "--kds-ca": ("--offline",),
    "--session": ("--tik", "--tek", "--guest-policy"),
    "--owner": ("--firmware", "--guest-policy", "--secret"),
}
#: What has to be there besides.
WITH: Final = {
    "--initrd": ("--kernel", "vek"),
    "--kds-ca": ("--kds-url", "https://127.0.0.1:1"),
    **dict.fromkeys(
        ("--pdh", "--pek", "--oca"),
        ("--pdh", "vek", "--pek", "vek", "--oca", "vek", "--cek", "vek"),
    ),
}
#: Any bytes will do: a kernel is hashed, a secret is packed, a firmware without tables measured.
ANYTHING_GOES: Final = {"--kernel", "--initrd", "--secret", "--firmware"}
#: An empty one is the default, in the webhook too.
EMPTY_GOES: Final = {"--policy"}
#: A probe says of each source what is wrong with it, and is done all the same.
SOURCES: Final = {"--host-root", "--host-sys", "--firmware-facts", "--domain-capabilities"}
FLAGS: Final = {"--offline", "--no-explain", "--allow-any-report-data", "--allow-any-measurement"}
WRITTEN: Final = {
    "--html",
    "--out",
    "--out-header",
    "--out-payload",
    "--out-block",
    "--out-auth",
    "--dest",
    "--cache",
}

BAD_FILES: Final = (
    *("empty", "byte", "noise", "nul", "brace", "nested", "pem", "der", "we\nird\x1b[31m"),
    *("folder", "absent", "ab\nsent\x1b[2J", "loop", "byte/below", "", "/dev/zero"),
    *("x" * 300, "x" * 100_000, os.fsdecode(b"\xff\xfe")),
)
BAD_VALUES: Final = (
    *(
        "",
        "-1",
        "0",
        "9" * 20,
        "1" * 5000,
        "٣",
        "\uff11",
        "1_0",
        "0x",
        "NaN",
        " 1",
        "a\x1b[31m\nb",
        "-",
    ),
    *("x" * 100_000, os.fsdecode(b"\xff\xfe"), "İ", "00" * 64, "1-0", "1-513", "=", "0b1"),
    *(
        "bootloader=256",
        "bootloader=1,bootloader=1",
        "2026-02-30T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
    ),
    *("https://u:p@h/", "http://h", "https://[::1", "https://h\n"),
)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command of the tree by its words."""

    def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
        if not isinstance(command, click.Group):
            yield " ".join(words), command
            return
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from walk(inner, (*words, name))

    yield from walk(program(), ())


COMMANDS: Final = dict(commands())


def test_every_command_is_abused() -> None:
    assert COMMANDS.keys() == VALID.keys() | SERVING


@pytest.fixture
def place(vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what ``VALID`` names, and with what is wrong."""
    monkeypatch.chdir(tmp_path)
    naples = vectors / "sev-crate" / "naples"
    key = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    contents = {
        "report": (vectors / "sev-crate" / "report_milan.hex").read_bytes(),
        "vek": (vectors / "sev-crate" / "vcek_milan.der").read_bytes(),
        "fw": (vectors / "sev-crate" / "ovmf_AmdSev_suffix.bin").read_bytes(),
        "chain": b"".join(
            (naples / f"{name}.cert").read_bytes() for name in ("pdh", "pek", "oca", "cek")
        ),
        "tik": bytes(16),
        "tek": bytes(range(16)),
        "disk": b"secret",
        "key": key,
        "vmsa": b"\1" + bytes(4095),
        "session": bytes(128),
        "kubeconfig": KUBECONFIG,
        "vm": VM,
        "policy": b"capacityResource: false",
        "empty": b"",
        "byte": b"\xff",
        "noise": hashlib.shake_128(b"").digest(1 << 16),
        "nul": bytes(5000),
        "brace": b"{",
        "nested": b"{a: " * 50_000,
        "pem": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "der": b"\x30\x84\xff\xff\xff\xff",
        "we\nird\x1b[31m": b"garbage",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


def without(words: list[str], option: str) -> list[str]:
    """Return the command line without an option and its value."""
    if option not in words:
        return words
    place = words.index(option)
    return words[:place] + words[place + (1 if option in FLAGS else 2) :]


def replaced(name: str, parameter: click.Parameter, value: str) -> list[str]:
    """Return the valid command line of ``name`` with one value exchanged."""
    words = VALID[name].split()
    if isinstance(parameter, click.Argument):
        return [*name.split(), value, *words[1:]]
    option = parameter.opts[0]
    for other in INSTEAD_OF.get(option, ()):
        words = without(words, other)
    words = without([*words, *WITH.get(option, ())], option)
    prefix = GUID if option == "--secret" else ""
    return [*name.split(), *words, f"{option}={prefix}{value}"]


def ended(words: list[str], capsys: pytest.CaptureFixture[str], *, as_json: bool) -> int:
    """Run a command, hold what it said against the manner of the house, and return its code."""
    code = main([*words, "--output", "json"] if as_json else words)
    out, err = capsys.readouterr()
    what = f"{[word[:60] for word in words]} ended as {code}: {err[:500]!r}"
    assert code in REFUSED | VERDICTS, what
    assert "Traceback" not in out + err, what
    assert "\x1b" not in out + err, what
    lines = err.splitlines()
    assert all(line.startswith("sevkit: ") and len(line) < 1100 for line in lines), what
    errors = [
        line for line in lines if not line.startswith(("sevkit: warning: ", "sevkit: hint: "))
    ]
    if code in {2, 5, 65}:
        assert len(errors) == 1, what
        assert as_json or not out, what
    if as_json:
        assert json.loads(out).get("exit_code", code) == code, what
    return code


def clean(place: Path) -> None:
    """Take away what a command wrote."""
    for path in (place / "new", place / "new2"):
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def is_path(parameter: click.Parameter) -> bool:
    kinds = (parameter.metavar or "").rpartition("=")[2].split("|")
    return not {"FILE", "DIR", "REPORT"}.isdisjoint(kinds)


@pytest.mark.parametrize("name", VALID)
def test_what_is_not_the_file_asked_for_is_refused(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for parameter in COMMANDS[name].params:
        option = parameter.opts[0]
        if not is_path(parameter) or option in WRITTEN:
            continue
        for number, value in enumerate(BAD_FILES):
            if option in {"--kernel", "--initrd"} and value == "/dev/zero":
                continue  # 4 GiB are read before that is refused
            words = replaced(name, parameter, value)
            code = ended(words, capsys, as_json=bool(number % 2))
            anything = option in ANYTHING_GOES or words[:2] == ["inspect", "firmware"]
            anything = anything or (option in EMPTY_GOES and value == "empty")
            told = option in SOURCES and words[:2] == ["node", "probe"]
            # Names that are too long for a file are refused, so not looked up.
            taken = code not in REFUSED and anything and (place / value).is_file()
            assert code in REFUSED or told or taken, (words, code)
            clean(place)


@pytest.mark.parametrize("name", VALID)
def test_an_option_with_an_odd_value_is_taken_or_refused_in_one_line(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for parameter in COMMANDS[name].params:
        if is_path(parameter) or getattr(parameter, "is_flag", False):
            continue
        if parameter.opts[0] == "--output":
            continue
        for number, value in enumerate(BAD_VALUES):
            ended(replaced(name, parameter, value), capsys, as_json=bool(number % 2))
            clean(place)


def run(name: str, redirections: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a valid command line as a process of its own."""
    words = [sys.executable, "-m", "sevkit", *name.split(), *VALID[name].split()]
    return subprocess.run(
        ["/bin/sh", "-c", f"{shlex.join(words)} {redirections}"],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )


#: A place without a home, letters or assertions, and with every stream closed but the answer's.
BARE: Final = {
    "HOME": "",
    "XDG_CACHE_HOME": "relative",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONOPTIMIZE": "2",
}


@pytest.mark.parametrize("name", VALID)
def test_a_bare_place_gives_the_same_answer(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*name.split(), *VALID[name].split()]
    code = main(words)
    clean(place)
    done = run(name, "<&- 2>&-", **BARE)
    assert done.returncode == code
    if name not in {"idblock new", "attest launch"}:  # a signature is fresh, and so is a date
        assert done.stdout.replace("\\u2026", "…") == capsys.readouterr().out


@pytest.mark.parametrize("name", VALID)
def test_an_answer_that_cannot_be_written_is_no_verdict(name: str, place: Path) -> None:
    done = run(name, ">/dev/full")
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert all(line.startswith("sevkit: ") for line in done.stderr.splitlines())


def test_of_two_sessions_in_one_folder_at_once_one_is_whole(place: Path) -> None:
    words = [sys.executable, "-m", "sevkit", "session", "new", *VALID["session new"].split()]
    both = [
        subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert sorted(process.wait(60) for process in both) == [0, 2]
    written = json.loads((place / "new" / "session.json").read_bytes())
    session = base64.b64decode((place / "new" / "session.b64").read_bytes())
    assert hashlib.sha256(session).hexdigest() == written["session_sha256"]
    assert len(list((place / "new").iterdir())) == 5
