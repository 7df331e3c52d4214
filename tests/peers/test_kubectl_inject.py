"""What ``sevkit inject`` writes, kubectl reads as the value that it was to be."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sevkit.documents.edit import Manuscript
from sevkit.kubevirt.injection import Settings, inject
from sevkit.kubevirt.installation import UNKNOWN
from sevkit.kubevirt.launch_security import Around
from sevkit.kubevirt.policy import DEFAULT
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    from sevkit.documents import Json

    Ask = Callable[..., CompletedProcess[bytes]]
    Read = Callable[[bytes], list[Any]]

_MARK: Final = "sevkit.io/asked"


@pytest.fixture(scope="module")
def read(ask: Ask, find_program: Callable[[str, str], Path]) -> Read:
    """Return the objects that kubectl makes of a stream."""
    program = find_program("kubectl", "kubectl")

    def objects(data: bytes) -> list[Any]:
        words = ("annotate", "--local", "--kubeconfig=/dev/null", "-f", "-", "-o", "json")
        done = ask(program, *words, f"{_MARK}=y", data=data)
        assert done.returncode == 0, done.stderr
        said, found, decoder = done.stdout.decode().strip(), [], json.JSONDecoder()
        while said:
            value, end = decoder.raw_decode(said)
            said = said[end:].lstrip()
            annotations = value["metadata"]["annotations"]
            del annotations[_MARK]
            if not annotations:
                del value["metadata"]["annotations"]
            found.append(value)
        return found

    return objects


def flat(values: list[Json]) -> list[Any]:
    """Return the objects of documents, of which some are lists."""
    found: list[Any] = []
    for value in values:
        assert isinstance(value, dict)
        items = value.get("items")
        found += items if isinstance(items, list) else [value]
    return found


def injected(data: bytes, tier: Tier, *, attestation: bool = False) -> tuple[bytes, list[Json]]:
    """Return a stream after injection, and the values that it is to have."""
    asked = Settings(tier, DEFAULT, Around(UNKNOWN, None), attestation)
    manuscript = Manuscript(data, "test")
    outcomes = [inject(value, asked) for value in manuscript.values]
    judged = [one.decision for outcome in outcomes for one in outcome.judgements]
    assert judged
    assert not [one.refusals for one in judged if one.refusals]
    wanted = dict(enumerate(outcome.value for outcome in outcomes))
    changed = manuscript.change(wanted)
    assert changed != data
    return changed, list(wanted.values())


HEAD: Final = "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: %s}\n"
BLOCK: Final = HEAD + (
    "spec:\n  template:\n    spec:  # of the VMI\n      domain:\n"
    "        devices: {}\n        memory:\n          guest: 1Gi\n          maxGuest: 4Gi # no\n"
    "      volumes:\n      - cloudInitNoCloud:\n          userData: |\n            #cloud\n\n"
)
FLOW: Final = HEAD + (
    "spec: {template: {spec: {domain: {devices: {}, cpu: {maxSockets: 4}, 'memory': }},\n"
    "  metadata: {annotations: {}, # none\n    labels: {a: b}  # one\n  }}}\n"
)
QUOTED: Final = HEAD + (
    '"spec":\n  "template":\n    "metadata":\n    "spec":\n      "evictionStrategy": ~\n'
    '      "domain":\n        "devices": {"rng":{}}\n        "resources": {"limits":{"cpu":"1"}}'
)
BARE: Final = HEAD + "spec: {template: {metadata: , spec: {domain: }}}\n"
ANCHORS: Final = HEAD + (
    "x: &labels {a: b}\nspec:\n  template:\n    metadata: {labels: *labels}\n    spec: &unused\n"
    "      !!map\n      domain:\n        cpu:\n          <<: {cores: 2}\n        ? devices\n"
    "        : {}\n"
)
JSON: Final = json.dumps(
    {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "%s"},
        "spec": {"template": {"spec": {"domain": {"devices": {}, "cpu": None, "x": "\u2028/%%"}}}},
    },
    indent=2,
)
LIST: Final = (
    "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n"
    "  metadata: {name: other}\n-   kind: VirtualMachineInstance\n    apiVersion: kubevirt.io/v1\n"
    "    metadata:\n      name: %s\n    spec:\n        domain:\n            devices: {}\n"
)
MANIFESTS: Final = {
    "block": BLOCK,
    "flow": FLOW,
    "quoted": QUOTED,
    "bare": BARE,
    "anchors": ANCHORS,
    "JSON": JSON,
    "list": LIST,
}


@pytest.mark.parametrize("tier", Tier)
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_in_each_style_is_read_as_it_was_to_be(
    read: Read, name: str, tier: Tier
) -> None:
    changed, wanted = injected((MANIFESTS[name] % "one").encode(), tier)
    assert read(changed) == flat(wanted)


@pytest.mark.parametrize("name", MANIFESTS)
def test_carriage_returns_make_no_difference(read: Read, name: str) -> None:
    text = MANIFESTS[name] % "one"
    changed, wanted = injected(text.replace("\n", "\r\n").encode(), Tier.SNP)
    assert b"\n" not in changed.replace(b"\r\n", b"")
    assert read(changed) == flat(wanted)


def test_a_stream_of_all_is_read_as_it_was_to_be(read: Read) -> None:
    texts = [text % f"n{number}" for number, text in enumerate(MANIFESTS.values())]
    data = "\ufeff---\n" + "\n---\n# next\n".join(texts)
    changed, wanted = injected(data.encode(), Tier.SEV_ES, attestation=True)
    assert read(changed) == flat(wanted)
    assert len(wanted) == len(MANIFESTS)


def test_json_objects_that_follow_each_other_are_read_as_they_were_to_be(read: Read) -> None:
    changed, wanted = injected((JSON % "a" + JSON % "b").encode(), Tier.SNP)
    assert read(changed) == flat(wanted)
    assert changed.count(rb"\u2028/%") == 2


KEYS: Final = st.sampled_from(("a", "cpu", "sevkit.io/x", "yes", "1", "\u00e9", "a b", "#", ""))
TEXT: Final = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cn"), exclude_characters="\ufeff"),
    max_size=8,
)
SCALARS: Final = st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | TEXT
VALUES: Final = st.recursive(
    SCALARS, lambda inner: st.dictionaries(KEYS | TEXT, inner, max_size=3), max_leaves=8
)
PLACES: Final = (
    "spec:\n  a: 1\n",
    "spec: {}\n",
    "spec:\n",
    "spec: {a: 1}\n",
    "spec: {\n  a: 1\n}\n",
    '"spec": {"a":1}\n',
    "spec:\n- a: 1\n",
)


@given(st.lists(st.tuples(st.sampled_from(PLACES), KEYS | TEXT, VALUES), min_size=1, max_size=12))
@settings(max_examples=25)
def test_any_member_is_read_as_it_was_to_be(
    read: Read, members: list[tuple[str, str, Json]]
) -> None:
    texts, count = [], itertools.count()
    for place, _, _ in members:
        head = "apiVersion: example.org/v1\nkind: Thing\n"
        texts.append(f"{head}metadata: {{name: n{next(count)}}}\n{place}")
    manuscript = Manuscript("---\n".join(texts).encode(), "test")
    wanted: dict[int, Any] = dict(enumerate(json.loads(json.dumps(manuscript.values))))
    for number, (_, key, value) in enumerate(members):
        spec = wanted[number]["spec"]
        if spec is None:
            wanted[number]["spec"] = {key: value}
        else:
            (spec[0] if isinstance(spec, list) else spec)[key] = value
    for refused in manuscript.find_refused(wanted):
        wanted[refused] = manuscript.values[refused]
    assert read(manuscript.change(wanted)) == list(wanted.values())
