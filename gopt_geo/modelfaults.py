"""What pydantic finds wrong with plain data, told by key: which key, what was found, what may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Container, Sequence
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
    ways = [_way(one, known, prefix) for one in details]
    unknown = [i for i, one in enumerate(details) if one["type"] == "extra_forbidden"]
    # Of a union each kind has its say: the one that got furthest is the one that was meant.
    below = [i for i, way in enumerate(ways) if way[: len(ways[0])] == ways[0]]
    chosen = unknown[0] if unknown else max(below, key=lambda i: len(ways[i]))
    first, key = details[chosen], ways[chosen]
    if first["type"] == "extra_forbidden":
        return Fault(key, "unknown key", _meant(str(key[-1]), key[:-1], prefix, model))
    if first["type"] == "missing":
        return Fault(key, "it is missing")
    if first["type"] == _FAULT:
        context = first["ctx"]
        return Fault((*key, *context["key"]), context["found"], context["remedy"] or None)
    return Fault(key, _message([one for one, way in zip(details, ways, strict=True) if way == key]))


def _way(detail: ErrorDetails, known: Container[Key], prefix: Key) -> Key:
    """Return the way to what a detail is of, without the names that unions add to it."""
    key, last = prefix, len(detail["loc"]) - 1
    for i, name in enumerate(detail["loc"]):
        if (*key, name) in known or (i == last and detail["type"] in ("extra_forbidden", "missing")):
            key = (*key, name)
    return key


def _message(said: Sequence[ErrorDetails]) -> str:
    """Return what pydantic says of a value; of a union what each of its kinds says."""
    words = ("Input should hold keys and values" if one["type"] in _MAPPING else one["msg"] for one in said)
    given = said[0]["input"]
    shown = {dict: "a mapping", list: "a list", type(None): "null"}.get(type(given), repr(given)[:60])
    return f"{' or '.join(dict.fromkeys(words))}, not {shown}"


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
