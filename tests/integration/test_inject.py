"""``sevkit inject`` as a process, and over every manifest of the corpus."""

from __future__ import annotations

import difflib
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.documents import parse_documents
from sevkit.documents.edit import Manuscript
from sevkit.kubevirt.injection import Settings, inject
from sevkit.kubevirt.installation import UNKNOWN
from sevkit.kubevirt.launch_security import Around
from sevkit.kubevirt.policy import DEFAULT, Passthrough, Policy
from sevkit.kubevirt.tiers import Tier, tier_of
from sevkit.kubevirt.vmi_templates import find_makers
from sevkit.testing.kubevirt.json_patch import apply_patch

if TYPE_CHECKING:
    from pathlib import Path

VM: Final = b"""\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: web}
spec: {template: {spec: {domain: {devices: {}}}}} # \xc3\xa9
"""


def run(
    arguments: str, data: bytes = b"", redirection: str = ""
) -> subprocess.CompletedProcess[bytes]:
    words = f"{shlex.quote(sys.executable)} -m sevkit inject {arguments} {redirection}"
    return subprocess.run(
        ["/bin/sh", "-c", words], input=data, capture_output=True, timeout=60, check=False
    )


def test_a_pipe_goes_through_and_again_through() -> None:
    once = run("-f - --confidential snp", VM)
    assert (once.returncode, once.stderr) == (0, b"")
    assert once.stdout.endswith(b" # \xc3\xa9\n")
    twice = run("-f - --confidential snp", once.stdout)
    assert (twice.returncode, twice.stdout) == (0, once.stdout)
    assert run("-f - --confidential snp --check", once.stdout).returncode == 0
    assert run("-f - --confidential snp --check", VM).returncode == 3


def test_a_locale_without_letters_changes_no_byte() -> None:
    plain = run("-f -", VM)
    bare = run("-f -", VM, "2>&-")
    assert plain.stdout == bare.stdout == VM


def test_a_reader_that_went_away_is_no_verdict() -> None:
    line = f"{shlex.quote(sys.executable)} -m sevkit inject -f - --confidential snp"
    done = subprocess.run(
        ["/bin/bash", "-c", f"{line} | true; echo ${{PIPESTATUS[0]}}"],
        input=VM + b"---\n" + b"# \n" * 200_000,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() in {b"141", b"0"}
    assert done.stderr == b""


POLICIES: Final = {
    "default": DEFAULT,
    "all": Policy(cpu_model="EPYC-Milan", passthrough=Passthrough.ALLOW),
}


def manifests(corpus: Path) -> list[Path]:
    found = sorted(
        path
        for folder in ("manifests", "fixtures")
        for path in (corpus / "kubevirt" / folder).glob("*.yaml")
    )
    assert len(found) > 20
    return found


@pytest.mark.parametrize(
    ("policy", "attestation"), [("default", False), ("default", True), ("all", False)]
)
@pytest.mark.parametrize("tier", Tier)
def test_every_manifest_of_the_corpus_is_changed_as_asked_or_refused(
    corpus: Path, tier: Tier, policy: str, attestation: bool
) -> None:
    asked = Settings(tier, POLICIES[policy], Around(UNKNOWN, None), attestation)
    changed_files = 0
    for path in manifests(corpus):
        data = path.read_bytes()
        manuscript = Manuscript(data, path.name)
        outcomes = [inject(value, asked) for value in manuscript.values]
        changed = manuscript.change(dict(enumerate(one.value for one in outcomes)))
        assert parse_documents(changed, path.name) == tuple(one.value for one in outcomes)
        for value, outcome in zip(manuscript.values, outcomes, strict=True):
            assert isinstance(value, dict)
            operations = [
                one.to_json() for each in outcome.judgements for one in each.decision.operations
            ]
            assert apply_patch(value, operations) == outcome.value
            again = inject(outcome.value, asked)
            assert again.value == outcome.value
            for maker, judgement in zip(
                find_makers(outcome.value), outcome.judgements, strict=True
            ):
                if not judgement.decision.refusals and "instancetype" not in str(maker.body):
                    found: Any = maker.body
                    for part in (*maker.kind.template, "spec", "domain", "launchSecurity"):
                        found = found[part]
                    given = tier_of(found)
                    assert given is not None
                    assert given.strength >= tier.strength
        # Braces with nothing in them are opened; every other line stays, in its order.
        lines = difflib.unified_diff(
            data.decode().splitlines(), changed.decode().splitlines(), n=0, lineterm=""
        )
        gone = [line for line in lines if line[:1] == "-" and line[:3] != "---"]
        assert all(line.endswith(": {}") for line in gone)
        changed_files += changed != data
    assert changed_files > 5
