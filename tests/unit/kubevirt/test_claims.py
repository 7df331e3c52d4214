from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from hack.preflight_documents import claims
from sevkit.kubevirt.claims import read_runnable
from sevkit.kubevirt.tiers import Tier

if TYPE_CHECKING:
    from sevkit.documents import Json

OFF: Final = {"kubevirt.io__schedulable": "false"}
DENIED: Final = {"sevkit.io__sev-snp": "false"}
UNSEEN: Final = {"kubevirt.io__sev-snp": "false"}


def test_the_scheduler_needs_both_labels_and_a_node_that_takes_vmis() -> None:
    both = frozenset({Tier.SEV, Tier.SNP})
    assert claims("a").runnable == both
    assert claims("a", **OFF).runnable == frozenset()
    assert claims("a", **DENIED).runnable == {Tier.SEV}
    assert claims("a", **UNSEEN).runnable == {Tier.SEV}
    # KubeVirt selects by its label for SEV too, whatever the tier.
    assert claims("a", **{"kubevirt.io__sev": "false"}).runnable == frozenset()
    es = {"sevkit.io__sev-es": "true", "kubevirt.io__sev-es": "True"}
    assert claims("a", **es).runnable == both


def test_what_can_be_placed_is_where_both_agree() -> None:
    node = claims("a", **DENIED)
    assert node.runnable == node.ours & node.theirs == {Tier.SEV}
    assert node.ours == {Tier.SEV}
    assert node.denied == {Tier.SEV_ES, Tier.SNP}
    assert node.theirs == {Tier.SEV, Tier.SNP}
    assert (node.has_agent, node.simulated) == (True, False)
    assert node.capacity == {Tier.SEV: 410, Tier.SEV_ES: 99, Tier.SNP: 99}
    assert node.devices == 1000


@pytest.mark.parametrize("value", [None, True, 1, [], {}, "TRUE", ""])
def test_what_is_not_the_text_true_is_no_yes(value: Json) -> None:
    keys = ("kubevirt.io/schedulable", "kubevirt.io/sev", "sevkit.io/sev")
    labels: dict[str, Json] = dict.fromkeys(keys, "true")
    assert read_runnable(labels) == {Tier.SEV}
    assert read_runnable({**labels, "sevkit.io/sev": value}) == frozenset()
