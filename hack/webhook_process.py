"""``python -m webhooks`` as a process of a test, and what it says by HTTP and in its log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from hack.ports import free_port
from hack.started import Started

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
HOST: Final = "127.0.0.1"
_SECONDS: Final = 30.0


@final
class WebhookProcess(Started):
    """Runs with ``words`` and ``environment`` beside those that say where it listens.

    ``log`` is the file that its lines go to. On exit it is asked to end, and has to.
    """

    def __init__(
        self, words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self._words: Final = tuple(words)
        self._log: Final = log
        self._environment: Final = dict(environment or {})
        self._is_asked = False
        self.port: Final = free_port()
        self._health: Final = free_port()

    def _start(self) -> None:
        self._log.write_text("")
        self.process = self._spawn()
        self._stack.callback(self.end)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-m", "webhooks", *self._words),
            *("--listen", f"{HOST}:{self.port}", "--health", f"{HOST}:{self._health}"),
        ]
        environment = {**os.environ, **self._environment}
        with self._log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, stderr=log, env=environment)

    def kill(self) -> None:
        """End it as a kernel without memory does, and return when it has ended."""
        self.process.kill()
        self.process.wait(_SECONDS)

    def restart(self) -> None:
        """Start it again where it was, as a kubelet does."""
        self._is_asked = False
        self.process = self._spawn()

    def ask_to_end(self) -> None:
        """Ask it to end, once: while Python ends, a second signal is nobody's."""
        if not self._is_asked:
            self._is_asked = True
            self.process.terminate()

    def end(self) -> int:
        """Ask it to end, and return its exit code; one that does not is killed."""
        self.ask_to_end()
        try:
            return self.process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of its health server. Raises ``OSError`` where it is not there."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self._health}{path}", timeout=5) as found:
                return found.status, found.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    @property
    def is_ready(self) -> bool:
        """Whether it says so."""
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def metric(self, name: str) -> float:
        """Return the sum of all series whose line begins with ``name``, 0 for none."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def log(self, *levels: str) -> list[dict[str, Any]]:
        """Return its log's whole lines, of these levels or of all."""
        lines = map(json.loads, self._log.read_text().split("\n")[:-1])
        return [line for line in lines if not levels or line["level"] in levels]
