from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.secret_packet import SecretPacket, open_packet, parse_secret_table
from sevkit.abi.session import TransportKeys
from sevkit.cli.main import main
from sevkit.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

GUID = "736869e5-84f0-4973-92ec-06879ce3da0b"
OTHER = "736869e5-aaaa-4973-92ec-06879ce3da0b"
TEK, TIK = b"0123456789abcdef", b"FEDCBA9876543210"
MEASUREMENT = bytes(range(48))


class Owner:
    """The owner's folder with keys and one secret."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header, self.payload = folder / "header", folder / "payload"
        for name, data in (("tek", TEK), ("tik", TIK), ("disk.key", b"correct horse battery")):
            self.write(name, data)

    def write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        return str(path)

    def pack(self, *more: str, secrets: tuple[str, ...] | None = None, **changed: str) -> int:
        options = {
            "tik": str(self.folder / "tik"),
            "tek": str(self.folder / "tek"),
            "measurement": base64.b64encode(MEASUREMENT).decode(),
            "out-header": str(self.header),
            "out-payload": str(self.payload),
        } | {name.replace("_", "-"): value for name, value in changed.items()}
        named = (f"{GUID}={self.folder / 'disk.key'}",) if secrets is None else secrets
        return main(
            [
                "secret",
                "pack",
                *(f"--{name}={value}" for name, value in options.items()),
                *(f"--secret={value}" for value in named),
                *more,
            ]
        )

    def open(self) -> dict[str, bytes]:
        """Return what the guest finds."""
        packet = SecretPacket(
            base64.b64decode(self.header.read_bytes(), validate=True),
            base64.b64decode(self.payload.read_bytes(), validate=True),
        )
        keys = TransportKeys(tek=Secret(TEK), tik=Secret(TIK))
        table = open_packet(keys, packet, measure=MEASUREMENT[:32])
        return {str(entry.guid): entry.data.reveal() for entry in parse_secret_table(table)}

    def wrote_nothing(self) -> bool:
        return not self.header.exists() and not self.payload.exists()


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    return Owner(tmp_path)


def test_the_guest_finds_the_secrets(owner: Owner) -> None:
    more = owner.write("more", b"\0binary\n")
    assert owner.pack(secrets=(f"{GUID}={owner.folder / 'disk.key'}", f"{OTHER}={more}")) == 0
    assert owner.open() == {GUID: b"correct horse battery", OTHER: b"\0binary\n"}


def test_raw_files_are_written_on_demand(owner: Owner) -> None:
    assert owner.pack("--format=raw") == 0
    assert len(owner.header.read_bytes()) == 52
    assert len(owner.payload.read_bytes()) % 16 == 0


def test_no_iv_is_used_twice(owner: Owner) -> None:
    seen = set()
    for _ in range(3):
        assert owner.pack() == 0
        seen.add(base64.b64decode(owner.header.read_bytes())[4:20])
        owner.header.unlink()
        owner.payload.unlink()
    assert len(seen) == 3


def test_files_are_the_owners_only_and_never_overwritten(owner: Owner) -> None:
    old = os.umask(0)
    try:
        assert owner.pack() == 0
    finally:
        os.umask(old)
    assert owner.header.stat().st_mode & 0o777 == 0o600
    before = owner.header.read_bytes(), owner.payload.read_bytes()
    assert owner.pack() == 2
    assert (owner.header.read_bytes(), owner.payload.read_bytes()) == before


@pytest.mark.parametrize("which", ["header", "payload"])
def test_a_link_in_the_way_is_kept_and_not_followed(owner: Owner, which: str) -> None:
    getattr(owner, which).symlink_to(owner.folder / "elsewhere")
    assert owner.pack() == 2
    assert not (owner.folder / "elsewhere").exists()
    other = owner.payload if which == "header" else owner.header
    assert not other.exists()


def test_a_header_that_cannot_be_written_leaves_no_payload(owner: Owner) -> None:
    assert owner.pack(out_header=str(owner.folder / "no" / "header")) == 2
    assert owner.wrote_nothing()


def test_one_file_cannot_be_both(owner: Owner) -> None:
    same = str(owner.folder / "." / "header")
    assert owner.pack(out_payload=same) == 2
    assert owner.wrote_nothing()


@pytest.mark.parametrize("name", ["tik", "tek"])
@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_key_of_another_size_is_malformed(owner: Owner, name: str, size: int) -> None:
    owner.write(name, b"k" * size)
    assert owner.pack() == 65
    assert owner.wrote_nothing()


def test_one_key_for_both_purposes_is_malformed(owner: Owner) -> None:
    owner.write("tek", TIK)
    assert owner.pack() == 65


@pytest.mark.parametrize("size", [32, 47, 49])
def test_a_measurement_of_another_size_is_malformed(owner: Owner, size: int) -> None:
    assert owner.pack(measurement=base64.b64encode(bytes(size)).decode()) == 65
    assert owner.wrote_nothing()


@pytest.mark.parametrize(
    "text", [base64.urlsafe_b64encode(b"\xff" * 48).decode(), " " + "A" * 64, "A" * 64 + "\n"]
)
def test_a_measurement_in_another_base64_is_malformed(owner: Owner, text: str) -> None:
    assert owner.pack(measurement=text) == 65


def test_an_empty_secret_is_malformed(owner: Owner) -> None:
    owner.write("disk.key", b"")
    assert owner.pack() == 65
    assert owner.wrote_nothing()


@pytest.mark.parametrize(("size", "code"), [(16343, 0), (16344, 0), (16345, 65), (20000, 65)])
def test_a_table_has_the_size_that_the_command_takes(owner: Owner, size: int, code: int) -> None:
    owner.write("disk.key", b"x" * size)
    assert owner.pack() == code
    assert owner.wrote_nothing() == (code != 0)


def test_a_table_without_secrets_is_usage(owner: Owner) -> None:
    assert owner.pack(secrets=()) == 2


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "=",
        GUID,
        f"{GUID}=",
        "=file",
        "x=file",
        "00000000-0000-0000-0000-000000000000=file",
        "1e74f542-71dd-4d66-963e-ef4287ff173b=file",
        f"{{{GUID}}}=file",
    ],
)
def test_a_secret_that_names_no_guid_or_no_file_is_usage(owner: Owner, secret: str) -> None:
    assert owner.pack(secrets=(secret,)) == 2


def test_one_guid_twice_is_usage(owner: Owner) -> None:
    path = owner.folder / "disk.key"
    assert owner.pack(secrets=(f"{GUID}={path}", f"{GUID.upper()}={path}")) == 2


def test_a_missing_secret_file_is_usage(owner: Owner) -> None:
    assert owner.pack(secrets=(f"{GUID}={owner.folder / 'missing'}",)) == 2


def test_a_secret_on_the_command_line_is_not_echoed(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever mistakes FILE for the secret itself must not find it in a log."""
    for form in ("text", "json"):
        assert owner.pack(f"--output={form}", secrets=("hunter2-is-no-guid",)) == 2
        assert owner.pack(f"--output={form}", secrets=(f"{GUID}=hunter2",)) == 2
        assert owner.pack(f"--output={form}", "--verbose", secrets=(f"{GUID}=/a/hunter2",)) == 2
    assert "hunter2" not in "".join(capsys.readouterr())


