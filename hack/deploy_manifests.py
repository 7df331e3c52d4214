"""Manifests as documents: read, built by kustomize, and asked what no workload of ours may have.

A check yields what is wrong, one line each, so that a test can show of every one of them that it
finds what it is for.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hack import debian
from sevkit.documents import parse_documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Document: TypeAlias = dict[str, Any]
Documents: TypeAlias = list[Document]

FOLDER: Final = debian.ROOT / "deploy"
NAMESPACE: Final = "sevkit-system"
WORKLOADS: Final = ("DaemonSet", "Deployment")


def read(data: bytes) -> list[Any]:
    """Return the documents of a stream."""
    return list(parse_documents(data, "manifests"))


def documents_of(base: Path) -> Documents:
    """Return the documents of a base that patches nothing, and of the bases that it names."""
    (kustomization,) = read((base / "kustomization.yaml").read_bytes())
    unknown = kustomization.keys() - {"apiVersion", "kind", "labels", "namespace", "resources"}
    if unknown:
        message = f"{base} is not what its documents are: {unknown}"
        raise ValueError(message)
    found: Documents = []
    for name in kustomization["resources"]:
        path = base / name
        found += documents_of(path) if path.is_dir() else read(path.read_bytes())
    return found


def kustomize() -> Path | None:
    """Return the program, None if it is not installed."""
    program = debian.cache_folder("SEVKIT_PEERS", "peers") / "kustomize" / "bin" / "kustomize"
    return program if os.access(program, os.X_OK) else None


def write_overlay(folder: Path, bases: Iterable[Path], components: Iterable[Path] = ()) -> None:
    """Write a kustomization that puts these together, in ``folder``."""
    whole = {
        "resources": [os.path.relpath(base, folder) for base in bases],
        "components": [os.path.relpath(one, folder) for one in components],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(whole))


def build_overlay(program: Path, folder: Path) -> Documents:
    """Return what kustomize makes of ``folder``."""
    command = [str(program), "build", str(folder)]
    return read(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)


def of_kind(documents: Documents, *kinds: str) -> Documents:
    """Return the documents of these kinds."""
    return [document for document in documents if document["kind"] in kinds]


def pod_of(documents: Documents) -> Document:
    """Return the spec of the first workload's pod; that there is no other is for others to see."""
    workload, *_ = of_kind(documents, *WORKLOADS)
    pod: Document = workload["spec"]["template"]["spec"]
    return pod


def containers(documents: Documents) -> Documents:
    """Return all containers of that pod, of whatever sort."""
    pod = pod_of(documents)
    return [*pod.get("initContainers", []), *pod["containers"], *pod.get("ephemeralContainers", [])]


def container(documents: Documents, name: str) -> Document:
    """Return one of them."""
    (found,) = (one for one in containers(documents) if one["name"] == name)
    return found


def shared_with_the_host(documents: Documents) -> Iterator[str]:
    """Yield what a pod shares with its host."""
    pod = pod_of(documents)
    for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        if pod.get(key):
            yield f"pod has {key}"
    for one in containers(documents):
        for port in one.get("ports", []):
            if "hostPort" in port:
                yield f"{one['name']} has a hostPort"


def privileges(documents: Documents) -> Iterator[str]:
    """Yield what a container may do that it must not."""
    if pod_of(documents)["securityContext"].get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "pod has not the runtime's seccomp profile"
    for one in containers(documents):
        context, name = one.get("securityContext", {}), one["name"]
        if context.get("privileged"):
            yield f"{name} is privileged"
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{name} may escalate"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{name} may write its root"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name} has capabilities"
        if "seccompProfile" in context or context.get("procMount", "Default") != "Default":
            yield f"{name} has a profile of its own"


def images(documents: Documents, image: str) -> Iterator[str]:
    """Yield what is wrong with where containers come from; ``image`` is the only name."""
    for one in containers(documents):
        name, _, tag = one["image"].partition(":")
        if not tag or tag == "latest":
            yield f"{one['name']} has an image without a version"
        if name != image:
            yield f"{one['name']} has somebody else's image"
        if one.get("imagePullPolicy") != "IfNotPresent":
            yield f"{one['name']} is pulled again and again"


def environments(documents: Documents) -> Iterator[str]:
    """Yield which containers have a secret in their environment, and who has a registry's."""
    for one in containers(documents):
        for row in one.get("env", []):
            if "secretKeyRef" in row.get("valueFrom", {}):
                yield f"{one['name']} has a secret in its environment"
        if one.get("envFrom"):
            yield f"{one['name']} takes a whole environment"
    if pod_of(documents).get("imagePullSecrets"):
        yield "pod names a secret of somebody's registry"


def bindings_of(documents: Documents, account: str) -> Iterator[str]:
    """Yield whom a role is given but the one service account, and where another role is given."""
    subject = {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}
    for binding in of_kind(documents, "ClusterRoleBinding", "RoleBinding"):
        kind, name = binding["kind"].removesuffix("Binding"), binding["metadata"]["name"]
        if binding.get("subjects") != [subject]:
            yield f"{binding['kind']} is for somebody else"
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
        if binding["roleRef"] != reference:
            yield f"{binding['kind']} gives another role"


def broken(documents: Documents, kind: str, path: str, value: object, *, name: str) -> Documents:
    """Return a copy with one thing otherwise; ``path`` has a document's keys and indexes.

    A ``%`` in it stands for a key's own slash.
    """
    copied = copy.deepcopy(documents)
    inner: Any = next(row for row in of_kind(copied, kind) if row["metadata"]["name"] == name)
    *keys, last = (int(key) if key.isdigit() else key.replace("%", "/") for key in path.split("/"))
    for key in keys:
        inner = inner[key]
    if isinstance(inner, list) and last == len(inner):
        inner.append(value)
    else:
        inner[last] = value
    return copied
