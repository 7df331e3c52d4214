"""``hack/peers --list`` says of every peer which version there is, or why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from hack import debian, peers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Ask = Callable[..., CompletedProcess[bytes]]

#: With which words a peer says its own version; the others do not, or not where Debian built them.
SAYS: Final = {
    "sev-snp-measure": ("--version",),
    "snpguest": ("--version",),
    "sevctl": ("--version",),
    "snphost": ("--version",),
    "kubectl": ("version", "--client"),
    "helm": ("version",),
    "kubeconform": ("-v",),
}


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return what the list says of each peer."""
    capsys.readouterr()
    assert peers.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {name: rest.strip() for name, _, rest in (line.partition(" ") for line in lines)}


def test_the_list_names_every_peer_with_its_version_or_why_it_is_not_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = debian.read_record(debian.cache_folder("SEVKIT_PEERS", "peers"))
    found = listed(capsys)
    assert list(found) == list(peers.PEERS)
    for name, said in found.items():
        row = record.get(name, {})
        if "version" in row:
            assert said == f"{row['version']}  {row['from']}"
        else:
            assert said == f"not installed: {row.get('reason', f'hack/peers {name} installs it')}"


@pytest.mark.parametrize("name", SAYS)
def test_a_peer_says_itself_the_version_that_the_list_names(
    ask: Ask,
    find_program: Callable[[str, str], Path],
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    done = ask(find_program(name, name), *SAYS[name])
    assert done.returncode == 0, done.stderr
    version = listed(capsys)[name].split()[0]
    upstream = version.partition("+")[0].partition("-")[0]
    assert upstream in done.stdout.decode()


def test_a_peer_that_cannot_be_had_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "peers"
    monkeypatch.setenv("SEVKIT_PEERS", str(base))
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = "Go module github.com/yannh/kubeconform: go is not installed"
    assert peers.main(["kubeconform"]) == 0
    said = capsys.readouterr().err
    assert said == f"peers: no kubeconform ({reason}); its tests are skipped\n"
    assert listed(capsys) == {
        name: f"not installed: hack/peers {name} installs it" for name in peers.PEERS
    } | {"kubeconform": f"not installed: {reason}"}
    assert not (base / "kubeconform").exists()


def test_a_peer_with_two_sources_is_named_with_both_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEVKIT_PEERS", str(tmp_path / "peers"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert peers.main(["kustomize"]) == 0
    capsys.readouterr()
    found = listed(capsys)["kustomize"]
    assert found.startswith("not installed: Go module sigs.k8s.io/kustomize/kustomize/v5: go is")
    assert "; Debian sid, kustomize: " in found
