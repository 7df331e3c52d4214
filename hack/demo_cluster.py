"""The demonstration for operators and tenants: a fleet told apart, a VM made confidential."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: One host of each generation, some of them broken: preset and defects.
FLEET: Final = (
    ("naples",),
    ("rome-es", "iommu-off"),
    ("milan",),
    ("milan", "iommu-snp-off"),
    ("genoa", "guests-running"),
    ("turin", "rmp-not-reserved"),
    ("intel",),
)
TIERS: Final = ("sev", "sev-es", "sev-snp")
_MARKS: Final = {"usable": "yes", "absent": "-", "unknown": "?"}
MACHINE: Final = """\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: ledger
spec:
  runStrategy: Always
  template:
    spec:
      domain:
        cpu: {cores: 2}   # as ever
        memory: {guest: 2Gi}
        devices: {}
"""


def fleet(sevkit: Callable[..., str], out: Path) -> None:
    """Probe simulated hosts, and say what each can run, why not, and what to do."""
    rows: list[tuple[str, ...]] = []
    for number, (preset, *defects) in enumerate(FLEET):
        root = out / "fleet" / f"{number}-{preset}"
        options = [word for defect in defects for word in ("--defect", defect)]
        sevkit("simulate", "host", preset, *options, "--out", root, show=False)
        words = ("node", "doctor", "--host-root", root, "--output", "json")
        answer = sevkit(*words, code=None, show=False)  # a verdict, whichever
        found = json.loads(answer)["capabilities"]
        marks = [_MARKS.get(found[tier]["state"], "no") for tier in TIERS]
        rows.append((", ".join((preset, *defects)), *marks, _why(found)))
    print(f"  {'host':<26} {'SEV':<4} {'ES':<4} {'SNP':<4} why not, and what to do")
    for name, *marks, why in rows:
        print(f"  {name:<26} {' '.join(f'{mark:<4}' for mark in marks)} {why}")


def _why(found: dict[str, Any]) -> str:
    """Return the first reason why the strongest tier that is not there is not."""
    for tier in reversed(TIERS):
        one = found[tier]
        if one["state"] != "usable":
            return str(one["hint"] or one["explanation"])[:110]
    return ""


def confidential(sevkit: Callable[..., str], out: Path) -> None:
    """Make one manifest an SNP VM and a SEV one that waits for its owner; show what changed."""
    plain = out / "vm.yaml"
    plain.write_text(MACHINE)
    for words in (("snp",), ("sev", "--attestation", "required")):
        changed = sevkit("inject", "-f", plain, "--confidential", *words, quiet=True)
        for line in difflib.unified_diff(
            MACHINE.splitlines(), changed.splitlines(), lineterm="", n=0
        ):
            if line.startswith("+ "):
                print(f"  {line}")
