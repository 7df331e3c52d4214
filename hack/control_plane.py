"""Run the real etcd and kube-apiserver on loopback, for as long as a test needs them.

Theory of operation. Each control plane lives in a folder of its own below one folder of the user's
(mode 0700), and holds a lock on it. Both servers are started so that the kernel kills them when
the thread that started them is gone, whatever ended it; the next start sweeps the folders whose
lock nobody holds. etcd listens on a socket in the folder. The API server needs a port number
before it starts: a free one is taken from the kernel, and another if somebody was quicker.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hack import control_plane_build
from hack.control_plane_client import ApiClient, ApiError
from hack.ports import free_port
from hack.started import Started
from sevkit.pki import create_authority

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS: Final = 90.0
ATTEMPTS: Final = 5
ADMIN_TOKEN: Final = "sevkit-admin"  # noqa: S105  # of a server on loopback that lives minutes
_PR_SET_PDEATHSIG: Final = 1
_SOCKET: Final = "etcd:1"
_LIFETIME: Final = timedelta(days=2)
_FRONT_PROXY: Final = "front-proxy-client"
_ISSUER: Final = "https://kubernetes.default.svc"

_AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
}


class ControlPlaneError(Exception):
    """The control plane did not start; the message says which server said what."""


@dataclass(frozen=True)
class Options:
    """What a test may want otherwise: extra flags of the API server, and feature gates.

    ``audit_level`` is how much of each request the audit log has.
    """

    flags: tuple[str, ...] = ()
    feature_gates: tuple[str, ...] = ()
    audit_level: str = "RequestResponse"


def base_folder() -> Path:
    """Return the folder of this user's control planes, made with mode 0700."""
    folder = Path(tempfile.gettempdir()) / f"sevkit-control-planes-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    owner = folder.stat()
    if owner.st_uid != os.getuid() or owner.st_mode & 0o077:
        message = f"{folder} is not ours alone"
        raise ControlPlaneError(message)
    return folder


