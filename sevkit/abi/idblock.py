"""The SNP ID block and its authentication: what the guest owner signs before a launch.

Source: 56860 tables 75 and 76 (ID_BLOCK, ID_AUTH), chapter 10 (key and signature formats). The
firmware compares the launch digest with the ID block's at SNP_LAUNCH_FINISH, and reports
SHA-384 digests of the 1028-byte public keys as ID_KEY_DIGEST and AUTHOR_KEY_DIGEST.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, final

from sevkit.abi.layout import Layout, integer, raw, zero
from sevkit.abi.policy import SNP_POLICY_DEFAULT, parse_snp_policy
from sevkit.abi.signature import (
    P384,
    EcdsaSignature,
    EcPublicKey,
    encode_public_key,
    encode_signature,
    parse_public_key,
    parse_signature,
)
from sevkit.errors import FormatError

ALGO_NONE: Final = 0
ALGO_ECDSA_P384_SHA384: Final = 1
VERSION: Final = 1

BLOCK: Final = Layout(
    "ID block",
    96,
    (
        raw(0x00, 48, "launch_digest"),
        raw(0x30, 16, "family_id"),
        raw(0x40, 16, "image_id"),
        integer(0x50, 4, "version"),
        integer(0x54, 4, "guest_svn"),
        integer(0x58, 8, "policy"),
    ),
)

AUTH: Final = Layout(
    "ID authentication block",
    4096,
    (
        integer(0x000, 4, "id_key_algo"),
        integer(0x004, 4, "author_key_algo"),
        zero(0x008, 56),
        raw(0x040, 512, "id_block_signature"),
        raw(0x240, 1028, "id_key"),
        zero(0x644, 60),
        raw(0x680, 512, "id_key_signature"),
        raw(0x880, 1028, "author_key"),
        zero(0xC84, 892),
    ),
)


@final
@dataclass(frozen=True, slots=True)
class IdBlock:
    """What the owner says about the guest: digest (48 bytes), IDs (16 bytes each), SVN, policy."""

    launch_digest: bytes
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    guest_svn: int = 0
    policy: int = SNP_POLICY_DEFAULT


@final
@dataclass(frozen=True, slots=True)
class IdAuth:
    """Signatures and keys that stand behind an ID block; the author's are optional."""

    id_block_signature: EcdsaSignature
    id_key: EcPublicKey
    id_key_signature: EcdsaSignature | None = None
    author_key: EcPublicKey | None = None


def parse_id_block(data: bytes) -> IdBlock:
    """Return the ID block in exactly 96 bytes. Raises ``FormatError``."""
    record = BLOCK.parse(data)
    if record.int("version") != VERSION:
        raise FormatError(BLOCK.name, f"version {record.int('version')} is not 1", offset=0x50)
    parse_snp_policy(record.int("policy"), structure=BLOCK.name, offset=0x58)
    return IdBlock(
        record.raw("launch_digest"),
        record.raw("family_id"),
        record.raw("image_id"),
        record.int("guest_svn"),
        record.int("policy"),
    )


def encode_id_block(block: IdBlock) -> bytes:
    """Return 96 bytes: what the ID key signs. Refuses a policy that the firmware would refuse."""
    parse_snp_policy(block.policy, structure=BLOCK.name, offset=0x58)
    return BLOCK.encode(
        {
            "launch_digest": block.launch_digest,
            "family_id": block.family_id,
            "image_id": block.image_id,
            "version": VERSION,
            "guest_svn": block.guest_svn,
            "policy": block.policy,
        }
    )


def parse_id_auth(data: bytes) -> IdAuth:
    """Return the ID authentication block in exactly 4096 bytes. Raises ``FormatError``."""
    record = AUTH.parse(data)
    if record.int("id_key_algo") != ALGO_ECDSA_P384_SHA384:
        raise FormatError(AUTH.name, "ID key algorithm is not 1 (ECDSA P-384)", offset=0)
    author_algo = record.int("author_key_algo")
    signature = parse_signature(record.raw("id_block_signature"), structure=AUTH.name, offset=0x40)
    id_key = _key(record.raw("id_key"), 0x240)
    if author_algo == ALGO_NONE:
        if any(record.raw("id_key_signature")) or any(record.raw("author_key")):
            raise FormatError(AUTH.name, "an author key is given, but not announced", offset=4)
        return IdAuth(signature, id_key)
    if author_algo != ALGO_ECDSA_P384_SHA384:
        raise FormatError(AUTH.name, f"author key algorithm {author_algo} is not known", offset=4)
    return IdAuth(
        signature,
        id_key,
        parse_signature(record.raw("id_key_signature"), structure=AUTH.name, offset=0x680),
        _key(record.raw("author_key"), 0x880),
    )


def _key(data: bytes, offset: int) -> EcPublicKey:
    key = parse_public_key(data, structure=AUTH.name, offset=offset)
    if key.curve != P384:
        raise FormatError(AUTH.name, "the key is not on P-384", offset=offset)
    return key


def encode_id_auth(auth: IdAuth) -> bytes:
    """Return 4096 bytes."""
    has_author = auth.author_key is not None and auth.id_key_signature is not None
    return AUTH.encode(
        {
            "id_key_algo": ALGO_ECDSA_P384_SHA384,
            "author_key_algo": ALGO_ECDSA_P384_SHA384 if has_author else ALGO_NONE,
            "id_block_signature": encode_signature(auth.id_block_signature),
            "id_key": encode_public_key(auth.id_key),
            "id_key_signature": encode_signature(auth.id_key_signature)
            if auth.id_key_signature is not None
            else bytes(512),
            "author_key": encode_public_key(auth.author_key)
            if auth.author_key is not None
            else bytes(1028),
        }
    )


def compute_key_digest(key: EcPublicKey) -> bytes:
    """Return the 48-byte SHA-384 that a report shows as ID_KEY_DIGEST or AUTHOR_KEY_DIGEST."""
    return hashlib.sha384(encode_public_key(key)).digest()
