"""This machine itself, and real processes without root."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.host.capability import Technology
from sevkit.host.cpuid import probe_cpuid
from sevkit.host.cpuinfo import probe_cpuinfo
from sevkit.host.reading import value_of
from sevkit.host.sources import open_host
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.write import write_host

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SEVKIT: Final = (sys.executable, "-m", "sevkit")
FLAGS: Final = frozenset(
    next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "flags" in line), "")
    .partition(":")[2]
    .split()
)
guest = pytest.mark.skipif("hypervisor" not in FLAGS, reason="this machine is not a guest")
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="no CPUID on this machine")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Make a folder that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="sevkit-host-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def run(words: Sequence[str], *, user: str = "") -> subprocess.CompletedProcess[str]:
    as_user = ["setpriv", "--reuid", user, "--regid", "nogroup", "--clear-groups"] if user else []
    return subprocess.run(
        [*as_user, *SEVKIT, *words], check=False, capture_output=True, text=True, timeout=60
    )


@x86
def test_this_machines_processor_is_read_as_the_kernel_reads_it() -> None:
    with open_host() as source:
        cpuid, cpuinfo = value_of(probe_cpuid(source)), value_of(probe_cpuinfo(source))
        assert not source.simulated
    assert cpuid is not None
    assert cpuinfo is not None
    assert cpuid.vendor == cpuinfo.vendor
    assert cpuid.signature == cpuinfo.signature
    assert cpuid.brand == cpuinfo.brand
    assert cpuid.hypervisor is ("hypervisor" in FLAGS)


@guest
def test_a_virtual_machine_is_told_to_be_one() -> None:
    done = run(["node", "doctor", "--output", "json"])
    assert (done.returncode, done.stderr) == (3, "")
    said = json.loads(done.stdout)
    assert said["simulated"] is False
    for one in Technology:
        capability = said["capabilities"][one]
        assert (capability["state"], capability["reason"]) == ("absent", "virtual-machine")
        assert capability["hint"] == "use a bare-metal node"


@guest
@root
def test_the_same_is_found_without_root() -> None:
    words = ["node", "doctor", "--output", "json"]
    done = run(words, user="nobody")
    assert done.returncode == 3, done.stderr
    said, as_root = (json.loads(one.stdout)["capabilities"] for one in (done, run(words)))
    assert said == as_root
    probed = run(["node", "probe", "--output", "json"], user="nobody")
    assert probed.returncode == 0
    assert json.loads(probed.stdout)["sources"]["cpuid"]["value"]["vendor"]


@root
def test_a_host_that_is_not_ours_to_read_is_not_known(public_folder: Path) -> None:
    tree = public_folder / "host"
    write_host(PRESETS["milan"], tree)
    words = ["node", "doctor", "--host-root", str(tree), "--output", "json"]
    assert run(words, user="nobody").returncode == 0
    (tree / "sys/module/kvm_amd/parameters").chmod(0o700)
    done = run(words, user="nobody")
    assert done.returncode == 4
    capability = json.loads(done.stdout)["capabilities"]["sev-snp"]
    assert (capability["state"], capability["reason"]) == ("unknown", "kvm-unread")
    assert run(words).returncode == 0


#: Tells every system call of interest that Python makes, from its audit events.
WATCHED: Final = """
import json, sys
from sevkit.host.capabilities import decide
from sevkit.host.probe import probe_host
from sevkit.host.sources import open_host

calls = []
def probe():
    with open_host(sys.argv[1]) as source:
        decide(probe_host(source))
probe()  # imports are done once
sys.addaudithook(lambda name, args: calls.append([name, str(args[0]) if args else ""]))
probe()
print(json.dumps(calls))
"""


def test_a_copy_is_all_that_is_read(tmp_path: Path) -> None:
    tree = tmp_path / "host"
    write_host(PRESETS["milan"], tree)
    words = [sys.executable, "-c", WATCHED, str(tree)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    calls = [(name, argument) for name, argument in json.loads(done.stdout) if name != "import"]
    opened = [argument for name, argument in calls if name == "open"]
    # The root by its name, and everything else by one name below an open folder.
    assert opened.count(str(tree)) == 1
    assert all("/" not in name and name != ".." for name in opened if name != str(tree))
    # No instruction is executed, no device asked, no log of this machine's read.
    kinds = {name.partition(".")[0] for name, _ in calls}
    assert kinds <= {"open", "os", "object", "compile", "exec", "marshal", "sys"}, kinds
    assert len(opened) > len(list((tree / "sys/module/kvm_amd/parameters").iterdir()))
