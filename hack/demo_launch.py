"""The demonstration for guest owners: launches in a simulated KubeVirt, led and refused."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from hack import debian

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: GUID of a disk's key in the launch secret, as Linux and OVMF know it.
DISK: Final = "736869e5-84f0-4973-92ec-06879ce3da0b"
ACCEPTED: Final = ("--accept", "unmeasured-boot", "--accept", "unmeasured-variables")
_VMI: Final = """\
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata:
  name: {name}
spec:
  domain:
    cpu: {{cores: 2, model: EPYC-Milan}}
    memory: {{guest: 2Gi}}
    devices: {{}}
"""
_KUBECONFIG: Final = """\
apiVersion: v1
kind: Config
current-context: simulated
clusters:
- {{name: simulated, cluster: {{server: "{url}", certificate-authority: {ca}}}}}
users:
- {{name: owner, user: {{token: rehearsal}}}}
contexts:
- {{name: simulated, context: {{cluster: simulated, user: owner}}}}
"""


class Cluster(NamedTuple):
    """A simulated cluster: its kubeconfig, and what its one node's chip is trusted by."""

    kubeconfig: Path
    cek: str
    ca: str
    root: str

    def attest(self, name: str, state: Path) -> list[str | Path]:
        """Return the words that take a VMI through attestation, but for what is expected."""
        chain = ("--cek", self.cek, "--ca", self.ca, "--root", self.root)
        return ["attest", "vmi", name, "--kubeconfig", self.kubeconfig, *chain, "--state", state]


@contextlib.contextmanager
def simulated(out: Path, firmware: Path, manifest: Path) -> Iterator[Cluster]:
    """Serve a simulated KubeVirt whose host launches ``firmware``, with the manifest's VMIs."""
    state = out / "state"
    out.mkdir(parents=True)
    words = ("--state", state, "--firmware", firmware, "--vmi", manifest, "--output", "json")
    command = [sys.executable, "-m", "sevkit", "simulate", "kubevirt", *map(str, words)]
    with subprocess.Popen(command, cwd=debian.ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = "".join(iter(_lines(process), "}\n")) + "}"
            found = json.loads(said)
            kubeconfig = out / "kubeconfig"
            kubeconfig.write_text(
                _KUBECONFIG.format(url=found["url"], ca=debian.ROOT / found["ca"])
            )
            node = found["nodes"][0]
            yield Cluster(kubeconfig, node["cek"], node["ca"], node["root"])
        finally:
            process.terminate()


def _lines(process: subprocess.Popen[str]) -> Callable[[], str]:
    if process.stdout is None:
        message = "the simulation has no standard output"
        raise RuntimeError(message)
    return process.stdout.readline


def _manifest(sevkit: Callable[..., str], out: Path, tiers: dict[str, str]) -> Path:
    """Return a stream of VMIs, each made confidential as its tier."""
    parts: list[str] = []
    for name, tier in tiers.items():
        plain = out / f"{name}.yaml"
        plain.write_text(_VMI.format(name=name))
        words = ("--confidential", tier, "--attestation", "required")
        parts.append(sevkit("inject", "-f", plain, *words, show=False))
    whole = out / f"{'-'.join(tiers)}.yaml"
    whole.write_text("---\n".join(parts))
    return whole


def launches(
    sevkit: Callable[..., str], refused: Callable[..., None], out: Path, firmware: Path, other: Path
) -> None:
    """Lead a launch of SEV and one of SEV-ES to their end, and refuse what has to be refused."""
    (out / "sessions").mkdir(mode=0o700)
    key, reference = out / "launch.key", out / "reference.json"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    secret = ("--secret", f"{DISK}={key}")
    sev = ("--firmware", firmware, "--guest-policy", "1", *secret)
    manifest = _manifest(sevkit, out, {"ledger": "sev", "vault": "sev-es", "hasty": "sev"})
    with simulated(out / "honest", firmware, manifest) as cluster:
        words = cluster.attest("ledger", out / "sessions/ledger")
        sevkit(*words, *sev, *ACCEPTED, "--html", out / "launch.html", lines=9)
        guest = ("--vcpus", "2", "--vcpu-type", "EPYC-Milan", "--output", "json")
        measured = ("measure", "--mode", "sev-es", "--firmware", firmware, *guest)
        reference.write_text(sevkit(*measured, quiet=True))
        es = ("--firmware", firmware, "--guest-policy", "5", "--reference", reference, *secret)
        sevkit(*cluster.attest("vault", out / "sessions/vault"), *es, *ACCEPTED, lines=9)
        words = cluster.attest("hasty", out / "sessions/hasty")
        refused("A boot that nothing measures, and no owner who accepts that", *words, *sev, code=5)
    manifest = _manifest(sevkit, out, {"swapped": "sev", "forged": "sev"})
    with simulated(out / "lying", other, manifest) as cluster:
        words = cluster.attest("swapped", out / "sessions/swapped")
        why = "A host that launches another firmware than the owner's"
        refused(why, *words, *sev, *ACCEPTED, code=1)
        chain = cluster._replace(root=str(out / "honest/state/milan-ark.cert"))
        words = chain.attest("forged", out / "sessions/forged")
        refused("A host whose chain ends at another root", *words, *sev, *ACCEPTED, code=1)
