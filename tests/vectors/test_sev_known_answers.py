"""Known answers of KDF, session, launch measurement and secret packets, from other tools' tests."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.abi.secret_packet import (
    SecretEntry,
    SecretPacket,
    encode_secret_table,
    open_packet,
    parse_guid,
    seal_packet,
)
from sevkit.abi.session import (
    TransportKeys,
    derive_key,
    derive_wrapping_keys,
    open_session,
    seal_session,
)
from sevkit.attest.checks import SEV_LAUNCH
from sevkit.attest.sev_launch import LaunchClaim, verify_launch
from sevkit.attest.verdict import Ledger
from sevkit.cli.main import main
from sevkit.measure.launch_measurement import LaunchMeasurement, parse_launch_measurement
from sevkit.measure.reference import Reference
from sevkit.measure.terms import Mode
from sevkit.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def known(corpus: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((corpus / "attestation" / "known-sev.json").read_text())
    return document


@pytest.fixture(scope="module")
def files(corpus: Path) -> Path:
    return corpus / "attestation"


def test_keys_are_derived_as_known(known: dict[str, Any]) -> None:
    zero = Secret(bytes(16))
    master = derive_key(zero, 128, "sev-master-secret", bytes(16))
    assert master.reveal().hex() == known["kdf"]["master"]["out"]
    kek, kik = derive_wrapping_keys(zero, bytes(16))
    assert kek.reveal().hex() == known["kdf"]["kek"]["out"]
    assert kik.reveal().hex() == known["kdf"]["kik"]["out"]


def test_a_session_is_sealed_as_known(known: dict[str, Any]) -> None:
    zero = Secret(bytes(16))
    keys = TransportKeys(zero, zero)
    blob = seal_session(zero, keys, 0, nonce=bytes(16), iv=bytes(16))
    for field in ("wrap_tk", "wrap_mac", "policy_mac"):
        assert getattr(blob, field).hex() == known["session"][field]
    assert open_session(blob, zero, 0) == keys


def test_a_measurement_of_real_hardware_verifies(known: dict[str, Any]) -> None:
    row = known["measure_hw"]
    major, minor = (int(part) for part in row["api"].split("."))
    measurement = LaunchMeasurement(bytes.fromhex(row["measure"]), bytes.fromhex(row["mnonce"]))
    claim = LaunchClaim(measurement, major, minor, row["build"])
    empty = Reference(hashlib.sha256(b"").digest(), Mode.SEV, "nothing", covers_kernel=False)
    launch = verify_launch(
        claim,
        Secret(bytes.fromhex(row["tik"])),
        row["policy"],
        [empty],
        Ledger(SEV_LAUNCH),
    )
    assert launch.matched is empty


@pytest.mark.parametrize("index", [1, 2])
def test_sevctls_measurements_verify_from_the_command_line(
    known: dict[str, Any], files: Path, index: int, capsys: pytest.CaptureFixture[str]
) -> None:
    row = known["measurement_build"][index]
    major, minor = row["api"].split(".")
    arguments = [
        "attest",
        "launch",
        "--output=json",
        f"--measurement={row['out_b64']}",
        f"--tik={files / 'firmware' / 'tik1.bin'}",
        f"--guest-policy={row['policy']}",
        f"--api-major={major}",
        f"--api-minor={minor}",
        f"--build-id={row['build']}",
        f"--firmware={files / row['firmware']}",
    ]
    if "kernel" in row:
        arguments += [
            f"--kernel={files / 'firmware' / row['kernel']}",
            f"--initrd={files / 'firmware' / row['initrd']}",
            f"--cmdline={row['cmdline']}",
        ]
    assert main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    outcomes = {f["check"]: f["outcome"] for f in document["findings"]}
    assert outcomes["launch.measurement"] == "pass"
    assert outcomes["coverage.kernel"] == ("pass" if "kernel" in row else "warn")


def test_sevctls_measurement_is_that_of_its_digest(known: dict[str, Any], files: Path) -> None:
    row = known["measurement_build"][0]
    reference = Reference(base64.b64decode(row["launch_digest_b64"]), Mode.SEV, "sevctl", False)
    claim = LaunchClaim(parse_launch_measurement(base64.b64decode(row["out_b64"])), 1, 40, 40)
    assert claim.measurement.mnonce == base64.b64decode(row["nonce_b64"])
    tik = Secret((files / "firmware" / "tik1.bin").read_bytes())
    assert verify_launch(claim, tik, 3, [reference], Ledger(SEV_LAUNCH)).matched is reference


@pytest.mark.parametrize("index", [0, 1])
def test_secret_packets_are_sealed_as_known(known: dict[str, Any], files: Path, index: int) -> None:
    first, row = known["secrets"][0], known["secrets"][index]
    keys = TransportKeys(
        tek=Secret((files / first["tek"]).read_bytes()),
        tik=Secret((files / first["tik"]).read_bytes()),
    )
    measure = base64.b64decode(first["measure_blob_b64"])[:32]
    table = encode_secret_table(
        SecretEntry(parse_guid(guid), Secret((files / "secrets" / name).read_bytes()))
        for guid, name in row["entries"]
    )
    packet = seal_packet(keys, table, measure=measure, iv=base64.b64decode(first["iv_b64"]))
    assert base64.b64encode(packet.header).decode() == row["header_b64"]
    assert base64.b64encode(packet.ciphertext).decode() == row["payload_b64"]
    assert open_packet(keys, packet, measure=measure) == table


@pytest.mark.parametrize("index", [0, 1])
def test_the_commands_packets_hold_what_the_known_ones_do(
    known: dict[str, Any], files: Path, index: int, tmp_path: Path
) -> None:
    """The command draws its own IV, so that the table in the packet is what can be compared."""
    first, row = known["secrets"][0], known["secrets"][index]
    header, payload = tmp_path / "header", tmp_path / "payload"
    arguments = ["secret", "pack", f"--measurement={first['measure_blob_b64']}"]
    arguments += [f"--{name}={files / first[name]}" for name in ("tik", "tek")]
    arguments += [f"--secret={guid}={files / 'secrets' / name}" for guid, name in row["entries"]]
    assert main([*arguments, f"--out-header={header}", f"--out-payload={payload}"]) == 0
    keys = TransportKeys(
        tek=Secret((files / first["tek"]).read_bytes()),
        tik=Secret((files / first["tik"]).read_bytes()),
    )
    measure = base64.b64decode(first["measure_blob_b64"])[:32]
    ours, theirs = (
        open_packet(keys, SecretPacket(*map(base64.b64decode, pair)), measure=measure)
        for pair in (
            (header.read_bytes(), payload.read_bytes()),
            (row["header_b64"], row["payload_b64"]),
        )
    )
    assert ours == theirs


def test_a_known_session_is_shown(
    known: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = known["session"]
    blob = bytes(16) + bytes.fromhex(row["wrap_tk"]) + bytes(16)
    blob += bytes.fromhex(row["wrap_mac"]) + bytes.fromhex(row["policy_mac"])
    path = tmp_path / "session.b64"
    path.write_bytes(base64.b64encode(blob) + b"\n")
    assert main(["inspect", "session", str(path), "--output", "json"]) == 0
    fields = json.loads(capsys.readouterr().out)["fields"]
    for name in ("wrap_tk", "wrap_mac", "policy_mac"):
        assert fields[name] == row[name]


@pytest.mark.parametrize(("name", "rip"), [("vmsa0.bin", "0xfff0"), ("vmsa1.bin", "0xb004")])
def test_sevctls_save_areas_are_shown(
    files: Path, name: str, rip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "vmsa", str(files / "vmsa" / name), "--output", "json"]) == 0
    fields = json.loads(capsys.readouterr().out)["fields"]
    shown = [fields[key] for key in ("rip", "rdx", "sev_features", "mxcsr", "x87_fcw")]
    assert shown == [rip, "0xa00f11", "0x0", "0x0", "0x0"]
