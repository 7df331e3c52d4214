"""Show sevkit at work on real AMD evidence and real firmware, and what it refuses.

Every command is run as an operator would run it, and its exit code is compared with what it must
be: a demonstration that goes wrong says so and fails. Results are left in ``demo-out``.
"""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hack import debian, demo_cluster, demo_launch

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
VECTORS: Final = Path("tests/vectors/data")
OUT: Final = Path("demo-out")
MILAN: Final = VECTORS / "sev-crate/report_milan.hex"
VCEK: Final = VECTORS / "sev-crate/vcek_milan.der"
OTHER_VCEK: Final = VECTORS / "go-sev-guest/vcek.testcer"
NAPLES: Final = VECTORS / "sev-crate/naples"
SMALL: Final = VECTORS / "sev-crate/ovmf_AmdSev_suffix.bin"
OTHER: Final = VECTORS / "sev-crate/ovmf_OvmfX64_suffix.bin"

NONCE: Final = (
    "d447b55d197491bfe15cf298f9de9986b7a7c4be2468b4f6e2d53b71d7c64581"
    "0b0f2cdfca0040433be063fc1a8293f0f3f8dae7b79fecb3d1cd82bd6a93ebfd"
)
DIGEST: Final = (
    "7a1e5c266c0108dbc9bb94fa926951320940915d0aafb42464bd88b579ea158d"
    "3e1a0dc39b2c60bd95b9c480cd81841f"
)
#: Certificates that the report was made under expire in 2030; the demonstration does not.
AT: Final = "2026-11-23T00:00:00Z"

_BOLD, _DIM, _RED, _OFF = (
    ("\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m") if sys.stdout.isatty() else ("",) * 4
)


def title(text: str) -> None:
    """Print the heading of a step."""
    print(f"\n{_BOLD}== {text}{_OFF}", flush=True)


def _short(word: str) -> str:
    quoted = shlex.quote(word)
    return quoted if len(quoted) <= 60 or "/" in quoted else f"{quoted[:16]}…"


