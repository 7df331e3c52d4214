"""Let command lines loose on simulated libvirt domains: ours, and virt-qemu-sev-validate's.

``run_rounds`` starts one process, in which ``import libvirt`` gives the simulated one, and returns
what became of each round. In each, a domain is launched on a simulated secure processor with a
session of its own; the owner's files lie in a folder; then one command is run there, as a user
would. Words of the command may name ``{owner}`` (the folder) and ``{name}`` (the domain).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, final

from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.product import Product
from sevkit.abi.session import (
    TransportKeys,
    compute_shared_secret,
    encode_godh,
    godh_key,
    seal_session,
)
from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.attest.sev_session import LaunchSession
from sevkit.cli.main import main as sevkit_main
from sevkit.errors import HypervisorError
from sevkit.secret import Secret
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.hypervisor.connection import SimulatedHypervisor
from sevkit.testing.hypervisor.libvirt_module import make_libvirt
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import make_roots
from sevkit.testing.virtual_machine import SevMachine, SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sevkit.testing.hypervisor.domain import SimulatedDomain

#: The host's files, which are also the owner's unless a round says otherwise.
FILES: Final[Mapping[str, bytes]] = {
    "ovmf.fd": encode_firmware(FirmwareImage()),
    "no-area.fd": encode_firmware(FirmwareImage(secret_area=None)),
    "other.fd": encode_firmware(FirmwareImage(filler=7)),
    "vmlinuz": b"the kernel",
    "initrd": b"the initrd",
}
REMOTE: Final = "qemu+ssh://host/system"
LOCAL: Final = "qemu:///system"
KEY: Final = b"the key of the disk"
_CPU: Final = "<cpu mode='custom'><model>EPYC-Rome</model></cpu>"


@final
@dataclass(frozen=True)
class Setup:
    """A domain as its host sets it up; the defaults are a good one.

    ``loader`` and ``boot`` are XML of ``<os>``, ``more`` of the domain; ``state`` is ``paused``,
    ``running`` or ``off``. ``session`` says whether the domain has one, ``others_session`` that it
    is not the owner's. ``lies`` are patterns and what stands for them in the XML that is shown.
    """

    policy: int = 1
    vcpus: str = "<vcpu>2</vcpu>"
    loader: str = "<loader type='rom'>/ovmf.fd</loader>"
    boot: str = ""
    hashes: str = ""
    more: str = ""
    state: str = "paused"
    kind: str = "sev"
    session: bool = True
    others_session: bool = False
    lies: tuple[tuple[str, str], ...] = ()


@final
@dataclass(frozen=True)
class Round:
    """One command against one domain. ``tool`` is ``sevkit`` or ``peer``."""

    tool: str
    setup: Setup
    words: tuple[str, ...]


@final
@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what the guest has from it: its state, and secret tables in hex."""

    code: int
    out: str
    err: str
    state: str
    tables: tuple[str, ...] = ()


