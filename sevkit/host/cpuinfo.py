"""``/proc/cpuinfo``: what the kernel calls the processor, and which features it left standing.

Linux takes ``sev``, ``sev_es`` and ``sev_snp`` away where the BIOS did not set them up, so a flag
says more than CPUID's bit. Only the first processor is read: the file is as long as the machine is
wide. Source: Linux, arch/x86/kernel/cpu/{amd,proc}.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.errors import FormatError
from sevkit.host.cpuid import Signature
from sevkit.host.reading import convert

if TYPE_CHECKING:
    from sevkit.host.reading import Reading
    from sevkit.host.source import HostSource

PATH: Final = "proc/cpuinfo"
#: Enough for the first processor, whose flags take 1,500 bytes.
_HEAD: Final = 16 << 10
#: What the kernel prints on x86 only, beside the processor's number.
_X86: Final = frozenset({"vendor_id", "flags"})
#: What it prints elsewhere: arm64 (two), s390 (which has no "processor"), riscv, powerpc.
_OTHERS: Final = frozenset({"CPU implementer", "Features", "# processors", "isa", "cpu"})
_ADDRESS_SIZES: Final = re.compile(r"([0-9]{1,3}) bits physical")


@final
@dataclass(frozen=True, slots=True)
class CpuinfoFacts:
    """The first processor. ``x86`` is whether it is one at all; what is not printed is None.

    ``physical_bits`` is the size of a physical address, less what memory encryption takes once the
    BIOS has it on.
    """

    x86: bool
    vendor: str | None = None
    signature: Signature | None = None
    brand: str | None = None
    flags: frozenset[str] | None = None
    physical_bits: int | None = None


def probe_cpuinfo(source: HostSource) -> Reading[CpuinfoFacts]:
    """Read the first processor."""
    return convert(source.text(PATH, limit=_HEAD, head=True), parse_cpuinfo)


def parse_cpuinfo(text: str) -> CpuinfoFacts:
    """Return the first processor of ``text``, which may end anywhere after it.

    Raises ``FormatError`` if there is none.
    """
    first, whole, _ = text.partition("\n\n")
    lines = first.split("\n")
    if not whole and len(lines) > 1 and not text.endswith("\n"):
        lines.pop()  # a line that was cut: its last flag would be half a word
    rows: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            rows.setdefault(name.strip(), value.strip())
    x86 = "processor" in rows and not _X86.isdisjoint(rows)
    if not x86 and _OTHERS.isdisjoint(rows):
        raise FormatError("/proc/cpuinfo", "no processor in it that has a maker")
    flags = rows.get("flags")
    if flags is not None and not (flags.isascii() and flags.isprintable()):
        # Half of a damaged list is no list: what is not in it may have been.
        raise FormatError("/proc/cpuinfo", "flags are not words")
    sizes = _ADDRESS_SIZES.match(rows.get("address sizes", ""))
    return CpuinfoFacts(
        x86=x86,
        vendor=rows.get("vendor_id"),
        signature=_signature(rows),
        brand=rows.get("model name"),
        flags=frozenset(flags.split()) if flags else None,
        physical_bits=int(sizes[1]) if sizes else None,
    )


def _signature(rows: dict[str, str]) -> Signature | None:
    words = [rows.get(name, "") for name in ("cpu family", "model", "stepping")]
    # The kernel prints "unknown" for a stepping of 0.
    family, model, stepping = (int(word) if _is_number(word) else None for word in words)
    if family is None or model is None:
        return None
    return Signature(family, model, stepping or 0)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 8
