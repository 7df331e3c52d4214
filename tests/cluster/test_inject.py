"""What ``sevkit inject`` writes, KubeVirt takes, behind a real API server and with its own code."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from hack.control_plane_client import ApiError
from sevkit.documents import parse_documents
from sevkit.documents.edit import Manuscript
from sevkit.kubevirt.injection import Settings, inject
from sevkit.kubevirt.installation import UNKNOWN
from sevkit.kubevirt.launch_security import Around
from sevkit.kubevirt.policy import DEFAULT
from sevkit.kubevirt.tiers import Tier, tier_of
from sevkit.kubevirt.vmi_templates import KINDS, find_makers

if TYPE_CHECKING:
    from pathlib import Path

    from hack.kubevirt_cases import Document
    from hack.kubevirt_cluster import KubeVirtCluster


def created(
    kubevirt: KubeVirtCluster, namespace: str, before: Document, after: Document
) -> Document | None:
    """Return what is stored; None for what KubeVirt refuses, and refused before for the same."""
    try:
        return kubevirt.create(after, namespace)
    except ApiError as error:
        why = str(error)
    with pytest.raises(ApiError, match=re.escape(why)):
        kubevirt.create(before, namespace)
    return None


@pytest.mark.parametrize("tier", Tier)
def test_kubevirt_takes_every_manifest_that_was_changed(
    kubevirt: KubeVirtCluster, namespace: str, corpus: Path, tier: Tier
) -> None:
    asked = Settings(tier, DEFAULT, Around(UNKNOWN, None))
    said: Counter[str] = Counter()
    for path in sorted((corpus / "kubevirt" / "manifests").glob("*.yaml")):
        manuscript = Manuscript(path.read_bytes(), path.name)
        outcomes = [inject(value, asked) for value in manuscript.values]
        changed = manuscript.change(dict(enumerate(one.value for one in outcomes)))
        pairs = zip(manuscript.values, parse_documents(changed, path.name), outcomes, strict=True)
        for before, after, outcome in pairs:
            makers = zip(find_makers(before), find_makers(after), outcome.judgements, strict=True)
            for old, new, judgement in makers:
                if judgement.decision.refusals or "instancetype" in str(new.body["spec"]):
                    continue
                name: Document = {"metadata": {"name": path.stem}}
                stored = created(kubevirt, namespace, {**old.body, **name}, {**new.body, **name})
                if stored is None:
                    said["refused"] += 1
                    continue
                for part in new.kind.template:
                    stored = stored[part]
                assert tier_of(stored["spec"]["domain"]["launchSecurity"]) is tier, path.name
                said[new.word] += 1
    assert said.pop("refused") == 1
    assert said.keys() == KINDS.keys()
