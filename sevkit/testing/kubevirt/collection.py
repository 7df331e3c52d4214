"""VMIs over HTTP without an API server: create, get, list, watch and delete, as clients know them.

No kubectl conveniences: no tables, no patches, no field selectors; labels select by equality.
Who may do what is nobody's question here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, final

from sevkit.documents import parse_documents
from sevkit.errors import FormatError, UsageError
from sevkit.testing.kubevirt import answers
from sevkit.testing.kubevirt.discovery import VERSIONS
from sevkit.testing.kubevirt.instances import InstanceConflict, InstanceMissing, WatchExpired
from sevkit.testing.kubevirt.launch_wish import parse_wish

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping

    from sevkit.testing.kubevirt.answers import Answer
    from sevkit.testing.kubevirt.instances import MemoryInstances
    from sevkit.testing.kubevirt.launch_wish import Document

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_KIND: Final = "VirtualMachineInstance"


@final
class Collection:
    """The resource ``virtualmachineinstances`` over ``instances``; watches end with ``stop``."""

    def __init__(self, instances: MemoryInstances, stop: threading.Event) -> None:
        self._instances: Final = instances
        self._stop: Final = stop

    def answer(
        self, method: str, namespace: str, name: str, query: Mapping[str, str], body: bytes
    ) -> Answer | None:
        """Return the answer; None for a method that there is not. An empty namespace is all."""
        try:
            if name:
                return self._one(method, namespace, name)
            if method == "GET":
                return self._many(namespace, query)
            if method == "POST" and namespace:
                return self._create(namespace, body)
        except answers.Refusal as refusal:
            return refusal.answer()
        return None

    def _one(self, method: str, namespace: str, name: str) -> Answer | None:
        try:
            if method == "DELETE":
                return answers.document(self._instances.delete(namespace, name))
        except InstanceMissing as error:
            raise answers.not_found(name) from error
        found = self._instances.get(namespace, name)
        if found is None:
            raise answers.not_found(name)
        return answers.document(found) if method == "GET" else None

    def _many(self, namespace: str, query: Mapping[str, str]) -> Answer:
        wanted = _Selector(namespace, query.get("labelSelector", ""))
        if query.get("watch") in {"1", "true"}:
            return self._watch(wanted, query.get("resourceVersion", ""))
        found, version = self._instances.read_all()
        return answers.document(
            {
                "kind": f"{_KIND}List",
                "apiVersion": "kubevirt.io/v1",
                "metadata": {"resourceVersion": version},
                "items": [entry for entry in found if wanted.fits(entry)],
            }
        )

    def _watch(self, wanted: _Selector, version: str) -> Answer:
        if version and not version.isdecimal():
            raise answers.bad_request(f"invalid resource version {version[:40]!r}")
        return answers.Answer(200, b"", answers.JSON, self._events(wanted, version))

    def _events(self, wanted: _Selector, version: str) -> Iterator[bytes]:
        if version in {"", "0"}:
            found, version = self._instances.read_all()
            for entry in filter(wanted.fits, found):
                yield _line("ADDED", entry)
        try:
            for kind, entry in self._instances.watch(version, self._stop):
                if wanted.fits(entry):
                    yield _line(kind, entry)
        except WatchExpired as error:
            yield _line("ERROR", json.loads(answers.expired(error.message).answer().body))

    def _create(self, namespace: str, body: bytes) -> Answer:
        fresh = _parse(body)
        metadata = fresh["metadata"]
        if metadata.setdefault("namespace", namespace) != namespace:
            raise answers.bad_request(
                "the namespace of the provided object does not match "
                "the namespace sent on the request"
            )
        try:
            parse_wish(fresh)
        except (UsageError, FormatError) as error:
            raise answers.invalid(error.message) from error
        try:
            made = self._instances.create(fresh)
        except InstanceConflict as error:
            raise answers.exists(metadata["name"]) from error
        return answers.document(made, 201)


def _parse(body: bytes) -> Document:
    try:
        documents = parse_documents(body, "body")
    except FormatError as error:
        raise answers.bad_request(error.message) from error
    fresh: Any = documents[0] if documents else None
    if (
        not isinstance(fresh, dict)
        or fresh.get("kind") != _KIND
        or fresh.get("apiVersion") not in {f"kubevirt.io/{version}" for version in VERSIONS}
    ):
        raise answers.bad_request(f"the body is not a {_KIND} of kubevirt.io")
    metadata = fresh.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise answers.invalid("metadata.name: Invalid value")
    if not isinstance(fresh.get("spec"), dict) or "domain" not in fresh["spec"]:
        raise answers.invalid("spec.domain: Required value")
    return fresh


@final
class _Selector:
    """Which VMIs a list or a watch is about."""

    def __init__(self, namespace: str, labels: str) -> None:
        self._namespace: Final = namespace
        self._labels: Final = [
            tuple(part.replace("==", "=").partition("=")[::2]) for part in labels.split(",") if part
        ]

    def fits(self, document: Document) -> bool:
        """Whether ``document`` is one of them."""
        metadata = document["metadata"]
        labels = metadata.get("labels") or {}
        return self._namespace in {"", metadata["namespace"]} and all(
            labels.get(name.strip()) == value.strip() for name, value in self._labels
        )


def _line(kind: str, document: Document) -> bytes:
    return json.dumps({"type": kind, "object": document}).encode() + b"\n"
