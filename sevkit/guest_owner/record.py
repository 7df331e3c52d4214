"""What is kept of one launch between a crash and the next start: one JSON document; pure.

``sevkit.io/launch-record/v1``. A session has its keys in it until the secret packet is made; then
they are dropped, because only the packet is ever needed again. A record that is not whole, or not
of this shape, is refused: half a session is none. Nothing of its contents is quoted in an error.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.policy import parse_sev_policy
from sevkit.abi.secret_packet import MAX_TABLE_SIZE, SecretPacket
from sevkit.abi.session import KEY_SIZE, TransportKeys, parse_session
from sevkit.attest.sev_session import LaunchSession
from sevkit.documents import parse_json
from sevkit.errors import FormatError, InternalError
from sevkit.guest_owner.terms import Outcome, Stage
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.documents import Json

SCHEMA: Final = "sevkit.io/launch-record/v1"
#: Largest record, in bytes: a packet of 16 KiB, and a verdict beside it.
RECORD_LIMIT: Final = 512 << 10
STRUCTURE: Final = "launch record"
_GODH_SIZE: Final = 2084
_HEADER_SIZE: Final = 52
_LONGEST: Final = 256
_HINT: Final = "it is of no use any more: move it away; the VMI it was for has to be started again"


@final
@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of the launch of the VMI ``uid``.

    ``session`` is there in stage SESSION only, ``packet`` in PACKET only, ``outcome`` in ENDED
    only. ``report`` is what was found out so far, as ``sevkit.guest_owner.report`` writes it.
    """

    uid: str
    namespace: str
    name: str
    stage: Stage
    session: LaunchSession | None = None
    packet: SecretPacket | None = None
    outcome: Outcome | None = None
    report: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        holds = (self.session is not None, self.packet is not None, self.outcome is not None)
        wanted = tuple(self.stage is stage for stage in (Stage.SESSION, Stage.PACKET, Stage.ENDED))
        if self.stage is Stage.NOTHING or holds != wanted:
            raise InternalError(f"a record in stage {self.stage} with other parts than it has")

    def with_packet(self, packet: SecretPacket, report: Mapping[str, Json]) -> Record:
        """Return the record with the packet in place of the session and its keys."""
        self._require(Stage.SESSION)
        return replace(self, stage=Stage.PACKET, session=None, packet=packet, report=report)

    def injected(self, report: Mapping[str, Json]) -> Record:
        """Return the record of a launch that has its secret."""
        self._require(Stage.PACKET)
        return replace(self, stage=Stage.INJECTED, packet=None, report=report)

    @classmethod
    def over(cls, uid: str, namespace: str, name: str, outcome: Outcome) -> Record:
        """Return the record that says that a launch is over; nothing is left of its keys."""
        return cls(uid, namespace, name, Stage.ENDED, outcome=outcome)

    def _require(self, stage: Stage) -> None:
        if self.stage is not stage:
            raise InternalError(f"a record in stage {self.stage}, not {stage}")


def encode_record(record: Record) -> Secret:
    """Return the document; it may hold keys."""
    document: dict[str, Json] = {
        "schema": SCHEMA,
        "uid": record.uid,
        "namespace": record.namespace,
        "name": record.name,
        "stage": record.stage.value,
        "report": dict(record.report),
    }
    if record.session is not None:
        document["session"] = _encode_session(record.session)
    if record.packet is not None:
        document["packet"] = {
            "header": _base64(record.packet.header),
            "ciphertext": _base64(record.packet.ciphertext),
        }
    if record.outcome is not None:
        document["outcome"] = record.outcome.value
    return Secret(json.dumps(document).encode())


def _encode_session(session: LaunchSession) -> dict[str, Json]:
    return {
        "blob": _base64(session.blob.encode()),
        "godh": _base64(session.godh),
        "tek": _base64(session.keys.tek.reveal()),
        "tik": _base64(session.keys.tik.reveal()),
        "policy": session.policy,
        "chip": session.chip,
        "simulated": session.simulated,
    }


def parse_record(data: Secret) -> Record:
    """Return the record in a document. Raises ``FormatError``, which quotes nothing of it."""
    try:
        document = parse_json(data.reveal(), STRUCTURE, limit=RECORD_LIMIT)
    except FormatError:
        # Without its cause: what could not be parsed may be half a key.
        raise _malformed("is not one whole JSON document") from None
    rows = _mapping(document, "the document")
    if rows.get("schema") != SCHEMA:
        raise _malformed(f"schema is not {SCHEMA}")
    try:
        stage = Stage(_text(rows, "stage"))
    except ValueError:
        raise _malformed("stage is not known") from None
    parts = {Stage.SESSION: {"session"}, Stage.PACKET: {"packet"}, Stage.ENDED: {"outcome"}}
    wanted = {"schema", "uid", "namespace", "name", "stage", "report"} | parts.get(stage, set())
    if set(rows) != wanted or stage is Stage.NOTHING:
        raise _malformed(f"has other keys than a record in stage {stage}")
    uid, namespace, name = (_text(rows, key) for key in ("uid", "namespace", "name"))
    return Record(
        uid,
        namespace,
        name,
        stage,
        _session(rows["session"]) if stage is Stage.SESSION else None,
        _packet(rows["packet"]) if stage is Stage.PACKET else None,
        _outcome(rows) if stage is Stage.ENDED else None,
        _mapping(rows["report"], "report"),
    )


def _session(value: Json) -> LaunchSession:
    rows = _mapping(value, "session")
    policy, simulated = rows.get("policy"), rows.get("simulated")
    if isinstance(policy, bool) or not isinstance(policy, int):
        raise _malformed("session.policy is not a number")
    if not isinstance(simulated, bool):
        raise _malformed("session.simulated is not true or false")
    parse_sev_policy(policy)
    keys = TransportKeys(
        Secret(_bytes(rows, "tek", KEY_SIZE)), Secret(_bytes(rows, "tik", KEY_SIZE))
    )
    return LaunchSession(
        parse_session(_bytes(rows, "blob", 128)),
        _bytes(rows, "godh", _GODH_SIZE),
        keys,
        policy,
        _text(rows, "chip"),
        simulated,
    )


def _packet(value: Json) -> SecretPacket:
    rows = _mapping(value, "packet")
    ciphertext = _bytes(rows, "ciphertext", None)
    if not 0 < len(ciphertext) <= MAX_TABLE_SIZE or len(ciphertext) % 16:
        raise _malformed("packet.ciphertext has a size that no packet has")
    return SecretPacket(_bytes(rows, "header", _HEADER_SIZE), ciphertext)


def _outcome(rows: Mapping[str, Json]) -> Outcome:
    try:
        return Outcome(_text(rows, "outcome"))
    except ValueError:
        raise _malformed("outcome is not known") from None


def _mapping(value: Json, what: str) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise _malformed(f"{what} is not a mapping")
    return value


def _text(rows: Mapping[str, Json], key: str) -> str:
    value = rows.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
        raise _malformed(f"{key} is not a text of 1 to {_LONGEST} characters")
    return value


def _bytes(rows: Mapping[str, Json], key: str, size: int | None) -> bytes:
    value = rows.get(key)
    try:
        data = base64.b64decode(value if isinstance(value, str) else "!", validate=True)
    except (binascii.Error, ValueError):
        raise _malformed(f"{key} is not base64") from None
    if size is not None and len(data) != size:
        raise _malformed(f"{key} has not {size} bytes")
    return data


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _malformed(message: str) -> FormatError:
    return FormatError(STRUCTURE, message, hint=_HINT)
