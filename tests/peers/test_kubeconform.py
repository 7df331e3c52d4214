"""Manifests that sevkit reads are held against KubeVirt's own schema by kubeconform.

The schema is that of KubeVirt's custom resource definitions. With ``-strict`` kubeconform takes
another file for it, in which what a schema does not name is refused; a cluster drops such fields
without a word, and so guests come up plain that were meant to be confidential.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack import kubevirt_admission
from hack.kubevirt_admission_server import crds
from hack.kubevirt_cases import vmi
from sevkit.documents import parse_documents
from sevkit.errors import FormatError, UsageError
from sevkit.kubevirt.manifests import parse_manifest
from sevkit.measure.terms import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from subprocess import CompletedProcess

    Ask = Callable[..., CompletedProcess[bytes]]

#: kubeconform's template of a schema's file name.
NAMES: Final = "{{.ResourceKind}}{{.KindSuffix}}{{.StrictSuffix}}.json"
VALID: Final = "statusValid"
#: By kind: where the domain of a guest is.
DOMAINS: Final = {
    "VirtualMachineInstance": ("spec", "domain"),
    "VirtualMachine": ("spec", "template", "spec", "domain"),
}
#: By the word in a file's name, the longer first.
MODES: Final = {"snp": Mode.SNP, "sev-es": Mode.SEV_ES, "sev": Mode.SEV}
#: What a manifest says beside its domain.
HEAD: Final = (
    "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {name: guest},"
    " spec: {domain: {devices: {}, %s}}}"
)


def closed(schema: Any) -> Any:  # noqa: ANN401  # JSON
    """Return a schema that refuses what it does not name, as its converters make it."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get(
        "x-kubernetes-preserve-unknown-fields"
    ):
        found.setdefault("additionalProperties", False)
    return found


@dataclass(frozen=True)
class Kubeconform:
    """kubeconform, with KubeVirt's schema."""

    ask: Ask
    program: Path
    schemas: Path

    def judge(self, *paths: Path, data: str = "", strict: bool = True) -> dict[str, dict[str, Any]]:
        """Return its verdicts on files, or on ``data``, by file and name."""
        words = ["-output", "json", "-verbose", "-schema-location", str(self.schemas / NAMES)]
        words += ["-strict"] if strict else []
        done = self.ask(self.program, *words, *(paths or ("-",)), data=data.encode())
        found = json.loads(done.stdout)["resources"]
        assert done.returncode == any(row["status"] != VALID for row in found), done.stderr
        return {f"{row['filename']} {row['name']}": row for row in found}

    def verdict(self, text: str, *, strict: bool = True) -> dict[str, Any]:
        """Return its verdict on a text of one object."""
        (found,) = self.judge(data=text, strict=strict).values()
        return found


