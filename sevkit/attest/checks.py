"""The catalogues: every check that exists, by subject, in the order in which verdicts show them.

Names are stable: operators script against them. ``docs/checks.md`` is made from these tables.
"""

from __future__ import annotations

from typing import Final

from sevkit.attest.verdict import Check, Kind

_A: Final = Kind.AUTHENTICITY
_B: Final = Kind.ACCEPTANCE
_KUBEVIRT: Final = "KubeVirt pkg/virt-api/rest/sev.go"
_SNP: Final = "56860"
_SEV: Final = "55766"
_OURS: Final = "sevkit trust model"

COVERAGE: Final = (
    Check("coverage.firmware", _B, _OURS, "Does the digest cover the firmware?"),
    Check("coverage.vcpu-state", _B, _OURS, "Does the digest cover the vCPUs' initial state?"),
    Check("coverage.kernel", _B, _OURS, "Does the digest cover kernel, initrd and command line?"),
    Check("coverage.uefi-variables", _B, _OURS, "Can unmeasured UEFI variables change the boot?"),
)

SNP_REPORT: Final = (
    Check("chain.root", _A, "57230 3", "Is the ARK one of AMD's pinned roots?", required=True),
    Check("chain.ark", _A, "57230 3", "Did the ARK sign itself?", required=True),
    Check("chain.ask", _A, "57230 3", "Did the ARK sign the ASK or ASVK?", required=True),
    Check("chain.vek", _A, "57230 3", "Did the ASK or ASVK sign the VEK?", required=True),
    Check("chain.names", _A, "57230 3", "Do subjects and issuers match?", required=True),
    Check(
        "chain.constraints",
        _A,
        "RFC 5280 4.2.1",
        "May the issuers issue certificates?",
        required=True,
    ),
    Check("chain.algorithms", _A, "57230 3", "Are keys and signatures AMD's kinds?", required=True),
    Check(
        "chain.not-before", _A, "RFC 5280 4.1.2.5", "Is every certificate valid yet?", required=True
    ),
    Check("chain.not-after", _A, "RFC 5280 4.1.2.5", "Is no certificate expired?", required=True),
    Check("crl.signature", _A, "RFC 5280 5.1.1.3", "Did the ARK sign the revocation list?"),
    Check("crl.whole", _A, "RFC 5280 5.2", "Is it whole, with nothing critical that is unknown?"),
    Check("crl.dates", _A, "RFC 5280 5.1.2", "Is the revocation list in date?"),
    Check("chain.revocation", _A, "57230 4", "Is no certificate of the chain revoked?"),
    Check("vek.unique", _A, "RFC 5280 4.2", "Does no extension occur twice?", required=True),
    Check("vek.known", _A, "57230 3", "Are there no extensions but AMD's?", required=True),
    Check("vek.extensions", _A, "57230 3", "Are AMD's extensions there and sound?", required=True),
    Check("vek.product", _A, "57230 3", "Does the VEK belong to this product?", required=True),
    Check("report.product", _A, f"{_SNP} 7.3", "Does the report come from the VEK's product line?"),
    Check(
        "report.signing-key",
        _A,
        f"{_SNP} 7.3",
        "Is the VEK of the kind that the report names?",
        required=True,
    ),
    Check("report.signature", _A, f"{_SNP} 7.3", "Did the VEK sign the report?", required=True),
    Check("tcb.vek", _A, f"{_SNP} 7.3", "Is the reported TCB the VEK's?", required=True),
    Check("chip.id", _A, f"{_SNP} 7.3", "Is the chip ID the VEK's hardware ID?"),
    Check("report.data", _B, f"{_SNP} 7.3", "Does the report answer this nonce?"),
    Check("report.measurement", _B, f"{_SNP} 8.17", "Is the launch digest an expected one?"),
    Check("policy.debug", _B, f"{_SNP} 4.3", "Is debugging forbidden?", required=True),
    Check(
        "policy.migration-agent", _B, f"{_SNP} 4.3", "Is no migration agent allowed?", required=True
    ),
    Check("policy.single-socket", _B, f"{_SNP} 4.3", "Is the guest held to one socket?"),
    Check("policy.reference", _B, _OURS, "Is the guest policy the one that goes with the digest?"),
    Check(
        "report.vmpl", _B, f"{_SNP} 7.3", "Was the report asked for at this VMPL?", required=True
    ),
    Check(
        "tcb.order",
        _B,
        f"{_SNP} 2.2",
        "Are the TCB versions ordered as they must be?",
        required=True,
    ),
    Check("product.demanded", _B, _OURS, "Is the product the demanded one?"),
    Check("tcb.minimum", _B, f"{_SNP} 2.2", "Is the TCB at least the demanded one?"),
    Check("chip.allowed", _B, _OURS, "Is the chip on the owner's list?"),
    Check("platform.info", _B, f"{_SNP} 7.3", "Are all platform info bits known?"),
    Check("platform.alias-check", _B, f"{_SNP} 7.3", "Did the platform check for memory aliases?"),
    Check("report.host-data", _B, f"{_SNP} 7.3", "Is the host data the expected one?"),
    Check("report.id-key", _B, f"{_SNP} 7.3", "Is the ID key the expected one?"),
    Check("report.author-key", _B, f"{_SNP} 7.3", "Is the author key the expected one?"),
    Check("report.family-id", _B, f"{_SNP} 7.3", "Is the family ID the expected one?"),
    Check("report.image-id", _B, f"{_SNP} 7.3", "Is the image ID the expected one?"),
    Check("report.guest-svn", _B, f"{_SNP} 7.3", "Is the guest SVN at least the demanded one?"),
    *COVERAGE,
)

