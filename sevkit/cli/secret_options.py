"""Secrets that are named on the command line as ``GUID=FILE``, and the table that they make."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sevkit.abi.secret_packet import TABLE_GUID, SecretEntry, encode_secret_table, parse_guid
from sevkit.cli.files import read_file, warn_if_exposed
from sevkit.errors import FormatError, UsageError
from sevkit.measure.ovmf import parse_ovmf
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID


def parse_secrets(values: Iterable[str]) -> list[tuple[UUID, str]]:
    """Return GUID and path of each ``--secret``; opens no file.

    Raises ``UsageError`` for what is not GUID=FILE, for one GUID twice, and for one that no guest
    looks for.
    """
    named = [_split(value) for value in values]
    guids = [guid for guid, _ in named]
    if len(set(guids)) != len(guids):
        raise UsageError("--secret names one GUID twice", hint="a guest would find only one")
    if any(guid.int == 0 or guid == TABLE_GUID for guid in guids):
        raise UsageError("--secret names the nil GUID or the table's own, which no guest looks for")
    return named


def read_secret_table(named: Iterable[tuple[UUID, str]]) -> Secret:
    """Return the table of the secrets in these files. Raises as ``encode_secret_table``."""
    return encode_secret_table(SecretEntry(guid, _read_secret(path)) for guid, path in named)


def secret_area_of(firmware: bytes) -> tuple[int, int] | None:
    """Return (base, size) in bytes of a firmware's launch secret area, or None without one."""
    area = parse_ovmf(firmware).secret_area
    return None if area is None else (area.gpa, area.size)


def _split(value: str) -> tuple[UUID, str]:
    text, separator, path = value.partition("=")
    if not separator or not path:
        raise UsageError("--secret is not GUID=FILE", hint="secrets come from files, never argv")
    try:
        return parse_guid(text), path
    except FormatError as error:
        raise UsageError(f"--secret: {error.message}") from error


def _read_secret(path: str) -> Secret:
    warn_if_exposed(path)
    try:
        return Secret(read_file(path))
    except UsageError as error:
        if os.path.lexists(path):
            raise
        # Not quoted: it may be the secret itself, and messages end up in logs.
        raise UsageError(
            "--secret GUID=FILE names no file that exists",
            hint="secrets come from files, never argv",
        ) from error
