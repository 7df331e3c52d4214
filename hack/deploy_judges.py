"""What judges manifests: the API server's own schemas, closed, and kubectl as an administrator."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from hack.control_plane_client import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from subprocess import CompletedProcess

    from hack.control_plane_client import ApiClient

    Ask = Callable[..., CompletedProcess[bytes]]

#: How kubeconform finds the schemas that ``write_schemas`` writes.
NAMES: Final = "{{.ResourceKind}}{{.KindSuffix}}.json"
_DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_SECONDS: Final = 20.0


class JudgeError(Exception):
    """A judge cannot be asked; the message has what it said."""


def put(admin: ApiClient, path: str, document: Any) -> None:  # noqa: ANN401  # JSON
    """Make an object so, whether or not it is there already."""
    admin.patch(f"{path}?fieldManager=test&force=true", document, "apply-patch+yaml")


def definition(
    group: str, version: str, kind: str, plural: str, spec: Mapping[str, Any], *, scope: str
) -> dict[str, Any]:
    """Return a definition of somebody else's objects, whose spec has this schema."""
    schema = {"type": "object", "properties": {"spec": spec}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # Of a group that is Kubernetes' own the API server wants to know who approved it.
            "annotations": {"api-approved.kubernetes.io": "unapproved, a test"},
        },
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": kind, "plural": plural},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def define(admin: ApiClient, *documents: dict[str, Any]) -> None:
    """Put definitions in place, and wait until their objects and schemas are served."""
    for document in documents:
        put(admin, f"{_DEFINITIONS}/{document['metadata']['name']}", document)
    deadline = time.monotonic() + _SECONDS
    for document in documents:
        spec = document["spec"]
        place = f"apis/{spec['group']}/{spec['versions'][0]['name']}"
        while not _is_served(admin, place, spec["names"]):
            if time.monotonic() > deadline:
                message = f"{document['metadata']['name']} is not served"
                raise JudgeError(message)
            time.sleep(0.1)


def _is_served(admin: ApiClient, place: str, names: Mapping[str, str]) -> bool:
    try:
        admin.get(f"/{place}/{names['plural']}")
        published = admin.get(f"/openapi/v3/{place}")["components"]["schemas"]
    except ApiError:
        return False
    return any(name.endswith(f".{names['kind']}") for name in published)


def write_schemas(admin: ApiClient, groups: Mapping[str, tuple[str, str]], folder: Path) -> None:
    """Write a closed schema for each kind that the API server publishes.

    ``groups`` has by ``apiVersion`` where they are published, and what their names begin with.
    """
    for version, (place, prefix) in groups.items():
        published = admin.get(f"/openapi/v3/{place}")["components"]["schemas"]
        definitions = {name: closed(schema) for name, schema in published.items()}
        group, _, number = version.rpartition("/")
        suffix = f"{group.split('.')[0]}-{number}".strip("-")
        for name in published:
            kind = name.removeprefix(f"{prefix}.")
            if kind != name and "." not in kind:
                whole = {"$ref": f"#/definitions/{name}", "definitions": definitions}
                (folder / f"{kind.lower()}-{suffix}.json").write_text(json.dumps(whole))


def closed(schema: Any) -> Any:  # noqa: ANN401  # JSON
    """Return a schema that refuses what it does not name, and refers to its own definitions."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(part) for key, part in schema.items() if key != "default"}
    if isinstance(schema.get("$ref"), str):
        found["$ref"] = schema["$ref"].replace("#/components/schemas/", "#/definitions/")
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        found.setdefault("additionalProperties", False)
    return found


@final
@dataclass(frozen=True, slots=True)
class Kubeconform:
    """kubeconform, with a folder of schemas."""

    ask: Ask
    program: Path
    schemas: Path

    def __call__(self, data: bytes) -> dict[str, str]:
        """Return its verdicts by kind and name: "" is valid."""
        words = ["-output", "json", "-verbose", "-schema-location", str(self.schemas / NAMES)]
        rows = json.loads(self.ask(self.program, *words, "-", data=data).stdout)["resources"]
        return {f"{row['kind']} {row['name']}": row.get("msg", "") for row in rows}


@final
@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl, as the administrator of a control plane."""

    ask: Ask
    program: Path
    words: tuple[str, ...]

    def __call__(self, *words: str, data: bytes = b"") -> CompletedProcess[bytes]:
        """Run it."""
        return self.ask(self.program, *self.words, *words, data=data)

    def apply(self, data: bytes, *words: str) -> str:
        """Apply manifests, and return what it says; a warning is an error."""
        done = self("apply", "--server-side", "--validate=strict", *words, "-f", "-", data=data)
        if done.returncode or done.stderr:
            raise JudgeError(done.stderr.decode())
        return done.stdout.decode()

    def can(self, account: str, questions: Mapping[str, str]) -> dict[str, str]:
        """Return what an account may do, by question, as ``auth can-i`` answers it."""
        return {
            words: self("auth", "can-i", *words.split(), f"--as={account}").stdout.decode().strip()
            for words in questions
        }


def listed(documents: list[Any]) -> bytes:
    """Return documents as one List."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}).encode()
