"""Small objects in the outer shape of certificates and lists, made without any cryptography."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


def element(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + body


def signed(*inside: bytes) -> bytes:
    return element(
        0x30, element(0x30, *inside), element(0x30, b"\x06\x01\x2a"), element(0x03, b"\x00sig")
    )


@pytest.fixture(scope="session")
def make_certificate() -> Callable[[bytes], bytes]:
    """Return a function that gives something in the shape of a certificate, by its content."""
    return lambda content: signed(element(0x04, content))


@pytest.fixture(scope="session")
def make_crl() -> Callable[..., bytes]:
    """Return a function that gives something in the shape of a revocation list, by its times."""

    def make(*times: bytes) -> bytes:
        elements = [element(0x17 if len(time) == 13 else 0x18, time) for time in times]
        return signed(b"\x02\x01\x01", element(0x30), element(0x30), *elements)

    return make
