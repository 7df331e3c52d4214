"""Carries out the rotation of ``rotation``: a Secret of our own, and the bundles that copy it.

    custodian = Custodian(ClusterSecret(server, NAMESPACE, NAME), bundles, names)
    certificates = Certificates(custodian, told=log_it)
    certificates.poll()  # a pass: read, take a step, copy, and serve what is in the Secret

Rights: get and update on the one Secret, and create where nobody else makes it; patch on our own
configurations by name. A configuration is read by a patch that changes nothing, which needs no
right to read it, and written by server-side apply at the version that was read, field by field, so
that who installed it keeps the rest and never owns ``caBundle``.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, final

from sevkit.cluster.api import MERGE_PATCH, Call, apply, mapping
from sevkit.cluster.errors import BadAnswer, Conflict, NotFound
from sevkit.cluster.kinds import MUTATING, SECRETS, VALIDATING
from sevkit.errors import ClusterError
from webhooks.rotation import Terms, encode_custody, is_trusted, next_custody, parse_custody

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from sevkit.cluster.api import ApiServer, Kind
    from sevkit.documents import Json
    from webhooks.tls import Pair

_OBJECT_KINDS: Final = {
    MUTATING.plural: "MutatingWebhookConfiguration",
    VALIDATING.plural: "ValidatingWebhookConfiguration",
}
MANAGER: Final = "sevkit-webhook"
#: A merge patch without effect; a wholly empty one would not be sent.
_NOTHING: Final[Mapping[str, Json]] = {"metadata": {}}
#: How often a pass is begun again because another replica was faster.
_ATTEMPTS: Final = 3


@final
@dataclass(frozen=True, slots=True)
class Kept:
    """The Secret's data, and the version at which it was read; "" where there is none yet."""

    data: Mapping[str, bytes]
    version: str


class SecretStore(Protocol):
    """Where the Secret is."""

    def read(self) -> Kept:
        """Return what there is, or raise a ``ClusterError``."""
        ...

    def write(self, data: Mapping[str, bytes], version: str) -> None:
        """Write it over ``version``, or raise ``Conflict`` if there is another by now."""
        ...


class BundleStore(Protocol):
    """Where the bundles are: one for each entry of our configurations."""

    def read(self) -> Sequence[bytes]:
        """Return all of them, or raise a ``ClusterError``; to be called before ``write``."""
        ...

    def write(self, bundle: bytes) -> None:
        """Make all of them ``bundle``, or raise ``Conflict`` if one has changed since."""
        ...