def test_only_one_input_can_be_standard_input(owner: Owner) -> None:
    assert owner.pack(tik="-", secrets=(f"{GUID}=-",)) == 2


def test_a_firmware_with_room_is_accepted(owner: Owner, vectors: Path) -> None:
    firmware = vectors / "sev-crate" / "ovmf_AmdSev_suffix.bin"
    assert owner.pack(f"--firmware={firmware}") == 0


def test_a_table_larger_than_the_firmwares_area_is_not_acceptable(
    owner: Owner, vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner.write("disk.key", b"x" * 4000)
    firmware = vectors / "sev-crate" / "ovmf_AmdSev_suffix.bin"
    assert owner.pack(f"--firmware={firmware}") == 3
    assert "secret.area" in capsys.readouterr().err
    assert owner.wrote_nothing()


@pytest.mark.parametrize("name", ["ovmf_OvmfX64_suffix.bin", None])
def test_a_firmware_without_an_area_is_not_acceptable(
    owner: Owner, vectors: Path, name: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    firmware = vectors / "sev-crate" / name if name else owner.write("blank", bytes(4096))
    assert owner.pack(f"--firmware={firmware}") == 3
    assert "secret.area" in capsys.readouterr().err
    assert owner.wrote_nothing()


def test_exposed_key_files_are_warned_about(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tik", "tek", "disk.key"):
        (owner.folder / name).chmod(0o644)
    assert owner.pack() == 0
    warned = capsys.readouterr().err
    assert warned.count("readable by others") == 3


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_key_and_no_secret_is_ever_printed(
    owner: Owner, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    assert owner.pack("--verbose", f"--output={form}") == 0
    assert owner.pack("--verbose", f"--output={form}") == 2
    owner.write("tik", TIK + b"\n")
    assert owner.pack(f"--output={form}", out_header=str(owner.folder / "h2")) in {2, 65}
    seen = "".join(capsys.readouterr())
    for secret in (TEK, TIK, b"correct horse battery"):
        assert secret.decode() not in seen
        assert secret.hex() not in seen
        assert base64.b64encode(secret).decode() not in seen


def test_json_is_the_body_that_kubevirt_takes(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert owner.pack("--output=json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["header"].encode() == owner.header.read_bytes()
    assert document["secret"].encode() == owner.payload.read_bytes()


@pytest.mark.parametrize("path", ["", "-"])
def test_a_packet_goes_into_files(owner: Owner, path: str) -> None:
    assert owner.pack(out_header=path) == 2
    assert owner.wrote_nothing()
