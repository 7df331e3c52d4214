"""`sevkit node doctor` and virtee's snphost on the same simulated machines agree.

snphost runs on the machine, as root, with its devices and registers. The doctor reads the machine's
files, as anybody may. Where they differ the table says why; a difference that is not in it, or that
is gone, is a failure.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.testing.device.mount import unavailable_reason
from sevkit.testing.host import DEFECTS, PRESETS, with_defects
from sevkit.testing.simulated_amd import SimulatedAmd
from sevkit.testing.simulated_machine import open_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sevkit.testing.host.spec import HostSpec

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"no device files: {unavailable_reason()}"
)

COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
CHECK: Final = re.compile(r"\[ (PASS|FAIL|SKIP) \] *- (.*)")
VERDICTS: Final = {"PASS": "pass", "FAIL": "fail"}
#: What both judge at least, on machines with everything; by snphost's names.
JUDGED: Final = frozenset(
    {
        "AMD CPU",
        "Microcode support",
        "Secure Memory Encryption (SME)",
        "Secure Encrypted Virtualization (SEV)",
        "Encrypted State (SEV-ES)",
        "Secure Nested Paging (SEV-SNP)",
        "VM Permission Levels",
        "SME",
        "SEV firmware version",
        "SEV initialized",
        "SEV-ES initialized",
        "SNP",
        "SNP initialized",
        "RMP table addresses",
        "RMP table initialized",
        "Alias check",
        "Page flush MSR",
        "C-bit location",
        "Physical address bit reduction",
        "Number of encrypted guests supported simultaneously",
        "Minimum ASID value for SEV-enabled, SEV-ES disabled guest",
        "SEV enabled in KVM",
        "SEV-ES enabled in KVM",
        "SEV-SNP enabled in KVM",
        "Comparing TCB values",
    }
)

_BIT_0: Final = "snphost 0.7.0 looks at bit 0 of CPUID 0x8000001f, which is SME, instead of bit 4"
_NAPLES: Final = "CPUID claims SEV-ES on Naples, which AMD does not support there"
_ASKING: Final = "to answer, this kernel initialises SNP for the time of the question"
_WAITS: Final = "psp_init_on_probe=N: the firmware waits for the first guest, and nothing is wrong"
#: Check, the doctor's verdict and snphost's, and why, for machines by name.
DIFFERENT: Final[Mapping[tuple[str, str], Mapping[str, str]]] = {
    ("Secure Nested Paging (SEV-SNP)", "fail"): {
        "naples": _BIT_0,
        "rome": _BIT_0,
        "rome-es": _BIT_0,
    },
    ("Encrypted State (SEV-ES)", "fail"): {"naples": _NAPLES},
    ("SNP initialized", "fail"): {
        "genoa+svm-off": _ASKING,
        "genoa+kvm-amd-not-loaded": _ASKING,
        "genoa+kvm-sev-off": _ASKING,
    },
    ("SEV initialized", "pass"): {"genoa+psp-init-deferred": _WAITS},
}
#: Presets without a secure processor have no device to ask.
MACHINES: Final = tuple(
    name for name, spec in PRESETS.items() if spec.cpu.product is not None and spec.cpu.psp
)
#: Not machines on which snphost can be run, or not Genoas.
ELSEWHERE: Final = frozenset({"no-psp", "ciphertext-hiding", "ciphertext-hiding-all"})


HOSTS: Final[Mapping[str, HostSpec]] = {
    **{name: PRESETS[name] for name in MACHINES},
    **{
        f"genoa+{defect}": with_defects("genoa", [defect])
        for defect in DEFECTS
        if defect not in ELSEWHERE
    },
}


@pytest.fixture(scope="module")
def amd() -> SimulatedAmd:
    return SimulatedAmd()


@pytest.fixture(scope="module")
def snphost(find_program: Callable[[str, str], Path]) -> Path:
    return find_program("snphost", "snphost")


def said_by_snphost(text: str) -> dict[str, str]:
    """Return its verdicts by the check's name, without those that it skipped."""
    found = CHECK.findall(COLOUR.sub("", text))
    return {
        line.partition(":")[0].strip(): VERDICTS[verdict]
        for verdict, line in found
        if verdict in VERDICTS
    }


def said_by_doctor(root: Path) -> dict[str, str]:
    """Return the doctor's verdicts by snphost's names, without those that it could not reach."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sevkit.cli.main", "node", "doctor"),
            *("--host-root", str(root), "--output", "json"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {0, 3, 4}, done.stderr
    return {
        one["snphost"]: one["verdict"]
        for one in json.loads(done.stdout)["checks"]
        if one["snphost"] and one["verdict"] in VERDICTS.values()
    }


@pytest.mark.parametrize("name", HOSTS)
def test_where_both_judge_they_agree(name: str, amd: SimulatedAmd, snphost: Path) -> None:
    spec = HOSTS[name]
    product = spec.cpu.product
    assert product is not None
    with open_machine(spec, amd.make_chip(product)) as machine:
        done = machine.run([snphost, "ok"])
        theirs = said_by_snphost((done.stdout + done.stderr).decode())
        ours = said_by_doctor(machine.root)
    both = ours.keys() & theirs.keys()
    found = {check for check in both if ours[check] != theirs[check]}
    expected = {check for (check, _), hosts in DIFFERENT.items() if name in hosts}
    assert found == expected
    for check in expected:
        assert (check, ours[check]) in DIFFERENT
    if name in {"milan", "genoa", "turin"}:
        assert both >= JUDGED
    assert len(both) >= 15
