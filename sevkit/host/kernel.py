"""The kernel: its release, what it was booted with, and what its modules decided.

``kvm_amd``'s parameters are what came of them, not what was asked for: ``sev_hardware_setup()``
writes back N where something was missing. Up to Linux 6.15 they say Y although the firmware was
never initialised. Source: Linux, arch/x86/kvm/svm/sev.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import FormatError
from sevkit.host.reading import Cause, Known, Unreadable, convert

if TYPE_CHECKING:
    from sevkit.host.reading import Reading
    from sevkit.host.source import HostSource

_RELEASE: Final = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})[!-~]*")
#: Prefixes of the words of the command line that decide something about SEV.
_PREFIXES: Final = (
    *("kvm_amd.", "kvm-amd.", "kvm.", "ccp.", "mem_encrypt=", "iommu=", "iommu.", "amd_iommu="),
    *("modprobe.blacklist=", "module_blacklist=", "initcall_blacklist="),
    "systemd.unified_cgroup_hierarchy=",
)
_SWITCHES: Final = {"Y": True, "y": True, "1": True, "N": False, "n": False, "0": False}


@final
@dataclass(frozen=True, slots=True)
class Release:
    """A kernel's release, with the version that it begins with."""

    text: str
    version: tuple[int, int]


@final
@dataclass(frozen=True, slots=True)
class Modules:
    """The modules that SEV needs, and their parameters.

    ``kvm_amd`` is whether that module is there (also built in), ``names`` the parameters that it
    has. Parameters are what they came out as; ``nrips`` and ``lbrv`` were numbers once.
    """

    kvm_amd: Reading[bool]
    names: Reading[tuple[str, ...]]
    sev: Reading[bool]
    sev_es: Reading[bool]
    sev_snp: Reading[bool]
    npt: Reading[bool]
    nrips: Reading[bool]
    lbrv: Reading[bool]
    ciphertext_hiding_asids: Reading[int]
    mmio_caching: Reading[bool]
    psp_init_on_probe: Reading[bool]


def probe_release(source: HostSource) -> Reading[Release]:
    """Read the release."""
    return convert(source.text("proc/sys/kernel/osrelease"), parse_release)


def parse_release(text: str) -> Release:
    """Return a release such as ``6.12.57+deb13-amd64``. Raises ``FormatError``."""
    found = _RELEASE.fullmatch(text.strip())
    if found is None:
        raise FormatError("kernel release", "does not begin with a version")
    return Release(found[0], (int(found[1]), int(found[2])))


def probe_command_line(source: HostSource) -> Reading[tuple[str, ...]]:
    """Read the words of the command line that are about SEV; others are nobody's business."""
    return convert(source.text("proc/cmdline"), parse_command_line)


def parse_command_line(text: str) -> tuple[str, ...]:
    """Return the words that matter, in their order; the last one of a name wins, as in Linux."""
    return tuple(word for word in text.split() if word.startswith(_PREFIXES))


def asked(words: tuple[str, ...], name: str) -> str | None:
    """Return what the command line asks of a parameter, or None; ``-`` and ``_`` are the same."""
    found = None
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key.replace("-", "_") == name:
            found = value
    return found


def probe_modules(source: HostSource) -> Modules:
    """Read what the modules say of themselves."""

    def switch(name: str, module: str = "kvm_amd") -> Reading[bool]:
        return convert(_parameter(source, module, name), parse_switch)

    hiding = _parameter(source, "kvm_amd", "ciphertext_hiding_asids")
    return Modules(
        kvm_amd=_loaded(source),
        names=source.names("sys/module/kvm_amd/parameters"),
        sev=switch("sev"),
        sev_es=switch("sev_es"),
        sev_snp=switch("sev_snp"),
        npt=switch("npt"),
        nrips=switch("nrips"),
        lbrv=switch("lbrv"),
        ciphertext_hiding_asids=convert(hiding, parse_count),
        mmio_caching=switch("mmio_caching", "kvm"),
        psp_init_on_probe=switch("psp_init_on_probe", "ccp"),
    )


def parse_switch(text: str) -> bool:
    """Return a boolean parameter, which old kernels print as a number. Raises ``FormatError``."""
    found = _SWITCHES.get(text.strip())
    if found is None:
        raise FormatError("module parameter", f"{text.strip()[:20]!r} is not Y or N")
    return found


def parse_count(text: str) -> int:
    """Return a number that is a parameter or an attribute. Raises ``FormatError``."""
    word = text.strip()
    if not (word.isascii() and word.isdigit() and len(word) <= 10):
        raise FormatError("module parameter", f"{word[:20]!r} is not a number")
    return int(word)


def _parameter(source: HostSource, module: str, name: str) -> Reading[str]:
    return source.text(f"sys/module/{module}/parameters/{name}")


def _loaded(source: HostSource) -> Reading[bool]:
    """Return whether ``kvm_amd`` is there: an empty list of modules is no list of modules."""
    names = source.names("sys/module")
    if isinstance(names, Unreadable):
        return names
    if not names.value:
        return Unreadable(Cause.ABSENT, "/sys/module: empty")
    return Known("kvm_amd" in names.value)


def parameter_missing(modules: Modules, name: str) -> bool:
    """Whether the list of ``kvm_amd``'s parameters was read, and ``name`` is not in it."""
    return (
        isinstance(modules.names, Known)
        and bool(modules.names.value)
        and (name not in modules.names.value)
    )
