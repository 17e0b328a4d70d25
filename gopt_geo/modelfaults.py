"""What pydantic finds wrong with plain data, told by key: which key, what was found, what may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

__all__ = ["Fault", "Key", "first_fault", "key_fault", "keys_of", "model_in", "ways_in"]

Key = tuple[str | int, ...]
"""Way to a value: names of keys and places in lists."""

_FAULT = "gopt_geo_fault"
_MAPPING = ("model_type", "dict_type", "model_attributes_type")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where, what, and what to do about it where more is known than the file's own remedy."""

    key: Key
    found: str
    remedy: str | None = None


def key_fault(key: Key, found: str, remedy: str = "") -> PydanticCustomError:
    """Return what a validator raises: a fault of a value below it, so that its line can be named."""
    context = {"key": key, "found": found, "remedy": remedy, "text": f"{dotted(key)}: {found}" if key else found}
    return PydanticCustomError(_FAULT, "{text}", context)


def dotted(key: Key) -> str:
    """Return a way as it is written: ``training.steps``."""
    return ".".join(map(str, key))


def first_fault(error: ValidationError, model: type[BaseModel], known: Container[Key], prefix: Key = ()) -> Fault:
    """Return the first fault that a model found: an unknown key before what it leaves missing.

    Parameters
    ----------
    error
        What the model raised.
    model
        The model.
    known
        Ways to the values that there are.
    prefix
        Way to what the model was made of.
    """
    details = error.errors(include_url=False)
    first = next((one for one in details if one["type"] == "extra_forbidden"), details[0])
    key = (*prefix, *first["loc"])
    if first["type"] == "extra_forbidden":
        return Fault(key, "unknown key", _meant(str(key[-1]), key[:-1], prefix, model))
    if first["type"] == "missing":
        return Fault(key, "it is missing")
    if first["type"] == _FAULT:
        context = first["ctx"]
        return Fault((*key, *context["key"]), context["found"], context["remedy"] or None)
    while len(key) > len(prefix) and key not in known:
        key = key[:-1]  # a union adds to the way which of its kinds was tried
    return Fault(key, _message(first, details, key, prefix))


def _message(first: ErrorDetails, details: Iterable[ErrorDetails], key: Key, prefix: Key) -> str:
    """Return what pydantic says of a value; of a union what each of its kinds says."""
    said = [one for one in details if (*prefix, *one["loc"])[: len(key)] == key]
    words = ("Input should hold keys and values" if one["type"] in _MAPPING else one["msg"] for one in said or [first])
    text = " or ".join(dict.fromkeys(words))
    given = first["input"]
    shown = {dict: "a mapping", list: "a list", type(None): "null"}.get(type(given), repr(given)[:60])
    return f"{text}, not {shown}"


def _meant(name: str, parents: Key, prefix: Key, model: type[BaseModel]) -> str | None:
    """Return what may have been meant by an unknown key: one beside it, or one of the same name elsewhere."""
    there = _model_at(model, parents[len(prefix) :])
    beside = list(there.model_fields) if there is not None else []
    if close := difflib.get_close_matches(name, beside, n=1):
        return f"did you mean {dotted((*parents, close[0]))}?"
    elsewhere = [dotted((*prefix, *key)) for key in keys_of(model) if key[-1] == name]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return f"the keys here are {', '.join(beside)}" if beside else "leave it out"


def _model_at(model: type[BaseModel], key: Key) -> type[BaseModel] | None:
    """Return the model that a way leads to, or None."""
    for name in key:
        if isinstance(name, str):
            found = model_in(model.model_fields[name].annotation) if name in model.model_fields else None
            if found is None:
                return None
            model = found
    return model


def keys_of(model: type[BaseModel], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the ways to all values of a model, a section before what is in it."""
    found: list[tuple[str, ...]] = []
    for name, entry in model.model_fields.items():
        found.append((*above, name))
        inner = model_in(entry.annotation)
        if inner is not None:
            found += keys_of(inner, (*above, name))
    return found


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation such as ``Model | None`` or ``tuple[Model, ...]``, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple, list, Annotated):
        return next((found for part in get_args(annotation) if (found := model_in(part)) is not None), None)
    return None


def ways_in(value: Any, above: Key = ()) -> set[Key]:
    """Return the ways to all values in plain data."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {above}.union(*(ways_in(one, (*above, name)) for name, one in inner))
