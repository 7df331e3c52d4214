"""Whether a label selector chooses an object, as the API server decides it. Pure.

Source: k8s.io/apimachinery metav1.LabelSelector; labels.Requirement.Matches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sevkit.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.documents import Json

_STRUCTURE: Final = "label selector"
#: Given the label's value, None for none, and the values of the expression.
_OPERATORS: Final[Mapping[str, Callable[[str | None, list[Json]], bool]]] = {
    "In": lambda value, values: value is not None and value in values,
    "NotIn": lambda value, values: value is None or value not in values,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
}


def selects(selector: Json, labels: Mapping[str, str]) -> bool:
    """Return whether ``selector`` chooses what has ``labels``; none or an empty one chooses all.

    Raises ``FormatError``.
    """
    if selector is None:
        return True
    if not isinstance(selector, dict):
        raise FormatError(_STRUCTURE, "is no object")
    wanted, expressions = selector.get("matchLabels"), selector.get("matchExpressions")
    if not isinstance(wanted, dict | None) or not isinstance(expressions, list | None):
        raise FormatError(_STRUCTURE, "is ill-formed")
    return all(labels.get(key) == value for key, value in (wanted or {}).items()) and all(
        _holds(one, labels) for one in expressions or []
    )


def _holds(expression: Json, labels: Mapping[str, str]) -> bool:
    if not isinstance(expression, dict):
        raise FormatError(_STRUCTURE, "has an expression that is no object")
    key, operator, values = (expression.get(name) for name in ("key", "operator", "values"))
    if not isinstance(key, str) or not isinstance(operator, str) or operator not in _OPERATORS:
        raise FormatError(_STRUCTURE, "has an expression with an unknown operator")
    return _OPERATORS[operator](labels.get(key), values if isinstance(values, list) else [])
