"""A key service without a network: what it hands out is given, what it was asked is kept.

It stands where ``KeyService`` stands, behind the ``Fetcher`` protocol, for tests of what a verifier
makes of answers. What goes wrong on the way is ``SimulatedKeyService``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sevkit.errors import KeyServiceError
from sevkit.kds.client import Fetched

if TYPE_CHECKING:
    from sevkit.kds.urls import Resource
    from sevkit.testing.key_service import Provider


@final
class KeyShelf:
    """Hands out what ``provider`` gives; ``asked`` holds the resources in order."""

    base_url: Final = "https://keys.example"

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.asked: Final[list[Resource]] = []

    def fetch(self, resource: Resource) -> Fetched:
        """Return ``resource``; raises ``KeyServiceError`` where the provider has none."""
        self.asked.append(resource)
        data = self.provider(resource)
        if data is None:
            raise KeyServiceError(f"{resource} is not there")
        return Fetched(data, resource.url(self.base_url))
