"""The options of every command that may ask a key service, and the source that they make."""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sevkit.cli.files import read_file
from sevkit.cli.messages import say
from sevkit.errors import UsageError
from sevkit.kds.cache import CertificateCache
from sevkit.kds.source import CertificateSource
from sevkit.kds.urls import AMD_KEY_SERVICE, check_base_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.kds.client import Fetcher

_Command = TypeVar("_Command", bound="Callable[..., Any]")


def key_service_options(command: _Command) -> _Command:
    """Add ``--kds-url`` and ``--kds-ca``."""
    for option in (
        click.option(
            "--kds-ca",
            metavar="FILE",
            help="PEM of the only authorities to accept behind the key service's TLS certificate.  "
            "[default: the system's]",
        ),
        click.option(
            "--kds-url",
            metavar="URL",
            help="Another key service than AMD's; always https. HTTPS_PROXY and NO_PROXY count.",
        ),
    ):
        command = option(command)
    return command


def open_source(
    *, url: str | None, ca_file: str | None, cache: str | None, offline: bool
) -> CertificateSource:
    """Return the cache in the folder ``cache``, or the user's, and a key service behind it.

    ``offline`` leaves the key service out. Raises ``UsageError`` and ``FormatError`` for options
    that are wrong, also offline.
    """
    fetcher = None if offline else open_key_service(url, ca_file)
    if url is not None:
        check_base_url(url)
    return CertificateSource(open_cache(cache), fetcher, notify=say)


def open_key_service(url: str | None, ca_file: str | None) -> Fetcher:
    """Return the key service at ``url`` or AMD's, through the environment's proxy if it has one."""
    # Costs 40 ms: offline needs none of it.
    from sevkit.kds.client import KeyService  # noqa: PLC0415

    base = check_base_url(AMD_KEY_SERVICE if url is None else url)
    ca = None if ca_file is None else read_file(ca_file)
    return KeyService(base, ca=ca, proxy=find_proxy(base), notify=say)


def open_cache(folder: str | None) -> CertificateCache | None:
    """Return the cache in ``folder``, else the user's; None if the user has no home."""
    if folder is not None:
        return CertificateCache(Path(folder))
    found = default_cache(os.environ)
    if found is None:
        say("no certificate cache: neither XDG_CACHE_HOME nor HOME is an absolute path")
        return None
    return CertificateCache(found)


def default_cache(environment: Mapping[str, str]) -> Path | None:
    """Return ``sevkit/kds`` in XDG_CACHE_HOME, else in ``~/.cache``; relative paths do not count.

    Source: XDG Base Directory Specification 0.8.
    """
    for variable, below in (("XDG_CACHE_HOME", ()), ("HOME", (".cache",))):
        folder = environment.get(variable, "")
        if folder.startswith("/") and "\0" not in folder:
            return Path(folder, *below, "sevkit", "kds")
    return None


def find_proxy(url: str) -> str | None:
    """Return the proxy that the environment names for ``url``, or None.

    HTTPS_PROXY, else ALL_PROXY, in either case, unless NO_PROXY covers the host. Only plain HTTP
    proxies: TLS goes through them end to end. Raises ``UsageError`` for another kind.
    """
    # Costs 20 ms, which offline needs none of.
    from urllib.request import getproxies_environment, proxy_bypass  # noqa: PLC0415

    known = getproxies_environment()
    host = urllib.parse.urlsplit(url).netloc
    proxy = known.get("https") or known.get("all")
    if not proxy or proxy_bypass(host, known):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not proxy.startswith("http://"):
        raise UsageError(
            "HTTPS_PROXY names a proxy that is not an HTTP proxy",
            hint="for example HTTPS_PROXY=http://proxy.example:3128, or NO_PROXY for this host",
        )
    return proxy