def run_rounds(
    folder: Path, rounds: Sequence[Round], *, peer: Path | None = None, timeout: int = 300
) -> list[Outcome]:
    """Run all rounds in one process, with ``folder`` for its files."""
    done = subprocess.run(
        [sys.executable, "-m", "hack.domain_rounds", str(folder), str(peer or "")],
        input=json.dumps([asdict(one) for one in rounds]),
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [Outcome(**{**one, "tables": tuple(one["tables"])}) for one in json.loads(done.stdout)]


class _Stage:
    """The simulated host, seen under a name of its own and under this machine's."""

    def __init__(self, folder: Path, peer: Path | None) -> None:
        self._kvm = SimulatedKvm(SecureProcessor(ChipIdentity(Product.NAPLES, make_roots())))
        files = {f"/{name}": data for name, data in FILES.items()}
        self._hosts = {
            uri: SimulatedHypervisor(self._kvm, files, hostname=name)
            for uri, name in ((REMOTE, "host.example"), (LOCAL, socket.getfqdn()))
        }
        self._folder = folder
        self._count = 0
        sys.modules["libvirt"] = make_libvirt(self._hosts.__getitem__)
        self._tools: dict[str, Callable[[list[str]], int]] = {"sevkit": sevkit_main}
        if peer is not None:
            self._tools["peer"] = _load_peer(peer)

    def play(self, one: Round) -> Outcome:
        """Launch the domain, run the command, and return what became of both."""
        self._count += 1
        name = f"domain-{self._count}"
        owner = self._folder / name
        session = self._seal(one.setup.policy)
        _write_owner(owner, session)
        words = [word.format(owner=owner, name=name) for word in one.words]
        given = self._seal(one.setup.policy) if one.setup.others_session else session
        xml = _xml(name, one.setup, given)
        uri = LOCAL if any(LOCAL in word for word in words) else REMOTE
        domain = self._hosts[uri].define(xml)
        for pattern, instead in one.setup.lies:
            xml = re.sub(pattern, instead, xml, flags=re.DOTALL)
        domain.show_xml(xml)
        try:
            if one.setup.state != "off":
                domain.start(paused=one.setup.state == "paused")
            code, out, err = _captured(self._tools[one.tool], words)
            return Outcome(code, out, err, domain.state().value, self._tables(domain))
        finally:
            with contextlib.suppress(HypervisorError):
                domain.destroy()

    def _tables(self, domain: SimulatedDomain) -> tuple[str, ...]:
        if not isinstance(domain.guest, SevMachine):
            return ()
        injected = self._kvm.processor.sev_guests[domain.guest.handle].injected
        return tuple(table.reveal().hex() for _, table in injected)

    def _seal(self, policy: int) -> LaunchSession:
        pdh = parse_sev_certificate(self._kvm.processor.sev.pdh_cert_export()[0])
        private = ec.generate_private_key(ec.SECP384R1())
        keys = TransportKeys(Secret(os.urandom(16)), Secret(os.urandom(16)))
        shared = compute_shared_secret(private, godh_key(pdh))
        nonce, iv = os.urandom(16), os.urandom(16)
        blob = seal_session(shared, keys, policy, nonce=nonce, iv=iv)
        return LaunchSession(blob, encode_godh(private), keys, policy, "0" * 64, simulated=True)


def _write_owner(folder: Path, session: LaunchSession) -> None:
    folder.mkdir(mode=0o700)
    files = {
        **FILES,
        "tik.bin": session.keys.tik.reveal(),
        "tek.bin": session.keys.tek.reveal(),
        "session.json": json.dumps(session.describe()).encode(),
        "disk.key": KEY,
        "empty": b"",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)


def _xml(name: str, setup: Setup, session: LaunchSession) -> str:
    given = f"<dhCert>{session.godh_base64}</dhCert><session>{session.session_base64}</session>"
    security = (
        f"<launchSecurity type='{setup.kind}'{setup.hashes}><policy>{setup.policy:#x}</policy>"
        f"{given if setup.session else ''}</launchSecurity>"
    )
    return (
        f"<domain type='kvm'><name>{name}</name>{setup.vcpus}<os>"
        f"<type arch='x86_64' machine='q35'>hvm</type>{setup.loader}{setup.boot}</os>"
        f"{_CPU}{security if setup.kind else ''}{setup.more}</domain>"
    )


def _load_peer(path: Path) -> Callable[[list[str]], int]:
    module = ModuleType("peer")
    sys.dont_write_bytecode = True
    SourceFileLoader("peer", str(path)).exec_module(module)

    def run(words: list[str]) -> int:
        sys.argv = ["virt-qemu-sev-validate", *words]
        try:
            module.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


def _captured(tool: Callable[[list[str]], int], words: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = tool(words)
    return code, out.getvalue(), err.getvalue()


def _main(words: list[str]) -> None:
    folder, peer = Path(words[0]), words[1]
    stage = _Stage(folder, Path(peer) if peer else None)
    rounds: list[dict[str, Any]] = json.load(sys.stdin)
    outcomes = []
    for one in rounds:
        lies = tuple(map(tuple, one["setup"]["lies"]))
        setup = Setup(**{**one["setup"], "lies": lies})
        outcomes.append(asdict(stage.play(Round(one["tool"], setup, tuple(one["words"])))))
    print(json.dumps(outcomes))


if __name__ == "__main__":
    _main(sys.argv[1:])
