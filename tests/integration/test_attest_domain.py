"""``sevkit attest domain`` as users run it, against domains on a simulated secure processor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from hack.domain_rounds import KEY, REMOTE, Outcome, Round, Setup, run_rounds
from sevkit.abi.secret_packet import DISK_GUID, SecretEntry, encode_secret_table
from sevkit.attest.checks import SEV_DOMAIN
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("lxml", reason="no lxml (extra 'libvirt')")

TABLE: Final = encode_secret_table([SecretEntry(DISK_GUID, Secret(KEY))]).reveal().hex()
SECRET: Final = f"--secret={DISK_GUID}={{owner}}/disk.key"
BOTH: Final = ("--accept=unmeasured-boot", "--accept=unmeasured-variables")
CPUS: Final = ("--vcpus=2", "--vcpu-type=EPYC-Rome")
BOOTED: Final = Setup(
    policy=5,
    boot="<kernel>/vmlinuz</kernel><initrd>/initrd</initrd><cmdline>quiet  splash</cmdline>",
    hashes=" kernelHashes='yes'",
)
BOOT: Final = ("--kernel={owner}/vmlinuz", "--initrd={owner}/initrd", "--cmdline=quiet  splash")


@pytest.fixture
def attest(tmp_path: Path) -> Callable[..., list[Outcome]]:
    def run(*rounds: tuple[Setup, tuple[str, ...]]) -> list[Outcome]:
        words = ("attest", "domain", "{name}", f"--connect={REMOTE}", "--firmware={owner}/ovmf.fd")
        return run_rounds(
            tmp_path, [Round("sevkit", setup, (*words, *more)) for setup, more in rounds]
        )

    return run


def test_the_secret_arrives_and_the_verdict_says_so(
    attest: Callable[..., list[Outcome]],
) -> None:
    session = "--session={owner}"
    found = attest(
        (Setup(), (session, SECRET, *BOTH, "--output=json")),
        (Setup(policy=5), (session, SECRET, *BOTH, *CPUS, "--output=json")),
        (BOOTED, (session, SECRET, BOTH[1], *CPUS, *BOOT, "--output=json")),
    )
    for one in found:
        assert (one.code, one.state, one.tables) == (0, "running", (TABLE,)), one.err
        document = json.loads(one.out)
        assert document["subject"]["kind"] == "sev-domain"
        assert [row["check"] for row in document["findings"]] == [row.name for row in SEV_DOMAIN]
        assert document["evidence"]["injected"] is True
        assert document["evidence"]["resumed"] is True
    coverage = {row["check"]: row["outcome"] for row in json.loads(found[2].out)["findings"]}
    assert coverage["coverage.kernel"] == "pass"
    assert json.loads(found[2].out)["evidence"]["accepted_risks"] == ["unmeasured-variables"]


def test_options_that_hold_something_back(attest: Callable[..., list[Outcome]]) -> None:
    session = ("--session={owner}", SECRET, *BOTH)
    keys = ("--tik={owner}/tik.bin", "--tek={owner}/tek.bin", "--guest-policy=0x1")
    found = attest(
        (Setup(), (*session, "--no-unpause")),
        (Setup(), (*session, "--no-resume")),
        (Setup(), (*session, "--no-inject")),
        (Setup(), (*session, "--no-inject", "--no-unpause")),
        (Setup(), (*keys, SECRET, *BOTH)),
        (Setup(), (*keys[::2], "--no-inject")),
    )
    assert [one.code for one in found] == [0] * 6
    paused, running = "paused", "running"
    assert [one.state for one in found] == [paused, paused, running, paused, running, running]
    assert [len(one.tables) for one in found] == [1, 1, 0, 0, 1, 0]
    assert all(one.out.rstrip().endswith("accepted (exit code 0)") for one in found)
    # What is not known of the processor is not said.
    told = ["simulated processor" in one.err for one in found]
    assert told == ["cek_key_sha256" in one.out for one in found]
    assert told == [True, True, True, True, False, False]


def test_refusals_say_what_and_why(attest: Callable[..., list[Outcome]]) -> None:
    session = ("--session={owner}", SECRET, "--no-explain")
    other = "<loader type='rom'>/other.fd</loader>"
    nvram = "<loader type='pflash'>/ovmf.fd</loader><nvram>/vars.fd</nvram>"
    rows: tuple[tuple[Setup, tuple[str, ...], int, str], ...] = (
        (Setup(loader=other), BOTH, 1, "launch.measurement"),
        (Setup(policy=5, vcpus="<vcpu>4</vcpu>"), (*BOTH, *CPUS), 1, "domain.vcpus"),
        (Setup(others_session=True), BOTH, 1, "another dhCert and another session"),
        (Setup(policy=0), BOTH, 3, "launch.policy-debug"),
        (Setup(lies=(("<policy>0x1<", "<policy>0x0<"),)), BOTH, 3, "domain.policy"),
        (Setup(state="running"), BOTH, 3, "domain.paused"),
        (Setup(kind=""), BOTH, 3, "domain.launch-security"),
        (Setup(), (*BOTH, "--min-firmware=9.9"), 3, "launch.firmware-version"),
        (Setup(state="off"), BOTH, 4, "shut off"),
        (Setup(loader=nvram), BOTH[:1], 5, "coverage.uefi-variables"),
        (Setup(lies=(("</os>", "<loader/></os>"),)), BOTH, 65, "stands twice"),
    )
    found = attest(*((setup, (*session, *words)) for setup, words, _, _ in rows))
    for one, (setup, _, code, says) in zip(found, rows, strict=True):
        assert one.code == code, (says, one.err, one.out)
        assert says in one.out + one.err
        assert one.tables == ()
        assert one.state == {"off": "shut off"}.get(setup.state, setup.state)


def test_a_mismatch_is_explained_by_what_would_fit(
    attest: Callable[..., list[Outcome]],
) -> None:
    (found,) = attest(
        (
            Setup(policy=5),
            ("--session={owner}", "--no-inject", "--vcpus=4", "--vcpu-type=EPYC-Rome"),
        )
    )
    assert found.code == 1
    assert "it fits SEV-ES with 2 vCPUs" in found.out


def test_the_page_is_written_and_nothing_that_is_secret_is_in_it(
    attest: Callable[..., list[Outcome]], tmp_path: Path
) -> None:
    page = tmp_path / "verdict.html"
    (found,) = attest(
        (Setup(), ("--session={owner}", SECRET, *BOTH, f"--html={page}", "--verbose"))
    )
    assert found.code == 0
    text = page.read_text()
    assert "SEV libvirt domain" in text
    assert "domain.variables" in text
    keys = [(tmp_path / "domain-1" / name).read_bytes() for name in ("tik.bin", "tek.bin")]
    for secret in (KEY, *keys):
        for shown in (text, found.out, found.err):
            assert secret.hex() not in shown
            assert repr(secret)[2:-1] not in shown
