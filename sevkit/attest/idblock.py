"""Sign SNP ID blocks, and verify the signatures of one. Source: 56860 chapter 10, tables 75, 76."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.idblock import IdAuth, IdBlock, encode_id_block
from sevkit.abi.signature import (
    EcdsaSignature,
    EcPublicKey,
    encode_public_key,
    public_key_of,
    signature_from_der,
)
from sevkit.errors import SignatureMismatch

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


def sign_id_block(
    block: IdBlock, id_key: EllipticCurvePrivateKey, author_key: EllipticCurvePrivateKey | None
) -> IdAuth:
    """Return the authentication of ``block``: by the ID key, and the ID key's by the author key."""
    algorithm = ec.ECDSA(hashes.SHA384())
    public = public_key_of(id_key.public_key())
    signature = signature_from_der(id_key.sign(encode_id_block(block), algorithm))
    if author_key is None:
        return IdAuth(signature, public)
    endorsement = signature_from_der(author_key.sign(encode_public_key(public), algorithm))
    return IdAuth(signature, public, endorsement, public_key_of(author_key.public_key()))


def verify_id_auth(block: IdBlock, auth: IdAuth) -> None:
    """Verify both signatures of an ID authentication block. Raises ``SignatureMismatch``."""
    _verify(auth.id_key, auth.id_block_signature, encode_id_block(block), "ID block")
    if auth.author_key is not None and auth.id_key_signature is not None:
        body = encode_public_key(auth.id_key)
        _verify(auth.author_key, auth.id_key_signature, body, "ID key")


def _verify(key: EcPublicKey, signature: EcdsaSignature, body: bytes, what: str) -> None:
    try:
        key.load().verify(signature.to_der(), body, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise SignatureMismatch(f"the signature over the {what} does not verify") from error
