"""YAML files as plain data with the line of every key, and errors that name file, line and key.

Numbers and truth values are those of YAML 1.2's core schema: ``6e-5`` is a number, ``no`` and ``2024-01-01`` are text.
Tags, anchors and aliases are refused, so that a file can neither construct objects nor grow beyond its size.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from gopt_geo.errors import GoptGeoError
from gopt_geo.modelfaults import Key, dotted, first_fault
from gopt_geo.paths import StrPath

__all__ = ["YamlDocument", "parse_yaml", "read_yaml", "yaml_text"]

Model = TypeVar("Model", bound=BaseModel)

_LARGEST = 1 << 20  # bytes
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WHOLE = re.compile(r"([-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100})\Z")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or 1.2 would take for something else than text."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Escape what isn't printable, line breaks too, so that a value stays on its line."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE, list("-+0123456789"))


def yaml_text(value: Any) -> str:
    """Return a value (text, number, None, list or mapping of such) as YAML on one line; `parse_yaml` reads it back."""
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...")


@dataclass(frozen=True)
class YamlDocument:
    """What was read, and where each value stands.

    Attributes
    ----------
    source
        The file, as messages call it.
    content
        Mappings, lists, text, numbers, truth values and None.
    lines
        Line of each key and entry, from 1.
    remedy, error
        What the user can do about a fault, and the kind of error it is.
    options
        Of values that came otherwise: the option, as messages call it.
    """

    source: str
    content: Any
    lines: Mapping[Key, int]
    remedy: str
    error: type[GoptGeoError]
    options: Mapping[Key, str] = field(default_factory=dict)

    def where(self, key: Key) -> str:
        """Return the option, or file and line, that a value came by; of a missing one, those of what it belongs in."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.options:
                return self.options[key[:length]]
            if key[:length] in self.lines:
                return f"{self.source}, line {self.lines[key[:length]]}"
        return f"{self.source}, line {self.lines.get((), 1)}"

    def fault(self, key: Key, found: str, remedy: str | None = None) -> GoptGeoError:
        """Return the error of a value."""
        return self.error(self.where(key), f"{dotted(key) or 'the file'}: {found}", remedy or self.remedy)

    def having(self, content: Any, options: Mapping[Key, str] | None = None) -> YamlDocument:
        """Return this document with other content; ``options`` names values that came by one."""
        return replace(self, content=content, options=options or {})

    def check(self, model: type[Model]) -> Model:
        """Return the content as a model.

        Raises
        ------
        GoptGeoError
            Of the kind `error`, of the first fault.
        """
        try:
            # By way of JSON, in which lists and tuples are one: strict about types, and lenient about that difference.
            return model.model_validate_json(json.dumps({} if self.content is None else self.content))
        except ValidationError as error:
            raise self.refusal(error, model) from error

    def refusal(self, error: ValidationError, model: type[BaseModel], prefix: Key = ()) -> GoptGeoError:
        """Return the error of the first fault that a model found; see `first_fault`."""
        first = first_fault(error, model, {**self.lines, **self.options}, prefix)
        return self.fault(first.key, first.found, first.remedy)


def read_yaml(path: StrPath, *, kind: str, remedy: str, error: type[GoptGeoError]) -> YamlDocument:
    """Read a YAML file.

    Parameters
    ----------
    path
        A text file in UTF-8 of at most 1 MiB.
    kind
        What it is, such as "configuration".
    remedy, error
        See `YamlDocument`.

    Raises
    ------
    GoptGeoError
        Of the kind ``error``: the file can't be read or isn't YAML, a key occurs twice, a tag or an alias is used.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            found = "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is no regular file"
            raise error(path, found, "name a file")
        if status.st_size > _LARGEST:
            raise error(path, f"{status.st_size} bytes are no {kind}", remedy)
        text = path.read_text("utf-8-sig")
    except OSError as failure:
        raise error(path, f"it can't be read ({failure.strerror})", "check the path") from failure
    except UnicodeDecodeError as failure:
        raise error(path, "it isn't text in UTF-8", remedy) from failure
    return parse_yaml(text, str(path), remedy=remedy, error=error)


def parse_yaml(text: str, source: str, *, remedy: str, error: type[GoptGeoError]) -> YamlDocument:
    """Read YAML from a text; see `read_yaml`."""
    lines: dict[Key, int] = {}
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
                found = "it isn't YAML as it is read here (a tag, anchor or alias)"
                start = event.start_mark
                where = source if start is None else f"{source}, line {start.line + 1}"
                raise error(where, found, "write the value out")
        node = yaml.compose(text, yaml.SafeLoader)
        content = None if node is None else _plain(node, (), lines)
    except _BadKeyError as fault:
        raise error(f"{source}, line {fault.line}", fault.found, fault.remedy) from fault
    except yaml.MarkedYAMLError as failure:
        mark = failure.problem_mark
        where = f"{source}, line {mark.line + 1}" if mark is not None else source
        raise error(where, f"it isn't YAML ({failure.problem})", remedy) from failure
    except yaml.YAMLError as failure:
        raise error(source, f"it isn't YAML ({failure})", remedy) from failure
    except RecursionError as failure:
        raise error(source, "it isn't YAML as it is read here (nested too deeply)", remedy) from failure
    return YamlDocument(source, content, lines, remedy, error)


class _BadKeyError(Exception):
    def __init__(self, entry: yaml.Node, found: str, remedy: str) -> None:
        super().__init__(found)
        self.line, self.found, self.remedy = entry.start_mark.line + 1, found, remedy


def _plain(node: yaml.Node, key: Key, lines: dict[Key, int]) -> Any:
    """Return a node as plain data; note the line of each key and entry."""
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(value, (*key, i), lines) for i, value in enumerate(node.value)]
    found: dict[str, Any] = {}
    for entry, value in node.value:
        if not isinstance(entry, yaml.ScalarNode):
            raise _BadKeyError(entry, "it isn't YAML as it is read here (a key that is no text)", "use plain keys")
        name = str(entry.value)
        if name in found:
            raise _BadKeyError(entry, f"{dotted((*key, name))}: it is there twice", "leave one of them out")
        lines[(*key, name)] = entry.start_mark.line + 1
        found[name] = _plain(value, (*key, name), lines)
    return found


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text: str = node.value
    if node.style is not None:  # quoted, or a block
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.match(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    return float(text) if _FLOAT.match(text) else text
