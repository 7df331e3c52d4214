"""A cluster of two simulated hosts, and a guest owner's folder, for tests of his commands."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.secret_packet import DISK_GUID, SecretEntry, encode_secret_table
from sevkit.cli.cluster_options import find_access
from sevkit.cluster.connection import Connection
from sevkit.cluster.launch_endpoints import ClusterEndpoints, Target
from sevkit.guest_owner.owner import Files, Owner, load_owner
from sevkit.guest_owner.owner_file import parse_owner_file
from sevkit.measure.terms import Mode
from sevkit.secret import Secret
from sevkit.testing import sev_chain
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.kubevirt.host import SimulatedHost
from sevkit.testing.kubevirt.owner_side import CPU_MODEL, VCPUS, make_vmi
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.snp_chain import SimulatedRoots

if TYPE_CHECKING:
    from pathlib import Path

    from sevkit.testing.kubevirt.simulation import SimulatedKubeVirt

FIRMWARE: Final = encode_firmware(FirmwareImage())
OTHER_FIRMWARE: Final = encode_firmware(FirmwareImage(filler=1))
PASSPHRASE: Final = b"the passphrase of the disk"
TABLE: Final = encode_secret_table([SecretEntry(DISK_GUID, Secret(PASSPHRASE))])
FILES: Final = {"OVMF_CODE.cc.fd": FIRMWARE, "OVMF.amdsev.fd": FIRMWARE}
RISKS: Final = ("unmeasured-boot", "unmeasured-variables")


@dataclass(frozen=True)
class Hardware:
    """Hosts, and who made their chips."""

    hosts: list[SimulatedHost]
    roots: sev_chain.SimulatedRoots
    snp_roots: SimulatedRoots


def make_hardware() -> Hardware:
    """Return two hosts of one maker's chips; making keys takes a second."""
    roots, snp_roots = sev_chain.make_roots(), SimulatedRoots(ProductLine.MILAN)
    chips = [ChipIdentity(Product.MILAN, roots, snp_roots) for _ in range(2)]
    hosts = [SimulatedHost(f"node-{n}", SecureProcessor(chip)) for n, chip in enumerate(chips)]
    return Hardware(hosts, roots, snp_roots)


def write_owner(folder: Path, hardware: Hardware, **changes: object) -> Path:
    """Write a GuestOwner file and what it names; ``changes`` are keys of its ``spec``."""
    (folder / "OVMF.fd").write_bytes(FIRMWARE)
    (folder / "disk.key").write_bytes(PASSPHRASE)
    (folder / "disk.key").chmod(0o600)
    ca = hardware.roots.ca
    (folder / "ca.cert").write_bytes(ca.ask.data + ca.ark.data)
    (folder / "ark.cert").write_bytes(hardware.roots.root)
    ceks = b"".join(host.processor.identity.signed_cek for host in hardware.hosts)
    (folder / "ceks.cert").write_bytes(ceks)
    spec: dict[str, object] = {
        "mode": ["sev", "sev-es"],
        "firmware": {"file": "OVMF.fd"},
        "vcpus": VCPUS,
        "cpu": CPU_MODEL,
        "ca": "ca.cert",
        "roots": ["ark.cert"],
        "ceks": ["ceks.cert"],
        "accept": list(RISKS),
        "secrets": [{"guid": str(DISK_GUID), "file": "disk.key"}],
    }
    document = {"apiVersion": "sevkit.io/v1alpha1", "kind": "GuestOwner", "spec": spec | changes}
    path = folder / "owner.json"
    path.write_text(json.dumps(document))
    return path


def read_owner(path: Path) -> Owner:
    """Return the owner that a file describes."""

    def read(name: str, _: int) -> bytes:
        return (path.parent / name).read_bytes()

    return load_owner(parse_owner_file(path.read_bytes()), Files(read, read))


def write_kubeconfig(folder: Path, kubevirt: SimulatedKubeVirt) -> Path:
    """Write how to reach the cluster."""
    cluster = {
        "server": kubevirt.base_url,
        "certificate-authority-data": base64.b64encode(kubevirt.ca).decode(),
    }
    config = {
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
        "clusters": [{"name": "one", "cluster": cluster}],
        "users": [{"name": "one", "user": {"token": "t"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


def connect(folder: Path, kubevirt: SimulatedKubeVirt) -> ClusterEndpoints:
    """Return its endpoints."""
    given = {
        "kubeconfig": str(write_kubeconfig(folder, kubevirt)),
        "context": "",
        "allow_kubeconfig_exec": False,
    }
    return ClusterEndpoints(Connection(find_access(given, {})))


def create(kubevirt: SimulatedKubeVirt, mode: Mode = Mode.SEV_ES, **metadata: object) -> Target:
    """Create a VMI that waits for its owner; ``metadata`` may name it."""
    vmi = make_vmi(mode)
    vmi["metadata"].update(metadata)
    kubevirt.create(vmi)
    return Target("default", vmi["metadata"]["name"])
