from __future__ import annotations

import re

import pytest

from sevkit.errors import UsageError
from sevkit.testing.consistency import check_host
from sevkit.testing.host.booting import boot
from sevkit.testing.host.defects import DEFECTS, with_defects
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.tree import render_tree

PAIRS = [(name, preset) for name, one in DEFECTS.items() for preset in sorted(one.applies_to)]
#: What these are is what their presets already are, or shows nowhere but in a launch.
UNSEEN = {
    ("es-open-to-cve", "turin"),
    ("es-open-to-cve", "turin-dense"),
}


def test_no_preset_means_no_defect() -> None:
    assert with_defects("genoa", []) is PRESETS["genoa"]


@pytest.mark.parametrize(("name", "preset"), PAIRS)
def test_each_makes_a_machine_that_can_be_and_that_looks_different(name: str, preset: str) -> None:
    spec = with_defects(preset, [name])
    check_host(spec)
    seen = render_tree(spec, boot(spec)) != render_tree(PRESETS[preset], boot(PRESETS[preset]))
    assert seen == ((name, preset) not in UNSEEN)


@pytest.mark.parametrize("name", DEFECTS)
def test_each_says_what_it_is_in_a_few_words(name: str) -> None:
    defect = DEFECTS[name]
    assert defect.name == name
    assert re.fullmatch(r"[a-z0-9-]+", name)
    assert 5 < len(defect.summary) < 70
    assert not defect.summary.endswith(".")
    assert defect.applies_to
    assert defect.applies_to <= PRESETS.keys()


@pytest.mark.parametrize(
    ("preset", "names", "message"),
    [
        ("epyc", [], "there is no preset 'epyc'"),
        ("genoa", ["tired"], "there is no defect 'tired'"),
        ("rome", ["rmp-not-reserved"], "rmp-not-reserved cannot be on rome"),
        ("intel", ["smee-off"], "smee-off cannot be on intel"),
        ("genoa", ["ciphertext-hiding"], "ciphertext-hiding cannot be on genoa"),
        (
            "genoa",
            ["guests-running", "kvm-sev-off"],
            "impossible machine: .*guests of a technology that KVM does not offer",
        ),
        (
            "genoa",
            ["kvm-snp-off", "old-kernel"],
            "impossible machine: kvm_amd.sev_snp on Linux 6.1.0-40-amd64",
        ),
    ],
)
def test_what_cannot_be_is_refused(preset: str, names: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        with_defects(preset, names)


def test_a_refusal_names_what_there_is() -> None:
    with pytest.raises(UsageError) as refused:
        with_defects("rome", ["kvm-snp-off"])
    assert refused.value.hint == "it can on milan, genoa, bergamo, siena, turin, turin-dense"


def test_several_are_put_on_in_order() -> None:
    spec = with_defects("genoa", ["smee-off", "cgroup-v1"])
    assert not spec.bios.smee
    assert spec.kernel.cgroup == 1
    parameters = with_defects("genoa", ["npt-off", "kvm-es-off"]).kernel.parameters
    assert parameters == {"npt": 0, "sev_es": 0}
