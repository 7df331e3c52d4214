"""What kustomize builds of manifests is read, and it is what kustomize read: a second judge.

Its parser is not kubectl's: words such as ``yes`` are text to it, and dates are moments. So the
same file is another object when it goes through kustomize, and sevkit, which reads as kubectl does,
must be given what kustomize built. ``OTHERWISE`` has every such word that is known.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sevkit.documents import Json, parse_documents
from sevkit.errors import FormatError
from sevkit.kubevirt.manifests import parse_manifest
from sevkit.measure.terms import Mode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Ask = Callable[..., CompletedProcess[bytes]]
    Build = Callable[..., CompletedProcess[bytes]]

THING: Final = "apiVersion: example.org/v1\nkind: Thing\nmetadata: {name: thing}\n"
GUEST: Final = """
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata:
  name: guest  # how people call it
spec:
  # vCPUs
  domain:
    cpu: {cores: 04, model: EPYC-Milan}
    devices: {}
"""

_WORDS: Final = """
true True TRUE false False FALSE ~ null Null NULL nULL tRUE
0 -0 7 -12 +12 010 -010 0o10 0x1F 0b101 1_000 5_ 0_7 0x1_F 08 0888 0o8 0x _5
1.5 -.5 +.5 5. . .. 1e3 1E+3 1e-3 1e 1e999 1.2.3 0.1 1e21 9223372036854775807
1:30 12:30:45.6 100m 1Gi << = a#b http://a:80/b?c 'yes' "on" "1" '010' "\\x41\\u00e9"
"""
SCALARS: Final = _WORDS.split()

#: What sevkit, as kubectl, and what kustomize make of the same word.
OTHERWISE: Final[dict[str, tuple[Json, Json]]] = {
    **{word: (True, word) for word in ("yes", "Yes", "YES", "on", "On", "ON", "y", "Y")},
    **{word: (False, word) for word in ("no", "No", "NO", "off", "Off", "OFF", "n", "N")},
    "2026-1-1": ("2026-1-1", "2026-01-01T00:00:00Z"),
    "2026-11-23": ("2026-11-23", "2026-11-23T00:00:00Z"),
}

DOCUMENTS: Final = (
    "v: &a {b: 1, c: 2}\nw: *a\nx: {<<: *a, c: 3}\n",
    "v: &a {b: 1}\nw: {<<: [{c: 4}, *a], c: 3}\n",
    "v: |\n  a\n  b\nw: >-\n  c\n  d\n\n  e\nx: 'it''s'\n",
    "# comment\nv: [a, b] # comment\nw: {c: d}\n1: e\n-1: f\n",
    "v: a\r\nw: b\r\n",
)


@pytest.fixture(scope="module")
def build(
    ask: Ask, find_program: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Build:
    """Builds a kustomization of the texts of some manifests, with more of its own."""
    program = find_program("kustomize", "kustomize")
    folder = tmp_path_factory.mktemp("kustomization")

    def run(*manifests: str, **more: Any) -> CompletedProcess[bytes]:  # noqa: ANN401  # JSON
        names = [f"{number}.yaml" for number in range(len(manifests))]
        for name, text in zip(names, manifests, strict=True):
            (folder / name).write_bytes(text.encode())
        whole = {"resources": names} | more
        (folder / "kustomization.yaml").write_text(json.dumps(whole))
        return ask(program, "build", folder)

    return run


def read(text: str | bytes) -> tuple[Any, ...]:
    return parse_documents(text if isinstance(text, bytes) else text.encode(), "test")


def built(build: Build, *manifests: str, **more: Any) -> tuple[Any, ...]:  # noqa: ANN401  # JSON
    """Return what sevkit reads of what kustomize builds."""
    done = build(*manifests, **more)
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def told(value: Json) -> str:
    """Return it so that true and 1 are not equal."""
    return json.dumps(value, sort_keys=True)


def listed(scalars: list[str]) -> str:
    return THING + "v:\n" + "".join(f"- {text}\n" for text in scalars)


def test_scalars_are_read_as_kustomize_reads_them(build: Build) -> None:
    text = listed(SCALARS)
    ((theirs,), (mine,)) = (built(build, text), read(text))
    assert dict(zip(SCALARS, map(told, mine["v"]), strict=True)) == dict(
        zip(SCALARS, map(told, theirs["v"]), strict=True)
    )


def test_words_of_yaml_1_1_are_something_else_to_kustomize(build: Build) -> None:
    text = listed(list(OTHERWISE))
    ((theirs,), (mine,)) = (built(build, text), read(text))
    both = zip(mine["v"], theirs["v"], strict=True)
    assert dict(zip(OTHERWISE, both, strict=True)) == OTHERWISE


@pytest.mark.parametrize("text", DOCUMENTS)
def test_a_document_is_read_as_kustomize_reads_it(build: Build, text: str) -> None:
    assert built(build, THING + text) == read(THING + text)


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "v: {a: 1, 'a': 2}\n", "v: [\n", "v: *a\n"])
def test_what_kustomize_refuses_is_refused(build: Build, text: str) -> None:
    assert build(THING + text).returncode == 1
    with pytest.raises(FormatError):
        read(THING + text)


PATCHES: Final = {
    "SEV": ("{launchSecurity: {sev: {}}}", Mode.SEV),
    "SEV-ES": ("{launchSecurity: {sev: {policy: {encryptedState: true}}}}", Mode.SEV_ES),
    "SNP": ("{launchSecurity: {snp: {}}}", Mode.SNP),
}


def patch(domain: str) -> dict[str, str]:
    head = "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {name: guest}, "
    return {"patch": f"{head}spec: {{domain: {domain}}}}}"}


@pytest.mark.parametrize(("domain", "mode"), PATCHES.values(), ids=PATCHES)
def test_a_guest_that_a_patch_makes_confidential_is_read(
    build: Build, domain: str, mode: Mode
) -> None:
    found = parse_manifest(built(build, GUEST, patches=[patch(domain)], namePrefix="prod-"))
    assert (found.mode, found.name) == (mode, "prod-guest")
    assert (found.vcpus, found.cpu_model) == (4, "EPYC-Milan")


def test_a_yes_that_went_through_kustomize_does_not_encrypt_the_state(build: Build) -> None:
    domain = "{launchSecurity: {sev: {policy: {encryptedState: yes}}}}"
    with pytest.raises(FormatError, match="encryptedState is not true or false"):
        parse_manifest(built(build, GUEST, patches=[patch(domain)]))
    assert parse_manifest(read(patch(domain)["patch"])).mode is Mode.SEV_ES


def test_the_manifests_of_a_build_come_one_after_the_other(build: Build) -> None:
    names = ["first", "second", "third"]
    found = built(build, *(f"# {name}\n{GUEST.replace('guest', name)}" for name in names))
    assert [document["metadata"]["name"] for document in found] == names


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True),
        st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn"), include_characters="\n\t")),
        max_size=8,
    )
)
@settings(max_examples=40)
def test_annotations_come_out_of_a_build_as_they_went_in(
    build: Build, annotations: dict[str, str]
) -> None:
    metadata = {"name": "thing", "annotations": annotations}
    thing = {"apiVersion": "v1", "kind": "Thing", "metadata": metadata}
    (found,) = built(build, json.dumps(thing, ensure_ascii=False))
    assert found["metadata"].get("annotations", {}) == annotations
