"""Trees with something wrong in them: nothing hangs, nothing raises, nothing is taken for a no."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Final

import pytest

from sevkit.host.capabilities import decide
from sevkit.host.capability import State, Technology
from sevkit.host.probe import probe_host
from sevkit.host.reading import Cause, Known, Unreadable
from sevkit.host.sources import open_host
from sevkit.testing.host.booting import boot
from sevkit.testing.host.presets import PRESETS
from sevkit.testing.host.tree import File, render_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sevkit.host.facts import HostFacts

NOES: Final = {State.ABSENT, State.DISABLED, State.UNUSABLE}
FILES: Final = sorted(
    path
    for path, entry in render_tree(PRESETS["turin"], boot(PRESETS["turin"])).items()
    if isinstance(entry, File) and not path.startswith("dev/")
)


def remove(path: Path) -> None:
    path.unlink()


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_noise(path: Path) -> None:
    path.unlink()
    path.write_bytes(bytes(range(256)) * 8)


def as_nothing(path: Path) -> None:
    path.unlink()
    path.touch()


def as_gigabyte(path: Path) -> None:
    path.unlink()
    with path.open("wb") as stream:
        stream.truncate(1 << 30)


def as_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def as_way_out(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


WAYS: Final = (
    remove,
    as_folder,
    as_fifo,
    as_noise,
    as_nothing,
    as_gigabyte,
    as_circle,
    as_way_out,
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_no_file_that_is_missing_or_broken_makes_a_no(
    way: Callable[[Path], None], tree: Callable[..., Path]
) -> None:
    root = tree("turin")
    for name in FILES:
        path = root / name
        data = path.read_bytes()
        way(path)
        with open_host(str(root)) as source:
            found = decide(probe_host(source))
        # An empty misc.capacity is one without lines, and a line that is missing is zero.
        emptied = name == "sys/fs/cgroup/misc.capacity" and way is as_nothing
        for one in () if emptied else (found.sev, found.sev_snp):
            assert one.state not in NOES, (name, one)
        assert found.sev_es.state is not State.USABLE, name
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ("proc", "cpuinfo-unread"),
        ("proc/cpuinfo", "cpuinfo-unread"),
        ("cpuid.json", "cpuid-unread"),
        ("sys/module", "kvm-unread"),
        ("sys/module/kvm_amd/parameters", "kvm-unread"),
        ("sys", "kvm-unread"),
        ("sys/fs", "usable"),
        ("sys/bus", "usable"),
        ("sys/class", "usable"),
        ("sys/kernel", "usable"),
        ("dev", "usable"),
        ("var", "usable"),
        ("firmware.json", "usable"),
    ],
)
def test_what_is_not_there_is_told(gone: str, reason: str, tree: Callable[..., Path]) -> None:
    root = tree("milan")
    path = root / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with open_host(str(root)) as source:
        found = decide(probe_host(source))
    assert (found.sev.reason, found.sev_snp.reason) == (reason, reason)


def test_nothing_at_all_is_not_known(tmp_path: Path) -> None:
    with open_host(str(tmp_path)) as source:
        found = decide(probe_host(source))
    assert {found.of(one).state for one in Technology} == {State.UNKNOWN}
    assert found.product is None
    assert found.encrypted_state.total is None


def test_a_root_that_vanishes_while_it_is_open_is_not_known(
    tree: Callable[..., Path],
) -> None:
    root = tree("milan")
    with open_host(str(root)) as source:
        shutil.rmtree(root)
        found = decide(probe_host(source))
    assert {found.of(one).state for one in Technology} == {State.UNKNOWN}


def test_a_change_is_seen_by_the_next_probe(tree: Callable[..., Path]) -> None:
    root = tree("milan")
    with open_host(str(root)) as source:
        assert decide(probe_host(source)).sev_snp.state is State.USABLE
        parameter = root / "sys/module/kvm_amd/parameters/sev_snp"
        parameter.unlink()
        parameter.write_text("N\n")
        assert decide(probe_host(source)).sev_snp.state is State.DISABLED


def test_libvirts_word_is_kept_and_proves_nothing(
    tree: Callable[..., Path], facts_of: Callable[..., HostFacts]
) -> None:
    pytest.importorskip("lxml", reason="the extra 'libvirt' is not installed")
    document = """<domainCapabilities><domain>kvm</domain><features>
    <sev supported='yes'><cbitpos>47</cbitpos><reducedPhysBits>1</reducedPhysBits></sev>
    <launchSecurity supported='yes'><enum name='sectype'><value>sev</value>
    <value>sev-snp</value></enum></launchSecurity></features></domainCapabilities>"""
    root = tree("rome")
    with open_host(str(root)) as source:
        facts = probe_host(source, document)
        broken = probe_host(source, "<not-xml")
    assert isinstance(facts.domain_capabilities, Known)
    assert facts.domain_capabilities.value.launch_security == ("sev", "sev-snp")
    assert decide(facts).sev_snp.state is State.ABSENT
    assert isinstance(broken.domain_capabilities, Unreadable)
    assert broken.domain_capabilities.cause is Cause.MALFORMED


def test_a_probe_is_quick(tree: Callable[..., Path]) -> None:
    root = str(tree("turin", "guests-running"))
    times = []
    for _ in range(20):
        with open_host(root) as source:
            started = time.perf_counter()
            decide(probe_host(source))
            times.append(time.perf_counter() - started)
    assert min(times) < 0.005
