"""Two hundred VMIs that boot at once: each gets its secret in time, for little of our own CPU."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any, Final

from hack.owner_scene import FILES, TABLE, create, make_hardware, write_kubeconfig, write_owner
from sevkit.guest_owner.terms import LAUNCHER_SECONDS
from sevkit.measure.terms import Mode
from sevkit.testing.kubevirt.simulation import SimulatedKubeVirt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COUNT: Final = 200
#: Seconds of CPU for all of them; on a machine of its own it is half of that.
CPU_SECONDS: Final = 6.0
LABELS: Final = {"app": "ledger"}
VMIS: Final = [{"namespace": "default", "labelSelector": "app=ledger"}]
_CPU: Final = re.compile(r"^process_cpu_seconds_total (\S+)$", re.MULTILINE)


def cpu_seconds(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        found = _CPU.search(answer.read().decode())
    assert found is not None
    return float(found[1])


def test_two_hundred_vmis_at_once_all_get_their_secret(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    hardware = make_hardware()
    write_owner(tmp_path, hardware, vmis=VMIS)
    with SimulatedKubeVirt(hardware.hosts, FILES, retry=0.05) as kubevirt:
        command = [
            *(sys.executable, "-m", "sevkit", "attest", "watch", "--verbose"),
            f"--owner={tmp_path / 'owner.json'}",
            f"--state={tmp_path / 'state'}",
            f"--kubeconfig={write_kubeconfig(tmp_path, kubevirt)}",
            "--listen=127.0.0.1:0",
        ]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            stuck = threading.Timer(LAUNCHER_SECONDS, process.kill)
            stuck.start()
            try:
                port = json.loads(process.stderr.readline())["port"]
                before, began = cpu_seconds(port), time.monotonic()
                modes = (Mode.SEV, Mode.SEV_ES)
                vmis = [create(kubevirt, modes[n % 2], labels=LABELS) for n in range(COUNT)]
                lines: list[dict[str, Any]] = [
                    json.loads(process.stdout.readline()) for _ in range(COUNT)
                ]
                seconds, used = time.monotonic() - began, cpu_seconds(port) - before
            finally:
                stuck.cancel()
                process.send_signal(signal.SIGTERM)
        assert {line["evidence"]["vmi"] for line in lines} == {f"default/{v.name}" for v in vmis}
        assert all(line["accepted"] for line in lines)
        assert all(kubevirt.injected(vmi.namespace, vmi.name) == (TABLE,) for vmi in vmis)
        assert seconds < LAUNCHER_SECONDS
        record_property("said", f"{COUNT} launches in {seconds:.1f} s, {used:.2f} s of CPU")
        assert used < CPU_SECONDS