def sevkit(
    *words: str | Path,
    code: int | None = 0,
    lines: int | None = None,
    quiet: bool = False,
    show: bool = True,
) -> str:
    """Run one command, show it with its answer, and insist on its exit code, if there is one.

    ``lines`` shows only the last lines of the answer, ``quiet`` nothing of it; without ``show``
    nothing is said of the command at all.
    """
    arguments = [str(word) for word in words]
    if show:
        print(f"{_DIM}$ sevkit {' '.join(map(_short, arguments))}{_OFF}", flush=True)
    run = subprocess.run(
        [sys.executable, "-m", "sevkit", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    if code is not None and run.returncode != code:
        print(f"{run.stdout}{run.stderr}{_RED}expected exit code {code}{_OFF}")
        raise SystemExit(1)
    if not show:
        return run.stdout
    answer = run.stdout.splitlines()
    shown: Sequence[str] = [] if quiet else answer[-lines:] if lines else answer
    for line in [*shown, *run.stderr.splitlines()]:
        print(f"  {line}")
    print(f"  {_DIM}exit code {run.returncode}{_OFF}", flush=True)
    return run.stdout


def refused(why: str, *words: str | Path, code: int) -> None:
    """Run a command that must refuse, and show its failed findings only."""
    print(f"\n{why}:")
    out = sevkit(*words, code=code, quiet=True)
    for line in out.splitlines():
        if line.startswith("FAIL"):
            print(f"  {line}")


def report(*options: str | Path, path: Path = MILAN, vek: Path = VCEK) -> list[str | Path]:
    """Return the words of an offline ``attest report``."""
    return ["attest", "report", path, "--vek", vek, "--offline", "--at", AT, *options]


def attest_report() -> None:
    """Judge the real report, then everything that is wrong with it."""
    title("A real Milan report, verified up to AMD's root")
    expected = ("--report-data", NONCE, "--measurement", DIGEST)
    page = OUT / "report.html"
    sevkit(*report(*expected, "--html", page))
    print(f"  the same as a page: {page}")
    title("What is refused, and why")
    flipped = bytearray.fromhex(MILAN.read_text().strip())
    flipped[0x90] ^= 1
    changed = OUT / "flipped.bin"
    changed.write_bytes(flipped)
    refused("One bit of the launch digest flipped", *report(*expected, path=changed), code=1)
    refused(
        "A policy stricter than the report's", *report(*expected, "--require-single-socket"), code=3
    )
    wrong = ("--report-data", "00" * 64, "--measurement", DIGEST)
    refused("Another nonce than ours", *report(*wrong), code=3)
    refused("Another chip's VCEK", *report(*expected, vek=OTHER_VCEK), code=1)
    refused("Nothing expected at all", *report(), code=5)


def owner_flow(firmware: Path) -> None:
    """Verify a real Naples platform, make a session for it, verify a launch, pack a secret."""
    title("A real Naples platform chain, PDH up to AMD's root")
    chain = OUT / "naples.chain"
    parts = [NAPLES / f"{name}.cert" for name in ("pdh", "pek", "oca", "cek")]
    chain.write_bytes(b"".join(path.read_bytes() for path in parts))
    sevkit("attest", "platform", "--chain", chain)

    title("A launch session for that platform, and a secret for the launch")
    session = OUT / "session"
    sevkit("session", "new", "--chain", chain, "--guest-policy", "1", "--out", session)
    measurement = play_firmware(session, firmware)
    print(
        "  (no SEV here: the firmware's part, the HMAC with the TIK, was computed by this script)"
    )
    api = ("--api-major", "1", "--api-minor", "55", "--build-id", "24")
    launch = ("--tik", session / "tik.bin", "--firmware", firmware, "--guest-policy", "1", *api)
    sevkit("attest", "launch", "--measurement", measurement, *launch)
    key = OUT / "disk.key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    sevkit(
        *("secret", "pack", "--tik", session / "tik.bin", "--tek", session / "tek.bin"),
        *("--measurement", measurement, "--firmware", firmware),
        *("--secret", f"736869e5-84f0-4973-92ec-06879ce3da0b={key}"),
        *("--out-header", OUT / "secret-header.b64", "--out-payload", OUT / "secret-payload.b64"),
    )


def play_firmware(session: Path, firmware: Path) -> str:
    """Return what the platform's firmware would measure: LAUNCH_MEASURE in base64."""
    from sevkit.measure.launch_digest import compute_sev_digest  # noqa: PLC0415  # after set-up
    from sevkit.measure.launch_measurement import compute_launch_measurement  # noqa: PLC0415
    from sevkit.secret import Secret  # noqa: PLC0415

    mnonce = os.urandom(16)
    measure = compute_launch_measurement(
        Secret((session / "tik.bin").read_bytes()),
        api_major=1,
        api_minor=55,
        build_id=24,
        policy=1,
        digest=compute_sev_digest(firmware.read_bytes()),
        mnonce=mnonce,
    )
    return base64.b64encode(measure + mnonce).decode()


def measure(firmware: Path) -> None:
    """Compute the digests of the whole firmware, and explain one that differs."""
    title(f"Launch digests of {firmware.name}")
    common = ("--firmware", firmware)
    sevkit("measure", "--mode", "sev", *common)
    guest = ("--vcpus", "4", "--vcpu-type", "EPYC-Milan")
    sevkit("measure", "--mode", "sev-es", *common, *guest)
    sevkit("measure", "--mode", "snp", *common, *guest)

    title("A digest that is not the expected one, explained")
    print("  the host's kernel turned DebugSwap on; nobody told the owner:")
    snp = ("measure", "--mode", "snp", *common)
    strange = sevkit(*snp, *guest, "--guest-features", "0x21").strip()
    sevkit("attest", "explain", strange, "--mode", "snp", *common, "--vcpu-type", "EPYC-Milan")


def main() -> int:
    """Run every step."""
    os.chdir(ROOT)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    whole = debian.cache_folder("SEVKIT_FIRMWARE", "firmware") / "OVMF.amdsev.fd"
    firmware = whole if whole.is_file() else SMALL
    start = time.monotonic()
    title("A fleet, told apart by what each host can really run (simulated hosts)")
    demo_cluster.fleet(sevkit, OUT)
    title("A plain VM made confidential, as the webhook makes its VMI")
    demo_cluster.confidential(sevkit, OUT)
    attest_report()
    owner_flow(firmware)
    measure(firmware)
    title("VMIs taken through their launch, and held back (simulated hosts that really compute)")
    demo_launch.launches(sevkit, refused, OUT, firmware, OTHER)
    if firmware is SMALL:
        print("\nwhole firmware could not be fetched: the committed 4 KiB suffix of one was used")
    print(f"\ndone in {time.monotonic() - start:.1f} s; see {OUT}/report.html")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
