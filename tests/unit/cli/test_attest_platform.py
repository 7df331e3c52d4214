from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.attest.checks import SEV_PLATFORM
from sevkit.cli.main import main
from sevkit.testing.sev_chain import make_platform

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sevkit.testing.sev_chain import SimulatedPlatform, SimulatedRoots


class Files:
    """A simulated platform as files, in every form that the command takes."""

    def __init__(self, folder: Path, platform: SimulatedPlatform, roots: SimulatedRoots) -> None:
        chain = platform.chain
        cek = parse_sev_certificate(platform.firmware_cek())
        exported = chain.with_cek(cek).encode()
        info = {
            "pdh": base64.b64encode(exported[:2084]).decode(),
            "certChain": base64.b64encode(exported[2084:]).decode(),
        }
        self.folder = folder
        self.chain = self._write("sev.chain", chain.encode())
        self.full = self._write("full.chain", chain.encode() + roots.ask_ark)
        self.info = self._write("info.json", json.dumps(info).encode())
        self.root = self._write("ark.cert", roots.root)
        self.ca = self._write("ask_ark.cert", roots.ask_ark)
        self.cek = self._write("cek.cert", chain.cek.data)
        self.pek = self._write("pek.cert", chain.pek.data)
        self.oca = self._write("oca.cert", chain.oca.data)
        self.pdh = self._write("pdh.cert", chain.pdh.data)
        self.chip = chain.cek.key_sha256.hex()
        self.owner = chain.oca.key_sha256.hex()

    def _write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)


@pytest.fixture
def files(tmp_path: Path, sev_platform: SimulatedPlatform, sev_roots: SimulatedRoots) -> Files:
    return Files(tmp_path, sev_platform, sev_roots)


def attest(*arguments: str) -> int:
    return main(["attest", "platform", *arguments])


