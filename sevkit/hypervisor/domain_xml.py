"""What a libvirt domain is made of, as far as a launch digest depends on it or a launch needs it.

A domain's XML is the host's word: it says how the host claims to launch the guest. What of it is
true, the launch measurement shows. Nothing is judged here.

Source: libvirt ``docs/formatdomain.rst`` and ``src/conf/domain_conf.c``. Where libvirt itself reads
an element unexpectedly, so does this: the policy is hexadecimal with or without ``0x``; a vCPU that
``<vcpus>`` leaves out is not there; one that is enabled is not hot-pluggable unless it says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.hypervisor.xml_document import parse_xml

if TYPE_CHECKING:
    from sevkit.hypervisor.xml_document import Node

_NAME: Final = "domain XML"
#: QEMU's most vCPUs; libvirt has no limit of its own.
_MAX_VCPUS: Final = 4096
_MAX_BITS: Final = 63
#: Bits of the guest policy by type of launch security.
_POLICY_BITS: Final = {"sev": 32, "sev-snp": 64}


@final
@dataclass(frozen=True, slots=True)
class LaunchSecurity:
    """``<launchSecurity>``; what is not there, or not of this type, is None.

    ``kind`` is ``sev`` (SEV and SEV-ES: bit 2 of ``policy`` tells), ``sev-snp``, or another name.
    ``session`` and ``dh_cert`` are the guest owner's, decoded; so are the SNP fields ``id_block``,
    ``id_auth``, ``host_data`` and ``workarounds``. ``cbitpos`` and ``reduced_phys_bits`` are filled
    in by libvirt when a domain starts.
    """

    kind: str
    policy: int | None = None
    kernel_hashes: bool | None = None
    cbitpos: int | None = None
    reduced_phys_bits: int | None = None
    session: bytes | None = None
    dh_cert: bytes | None = None
    id_block: bytes | None = None
    id_auth: bytes | None = None
    host_data: bytes | None = None
    workarounds: bytes | None = None
    author_key: bool | None = None
    vcek: bool | None = None


@final
@dataclass(frozen=True, slots=True)
class Loader:
    """``<loader>``: the firmware's path and how it is mapped, ``rom`` or ``pflash``.

    ``path`` is None where libvirt is to choose the firmware. ``stateless`` is a firmware without
    variables.
    """

    path: str | None
    kind: str | None = None
    readonly: bool | None = None
    secure: bool | None = None
    stateless: bool | None = None


@final
@dataclass(frozen=True, slots=True)
class Nvram:
    """``<nvram>``: where the firmware's variables are, unmeasured; a source may have no path."""

    path: str | None
    template: str | None = None


@final
@dataclass(frozen=True, slots=True)
class VariableStore:
    """``<varstore>`` of newer libvirts: variables that QEMU itself keeps, unmeasured."""

    path: str | None
    template: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Boot:
    """``<os>``: machine, firmware, and files of a direct kernel boot by their paths on the host."""

    arch: str | None = None
    machine: str | None = None
    firmware: str | None = None
    loader: Loader | None = None
    nvram: Nvram | None = None
    varstore: VariableStore | None = None
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str | None = None


@final
@dataclass(frozen=True, slots=True)
class VirtualCpus:
    """How many vCPUs there can be, are, and are plugged in only after the launch.

    ``enabled`` counts those that the guest has when it runs; of these, ``hotpluggable`` are plugged
    in by libvirt when QEMU is up, so after a SEV-ES guest was measured.
    """

    maximum: int = 1
    enabled: int = 1
    hotpluggable: int = 0

    @property
    def at_launch(self) -> int:
        """How many vCPUs the launch digest of a SEV-ES or SNP guest covers."""
        return self.enabled - self.hotpluggable


@final
@dataclass(frozen=True, slots=True)
class CpuModel:
    """``<cpu>``: ``custom`` with a model, ``host-model``, ``host-passthrough`` or ``maximum``.

    ``features`` are (policy, name).
    """

    mode: str
    model: str | None = None
    features: tuple[tuple[str, str], ...] = ()


@final
@dataclass(frozen=True, slots=True)
class DomainDefinition:
    """One domain. ``kind`` is ``kvm``, ``qemu`` or another driver's name."""

    kind: str
    name: str
    uuid: str | None
    boot: Boot
    vcpus: VirtualCpus
    cpu: CpuModel | None
    launch_security: LaunchSecurity | None


