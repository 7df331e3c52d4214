"""The same launch measurements as libvirt's virt-qemu-sev-validate, over launches made at random.

It builds VMSAs as KVM_SEV_ES_INIT has them; the later era is compared by giving it our own pages.
It runs in one process of its own, which stands in for its imports of libvirt and lxml: nothing
that is compared uses them. Left out is what it does not check, or gets wrong: image sizes, base64,
kernel hashes for a firmware that has no place for them, and host CPUs of a domain's XML, whose mode
it compares with a list.
"""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from sevkit.measure.kernel_hashes import KernelHashes, compute_kernel_hashes
from sevkit.measure.launch_digest import compute_sev_digest, compute_sev_es_digest
from sevkit.measure.launch_measurement import compute_launch_measurement
from sevkit.measure.ovmf import PAGE, parse_ovmf
from sevkit.measure.terms import Era
from sevkit.measure.vcpu import BSP_EIP, Registers, encode_vcpu, signature_of
from sevkit.secret import Secret
from sevkit.testing.firmware import FirmwareImage, encode_firmware

CASES: Final = 240

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
    vm = module.OfflineConfidentialVM(**case["vm"])
    vm.tik = bytes.fromhex(case["tik"])
    vm.load_firmware(case["firmware"])
    if case["kernel"]:
        vm.kernel_table.load_kernel(case["kernel"])
        if case["initrd"]:
            vm.kernel_table.load_initrd(case["initrd"])
        if case["cmdline"] is not None:
            vm.kernel_table.load_cmdline(case["cmdline"])
    if case["fms"]:
        vm.build_vmsas(*case["fms"])
    if case["vmsa"]:
        vm.load_vmsa_cpu0(case["vmsa"][0])
        vm.load_vmsa_cpu1(case["vmsa"][1])
    answers.append(vm.get_measurements()[1].hex())
json.dump(answers, sys.stdout)
"""


@dataclass(frozen=True)
class Case:
    question: dict[str, object]
    expected: str
    kind: str


def _validator() -> Path:
    fallback = Path.home() / ".cache" / "sevkit" / "peers"
    folder = Path(os.environ.get("SEVKIT_PEERS") or fallback) / "virt-qemu-sev-validate"
    path = folder / "usr" / "bin" / "virt-qemu-sev-validate"
    if not path.is_file():
        pytest.skip(f"no {path}: hack/peers installs it")
    return path


def _write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def seeded(seed: int) -> random.Random:
    """Return the same launches in every run."""
    return random.Random(seed)  # noqa: S311  # it makes test data, no keys


def _firmware(rng: random.Random) -> bytes:
    image = FirmwareImage(
        size=rng.randint(1, 4) * PAGE,
        reset_eip=rng.randrange(1, 1 << 32),
        sections=None if rng.random() < 0.3 else FirmwareImage().sections,
        filler=rng.randrange(256),
    )
    return encode_firmware(image)


def make_case(seed: int, folder: Path, real: Path | None) -> Case:
    rng = seeded(seed)
    data = _firmware(rng) if real is None else real.read_bytes()
    path = str(real) if real is not None else _write(folder / f"{seed}.fd", data)
    kernel = initrd = ""
    cmdline = None
    hashes: KernelHashes | None = None
    if rng.random() < 0.6:
        kernel_data, initrd_data = rng.randbytes(rng.randint(1, 3000)), None
        kernel = _write(folder / f"{seed}.kernel", kernel_data)
        if rng.random() < 0.5:
            initrd_data = rng.randbytes(rng.randint(1, 3000))
            initrd = _write(folder / f"{seed}.initrd", initrd_data)
        cmdline = rng.choice([None, "", "quiet", "a b \n", "ünïcode", "z" * 2500])
        hashes = compute_kernel_hashes(kernel_data, initrd=initrd_data, cmdline=cmdline)
    kind = rng.choice(["sev", "init", "init-pages", "init2-pages"])
    vcpus = rng.choice([1, 2, 3, 8, 64])
    fms = rng.choice([(23, 1, 2), (23, 49, 0), (25, 1, 1), (25, 17, 0), (25, 160, 2), (26, 2, 1)])
    registers = Registers(
        signature_of(*fms), 0, era=Era.INIT2 if kind == "init2-pages" else Era.INIT
    )
    pages = None
    if kind.endswith("pages"):
        eips = (BSP_EIP, parse_ovmf(data).reset_eip or 0)
        pages = [
            _write(folder / f"{seed}.vmsa{n}", encode_vcpu(registers, eip))
            for n, eip in enumerate(eips)
        ]
    if kind == "sev":
        digest = compute_sev_digest(data, hashes)
    else:
        digest = compute_sev_es_digest(data, registers, vcpus, hashes)
    policy = (rng.randrange(1 << 32) & ~4) | (0 if kind == "sev" else 4)
    tik, mnonce = rng.randbytes(16), rng.randbytes(16)
    api_major, api_minor, build_id = (rng.randrange(256) for _ in range(3))
    expected = compute_launch_measurement(
        Secret(tik),
        api_major=api_major,
        api_minor=api_minor,
        build_id=build_id,
        policy=policy,
        digest=digest,
        mnonce=mnonce,
    )
    question: dict[str, object] = {
        "vm": {
            "measurement": base64.b64encode(bytes(32) + mnonce).decode(),
            "api_major": api_major,
            "api_minor": api_minor,
            "build_id": build_id,
            "policy": policy,
            "num_cpus": vcpus,
        },
        "tik": tik.hex(),
        "firmware": path,
        "kernel": kernel,
        "initrd": initrd,
        "cmdline": cmdline,
        "fms": fms if kind == "init" else None,
        "vmsa": pages,
    }
    return Case(question, expected.hex(), kind)


def ask(cases: list[Case]) -> list[str]:
    """Run the peer once over all cases."""
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER, str(_validator())],
        input=json.dumps([case.question for case in cases]),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers: list[str] = json.loads(done.stdout)
    return answers


def test_generated_launches_agree(tmp_path: Path) -> None:
    _validator()
    cases = [make_case(seed, tmp_path, None) for seed in range(CASES)]
    assert {case.kind for case in cases} == {"sev", "init", "init-pages", "init2-pages"}
    assert len({case.expected for case in cases}) == CASES  # no launch counts twice
    answers = ask(cases)
    wrong = [n for n, case in enumerate(cases) if case.expected != answers[n]]
    assert len(answers) == CASES
    assert wrong == []


def test_the_whole_amdsev_firmware_agrees(tmp_path: Path, ovmf_amdsev: Path) -> None:
    _validator()
    cases = [make_case(seed, tmp_path, ovmf_amdsev) for seed in range(1000, 1012)]
    assert [case.expected for case in cases] == ask(cases)
