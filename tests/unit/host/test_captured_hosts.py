"""Trees that nobody made for us: captures of a few files, odd kernels, odd firmware.

Each row names what was done to the tree of a simulated host, and what can be said of it then. The
argument stands beside the row; where it rests on Linux' behaviour, that is said.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UNSEEN: Final = "unknown cpuinfo-unread"
OK: Final = "usable"
CVE: Final = "unusable es-open-to-cve-2025-48514"
BESIDE: Final = "unusable es-beside-snp"
MILAN: Final = (OK, CVE, OK)
PARAMETERS: Final = "sys/module/kvm_amd/parameters"
CAPACITY: Final = "sys/fs/cgroup/misc.capacity"


def keep(*patterns: str) -> Callable[[Path], None]:
    """Leave nothing but the files at these places."""

    def change(root: Path) -> None:
        wanted = {path for pattern in patterns for path in root.glob(pattern)}
        for path in sorted(root.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in wanted:
                path.unlink()

    return change


def remove(*names: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for name in names:
            path = root / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    return change


def put(name: str, content: str | bytes) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def replaced(name: str, pattern: str, by: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text, count = re.subn(pattern, by, (root / name).read_text())
        assert count, pattern
        put(name, text)(root)

    return change


def firmware(**values: Any) -> Callable[[Path], None]:  # noqa: ANN401  # JSON values
    """Change what the firmware said; ``snp_`` leads into its answer about SNP."""

    def change(root: Path) -> None:
        document = json.loads((root / "firmware.json").read_text())
        for name, value in values.items():
            group = document["snp"] if name.startswith("snp_") else document
            group[name.removeprefix("snp_")] = value
        put("firmware.json", json.dumps(document))(root)

    return change


def several(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for one in changes:
            one(root)

    return change


def links_lost(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_symlink():
            path.unlink()


def model(family: int, number: int) -> Callable[[Path], None]:
    """Make the processor another one, by its own word and by the kernel's."""
    extended = family - 0xF << 20 | (number >> 4) << 16 | 0xF00 | (number & 0xF) << 4
    rest = r'": \[\s+)"0x[0-9a-f]+"'
    return several(
        replaced("proc/cpuinfo", r"(cpu family\t: )\d+", rf"\g<1>{family}"),
        replaced("proc/cpuinfo", r"(model\t\t: )\d+", rf"\g<1>{number}"),
        replaced("cpuid.json", f'("0x00000001{rest}', rf'\g<1>"{extended:#010x}"'),
        replaced("cpuid.json", f'("0x80000001{rest}', rf'\g<1>"{extended:#010x}"'),
    )