def parse_domain_xml(document: str | bytes) -> DomainDefinition:
    """Return what a ``<domain>`` document says. Raises ``FormatError``."""
    root = parse_xml(document, _NAME, "domain")
    security = root.find("launchSecurity")
    return DomainDefinition(
        kind=root.require_attribute("type"),
        name=root.require("name").text(),
        uuid=_text(root, "uuid"),
        boot=_parse_boot(root),
        vcpus=_parse_vcpus(root),
        cpu=_parse_cpu(root),
        launch_security=None if security is None else _parse_launch_security(security),
    )


def _text(node: Node, *path: str) -> str | None:
    found = node.find(*path)
    return None if found is None else found.text()


def _base64(node: Node, name: str) -> bytes | None:
    found = node.find(name)
    return None if found is None else found.base64()


def _number(node: Node, name: str, limit: int) -> int | None:
    found = node.find(name)
    return None if found is None else found.number(limit=limit)


def _parse_launch_security(node: Node) -> LaunchSecurity:
    kind = node.require_attribute("type")
    bits = _POLICY_BITS.get(kind)
    if bits is None:
        return LaunchSecurity(kind)
    return LaunchSecurity(
        kind,
        policy=node.require("policy").number(limit=(1 << bits) - 1, base=16),
        kernel_hashes=node.flag("kernelHashes"),
        cbitpos=_number(node, "cbitpos", _MAX_BITS),
        reduced_phys_bits=_number(node, "reducedPhysBits", _MAX_BITS),
        session=_base64(node, "session"),
        dh_cert=_base64(node, "dhCert"),
        id_block=_base64(node, "idBlock"),
        id_auth=_base64(node, "idAuth"),
        host_data=_base64(node, "hostData"),
        workarounds=_base64(node, "guestVisibleWorkarounds"),
        author_key=node.flag("authorKey"),
        vcek=node.flag("vcek"),
    )


def _parse_boot(root: Node) -> Boot:
    node = root.find("os")
    if node is None:
        return Boot()
    machine = node.find("type")
    loader = node.find("loader")
    nvram = node.find("nvram")
    varstore = node.find("varstore")
    return Boot(
        arch=None if machine is None else machine.attribute("arch"),
        machine=None if machine is None else machine.attribute("machine"),
        firmware=node.attribute("firmware"),
        loader=None if loader is None else _parse_loader(loader),
        nvram=None if nvram is None else _parse_nvram(nvram),
        varstore=None
        if varstore is None
        else VariableStore(varstore.attribute("path"), varstore.attribute("template")),
        kernel=_text(node, "kernel"),
        initrd=_text(node, "initrd"),
        cmdline=_text(node, "cmdline"),
    )


def _parse_loader(node: Node) -> Loader:
    return Loader(
        path=node.text() or None,
        kind=node.attribute("type"),
        readonly=node.flag("readonly"),
        secure=node.flag("secure"),
        stateless=node.flag("stateless"),
    )


def _parse_nvram(node: Node) -> Nvram:
    source = node.find("source")
    path = node.text() if source is None else source.attribute("file")
    return Nvram(path or None, template=node.attribute("template"))


def _parse_vcpus(root: Node) -> VirtualCpus:
    node = root.find("vcpu")
    maximum = 1
    enabled = None
    if node is not None:
        maximum = node.number(limit=_MAX_VCPUS) if node.text() else 1
        enabled = node.number_attribute("current", limit=maximum)
    listed = root.find("vcpus")
    rows = () if listed is None else listed.all("vcpu")
    if not rows:
        return VirtualCpus(maximum, maximum if enabled is None else enabled)
    return _count_vcpus(rows, maximum)


def _count_vcpus(rows: tuple[Node, ...], maximum: int) -> VirtualCpus:
    seen: set[int] = set()
    enabled = hotpluggable = 0
    for row in rows:
        number = row.number_attribute("id", limit=maximum - 1)
        if number is None or number in seen:
            row.refuse("has no id, or one that another has")
        seen.add(number)
        if row.require_flag("enabled"):
            enabled += 1
            hotpluggable += bool(row.flag("hotpluggable"))
    return VirtualCpus(maximum, enabled, hotpluggable)


def _parse_cpu(root: Node) -> CpuModel | None:
    node = root.find("cpu")
    if node is None:
        return None
    model = _text(node, "model")
    mode = node.attribute("mode") or (None if model is None else "custom")
    if mode is None:  # topology or cache alone: QEMU's default model
        return None
    features = tuple(
        (feature.attribute("policy") or "require", feature.require_attribute("name"))
        for feature in node.all("feature")
    )
    return CpuModel(mode, model, features)
