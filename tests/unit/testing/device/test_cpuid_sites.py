from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevkit.testing.device.cpuid_sites import find_cpuid_sites

#: Code around CPUID as programs of the field have it, in hexadecimal; objdump named the place.
FOUND = {
    # snphost 0.7.0, rustc
    "31c0 31c9 4889df 0fa2 4887fb 89d6": 7,
    "b807000000 4989db 0fa2 4c87db 4189c8": 8,
    "b901000000 4889db 0fa2 4887db 4589dc": 8,
    "31c9 4989de 0fa2 4c87f3 89c5": 5,
    # cc -O0, <cpuid.h>
    "8b45e4 0fa2 89de 8945f4": 3,
    "b800000000 0fa2 89de 8945ec": 5,
    "ba00000000 89d1 0fa2 89de 8945ec": 7,
    # cc -O2
    "b81f000080 4489e1 0fa2 4189d0 89c6": 8,
    "b801000000 0fa2 89c6 4c89e7": 5,
    "4489e0 0fa2 85c0 7413": 3,
    # Go's internal/cpu
    "8b442408 8b4c240c 0fa2 89442410": 8,
}

NOT_FOUND = {
    "inside a constant": "48b8 00000fa289c60000 4889d8",
    "the constant of a move to EAX": "b8 00000fa2 89de 8945f4",
    "a displacement": "488b05 310fa200 89c6",
    "RBX kept in one register and restored from another": "4889df 0fa2 4887f3 89d6",
    "a leaf that is none": "b878563412 0fa2 89de",
    "after something unknown": "4883ec08 0fa2 4189d0",
    "before something unknown": "b801000000 0fa2 ffff",
    "a leaf in a 64-bit constant": "48b81f000080 0fa2 89de",
    "at the very start": "0fa2 89de 8945f4",
    "at the very end": "b801000000 0fa2",
    "cut off": "4889df 0f",
}


@pytest.mark.parametrize(("code", "at"), FOUND.items(), ids=FOUND)
def test_cpuid_is_found_where_compilers_put_it(code: str, at: int) -> None:
    data = bytes.fromhex(code)
    assert find_cpuid_sites(data) == (at,)
    assert find_cpuid_sites(b"\x90" * 16 + data + b"\x90" * 16 + data) == (
        at + 16,
        at + 32 + len(data),
    )


@pytest.mark.parametrize("code", NOT_FOUND.values(), ids=NOT_FOUND)
def test_the_same_bytes_elsewhere_are_left_alone(code: str) -> None:
    assert find_cpuid_sites(bytes.fromhex(code)) == ()


@given(st.binary(max_size=200))
def test_every_place_found_is_one(code: bytes) -> None:
    for at in find_cpuid_sites(b"\x0f\xa2".join([code, b"\x89\xc6", code])):
        assert at >= 2
