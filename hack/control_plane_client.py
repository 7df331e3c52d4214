"""A plain JSON client for the test control plane: one request, one answer, nothing hidden.

Tests look at what the API server really says, so there is no model between them and it.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.parse
from typing import Any, Final, final

_TIMEOUT: Final = 30.0


class ApiError(Exception):
    """An answer that is no success; ``status`` is the HTTP status, ``body`` the Status object."""

    def __init__(self, status: int, body: Any) -> None:  # noqa: ANN401  # whatever the server said
        message = body.get("message", "") if isinstance(body, dict) else str(body)
        super().__init__(f"{status}: {message}")
        self.status = status
        self.body = body
        self.message = message


@final
class ApiClient:
    """Speaks to one API server with one token. Connections are not kept: tests fork and thread."""

    def __init__(self, url: str, ca_file: str, token: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._address: Final = (parts.hostname or "", parts.port or 443)
        self._context: Final = ssl.create_default_context(cafile=ca_file)
        self._token: Final = token

    def text(
        self, method: str, path: str, body: bytes | None = None, content: str = "application/json"
    ) -> str:
        """Return the answer's body. Raises ``ApiError`` for a status of 400 and above."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content}
        connection = http.client.HTTPSConnection(
            *self._address, context=self._context, timeout=_TIMEOUT
        )
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            said = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= 400:
            try:
                raise ApiError(answer.status, json.loads(said))
            except json.JSONDecodeError:
                raise ApiError(answer.status, said) from None
        return said

    def get(self, path: str) -> Any:  # noqa: ANN401  # JSON
        """Return an object or a list."""
        return json.loads(self.text("GET", path))

    def create(self, path: str, obj: Any) -> Any:  # noqa: ANN401  # JSON
        """Create an object in the collection ``path``."""
        return json.loads(self.text("POST", path, json.dumps(obj).encode()))

    def replace(self, path: str, obj: Any) -> Any:  # noqa: ANN401  # JSON
        """Replace the object at ``path``."""
        return json.loads(self.text("PUT", path, json.dumps(obj).encode()))

    def delete(self, path: str) -> Any:  # noqa: ANN401  # JSON
        """Delete the object or collection at ``path``."""
        return json.loads(self.text("DELETE", path))

    def patch(self, path: str, patch: Any, kind: str = "merge-patch+json") -> Any:  # noqa: ANN401  # JSON
        """Patch the object at ``path``; ``kind`` is json-patch+json, apply-patch+yaml and so on."""
        body = json.dumps(patch).encode()
        return json.loads(self.text("PATCH", path, body, f"application/{kind}"))
