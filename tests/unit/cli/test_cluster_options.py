from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sevkit.cli.cluster_options import find_access
from sevkit.errors import InsecureUsage, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def kubeconfig(path: Path, server: str, user: dict[str, Any] | None = None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    config = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "c", "user": user or {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }
    path.write_text(json.dumps(config))
    return str(path)


def given(**more: object) -> dict[str, Any]:
    return {"kubeconfig": None, "context": "", "allow_kubeconfig_exec": False, **more}


def test_the_option_goes_before_the_environment_and_that_before_home(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path / "file", "https://option")
    listed = kubeconfig(tmp_path / "listed", "https://listed")
    kubeconfig(tmp_path / ".kube" / "config", "https://home")
    environ = {"HOME": str(tmp_path), "KUBECONFIG": f"{tmp_path}/none:{listed}"}
    assert find_access(given(kubeconfig=file), environ).server == "https://option"
    assert find_access(given(), environ).server == "https://listed"
    assert find_access(given(), {"HOME": str(tmp_path)}).server == "https://home"


def test_a_pod_without_a_kubeconfig_asks_its_own_cluster(tmp_path: Path) -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(UsageError, match="service account"):
        find_access(given(), pod | {"HOME": str(tmp_path)})
    kubeconfig(tmp_path / ".kube" / "config", "https://home")
    assert find_access(given(), pod | {"HOME": str(tmp_path)}).server == "https://home"
    with pytest.raises(UsageError, match="there is no kubeconfig"):
        find_access(given(context="c"), pod)


def test_nothing_at_all_is_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no kubeconfig"):
        find_access(given(), {"KUBECONFIG": f"none:{'x' * 300}"})
    for file in (str(tmp_path / "none"), str(tmp_path), "a\0b", "x" * 300, ""):
        with pytest.raises(UsageError, match="no such file"):
            find_access(given(kubeconfig=file), {})
    with pytest.raises(UsageError, match="no context 'x'"):
        find_access(given(kubeconfig=kubeconfig(tmp_path / "f", "https://a"), context="x"), {})


def test_a_program_is_run_only_if_that_is_allowed(tmp_path: Path) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/false"}
    file = kubeconfig(tmp_path / "f", "https://a", {"exec": plugin | {"interactiveMode": "Never"}})
    with pytest.raises(InsecureUsage, match="runs a program"):
        find_access(given(kubeconfig=file), {})
    allowed = given(kubeconfig=file, allow_kubeconfig_exec=True)
    assert find_access(allowed, {}).token is not None
