"""Room for guests, and what others say of this host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.host.capability import State
from sevkit.host.doctor.check import (
    ENCRYPTED_STATE,
    ES,
    NONE,
    SEV,
    SNP,
    Check,
    Found,
    Verdict,
    hint_of,
    why_not,
)
from sevkit.host.reading import value_of
from sevkit.host.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sevkit.host.doctor.check import Patient
    from sevkit.host.facts import HostFacts


def _some(count: int | None) -> Found:
    if count is None:
        return Found(Verdict.SKIP, detail="neither CPUID nor the misc controller was read")
    return Found(Verdict.PASS if count else Verdict.FAIL, str(count))


def _free(p: Patient) -> Found:
    rows = ((SEV.spelling, p.found.sev_asids), ("SEV-ES and SEV-SNP", p.found.encrypted_state))
    words = [
        f"{name} {asids.free} of {asids.total}" for name, asids in rows if asids.free is not None
    ]
    if not words:
        return Found(Verdict.SKIP, detail=why_not(p.facts.misc.current))
    full = [name for name, asids in rows if asids.free == 0 and asids.total]
    text = "; ".join(words)
    return (
        Found(Verdict.WARN, text, f"no room: {', '.join(full)}")
        if full
        else Found(Verdict.PASS, text)
    )


def _hiding(p: Patient) -> Found:
    asids = value_of(p.facts.modules.ciphertext_hiding_asids)
    if asids is None:
        return Found(Verdict.SKIP, detail="this kernel has no ciphertext hiding")
    return Found(Verdict.PASS, f"{asids} ASIDs for SEV-SNP alone" if asids else "off")


def _beside(p: Patient) -> Found:
    if p.found.snp_initialized is not True:
        return Found(Verdict.SKIP, detail="SEV-SNP is not initialised")
    es = p.found.sev_es
    verdict = Verdict.PASS if es.state is State.USABLE else Verdict.FAIL
    return Found(verdict, es.reason.value, "" if verdict is Verdict.PASS else es.explanation)


def _memlock(p: Patient) -> Found:
    if p.memlock is None:
        return Found(Verdict.SKIP, detail="of this process; the host is a copy")
    words = ["unlimited" if one == _LOCKED else str(one) for one in p.memlock]
    return Found(Verdict.PASS, f"soft {words[0]}, hard {words[1]}")


def _libvirt(p: Patient) -> Found:
    said = value_of(p.facts.domain_capabilities)
    if said is None:
        return Found(Verdict.SKIP, detail=why_not(p.facts.domain_capabilities))
    names = set(said.launch_security or ())
    claims = {SEV: said.sev is not None and said.sev.supported, SNP: "sev-snp" in names}
    lies = [
        technology.spelling
        for technology, claimed in claims.items()
        if claimed and p.found.of(technology).state.label is False
    ]
    shown = ", ".join(sorted(names)) or "none"
    if lies:
        return Found(Verdict.WARN, shown, f"libvirt offers what cannot run: {', '.join(lies)}")
    return Found(Verdict.PASS, shown)


def _libvirt_c_bit(p: Patient) -> Found:
    """Hold libvirt's C-bit against the processor's: a guest with another one does not start."""
    said = sorted(set(_libvirt_c_bits(p.facts)))
    if not said:
        return Found(Verdict.SKIP, detail="libvirt was not asked, or does not say")
    if p.found.c_bit is None:
        return Found(Verdict.SKIP, detail=why_not(p.facts.cpuid))
    shown = ", ".join(map(str, said))
    if said != [p.found.c_bit]:
        return Found(Verdict.WARN, shown, f"CPUID has {p.found.c_bit}")
    return Found(Verdict.PASS, shown)


def _libvirt_c_bits(facts: HostFacts) -> Iterator[int]:
    said, node = value_of(facts.domain_capabilities), value_of(facts.node_sev)
    # Of guests without KVM it means nothing.
    sev = None if said is None or said.virt_type == "qemu" else said.sev
    if sev is not None and sev.cbitpos is not None:
        yield sev.cbitpos
    if node is not None:
        yield node.c_bit


_LOCKED: Final = -1
CAPACITY: Final[tuple[Check, ...]] = (
    Check(
        "asids.sev",
        "there are ASIDs for SEV",
        frozenset({SEV}),
        lambda p: _some(p.found.sev_asids.total),
        hint_of(Reason.NO_SEV_ASIDS),
        "cpu.sev",
        source="misc.capacity; CPUID Fn8000_001F ECX and EDX",
    ),
    Check(
        "asids.encrypted-state",
        "there are ASIDs for SEV-ES and SEV-SNP",
        ENCRYPTED_STATE,
        lambda p: _some(p.found.encrypted_state.total),
        hint_of(Reason.NO_ENCRYPTED_STATE_ASIDS),
        "cpu.sev-es",
        source="misc.capacity; CPUID Fn8000_001F EDX",
    ),
    Check(
        "asids.ciphertext-hiding",
        "how many ASIDs SEV-SNP has alone",
        NONE,
        _hiding,
        "",
        "cpu.sev-snp",
        source="/sys/module/kvm_amd/parameters/ciphertext_hiding_asids",
    ),
    Check(
        "asids.free",
        "there is room for more guests",
        NONE,
        _free,
        "stop a guest, or use another node",
        "cpu.sev",
        source="misc.capacity; misc.current",
    ),
    Check(
        "sev-es.beside-snp",
        "SEV-ES guests can run beside SEV-SNP",
        frozenset({ES}),
        _beside,
        "run the guest with SEV-SNP instead",
        "cpu.sev-es",
        source="SNP_PLATFORM_STATUS CURRENT_TCB against AMD-SB-3023; KVM",
    ),
    Check(
        "process.memlock",
        "how much memory may be locked",
        NONE,
        _memlock,
        snphost="Memlock resource limit",
        sevctl="Memlock resource limit",
        source="getrlimit(2)",
    ),
    Check(
        "libvirt.launch-security",
        "libvirt offers what can run",
        NONE,
        _libvirt,
        "do not schedule by libvirt's word: it tells what QEMU has",
        source="domain capabilities: launchSecurity and sev",
    ),
    Check(
        "libvirt.c-bit",
        "libvirt has this processor's C-bit",
        NONE,
        _libvirt_c_bit,
        "ask this host's own libvirt; if it is, remove /var/cache/libvirt/qemu and restart it",
        source="domain capabilities and node SEV info against CPUID Fn8000_001F EBX",
    ),
)
