"""What an owner holds a launch against: his own firmware, digests, roots, lists and secrets.

Made of a GuestOwner file, or of options that say the same, and of the files that they name.
Nothing of it comes from the VMI or its cluster.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from sevkit.abi.secret_packet import SecretEntry, check_secret_area, encode_secret_table
from sevkit.abi.sevca import CaChain, parse_ca_certificate, parse_ca_chain
from sevkit.abi.sevcert import SIZE, SevCertificate, Usage, parse_sev_certificate
from sevkit.attest.sev_launch import LaunchExpectations
from sevkit.attest.sev_platform import PlatformExpectations
from sevkit.attest.sev_session import check_policy
from sevkit.errors import ExpectationError, FormatError, InsecureUsage
from sevkit.guest_owner.owner_file import RISKS, STRUCTURE
from sevkit.kubevirt.manifests import GUEST_POLICIES
from sevkit.measure.ovmf import MAX_FIRMWARE, parse_ovmf
from sevkit.measure.reference import REFERENCE_LIMIT, Reference, parse_reference_set
from sevkit.measure.sweep import Request, compute_references
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.guest_owner.owner_file import OwnerFile
    from sevkit.measure.terms import Mode

_SMALL: Final = 1 << 20


@final
@dataclass(frozen=True, slots=True)
class Files:
    """How named files are read: ``read(name, limit in bytes)``, and the same for secrets."""

    read: Callable[[str, int], bytes]
    read_secret: Callable[[str, int], bytes]


@final
@dataclass(frozen=True, slots=True)
class Owner:
    """One owner.

    ``policies`` and ``references`` have the accepted modes; ``table`` is what the secrets make, or
    None for none. ``accept`` holds the risks that he takes.
    """

    firmware: bytes = field(repr=False)
    policies: Mapping[Mode, int]
    references: Mapping[Mode, tuple[Reference, ...]]
    platform: PlatformExpectations
    launch: LaunchExpectations
    ca: CaChain | None = None
    roots: tuple[bytes, ...] = field(default=(), repr=False)
    ceks: tuple[SevCertificate, ...] = field(default=(), repr=False)
    vcpus: int | None = None
    accept: frozenset[str] = frozenset()
    table: Secret | None = None
    stop: bool = False

    def unaccepted(self, references: tuple[Reference, ...]) -> tuple[str, ...]:
        """Return the risks of these digests that he does not accept, by their names.

        UEFI variables are outside every digest of SEV and SEV-ES under KubeVirt.
        """
        risks = ["unmeasured-variables"]
        if not all(reference.covers_kernel for reference in references):
            risks.insert(0, "unmeasured-boot")
        return tuple(risk for risk in risks if risk not in self.accept)

    def check_release(self) -> None:
        """Refuse what could never be released, before anything is asked or made.

        Raises ``ExpectationError`` (``secret.area``) for a firmware without room for the secrets,
        ``InsecureUsage`` for a risk that comes with every digest and is not accepted.
        """
        if self.table is None:
            raise ExpectationError(
                "there is no secret to inject", hint="name one, or use --no-inject"
            )
        area = parse_ovmf(self.firmware).secret_area
        check_secret_area(self.table, None if area is None else (area.gpa, area.size))
        each = [self.unaccepted((one,)) for found in self.references.values() for one in found]
        always = set(each[0]).intersection(*each[1:])
        if always:
            raise refuse_coverage(tuple(risk for risk in RISKS if risk in always))


def refuse_coverage(risks: tuple[str, ...]) -> InsecureUsage:
    """Return the error for risks (one or more) that are not accepted."""
    words = {
        "unmeasured-boot": "the digest covers no kernel",
        "unmeasured-variables": "UEFI variables are not measured",
    }
    said = "; ".join(f"{RISKS[risk]}: {words[risk]}" for risk in risks)
    options = " ".join(f"--accept {risk}" for risk in risks)
    return InsecureUsage(
        f"no secret goes to a guest whose boot can be changed: {said}",
        hint=f"if the firmware deals with it: accept: [{', '.join(risks)}], or {options}",
    )


def load_owner(file: OwnerFile, files: Files) -> Owner:
    """Return the owner that a file describes, from the files that it names.

    Raises ``FormatError`` and ``InsecureUsage`` for what they hold, and what ``files`` raises.
    """
    firmware = files.read(file.firmware, MAX_FIRMWARE)
    parse_ovmf(firmware)
    digest = hashlib.sha256(firmware).hexdigest()
    if file.firmware_sha256 not in {None, digest}:
        raise FormatError(
            STRUCTURE,
            "spec.firmware.sha256: is not that of the file",
            hint=f"the file's is {digest}: is it the one that you mean?",
        )
    policies = {
        mode: GUEST_POLICIES[mode]
        for mode in file.modes
        if file.guest_policy in {None, GUEST_POLICIES[mode]}
    }
    for policy in policies.values():
        check_policy(policy)
    entries = [
        SecretEntry(guid, Secret(files.read_secret(name, _SMALL))) for guid, name in file.secrets
    ]
    return Owner(
        firmware,
        policies,
        _references(file, policies, firmware, files),
        PlatformExpectations(file.chips, file.oca),
        LaunchExpectations(file.min_firmware, firmware_sha256=digest),
        None if file.ca is None else parse_ca_chain(files.read(file.ca, _SMALL)),
        tuple(_root(files.read(name, _SMALL), name) for name in file.roots),
        tuple(cek for name in file.ceks for cek in _ceks(files.read(name, _SMALL), name)),
        None if file.vcpus is None else file.vcpus[1],
        frozenset(file.accept),
        encode_secret_table(entries) if entries else None,
        file.stop,
    )


def _references(
    file: OwnerFile, policies: Mapping[Mode, int], firmware: bytes, files: Files
) -> dict[Mode, tuple[Reference, ...]]:
    found: dict[Mode, tuple[Reference, ...]] = {}
    if file.reference is not None:
        known = parse_reference_set(files.read(file.reference, REFERENCE_LIMIT)).entries
        digest = hashlib.sha256(firmware).hexdigest()
        for mode in policies:
            found[mode] = tuple(entry for entry in known if entry.mode is mode)
            for entry in found[mode]:
                if entry.parameters.get("firmware_sha256", digest) != digest:
                    raise FormatError(
                        STRUCTURE,
                        "spec.reference: is of another firmware than spec.firmware.file",
                        hint="make it anew: sevkit measure --output json",
                    )
    else:
        first, last = file.vcpus or (1, 1)
        for mode in policies:
            request = Request(mode, firmware, first, last, file.cpus)
            found[mode] = compute_references(request).entries
    for mode, entries in found.items():
        if not entries:
            raise FormatError(
                STRUCTURE,
                f"spec.reference: has no digest for {mode}",
                hint="make one: sevkit measure --output json, or leave the mode out",
            )
    return found


def _root(data: bytes, name: str) -> bytes:
    root = parse_ca_certificate(data, name=f"spec.roots: {name}")
    if root.usage is not Usage.ARK:
        raise FormatError(f"spec.roots: {name}", "the certificate is for an ASK")
    return root.data


def _ceks(data: bytes, name: str) -> tuple[SevCertificate, ...]:
    """Return the signed CEKs of a file: one, or several one after the other."""
    if not data or len(data) % SIZE:
        raise FormatError(f"spec.ceks: {name}", f"expected {SIZE} bytes for each CEK")
    parts = (data[start : start + SIZE] for start in range(0, len(data), SIZE))
    found = tuple(parse_sev_certificate(part, name="CEK") for part in parts)
    if any(one.usage is not Usage.CEK for one in found):
        raise FormatError(f"spec.ceks: {name}", "holds a certificate that is no CEK")
    return found
