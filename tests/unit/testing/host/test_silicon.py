from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.product import Product, product_from_model
from sevkit.testing.host import silicon
from sevkit.testing.host.cpuinfo import brand, signature
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.spec import MEMORY_ENCRYPTION, NOTHING, Registers

if TYPE_CHECKING:
    from pathlib import Path

ROW = re.compile(
    r"<cpuid eax_in='(\w+)' ecx_in='(\w+)' eax='(\w+)' ebx='(\w+)' ecx='(\w+)' edx='(\w+)'/>"
)


@pytest.mark.parametrize(
    ("preset", "dump", "leaves"),
    [
        ("naples", "x86_64-cpuid-EPYC-7601-32-Core.xml", 51),
        ("rome", "x86_64-cpuid-EPYC-7502-32-Core.xml", 62),
    ],
)
def test_every_leaf_is_what_the_real_cpu_answers(
    corpus: Path, preset: str, dump: str, leaves: int
) -> None:
    spec = PRESETS[preset]
    rows = ROW.findall((corpus / "node/libvirt-11.3.0" / dump).read_text())
    assert len(rows) == leaves
    for leaf, subleaf, *registers in rows:
        expected = Registers(*(int(value, 16) for value in registers))
        assert spec.cpuid(int(leaf, 16), int(subleaf, 16)) == expected, leaf


def test_memory_encryption_of_naples_rome_and_milan_is_the_real_one() -> None:
    assert PRESETS["naples"].cpuid(MEMORY_ENCRYPTION) == (0xF, 0x16F, 15, 1)
    assert PRESETS["rome"].cpuid(MEMORY_ENCRYPTION) == (0x1000F, 0x16F, 509, 1)
    assert PRESETS["milan"].cpuid(MEMORY_ENCRYPTION) == (0x101FD3F, 0x4173, 509, 128)


@pytest.mark.parametrize(
    ("leaves", "product", "name"),
    [
        (silicon.NAPLES, Product.NAPLES, "AMD EPYC 7601 32-Core Processor"),
        (silicon.ROME, Product.ROME, "AMD EPYC 7502 32-Core Processor"),
        (silicon.MILAN, Product.MILAN, "AMD EPYC 7413 24-Core Processor"),
        (silicon.GENOA, Product.GENOA, "AMD EPYC 9224 24-Core Processor"),
        (silicon.BERGAMO, Product.BERGAMO_OR_SIENA, "AMD EPYC 9754 128-Core Processor"),
        (silicon.SIENA, Product.BERGAMO_OR_SIENA, "AMD EPYC 8324P 32-Core Processor"),
        (silicon.TURIN, Product.TURIN, "AMD EPYC 9575F 64-Core Processor"),
        (silicon.TURIN_DENSE, Product.TURIN_DENSE, "AMD EPYC 9965 192-Core Processor"),
    ],
)
def test_every_epyc_has_its_signature_twice_and_its_name(
    leaves: silicon.Leaves, product: Product, name: str
) -> None:
    spec = replace(PRESETS["genoa"], cpu=replace(PRESETS["genoa"].cpu, leaves=leaves))
    family, model, _ = signature(spec.cpuid(1).eax)
    assert product_from_model(family, model) is product
    assert spec.cpuid(0x80000001).eax == spec.cpuid(1).eax
    assert brand(spec) == name
    assert spec.cpuid(0x80000000).eax >= MEMORY_ENCRYPTION


def test_bergamo_and_siena_differ_by_their_package() -> None:
    packages = [leaves[0x80000001, 0].ebx >> 28 for leaves in (silicon.BERGAMO, silicon.SIENA)]
    assert packages == [4, 8]


def test_a_guest_has_a_hypervisor_and_no_memory_encryption() -> None:
    spec = PRESETS["virtual-machine"]
    assert spec.cpuid(1).ecx & silicon.HYPERVISOR
    assert not PRESETS["genoa"].cpuid(1).ecx & silicon.HYPERVISOR
    assert spec.cpuid(MEMORY_ENCRYPTION) == NOTHING
    found = spec.cpuid(0x40000000)
    words = b"".join(word.to_bytes(4, "little") for word in found[1:])
    assert words == b"KVMKVMKVM\0\0\0"


def test_a_brand_string_is_padded_and_ended_by_a_nul() -> None:
    found = silicon.with_changes({}, "", brand="AMD EPYC")
    words = [word for i in range(3) for word in found[0x80000002 + i, 0]]
    data = b"".join(word.to_bytes(4, "little") for word in words)
    assert data == b"AMD EPYC".ljust(47) + b"\0"
