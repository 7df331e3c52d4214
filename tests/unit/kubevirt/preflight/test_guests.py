from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.kubevirt.preflight.guests import WeakGuest, judge_guest

if TYPE_CHECKING:
    from sevkit.documents import Json

LABEL: Final = "sevkit.io/confidential"
SEV: Final[dict[str, Any]] = {"sev": {}}
ES: Final[dict[str, Any]] = {"sev": {"policy": {"encryptedState": True}}}
SNP: Final[dict[str, Any]] = {"snp": {}}


def vmi(launch: Json, own: str | None = None, phase: str = "Running") -> dict[str, Any]:
    labels = {} if own is None else {LABEL: own}
    return {
        "metadata": {"name": "v", "namespace": "team", "labels": labels},
        "spec": {"domain": {} if launch is None else {"launchSecurity": launch}},
        "status": {"phase": phase},
    }


@pytest.mark.parametrize(
    ("asked", "launch", "lacks"),
    [
        ("sev", SEV, None),
        ("sev", ES, None),
        ("sev-es", SEV, "sev"),
        ("sev-es", ES, None),
        ("sev-es", SNP, None),
        ("snp", ES, "sev-es"),
        ("snp", SNP, None),
        ("best", SEV, None),
        ("best", None, "nothing"),
        ("best", {}, "nothing"),
        ("sev", {"tdx": {}}, "nothing"),
        ("sev", {"sev": {}, "snp": {}}, "nothing"),
        ("other", SEV, None),
        ("other", None, "nothing"),
    ],
)
def test_what_a_namespace_asks_for_a_vmi_has_or_lacks(
    asked: str, launch: Json, lacks: str | None
) -> None:
    found = judge_guest(vmi(launch), {"team": asked})
    word = "best" if asked == "other" else asked
    assert found == (True if lacks is None else WeakGuest("team", "v", word, lacks))
    assert judge_guest(vmi(launch, own=asked), {}) == found


def test_the_stronger_of_both_labels_counts() -> None:
    found = judge_guest(vmi(ES, own="snp"), {"team": "sev"})
    assert found == WeakGuest("team", "v", "snp", "sev-es")
    assert str(found) == "team/v (sev-es, not snp)"
    assert judge_guest(vmi(SEV, own="sev"), {"team": "sev-es"}) == WeakGuest(
        "team", "v", "sev-es", "sev"
    )


def test_of_whom_nothing_is_asked_and_who_has_ended_nothing_is_required() -> None:
    assert judge_guest(vmi(None), {"other": "snp"}) is False
    for phase in ("Succeeded", "Failed"):
        assert judge_guest(vmi(None, phase=phase), {"team": "snp"}) is False
    for phase in ("", "Pending", "Scheduled"):
        assert judge_guest(vmi(None, phase=phase), {"team": "snp"})


@pytest.mark.parametrize("odd", [7, [], {}, ["Failed"], {"sev": []}, [{}]])
def test_what_is_ill_formed_inside_is_never_taken_for_enough(odd: Json) -> None:
    for way in (("status", "phase"), ("metadata", "labels", LABEL), ("metadata", "name")):
        document = vmi(SEV)
        inner = document
        for part in way[:-1]:
            inner = inner[part]
        inner[way[-1]] = odd
        assert judge_guest(document, {"team": "snp"})
        assert judge_guest(document, {"team": "sev"}) is True
    assert judge_guest(vmi(odd), {"team": "sev"}) == WeakGuest("team", "v", "sev", "nothing")
