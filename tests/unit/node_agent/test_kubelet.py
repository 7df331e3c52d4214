from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from node_agent.kubelet import KubeletSocket

if TYPE_CHECKING:
    from pathlib import Path


def listen(folder: Path) -> None:
    """Make the socket anew, as a kubelet that starts."""
    path = folder / "kubelet.sock"
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.close()
    os.utime(path, ns=(listen.count, listen.count))  # type: ignore[attr-defined]  # a clock of ours
    listen.count += 1_000_000  # type: ignore[attr-defined]  # as above


listen.count = 1 << 60  # type: ignore[attr-defined]  # as above


@pytest.fixture
def kubelet(tmp_path: Path) -> KubeletSocket:
    return KubeletSocket(str(tmp_path))


def test_the_first_socket_is_not_new_and_neither_is_the_same_again(
    kubelet: KubeletSocket, tmp_path: Path
) -> None:
    listen(tmp_path)
    assert [kubelet.is_new() for _ in range(5)] == [False] * 5


def test_a_socket_made_anew_is_new_once(kubelet: KubeletSocket, tmp_path: Path) -> None:
    listen(tmp_path)
    kubelet.is_new()
    for _ in range(3):
        listen(tmp_path)
        assert [kubelet.is_new() for _ in range(3)] == [True, False, False]


def test_a_socket_that_is_gone_meanwhile_is_new_when_it_is_back(
    kubelet: KubeletSocket, tmp_path: Path
) -> None:
    listen(tmp_path)
    kubelet.is_new()
    (tmp_path / "kubelet.sock").unlink()
    assert not kubelet.is_new()
    listen(tmp_path)
    assert kubelet.is_new()


def test_a_kubelet_that_comes_after_us_is_not_new(kubelet: KubeletSocket, tmp_path: Path) -> None:
    """Whatever it zeroes, it has registered its node before any pod runs there."""
    assert not kubelet.is_new()
    listen(tmp_path)
    assert not kubelet.is_new()


@pytest.mark.parametrize("folder", ["/nonexistent", "/proc/self/mem", "/" + "x" * 5000, ""])
def test_a_folder_that_cannot_be_looked_at_is_no_sign(folder: str) -> None:
    assert not KubeletSocket(folder).is_new()
