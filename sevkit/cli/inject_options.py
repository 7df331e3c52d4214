"""Values of the options of ``sevkit inject``."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final, final

from sevkit.cli.values import StrictType
from sevkit.errors import UsageError
from sevkit.kubevirt.installation import Installation, parse_installation
from sevkit.kubevirt.tiers import Tier

_VERSION: Final = re.compile(r"v?([0-9]{1,3})\.([0-9]{1,3})(?:\.([0-9]{1,3}))?")
_NAMES: Final = ", ".join(Tier)


@final
class Tiers(StrictType[frozenset[Tier]]):
    """Tiers, with commas between them."""

    name = "TIERS"

    def read(self, text: str) -> frozenset[Tier]:
        """Return the tiers."""
        words = text.split(",")
        if not set(words) <= set(Tier) or len(set(words)) != len(words):
            raise UsageError(f"{text!r} is not of {_NAMES}, each once, with commas between")
        return frozenset(map(Tier, words))


@final
class KubeVirtVersion(StrictType[Installation]):
    """``MAJOR.MINOR`` or ``MAJOR.MINOR.PATCH``, with or without a v before it."""

    name = "VERSION"

    def read(self, text: str) -> Installation:
        """Return what is known of an installation by its version alone.

        Whether launch security is switched on there is not: everyone who uses it has seen to that.
        """
        found = _VERSION.fullmatch(text)
        if found is None:
            raise UsageError(f"{text!r} is not a version of KubeVirt, such as v1.9.0")
        version = ".".join(part or "0" for part in found.groups())
        known = parse_installation({"status": {"observedKubeVirtVersion": f"v{version}"}})
        return replace(known, encryption=None, eviction_strategy=None, architecture=None)
