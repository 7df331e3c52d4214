"""Our few Go files have tests of their own, against KubeVirt as it is linked."""

from __future__ import annotations

import shutil
from typing import Final

import pytest

from hack import go_check, kubevirt_admission

#: Linking the tests the first time takes minutes on two cores.
SECONDS: Final = 900.0


@pytest.mark.skipif(shutil.which("go") is None, reason="go is not installed")
@pytest.mark.skipif(
    kubevirt_admission.wanted_version() != kubevirt_admission.pinned_version(),
    reason="SEVKIT_KUBEVIRT names another version than the committed module",
)
@pytest.mark.parametrize("command", ["vet", "test"])
def test_the_admission_program_is_vetted_and_passes_its_own_tests(command: str) -> None:
    done = go_check.run(command, *go_check.FLAGS, "./...", seconds=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("gofmt") is None, reason="go is not installed")
def test_our_go_files_are_formatted() -> None:
    assert go_check.unformatted() == ""
