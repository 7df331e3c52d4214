"""``sevkit measure`` as a process of its own, with pipes and a closed stdout."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from sevkit.measure.kernel_hashes import compute_kernel_hashes
from sevkit.measure.launch_digest import compute_sev_digest, compute_snp_digest
from sevkit.measure.vcpu import Registers
from sevkit.testing.firmware import FirmwareImage, encode_firmware

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = encode_firmware(FirmwareImage())


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "sevkit", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)


def test_the_firmware_can_come_from_standard_input() -> None:
    done = run("measure", "--mode", "sev", "--firmware", "-", stdin=IMAGE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == compute_sev_digest(IMAGE).hex() + "\n"


def test_a_digest_is_computed_and_explained(tmp_path: Path) -> None:
    path = tmp_path / "OVMF.fd"
    path.write_bytes(IMAGE)
    options = ["--mode", "snp", "--firmware", str(path)]
    done = run("measure", *options, "--vcpus", "2", "--vcpu-type", "EPYC-Genoa")
    assert done.returncode == 0
    assert done.stdout.decode() == compute_snp_digest(IMAGE, Registers(0xA10F10, 1), 2).hex() + "\n"
    done = run("attest", "explain", done.stdout.decode().strip(), *options)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"vcpus\t2\n" in done.stdout


def test_a_command_line_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "OVMF.fd"
    path.write_bytes(IMAGE)
    command = [sys.executable, "-m", "sevkit", "measure", "--mode", "sev", "--firmware", str(path)]
    done = subprocess.run(
        [*map(os.fsencode, [*command, "--kernel", str(path), "--cmdline"]), b"a\xff"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert b"not UTF-8" in done.stderr


def test_a_command_line_is_measured_as_typed_in_any_locale(tmp_path: Path) -> None:
    path = tmp_path / "OVMF.fd"
    path.write_bytes(IMAGE)
    command = [sys.executable, "-m", "sevkit", "measure", "--mode", "sev", "--firmware", str(path)]
    done = subprocess.run(
        [*map(os.fsencode, [*command, "--kernel", str(path), "--cmdline"]), "ünï".encode()],
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    expected = compute_sev_digest(IMAGE, compute_kernel_hashes(IMAGE, cmdline="ünï"))
    assert (done.returncode, done.stdout.decode()) == (0, expected.hex() + "\n")


def test_a_large_initrd_is_streamed(tmp_path: Path) -> None:
    firmware, kernel, initrd = (tmp_path / name for name in ("OVMF.fd", "vmlinuz", "initrd"))
    firmware.write_bytes(IMAGE)
    kernel.write_bytes(b"kernel")
    size = 96 << 20
    with initrd.open("wb") as stream:
        stream.truncate(size)
    # The peak of this process alone: getrusage also counts what its parent had before exec.
    code = (
        "import re, sys; from sevkit.cli.main import main; code = main(sys.argv[1:]);"
        "status = open('/proc/self/status').read();"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1], file=sys.stderr);"
        "sys.exit(code)"
    )
    options = ["measure", "--mode", "sev", "--firmware", str(firmware)]
    options += ["--kernel", str(kernel), "--initrd", str(initrd)]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0
    hashes = compute_kernel_hashes(b"kernel", initrd=bytes(size))
    assert done.stdout.decode() == compute_sev_digest(IMAGE, hashes).hex() + "\n"
    assert int(done.stderr) * 1024 < size


def test_progress_is_shown_only_on_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "OVMF.fd"
    path.write_bytes(IMAGE)
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "sevkit", "attest", "explain", "00" * 48]
    done = subprocess.run(
        [*command, "--mode", "snp", "--firmware", str(path), "--guest-features", "1"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=False,
        timeout=60,
    )
    os.close(theirs)
    shown = os.read(ours, 65536)
    os.close(ours)
    assert done.returncode == 1
    assert done.stdout == b"none of 15872 digests fits\n"
    assert shown.endswith(b"\r\x1b[K")


def test_the_answer_into_a_closed_pipe_is_exit_141(tmp_path: Path) -> None:
    path = tmp_path / "OVMF.fd"
    path.write_bytes(IMAGE)
    command = [sys.executable, "-m", "sevkit", "measure", "--mode", "snp", "--firmware", str(path)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*command, "--vcpus", "1-512", "--vcpu-sig", "0"], stdout=writer, check=False, timeout=60
    )
    os.close(writer)
    assert done.returncode == 141
