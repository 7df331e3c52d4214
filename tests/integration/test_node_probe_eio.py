"""A host's file that answers EIO: the kernel's own error, out of a file system that fails."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from sevkit.testing.device.mount import FuseDevices, unavailable_reason
from sevkit.testing.host import PRESETS, write_host

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"no device files: {unavailable_reason()}"
)
ROOT: Final = Path(__file__).resolve().parents[2]
#: Folders, and the files in them that are all there is, and fail.
FAILING: Final = {
    "proc": ("cpuinfo",),
    "sys/fs/cgroup": ("misc.capacity", "misc.current"),
    "sys/module/kvm_amd/parameters": ("sev", "sev_es", "sev_snp"),
}


class Broken:
    """A file whose every read is an input/output error."""

    def read_at(self, offset: int, size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("folder", FAILING)
def test_a_source_that_fails_is_not_known_and_takes_nothing_away(
    folder: str, tmp_path: Path
) -> None:
    root = tmp_path / "host"
    write_host(PRESETS["genoa"], root)
    features = tmp_path / "sevkit"
    words = [sys.executable, "-m", "node_agent", "--once", "--sink", "nfd"]
    words += ["--nfd-file", str(features), "--host-root", str(root)]

    def publish() -> None:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        levels = {json.loads(line)["level"] for line in done.stderr.splitlines()}
        assert levels <= {"info", "warning"}

    publish()
    before = features.read_text()
    files = dict.fromkeys(FAILING[folder], Broken())
    with FuseDevices(files, at=root / folder):
        with pytest.raises(OSError, match="Input/output error"):
            (root / folder / FAILING[folder][-1]).read_bytes()
        publish()
    after = features.read_text()
    kept = {line.partition("=")[0] for line in before.splitlines()}
    assert {line.partition("=")[0] for line in after.splitlines()} == kept
    assert "sevkit.io/sev-snp=true" in after