@pytest.fixture(scope="module")
def kubeconform(
    ask: Ask, find_program: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Kubeconform:
    program = find_program("kubeconform", "kubeconform")
    if not kubevirt_admission.is_there():
        pytest.skip(kubevirt_admission.why_not())
    folder = tmp_path_factory.mktemp("schemas")
    for definition in crds():
        kind, group = definition["spec"]["names"]["kind"].lower(), definition["spec"]["group"]
        for version in definition["spec"]["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            name = f"{kind}-{group.split('.')[0]}-{version['name']}"
            (folder / f"{name}.json").write_text(json.dumps(schema))
            (folder / f"{name}-strict.json").write_text(json.dumps(closed(schema)))
    return Kubeconform(ask, program, folder)


def read(text: str) -> tuple[Any, ...]:
    return parse_documents(text.encode(), "test")


@pytest.mark.parametrize(
    ("domain", "mode"),
    [
        ("launchSecurity: {sev: {}}", Mode.SEV),
        ("launchSecurity: {sev: {policy: {encryptedState: true}}}", Mode.SEV_ES),
        ("launchSecurity: {sev: {policy: {encryptedState: yes}}}", Mode.SEV_ES),
        ("launchSecurity: {sev: {policy: {encryptedState: Off}}}", Mode.SEV),
        ("launchSecurity: {snp: {}}, cpu: {cores: 010, model: EPYC-Milan}", Mode.SNP),
        ("launchSecurity: {snp: {}}, cpu: {cores: 0x8, model: '010'}", Mode.SNP),
        ("launchSecurity: {snp: {}}, resources: {limits: {cpu: 4, memory: 1Gi}}", Mode.SNP),
        ("launchSecurity: {snp: {}}, resources: {requests: {cpu: '4'}}", Mode.SNP),
    ],
)
def test_what_the_schema_takes_is_read(kubeconform: Kubeconform, domain: str, mode: Mode) -> None:
    assert kubeconform.verdict(HEAD % domain)["status"] == VALID
    assert parse_manifest(read(HEAD % domain)).mode is mode


@pytest.mark.parametrize(
    ("domain", "path"),
    [
        (
            "launchSecurity: {sev: {policy: {encryptedState: 'yes'}}}",
            "launchSecurity/sev/policy/encryptedState",
        ),
        (
            "launchSecurity: {sev: {policy: {encryptedState: 1}}}",
            "launchSecurity/sev/policy/encryptedState",
        ),
        ("launchSecurity: {sev: {policy: []}}", "launchSecurity/sev/policy"),
        ("launchSecurity: {sev: yes}", "launchSecurity/sev"),
        ("launchSecurity: {snp: yes}", "launchSecurity/snp"),
        ("launchSecurity: {snp: 0}", "launchSecurity/snp"),
        ("launchSecurity: {snp: []}", "launchSecurity/snp"),
        ("launchSecurity: {snp: '{}'}", "launchSecurity/snp"),
        ("launchSecurity: {tdx: yes}", "launchSecurity/tdx"),
        ("launchSecurity: snp", "launchSecurity"),
        ("launchSecurity: {snp: {}}, cpu: {cores: '4'}", "cpu/cores"),
        ("launchSecurity: {snp: {}}, cpu: {cores: 1.5}", "cpu/cores"),
        ("launchSecurity: {snp: {}}, cpu: {cores: yes}", "cpu/cores"),
        ("launchSecurity: {snp: {}}, cpu: {model: 010}", "cpu/model"),
        ("launchSecurity: {snp: {}}, cpu: 4", "cpu"),
    ],
)
def test_what_the_schema_refuses_is_refused(
    kubeconform: Kubeconform, domain: str, path: str
) -> None:
    found = kubeconform.verdict(HEAD % domain, strict=False)
    assert [row["path"] for row in found["validationErrors"]] == [f"/spec/domain/{path}"]
    with pytest.raises(FormatError):
        parse_manifest(read(HEAD % domain))


@pytest.mark.parametrize(
    ("domain", "member", "where"),
    [
        ("launchSecurity: {sevv: {}}", "sevv", "launchSecurity"),
        ("launchSecurity: {SNP: {}}", "SNP", "launchSecurity"),
        ("launchsecurity: {snp: {}}", "launchsecurity", ""),
    ],
)
def test_a_misspelt_launch_security_is_no_guest_for_us_and_refused_by_the_strict_schema_alone(
    kubeconform: Kubeconform, domain: str, member: str, where: str
) -> None:
    assert kubeconform.verdict(HEAD % domain, strict=False)["status"] == VALID
    (error,) = kubeconform.verdict(HEAD % domain)["validationErrors"]
    assert error["path"] == f"/spec/domain/{where}".rstrip("/")
    assert repr(member) in error["msg"]
    with pytest.raises(UsageError, match="asks for no SEV guest"):
        parse_manifest(read(HEAD % domain))


@pytest.mark.parametrize(
    "security",
    ["{sev: {policy: {encryptedStat: true}}}", "{sev: {polcy: {encryptedState: true}}}"],
)
def test_a_misspelt_policy_is_plain_sev_for_us_as_for_a_cluster_that_drops_it(
    kubeconform: Kubeconform, security: str
) -> None:
    text = HEAD % f"launchSecurity: {security}"
    assert kubeconform.verdict(text, strict=False)["status"] == VALID
    assert kubeconform.verdict(text)["status"] == "statusInvalid"
    assert parse_manifest(read(text)).mode is Mode.SEV


def test_keys_that_occur_twice_are_refused_by_both(kubeconform: Kubeconform) -> None:
    text = HEAD % "launchSecurity: {snp: {}}, cpu: {cores: 1, cores: 2}"
    assert 'key "cores" already set' in kubeconform.verdict(text)["msg"]
    with pytest.raises(FormatError, match="'cores' occurs twice"):
        read(text)


def test_a_vmi_that_the_tests_put_to_kubevirt_is_of_its_schema(kubeconform: Kubeconform) -> None:
    assert kubeconform.verdict(json.dumps(vmi({"launchSecurity": {"snp": {}}})))["status"] == VALID


def guests(documents: Iterable[Any]) -> list[dict[str, Any]]:
    return [row for row in documents if isinstance(row, dict) and row.get("kind") in DOMAINS]


def misspelt(document: dict[str, Any]) -> dict[str, Any]:
    """Return a VM or VMI that asks for a guest that KubeVirt does not know."""
    found = inner = copy.deepcopy(document)
    for key in DOMAINS[document["kind"]]:
        inner = inner[key]
    inner["launchSecurity"] = {"sevv": {}}
    return found


def test_manifests_of_the_corpus_are_valid_and_not_with_a_misspelt_launch_security(
    kubeconform: Kubeconform, corpus: Path, tmp_path: Path
) -> None:
    paths = [corpus / "kubevirt" / name for name in ("manifests", "fixtures")]
    verdicts = kubeconform.judge(*paths)
    assert {row["status"] for row in verdicts.values()} == {VALID}
    count = 0
    for path in sorted(file for folder in paths for file in folder.glob("*.yaml")):
        for document in guests(parse_documents(path.read_bytes(), path.name)):
            assert f"{path} {document['metadata'].get('name', '')}" in verdicts
            count += 1
            (tmp_path / f"right{count}.json").write_text(json.dumps(document))
            (tmp_path / f"wrong{count}.json").write_text(json.dumps(misspelt(document)))
    assert count >= 20
    again = kubeconform.judge(tmp_path)
    assert len(again) == 2 * count
    for name, row in again.items():
        if "/right" in name:
            assert row["status"] == VALID
        else:
            (error,) = row["validationErrors"]
            where = "/".join(("", *DOMAINS[row["kind"]], "launchSecurity"))
            assert error["path"] == where
            assert "'sevv'" in error["msg"]


def test_every_fixture_of_the_corpus_is_a_guest_that_is_read(
    kubeconform: Kubeconform, corpus: Path
) -> None:
    folder = corpus / "kubevirt" / "fixtures"
    for path in sorted(folder.glob("*.yaml")):
        (row,) = kubeconform.judge(path).values()
        assert row["status"] == VALID
        found = parse_manifest(parse_documents(path.read_bytes(), path.name))
        assert (found.kind, found.name) == (row["kind"], row["name"])
        assert found.mode is next(
            mode for word, mode in MODES.items() if path.stem.startswith(f"vmi-{word}")
        )
