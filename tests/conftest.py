"""Lanes, and the fixtures that find files outside the source tree.

A lane is a kind of test: its folder under ``tests``, or ``corpus`` for every test that asks for
the corpus, or one lane for each peer. Each run ends with a table that says of every lane whether
it ran or why not, so that "all passed" never hides what was not tried. With ``SEVKIT_LANES=all``
a lane that did not run is a failure.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings

from hack import debian

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).resolve().parent.parent
LANES: Final = (
    "unit",
    "property",
    "vectors",
    "corpus",
    "integration",
    "peers",
    "cluster",
    "soak",
    "packaging",
)
#: In these lanes every single skip is a hole; elsewhere only a lane that ran nothing is one.
WHOLE: Final = ("vectors", "corpus", "integration", "peers", "cluster", "soak")
_LANE: Final = "lane"
#: What a test has to tell beside that it passed, such as a rate: ``record_property(SAID, "…")``.
_SAID: Final = "said"
_SOAK_SHARE: Final = 100

pytest_plugins = ["hack.cluster_fixtures"]

# Deadlines measure the machine, and a shared one is slow at random.
settings.register_profile(
    "sevkit", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sevkit")


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The committed test vectors: ``tests/vectors/data``."""
    return ROOT / "tests" / "vectors" / "data"


@pytest.fixture(scope="session")
def name_chip() -> Callable[[Path], str]:
    """Let a simulated host tell its chip's ID wherever one could; return the ID in hex."""
    chip = os.urandom(64).hex()

    def tell(root: Path) -> str:
        file = root / "firmware.json"
        document = json.loads(file.read_text())
        document |= {"chip_id": chip, "snp": {**document["snp"], "chip_id": chip}}
        file.write_text(json.dumps(document))
        log = root / "var/log/dmesg"
        log.write_text(f"{log.read_text()}[    9.000000] ccp 0000:a3:00.5: chip {chip}\n")
        return chip

    return tell


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The corpus of known answers, which is not part of this repository."""
    folder = os.environ.get("SEVKIT_CORPUS")
    if not folder:
        pytest.skip("SEVKIT_CORPUS names no corpus of known answers")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"SEVKIT_CORPUS={folder} is not a folder")
    return path


def _firmware(name: str) -> Path:
    path = debian.cache_folder("SEVKIT_FIRMWARE", "firmware") / name
    if not path.is_file():
        pytest.skip(f"no {name}: hack/firmware fetches it")
    return path


@pytest.fixture(scope="session")
def ovmf_amdsev() -> Path:
    """Debian's whole ``OVMF.amdsev.fd``: 4 MiB, SEV metadata, kernel hashes, a secret area."""
    return _firmware("OVMF.amdsev.fd")


@pytest.fixture(scope="session")
def ovmf_plain() -> Path:
    """Debian's whole ``OVMF.fd``, which takes no kernel hashes and declares no secret area."""
    return _firmware("OVMF.fd")


def _all_lanes() -> bool:
    return os.environ.get("SEVKIT_LANES") == "all"


@pytest.fixture(scope="session")
def soak() -> Callable[[int], int]:
    """How many of ``full`` a soak test tries: all if every lane is demanded, else a hundredth."""
    return lambda full: full if _all_lanes() else max(1, full // _SOAK_SHARE)


def _lane_of(item: pytest.Item) -> str:
    if "corpus" in getattr(item, "fixturenames", ()):
        return "corpus"
    relative = item.path.relative_to(ROOT / "tests")
    lane = relative.parts[0]
    return f"peers: {item.path.stem.removeprefix('test_')}" if lane == "peers" else lane


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties.append((_LANE, _lane_of(item)))


class _Lanes:
    """Counts outcomes by lane where the run is controlled, so also under xdist."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.said: defaultdict[str, list[str]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        lane = str(dict(report.user_properties).get(_LANE, "unit"))
        if report.skipped:
            self.skipped[lane] += 1
            if isinstance(report.longrepr, tuple):
                self.reasons[lane][report.longrepr[2].removeprefix("Skipped: ")] += 1
        elif report.when == "call":
            self.ran[lane] += 1
            self.said[lane] += [str(text) for name, text in report.user_properties if name == _SAID]
        if report.failed:
            self.failed[lane] += 1

    def _names(self) -> list[str]:
        seen = self.ran.keys() | self.skipped.keys() | self.failed.keys()
        names = [lane for lane in LANES if lane != "peers"]
        peers = sorted(lane for lane in seen if lane.startswith("peers")) or ["peers"]
        others = sorted(seen - set(names) - set(peers))
        return [*names, *peers, *others]

    def holes(self) -> list[str]:
        """Return the lanes of which something that matters did not run."""
        return [
            lane
            for lane in self._names()
            if not self.ran[lane] or (lane.startswith(WHOLE) and self.skipped[lane])
        ]

    def rows(self) -> Iterator[str]:
        """Return one line for each lane."""
        names = self._names()
        width = max(len(name) for name in names)
        for lane in names:
            size = "" if lane != "soak" else f" at {'full size' if _all_lanes() else 'a hundredth'}"
            words = [f"ran {self.ran[lane]}{size}"] if self.ran[lane] else []
            if self.failed[lane]:
                words.append(f"{self.failed[lane]} failed")
            words += [f"skipped {n}: {why}" for why, n in self.reasons[lane].most_common()]
            yield f"{lane:<{width}}  {'; '.join(words) or 'not run: no tests chosen'}"
            yield from (f"{'':<{width}}  {text}" for text in self.said[lane])


_KEY: Final = pytest.StashKey[_Lanes]()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[_KEY] = _Lanes()
        config.pluginmanager.register(config.stash[_KEY], "sevkit-lanes")


def pytest_sessionfinish(session: pytest.Session) -> None:
    lanes = session.config.stash.get(_KEY, None)
    if lanes is not None and _all_lanes() and lanes.holes() and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lanes = terminalreporter.config.stash[_KEY]
    terminalreporter.section("lanes")
    for row in lanes.rows():
        terminalreporter.write_line(row)
    if _all_lanes() and lanes.holes():
        terminalreporter.write_line(f"SEVKIT_LANES=all: missing {', '.join(lanes.holes())}")