NO_DEVICE: Final = remove("firmware.json", "dev/sev", "sys/class/misc/sev")
HEALTHY_SNP: Final = {
    "initialized": True,
    "rmp_initialized": True,
    "alias_check_complete": True,
    "guest_count": 0,
    "current_tcb": "0xdb16000000000004",
    "reported_tcb": "0xdb16000000000004",
    "vlek_loaded": False,
    "ciphertext_hiding": False,
}
#: Preset, what was done to its tree, and what SEV, SEV-ES and SEV-SNP are then.
TREES: Final[dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]]] = {
    # Few files: what is not there proves nothing, what is may.
    "nothing": ("milan", keep(), (UNSEEN,) * 3),
    "only cpuinfo": ("milan", keep("proc/cpuinfo"), ("unknown cpuid-unread",) * 3),
    "only cpuinfo of rome": (
        "rome-es",
        keep("proc/cpuinfo"),
        # The model is enough to know that there is no SEV-SNP in it.
        ("unknown cpuid-unread", "unknown cpuid-unread", "absent no-silicon"),
    ),
    "only cpuinfo without the flags": (
        "milan",
        several(keep("proc/cpuinfo"), replaced("proc/cpuinfo", r" sev\b| sev_\w+", "")),
        # Linux takes them away where the BIOS is to blame; for which of two reasons CPUID tells.
        ("disabled memory-encryption-off",) * 3,
    ),
    "only cpuid": ("milan", keep("cpuid.json"), (UNSEEN,) * 3),
    "only sys": (
        "milan",
        keep("sys/**/*"),
        # KVM has SNP on, so SEV-ES is a no whatever the processor says.
        (UNSEEN, BESIDE, UNSEEN),
    ),
    "no cpuid": (
        "milan",
        remove("cpuid.json"),
        ("unknown cpuid-unread", CVE, "unknown cpuid-unread"),
    ),
    "the three that must agree": (
        "milan",
        keep("cpuid.json", "proc/cpuinfo", f"{PARAMETERS}/sev*"),
        (OK, BESIDE, OK),
    ),
    "links lost": (
        "milan",
        links_lost,
        # sysfs lists devices by links: without any, no list of devices is an empty one.
        MILAN,
    ),
    "links lost, kvm_amd out": (
        "milan",
        several(links_lost, remove("sys/module/kvm_amd")),
        ("disabled kvm-amd-not-loaded",) * 3,
    ),
    "a container's /dev": ("milan", remove("dev"), MILAN),
    "no misc class, no node": (
        "milan",
        remove("dev/sev", "sys/class/misc"),
        # Nobody looked: nothing but a container's /dev has no such node.
        MILAN,
    ),
    "the kernel lists no sev": (
        "milan",
        remove("dev/sev", "sys/class/misc/sev"),
        ("disabled no-sev-device",) * 3,
    ),
    # Numbers as old kernels print them (Linux before 5.13), and a backport of SNP to one.
    "parameters as numbers": (
        "milan",
        several(*(put(f"{PARAMETERS}/{one}", "1\n") for one in ("sev", "sev_es", "sev_snp"))),
        MILAN,
    ),
    "snp off as a number": (
        "milan",
        several(put(f"{PARAMETERS}/sev_snp", "0"), remove("firmware.json")),
        (OK, OK, "disabled snp-not-initialised"),
    ),
    "a backport": ("milan", put("proc/sys/kernel/osrelease", "5.14.0-611.el9.x86_64\n"), MILAN),
    "linux 5.4": (
        "rome-es",
        several(
            put("proc/sys/kernel/osrelease", "5.4.0-216-generic\n"),
            replaced("proc/cpuinfo", " sev_es", ""),
            remove(f"{PARAMETERS}/sev_es", CAPACITY),
        ),
        # Neither flag nor parameter had a name then: the kernel is to blame, not the BIOS.
        (OK, "disabled kernel-too-old", "absent no-silicon"),
    ),
    # The misc controller: no line is none, no file is not known.
    "no file": ("milan", remove(CAPACITY), MILAN),
    "no line at all": (
        "milan",
        put(CAPACITY, ""),
        ("unusable no-sev-asids", *["unusable no-encrypted-state-asids"] * 2),
    ),
    "no line for sev_es": (
        "milan",
        put(CAPACITY, "sev 509\n"),
        (OK, *["unusable no-encrypted-state-asids"] * 2),
    ),
    "no line for sev": (
        "milan",
        put(CAPACITY, "rdma 4\r\nsev_es 99"),
        # Not sev's: a name that begins with "sev" is another.
        ("unusable no-sev-asids", CVE, OK),
    ),
    "a damaged capacity": ("milan", put(CAPACITY, "sev \0\0\0\n"), MILAN),
    "version 1": (
        "milan",
        several(remove(CAPACITY), put("sys/fs/cgroup/misc/misc.capacity", "sev 382\nsev_es 127\n")),
        MILAN,
    ),
    # Processors that are something else.
    "epyc 4004": (
        "genoa",
        several(model(0x19, 0x61), NO_DEVICE),
        # The brand says EPYC, the flags are there, and there is no firmware.
        ("disabled no-sev-device",) * 3,
    ),
    "epyc 4004, sight unseen": (
        "genoa",
        several(model(0x19, 0x61), NO_DEVICE, remove("sys/class/misc")),
        ("unknown model-not-known", BESIDE, "unknown model-not-known"),
    ),
    "a newer generation": (
        "turin",
        model(0x1A, 0x50),
        # Its firmware answers, so it has one; which SVN refuses SEV-ES is not known of it.
        (OK, BESIDE, OK),
    ),
    "naples": ("naples", lambda _: None, (OK, *["absent no-silicon"] * 2)),
    "naples' bios with room for es": (
        "naples",
        several(
            replaced("cpuid.json", r'"0x00000001"(\s+\])', r'"0x00000005"\1'),
            put(CAPACITY, "sev 11\nsev_es 4\n"),
            put(f"{PARAMETERS}/sev_es", "Y\n"),
        ),
        # CPUID, KVM and the controller say so; AMD does not support it.
        (OK, *["absent no-silicon"] * 2),
    ),
    "hygon": (
        "milan",
        replaced("proc/cpuinfo", "AuthenticAMD", "HygonGenuine"),
        ("absent not-amd",) * 3,
    ),
    "a guest that the kernel alone tells": (
        "milan",
        replaced("proc/cpuinfo", r"(flags\t\t: )", r"\1hypervisor "),
        ("absent virtual-machine",) * 3,
    ),
    # Firmware that says odd things.
    "uninit on linux 6.12": (
        "milan",
        firmware(state="uninit"),
        # The driver was to initialise it when it found it, and parameters do not tell that it
        # failed.
        ("disabled firmware-init-failed",) * 3,
    ),
    "uninit on linux 6.18": (
        "genoa",
        firmware(state="uninit"),
        # KVM would have said N had that failed; the next launch initialises it again.
        MILAN,
    ),
    "uninit on linux 6.18, with sev-es": (
        "rome-es",
        several(
            firmware(state="uninit", es_configured=False),
            put("proc/sys/kernel/osrelease", "6.18.9\n"),
        ),
        (OK, OK, "absent no-silicon"),
    ),
    "working": ("milan", firmware(state="working", guest_count=3), MILAN),
    "no such state": ("milan", firmware(state="lost"), (OK, BESIDE, OK)),
    "another schema": ("milan", firmware(schema="sevkit.io/firmware/v2"), (OK, BESIDE, OK)),
    "a word for a number": ("milan", firmware(build="40"), (OK, BESIDE, OK)),
    "snp not asked": ("milan", firmware(snp=None), (OK, BESIDE, OK)),
    "half of snp": ("milan", firmware(snp={"initialized": True}), (OK, BESIDE, OK)),
    "snp off, and kvm says on": (
        "milan",
        firmware(snp_initialized=False),
        (OK, "unknown snp-state-unread", "disabled snp-not-initialised"),
    ),
    "rmp off": (
        "milan",
        firmware(snp_rmp_initialized=False),
        (OK, CVE, "unusable rmp-not-initialised"),
    ),
    "api 1.50": ("milan", firmware(api="1.50"), (OK, CVE, "disabled firmware-too-old")),
    "api 1.51": ("milan", firmware(api="1.51"), MILAN),
    "api 2.0": ("milan", firmware(api="2.0"), MILAN),
    "no es in firmware": (
        "milan",
        firmware(es_configured=False),
        (OK, "disabled es-not-configured", OK),
    ),
    "a tcb that is none": (
        "milan",
        firmware(snp_current_tcb="0xffffffffffffffff"),
        # Its reserved bytes are set, so nothing is known of its SVN.
        (OK, BESIDE, OK),
    ),
    "the reported tcb is old": ("milan", firmware(snp_reported_tcb="0x0"), MILAN),
    "hidden, and nobody says how many": (
        "milan",
        firmware(snp_ciphertext_hiding=True),
        (OK, CVE, "unknown asid-split-unread"),
    ),
    "snp's answer on rome": (
        "rome-es",
        firmware(snp=HEALTHY_SNP),
        (OK, BESIDE, "absent no-silicon"),
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_is_told_right(
    name: str, tree: Callable[..., Path], answers_at: Callable[[Path], tuple[str, ...]]
) -> None:
    preset, change, answers = TREES[name]
    root = tree(preset)
    change(root)
    assert answers_at(root) == answers
