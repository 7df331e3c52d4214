"""The ways in which a program of others is installed, each into a folder of its own.

A way that cannot be gone raises ``UnavailableError`` with a reason of one line. What is fetched is
checked by whoever fetches it: pip against the hashes in the requirements, apt against Debian's
keys, cargo against the registry's index and the crate's own lock, Go against its checksum database.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from hack import debian

if TYPE_CHECKING:
    from pathlib import Path

REQUIREMENTS: Final = debian.ROOT / "hack/peers-requirements.txt"
#: Seconds after which a build is given up; the longest takes minutes.
_PATIENCE: Final = 1800


class Source(Protocol):
    """Where a peer comes from."""

    @property
    def origin(self) -> str:
        """Where from, for people."""

    @property
    def pin(self) -> str:
        """What is asked for; an installed peer with another pin is installed anew."""

    def install(self, folder: Path, scratch: Path) -> tuple[str, str]:
        """Install into ``folder``; return version and the SHA-256 of what was fetched, or "".

        ``scratch`` is a folder for what a build leaves behind. Raises ``UnavailableError``.
        """


def run(words: list[str], environment: dict[str, str] | None = None) -> str:
    """Run a command; return what it printed. Raises ``UnavailableError`` with its last words."""
    if shutil.which(words[0]) is None:
        message = f"{words[0]} is not installed"
        raise debian.UnavailableError(message)
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = " ".join(str(error).split())
        raise debian.UnavailableError(message) from error
    if done.returncode:
        raise debian.UnavailableError(_reason(done.stderr or done.stdout))
    return done.stdout


def _reason(said: str) -> str:
    """Return the line that says most: cargo's and apt's first error, else the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = [line for line in lines if line.startswith(("error: ", "E: "))]
    return (first or lines[-1:] or ["no reason given"])[0][:200]


@dataclass(frozen=True)
class Pip:
    """A locked distribution of PyPI in a virtual environment, every hash checked."""

    name: str
    origin: str = "PyPI"

    @property
    def pin(self) -> str:
        """The hash of the requirements."""
        return debian.digest(REQUIREMENTS)

    def install(self, folder: Path, scratch: Path) -> tuple[str, str]:
        """Make a virtual environment."""
        del scratch
        pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        run([sys.executable, "-m", "venv", str(folder)])
        run([*pip, "install", "--no-deps", "--require-hashes", "--requirement", str(REQUIREMENTS)])
        for line in REQUIREMENTS.read_text().splitlines():
            name, _, version = line.partition("==")
            if name == self.name:
                return version.split()[0], self.pin
        message = f"{self.name} is not in the requirements"
        raise debian.UnavailableError(message)


@dataclass(frozen=True)
class Debian:
    """A package of a Debian suite, unpacked; the version is the suite's, and is recorded.

    Its programs are in ``usr/bin``, and in ``bin`` like everybody's.
    """

    suite: str
    package: str

    @property
    def origin(self) -> str:
        """Suite and package."""
        return f"Debian {self.suite}, {self.package}"

    pin = origin

    def install(self, folder: Path, scratch: Path) -> tuple[str, str]:
        """Unpack it."""
        del scratch
        found = debian.unpack(self.suite, self.package, folder)
        if not (folder / "bin").exists():
            (folder / "bin").symlink_to("usr/bin")
        return found.version, found.sha256


@dataclass(frozen=True)
class Crate:
    """A crate, built with the versions that its own lock names.

    Not optimised, because a peer answers a few questions and building would take twice as long.
    OpenSSL is the machine's where it has the headers, else the crates build their own copy, for
    minutes (they ask for the feature ``vendored``).
    """

    name: str
    version: str

    @property
    def origin(self) -> str:
        """The crate."""
        return f"crate {self.name}"

    @property
    def pin(self) -> str:
        """Crate and version."""
        return f"{self.name} {self.version}"

    def install(self, folder: Path, scratch: Path) -> tuple[str, str]:
        """Build it."""
        environment = {
            "CARGO_TARGET_DIR": str(scratch / "cargo"),
            "CARGO_PROFILE_RELEASE_DEBUG": "0",
            "CARGO_PROFILE_RELEASE_LTO": "off",
            "CARGO_PROFILE_RELEASE_OPT_LEVEL": "0",
            "CARGO_PROFILE_RELEASE_STRIP": "symbols",
        }
        if _has_openssl():
            environment["OPENSSL_NO_VENDOR"] = "1"
        words = ["cargo", "install", "--quiet", "--locked", "--no-track", "--root", str(folder)]
        run([*words, "--version", f"={self.version}", self.name], environment)
        return self.version, ""


def _has_openssl() -> bool:
    try:
        run(["pkg-config", "--exists", "openssl"])
    except debian.UnavailableError:
        return False
    return True


@dataclass(frozen=True)
class Go:
    """Programs of one Go module; ``stamp`` is the variable that holds the version they print."""

    module: str
    version: str
    packages: tuple[str, ...] = ("",)
    stamp: str = ""

    @property
    def origin(self) -> str:
        """The module."""
        return f"Go module {self.module}"

    @property
    def pin(self) -> str:
        """Module and version."""
        return f"{self.module}@{self.version}"

    def install(self, folder: Path, scratch: Path) -> tuple[str, str]:
        """Build them."""
        del scratch
        flags = "-s -w" + (f" -X {self.stamp}={self.version}" if self.stamp else "")
        wanted = [f"{self.module}{package}@{self.version}" for package in self.packages]
        environment = {"GOBIN": str(folder / "bin"), "CGO_ENABLED": "0", "GOWORK": "off"}
        run(["go", "install", "-trimpath", "-ldflags", flags, *wanted], environment)
        return self.version.removeprefix("v"), ""


@dataclass(frozen=True)
class GoFolder:
    """A program of ours that does with another's library what we do without it."""

    name: str
    library: str

    @property
    def origin(self) -> str:
        """The folder, and the library that it is about."""
        return f"hack/{self.name} with {self.library}"

    @property
    def _module(self) -> Path:
        return debian.ROOT / "hack" / self.name

    @property
    def pin(self) -> str:
        """The digest of its sources."""
        return " ".join(debian.digest(self._module / name) for name in ("go.sum", "main.go"))

    def install(self, folder: Path, scratch: Path) -> tuple[str, str]:
        """Build it; its version is the library's."""
        del scratch
        program, pattern = folder / "bin" / self.name, rf"{re.escape(self.library)} v(\S+)"
        version = re.search(pattern, (self._module / "go.mod").read_text())
        if version is None:
            message = f"go.mod does not pin {self.library}"
            raise debian.UnavailableError(message)
        words = ["go", "build", "-C", str(self._module), "-trimpath", "-buildvcs=false"]
        environment = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
        run([*words, "-ldflags", "-s -w", "-o", str(program), "."], environment)
        return version[1], ""
