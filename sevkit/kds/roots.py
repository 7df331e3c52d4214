"""AMD's roots, bundled and pinned: the only certificates that sevkit trusts without being told.

The pins stand in the code and the certificates in ``data/``, so that neither a bad download nor a
changed file becomes a root: data that does not match its pin is never returned. Pins are SHA-256
of the DER (X.509, SEV-SNP) or of the whole certificate (55766 appendix B.1, SEV and SEV-ES).
"""

from __future__ import annotations

import hashlib
import hmac
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sevkit.abi.product import ProductLine
from sevkit.errors import FormatError, InternalError
from sevkit.kds.encoding import parse_pem_certificates

if TYPE_CHECKING:
    from collections.abc import Mapping

#: AMD root keys of SEV-SNP, by line (57230 1.3).
SNP_ARK_SHA256: Final[Mapping[ProductLine, str]] = MappingProxyType(
    {
        ProductLine.MILAN: "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
        ProductLine.GENOA: "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
        ProductLine.TURIN: "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
    }
)
#: The bundled ASKs, which sign VCEKs. Others that the ARK signed are as good: no trust hangs here.
SNP_ASK_SHA256: Final[Mapping[ProductLine, str]] = MappingProxyType(
    {
        ProductLine.MILAN: "67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b",
        ProductLine.GENOA: "5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521",
        ProductLine.TURIN: "5b77ef5fe7a7a004fd9032668fba9d0fda22f88c4442069a479636a6ae3b3185",
    }
)
#: The bundled ASVKs, which sign VLEKs.
SNP_ASVK_SHA256: Final[Mapping[ProductLine, str]] = MappingProxyType(
    {
        ProductLine.MILAN: "c5e081f59b7efab1fe2f8b505e159704e72f29cab7ef7cf628a05a42439082f5",
        ProductLine.GENOA: "197e610743a917d6b9bb982a5a9226ccc0a15b611be0619e626aca9151457372",
        ProductLine.TURIN: "104e10a8bd060a3c20a434261a57d0588fd65a88915b4f65b08bdecaf8df1a3c",
    }
)
#: AMD root keys of SEV and SEV-ES, by line.
SEV_ARK_SHA256: Final[Mapping[ProductLine, str]] = MappingProxyType(
    {
        ProductLine.NAPLES: "dedabca561e1dece8cc00b7bda864cf5f20b95017864408cfe18eaee0dce24b9",
        ProductLine.ROME: "865977b268c16d5b27772b00aaefb4e737ba9499e818ed8e9f65b0cecefbc529",
        ProductLine.MILAN: "1246469862b78a7a8625579b0378d1f8e975eb8b82a1623b579d7968a5969888",
        ProductLine.GENOA: "8f4e3fd36589c23f1fe0c8338465bac7e2e066d97fc92f228bbee4fd356fb674",
        ProductLine.TURIN: "f6405e5096a6eee1eb7d5df75c49f9b9f7c8357a31c7fff150149d68588a7bf7",
    }
)
#: The bundled ASKs of SEV and SEV-ES, which sign CEKs.
SEV_ASK_SHA256: Final[Mapping[ProductLine, str]] = MappingProxyType(
    {
        ProductLine.NAPLES: "c6f30cf923f526c3bcd5c8c221db51e0db65911782f046de17a6603131cdfd7f",
        ProductLine.ROME: "7754a69407d25540fe3a695be6b02c58a53bffd12594f5c30793d6cb62875706",
        ProductLine.MILAN: "c7c73765561c58003a3d09adb2c76993027dd3a1ec4e9be876024c035e015cec",
        ProductLine.GENOA: "c30307e4f594fb6c51fd753ab758eb78ad4bb70d9e4d96690e51c0621901031d",
        ProductLine.TURIN: "2ee285477f0d5eb94a69029197f4cf58ca82d8e1b9a276da1ac45b0db3f4be56",
    }
)


@cache
def snp_chain(line: ProductLine, *, vlek: bool) -> tuple[bytes, bytes]:
    """Return the bundled (ASK or ASVK, ARK) of a line as DER; ASVK if ``vlek``.

    Raises ``FormatError`` for a line without SEV-SNP, ``InternalError`` for data that is missing
    or does not match its pin.
    """
    if line not in SNP_ARK_SHA256:
        raise FormatError("product line", f"{line} has no SEV-SNP, so no X.509 roots")
    signer, pins = ("asvk", SNP_ASVK_SHA256) if vlek else ("ask", SNP_ASK_SHA256)
    return _pinned_pem(line, signer, pins[line]), _pinned_pem(line, "ark", SNP_ARK_SHA256[line])


@cache
def sev_ca(line: ProductLine) -> tuple[bytes, bytes]:
    """Return the bundled (ASK, ARK) of a line in AMD's SEV format (55766 appendix B.1).

    832 bytes each for Naples, 1600 since. Raises ``InternalError`` as ``snp_chain`` does.
    """
    ask = _read(f"sev/{line.lower()}/ask.cert")
    ark = _read(f"sev/{line.lower()}/ark.cert")
    _check_pin(f"{line} SEV ASK", ask, SEV_ASK_SHA256[line])
    _check_pin(f"{line} SEV ARK", ark, SEV_ARK_SHA256[line])
    return ask, ark


def _pinned_pem(line: ProductLine, name: str, pin: str) -> bytes:
    data = _read(f"snp/{line.lower()}/{name}.pem")
    return _decode(f"bundled {line} {name.upper()}", data, pin)


def _decode(what: str, data: bytes, pin: str) -> bytes:
    try:
        (der,) = parse_pem_certificates(what, data, count=1)
    except FormatError as error:
        raise InternalError(error.message, hint=_REINSTALL) from error
    _check_pin(what, der, pin)
    return der


_REINSTALL: Final = "the installation is damaged; install sevkit again"


def _check_pin(what: str, data: bytes, pin: str) -> None:
    if not hmac.compare_digest(hashlib.sha256(data).hexdigest(), pin):
        raise InternalError(f"{what} does not match its pin", hint=_REINSTALL)


def _read(path: str) -> bytes:
    try:
        return resources.files("sevkit.kds").joinpath("data", *path.split("/")).read_bytes()
    except OSError as error:
        raise InternalError(f"bundled {path} cannot be read", hint=_REINSTALL) from error
