"""libvirt's virt-qemu-sev-validate packs secrets; our secure processor's side opens the packets.

And with its IV our own packing gives the same bytes. The peer runs in one process of its own,
which stands in for its imports of libvirt and lxml: packing uses neither.
"""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Final

import pytest

from sevkit.abi.secret_packet import (
    PACKET_HEADER,
    SecretEntry,
    SecretPacket,
    encode_secret_table,
    open_packet,
    parse_secret_table,
    seal_packet,
)
from sevkit.abi.session import TransportKeys
from sevkit.secret import Secret

CASES: Final = 60

_RUNNER: Final = """
import json, sys, types
from importlib.machinery import SourceFileLoader
for name in ("libvirt", "lxml"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["lxml"].etree = None
module = types.ModuleType("peer")
sys.dont_write_bytecode = True
SourceFileLoader("peer", sys.argv[1]).exec_module(module)
answers = []
for case in json.load(sys.stdin):
    vm = module.OfflineConfidentialVM(
        measurement=case["measurement"], api_major=0, api_minor=0, build_id=0, policy=0
    )
    vm.firmware = b""  # packing does not look whether the measurement is right
    vm.tik, vm.tek = bytes.fromhex(case["tik"]), bytes.fromhex(case["tek"])
    for guid, path in case["secrets"]:
        vm.secrets_table.load_secret(guid, path)
    answers.append(vm.build_secrets())
json.dump(answers, sys.stdout)
"""


def _validator() -> Path:
    fallback = Path.home() / ".cache" / "sevkit" / "peers"
    folder = Path(os.environ.get("SEVKIT_PEERS") or fallback) / "virt-qemu-sev-validate"
    path = folder / "usr" / "bin" / "virt-qemu-sev-validate"
    if not path.is_file():
        pytest.skip(f"no {path}: hack/peers installs it")
    return path


def test_packets_of_the_peer_open_and_are_packed_alike(tmp_path: Path) -> None:
    validator = _validator()
    rng = random.Random(7)  # noqa: S311  # it makes test data, no keys
    cases, questions = [], []
    for number in range(CASES):
        tek, tik = rng.randbytes(16), rng.randbytes(16)
        measurement = rng.randbytes(48)
        secrets = {}
        for n in range(rng.randint(1, 3)):
            path = tmp_path / f"{number}.{n}"
            path.write_bytes(rng.randbytes(rng.choice([1, 15, 16, 17, 100, 3000])))
            secrets[uuid.UUID(int=rng.randrange(1, 1 << 128))] = path
        keys = TransportKeys(tek=Secret(tek), tik=Secret(tik))
        cases.append((keys, measurement, secrets))
        questions.append(
            {
                "tek": tek.hex(),
                "tik": tik.hex(),
                "measurement": base64.b64encode(measurement).decode(),
                "secrets": [[str(guid), str(path)] for guid, path in secrets.items()],
            }
        )
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER, str(validator)],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert len(answers) == CASES
    padded_alike = 0
    for (keys, measurement, secrets), (header, payload) in zip(cases, answers, strict=True):
        packet = SecretPacket(base64.b64decode(header), base64.b64decode(payload))
        table = open_packet(keys, packet, measure=measurement[:32])
        entries = tuple(SecretEntry(g, Secret(p.read_bytes())) for g, p in secrets.items())
        assert parse_secret_table(table) == entries
        ours = encode_secret_table(entries)
        iv = PACKET_HEADER.parse(packet.header).raw("iv")
        # The peer adds a whole block of padding where none is needed.
        assert table.reveal().startswith(ours.reveal())
        assert len(table) - len(ours) in {0, 16}
        if table == ours:
            padded_alike += 1
            assert seal_packet(keys, ours, measure=measurement[:32], iv=iv) == packet
    assert padded_alike > CASES // 2
