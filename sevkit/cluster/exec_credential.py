"""Tokens from a program that the kubeconfig names: client-go's credential plugins.

The program is run without a shell and without a terminal, is told so in ``KUBERNETES_EXEC_INFO``,
and prints an ExecCredential. Its token is kept until shortly before it expires. A plugin that
gives a client certificate instead of a token is refused.

Source: kubernetes.io, "Authenticating", "client-go credential plugins".
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, final

from sevkit.cluster.access import TOKEN_LIMIT, check_token
from sevkit.cluster.errors import one_line
from sevkit.documents import parse_json
from sevkit.errors import ClusterError, FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sevkit.documents import Json
    from sevkit.secret import Secret

PLUGIN_SECONDS: Final = 60.0
#: A token that ends while a request is under way would be refused.
_EARLY_SECONDS: Final = 30.0
_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_STRUCTURE: Final = "ExecCredential"
_KNOWN: Final = frozenset(
    {
        "apiVersion",
        "command",
        "args",
        "env",
        "installHint",
        "interactiveMode",
        "provideClusterInfo",
    }
)


@final
@dataclass(frozen=True, slots=True)
class Credential:
    """What a plugin printed: a token, and when it ends in seconds since 1970, if it does."""

    token: Secret
    end: float | None


@final
class ExecToken:
    """Runs the plugin that ``values`` (a kubeconfig's ``exec``) describe, when a token is needed.

    A command with a slash is relative to ``folder``; ``environ`` is its environment, to which the
    plugin's own variables are added. Raises ``UsageError`` for what is not supported. ``clock``
    gives seconds since 1970.
    """

    def __init__(
        self,
        values: Mapping[str, Json],
        folder: Path,
        environ: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        version, command = values.get("apiVersion"), values.get("command")
        arguments = values.get("args") or []
        if version not in _VERSIONS or not isinstance(command, str) or not command:
            raise UsageError("exec plugin of the kubeconfig has no command, or an unknown version")
        if values.get("interactiveMode") == "Always" or values.get("provideClusterInfo"):
            raise UsageError(
                "exec plugin of the kubeconfig wants a terminal, or the cluster's data"
            )
        if unknown := sorted(values.keys() - _KNOWN):
            raise UsageError(f"exec plugin of the kubeconfig has {unknown[0][:80]!r}, unknown")
        if not isinstance(arguments, list):
            raise FormatError("kubeconfig", "args of an exec plugin are no list")
        program = str(folder / command) if "/" in command else command
        self._arguments: Final = [program, *map(str, arguments)]
        self._environ: Final = {**environ, **_variables(values.get("env")), **_info(version)}
        self._version: Final = version
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._kept: Credential | None = None

    def token(self) -> Secret:
        """Return the token that is kept, or run the plugin. Raises ``ClusterError``."""
        with self._lock:
            kept = self._kept
            if kept is None or (kept.end is not None and self._clock() > kept.end - _EARLY_SECONDS):
                self._kept = kept = parse_credential(self._run(), self._version)
            return kept.token

    def _run(self) -> bytes:
        name = self._arguments[0].rpartition("/")[2]
        try:
            done = subprocess.run(  # noqa: S603  # the caller allowed the kubeconfig's program
                self._arguments,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PLUGIN_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"exec plugin {name} did not end in time") from error
        except (OSError, ValueError) as error:
            reason = (getattr(error, "strerror", None) or "ill-formed command").lower()
            raise ClusterError(f"exec plugin {name} cannot be run: {reason}") from error
        if done.returncode:
            said = one_line(done.stderr[-1000:].decode("utf-8", "replace"))
            raise ClusterError(
                f"exec plugin {name} failed with status {done.returncode}", hint=said
            )
        return done.stdout


def parse_credential(data: bytes, version: object) -> Credential:
    """Return what a plugin printed. Raises ``ClusterError``, which never quotes it."""
    try:
        document = parse_json(data, _STRUCTURE, limit=2 * TOKEN_LIMIT)
    except FormatError:
        # Without its message: a parser may quote what it met, and that is a token.
        raise ClusterError("exec plugin printed no ExecCredential") from None
    status = document.get("status") if isinstance(document, dict) else None
    if (
        not isinstance(document, dict)
        or document.get("kind") != _STRUCTURE
        or document.get("apiVersion") != version
        or not isinstance(status, dict)
    ):
        raise ClusterError("exec plugin printed no ExecCredential of the version that was asked")
    token = status.get("token")
    if not isinstance(token, str):
        raise ClusterError(
            "exec plugin gave no token", hint="client certificates are not supported"
        )
    return Credential(check_token(token.encode(), "exec plugin"), _end(status))


def _end(status: Mapping[str, Json]) -> float | None:
    moment = status.get("expirationTimestamp")
    if moment is None:
        return None
    try:
        found = datetime.fromisoformat(str(moment))
    except ValueError as error:
        raise ClusterError("exec plugin's token expires at no time that can be read") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _variables(entries: Json) -> dict[str, str]:
    if not isinstance(entries, list | None):
        raise FormatError("kubeconfig", "env of an exec plugin is no list")
    return {
        str(entry["name"]): str(entry.get("value", ""))
        for entry in entries or []
        if isinstance(entry, dict) and "name" in entry
    }


def _info(version: Json) -> dict[str, str]:
    document = {"apiVersion": version, "kind": _STRUCTURE, "spec": {"interactive": False}}
    return {"KUBERNETES_EXEC_INFO": json.dumps(document)}
