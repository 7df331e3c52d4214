from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.abi.sevcert import SIZE, Usage, parse_sev_certificate
from sevkit.errors import FormatError
from sevkit.hypervisor.parameters import (
    encode_launch_secret,
    parse_launch_security_info,
    parse_node_sev_info,
)
from sevkit.hypervisor.protocol import LaunchSecurityInfo, NodeSevInfo

if TYPE_CHECKING:
    from pathlib import Path


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


NODE: Final[dict[str, Any]] = {
    "pdh": b64(bytes(2084)),
    "cert-chain": b64(bytes(6252)),
    "cpu0-id": b64(bytes(64)),
    "cbitpos": 51,
    "reduced-phys-bits": 1,
    "max-guests": 410,
    "max-es-guests": 99,
}
DOMAIN: Final[dict[str, Any]] = {
    "sev-measurement": b64(bytes(range(48))),
    "sev-api-major": 1,
    "sev-api-minor": 55,
    "sev-build-id": 40,
    "sev-policy": 5,
}


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def test_a_real_hosts_certificates_are_read(corpus: Path) -> None:
    path = corpus / "node/libvirt-11.3.0/query-sev-capabilities.qemu-10.0.0.json"
    answer = json.loads(path.read_text())
    values = answer.get("return", answer)
    found = parse_node_sev_info(values)
    chain = found.pdh + found.cert_chain
    parts = (chain[start : start + SIZE] for start in range(0, len(chain), SIZE))
    usages = [parse_sev_certificate(part).usage for part in parts]
    assert usages == [Usage.PDH, Usage.PEK, Usage.OCA, Usage.CEK]
    assert (found.cbitpos, found.reduced_phys_bits) == (51, 1)
    assert found.cpu0_id is not None
    assert len(found.cpu0_id) == 64


def test_the_nodes_parameters_are_read() -> None:
    expected = NodeSevInfo(bytes(2084), bytes(6252), 51, 1, bytes(64), 410, 99)
    assert parse_node_sev_info(NODE) == expected
    assert parse_node_sev_info({**NODE, "of-a-newer-libvirt": 1}) == expected


def test_an_older_libvirt_gives_less() -> None:
    found = parse_node_sev_info(without(NODE, "cpu0-id", "max-guests", "max-es-guests"))
    assert (found.cpu0_id, found.max_guests, found.max_es_guests) == (None, None, None)


def test_the_domains_parameters_are_read() -> None:
    assert parse_launch_security_info(DOMAIN) == LaunchSecurityInfo(bytes(range(48)), 1, 55, 40, 5)


@pytest.mark.parametrize("name", ["pdh", "cert-chain", "cbitpos", "reduced-phys-bits"])
def test_what_every_libvirt_gives_of_a_node_must_be_there(name: str) -> None:
    with pytest.raises(FormatError, match=f"{name}: expected"):
        parse_node_sev_info(without(NODE, name))


@pytest.mark.parametrize("name", DOMAIN)
def test_what_every_libvirt_gives_of_a_domain_must_be_there(name: str) -> None:
    with pytest.raises(FormatError, match=f"{name}: expected"):
        parse_launch_security_info(without(DOMAIN, name))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pdh", b64(bytes(2083))),
        ("pdh", b64(bytes(2084))[:-4] + "\n"),
        ("pdh", b"bytes"),
        ("pdh", "é"),
        ("cert-chain", b64(bytes(2084))),
        ("cert-chain", b64(bytes(6252)) + "\n"),
        ("cpu0-id", ""),
        ("cpu0-id", b64(bytes(129))),
        ("cpu0-id", "QUJ="),
        ("cbitpos", 64),
        ("cbitpos", "51"),
        ("cbitpos", True),
        ("cbitpos", -1),
        ("max-guests", 1 << 32),
        ("max-es-guests", 1.0),
    ],
)
def test_a_nodes_parameter_of_another_shape_is_refused(name: str, value: object) -> None:
    with pytest.raises(FormatError, match=f"SEV parameters of the node: {name}: "):
        parse_node_sev_info({**NODE, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sev-measurement", b64(bytes(47))),
        ("sev-measurement", b64(bytes(32))),
        ("sev-measurement", ""),
        ("sev-api-major", 256),
        ("sev-api-minor", None),
        ("sev-build-id", -1),
        ("sev-policy", 1 << 32),
    ],
)
def test_a_domains_parameter_of_another_shape_is_refused(name: str, value: object) -> None:
    with pytest.raises(FormatError, match=f"of the domain: {name}: "):
        parse_launch_security_info({**DOMAIN, name: value})


@pytest.mark.parametrize("address", [None, 0, 0x81_0000])
def test_a_secret_is_sent_by_libvirts_names(address: int | None) -> None:
    expected: dict[str, str | int] = {"sev-secret-header": "QUI=", "sev-secret": "Q0Q="}
    if address is not None:
        expected["sev-secret-set-address"] = address
    assert encode_launch_secret(b"AB", b"CD", address) == expected
