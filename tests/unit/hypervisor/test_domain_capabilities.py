from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from sevkit.errors import FormatError
from sevkit.hypervisor.domain_capabilities import SevCapabilities, parse_domain_capabilities

if TYPE_CHECKING:
    from pathlib import Path

#: Files that KubeVirt's tests hold: what they say of ``<sev>`` and of launch security.
KUBEVIRT: Final = {
    "domcapabilities_nosev.xml": (SevCapabilities(supported=False), None),
    "domcapabilities_noseves.xml": (SevCapabilities(True, 47, 1, 15, 0), None),
    "domcapabilities_sev.xml": (SevCapabilities(True, 47, 1, 15, 15), None),
    "domcapabilities_sevsnp.xml": (SevCapabilities(True, 47, 1, 15, 15), ("sev", "sev-snp")),
    "domcapabilities_tdx.xml": (SevCapabilities(supported=False), ("tdx",)),
    "virsh_domcapabilities.xml": (SevCapabilities(True, 47, 1, 15, 15), ("sev", "sev-snp")),
}
CHIP: Final = bytes.fromhex(
    "06503099caf846ec9add8bc419ed84071b968cc01f218a25b2534d33dd91b082"
    "b12e45830d1aa2bea481383faa4110984bd8e8058487303d60fab9a363e32657"
)
WITH_SEV: Final = SevCapabilities(True, 51, 1, 59, 450, CHIP)
#: Files that libvirt's tests hold: emulation, machine, host model, and as above.
LIBVIRT: Final = {
    "qemu_10.0.0-q35.x86_64+amdsev.xml": ("kvm", "EPYC-Genoa", WITH_SEV, ("sev", "sev-snp")),
    "qemu_9.2.0-q35.x86_64+amdsev.xml": ("kvm", "EPYC-Genoa", WITH_SEV, ("sev", "sev-snp")),
    "qemu_10.0.0-tcg.x86_64+amdsev.xml": ("qemu", "EPYC", WITH_SEV, ("sev", "sev-snp")),
    "qemu_10.0.0-q35.x86_64.xml": ("kvm", "EPYC-Rome", SevCapabilities(supported=False), ()),
}


@pytest.mark.parametrize(("name", "expected"), KUBEVIRT.items(), ids=KUBEVIRT)
def test_kubevirts_files_are_read(
    corpus: Path, name: str, expected: tuple[SevCapabilities, tuple[str, ...] | None]
) -> None:
    found = parse_domain_capabilities((corpus / "kubevirt/domcaps" / name).read_bytes())
    assert (found.sev, found.launch_security) == expected


@pytest.mark.parametrize(("name", "expected"), LIBVIRT.items(), ids=LIBVIRT)
def test_libvirts_files_are_read(
    corpus: Path,
    name: str,
    expected: tuple[str, str, SevCapabilities, tuple[str, ...] | None],
) -> None:
    found = parse_domain_capabilities((corpus / "node/libvirt-11.3.0" / name).read_bytes())
    assert found.host_model is not None
    assert (found.virt_type, found.host_model.model, found.sev, found.launch_security) == expected
    assert (found.path, found.arch) == ("/usr/bin/qemu-system-x86_64", "x86_64")
    assert found.max_vcpus in {255, 4096}


def test_a_host_model_has_its_features(corpus: Path) -> None:
    document = (corpus / "kubevirt/domcaps/virsh_domcapabilities.xml").read_bytes()
    model = parse_domain_capabilities(document).host_model
    assert model is not None
    assert (model.model, model.vendor) == ("Skylake-Client-IBRS", "Intel")
    assert model.features == (("require", "ds"), ("require", "acpi"), ("require", "ss"))


@pytest.mark.parametrize(
    "name",
    [
        "kubevirt/domcaps/supported_features.xml",
        "node/libvirt-11.3.0/caps_10.0.0_x86_64+amdsev.xml",
    ],
)
def test_another_document_of_libvirts_is_refused(corpus: Path, name: str) -> None:
    with pytest.raises(FormatError, match="not <domainCapabilities>"):
        parse_domain_capabilities((corpus / name).read_bytes())


def read(features: str) -> SevCapabilities | None:
    document = f"<domainCapabilities><features>{features}</features></domainCapabilities>"
    return parse_domain_capabilities(document).sev


EMPTY: Final = "<enum name='sectype'/>"
BITS: Final = "<cbitpos>47</cbitpos><reducedPhysBits>1</reducedPhysBits>"


def test_what_is_not_printed_is_not_known() -> None:
    found = parse_domain_capabilities("<domainCapabilities/>")
    assert all(getattr(found, name) is None for name in found.__slots__)


def test_an_old_libvirt_counts_no_guests_and_knows_no_chip() -> None:
    assert read(f"<sev supported='yes'>{BITS}</sev>") == SevCapabilities(True, 47, 1)


def test_the_reduced_bits_have_an_older_name() -> None:
    bits = "<cbitpos>47</cbitpos><reduced-phys-bits>5</reduced-phys-bits>"
    assert read(f"<sev supported='yes'>{bits}</sev>") == SevCapabilities(True, 47, 5)


def test_launch_security_that_lists_nothing_is_none_and_not_unknown() -> None:
    for element in ("<launchSecurity supported='no'/>", "<launchSecurity supported='yes'/>"):
        document = f"<domainCapabilities><features>{element}</features></domainCapabilities>"
        assert parse_domain_capabilities(document).launch_security == ()


def test_other_lists_of_launch_security_are_passed_over() -> None:
    lists = (
        "<enum name='other'><value>x</value></enum><enum name='sectype'><value>sev</value></enum>"
    )
    document = (
        "<domainCapabilities><features><launchSecurity supported='yes'>"
        f"{lists}</launchSecurity></features></domainCapabilities>"
    )
    assert parse_domain_capabilities(document).launch_security == ("sev",)


@pytest.mark.parametrize(
    "features",
    [
        "<sev/>",
        "<sev supported='maybe'/>",
        "<sev supported='no'/><sev supported='yes'/>",
        "<sev supported='yes'/>",
        "<sev supported='yes'><cbitpos>47</cbitpos></sev>",
        "<sev supported='yes'><cbitpos>64</cbitpos><reducedPhysBits>1</reducedPhysBits></sev>",
        f"<sev supported='yes'>{BITS}<maxGuests>-1</maxGuests></sev>",
        f"<sev supported='yes'>{BITS}<maxESGuests>4294967296</maxESGuests></sev>",
        f"<sev supported='yes'>{BITS}<cpu0Id/></sev>",
        f"<sev supported='yes'>{BITS}<cpu0Id>{'A' * 176}</cpu0Id></sev>",
        f"<sev supported='yes'>{BITS}<cpu0Id>not base64</cpu0Id></sev>",
        f"<sev supported='yes'>{BITS}{BITS}</sev>",
        "<launchSecurity><enum name='sectype'/></launchSecurity>",
        "<launchSecurity supported='yes'><enum/></launchSecurity>",
        f"<launchSecurity supported='yes'>{EMPTY}{EMPTY}</launchSecurity>",
    ],
)
def test_what_libvirt_never_prints_is_refused(features: str) -> None:
    with pytest.raises(FormatError, match="domain capabilities: <"):
        read(features)
