"""libvirt's word is a fact beside others: said, absent, not reached, or not understood."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sevkit.errors import FormatError, HypervisorError
from sevkit.host.facts_document import fact_lines, facts_document
from sevkit.host.libvirt import NodeSev, ask_capabilities, ask_node_sev, parse_capabilities
from sevkit.host.reading import Cause, Known, Unreadable
from sevkit.hypervisor.protocol import HypervisorUnreachable, NodeSevInfo, NotSupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.host.facts import HostFacts
    from sevkit.hypervisor.protocol import Domain

CHIP = base64.b64encode(b"\3" * 64).decode()
DOCUMENT = f"""<domainCapabilities><path>/usr/bin/qemu</path><domain>kvm</domain>
<machine>q35</machine><arch>x86_64</arch><features><sev supported='yes'>
<cbitpos>51</cbitpos><reducedPhysBits>1</reducedPhysBits><maxGuests>59</maxGuests>
<maxESGuests>450</maxESGuests><cpu0Id>{CHIP}</cpu0Id></sev></features></domainCapabilities>"""
INFO = NodeSevInfo(b"\1" * 2084, b"\2" * 6252, 51, 1, b"\3" * 64, 59, 450)


class Answering:
    """A hypervisor that answers, or raises what it was given."""

    def __init__(self, capabilities: str | Exception, info: NodeSevInfo | Exception) -> None:
        self._capabilities, self._info = capabilities, info

    def hostname(self) -> str:
        return "host"

    def domain_capabilities(self) -> str:
        if isinstance(self._capabilities, Exception):
            raise self._capabilities
        return self._capabilities

    def node_sev_info(self) -> NodeSevInfo:
        if isinstance(self._info, Exception):
            raise self._info
        return self._info

    def domain(self, name: str) -> Domain:
        raise NotSupported(name)


def test_what_libvirt_says_is_known_and_the_chip_is_not_named() -> None:
    hypervisor = Answering(DOCUMENT, INFO)
    found = ask_capabilities(hypervisor)
    assert isinstance(found, Known)
    assert found.value.sev is not None
    assert found.value.sev.supported
    assert found.value.sev.cpu0_id is None
    assert ask_node_sev(hypervisor) == Known(NodeSev(51, 1, 59, 450))


def test_no_document_of_facts_names_the_chip(facts_of: Callable[..., HostFacts]) -> None:
    hypervisor = Answering(DOCUMENT, INFO)
    facts = replace(
        facts_of("milan"),
        domain_capabilities=ask_capabilities(hypervisor),
        node_sev=ask_node_sev(hypervisor),
    )
    document = facts_document(facts)
    assert document["sources"]["domain_capabilities"]["value"]["sev"]["max_guests"] == 59
    text = json.dumps(document) + repr(dict(fact_lines(document)))
    assert "03" * 64 not in text
    assert CHIP not in text
    assert repr(b"\3" * 64) not in text


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (NotSupported("no SEV here"), Cause.ABSENT),
        (HypervisorUnreachable("connect to qemu:///system: refused"), Cause.FAILED),
        (HypervisorError("internal error"), Cause.FAILED),
        (FormatError("node SEV info", "pdh has 7 bytes"), Cause.FAILED),
    ],
)
def test_absent_unreachable_and_failed_are_three_things(error: Exception, cause: Cause) -> None:
    hypervisor = Answering(error, error)
    for found in (ask_capabilities(hypervisor), ask_node_sev(hypervisor)):
        assert isinstance(found, Unreadable)
        assert found.cause is cause
        assert found.detail.startswith("libvirt: ")


@pytest.mark.parametrize("document", ["", "<domainCapabilities>", "<other/>", b"\xff\xfe"])
def test_a_document_that_is_none_is_malformed(document: str | bytes) -> None:
    found = parse_capabilities(document)
    assert isinstance(found, Unreadable)
    assert found.cause is Cause.MALFORMED
