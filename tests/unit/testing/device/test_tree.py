from __future__ import annotations

import pytest

from sevkit.errors import UsageError
from sevkit.testing.device.kvm import KvmDevice
from sevkit.testing.device.tree import make_tree

DEVICE = KvmDevice()


def test_folders_are_made_for_names_that_have_some() -> None:
    nodes = make_tree({"sev": DEVICE, "cpu/0/msr": DEVICE, "cpu/0/cpuid": DEVICE})
    cpu = nodes[nodes[1].children["cpu"]]
    cpu0 = nodes[cpu.children["0"]]
    assert set(nodes[1].children) == {"sev", "cpu"}
    assert set(cpu0.children) == {"msr", "cpuid"}
    assert sorted(nodes) == [node.number for node in nodes.values()] == list(range(1, 7))


def test_devices_are_for_root_alone_and_folders_are_open() -> None:
    nodes = make_tree({"sev": DEVICE})
    assert nodes[1].attributes.mode == 0o755
    assert nodes[2].attributes.mode == 0o600


@pytest.mark.parametrize(
    "name", ["", "/", "/dev/sev", "sev/", "a//b", ".", "../sev", "a/./b", "s\0v", "ü", "x" * 256]
)
def test_a_name_that_is_no_relative_path_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a relative path"):
        make_tree({name: DEVICE})


@pytest.mark.parametrize("names", [("cpu", "cpu/0"), ("cpu/0", "cpu")])
def test_a_device_is_not_also_a_folder(names: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="device name"):
        make_tree(dict.fromkeys(names, DEVICE))
