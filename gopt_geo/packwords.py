"""What is wrong with a pack's description, in words for people who know the pack and not the library that reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

__all__ = ["in_words"]

_SHOWN = 40  # characters of a value
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "string": "a text",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
}
_RULES = {
    "finite_number": "a finite number",
    "int_from_float": "a whole number",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "string_unicode": "a text of Unicode characters",
}


def in_words(error: ValidationError) -> str:
    """Say what the first fault is: the field, its value, and what it must be.

    Returns
    -------
    Such as "config.groups is 1, it must be at least 2".
    """
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return _fault(first, where)


def _fault(first: ErrorDetails, where: str) -> str:
    kind, about = first["type"], first.get("ctx", {})
    if kind == "missing":
        return f"{where} is missing"
    if kind == "extra_forbidden":
        return f"{where} isn't known to this format version"
    if kind in ("too_short", "string_too_short"):
        return f"{where} is empty"
    if kind == "value_error":
        said = str(about.get("error", ""))
        return f"{where}: {said}" if where else said
    if kind == "string_pattern_mismatch":
        form = "a colour as #rrggbb" if where.endswith("color") else "64 lowercase hexadecimal digits"
        return f"{where} is {_short(first['input'])}, it must be {form}"
    rule = _RULES[kind].format(**about) if kind in _RULES else _KINDS.get(kind.removesuffix("_type"))
    if rule is not None and where:
        return f"{where} is {_short(first['input'])}, it must be {rule}"
    return "its description can't be read as one" if not where else f"{where} can't be read"


def _short(value: Any) -> str:
    """Say a value as JSON has it, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
