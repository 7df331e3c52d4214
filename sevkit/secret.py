"""Secret bytes that do not leak by accident: redacted repr, constant-time equality."""

from __future__ import annotations

import hmac
from typing import Final, NoReturn, final


@final
class Secret:
    """Key material. ``reveal()`` is the only way to the bytes, so that a reader can find each use.

    Not hashable, not picklable and not formattable, because each of those writes it somewhere.
    """

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]  # a hash would be a fingerprint of the secret

    def __init__(self, value: bytes) -> None:
        self._value: Final = bytes(value)

    def reveal(self) -> bytes:
        """Return the bytes themselves."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    def __repr__(self) -> str:
        return f"Secret(<{len(self._value)} bytes>)"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        message = "a Secret is never serialised"
        raise TypeError(message)
