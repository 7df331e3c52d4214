"""Making launch sessions and secret packets: where keys, nonces and IVs are drawn.

A session is for one launch of one guest on one platform. It is made only for a platform whose
chain verified: a session for somebody else's DH key would hand him TEK and TIK. A packet is made
only for a launch whose measurement verified. Sources: 55766 chapter 4.3, 6.2 and 6.6.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.abi.policy import SevPolicy, parse_sev_policy, sev_policy_api
from sevkit.abi.secret_packet import SecretPacket, seal_packet
from sevkit.abi.session import (
    IV_SIZE,
    KEY_SIZE,
    NONCE_SIZE,
    SessionBlob,
    TransportKeys,
    compute_shared_secret,
    encode_godh,
    godh_key,
    seal_session,
)
from sevkit.documents import parse_json
from sevkit.errors import FormatError, InsecureUsage
from sevkit.secret import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from sevkit.attest.sev_launch import VerifiedLaunch
    from sevkit.attest.sev_platform import VerifiedPlatform

SCHEMA: Final = "sevkit.io/session/v1"
_DOCUMENT: Final = "session document"
_DOCUMENT_LIMIT: Final = 1 << 16
_HASHES: Final = ("cek_key_sha256", "session_sha256", "godh_sha256")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@final
@dataclass(frozen=True, slots=True)
class LaunchSession:
    """One session: what the host gets (``blob``, ``godh``) and what the owner keeps (``keys``)."""

    blob: SessionBlob
    godh: bytes
    keys: TransportKeys
    policy: int
    chip: str
    simulated: bool

    @property
    def session_base64(self) -> str:
        """The session as libvirt and KubeVirt take it."""
        return base64.b64encode(self.blob.encode()).decode("ascii")

    @property
    def godh_base64(self) -> str:
        """The guest owner's DH certificate as libvirt (``dhCert``) and KubeVirt take it."""
        return base64.b64encode(self.godh).decode("ascii")

    def describe(self) -> dict[str, Any]:
        """Return the document that tells what the session is for; it holds no key."""
        major, minor = sev_policy_api(self.policy)
        return {
            "schema": SCHEMA,
            "policy": self.policy,
            "flags": [flag.name for flag in parse_sev_policy(self.policy)],
            "min_api": f"{major}.{minor}",
            "cek_key_sha256": self.chip,
            "simulated": self.simulated,
            "session_sha256": hashlib.sha256(self.blob.encode()).hexdigest(),
            "godh_sha256": hashlib.sha256(self.godh).hexdigest(),
        }


@final
@dataclass(frozen=True, slots=True)
class SessionDocument:
    """What a session's document says (``LaunchSession.describe``); the hashes are in hex."""

    policy: int
    chip: str
    simulated: bool
    session_sha256: str
    godh_sha256: str


def parse_session_document(data: bytes) -> SessionDocument:
    """Return what the document of a session says: the owner's own file, read strictly all the same.

    Raises ``FormatError`` for another schema, and for a member that is missing or no such value.
    """
    document = parse_json(data, _DOCUMENT, limit=_DOCUMENT_LIMIT)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise FormatError(_DOCUMENT, f"schema is not {SCHEMA}", hint="made by: sevkit session new")
    policy, simulated = document.get("policy"), document.get("simulated")
    if not isinstance(policy, int) or isinstance(policy, bool):
        raise FormatError(_DOCUMENT, "policy is not a number")
    if not isinstance(simulated, bool):
        raise FormatError(_DOCUMENT, "simulated is not true or false")
    parse_sev_policy(policy)
    hashes = {name: document.get(name) for name in _HASHES}
    for name, value in hashes.items():
        if not isinstance(value, str) or _SHA256.fullmatch(value) is None:
            raise FormatError(_DOCUMENT, f"{name} is not 64 hex digits in lower case")
    chip, session, godh = map(str, hashes.values())
    return SessionDocument(policy, chip, simulated, session, godh)


def check_policy(policy: int, *, allow_debug: bool = False) -> SevPolicy:
    """Return the flags of a guest policy that a session may be made with.

    Without NODBG the host may read the guest's memory through the firmware's debug commands, so
    such a policy is ``InsecureUsage`` unless ``allow_debug``. Raises ``FormatError`` for reserved
    bits (55766 chapter 3).
    """
    flags = parse_sev_policy(policy)
    if SevPolicy.NODBG not in flags and not allow_debug:
        raise InsecureUsage(
            f"guest policy {policy:#x} lets the host debug the guest, so read its memory",
            hint="set bit 0 (1 for SEV, 5 for SEV-ES), or accept it with --allow-debug",
        )
    return flags


def new_session(
    platform: VerifiedPlatform, policy: int, *, allow_debug: bool = False
) -> LaunchSession:
    """Return a fresh session for one launch on ``platform`` under ``policy``.

    Every key and nonce comes from the operating system's generator. Raises as ``check_policy``.
    """
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  # costs 30 ms

    return seal_new_session(
        platform,
        policy,
        private=ec.generate_private_key(ec.SECP384R1()),
        keys=TransportKeys(Secret(os.urandom(KEY_SIZE)), Secret(os.urandom(KEY_SIZE))),
        nonce=os.urandom(NONCE_SIZE),
        iv=os.urandom(IV_SIZE),
        allow_debug=allow_debug,
    )


def seal_new_session(
    platform: VerifiedPlatform,
    policy: int,
    *,
    private: EllipticCurvePrivateKey,
    keys: TransportKeys,
    nonce: bytes,
    iv: bytes,
    allow_debug: bool = False,
) -> LaunchSession:
    """Return the session that these random values give: for known answers; see ``new_session``."""
    check_policy(policy, allow_debug=allow_debug)
    shared = compute_shared_secret(private, godh_key(platform.chain.pdh))
    return LaunchSession(
        seal_session(shared, keys, policy, nonce=nonce, iv=iv),
        encode_godh(private),
        keys,
        policy,
        platform.chip,
        simulated=platform.line is None,
    )


def new_packet(launch: VerifiedLaunch, keys: TransportKeys, table: Secret) -> SecretPacket:
    """Return the packet that injects ``table`` into a verified launch, under a fresh IV.

    Make it once and keep it: a second packet for the same launch is a second ciphertext under one
    TEK. Raises ``FormatError`` as ``seal_packet``.
    """
    return seal_packet(keys, table, measure=launch.measure, iv=os.urandom(IV_SIZE))