def test_a_simulated_platform_is_accepted_under_its_root(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attest("--chain", files.chain, "--ca", files.ca, "--root", files.root) == 0
    assert "accepted" in capsys.readouterr().out


def test_the_chains_own_ask_and_ark_are_used(files: Files) -> None:
    assert attest("--chain", files.full, "--root", files.root) == 0


def test_a_chain_that_brings_its_own_root_is_not_trusted_for_it(files: Files) -> None:
    assert attest("--chain", files.full) == 1


def test_four_files_are_as_good_as_one(files: Files) -> None:
    parts = [f"--{name}={getattr(files, name)}" for name in ("pdh", "pek", "oca", "cek")]
    assert attest(*parts, "--ca", files.ca, "--root", files.root) == 0


def test_kubevirts_chain_is_undecided_until_the_signed_cek_comes(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    trust = ["--ca", files.ca, "--root", files.root]
    assert attest("--chain", files.info, *trust) == 4
    assert "--cek" in capsys.readouterr().err
    assert attest("--chain", files.info, "--cek", files.cek, *trust) == 0


def test_a_chip_or_owner_that_is_not_listed_is_not_acceptable(files: Files) -> None:
    trust = ["--chain", files.full, "--root", files.root]
    assert attest(*trust, "--chip", files.chip.upper(), "--owner", files.owner) == 0
    assert attest(*trust, "--chip", "0" * 64, "--chip", files.chip) == 0
    assert attest(*trust, "--chip", "0" * 64) == 3
    assert attest(*trust, "--owner", files.chip) == 3


def test_json_is_the_whole_verdict(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert attest("--chain", files.full, "--root", files.root, "--output", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "sevkit.io/verdict/v1"
    assert document["subject"]["kind"] == "sev-platform"
    assert document["evidence"]["simulated"] is True
    assert [row["check"] for row in document["findings"]] == [row.name for row in SEV_PLATFORM]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--pdh", "x"],
        ["--chain", "x", "--pdh", "x"],
        ["--chain", "-", "--ca", "-"],
        ["--chain", "/nonexistent/chain"],
        ["--chain", "x", "--chip", "abc"],
        ["--chain", "x", "--chip", "g" * 64],
    ],
)
def test_a_request_that_names_no_chain_is_usage(arguments: list[str]) -> None:
    assert attest(*arguments) == 2


@pytest.mark.parametrize("size", [0, 2083, 8335, 8337])
def test_a_truncated_chain_is_malformed(
    files: Files, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    data = files.folder / "cut"
    data.write_bytes((files.folder / "sev.chain").read_bytes().ljust(size, b"\0")[:size])
    assert attest("--chain", str(data)) == 65
    assert capsys.readouterr().err.startswith("sevkit: ")


@pytest.mark.parametrize("size", [2083, 2085])
def test_a_certificate_of_another_size_is_malformed(files: Files, size: int) -> None:
    data = files.folder / "cut"
    data.write_bytes((files.folder / "pek.cert").read_bytes().ljust(size, b"\0")[:size])
    rest = [f"--{name}={getattr(files, name)}" for name in ("pdh", "oca", "cek")]
    assert attest(f"--pek={data}", *rest) == 65


def test_a_root_that_is_no_root_is_malformed(files: Files) -> None:
    ask = files.folder / "ask.cert"
    ask.write_bytes((files.folder / "ask_ark.cert").read_bytes()[:832])
    for root in (str(ask), files.ca, files.pdh):
        assert attest("--chain", files.full, "--root", root) == 65


def test_certificates_in_each_others_places_are_not_authentic(files: Files) -> None:
    swapped = [f"--pdh={files.pdh}", f"--pek={files.oca}", f"--oca={files.pek}"]
    assert attest(*swapped, f"--cek={files.cek}", "--ca", files.ca, "--root", files.root) == 1


def test_a_page_for_people_is_written_too(files: Files) -> None:
    page = files.folder / "verdict.html"
    assert attest("--chain", files.full, "--root", files.root, "--html", str(page)) == 0
    assert "platform.root" in page.read_text()


@pytest.mark.parametrize("role", ["pdh", "pek", "oca", "cek"])
def test_a_part_of_another_platform_is_not_authentic(
    files: Files, role: str, sev_roots: SimulatedRoots
) -> None:
    other = files.folder / "other.cert"
    other.write_bytes(getattr(make_platform(sev_roots).chain, role).data)
    parts = {name: getattr(files, name) for name in ("pdh", "pek", "oca", "cek")}
    parts[role] = str(other)
    options = [f"--{name}={path}" for name, path in parts.items()]
    assert attest(*options, "--ca", files.ca, "--root", files.root) == 1


def _swap_pek_slots(chain: bytearray) -> None:
    first, second = slice(2084 + 0x414, 2084 + 0x61C), slice(2084 + 0x61C, 2 * 2084)
    chain[first], chain[second] = chain[second], chain[first]


def _change(offset: int, value: bytes) -> Callable[[bytearray], None]:
    def change(chain: bytearray) -> None:
        chain[offset : offset + len(value)] = value

    return change


def _flip(offset: int) -> Callable[[bytearray], None]:
    def flip(chain: bytearray) -> None:
        chain[offset] ^= 0x10

    return flip


PDH, PEK, OCA, CEK = 0, 2084, 2 * 2084, 3 * 2084


@pytest.mark.parametrize(
    ("defect", "code"),
    [
        pytest.param(_swap_pek_slots, 0, id="pek-slots-swapped-is-allowed"),
        pytest.param(_change(PDH + 0x08, b"\x02"), 1, id="pdh-usage-of-a-pek"),
        pytest.param(_change(PDH + 0x0C, b"\x02"), 1, id="pdh-algorithm-of-a-signer"),
        pytest.param(_flip(PDH + 0x04), 1, id="pdh-body-changed"),
        pytest.param(_change(PDH + 0x414, b"\x01"), 1, id="pdh-signed-in-the-ocas-name"),
        pytest.param(_change(PDH + 0x14, bytes(48)), 65, id="pdh-point-not-on-the-curve"),
        pytest.param(_change(PDH + 0x10, b"\x01"), 65, id="pdh-on-a-smaller-curve"),
        pytest.param(_change(PDH + 0x41C, bytes(72)), 65, id="pdh-signature-r-zero"),
        pytest.param(_change(PDH + 0x464, b"\xff" * 48), 65, id="pdh-signature-s-above-the-order"),
        pytest.param(_change(PDH + 0x41C + 144, b"\x01"), 65, id="pdh-signature-padding"),
        pytest.param(_change(PEK + 0x61C, b"\x01"), 1, id="pek-signed-twice-by-the-oca"),
        pytest.param(_change(PEK + 0x414, b"\x00\x10"), 65, id="pek-slot-emptied-by-half"),
        pytest.param(_flip(OCA + 0x41C), 1, id="oca-self-signature-changed"),
        pytest.param(_flip(CEK + 0x41C), 1, id="cek-signature-changed"),
        pytest.param(_change(CEK + 0x418, b"\x02"), 1, id="cek-signed-by-an-ec-key"),
        pytest.param(_change(CEK + 0x700, b"\x01"), 65, id="cek-second-slot-not-empty"),
        pytest.param(_change(CEK, b"\x02"), 65, id="cek-of-another-version"),
    ],
)
def test_one_defect_in_a_chain_has_its_own_exit_code(
    files: Files, defect: Callable[[bytearray], None], code: int
) -> None:
    chain = bytearray((files.folder / "sev.chain").read_bytes())
    defect(chain)
    path = files.folder / "defect.chain"
    path.write_bytes(bytes(chain))
    assert attest("--chain", str(path), "--ca", files.ca, "--root", files.root) == code
