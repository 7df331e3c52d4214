"""A connection to a real API server, through the kubernetes package's dynamic client.

The dynamic client is told to discover nothing, and only its ``request`` is used: so the process
stays below 55 MiB, where the package's typed API alone costs 126 MiB, and no request is made but
those that were asked for. Its transport is replaced by ``transport.Transport``.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, Self, final

from sevkit import __version__
from sevkit.cluster.errors import BadAnswer
from sevkit.documents import parse_json
from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from sevkit.cluster.access import Access
    from sevkit.cluster.api import Call
    from sevkit.cluster.transport import Answer
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
        self._transport: Final = Transport(configuration, access, seconds=seconds)
        client.rest_client = self._transport
        client.user_agent = f"sevkit/{__version__}"
        self._client: Final = client
        self._dynamic: Final = DynamicClient(client, discoverer=lambda *_: None)  # type: ignore[no-untyped-call]  # as it is

    def call(self, call: Call) -> Json:
        """Return the answer's JSON, None if it is empty, or raise a ``ClusterError``."""
        from sevkit.cluster.transport import read_answer  # noqa: PLC0415  # see above

        data = read_answer(self._send(call), call.limit)
        return _parsed(data, call.limit) if data else None

    @contextlib.contextmanager
    def stream(self, call: Call, *, idle: float) -> Iterator[Iterator[Json]]:
        """Lend the JSON of each line as it comes; each has ``idle`` seconds to come whole.

        ``seconds`` bound what comes before the first line only, ``call.limit`` bounds one line. One
        thread has to read it. Raises a ``ClusterError``, then or in the middle.
        """
        from sevkit.cluster.transport import read_lines  # noqa: PLC0415  # see above

        response = self._send(call)
        try:
            lines = read_lines(response, call.limit, lambda: self._transport.arm(idle))
            yield (_parsed(line, call.limit) for line in lines)
        finally:
            response.close()

    def interrupt(self) -> None:
        """End the requests under way, in whatever thread, and refuse all others from now on.

        They raise ``Unreachable`` at once; one whose TCP connection is not yet made when that is
        made, or given up.
        """
        self._transport.interrupt()

    def _send(self, call: Call) -> Answer:
        from sevkit.cluster.transport import translated  # noqa: PLC0415  # see above

        headers = {"Accept": call.accept, "Accept-Encoding": "identity"}
        if self._access.token is not None:
            headers["Authorization"] = f"Bearer {self._access.token.token().reveal().decode()}"
        with translated():
            response: Answer = self._dynamic.request(
                call.method,
                call.path,
                body=call.body,
                query_params=list(call.query),
                header_params=headers,
                content_type=call.content_type,
                serialize=False,
            )
        return response

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


def _parsed(data: bytes, limit: int) -> Json:
    try:
        return parse_json(data, "API server's answer", limit=limit)
    except FormatError as error:
        raise BadAnswer(
            f"API server answered with something else: {error.message}",
            hint="does a proxy or a captive portal answer in its place?",
        ) from error
