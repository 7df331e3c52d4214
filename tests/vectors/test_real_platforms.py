"""The certificate chain of a real EPYC host, as QEMU reported it and libvirt keeps it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.abi.sevcert import Usage
from sevkit.abi.sevchain import PlatformChain, parse_parts
from sevkit.attest.sev_links import read_links
from sevkit.attest.sev_platform import PlatformExpectations, judge_platform

if TYPE_CHECKING:
    from pathlib import Path

AT: Final = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture(scope="module")
def chain(corpus: Path) -> PlatformChain:
    path = corpus / "node/libvirt-11.3.0/query-sev-capabilities.qemu-10.0.0.json"
    answer = json.loads(path.read_text())["return"]
    return parse_parts(*(base64.b64decode(answer[name]) for name in ("pdh", "cert-chain")))


def test_an_owners_key_that_memory_was_left_behind_is_read(chain: PlatformChain) -> None:
    assert chain.oca.usage is Usage.OCA
    assert any(chain.oca.data[0xA4:0x414])


def test_every_link_below_the_cek_holds(chain: PlatformChain) -> None:
    keys = {Usage.OCA: chain.oca.key, Usage.CEK: chain.cek.key, Usage.PEK: chain.pek.key}
    for certificate, signers in ((chain.oca, 1), (chain.pek, 2), (chain.pdh, 1)):
        links = read_links(certificate, keys)
        assert len(links) == signers
        assert all(link.holds() for link in links)


def test_firmware_exports_its_cek_unsigned_which_is_undecided(chain: PlatformChain) -> None:
    verdict, platform = judge_platform(chain, PlatformExpectations(), at=AT)
    assert (verdict.exit_code, platform) == (4, None)
    assert "--cek" in str(verdict.to_json()["evidence"])
