from __future__ import annotations

import pytest

from sevkit.errors import FormatError, UsageError
from sevkit.kubevirt.policy import DEFAULT, Passthrough, Policy, Reboot, parse_policy
from sevkit.kubevirt.tiers import Tier

WHOLE = b"""\
cpuModel: EPYC-Milan
rebootPolicy: always
passthrough: allow
capacityResource: false
noNode: sev-es
simulatedNodes: true
"""


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"---\n", b"{}"])
def test_an_empty_file_is_the_default(data: bytes) -> None:
    assert parse_policy(data) == DEFAULT


def test_every_key_is_read() -> None:
    assert parse_policy(WHOLE) == Policy(
        "EPYC-Milan",
        Reboot.ALWAYS,
        Passthrough.ALLOW,
        capacity_resource=False,
        no_node=Tier.SEV_ES,
        simulated_nodes=True,
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"cpuModell: x", "unknown key 'cpuModell'"),
        (b"cpuModel: [x]", "cpuModel is not the name"),
        (b"cpuModel: host-model", "leaves the model to the host"),
        (b"cpuModel: 'a b'", "cpuModel is not the name"),
        (b"rebootPolicy: Terminate", "rebootPolicy is none of never, attestation, always"),
        (b"passthrough: true", "passthrough is none of refuse, allow"),
        (b"capacityResource: 'no'", "capacityResource is not true or false"),
        (b"noNode: best", "noNode is none of refuse, sev, sev-es, snp"),
        (b"simulatedNodes: 1", "simulatedNodes is not true or false"),
        (b"- cpuModel", "not one mapping"),
        (b"a: 1\n---\nb: 2\n", "not one mapping"),
        (b"text", "not one mapping"),
    ],
)
def test_what_is_no_policy_is_refused_as_a_whole_and_names_the_key(data: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_policy(data)


@pytest.mark.parametrize("data", [b"a: [", b"\xff", b"cpuModel: a\ncpuModel: b\n", b"{" * 5000])
def test_what_is_no_yaml_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_policy(data)


def test_the_digest_tells_policies_apart_and_is_the_same_for_the_same() -> None:
    assert parse_policy(WHOLE).digest == parse_policy(WHOLE + b"# a comment\n").digest
    assert parse_policy(WHOLE).digest != DEFAULT.digest
