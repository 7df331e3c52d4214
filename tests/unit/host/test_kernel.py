from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.errors import FormatError
from sevkit.host.kernel import (
    asked,
    parse_command_line,
    parse_count,
    parse_release,
    parse_switch,
    probe_modules,
)
from sevkit.host.reading import Cause, Known, Unreadable
from sevkit.host.sources import CapturedHost, HostFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("6.12.57+deb13-amd64\n", (6, 12)),
        ("5.14.0-570.12.1.el9_6.x86_64", (5, 14)),
        ("7.1\n", (7, 1)),
    ],
)
def test_releases_begin_with_a_version(text: str, version: tuple[int, int]) -> None:
    found = parse_release(text)
    assert (found.version, found.text) == (version, text.strip())


@pytest.mark.parametrize("text", ["", "linux", "6", "6.x", "6.1\x1b[31m", "6.12 extra words"])
def test_what_is_no_release_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_release(text)


@pytest.mark.parametrize(
    ("text", "value"), [("Y\n", True), ("1\n", True), ("N\n", False), ("0", False)]
)
def test_switches_were_numbers_once(text: str, value: bool) -> None:
    assert parse_switch(text) is value


@pytest.mark.parametrize("text", ["", "yes", "2", "Y N", "\0"])
def test_what_is_no_switch_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_switch(text)


@pytest.mark.parametrize("text", ["", "-1", "1e3", "٣", "9" * 40])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_count(text)


def test_only_words_about_sev_are_kept() -> None:
    words = parse_command_line("root=/dev/sda1 quiet iommu=pt secret=x kvm-amd.sev_snp=0\n")
    assert words == ("iommu=pt", "kvm-amd.sev_snp=0")


def test_the_last_word_wins_and_dashes_are_underscores() -> None:
    words = ("kvm_amd.sev=1", "kvm-amd.sev=0", "kvm_amd.sev_es")
    assert asked(words, "kvm_amd.sev") == "0"
    assert asked(words, "kvm_amd.sev_es") is None
    assert asked(words, "iommu") is None


def test_a_module_that_is_not_loaded_is_told_from_modules_that_cannot_be_seen(
    tree: Callable[..., Path],
) -> None:
    root = tree("milan", "kvm-amd-not-loaded")
    found = probe_modules(CapturedHost(HostFiles(str(root))))
    assert found.kvm_amd == Known(value=False)
    assert isinstance(found.sev, Unreadable)
    assert found.sev.cause is Cause.ABSENT
    empty = root / "empty"
    (empty / "sys/module").mkdir(parents=True)
    unseen = probe_modules(CapturedHost(HostFiles(str(empty))))
    assert isinstance(unseen.kvm_amd, Unreadable)
