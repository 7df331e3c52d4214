from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sevkit.errors import HostReadError, SevkitError
from sevkit.kubevirt.policy import DEFAULT
from webhooks.policy_file import PolicyFile

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text("cpuModel: EPYC-Milan\n")
    return file


def test_without_a_file_it_is_the_default_for_ever() -> None:
    found = PolicyFile(None)
    assert found.policy == DEFAULT
    assert not found.refresh()


def test_a_change_is_taken_and_an_unchanged_file_is_no_news(path: Path) -> None:
    found = PolicyFile(path)
    assert found.policy.cpu_model == "EPYC-Milan"
    assert not found.refresh()
    path.write_text("cpuModel: EPYC-Genoa\n")
    assert found.refresh()
    assert found.policy.cpu_model == "EPYC-Genoa"
    assert not found.refresh()


@pytest.mark.parametrize("broken", ["cpuModell: x\n", "a: [", "", "x" * 70_000])
def test_a_broken_file_leaves_the_last_good_one_and_says_what_is_wrong(
    path: Path, broken: str
) -> None:
    found = PolicyFile(path)
    path.write_text(broken)
    assert found.refresh()
    if broken:
        assert found.policy.cpu_model == "EPYC-Milan"
        assert found.problem
        assert not found.refresh(), "said once"
    else:
        assert found.policy == DEFAULT, "an empty file is a policy"
    path.write_text("cpuModel: EPYC-v4\n")
    assert found.refresh()
    assert (found.policy.cpu_model, found.problem) == ("EPYC-v4", "")


def test_the_same_policy_after_a_broken_one_is_news_too(path: Path) -> None:
    found = PolicyFile(path)
    whole = path.read_text()
    path.write_text("{")
    found.refresh()
    path.write_text(whole)
    assert found.refresh()
    assert found.problem == ""


def test_a_file_that_vanishes_leaves_the_last_good_one(path: Path) -> None:
    found = PolicyFile(path)
    path.unlink()
    assert found.refresh()
    assert found.policy.cpu_model == "EPYC-Milan"
    assert "cannot be read" in found.problem


def test_a_link_that_is_swapped_is_followed(path: Path, tmp_path: Path) -> None:
    for name, model in (("one", "EPYC-v1"), ("two", "EPYC-v2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.yaml").write_text(f"cpuModel: {model}\n")
    (tmp_path / "..data").symlink_to("one")
    found = PolicyFile(tmp_path / "..data/policy.yaml")
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "..data")
    assert found.refresh()
    assert found.policy.cpu_model == "EPYC-v2"


def test_a_start_with_a_wrong_policy_is_refused(path: Path, tmp_path: Path) -> None:
    path.write_text("unknown: 1\n")
    with pytest.raises(SevkitError, match="unknown key"):
        PolicyFile(path)
    with pytest.raises(HostReadError, match="cannot be read"):
        PolicyFile(tmp_path / "nowhere")
