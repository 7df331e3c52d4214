from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.host.facts_document import fact_lines, facts_document
from sevkit.testing.host.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.host.facts import HostFacts


def document(facts: HostFacts) -> dict[str, Any]:
    found = facts_document(facts)
    again = json.loads(json.dumps(found))
    assert again == found
    return found


def test_values_are_said_in_words(facts_of: Callable[..., HostFacts]) -> None:
    found = document(facts_of("milan", "kvm-snp-off"))
    assert (found["schema"], found["product"]) == ("sevkit.io/node-probe/v1", "milan")
    sources = found["sources"]
    assert sources["modules.sev_snp"] == {"value": False}
    assert sources["command_line"] == {"value": ["kvm_amd.sev_snp=0"]}
    assert sources["cpuid"]["value"]["encryption"]["c_bit"] == 51
    assert "sev_snp" in sources["cpuid"]["value"]["encryption"]["features"]
    assert sources["cpuinfo"]["value"]["flags"] == ["svm", "sev", "sev_es", "sev_snp", "debug_swap"]
    assert sources["firmware"]["value"]["version"] == "1.55.40"
    assert sources["firmware"]["value"]["state"] == "init"
    assert sources["firmware"]["value"]["snp"]["current_tcb"] == "0xdb16000000000004"
    assert sources["misc.capacity"] == {"value": {"sev": 382, "encrypted_state": 127}}


def test_off_absent_and_unread_are_three_things(facts_of: Callable[..., HostFacts]) -> None:
    sources = document(facts_of("rome", "kvm-sev-off", "sev-unreadable"))["sources"]
    assert sources["modules.sev"] == {"value": False}
    assert sources["modules.sev_snp"]["unread"] == "absent"
    assert sources["kvm.vm_types"]["unread"] == "not-asked"
    assert sources["firmware"] == {
        "unread": "absent",
        "detail": "/firmware.json: No such file or directory",
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_every_host_has_every_source(preset: str, facts_of: Callable[..., HostFacts]) -> None:
    found = document(facts_of(preset))
    assert set(found["sources"]) == set(document(facts_of("milan", "no-psp"))["sources"])
    assert all(
        set(source) in ({"value"}, {"unread", "detail"}) for source in found["sources"].values()
    )


def test_lines_say_the_same(facts_of: Callable[..., HostFacts]) -> None:
    lines = dict(fact_lines(document(facts_of("milan", "sev-unreadable"))))
    assert lines["modules.sev"] == "yes"
    assert lines["cpuid.encryption.max_asid"] == "509"
    assert lines["firmware"] == "(absent) /firmware.json: No such file or directory"
    assert lines["secure_processors.0.address"] == "0000:22:00.1"
    assert lines["log"] == "none"
    assert lines["release.version"] == "6 12"
