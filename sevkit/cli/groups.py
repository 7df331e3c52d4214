"""The command groups, each a table of names, implementations and one line of help."""

from __future__ import annotations

from typing import Final

from sevkit.cli.base import LazyGroup

attest: Final = LazyGroup(
    "attest",
    {
        "report": ("sevkit.cli.attest_report:command", "Verify an SEV-SNP attestation report."),
        "launch": ("sevkit.cli.attest_launch:command", "Verify a SEV or SEV-ES launch."),
        "platform": ("sevkit.cli.attest_platform:command", "Verify a SEV platform chain."),
        "domain": ("sevkit.cli.attest_domain:command", "Attest a plain libvirt domain."),
        "explain": ("sevkit.cli.attest_explain:command", "Find what would produce a digest."),
        "vmi": ("sevkit.cli.attest_vmi:command", "Attest a KubeVirt VMI, end to end."),
        "watch": ("sevkit.cli.attest_watch:command", "Attest every VMI of the owner's."),
    },
    "Is the evidence authentic, and is it what you expect?",
)
session: Final = LazyGroup(
    "session",
    {"new": ("sevkit.cli.session_new:command", "Make a launch session for one launch.")},
    "The guest owner's launch sessions (SEV and SEV-ES).",
)
secret: Final = LazyGroup(
    "secret",
    {"pack": ("sevkit.cli.secret_pack:command", "Encrypt a secret table for one launch.")},
    "Secrets for injection at launch (SEV and SEV-ES).",
)
idblock: Final = LazyGroup(
    "idblock",
    {"new": ("sevkit.cli.idblock_new:command", "Make an ID block and its authentication.")},
    "SNP ID blocks.",
)
inspect: Final = LazyGroup(
    "inspect",
    {
        "report": ("sevkit.cli.inspect_report:command", "An SNP attestation report."),
        "certificate": (
            "sevkit.cli.inspect_certificate:command",
            "An X.509 or SEV certificate or chain.",
        ),
        "firmware": ("sevkit.cli.inspect_firmware:command", "An OVMF image's SEV tables."),
        "vmsa": ("sevkit.cli.inspect_vmsa:command", "A VMSA page."),
        "session": ("sevkit.cli.inspect_session:command", "A launch session blob."),
    },
    "Show what a file says. Nothing is verified: the words are the file's own.",
)
kds: Final = LazyGroup(
    "kds",
    {"fetch": ("sevkit.cli.kds_fetch:command", "Fetch VCEKs, chains and CRLs into the cache.")},
    "AMD's Key Distribution Service.",
)
node: Final = LazyGroup(
    "node",
    {
        "probe": ("sevkit.cli.node_probe:command", "Show what this host says about SEV."),
        "doctor": ("sevkit.cli.node_doctor:command", "Judge whether this host can run guests."),
    },
    "What this host can do, and why not, with the fix.",
)
cluster: Final = LazyGroup(
    "cluster",
    {
        "nodes": ("sevkit.cli.cluster_nodes:command", "Which node can run what, and why not."),
        "preflight": ("sevkit.cli.cluster_preflight:command", "Is this cluster ready?"),
    },
    "Is this cluster ready; what can its nodes do, and why not, with the fix.",
)
guest: Final = LazyGroup(
    "guest",
    {"report": ("sevkit.cli.guest_report:command", "Fetch a report over a nonce.")},
    "What runs inside an SNP guest.",
)
simulate: Final = LazyGroup(
    "simulate",
    {
        "host": ("sevkit.cli.simulate_host:command", "Write a simulated host's /proc, /sys, /dev."),
        "key-service": (
            "sevkit.cli.simulate_key_service:command",
            "Serve simulated chips' certificates.",
        ),
        "kubevirt": (
            "sevkit.cli.simulate_kubevirt:command",
            "Serve KubeVirt's launch subresources.",
        ),
    },
    "Simulated hardware, for rehearsal. Nothing of it is trusted unless its root is given by name.",
)
