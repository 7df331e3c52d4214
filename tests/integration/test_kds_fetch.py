"""``sevkit kds fetch`` from its arguments to its exit code, against the simulated key service."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.abi.product import Product, ProductLine
from sevkit.abi.vek import VekKind
from sevkit.cli.main import main
from sevkit.kds import urls
from sevkit.kds.cache import CertificateCache
from sevkit.kds.source import CertificateSource
from sevkit.testing import key_service_faults as faults
from sevkit.testing.key_service import SimulatedKeyService, chip_provider
from sevkit.testing.snp_chain import SimulatedRoots
from sevkit.testing.snp_report import SimulatedChip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def chip() -> SimulatedChip:
    return SimulatedChip(SimulatedRoots(ProductLine.TURIN), Product.TURIN)


@pytest.fixture
def service(chip: SimulatedChip) -> Iterator[SimulatedKeyService]:
    with SimulatedKeyService(chip_provider(chip)) as running:
        yield running


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


class Run:
    """Runs ``kds fetch`` against one service and keeps what it said."""

    def __init__(
        self, service: SimulatedKeyService, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.service = service
        self.folder = folder
        self.capsys = capsys
        (folder / "ca.pem").write_bytes(service.ca)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        where = ["--kds-url", self.service.base_url, "--kds-ca", str(self.folder / "ca.pem")]
        code = main(["kds", "fetch", *where, *arguments])
        said = self.capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def run(service: SimulatedKeyService, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(service, tmp_path, capsys)


def words(chip: SimulatedChip) -> list[str]:
    return ["--product", "turin", "--chip", chip.hardware_id.hex(), "--tcb", str(chip.tcb)]


def report_file(folder: Path, report: bytes) -> str:
    path = folder / f"{hashlib.sha256(report).hexdigest()}.bin"
    path.write_bytes(report)
    return str(path)


def test_a_vcek_is_fetched_into_a_folder_that_works_offline(
    run: Run, chip: SimulatedChip, tmp_path: Path
) -> None:
    code, out, err = run(*words(chip), "--crl", "--with-chain", "--dest", str(tmp_path / "usb"))
    assert (code, err) == (0, "")
    assert out.count("sha256") == 3
    offline = CertificateSource(CertificateCache(tmp_path / "usb"), None)
    at = datetime(2026, 11, 23, tzinfo=UTC)
    vcek = offline.vcek(chip.line, chip.hardware_id, chip.tcb)
    assert hashlib.sha256(vcek.data).hexdigest() in out
    assert offline.crl(chip.line, vlek=False, at=at).data
    assert offline.chain(chip.line, vlek=False).data
    assert not (tmp_path / "home").exists()


def test_json_says_what_was_fetched_and_the_second_time_that_it_was_there(
    run: Run, chip: SimulatedChip, service: SimulatedKeyService, tmp_path: Path
) -> None:
    answers: list[dict[str, Any]] = []
    for _ in range(2):
        code, out, _ = run(*words(chip), "--output", "json")
        assert code == 0
        answers.append(json.loads(out))
    cache = CertificateCache(tmp_path / "home" / "sevkit" / "kds")
    resource = urls.vcek(chip.line, chip.hardware_id, chip.tcb)
    entry = cache.load(resource).entry
    assert entry is not None
    assert answers[0] == {
        "schema": "sevkit.io/kds-fetch/v1",
        "cache": str(cache.root),
        "items": [
            {
                "kind": "vcek",
                "product": "Turin",
                "chip_id": chip.hardware_id.hex(),
                "tcb": chip.tcb.components,
                "path": str(cache.path(resource)),
                "sha256": entry.sha256,
                "url": service.base_url + resource.target,
                "cached": False,
            }
        ],
        "failures": [],
        "exit_code": 0,
    }
    assert answers[1]["items"] == [answers[0]["items"][0] | {"cached": True}]
    assert service.count() == 1


@pytest.mark.parametrize("encoding", ["raw", "hex"])
def test_a_report_names_its_vcek(
    run: Run, chip: SimulatedChip, service: SimulatedKeyService, tmp_path: Path, encoding: str
) -> None:
    report = chip.report()
    path = report_file(tmp_path, report if encoding == "raw" else report.hex().encode())
    code, out, _ = run("--report", path, "--report", path)
    assert code == 0
    assert service.targets == (urls.vcek(chip.line, chip.hardware_id, chip.tcb).target,)
    assert "vcek Turin" in out


def test_a_chip_id_of_a_turin_report_is_as_good_as_its_hardware_id(
    run: Run, chip: SimulatedChip
) -> None:
    options = words(chip)
    options[3] = (chip.hardware_id + bytes(56)).hex()
    assert run(*options)[0] == 0


def test_a_masked_chip_is_refused_with_the_reason_and_the_rest_is_fetched(
    run: Run, chip: SimulatedChip, tmp_path: Path
) -> None:
    masked = report_file(tmp_path, chip.report(chip_id=bytes(64)))
    good = report_file(tmp_path, chip.report())
    code, out, err = run("--report", masked, "--report", good)
    assert code == 4
    assert "masked" in err
    assert out.startswith("vcek Turin")


def test_a_vlek_is_not_the_key_services_to_give(
    run: Run, chip: SimulatedChip, service: SimulatedKeyService, tmp_path: Path
) -> None:
    path = report_file(tmp_path, replace(chip, kind=VekKind.VLEK).report())
    code, _, err = run("--report", path)
    assert (code, service.count()) == (4, 0)
    assert "signed by a VLEK" in err
    assert run("--report", path, "--crl")[0] == 0
    assert service.targets == ("/vlek/v1/Turin/crl",)


@pytest.mark.parametrize(
    "fault",
    [
        faults.not_found(),
        faults.too_many_requests("3600"),
        faults.web_page(),
        faults.truncated(b"\x30\x82"),
        faults.redirect("https://kds.example"),
        faults.endless(declared=False),
        faults.raw(b""),
        faults.status(500),
    ],
)
def test_every_fault_of_the_key_service_is_exit_4(
    run: Run, chip: SimulatedChip, service: SimulatedKeyService, tmp_path: Path, fault: faults.Fault
) -> None:
    service.fail(fault, pattern="ucodeSPL")
    code, out, err = run(*words(chip), "--crl", "--output", "json")
    assert code == 4
    answer = json.loads(out)
    assert [item["kind"] for item in answer["items"]] == ["vcek-crl"]
    assert [failure["what"].split()[0] for failure in answer["failures"]] == ["vcek"]
    assert answer["exit_code"] == 4
    assert all(line.startswith("sevkit: ") for line in err.splitlines())
    assert len(list((tmp_path / "home" / "sevkit" / "kds").iterdir())) == 1


def test_a_folder_that_cannot_be_filled_is_exit_4(
    run: Run, chip: SimulatedChip, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = run(*words(chip), "--dest", str(tmp_path / "file" / "x"))
    assert (code, out) == (4, "")
    assert "could not be kept" in err


GOOD_TCB = "fmc=1,bootloader=1,tee=1,snp=4,microcode=80"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--product", "turin"],
        ["--product", "athlon", "--crl"],
        ["--product", "rome", "--crl"],
        ["--crl"],
        ["--chip", "0102030405060708", "--tcb", GOOD_TCB],
        ["--product", "turin", "--chip", "0102030405060708"],
        ["--product", "turin", "--tcb", GOOD_TCB],
        ["--product", "turin", "--chip", "01020304050607", "--tcb", GOOD_TCB],
        ["--product", "turin", "--chip", "../../etc/passwd", "--tcb", GOOD_TCB],
        ["--product", "turin", "--chip", "0x02030405060708", "--tcb", GOOD_TCB],
        ["--product", "turin", "--chip", "00" * 8, "--tcb", GOOD_TCB],
        ["--product", "turin", "--chip", "01" * 64, "--tcb", GOOD_TCB],
        ["--product", "milan", "--chip", "01" * 64, "--tcb", GOOD_TCB],
        ["--product", "turin", "--chip", "0102030405060708", "--tcb", "snp=4"],
        ["--product", "turin", "--chip", "0102030405060708", "--tcb", "snp=../4"],
        ["--product", "turin", "--vlek", "--chip", "0102030405060708", "--tcb", GOOD_TCB],
        ["--product", "turin", "--crl", "--kds-url", "http://127.0.0.1"],
        ["--report", "absent.bin"],
        ["--report", "-", "--report", "-"],
    ],
)
def test_wrong_options_are_usage_and_nothing_is_asked(
    run: Run, service: SimulatedKeyService, arguments: list[str]
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("sevkit: ")
    assert service.count() == 0


def test_a_report_of_another_product_than_named_is_usage(
    run: Run, chip: SimulatedChip, tmp_path: Path
) -> None:
    path = report_file(tmp_path, chip.report())
    code, _, err = run("--report", path, "--product", "milan")
    assert code == 2
    assert "Turin chip" in err


def test_a_malformed_report_is_exit_65(run: Run, tmp_path: Path) -> None:
    assert run("--report", report_file(tmp_path, bytes(1184)))[0] == 65
    assert run("--report", report_file(tmp_path, b"nonsense!"))[0] == 65
