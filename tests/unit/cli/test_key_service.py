from __future__ import annotations

from pathlib import Path

import pytest

from sevkit.cli.key_service import default_cache, find_proxy, open_cache, open_source
from sevkit.errors import FormatError, UsageError

AMD = "https://kdsintf.amd.com"
VARIABLES = ("https_proxy", "all_proxy", "no_proxy", "http_proxy", "REQUEST_METHOD")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"XDG_CACHE_HOME": "/var/x", "HOME": "/home/me"}, "/var/x/sevkit/kds"),
        ({"HOME": "/home/me"}, "/home/me/.cache/sevkit/kds"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/me"}, "/home/me/.cache/sevkit/kds"),
        ({"XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/sevkit/kds"),
    ],
)
def test_the_users_cache_is_where_xdg_says(environment: dict[str, str], folder: str) -> None:
    assert default_cache(environment) == Path(folder)


@pytest.mark.parametrize("environment", [{}, {"HOME": ""}, {"HOME": "here"}])
def test_a_user_without_a_home_has_no_cache(environment: dict[str, str]) -> None:
    assert default_cache(environment) is None


def test_no_cache_is_said_and_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "")
    assert open_cache(None) is None
    assert capsys.readouterr().err.startswith("sevkit: no certificate cache")


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"https_proxy": "p:3128"}, "http://p:3128"),
        ({"ALL_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"HTTP_PROXY": "http://p:3128"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": ".amd.com"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "example.org"}, "http://p:3128"),
        ({"HTTPS_PROXY": ""}, None),
    ],
)
def test_the_environments_proxy_is_honoured(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], proxy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_proxy(AMD) == proxy


@pytest.mark.parametrize("proxy", ["https://p:1", "socks5://p:1080"])
def test_a_proxy_of_another_kind_is_usage_and_not_ignored(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(UsageError, match="not an HTTP proxy"):
        find_proxy(AMD)


@pytest.mark.parametrize("offline", [True, False])
def test_a_plain_http_key_service_is_refused_also_offline(tmp_path: Path, offline: bool) -> None:
    with pytest.raises(UsageError):
        open_source(
            url="http://kdsintf.amd.com", ca_file=None, cache=str(tmp_path), offline=offline
        )


def test_authorities_that_are_none_are_malformed(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(FormatError):
        open_source(url=None, ca_file=str(tmp_path / "ca.pem"), cache=None, offline=False)
    with pytest.raises(UsageError):
        open_source(url=None, ca_file=str(tmp_path / "absent.pem"), cache=None, offline=False)
