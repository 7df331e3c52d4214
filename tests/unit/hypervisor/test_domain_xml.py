from __future__ import annotations

import base64
from typing import Final

import pytest

from sevkit.errors import FormatError
from sevkit.hypervisor.domain_xml import (
    Boot,
    CpuModel,
    DomainDefinition,
    LaunchSecurity,
    Loader,
    Nvram,
    VariableStore,
    VirtualCpus,
    parse_domain_xml,
)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read(body: str, kind: str = "kvm") -> DomainDefinition:
    return parse_domain_xml(f"<domain type='{kind}'><name>ledger</name>{body}</domain>")


def security(text: str) -> LaunchSecurity:
    found = read(text).launch_security
    assert found is not None
    return found


#: As libvirt 9.0 prints a running domain, shortened to what is read here.
RUNNING: Final = """
  <uuid>fafd9ee2-06a8-404d-af77-760ba04882f8</uuid>
  <memory unit='KiB'>65536</memory>
  <vcpu placement='static' current='2'>4</vcpu>
  <vcpus>
    <vcpu id='0' enabled='yes' hotpluggable='no' order='1'/>
    <vcpu id='1' enabled='yes' hotpluggable='yes' order='2'/>
    <vcpu id='2' enabled='no' hotpluggable='yes'/>
    <vcpu id='3' enabled='no' hotpluggable='yes'/>
  </vcpus>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <boot dev='hd'/>
  </os>
  <cpu mode='custom' match='exact' check='full'>
    <model fallback='forbid'>EPYC-Rome</model>
    <feature policy='disable' name='vme'/>
    <feature name='monitor'/>
  </cpu>
"""


POLICY: Final = "<policy>1</policy>"
PLUGGED: Final = "<vcpu id='1' enabled='yes' hotpluggable='yes'/>"


def test_a_running_domain_is_read() -> None:
    assert read(RUNNING, kind="qemu") == DomainDefinition(
        kind="qemu",
        name="ledger",
        uuid="fafd9ee2-06a8-404d-af77-760ba04882f8",
        boot=Boot("x86_64", "pc-q35-7.2"),
        vcpus=VirtualCpus(4, 2, 1),
        cpu=CpuModel("custom", "EPYC-Rome", (("disable", "vme"), ("require", "monitor"))),
        launch_security=None,
    )


def test_next_to_nothing_is_a_domain_too() -> None:
    found = read("")
    assert found == DomainDefinition("kvm", "ledger", None, Boot(), VirtualCpus(), None, None)
    assert found.vcpus.at_launch == 1


def test_a_sev_domain_has_the_guest_owners_session() -> None:
    session, dh_cert = bytes(range(128)), bytes(2084)
    broken = "\n".join(b64(session)[i : i + 76] for i in range(0, 172, 76))
    found = security(
        "<launchSecurity type='sev' kernelHashes='yes'><cbitpos>47</cbitpos>"
        "<reducedPhysBits>1</reducedPhysBits><policy>0x0005</policy>"
        f"<dhCert>{b64(dh_cert)}</dhCert><session>\n{broken}\n</session></launchSecurity>"
    )
    assert found == LaunchSecurity(
        "sev",
        policy=5,
        kernel_hashes=True,
        cbitpos=47,
        reduced_phys_bits=1,
        session=session,
        dh_cert=dh_cert,
    )


def test_an_snp_domain_has_id_blocks_and_host_data() -> None:
    found = security(
        "<launchSecurity type='sev-snp' authorKey='yes' vcek='no'><policy>0x00030000</policy>"
        f"<guestVisibleWorkarounds>{b64(b'w')}</guestVisibleWorkarounds>"
        f"<idBlock>{b64(b'b')}</idBlock><idAuth>{b64(b'a')}</idAuth>"
        f"<hostData>{b64(b'h')}</hostData></launchSecurity>"
    )
    assert found == LaunchSecurity(
        "sev-snp",
        policy=0x30000,
        id_block=b"b",
        id_auth=b"a",
        host_data=b"h",
        workarounds=b"w",
        author_key=True,
        vcek=False,
    )


def test_other_launch_security_is_only_named() -> None:
    assert security("<launchSecurity type='s390-pv'/>") == LaunchSecurity("s390-pv")


@pytest.mark.parametrize(
    ("text", "policy"),
    [("0x0001", 1), ("5", 5), ("10", 0x10), ("30000", 0x30000), ("0xFFFFFFFF", 0xFFFF_FFFF)],
)
def test_the_policy_is_hexadecimal_with_or_without_a_prefix(text: str, policy: int) -> None:
    found = security(f"<launchSecurity type='sev'><policy>{text}</policy></launchSecurity>")
    assert found.policy == policy


