"""`sevkit node doctor`, virtee's snphost and its sevctl on the same simulated machines agree.

The tools run on the machine, as root, with its devices and registers. The doctor reads the
machine's files, as anybody may. Where they differ the table says why; a difference that is not in
it, or that is gone, is a failure.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from sevkit.cli.main import main
from sevkit.host.doctor.catalogue import CATALOGUE
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
VERDICTS: Final = frozenset({"pass", "fail"})
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
#: The presets that are broken in every way that they can be.
_BROKEN: Final = ("genoa", "rome-es")
_ROMES: Final = tuple(
    f"rome-es+{name}" if name else "rome-es"
    for name in ("", *DEFECTS)
    if not name or "rome-es" in DEFECTS[name].applies_to
)
_NAPLES: Final = "CPUID claims SEV-ES on Naples, which AMD does not support there"
_ASKING: Final = "to answer, this kernel initialises SNP for the time of the question"
_WAITS: Final = "psp_init_on_probe=N: the firmware waits for the first guest, and nothing is wrong"
#: By check and the doctor's verdict: the machines on which snphost's is the other one, and why.
SNPHOST_DIFFERS: Final[Mapping[tuple[str, str], Mapping[str, str]]] = {
    ("Secure Nested Paging (SEV-SNP)", "fail"): {
        "naples": _BIT_0,
        "rome": _BIT_0,
        **dict.fromkeys(_ROMES, _BIT_0),
    },
    ("Encrypted State (SEV-ES)", "fail"): {"naples": _NAPLES},
    ("SNP initialized", "fail"): {
        "genoa+svm-off": _ASKING,
        "genoa+kvm-amd-not-loaded": _ASKING,
        "genoa+kvm-sev-off": _ASKING,
    },
    ("SEV initialized", "pass"): {
        "genoa+psp-init-deferred": _WAITS,
        "rome-es+psp-init-deferred": _WAITS,
    },
}
SEVCTL_DIFFERS: Final = {("Encrypted State (SEV-ES)", "fail"): {"naples": _NAPLES}}
#: Presets without a secure processor have no device to ask.
MACHINES: Final = tuple(
    name for name, spec in PRESETS.items() if spec.cpu.product is not None and spec.cpu.psp
)
#: Without a secure processor there is no chip to make; a thousand guests change no verdict.
_NOT_RUN: Final = frozenset({"no-psp", "asids-exhausted"})
HOSTS: Final[Mapping[str, HostSpec]] = {
    **{name: PRESETS[name] for name in MACHINES},
    **{
        f"{preset}+{name}": with_defects(preset, [name])
        for name, defect in DEFECTS.items()
        for preset in _BROKEN
        if preset in defect.applies_to and name not in _NOT_RUN
    },
}


class Tool(NamedTuple):
    """A peer: what it is asked, and on which of the checks that it makes the doctor differs."""

    words: tuple[str, ...]
    differs: Mapping[tuple[str, str], Mapping[str, str]]
    judged: int


TOOLS: Final = {
    "snphost": Tool(("ok",), SNPHOST_DIFFERS, judged=12),
    "sevctl": Tool(("ok", "snp"), SEVCTL_DIFFERS, judged=10),
}


@pytest.fixture(scope="module")
def amd() -> SimulatedAmd:
    return SimulatedAmd()


def said_by_tool(text: str) -> dict[str, str]:
    """Return its verdicts by the check's name, also of those that it skipped."""
    found = CHECK.findall(COLOUR.sub("", text))
    return {line.partition(":")[0].strip(): verdict.lower() for verdict, line in found}


def said_by_doctor(root: Path, tool: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the doctor's verdicts by the tool's names, also of those that it could not reach."""
    assert main(["node", "doctor", "--host-root", str(root), "--output", "json"]) in {0, 3, 4}
    checks = json.loads(capsys.readouterr().out)["checks"]
    return {one[tool]: one["verdict"] for one in checks if one[tool]}


def judged(verdicts: Mapping[str, str]) -> dict[str, str]:
    return {check: verdict for check, verdict in verdicts.items() if verdict in VERDICTS}


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        (tool, name)
        for tool in TOOLS
        for name in HOSTS
        # sevctl's checks are few, and the same few there.
        if tool == "snphost" or not name.startswith("rome-es+")
    ],
)
def test_where_both_judge_they_agree(
    tool: str,
    name: str,
    amd: SimulatedAmd,
    find_program: Callable[[str, str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec, program = HOSTS[name], find_program(tool, tool)
    product = spec.cpu.product
    assert product is not None
    with open_machine(spec, amd.make_chip(product)) as machine:
        done = machine.run([program, *TOOLS[tool].words])
        theirs = judged(said_by_tool((done.stdout + done.stderr).decode()))
        ours = judged(said_by_doctor(machine.root, tool, capsys))
    both = ours.keys() & theirs.keys()
    found = {check for check in both if ours[check] != theirs[check]}
    differs = TOOLS[tool].differs
    expected = {check for (check, _), hosts in differs.items() if name in hosts}
    assert found == expected
    for check in expected:
        assert (check, ours[check]) in differs
    if name in {"milan", "genoa", "turin"} and tool == "snphost":
        assert both >= JUDGED
    assert len(both) >= TOOLS[tool].judged


@pytest.mark.parametrize("tool", TOOLS)
def test_every_check_of_theirs_is_one_of_the_doctors(
    tool: str, amd: SimulatedAmd, find_program: Callable[[str, str], Path]
) -> None:
    program, spec = find_program(tool, tool), PRESETS["genoa"]
    product = spec.cpu.product
    assert product is not None
    with open_machine(spec, amd.make_chip(product)) as machine:
        theirs = said_by_tool(machine.run([program, *TOOLS[tool].words]).stdout.decode())
    assert theirs.keys() == {getattr(check, tool) for check in CATALOGUE if getattr(check, tool)}