SEV_PLATFORM: Final = (
    Check(
        "platform.root", _A, f"{_SEV} B.1", "Is the ARK one of AMD's pinned roots?", required=True
    ),
    Check("platform.ark", _A, f"{_SEV} B.1", "Did the ARK sign itself?", required=True),
    Check("platform.ask", _A, f"{_SEV} B.1", "Did the ARK sign the ASK?", required=True),
    Check("platform.cek", _A, f"{_SEV} B.1", "Did the ASK sign the CEK?", required=True),
    Check("platform.oca", _A, f"{_SEV} C.1", "Did the OCA sign itself?", required=True),
    Check("platform.pek", _A, f"{_SEV} C.1", "Did CEK and OCA both sign the PEK?", required=True),
    Check("platform.pdh", _A, f"{_SEV} C.1", "Did the PEK sign the PDH?", required=True),
    Check(
        "platform.keys",
        _A,
        f"{_SEV} C.1",
        "Are usages and algorithms those of each role?",
        required=True,
    ),
    Check("platform.chip", _B, _OURS, "Is the CEK on the owner's list?"),
    Check("platform.owner", _B, _OURS, "Is the OCA on the owner's list?"),
)

SEV_LAUNCH: Final = (
    Check(
        "launch.measurement",
        _A,
        f"{_SEV} 6.5",
        "Is the launch measurement the TIK's HMAC over the owner's own digest?",
        required=True,
    ),
    Check("launch.info-policy", _B, _OURS, "Does the host report the policy of the session?"),
    Check(
        "launch.loader", _B, _OURS, "What does the host say of the loader? Shown, never trusted."
    ),
    Check("launch.policy-debug", _B, f"{_SEV} 3", "Is debugging forbidden?", required=True),
    Check(
        "launch.policy-es",
        _B,
        f"{_SEV} 3",
        "Does the policy demand what was measured?",
        required=True,
    ),
    Check(
        "launch.policy-reference",
        _B,
        _OURS,
        "Is the guest policy the one that goes with the digest?",
    ),
    Check(
        "launch.firmware-version",
        _B,
        f"{_SEV} 5.6",
        "Is the SEV firmware at least the demanded one?",
    ),
    *COVERAGE,
)

_DOMAIN: Final = (
    Check(
        "domain.remote", _B, _OURS, "Is the hypervisor another machine than this?", required=True
    ),
    Check(
        "domain.paused", _B, _OURS, "Is the guest paused, so still to be decided on?", required=True
    ),
    Check(
        "domain.session",
        _B,
        f"{_SEV} 6.2",
        "Has the domain a session and a DH certificate, the owner's where they are known?",
        required=True,
    ),
    Check(
        "domain.policy",
        _B,
        f"{_SEV} 3",
        "Does the domain ask for the policy of the session?",
        required=True,
    ),
    Check(
        "domain.firmware", _B, _OURS, "Does the domain name a firmware by its path?", required=True
    ),
    Check(
        "domain.variables",
        _B,
        _OURS,
        "Does the domain do without a store of UEFI variables?",
        required=True,
    ),
    Check(
        "domain.boot",
        _B,
        _OURS,
        "Is a direct boot measured, and of the files that the owner expects?",
        required=True,
    ),
    Check("domain.vcpus", _B, _OURS, "Does the domain start with the vCPUs that are expected?"),
)

SEV_DOMAIN: Final = (*_DOMAIN, *SEV_LAUNCH)

KUBEVIRT_LAUNCH: Final = (
    Check("vmi.mode", _B, _OURS, "Does the VMI ask for a mode and a policy of the owner's?"),
    Check("vmi.session", _B, _KUBEVIRT, "Has the VMI the owner's session, and no other?"),
    Check("vmi.launch", _B, _KUBEVIRT, "Did the guest start with it, and wait paused?"),
    Check("vmi.answers", Kind.SHAPE, _KUBEVIRT, "Have the host's answers their shape?"),
    *SEV_PLATFORM,
    *SEV_LAUNCH,
    Check("secret.coverage", Kind.RISK, _OURS, "Is what is not measured accepted by the owner?"),
    Check("secret.injected", _B, f"{_SEV} 6.6", "Is the secret in?"),
    Check("vmi.resumed", _B, _KUBEVIRT, "Does the guest run?"),
)
