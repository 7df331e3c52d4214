"""The guest owner's side of a rehearsed launch, and VMIs to rehearse with.

``OwnerSide`` does with ``sevkit.attest`` what a guest owner has to do, without deciding anything by
itself; tests of the endpoints and demonstrations drive it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.abi.secret_packet import DISK_GUID, SecretEntry, encode_secret_table
from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.attest.sev_launch import LaunchClaim, LaunchExpectations, VerifiedLaunch, judge_launch
from sevkit.attest.sev_platform import PlatformExpectations, judge_platform
from sevkit.attest.sev_session import LaunchSession, new_session
from sevkit.errors import VerificationError
from sevkit.kubevirt.subresources import parse_measurement_info, parse_platform_info
from sevkit.measure.launch_digest import compute_sev_digest, compute_sev_es_digest
from sevkit.measure.launch_measurement import parse_launch_measurement
from sevkit.measure.reference import Reference
from sevkit.measure.terms import Era, Mode
from sevkit.measure.vcpu import Registers, signature_of_model
from sevkit.secret import Secret

if TYPE_CHECKING:
    from sevkit.abi.sevca import CaChain

CPU_MODEL: Final = "EPYC-Milan"
VCPUS: Final = 2
#: A secret table with a disk key, as a launch packet carries it.
TABLE: Final = encode_secret_table([SecretEntry(DISK_GUID, Secret(b"the key of the disk"))])


@final
@dataclass(frozen=True)
class OwnerSide:
    """What a guest owner has: his firmware, whom he trusts, and the signed CEKs of the hosts."""

    firmware: bytes
    ca: CaChain
    roots: tuple[bytes, ...]
    signed_ceks: tuple[bytes, ...]

    def new_session(self, platform_info: bytes, policy: int) -> LaunchSession:
        """Return a session for the platform of a SEVPlatformInfo; raises ``VerificationError``."""
        chain = parse_platform_info(platform_info)
        for data in self.signed_ceks:
            cek = parse_sev_certificate(data)
            if cek.key_sha256 == chain.cek.key_sha256:
                chain = chain.with_cek(cek)
        verdict, platform = judge_platform(
            chain, PlatformExpectations(), at=datetime.now(UTC), ca=self.ca, roots=self.roots
        )
        if platform is None:
            raise VerificationError(f"the platform is not genuine: {verdict}")
        return new_session(platform, policy)

    def reference(self, mode: Mode, vcpus: int = VCPUS) -> Reference:
        """Return the digest that a guest of ``mode`` has to have."""
        if mode is Mode.SEV:
            return Reference(
                compute_sev_digest(self.firmware), mode, "owner's", covers_kernel=False
            )
        registers = Registers(signature_of_model(CPU_MODEL), 0, era=Era.INIT)
        digest = compute_sev_es_digest(self.firmware, registers, vcpus)
        return Reference(digest, mode, "owner's", covers_kernel=False)

    def judge(
        self, measurement_info: bytes, session: LaunchSession, reference: Reference
    ) -> VerifiedLaunch | None:
        """Return the launch if the measurement is the one that ``reference`` demands."""
        info = parse_measurement_info(measurement_info)
        measurement = parse_launch_measurement(info.measurement)
        claim = LaunchClaim(measurement, info.api_major, info.api_minor, info.build_id, info.policy)
        tik = session.keys.tik
        expected = LaunchExpectations()
        _, launch = judge_launch(
            claim, tik, session.policy, [reference], expected, at=datetime.now(UTC)
        )
        return launch


def make_vmi(mode: Mode, *, attestation: bool = True) -> dict[str, Any]:
    """Return a VMI that KubeVirt's admission takes, under a name of its own."""
    sev: dict[str, Any] = {"attestation": {}} if attestation else {}
    if mode is Mode.SEV_ES:
        sev["policy"] = {"encryptedState": True}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": f"vmi-{uuid.uuid4().hex[:8]}"},
        "spec": {
            **({"startStrategy": "Paused"} if attestation else {}),
            "domain": {
                "devices": {},
                "memory": {"guest": "1Gi"},
                "cpu": {"sockets": 1, "cores": VCPUS, "threads": 1, "model": CPU_MODEL},
                "firmware": {"bootloader": {"efi": {"secureBoot": False}}},
                "launchSecurity": {"snp": {}} if mode is Mode.SNP else {"sev": sev},
            },
        },
    }
