"""Which part of the simulation answers which request; no I/O.

Quirks that clients trip over are kept: a GET of a subresource takes only JSON (406 for another
``Accept``, 415 for another ``Content-Type``), a PUT any content type or none.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sevkit.testing.kubevirt import answers
from sevkit.testing.kubevirt.discovery import discover

if TYPE_CHECKING:
    from sevkit.testing.kubevirt.answers import Answer
    from sevkit.testing.kubevirt.collection import Collection
    from sevkit.testing.kubevirt.subresources import Subresources

_VERSION: Final = r"(?:v1|v1alpha3)"
_SUBRESOURCE: Final = re.compile(
    rf"/apis/subresources\.kubevirt\.io/{_VERSION}"
    r"/namespaces/([^/]+)/virtualmachineinstances/([^/]+)/([a-z/]+)"
)
_COLLECTION: Final = re.compile(
    rf"/apis/kubevirt\.io/{_VERSION}(?:/namespaces/([^/]+))?/virtualmachineinstances(?:/([^/]+))?"
)
_ACCEPTED: Final = {"*/*", "application/*", "application/json"}


@final
@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; header values are empty where there are none."""

    method: str
    target: str
    body: bytes = b""
    accept: str = ""
    content_type: str = ""


@final
class Routes:
    """Finds who answers. ``collection`` is None where an API server has the VMIs."""

    def __init__(self, subresources: Subresources, collection: Collection | None) -> None:
        self._subresources: Final = subresources
        self._collection: Final = collection

    def answer(self, request: Request) -> Answer:
        """Return the answer to any request."""
        path, _, raw_query = request.target.partition("?")
        path = urllib.parse.unquote(path)
        if path in {"/healthz", "/livez", "/readyz"}:
            return answers.text(200, "ok")
        if found := _SUBRESOURCE.fullmatch(path):
            return self._subresource(request, (found[1], found[2]), found[3])
        if self._collection is not None and (found := _COLLECTION.fullmatch(path)):
            query = dict(urllib.parse.parse_qsl(raw_query))
            namespace, name = found[1] or "", found[2] or ""
            answer = self._collection.answer(request.method, namespace, name, query, request.body)
            return answer or answers.text(405, "405: Method Not Allowed")
        document = discover(path) if request.method == "GET" else None
        return (
            answers.text(404, "404: Page Not Found")
            if document is None
            else answers.document(dict(document))
        )

    def _subresource(self, request: Request, key: tuple[str, str], name: str) -> Answer:
        methods = self._subresources.methods(name)
        if not methods:
            return answers.text(404, "404: Page Not Found")
        if request.method not in methods:
            return answers.text(405, "405: Method Not Allowed")
        if request.method == "GET":
            accepted = {part.partition(";")[0].strip() for part in request.accept.split(",")}
            if request.accept and not accepted & _ACCEPTED:
                return answers.text(406, "406: Not Acceptable")
            given = request.content_type.partition(";")[0].strip()
            if given and given != answers.JSON:
                return answers.text(415, "415: Unsupported Media Type")
        return self._subresources.answer(request.method, key, name, request.body)
