from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.idblock import IdBlock, encode_id_auth, parse_id_auth
from sevkit.abi.signature import P384, EcPublicKey
from sevkit.attest.idblock import sign_id_block, verify_id_auth
from sevkit.errors import FormatError, SignatureMismatch

BLOCK = IdBlock(bytes(range(48)))
ID_KEY = ec.generate_private_key(ec.SECP384R1())
AUTHOR = ec.generate_private_key(ec.SECP384R1())


@pytest.mark.parametrize("author", [None, AUTHOR])
def test_what_is_signed_verifies_after_a_round_trip(
    author: ec.EllipticCurvePrivateKey | None,
) -> None:
    auth = parse_id_auth(encode_id_auth(sign_id_block(BLOCK, ID_KEY, author)))
    verify_id_auth(BLOCK, auth)
    assert (auth.author_key is None) is (author is None)


def test_another_block_is_refused() -> None:
    auth = sign_id_block(BLOCK, ID_KEY, None)
    with pytest.raises(SignatureMismatch, match="ID block"):
        verify_id_auth(replace(BLOCK, guest_svn=1), auth)


def test_another_id_key_under_the_authors_signature_is_refused() -> None:
    good = sign_id_block(BLOCK, ID_KEY, AUTHOR)
    other = sign_id_block(BLOCK, AUTHOR, AUTHOR)
    mixed = replace(other, id_key_signature=good.id_key_signature)
    with pytest.raises(SignatureMismatch, match="ID key"):
        verify_id_auth(BLOCK, mixed)


def test_a_key_off_its_curve_is_refused() -> None:
    auth = replace(sign_id_block(BLOCK, ID_KEY, None), id_key=EcPublicKey(P384, 1, 1))
    with pytest.raises(FormatError, match="curve"):
        verify_id_auth(BLOCK, auth)
