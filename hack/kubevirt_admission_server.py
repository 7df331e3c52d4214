"""Run KubeVirt's own admission code on loopback, for as long as a test needs it.

The program watches its parent, and ends with it whatever ended that; see
``hack/kubevirt-admission``. It takes about three seconds to start, which KubeVirt's own tables take
in every process, so one serves many tests: the KubeVirt resource can be replaced while it runs.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import secrets
import select
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, final

from hack import kubevirt_admission
from hack.control_plane import own_folder
from hack.started import Started
from sevkit.pki import create_authority

START_SECONDS: Final = 90.0
REQUEST_SECONDS: Final = 30.0
_LIFETIME: Final = timedelta(days=1)
_SOMEWHERE: Final = "https://somewhere.invalid"
#: KubeVirt's start makes a gigabyte of garbage; collecting it less often is a second gained.
_COLLECTOR: Final = {"GOGC": "400"}


class AdmissionServerError(Exception):
    """The program did not start or did not answer as it should; the message says what it said."""


@final
class AdmissionServer(Started):
    """One process that answers as virt-api's webhooks do. Use it as a context manager.

    Without ``kubeconfig`` the cluster is empty and ``kubevirt`` is the KubeVirt resource in force;
    with it, instance types, presets and namespaces are the cluster's, and if ``kubevirt`` is None
    its KubeVirt resource too.
    """

    def __init__(
        self, kubevirt: dict[str, Any] | None = None, *, kubeconfig: Path | None = None
    ) -> None:
        super().__init__()
        self._kubevirt: Final = kubevirt
        self._kubeconfig: Final = kubeconfig
        self._folder: Path = Path()
        self._context: ssl.SSLContext = ssl.create_default_context()
        self._port: int = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def ca_file(self) -> Path:
        """PEM of the authority behind its certificate."""
        return self._folder / "ca.pem"

    def webhooks(self) -> list[dict[str, Any]]:
        """Return KubeVirt's webhook configurations, pointed at this process."""
        found = _objects("webhooks", "--json", "--url", _SOMEWHERE, "--ca-file", "/dev/null")
        authority = base64.b64encode(self.ca_file.read_bytes()).decode()
        for webhook in (webhook for document in found for webhook in document["webhooks"]):
            config = webhook["clientConfig"]
            config["url"] = self.url + config["url"].removeprefix(_SOMEWHERE)
            config["caBundle"] = authority
        return found

    def configure(self, kubevirt: dict[str, Any]) -> None:
        """Put another KubeVirt resource in force, for every request after this."""
        self._request("PUT", "/config", kubevirt, 204)

    def configuration(self) -> dict[str, Any]:
        """Return the configuration in force, with KubeVirt's defaults."""
        found: dict[str, Any] = json.loads(self._request("GET", "/config", None, 200))
        return found

    def review(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """Post an AdmissionReview with this ``request``; return its ``response``."""
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        answer = json.loads(self._request("POST", path, review | {"request": request}, 200))
        response = answer.get("response") or {}
        if response.get("uid") != request.get("uid"):
            message = f"{path} answered another review: {answer}"
            raise AdmissionServerError(message)
        found: dict[str, Any] = response
        return found

    def _start(self) -> None:
        self._folder = own_folder(self._stack)
        authority = create_authority("sevkit test", lifetime=_LIFETIME)
        leaf = authority.issue(["127.0.0.1"], lifetime=_LIFETIME, now=datetime.now(UTC))
        files = {"ca.pem": authority.certificate, "cert.pem": leaf.certificate}
        for name, data in files.items():
            (self._folder / name).write_bytes(data)
        key = self._folder / "key.pem"
        key.touch(mode=0o600)
        key.write_bytes(leaf.key.reveal())
        self._context = ssl.create_default_context(cafile=str(self.ca_file))
        arguments = ["--tls-cert", str(self._folder / "cert.pem"), "--tls-key", str(key)]
        if self._kubevirt is not None:
            resource = self._folder / "kubevirt.json"
            resource.write_text(json.dumps(self._kubevirt))
            arguments += ["--kubevirt-cr", str(resource)]
        if self._kubeconfig is not None:
            arguments += ["--kubeconfig", str(self._kubeconfig)]
        self._spawn(arguments)

    def _spawn(self, arguments: list[str]) -> None:
        log = self._folder / "log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                [str(kubevirt_admission.binary()), "serve", *arguments],
                env=_COLLECTOR | os.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
            )
        self.process = process
        self._stack.callback(_stop, process)
        if process.stdout is None:
            message = "no pipe from kubevirt-admission"
            raise AdmissionServerError(message)
        ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        line = process.stdout.readline() if ready else b""
        if not line.strip().isdigit():
            last = log.read_text(errors="replace").strip().splitlines()[-3:]
            message = f"kubevirt-admission did not start: {' '.join(last) or 'no reason given'}"
            raise AdmissionServerError(message)
        self._port = int(line)

    def _request(self, method: str, path: str, body: object, wanted: int) -> bytes:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, context=self._context, timeout=REQUEST_SECONDS
        )
        with contextlib.closing(connection):
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
        if answer.status != wanted:
            message = f"{method} {path}: {answer.status} {data.decode(errors='replace').strip()}"
            raise AdmissionServerError(message)
        return data


def crds(*plurals: str) -> list[dict[str, Any]]:
    """Return KubeVirt's custom resource definitions (of these resources)."""
    found = _objects("crds", "--json")
    return [row for row in found if not plurals or row["spec"]["names"]["plural"] in plurals]


def _objects(*words: str) -> list[dict[str, Any]]:
    """Return the objects that a command of the program prints; asked once for each build.

    Every process of it begins with three seconds of KubeVirt's own tables.
    """
    path = kubevirt_admission.binary()
    kept, key = path.with_name(f"{words[0]}.json"), [kubevirt_admission.key(), *words]
    try:
        document = json.loads(kept.read_text())
    except (OSError, ValueError):
        document = {}
    if document.get("key") != key:
        done = subprocess.run(
            [str(path), *words], env=_COLLECTOR | os.environ, check=False, capture_output=True
        )
        if done.returncode:
            raise AdmissionServerError(done.stderr.decode(errors="replace").strip())
        document = {"key": key, "items": json.loads(done.stdout)["items"]}
        fresh = path.with_name(f".{secrets.token_hex(8)}.new")  # other workers may do the same
        fresh.write_text(json.dumps(document))
        fresh.replace(kept)
    found: list[dict[str, Any]] = document["items"]
    return found


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