def own_folder(stack: contextlib.ExitStack) -> Path:
    """Make a folder that is ours until ``stack`` is closed or we are gone: nobody sweeps it."""
    with _making():
        folder = Path(tempfile.mkdtemp(dir=base_folder()))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        lock = stack.enter_context((folder / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
    return folder


def sweep() -> tuple[Path, ...]:
    """Remove the folders whose owner is gone; return them. Their servers died with the owner."""
    swept = []
    with _making():
        for folder in sorted(base_folder().iterdir()):
            try:
                with (folder / "lock").open("w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    for pid in _leftovers(folder):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    shutil.rmtree(folder, ignore_errors=True)
                    swept.append(folder)
            except OSError:
                continue  # held
    return tuple(swept)


@contextlib.contextmanager
def _making() -> Iterator[None]:
    """Keep whoever sweeps away from a folder that has no lock yet."""
    base = os.open(base_folder(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(base, fcntl.LOCK_EX)
        yield
    finally:
        os.close(base)


def _leftovers(folder: Path) -> list[int]:
    """Return processes that were started for ``folder``: its name stands in their arguments."""
    mark = os.fsencode(folder)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                arguments = (entry / "cmdline").read_bytes()
                if mark in arguments and arguments.split(b"\0")[0].endswith(
                    (b"etcd", b"apiserver", b"kubevirt-admission")
                ):
                    found.append(int(entry.name))
    return found


@final
class ControlPlane(Started):
    """One etcd and one API server. Use it as a context manager."""

    def __init__(self, options: Options | None = None) -> None:
        super().__init__()
        self._options: Final = options or Options()
        self.folder: Path = Path()
        self.url: str = ""
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def ca(self) -> bytes:
        """PEM of the authority behind the API server's certificate."""
        return (self.folder / "ca.pem").read_bytes()

    @property
    def admin(self) -> ApiClient:
        """A client that may do everything."""
        return self.client(ADMIN_TOKEN)

    def client(self, token: str) -> ApiClient:
        """Return a client that speaks with ``token``."""
        return ApiClient(self.url, str(self.folder / "ca.pem"), token)

    def kubeconfig(self, token: str = ADMIN_TOKEN) -> Path:
        """Write a kubeconfig for ``token`` (0600) and return its path."""
        path = self.folder / f"kubeconfig-{len(list(self.folder.glob('kubeconfig-*')))}"
        name = "sevkit-test"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [
                {
                    "name": name,
                    "cluster": {
                        "server": self.url,
                        "certificate-authority": str(self.folder / "ca.pem"),
                    },
                }
            ],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path

    def audit(self) -> list[dict[str, Any]]:
        """Return the audit events so far, oldest first."""
        path = self.folder / "audit.log"
        if not path.exists():
            return []
        lines = path.read_text().split("\n")[:-1]  # the last may be half written
        return [json.loads(line) for line in lines]

    def stop_api(self) -> None:
        """Stop the API server, and leave etcd as it is."""
        if self._server is not None:
            _stop(self._server)

    def start_api(self) -> None:
        """Start the API server again, at the address that it had."""
        port = int(self.url.rpartition(":")[2])
        self._server = self._spawn("kube-apiserver", self._api_flags(port))
        if not self._wait_until_ready(self._server):
            message = f"kube-apiserver: {self._tail('kube-apiserver')}"
            raise ControlPlaneError(message)

    def _start(self) -> None:
        sweep()
        if not control_plane_build.is_there():
            message = "the binaries are not there: python -m hack.control_plane_build"
            raise ControlPlaneError(message)
        self.folder = own_folder(self._stack)
        _write_credentials(self.folder, self._options.audit_level)
        self._etcd = self._spawn("etcd", _etcd_flags(self.folder))
        for attempt in range(ATTEMPTS):
            port = free_port()
            self.url = f"https://127.0.0.1:{port}"
            server = self._spawn("kube-apiserver", self._api_flags(port))
            if self._wait_until_ready(server):
                self._server = server
                return
            said = self._tail("kube-apiserver")
            if "address already in use" not in said or attempt == ATTEMPTS - 1:
                message = f"kube-apiserver: {said}"
                raise ControlPlaneError(message)

    def _spawn(self, name: str, flags: list[str]) -> subprocess.Popen[bytes]:
        log: IO[bytes] = self._stack.enter_context((self.folder / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            [str(control_plane_build.assets() / name), *flags],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  # before any thread of ours is started
        )
        self._stack.callback(_stop, process)
        return process

    def _api_flags(self, port: int) -> list[str]:
        gates = ",".join(self._options.feature_gates)
        return [
            *_api_flags(self.folder, port),
            *([f"--feature-gates={gates}"] if gates else []),
            *self._options.flags,
        ]

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._etcd is not None and self._etcd.poll() is not None:
                message = f"etcd: {self._tail('etcd')}"
                raise ControlPlaneError(message)
            if server.poll() is not None:
                return False
            with contextlib.suppress(ApiError, OSError):
                self.admin.text("GET", "/readyz")
                return True
            time.sleep(0.1)
        message = f"kube-apiserver was not ready in {START_SECONDS:g} s: {self._tail('etcd')}"
        raise ControlPlaneError(message)

    def _tail(self, name: str) -> str:
        text = (self.folder / f"{name}.log").read_text(errors="replace")
        return text.strip()[-2000:] or "said nothing"


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _write_credentials(folder: Path, level: str) -> None:
    now = datetime.now(UTC)
    authority = create_authority("sevkit test control plane", lifetime=_LIFETIME, now=now)
    names = ["127.0.0.1", "localhost", "kubernetes.default.svc"]
    server = authority.issue(names, lifetime=_LIFETIME, now=now)
    key = ec.generate_private_key(ec.SECP256R1())
    proxy_certificate, proxy_key = _front_proxy(now)
    files = {
        "front-proxy.pem": proxy_certificate,
        "front-proxy.key": proxy_key,
        "ca.pem": authority.certificate,
        "server.pem": server.certificate,
        "server.key": server.key.reveal(),
        "service-account.key": _pem(key),
        "tokens.csv": f'{ADMIN_TOKEN},admin,admin,"system:masters"\n'.encode(),
        "audit-policy.json": json.dumps({**_AUDIT_POLICY, "rules": [{"level": level}]}).encode(),
    }
    for name, data in files.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(data)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _front_proxy(now: datetime) -> tuple[bytes, bytes]:
    """Return a self-signed client certificate and its key: the aggregator shows it behind it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _FRONT_PROXY)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def _etcd_flags(folder: Path) -> list[str]:
    # Relative to the folder: etcd 3.6 takes a socket only if it looks like a host and a port.
    client, peer = f"unix://{_SOCKET}", "unix://peer:1"
    return [
        f"--data-dir={folder}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _api_flags(folder: Path, port: int) -> list[str]:
    return [
        f"--etcd-servers=unix://{folder}/{_SOCKET}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--endpoint-reconciler-type=none",
        f"--tls-cert-file={folder}/server.pem",
        f"--tls-private-key-file={folder}/server.key",
        f"--client-ca-file={folder}/ca.pem",
        f"--token-auth-file={folder}/tokens.csv",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-account-issuer={_ISSUER}",
        f"--service-account-key-file={folder}/service-account.key",
        f"--service-account-signing-key-file={folder}/service-account.key",
        "--service-cluster-ip-range=10.96.0.0/16",
        f"--requestheader-client-ca-file={folder}/front-proxy.pem",
        f"--requestheader-allowed-names={_FRONT_PROXY}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={folder}/front-proxy.pem",
        f"--proxy-client-key-file={folder}/front-proxy.key",
        f"--audit-policy-file={folder}/audit-policy.json",
        f"--audit-log-path={folder}/audit.log",
        "--profiling=false",
    ]
