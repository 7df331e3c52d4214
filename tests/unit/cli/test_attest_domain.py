"""What ``sevkit attest domain`` refuses by its options and files, before libvirt is asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.cli.main import main
from sevkit.testing.firmware import FirmwareImage, encode_firmware

if TYPE_CHECKING:
    from pathlib import Path

GUID: Final = "736869e5-84f0-4973-92ec-06879ce3da0b"
BOTH: Final = ("--accept=unmeasured-boot", "--accept=unmeasured-variables")
TEK, TIK = b"0123456789abcdef", b"FEDCBA9876543210"
DOCUMENT: Final = {
    "schema": "sevkit.io/session/v1",
    "policy": 1,
    "simulated": True,
    "cek_key_sha256": "0" * 64,
    "session_sha256": "1" * 64,
    "godh_sha256": "2" * 64,
}


class Owner:
    """The owner's folder. No libvirt listens at the URI: who comes as far as that exits 4."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("ovmf.fd", encode_firmware(FirmwareImage()))
        self.write("tik.bin", TIK)
        self.write("tek.bin", TEK)
        self.write("disk.key", b"correct horse battery")
        self.document()

    def write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)

    def document(self, **changes: object) -> None:
        members = {name: value for name, value in (DOCUMENT | changes).items() if value is not None}
        self.write("session.json", json.dumps(members).encode())

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def attest(self, *more: str, session: bool = True, secret: bool = True) -> int:
        return main(
            [
                "attest",
                "domain",
                "ledger",
                "--connect=qemu+unix:///system?socket=/nonexistent/sock",
                f"--firmware={self.path('ovmf.fd')}",
                *((f"--session={self.folder}",) if session else ()),
                *((f"--secret={GUID}={self.path('disk.key')}", *BOTH) if secret else ()),
                *more,
            ]
        )


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    return Owner(tmp_path)


def refused(owner: Owner, capsys: pytest.CaptureFixture[str], code: int, *more: str) -> str:
    """Attest without session and secret but those of ``more``; return what stderr says."""
    assert owner.attest(*more, session=False, secret=False) == code
    found = capsys.readouterr()
    assert found.out == ""
    return found.err


def test_what_is_whole_comes_as_far_as_libvirt(owner: Owner) -> None:
    pytest.importorskip("libvirt", reason="no libvirt-python (extra 'libvirt')")
    assert owner.attest() == 4
    assert owner.attest("--guest-policy=1") == 4
    assert owner.attest("--no-inject", secret=False) == 4
    keys = (f"--tik={owner.path('tik.bin')}", f"--tek={owner.path('tek.bin')}")
    assert owner.attest(*keys, "--guest-policy=1", session=False) == 4
    assert (
        owner.attest(keys[0], "--guest-policy=1", "--no-inject", session=False, secret=False) == 4
    )


def test_it_is_said_that_nothing_is_to_be_injected(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(owner, capsys, 2, f"--session={owner.folder}")
    assert "--no-inject" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--session={}", "--connect="), "--connect is empty"),
        ((), "no whole session"),
        (("--tik={}/tik.bin",), "no whole session"),
        (("--guest-policy=1",), "no whole session"),
        (("--session={}", "--tik={}/tik.bin"), "--tik with --session"),
        (("--session={}", "--tek={}/tek.bin"), "--tek with --session"),
        (("--session=-",), "needs a folder"),
        (("--session={}/absent",), "no such file"),
        (("--session={}", "--guest-policy=5"), "is not the session's 0x1"),
        (("--session={}", "--initrd={}/tik.bin"), "without --kernel"),
        (("--session={}", "--vcpu-type=EPYC-Rome", "--vcpu-sig=800f12"), "twice"),
        (("--session={}", "--accept=everything"), "everything"),
        (("--session={}", "--html={}/tik.bin"), "never overwritten"),
        (("--session={}", f"--secret={GUID}"), "GUID=FILE"),
    ],
)
def test_an_ill_formed_request_is_refused(
    owner: Owner, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    given = (word.replace("{}", str(owner.folder)) for word in words)
    assert says in refused(owner, capsys, 2, *given, "--no-inject")


def test_secrets_need_the_tek(owner: Owner, capsys: pytest.CaptureFixture[str]) -> None:
    words = (f"--tik={owner.path('tik.bin')}", "--guest-policy=1")
    assert owner.attest(*words, session=False) == 2
    assert "TEK" in capsys.readouterr().err


def test_sev_es_needs_to_know_its_vcpus(owner: Owner, capsys: pytest.CaptureFixture[str]) -> None:
    owner.document(policy=5)
    assert owner.attest() == 2
    assert "demands SEV-ES" in capsys.readouterr().err


@pytest.mark.parametrize("missing", BOTH)
def test_no_risk_is_taken_silently(
    owner: Owner, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [word for word in BOTH if word != missing]
    secret = f"--secret={GUID}={owner.path('disk.key')}"
    assert owner.attest(secret, *others, secret=False) == 5
    said = capsys.readouterr().err
    assert missing.replace("=", " ") in said
    assert "no secret is released" in said
    assert owner.attest(secret, *others, "--no-inject", secret=False) == 5


@pytest.mark.parametrize(
    "image", [FirmwareImage(secret_area=None), FirmwareImage()], ids=["no area", "too small"]
)
def test_a_firmware_without_room_is_refused_before_anything_is_asked(
    owner: Owner, image: FirmwareImage, capsys: pytest.CaptureFixture[str]
) -> None:
    owner.write("ovmf.fd", encode_firmware(image))
    owner.write("disk.key", b"k" * 4000)
    assert owner.attest() == 3
    assert "secret.area" in capsys.readouterr().err


def test_an_empty_secret_is_refused(owner: Owner) -> None:
    owner.write("disk.key", b"")
    assert owner.attest() == 65


@pytest.mark.parametrize(("name", "size"), [("tik.bin", 15), ("tek.bin", 17), ("tik.bin", 32)])
def test_keys_of_another_size_are_refused(owner: Owner, name: str, size: int) -> None:
    owner.write(name, b"k" * size)
    assert owner.attest() == 65


def test_one_key_in_both_places_is_refused(owner: Owner) -> None:
    owner.write("tek.bin", TIK)
    assert owner.attest() == 65


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "sevkit.io/session/v2"},
        {"policy": None},
        {"policy": "1"},
        {"policy": True},
        {"policy": 1 << 32},
        {"policy": 0x40},
        {"simulated": None},
        {"simulated": 0},
        {"session_sha256": None},
        {"session_sha256": "1" * 63},
        {"godh_sha256": "G" * 64},
        {"godh_sha256": ["2" * 64]},
        {"cek_key_sha256": ""},
    ],
)
def test_a_session_document_is_read_strictly(owner: Owner, changes: dict[str, object]) -> None:
    owner.document(**changes)
    assert owner.attest() == 65


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"null", b"\xff"])
def test_what_is_no_session_document_is_refused(owner: Owner, data: bytes) -> None:
    owner.write("session.json", data)
    assert owner.attest() == 65


def test_what_is_wrong_with_the_options_never_shows_a_key(
    owner: Owner, capsys: pytest.CaptureFixture[str]
) -> None:
    owner.write("tek.bin", TIK)
    assert owner.attest("--verbose", "--output=json") == 65
    found = capsys.readouterr()
    for key in (TIK, TEK, b"correct horse battery"):
        assert key.decode() not in found.out + found.err
        assert key.hex() not in found.out + found.err
