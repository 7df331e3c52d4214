"""YAML and JSON documents, read as kubectl reads them, and bounded.

kubectl turns YAML 1.1 into JSON: ``on`` and ``yes`` are booleans, ``010`` is eight, keys are
strings, dates stay text. What it reads is read the same here or refused. One stream of documents
is ``parse_documents``, one JSON document ``parse_json``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sevkit.documents.bounds import DOCUMENT_LIMIT, MAX_DEPTH, MAX_VALUES, Json
    from sevkit.documents.json_reader import parse_json
    from sevkit.documents.stream import parse_documents

__all__ = [
    "DOCUMENT_LIMIT",
    "MAX_DEPTH",
    "MAX_VALUES",
    "Json",
    "parse_documents",
    "parse_json",
]

_HOMES: Final = {
    "DOCUMENT_LIMIT": "bounds",
    "Json": "bounds",
    "MAX_DEPTH": "bounds",
    "MAX_VALUES": "bounds",
    "parse_documents": "stream",
    "parse_json": "json_reader",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