def test_firmware_and_kernel_are_read() -> None:
    found = read(
        "<os firmware='efi'><loader readonly='yes' secure='no' type='pflash' stateless='yes' "
        "format='raw'>/usr/share/OVMF/OVMF.amdsev.fd</loader><kernel>/vmlinuz</kernel>"
        "<initrd>/initrd</initrd><cmdline>console=ttyS0 quiet </cmdline></os>"
    ).boot
    loader = Loader(
        "/usr/share/OVMF/OVMF.amdsev.fd", "pflash", readonly=True, secure=False, stateless=True
    )
    assert found == Boot(
        firmware="efi",
        loader=loader,
        kernel="/vmlinuz",
        initrd="/initrd",
        cmdline="console=ttyS0 quiet ",
    )


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ("<nvram>/v.fd</nvram>", Nvram("/v.fd")),
        ("<nvram template='/t.fd'>/v.fd</nvram>", Nvram("/v.fd", "/t.fd")),
        ("<nvram type='file'><source file='/v.fd'/></nvram>", Nvram("/v.fd")),
        ("<nvram type='network'><source protocol='iscsi'/></nvram>", Nvram(None)),
        ("<nvram template='/t.fd'/>", Nvram(None, "/t.fd")),
    ],
)
def test_firmware_variables_are_seen_however_they_are_kept(element: str, expected: Nvram) -> None:
    assert read(f"<os>{element}</os>").boot.nvram == expected


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ("", None),
        ("<varstore/>", VariableStore(None)),
        ("<varstore template='/t.json' path='/v.json'/>", VariableStore("/v.json", "/t.json")),
    ],
)
def test_a_variable_store_of_qemus_own_is_read(
    element: str, expected: VariableStore | None
) -> None:
    assert read(f"<os>{element}</os>").boot.varstore == expected


def test_a_loader_that_libvirt_is_to_choose_has_no_path() -> None:
    assert read("<os><loader stateless='yes'/></os>").boot.loader == Loader(None, stateless=True)


@pytest.mark.parametrize(
    ("text", "expected", "at_launch"),
    [
        ("<vcpu>4</vcpu>", VirtualCpus(4, 4, 0), 4),
        ("<vcpu placement='static' current='2'>4</vcpu>", VirtualCpus(4, 2, 0), 2),
        ("<vcpu current='1'/>", VirtualCpus(1, 1, 0), 1),
        ("<vcpu current='1'>2</vcpu><vcpus/>", VirtualCpus(2, 1, 0), 1),
        (  # what the list leaves out is not there, whatever ``current`` says
            "<vcpu current='2'>4</vcpu><vcpus><vcpu id='0' enabled='yes'/></vcpus>",
            VirtualCpus(4, 1, 0),
            1,
        ),
        (
            f"<vcpu>2</vcpu><vcpus>{PLUGGED}<vcpu id='0' enabled='yes'/></vcpus>",
            VirtualCpus(2, 2, 1),
            1,
        ),
    ],
)
def test_vcpus_at_launch_are_those_that_are_not_plugged_in_later(
    text: str, expected: VirtualCpus, at_launch: int
) -> None:
    found = read(text).vcpus
    assert (found, found.at_launch) == (expected, at_launch)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<cpu mode='host-passthrough' check='none'/>", CpuModel("host-passthrough")),
        ("<cpu mode='host-model'/>", CpuModel("host-model")),
        ("<cpu><model>EPYC</model></cpu>", CpuModel("custom", "EPYC")),
        ("<cpu><topology sockets='1' cores='2' threads='1'/></cpu>", None),
    ],
)
def test_the_cpu_is_a_mode_and_a_model(text: str, expected: CpuModel | None) -> None:
    assert read(text).cpu == expected


@pytest.mark.parametrize(
    "body",
    [
        "<name>twice</name>",
        "<launchSecurity/>",
        "<launchSecurity type='sev'/>",
        "<launchSecurity type='sev'><policy/></launchSecurity>",
        "<launchSecurity type='sev'><policy>0x100000000</policy></launchSecurity>",
        "<launchSecurity type='sev'><policy>seven</policy></launchSecurity>",
        "<launchSecurity type='sev'><policy>1</policy><policy>3</policy></launchSecurity>",
        f"<launchSecurity type='sev'>{POLICY}<session>IHAVENOIDEA</session></launchSecurity>",
        "<launchSecurity type='sev' kernelHashes='on'><policy>1</policy></launchSecurity>",
        "<launchSecurity type='sev-snp'><policy>0x10000000000000000</policy></launchSecurity>",
        f"<launchSecurity type='sev'>{POLICY}</launchSecurity><launchSecurity type='sev'/>",
        "<os><loader>/a.fd</loader><loader>/b.fd</loader></os>",
        "<os><loader stateless='maybe'>/a.fd</loader></os>",
        "<vcpu>many</vcpu>",
        "<vcpu>5000</vcpu>",
        "<vcpu current='3'>2</vcpu>",
        "<vcpu>1</vcpu><vcpus><vcpu id='1' enabled='yes'/></vcpus>",
        "<vcpu>2</vcpu><vcpus><vcpu id='1' enabled='yes'/><vcpu id='1' enabled='no'/></vcpus>",
        "<vcpu>2</vcpu><vcpus><vcpu enabled='yes'/></vcpus>",
        "<vcpu>2</vcpu><vcpus><vcpu id='0'/></vcpus>",
        "<cpu><feature policy='require'/><model>EPYC</model></cpu>",
    ],
)
def test_what_libvirt_never_prints_is_refused(body: str) -> None:
    with pytest.raises(FormatError, match="domain XML: <"):
        read(body)


@pytest.mark.parametrize("document", ["<domain><name>x</name></domain>", "<domain type='kvm'/>"])
def test_a_domain_has_a_type_and_a_name(document: str) -> None:
    with pytest.raises(FormatError, match="<domain> at line 1: has no"):
        parse_domain_xml(document)
