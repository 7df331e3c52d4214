from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from node_agent.agent import Rhythm
from node_agent.settings import Settings, parse_settings
from sevkit import __version__
from sevkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

POD: Final = {"NODE_NAME": "worker-1", "POD_NAME": "agent-x", "POD_IP": "10.0.0.7"}
DEFAULTS: Final = Settings(
    sink="kubernetes",
    node_name="worker-1",
    pod_name="agent-x",
    once=False,
    dry_run=False,
    host_root=None,
    host_sys=None,
    firmware_facts=None,
    sev_es_beside_snp=0,
    rhythm=Rhythm(60, 21600, 120),
    listen=("10.0.0.7", 9465),
    device_plugins="/var/lib/kubelet/device-plugins",
    nfd_file="/etc/kubernetes/node-feature-discovery/features.d/sevkit",
    kubeconfig=None,
    context="",
    log_level="info",
)


def test_a_pod_needs_no_option() -> None:
    assert parse_settings([], POD) == DEFAULTS
    assert Rhythm() == DEFAULTS.rhythm


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (("--sink", "nfd"), "sink", "nfd"),
        (("--sink", "stdout"), "sink", "stdout"),
        (("--sink", "kubernetes"), "sink", "kubernetes"),
        (("--node-name", "other"), "node_name", "other"),
        (("--once",), "once", True),
        (("--dry-run",), "dry_run", True),
        (("--host-root", "/host"), "host_root", "/host"),
        (("--host-sys", "/host/sys"), "host_sys", "/host/sys"),
        (("--firmware-facts", "/run/f.json"), "firmware_facts", "/run/f.json"),
        (("--allow-sev-es-beside-snp", "27"), "sev_es_beside_snp", 27),
        (("--interval", "5"), "rhythm", Rhythm(5, 21600, 120)),
        (("--reassert", "600.5"), "rhythm", Rhythm(60, 600.5, 120)),
        (("--start-spread", "0"), "rhythm", Rhythm(60, 21600, 0)),
        (("--listen", "127.0.0.1:0"), "listen", ("127.0.0.1", 0)),
        (("--listen", "[::1]:9465"), "listen", ("::1", 9465)),
        (("--device-plugins", "/k"), "device_plugins", "/k"),
        (("--nfd-file", "/f/x"), "nfd_file", "/f/x"),
        (("--kubeconfig", "/c"), "kubeconfig", Path("/c")),
        (("--context", "lab"), "context", "lab"),
        (("--log-level", "debug"), "log_level", "debug"),
    ],
    ids=str,
)
def test_each_option_is_one_setting_and_nothing_else(
    arguments: tuple[str, ...], name: str, value: object
) -> None:
    found = parse_settings(arguments, POD)
    changed = {
        field for field in Settings.__slots__ if getattr(found, field) != getattr(DEFAULTS, field)
    }
    assert getattr(found, name) == value
    # With --once nobody is there to listen.
    assert changed <= {name, "listen"} if name == "once" else changed <= {name}


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        ((), {}, "node's name is not known"),
        ((), {"NODE_NAME": ""}, "node's name is not known"),
        (("--dry-run", "--once"), {}, "node's name is not known"),
        (("--once", "--listen", "127.0.0.1:1"), POD, "nobody is there to listen"),
        (("--listen", "9465"), POD, "is not HOST:PORT"),
        (("--sink", "crd"), POD, "invalid choice: 'crd'"),
        (("--interval", "0"), POD, "at least 1 second"),
        (("--interval", "-1"), POD, "0 to 604800 seconds"),
        (("--interval", "nan"), POD, "0 to 604800 seconds"),
        (("--interval", "inf"), POD, "0 to 604800 seconds"),
        (("--interval", "1e9"), POD, "0 to 604800 seconds"),
        (("--interval", "soon"), POD, "--interval: must be 0 to 604800 seconds"),
        (("--start-spread", ""), POD, "--start-spread: must be 0 to 604800 seconds"),
        (("--reassert", "0.5"), POD, "at least 1 second"),
        (("--start-spread", "-1"), POD, "0 to 604800 seconds"),
        (("--allow-sev-es-beside-snp", "-1"), POD, "number of ASIDs"),
        (("--allow-sev-es-beside-snp", "many"), POD, "number of ASIDs"),
        (("--allow-sev-es-beside-snp", "12345678"), POD, "number of ASIDs"),
        (("--allow-sev-es-beside-snp", "٣"), POD, "number of ASIDs"),
        (("--log-level", "trace"), POD, "invalid choice"),
        (("--inter", "5"), POD, "unrecognized arguments"),
        (("--force",), POD, "unrecognized arguments: --force"),
        (("word",), POD, "unrecognized arguments: word"),
        (("--kubeconfig",), POD, "expected one argument"),
    ],
    ids=str,
)
def test_each_refusal_is_one_line_that_says_where_to_look(
    arguments: tuple[str, ...], environ: Mapping[str, str], said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        parse_settings(arguments, environ)
    assert said in refused.value.message
    assert "\n" not in refused.value.message
    assert refused.value.hint
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("sink", ["nfd", "stdout"])
def test_other_sinks_need_no_nodes_name(sink: str) -> None:
    assert parse_settings(["--sink", sink], {}).node_name == ""


def test_where_there_is_no_pod_nobody_listens() -> None:
    assert parse_settings(["--node-name", "n"], {}).listen is None
    assert parse_settings(["--once"], POD).listen is None


def test_the_help_names_every_option_and_what_the_environment_gives(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as done:
        parse_settings(["--help"], {})
    assert done.value.code == 0
    text = capsys.readouterr().out
    for word in (
        *("--version", "--sink", "--once", "--dry-run", "--node-name", "--host-root"),
        *("--host-sys", "--firmware-facts", "--allow-sev-es-beside-snp", "--device-plugins"),
        *("--interval", "--reassert", "--start-spread", "--listen", "--nfd-file"),
        *("--kubeconfig", "--context", "--log-level", "NODE_NAME", "POD_NAME", "POD_IP"),
        "Exit codes",
    ):
        assert word in text, word
    assert "%%" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_version_is_sevkits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--version"], {})
    assert capsys.readouterr().out == f"sevkit {__version__}\n"
