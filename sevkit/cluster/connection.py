"""A connection to a real API server, through the kubernetes package's dynamic client.

The dynamic client is told to discover nothing, and only its ``request`` is used: so the process
stays below 55 MiB, where the package's typed API alone costs 126 MiB, and no request is made but
those that were asked for. Its transport is replaced by ``transport.Transport``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self, final

from sevkit import __version__
from sevkit.cluster.errors import BadAnswer
from sevkit.documents import parse_json
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from types import TracebackType

    from sevkit.cluster.access import Access
    from sevkit.cluster.api import Call
    from sevkit.documents import Json

REQUEST_SECONDS: Final = 30.0


@final
class Connection:
    """What answers calls by asking the API server at ``access``.

    ``seconds`` bound each request as a whole, connecting included; only the system's resolver has
    bounds of its own. Nothing is tried again. Safe for use by several threads. As a context
    manager it closes the connections that it keeps.
    """

    def __init__(self, access: Access, *, seconds: float = REQUEST_SECONDS) -> None:
        # The whole package costs 40 MiB and half a second, which only a cluster command pays.
        from kubernetes.client.api_client import ApiClient  # noqa: PLC0415  # as above
        from kubernetes.client.configuration import Configuration  # noqa: PLC0415  # as above
        from kubernetes.dynamic import DynamicClient  # noqa: PLC0415  # as above

        from sevkit.cluster.transport import Transport  # noqa: PLC0415  # as above

        self._access: Final = access
        # Empty, not None: the package would look for proxies in the environment.
        configuration = Configuration(
            host=access.server,
            proxy=access.proxy or "",
            no_proxy="",
            tls_server_name=access.tls_name,
            retries=False,
        )
        client = ApiClient(configuration)
        client.rest_client = Transport(configuration, access, seconds=seconds)
        client.user_agent = f"sevkit/{__version__}"
        self._client: Final = client
        self._dynamic: Final = DynamicClient(client, discoverer=lambda *_: None)  # type: ignore[no-untyped-call]  # as it is

    def call(self, call: Call) -> Json:
        """Return the answer's JSON, None if it is empty, or raise a ``ClusterError``."""
        from sevkit.cluster.transport import read_answer, translated  # noqa: PLC0415  # see above

        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._access.token is not None:
            headers["Authorization"] = f"Bearer {self._access.token.token().reveal().decode()}"
        with translated():
            response = self._dynamic.request(
                call.method,
                call.path,
                body=call.body,
                query_params=list(call.query),
                header_params=headers,
                content_type=call.content_type,
                serialize=False,
            )
        data = read_answer(response, call.limit)
        if not data:
            return None
        try:
            return parse_json(data, "API server's answer", limit=call.limit)
        except FormatError as error:
            raise BadAnswer(
                f"API server answered with something else: {error.message}",
                hint="does a proxy or a captive portal answer in its place?",
            ) from error

    def close(self) -> None:
        """Close the connections that are kept."""
        self._client.close()  # type: ignore[no-untyped-call]  # as it is

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
