from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hack.preflight_documents import mutating
from sevkit.errors import FormatError
from sevkit.kubevirt.preflight.entries import CASES, misled, parse_entries

if TYPE_CHECKING:
    from sevkit.documents import Json


def test_every_case_comes_to_the_path_that_is_for_it() -> None:
    assert misled(parse_entries(mutating(""))) == ()
    assert {case.path for case in CASES} == {
        f"/mutate/{name}" for name in ("sev", "sev-es", "snp", "best", "unknown", "own")
    }


@pytest.mark.parametrize("number", range(6))
def test_an_entry_that_is_missing_is_found_and_told(number: int) -> None:
    document = mutating("")
    gone = document["webhooks"].pop(number)
    wrong = misled(parse_entries(document))
    path = gone["clientConfig"]["service"]["path"]
    assert wrong
    assert all(one.endswith(f"comes to nothing, not {path}") for one in wrong)


def test_paths_that_are_exchanged_and_entries_that_overlap_are_found() -> None:
    document = mutating("")
    one, other = (document["webhooks"][number]["clientConfig"]["service"] for number in (0, 2))
    one["path"], other["path"] = other["path"], one["path"]
    first = misled(parse_entries(document))[0]
    assert first == "a namespace's label sev comes to /mutate/snp, not /mutate/sev"
    document = mutating("")
    document["webhooks"][5]["namespaceSelector"] = {}
    wrong = misled(parse_entries(document))
    assert len(wrong) == 25  # every namespace's label, with every VMI's
    assert any("comes to /mutate/own and /mutate/snp, not /mutate/snp" in one for one in wrong)


@pytest.mark.parametrize(
    "rule",
    [
        {"operations": ["UPDATE"]},
        {"resources": ["virtualmachines"]},
        {"apiGroups": [""]},
        {"apiVersions": ["v1alpha3"]},
        {"scope": "Cluster"},
    ],
)
def test_a_rule_that_is_not_about_new_vmis_counts_for_nothing(rule: dict[str, Any]) -> None:
    document = mutating("")
    for entry in document["webhooks"]:
        entry["rules"][0] |= rule
    assert not any(entry.covers for entry in parse_entries(document))
    assert len(misled(parse_entries(document))) == len(CASES)


@pytest.mark.parametrize(
    "rule", [{"operations": ["*"]}, {"resources": ["*/*"]}, {"apiVersions": ["*"]}, {"scope": "*"}]
)
def test_wild_cards_count(rule: dict[str, Any]) -> None:
    document = mutating("")
    for entry in document["webhooks"]:
        entry["rules"][0] |= rule
    assert misled(parse_entries(document)) == ()


def test_an_entry_by_url_has_the_urls_path() -> None:
    document = mutating("")
    for entry in document["webhooks"]:
        path = entry["clientConfig"].pop("service")["path"]
        entry["clientConfig"]["url"] = f"https://10.0.0.1:9443{path}"
    entries = parse_entries(document)
    assert misled(entries) == ()
    assert entries[0].service == ("", "")


def test_what_is_left_out_has_the_apis_defaults() -> None:
    document: dict[str, Any] = {
        "webhooks": [{"name": "a", "clientConfig": {"url": "https://a/mutate/sev"}}]
    }
    (entry,) = parse_entries(document)
    assert (entry.failure, entry.match, entry.reinvocation) == ("Fail", "Equivalent", "Never")
    assert not entry.covers
    assert parse_entries({}) == ()


@pytest.mark.parametrize(
    "webhooks", [7, [7], [{}], [{"clientConfig": {}, "rules": [7]}], [{"clientConfig": {"url": 7}}]]
)
def test_what_is_no_configuration_is_refused(webhooks: Json) -> None:
    with pytest.raises(FormatError):
        parse_entries({"webhooks": webhooks})