@final
class Custodian:
    """Gives the pair that is to be served, after the step that is due. For one thread.

    ``names`` are the DNS names of the Service, which API servers ask for.
    """

    def __init__(
        self,
        secret: SecretStore,
        bundles: BundleStore,
        names: Sequence[str],
        *,
        terms: Terms | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._secret: Final = secret
        self._bundles: Final = bundles
        self._names: Final = tuple(names)
        self._terms: Final = terms or Terms()
        self._clock: Final = clock
        #: The bundles of the last pass, and since when they have been read so.
        self._found: tuple[bytes, ...] = ()
        self._since: datetime | None = None
        #: Why the bundles of the last pass could not be brought up to date, if so.
        self.trouble: ClusterError | None = None

    def read(self) -> Pair:
        """Take the step that is due, and return the pair that is to be served.

        Raises a ``ClusterError``; where only a bundle could not be written, and every bundle has
        the pair's CA as it is, that is ``trouble`` and no error.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._pass()
            except Conflict:
                continue  # another replica was faster; what it did is seen now
        return self._pass(is_last=True)

    def _pass(self, *, is_last: bool = False) -> Pair:
        found = self._bundles.read()  # before the Secret, see ``rotation``
        kept = self._secret.read()
        now = self._clock()
        custody = parse_custody(kept.data, self._names, now)
        following = next_custody(
            custody, found, self._names, now, self._terms, steady=self._steady(found, now)
        )
        if following is not custody or following.bundle != kept.data.get("ca.crt"):
            self._secret.write(encode_custody(following), kept.version)
        if following.leaf is None or following.pair is None:  # next_custody makes them
            raise BadAnswer("certificates have no leaf")
        self.trouble = None
        if any(bundle != following.bundle for bundle in found):
            try:
                self._bundles.write(following.bundle)
                self._steady([following.bundle] * len(found), now)
            except ClusterError as error:
                is_over = is_last or not isinstance(error, Conflict)
                if not is_over or not is_trusted(following.leaf, found):
                    raise
                self.trouble = error
        return following.pair

    def _steady(self, found: Sequence[bytes], now: datetime) -> timedelta:
        """Return for how long the bundles have been as they are, as far as was seen."""
        if self._since is None or tuple(found) != self._found:
            self._found, self._since = tuple(found), now
        return now - self._since


@final
class ClusterSecret:
    """The Secret ``name`` in ``namespace``, made when there is none."""

    def __init__(self, server: ApiServer, namespace: str, name: str) -> None:
        self._server: Final = server
        self._namespace: Final = namespace
        self._name: Final = name
        self._path: Final = SECRETS.path(name, namespace=namespace)
        self._document: Mapping[str, Json] = {}

    def read(self) -> Kept:
        """Return what there is; nothing where the Secret is not there yet."""
        try:
            answer = mapping(self._server.call(Call("GET", self._path)))
        except NotFound:
            return Kept({}, "")
        self._document = answer
        data = answer.get("data")
        entries = data.items() if isinstance(data, dict) else ()
        return Kept({key: _decoded(value) for key, value in entries}, _version(answer))

    def write(self, data: Mapping[str, bytes], version: str) -> None:
        """Replace its data at ``version``, or create it where that is ""."""
        body: dict[str, Json] = {
            "apiVersion": "v1",
            "kind": "Secret",
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }
        if version:  # which stands in the metadata; labels stay, and the type may not change
            body |= {key: self._document[key] for key in ("metadata", "type")}
            self._server.call(Call("PUT", self._path, body=body))
        else:
            body |= {"metadata": {"name": self._name}, "type": "kubernetes.io/tls"}
            path = SECRETS.path(namespace=self._namespace)
            self._server.call(Call("POST", path, body=body))


@final
class ClusterBundles:
    """The bundles of the configurations that are named, each by its kind and name."""

    def __init__(self, server: ApiServer, configurations: Sequence[tuple[Kind, str]]) -> None:
        self._server: Final = server
        self._configurations: Final = tuple(configurations)
        self._read: Mapping[tuple[Kind, str], Mapping[str, Json]] = {}

    def read(self) -> Sequence[bytes]:
        """Return the bundle of each entry, b"" where it has none.

        A configuration that is not there has no entries: it may be installed after us.
        """
        self._read = {}
        for kind, name in self._configurations:
            call = Call("PATCH", kind.path(name), body=dict(_NOTHING), content_type=MERGE_PATCH)
            with contextlib.suppress(NotFound):
                self._read[kind, name] = mapping(self._server.call(call))
        return [
            _decoded(config.get("caBundle"))
            for document in self._read.values()
            for _, config in _entries(document)
        ]

    def write(self, bundle: bytes) -> None:
        """Apply it to each configuration where an entry has another."""
        text = base64.b64encode(bundle).decode()
        for (kind, name), document in self._read.items():
            entries = list(_entries(document))
            if all(config.get("caBundle") == text for _, config in entries):
                continue
            body: dict[str, Json] = {
                "apiVersion": f"{kind.group}/{kind.version}",
                "kind": _OBJECT_KINDS[kind.plural],
                "metadata": {"name": name, "resourceVersion": _version(document)},
                "webhooks": [
                    {"name": entry, "clientConfig": {"caBundle": text}} for entry, _ in entries
                ],
            }
            self._server.call(apply(kind.path(name), body, manager=MANAGER, force=True))


def _entries(document: Mapping[str, Json]) -> list[tuple[str, Mapping[str, Json]]]:
    """Return name and ``clientConfig`` of each entry of a configuration."""
    webhooks = document.get("webhooks")
    found: list[tuple[str, Mapping[str, Json]]] = []
    for entry in webhooks if isinstance(webhooks, list) else []:
        name = entry.get("name") if isinstance(entry, dict) else None
        config = entry.get("clientConfig") if isinstance(entry, dict) else None
        if isinstance(name, str) and isinstance(config, dict):
            found.append((name, config))
    return found


def _version(answer: Mapping[str, Json]) -> str:
    metadata = answer.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version:
        raise BadAnswer("API server answered with an object that has no version")
    return version


def _decoded(value: Json) -> bytes:
    """Return the bytes of a base64 text; b"" for what is none."""
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except binascii.Error:
        return b""
