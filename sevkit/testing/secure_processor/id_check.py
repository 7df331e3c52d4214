"""What SNP_LAUNCH_FINISH makes of an ID block and its authentication.

Source: 56860 8.18 (SNP_LAUNCH_FINISH) and tables 75 and 76. The firmware compares digest and policy
before it looks at any key, knows one algorithm, and looks neither at the block's version nor at
reserved bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.idblock import ALGO_ECDSA_P384_SHA384, AUTH, BLOCK, compute_key_digest
from sevkit.abi.signature import P384, EcPublicKey, parse_public_key, parse_signature
from sevkit.errors import FormatError

_COMMAND: Final = "SNP_LAUNCH_FINISH"


@final
@dataclass(frozen=True, slots=True)
class GuestIdentity:
    """What reports say of the guest from its ID block on; all zero without one."""

    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    guest_svn: int = 0
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)


def check_id_block(
    id_block: bytes, id_auth: bytes, *, digest: bytes, policy: int, author_key: bool
) -> GuestIdentity:
    """Return the identity that an ID block (96 bytes) gives a guest of this digest and policy.

    ``id_auth`` has 4096 bytes; ``author_key`` says whether it is to prove an author key too.
    Raises ``CommandError``.
    """
    if len(id_block) != BLOCK.size or len(id_auth) != AUTH.size:
        raise CommandError(_COMMAND, FirmwareStatus.INVALID_PARAM, "sizes")
    block = BLOCK.parse(id_block)
    auth = AUTH.parse(id_auth, check_reserved=False)
    if block.raw("launch_digest") != digest:
        raise CommandError(_COMMAND, FirmwareStatus.BAD_MEASUREMENT)
    if block.int("policy") != policy:
        raise CommandError(_COMMAND, FirmwareStatus.POLICY_FAILURE)
    algorithms = [auth.int("id_key_algo")] + [auth.int("author_key_algo")] * author_key
    if any(algorithm != ALGO_ECDSA_P384_SHA384 for algorithm in algorithms):
        raise CommandError(_COMMAND, FirmwareStatus.INVALID_PARAM, "algorithm")
    id_key = _verify(auth.raw("id_key"), auth.raw("id_block_signature"), id_block)
    author_digest = bytes(48)
    if author_key:
        author = _verify(auth.raw("author_key"), auth.raw("id_key_signature"), auth.raw("id_key"))
        author_digest = compute_key_digest(author)
    return GuestIdentity(
        block.raw("family_id"),
        block.raw("image_id"),
        block.int("guest_svn"),
        compute_key_digest(id_key),
        author_digest,
    )


def _verify(key: bytes, signature: bytes, body: bytes) -> EcPublicKey:
    try:
        public = parse_public_key(key)
        if public.curve != P384:
            raise CommandError(_COMMAND, FirmwareStatus.BAD_SIGNATURE, "not a key on P-384")
        der = parse_signature(signature).to_der()
        public.load().verify(der, body, ec.ECDSA(hashes.SHA384()))
    except (FormatError, InvalidSignature) as error:
        raise CommandError(_COMMAND, FirmwareStatus.BAD_SIGNATURE) from error
    return public
