"""The VM save area (VMSA): the 4096-byte page of registers with which a vCPU starts.

Source: AMD64 APM volume 2, Table B-4 (VMSA layout for SEV-ES and SEV-SNP). Segments are flattened
to ``es_selector``, ``es_attrib``, ``es_limit`` and ``es_base``. Bytes that the table leaves
reserved must be zero; so must all from 0x670 on, which no launch that can be measured sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.layout import Field, Layout, integer, raw, zero
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

VMSA_SIZE: Final = 4096
_NAME: Final = "VMSA"

SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs", "gdtr", "ldtr", "idtr", "tr")


@final
class SevFeatures(IntFlag):
    """SEV_FEATURES at 0x3B0 (APM volume 2, Table B-4): what a guest asks of the hardware."""

    SNP_ACTIVE = 1 << 0
    VTOM = 1 << 1
    REFLECT_VC = 1 << 2
    RESTRICTED_INJECTION = 1 << 3
    ALTERNATE_INJECTION = 1 << 4
    DEBUG_SWAP = 1 << 5
    PREVENT_HOST_IBS = 1 << 6
    BTB_ISOLATION = 1 << 7
    VMPL_SSS = 1 << 8
    SECURE_TSC = 1 << 9
    VMGEXIT_PARAMETER = 1 << 10
    IBS_VIRTUALIZATION = 1 << 12
    VMSA_REG_PROT = 1 << 14
    SMT_PROTECTION = 1 << 15


def _segment(index: int, name: str) -> tuple[Field, ...]:
    start = 16 * index
    return (
        integer(start, 2, f"{name}_selector"),
        integer(start + 2, 2, f"{name}_attrib"),
        integer(start + 4, 4, f"{name}_limit"),
        integer(start + 8, 8, f"{name}_base"),
    )


def _quads(start: int, *names: str) -> tuple[Field, ...]:
    return tuple(integer(start + 8 * index, 8, name) for index, name in enumerate(names))


VMSA: Final = Layout(
    _NAME,
    VMSA_SIZE,
    (
        *(row for index, name in enumerate(SEGMENTS) for row in _segment(index, name)),
        *_quads(0x0A0, "vmpl0_ssp", "vmpl1_ssp", "vmpl2_ssp", "vmpl3_ssp", "u_cet"),
        zero(0x0C8, 2),
        integer(0x0CA, 1, "vmpl"),
        integer(0x0CB, 1, "cpl"),
        zero(0x0CC, 4),
        integer(0x0D0, 8, "efer"),
        zero(0x0D8, 0x68),
        *_quads(0x140, "xss", "cr4", "cr3", "cr0", "dr7", "dr6", "rflags", "rip"),
        *_quads(0x180, "dr0", "dr1", "dr2", "dr3"),
        *_quads(0x1A0, "dr0_addr_mask", "dr1_addr_mask", "dr2_addr_mask", "dr3_addr_mask"),
        zero(0x1C0, 0x18),
        *_quads(0x1D8, "rsp", "s_cet", "ssp", "isst_addr", "rax"),
        *_quads(0x200, "star", "lstar", "cstar", "sfmask", "kernel_gs_base"),
        *_quads(0x228, "sysenter_cs", "sysenter_esp", "sysenter_eip", "cr2"),
        zero(0x248, 0x20),
        *_quads(0x268, "g_pat", "dbgctl", "br_from", "br_to", "last_excp_from", "last_excp_to"),
        zero(0x298, 0x50),
        integer(0x2E8, 4, "pkru"),
        integer(0x2EC, 4, "tsc_aux"),
        zero(0x2F0, 0x18),
        *_quads(0x308, "rcx", "rdx", "rbx"),
        zero(0x320, 8),
        *_quads(0x328, "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11"),
        *_quads(0x360, "r12", "r13", "r14", "r15"),
        zero(0x380, 0x10),
        *_quads(0x390, "guest_exit_info_1", "guest_exit_info_2", "guest_exit_int_info"),
        *_quads(0x3A8, "guest_nrip", "sev_features", "vintr_ctrl", "guest_exit_code"),
        *_quads(0x3C8, "virtual_tom", "tlb_id", "pcpu_id", "event_inj", "xcr0"),
        zero(0x3F0, 0x10),
        integer(0x400, 8, "x87_dp"),
        integer(0x408, 4, "mxcsr"),
        integer(0x40C, 2, "x87_ftw"),
        integer(0x40E, 2, "x87_fsw"),
        integer(0x410, 2, "x87_fcw"),
        integer(0x412, 2, "x87_fop"),
        integer(0x414, 2, "x87_ds"),
        integer(0x416, 2, "x87_cs"),
        integer(0x418, 8, "x87_rip"),
        raw(0x420, 0x50, "fpreg_x87"),
        raw(0x470, 0x100, "fpreg_xmm"),
        raw(0x570, 0x100, "fpreg_ymm"),
        zero(0x670, 0x990),
    ),
)

#: Every named field with the value that it has in an all-zero page, in the order of the table.
_ZEROS: Final[Mapping[str, int | bytes]] = MappingProxyType(
    {
        row.name: 0 if row.kind == "int" else bytes(row.size)
        for row in VMSA.fields
        if row.kind in {"int", "bytes"}
    }
)


@final
@dataclass(frozen=True, slots=True)
class Vmsa:
    """A parsed VMSA: each named field's value, in the order of AMD's table."""

    values: Mapping[str, int | bytes]

    def register(self, name: str) -> int:
        """Return an integer field by AMD's name in snake case, such as ``rip``."""
        value = self.values.get(name)
        if not isinstance(value, int):
            raise FormatError(_NAME, f"{name} is no register of this table")
        return value

    @property
    def reset_eip(self) -> int:
        """The address at which the vCPU starts: CS base and RIP together."""
        return self.register("cs_base") + self.register("rip")


def parse_vmsa(data: bytes) -> Vmsa:
    """Return the fields of a 4096-byte VMSA page.

    Source: APM volume 2, Table B-4. Raises ``FormatError`` for another length or a reserved byte
    that is not zero.
    """
    record = VMSA.parse(data)
    found: dict[str, int | bytes] = {
        name: record.int(name) if isinstance(default, int) else record.raw(name)
        for name, default in _ZEROS.items()
    }
    return Vmsa(MappingProxyType(found))


def encode_vmsa(values: Mapping[str, int | bytes]) -> bytes:
    """Return the 4096-byte page with the given fields set and every other one zero.

    Source: APM volume 2, Table B-4. Raises ``FormatError`` for a name that the table does not have
    or a value that does not fit: a misspelt register would otherwise silently stay zero.
    """
    unknown = sorted(values.keys() - _ZEROS.keys())
    if unknown:
        raise FormatError(_NAME, f"{unknown[0]} is no field of this table")
    return VMSA.encode({**_ZEROS, **values})
