"""The guest owner's four commands against a simulated secure processor, as processes."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from sevkit.abi.secret_packet import SecretPacket, open_packet, parse_secret_table
from sevkit.abi.session import compute_shared_secret, godh_key, open_session, parse_session
from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.measure.launch_digest import compute_sev_es_digest
from sevkit.measure.launch_measurement import compute_launch_measurement
from sevkit.measure.terms import Era
from sevkit.measure.vcpu import Registers
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.sev_chain import make_platform, make_roots

if TYPE_CHECKING:
    from pathlib import Path

GUID = "736869e5-84f0-4973-92ec-06879ce3da0b"


def sevkit(folder: Path, *arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "sevkit", *arguments],
        input=stdin,
        capture_output=True,
        cwd=folder,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout.decode() + done.stderr.decode()


def test_a_secret_reaches_the_launch_that_was_verified_and_no_other(tmp_path: Path) -> None:
    roots = make_roots()
    platform = make_platform(roots)
    firmware = encode_firmware(FirmwareImage())
    (tmp_path / "OVMF.fd").write_bytes(firmware)
    (tmp_path / "ark.cert").write_bytes(roots.root)
    (tmp_path / "disk.key").write_bytes(b"hunter2")
    (tmp_path / "disk.key").chmod(0o600)
    chain = platform.chain.encode() + roots.ask_ark

    trust = ["--chain=-", "--root=ark.cert"]
    code, said = sevkit(tmp_path, "attest", "platform", *trust, stdin=chain)
    assert (code, "accepted" in said) == (0, True)
    code, said = sevkit(
        tmp_path, "session", "new", *trust, "--guest-policy=5", "--out=launch", stdin=chain
    )
    assert code == 0, said

    # The secure processor: takes the session, measures four vCPUs, answers with its HMAC.
    godh = parse_sev_certificate(base64.b64decode((tmp_path / "launch/godh.b64").read_bytes()))
    blob = parse_session(base64.b64decode((tmp_path / "launch/session.b64").read_bytes()))
    shared = compute_shared_secret(platform.pdh_key, godh_key(godh))
    keys = open_session(blob, shared, 5)
    mnonce = os.urandom(16)
    digest = compute_sev_es_digest(firmware, Registers(0xA00F11, 0, era=Era.INIT), 4)
    measure = compute_launch_measurement(
        keys.tik, api_major=1, api_minor=55, build_id=7, policy=5, digest=digest, mnonce=mnonce
    )
    measurement = base64.b64encode(measure + mnonce).decode()
    info = {"measurement": measurement, "apiMajor": 1, "apiMinor": 55, "buildID": 7, "policy": 5}
    (tmp_path / "info.json").write_text(json.dumps(info))

    launch = ["attest", "launch", "--info=info.json", "--tik=launch/tik.bin", "--guest-policy=5"]
    owner = ["--firmware=OVMF.fd", "--vcpu-type=EPYC-Milan"]
    code, said = sevkit(tmp_path, *launch, *owner, "--vcpus=4", "--min-firmware=1.55.7")
    assert code == 0, said
    code, said = sevkit(tmp_path, *launch, *owner, "--vcpus=8")
    assert (code, "maxSockets" in said) == (1, True)

    code, said = sevkit(
        tmp_path,
        "secret",
        "pack",
        "--tik=launch/tik.bin",
        "--tek=launch/tek.bin",
        f"--measurement={measurement}",
        f"--secret={GUID}=disk.key",
        "--firmware=OVMF.fd",
        "--out-header=header",
        "--out-payload=payload",
    )
    assert (code, "hunter2" in said) == (0, False)

    packet = SecretPacket(
        base64.b64decode((tmp_path / "header").read_bytes()),
        base64.b64decode((tmp_path / "payload").read_bytes()),
    )
    (entry,) = parse_secret_table(open_packet(keys, packet, measure=measure))
    assert (str(entry.guid), entry.data.reveal()) == (GUID, b"hunter2")
