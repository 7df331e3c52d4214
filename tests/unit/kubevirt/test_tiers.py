from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.kubevirt.tiers import BEST, VALUES, Tier, launch_security_types, tier_of

if TYPE_CHECKING:
    from sevkit.documents import Json


def test_tiers_are_ordered_by_strength_and_named_as_the_label_has_them() -> None:
    assert [tier.value for tier in Tier] == ["sev", "sev-es", "snp"]
    assert [tier.strength for tier in Tier] == [1, 2, 3]
    assert VALUES == ("sev", "sev-es", "snp", BEST)


def test_each_tier_has_its_extended_resource_and_amds_spelling() -> None:
    assert [(tier.resource, tier.spelling) for tier in Tier] == [
        ("sevkit.io/sev", "SEV"),
        ("sevkit.io/sev-es", "SEV-ES"),
        ("sevkit.io/sev-snp", "SEV-SNP"),
    ]


@pytest.mark.parametrize(
    ("launch_security", "tier"),
    [
        ({"sev": {}}, Tier.SEV),
        ({"sev": {"policy": {}}}, Tier.SEV),
        ({"sev": {"policy": None, "attestation": {}}}, Tier.SEV),
        ({"sev": {"policy": {"encryptedState": False}}}, Tier.SEV),
        ({"sev": {"policy": {"encryptedState": True}}}, Tier.SEV_ES),
        ({"snp": {}}, Tier.SNP),
        ({"snp": {}, "sev": None, "tdx": None}, Tier.SNP),
        ({}, None),
        ({"tdx": {}}, None),
        ({"snp": None}, None),
        ({"sev": {}, "snp": {}}, None),
        ({"sev": {"policy": {"encryptedState": True}}, "tdx": {}}, None),
        ({"sev": "yes"}, None),
        ({"sev": {"policy": {"encryptedState": "true"}}}, Tier.SEV),
        (None, None),
        ("snp", None),
        ([], None),
    ],
)
def test_what_an_object_has_is_told_as_kubevirt_reads_it(
    launch_security: Json, tier: Tier | None
) -> None:
    assert tier_of(launch_security) is tier


def test_a_type_that_is_null_is_not_set() -> None:
    assert launch_security_types({"sev": None, "snp": {}, "tdx": {}}) == ("snp", "tdx")
