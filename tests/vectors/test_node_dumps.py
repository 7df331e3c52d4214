"""What real machines said: CPUID dumps, libvirt's answers and kernel logs that others published."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import pytest

from sevkit.abi.sev_es_block import SEV_ES_BLOCKED_FROM
from sevkit.host.capabilities import decide
from sevkit.host.capability import State, Technology
from sevkit.host.cpuid import Signature
from sevkit.host.doctor.catalogue import CATALOGUE
from sevkit.host.doctor.check import Verdict, examine
from sevkit.host.kernel_log import LogLine, parse_log
from sevkit.host.probe import probe_host
from sevkit.host.product import host_product
from sevkit.host.reading import Known
from sevkit.host.sources import open_host
from sevkit.testing.host import PRESETS, with_defects, write_host

if TYPE_CHECKING:
    from pathlib import Path

    from sevkit.host.facts import HostFacts

libvirt = pytest.mark.skipif(
    importlib.util.find_spec("lxml") is None, reason="no lxml (extra 'libvirt')"
)


def registers(path: Path) -> dict[str, list[str]]:
    """Return a dump of libvirt's as ``cpuid.json`` has it."""
    found = {}
    for row in ET.parse(path).getroot().iter("cpuid"):  # noqa: S314  # a file of our own corpus
        if int(row.get("ecx_in", "0"), 16) == 0:
            leaf = int(row.get("eax_in", "0"), 16)
            found[f"{leaf:#010x}"] = [str(row.get(name)) for name in ("eax", "ebx", "ecx", "edx")]
    return found


#: Real dumps: SEV's ASIDs, and why there is no SEV-ES.
REAL: Final = {
    "EPYC-7601": ("naples", 15, "no-silicon"),
    "EPYC-7502": ("rome", 509, "no-encrypted-state-asids"),
}
#: libvirt's answers for a host on which QEMU has sev-snp-guest.
ANSWERS: Final = (
    "qemu_9.2.0-q35.x86_64+amdsev.xml",
    "qemu_10.0.0-q35.x86_64+amdsev.xml",
    "qemu_10.0.0-tcg.x86_64+amdsev.xml",
)


def real_host(name: str, corpus: Path, root: Path, document: bytes | None = None) -> HostFacts:
    """Return the facts of a host with a real processor's registers."""
    (dump,) = corpus.rglob(f"x86_64-cpuid-{name}-32-Core.xml")
    write_host(PRESETS[REAL[name][0]], root)
    (root / "cpuid.json").unlink()
    (root / "cpuid.json").write_text(json.dumps(registers(dump)))
    with open_host(str(root)) as source:
        return probe_host(source, document)


@pytest.mark.parametrize("name", REAL)
def test_real_processors_are_told_right(name: str, corpus: Path, tmp_path: Path) -> None:
    product, asids, reason = REAL[name]
    found = decide(real_host(name, corpus, tmp_path / "host"))
    assert (found.product, found.c_bit, found.reduced_phys_bits) == (product, 47, 5)
    assert (found.sev.state, found.sev.guests) == (State.USABLE, asids)
    assert found.sev_es.reason == reason
    assert (found.sev_snp.state, found.sev_snp.reason) == (State.ABSENT, "no-silicon")


@libvirt
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_qemu_that_can_launch_snp_proves_nothing_on_rome(
    answer: str, corpus: Path, tmp_path: Path
) -> None:
    document = (corpus / "node/libvirt-11.3.0" / answer).read_bytes()
    facts = real_host("EPYC-7502", corpus, tmp_path / "host", document)
    assert isinstance(facts.domain_capabilities, Known)
    assert set(facts.domain_capabilities.value.launch_security or ()) == {"sev", "sev-snp"}
    found = decide(facts)
    assert (found.sev_snp.state, found.sev_snp.reason) == (State.ABSENT, "no-silicon")
    (result,) = [
        one
        for one in examine(facts, found, CATALOGUE)
        if one.check.name == "libvirt.launch-security"
    ]
    assert (result.verdict, result.value) == (Verdict.WARN, "sev, sev-snp")
    assert result.detail == "libvirt offers what cannot run: SEV-SNP"


