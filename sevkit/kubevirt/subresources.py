"""What KubeVirt's SEV subresources say and take: four small JSON documents, read strictly.

``fetchcertchain`` answers SEVPlatformInfo, ``querylaunchmeasurement`` SEVMeasurementInfo;
``setupsession`` takes SEVSessionOptions and ``injectlaunchsecret`` SEVSecretOptions. Every field
is left out by KubeVirt where it is empty or 0, so an absent number is 0. All of it is the host's
word, authentic only once a signature or an HMAC over it was checked; ``loaderSHA`` never is.

Source: kubevirt.io/api/core/v1 types and their OpenAPI schema (Go ``uint`` for the numbers).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.sevchain import parse_parts
from sevkit.documents import parse_json
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sevkit.abi.sevchain import PlatformChain

#: Largest document that is read, in bytes: both kinds have less than 12,000.
MAX_DOCUMENT: Final = 1 << 16
MEASUREMENT_SIZE: Final = 48
_LOADER_HEX: Final = 64

#: Numbers of SEVMeasurementInfo and the largest value that the firmware's fields hold.
_NUMBERS: Final = {"apiMajor": 0xFF, "apiMinor": 0xFF, "buildID": 0xFF, "policy": 0xFFFFFFFF}


@final
@dataclass(frozen=True, slots=True)
class MeasurementInfo:
    """SEVMeasurementInfo: the 48-byte launch measurement and what the host says beside it.

    ``loader_sha`` is lower-case hex, or empty where the host says nothing.
    """

    measurement: bytes
    api_major: int
    api_minor: int
    build_id: int
    policy: int
    loader_sha: str


def parse_measurement_info(data: bytes) -> MeasurementInfo:
    """Return the measurement in a SEVMeasurementInfo document. Raises ``FormatError``."""
    name = "SEVMeasurementInfo"
    document = _document(data, name)
    numbers = {
        key: _number(document, key, limit, structure=name) for key, limit in _NUMBERS.items()
    }
    measurement = _base64(document, "measurement", structure=name)
    if len(measurement) != MEASUREMENT_SIZE:
        raise FormatError(
            name, f"measurement: expected {MEASUREMENT_SIZE} bytes, got {len(measurement)}"
        )
    loader = _text(document, "loaderSHA", structure=name).lower()
    if loader and (len(loader) != _LOADER_HEX or not set(loader) <= set("0123456789abcdef")):
        raise FormatError(name, "loaderSHA: expected 64 hex digits")
    return MeasurementInfo(
        measurement,
        numbers["apiMajor"],
        numbers["apiMinor"],
        numbers["buildID"],
        numbers["policy"],
        loader,
    )


def parse_platform_info(data: bytes) -> PlatformChain:
    """Return the certificate chain in a SEVPlatformInfo document. Raises ``FormatError``.

    ``certChain`` is pek ‖ oca ‖ cek, as QEMU's ``query-sev-capabilities`` gives it.
    """
    name = "SEVPlatformInfo"
    document = _document(data, name)
    return parse_parts(
        _base64(document, "pdh", structure=name), _base64(document, "certChain", structure=name)
    )


def encode_session_options(session: bytes, godh: bytes) -> dict[str, str]:
    """Return SEVSessionOptions for a session blob (128 bytes) and the owner's DH certificate.

    ``setupsession`` looks only whether the fields are there, and a VMI takes one session, so sizes
    are checked here, before the one attempt. Raises ``FormatError``.
    """
    for field, value, size in (("session", session, 128), ("dhCert", godh, 2084)):
        if len(value) != size:
            raise FormatError("SEVSessionOptions", f"{field}: expected {size} bytes")
    return {"session": _encode(session), "dhCert": _encode(godh)}


def encode_secret_options(header: bytes, secret: bytes) -> dict[str, str]:
    """Return SEVSecretOptions for a packet's header (52 bytes) and ciphertext.

    KubeVirt forwards an empty secret to the host instead of refusing it, so it is refused here.
    Raises ``FormatError``.
    """
    if len(header) != 52:
        raise FormatError("SEVSecretOptions", "header: expected 52 bytes")
    if not secret or len(secret) % 16:
        raise FormatError("SEVSecretOptions", "secret: expected a multiple of 16 bytes")
    return {"header": _encode(header), "secret": _encode(secret)}


def _document(data: bytes, name: str) -> Mapping[str, object]:
    document = parse_json(data, name, limit=MAX_DOCUMENT)
    if not isinstance(document, dict):
        raise FormatError(name, "is not a JSON object")
    return document


def _number(document: Mapping[str, object], key: str, limit: int, *, structure: str) -> int:
    value = document.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(structure, f"{key}: expected an integer")
    if not 0 <= value <= limit:
        raise FormatError(structure, f"{key}: expected 0 to {limit}")
    return value


def _text(document: Mapping[str, object], key: str, *, structure: str) -> str:
    value = document.get(key, "")
    if not isinstance(value, str):
        raise FormatError(structure, f"{key}: expected a string")
    return value


def _base64(document: Mapping[str, object], key: str, *, structure: str) -> bytes:
    text = _text(document, key, structure=structure)
    try:
        decoded = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(structure, f"{key}: is not base64") from error
    if _encode(decoded) != text:
        raise FormatError(structure, f"{key}: is not canonical base64")
    return decoded


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
