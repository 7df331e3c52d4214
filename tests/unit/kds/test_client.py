from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sevkit.errors import FormatError, UsageError
from sevkit.kds.client import RETRY_AFTER_CAP, KeyService, check_proxy, parse_retry_after

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("word", "seconds"),
    [
        ("0", 0),
        ("10", 10),
        (" 120 ", 120),
        ("86401", RETRY_AFTER_CAP),
        ("9" * 5000, RETRY_AFTER_CAP),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30),
        ("Mon, 23 Nov 2026 13:00:30 +0100", 30),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_CAP),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Mon, 99 Foo 2026 12:00:30 GMT", None),
        ("Mon, 23 Nov 99999999999 12:00:30 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date_and_capped(
    word: str | None, seconds: float | None
) -> None:
    assert parse_retry_after(word, NOW) == seconds


@pytest.mark.parametrize(
    "proxy", ["http://proxy.example:3128", "http://user:p%40ss@10.0.0.1:8080/", "http://[::1]:1"]
)
def test_an_http_proxy_is_accepted(proxy: str) -> None:
    assert check_proxy(proxy) == proxy


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "proxy.example:3128",
        "http://proxy.example",
        "https://proxy.example:3128",
        "socks5://proxy.example:1080",
        "http://user:word@proxy.example:port",
        "http://:3128",
        "http://proxy.example:3128/path",
        "http://proxy.example:3128?x",
    ],
)
def test_another_proxy_is_refused_without_quoting_it(proxy: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_proxy(proxy)
    assert "word" not in caught.value.message


def test_a_key_service_is_refused_when_it_is_made_not_when_it_is_asked() -> None:
    with pytest.raises(UsageError):
        KeyService("http://kdsintf.amd.com")
    with pytest.raises(UsageError):
        KeyService(proxy="ftp://proxy:1")
    with pytest.raises(FormatError, match="no certificate"):
        KeyService(ca=b"-----BEGIN CERTIFICATE-----\n")


def test_amds_key_service_is_the_default() -> None:
    assert KeyService().base_url == "https://kdsintf.amd.com"