@libvirt
def test_a_libvirt_that_offers_nothing_takes_nothing_away(corpus: Path, tmp_path: Path) -> None:
    document = (corpus / "node/libvirt-11.3.0/qemu_10.0.0-q35.x86_64.xml").read_bytes()
    facts = real_host("EPYC-7601", corpus, tmp_path / "host", document)
    assert isinstance(facts.domain_capabilities, Known)
    assert decide(facts).sev.state is State.USABLE


def generations(corpus: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((corpus / "node/generations.json").read_text())[
        "generations"
    ]
    return found


def test_every_model_of_a_generation_is_told_by_its_number(corpus: Path) -> None:
    for row in generations(corpus):
        package = row.get("pkg_type_ebx_31_28")
        for first, last in row["models"]:
            for model in range(first, last + 1):
                product = host_product(Signature(row["family"], model, 0), package)
                if row["name"] == "venice":
                    assert product is None  # no key service's product is published for it
                    continue
                assert product is not None
                assert product == row["name"]
                assert product.sev_es is ("sev_es" in row["features"])
                assert product.sev_snp is ("sev_snp" in row["features"])
                refused = row.get("es_blocked_from_snp_svn")
                assert SEV_ES_BLOCKED_FROM.get(product.line) == refused


#: By the name of a published excerpt: what of it says something about SEV.
SAID: Final[dict[str, set[LogLine]]] = {
    "genoa-all-ok": set(),
    "es-blocked-by-firmware, patched kernel": set(),
    "no-rmp": {LogLine.RMP_NOT_RESERVED},
    "fw-too-old": {LogLine.FIRMWARE_TOO_OLD, LogLine.INIT_FAILED},
    "no-es-asids (old log style)": set(),
    "es-launch-refused": set(),
    "psp-broken": set(),
}


@pytest.fixture(scope="module")
def excerpts(corpus: Path) -> dict[str, str]:
    text = (corpus / "node/observed/dmesg-samples.txt").read_text()
    parts = re.split(r"(?m)^\[([a-z][^\]]*)\].*\n", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_what_real_kernels_said_is_understood(excerpts: dict[str, str]) -> None:
    assert {name: set(parse_log(text)) for name, text in excerpts.items()} == SAID


#: An excerpt, the simulated machine that is like the one it is of, and what that can do.
LIKE: Final = {
    "genoa-all-ok": ("genoa", (), ("usable", "es-open-to-cve-2025-48514", "usable")),
    "es-blocked-by-firmware, patched kernel": (
        "genoa",
        ("es-revoked-by-kernel",),
        ("usable", "es-refused-beside-snp", "usable"),
    ),
    "no-rmp": ("genoa", ("rmp-not-reserved",), ("usable", "usable", "rmp-not-reserved")),
    "fw-too-old": (
        "milan",
        ("snp-firmware-too-old",),
        ("held-back-by-snp", "held-back-by-snp", "firmware-too-old"),
    ),
    "no-es-asids (old log style)": (
        "milan",
        ("zero-es-asids",),
        ("usable", "no-encrypted-state-asids", "no-encrypted-state-asids"),
    ),
    # The driver gave up before it made a device.
    "psp-broken": ("milan", ("psp-silent",), ("no-sev-device",) * 3),
}


@pytest.mark.parametrize("name", LIKE)
def test_a_machine_with_a_real_log_is_told_right(
    name: str, excerpts: dict[str, str], tmp_path: Path
) -> None:
    preset, defects, reasons = LIKE[name]
    root = tmp_path / "host"
    write_host(with_defects(preset, defects), root)
    (root / "var/log/dmesg").unlink()
    (root / "var/log/dmesg").write_text(excerpts[name])
    with open_host(str(root)) as source:
        found = decide(probe_host(source))
    assert tuple(found.of(one).reason for one in Technology) == reasons
