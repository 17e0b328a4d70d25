"""Lists of classes: which value of a label means which class, and how classes are called and drawn."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gopt_geo.errors import DatasetError
from gopt_geo.modelfaults import key_fault
from gopt_geo.paths import StrPath
from gopt_geo.yamlfile import read_yaml

__all__ = [
    "IGNORED",
    "ClassEntry",
    "ClassTable",
    "checked_classes",
    "checked_entries",
    "class_table",
    "read_classes",
]

IGNORED = 255
"""Class index of pixels that carry no label."""

_REMEDY = "write it as in docs/geodatasets.md: classes: [{value: 1, name: water, color: '#0000ff'}, ...]"


@dataclass(frozen=True)
class ClassTable:
    """Classes in order: the class at position i has the index i.

    Parameters
    ----------
    values
        Label value of each class, whole numbers, all different.
    names
        Name of each class, all different.
    colours
        ``#rrggbb`` of each class; empty: spread over the colour circle.
    ignore
        Label values that mean "not labelled".

    Raises
    ------
    DatasetError
        If there are no classes, more than 255, a value or name occurs twice, or numbers of entries differ.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    colours: tuple[str, ...] = ()
    ignore: tuple[int, ...] = ()
    source: str = field(default="class list", compare=False)

    def __post_init__(self) -> None:
        if not self.colours:
            object.__setattr__(self, "colours", _colours(len(self.values)))
        found = None
        strange = [value for value in (*self.values, *self.ignore) if int(value) != value]
        if strange:
            found = f"value {strange[0]!r} isn't a whole number"
        elif not 1 <= len(self.values) <= IGNORED:
            found = f"{len(self.values)} classes"
        elif not len(self.values) == len(self.names) == len(self.colours):
            found = f"{len(self.values)} values, {len(self.names)} names, {len(self.colours)} colours"
        elif (twice := _twice([*self.values, *self.ignore])) is not None:
            found = f"value {twice} occurs twice"
        elif (same := _twice(self.names)) is not None:
            found = f"the name {same!r} occurs twice"
        if found is not None:
            raise DatasetError(self.source, found, "give 1 to 255 classes, each with a value and name of its own")

    def __len__(self) -> int:
        return len(self.values)

    def index(self, labels: NDArray[Any], subject: str) -> NDArray[np.uint8]:
        """Turn label values into class indexes.

        Parameters
        ----------
        labels
            Whole numbers, of any shape.
        subject
            What the message calls their origin.

        Returns
        -------
        uint8, of the same shape; 255 where the value is one of `ignore`.

        Raises
        ------
        DatasetError
            If a value is neither a class nor to be ignored.
        """
        known = np.array([*self.values, *self.ignore], np.int64)
        means = np.array([*range(len(self.values)), *[IGNORED] * len(self.ignore)], np.uint8)
        order = np.argsort(known)
        known, means = known[order], means[order]
        numbers = np.asarray(labels, np.int64)
        places = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
        wrong = known[places] != numbers
        if wrong.any():
            raise DatasetError(
                subject,
                f"label {int(numbers[wrong].flat[0])} is none of the classes ({self._listed()})",
                "add it to the class list, or to its values to ignore",
            )
        return means[places]

    def _listed(self) -> str:
        shown = ", ".join(f"{value} {name}" for value, name in zip(self.values[:12], self.names, strict=False))
        more = f" and {len(self.values) - 12} more" if len(self.values) > 12 else ""
        ignored = f"; ignored: {', '.join(map(str, self.ignore))}" if self.ignore else ""
        return shown + more + ignored


def checked_classes(classes: ClassTable | None) -> ClassTable | None:
    """Return a class list as it is, after a check that it is one.

    Raises
    ------
    DatasetError
        If it isn't; of a file `read_classes` makes one.
    """
    if classes is None or isinstance(classes, ClassTable):
        return classes
    remedy = "give a ClassTable; of a file: classes=read_classes('classes.yaml')"
    raise DatasetError(f"classes={classes!r}", "it is no class list", remedy)


def _twice(items: Sequence[int] | Sequence[str]) -> int | str | None:
    seen: set[int | str] = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None


def _colours(count: int) -> tuple[str, ...]:
    """Return distinct colours; three rounds of lightness, so that neighbours on the circle differ in it."""
    found = []
    for i in range(count):
        parts = colorsys.hls_to_rgb(i / max(count, 1), (0.35, 0.5, 0.65)[i % 3], 0.75)
        found.append("#" + "".join(f"{round(255 * part):02x}" for part in parts))
    return tuple(found)


class ClassEntry(BaseModel):
    """One class: its label value, name, and colour in the map."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    value: int = Field(description="label value")
    name: str = Field(min_length=1, description="class name")
    color: str | None = Field(default=None, pattern=r"^#[0-9a-fA-F]{6}$", description="#rrggbb; else chosen")


def checked_entries(
    classes: tuple[ClassEntry, ...], ignore: tuple[int, ...], key: tuple[str, ...] = ("classes",)
) -> None:
    """Check a class list as a whole, for validators.

    Raises
    ------
    PydanticCustomError
        If some classes have a colour and others none; if a value or a name occurs twice; if there are none, or more
        than 255.
    """
    if not 1 <= len(classes) <= IGNORED:
        raise key_fault(key, f"{len(classes)} classes", "give 1 to 255")
    bare = [i for i, one in enumerate(classes) if one.color is None]
    if 0 < len(bare) < len(classes):
        raise key_fault((*key, bare[0]), "it has no color, and others have", "give every class a color, or none")
    for name in ("value", "name"):
        given = [getattr(one, name) for one in classes]
        for i, item in enumerate(given):
            if item in given[:i]:
                found = f"value {item} occurs twice" if name == "value" else f"the name {item!r} occurs twice"
                raise key_fault((*key, i, name), found, f"give each class a {name} of its own")
    values = {one.value for one in classes}
    for i, item in enumerate(ignore):
        if item in values:
            raise key_fault(("ignore", i), f"value {item} occurs twice", "a value is a class or ignored")


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    classes: tuple[ClassEntry, ...]
    ignore: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        checked_entries(self.classes, self.ignore)
        return self


def class_table(classes: Sequence[ClassEntry], ignore: Sequence[int], source: str) -> ClassTable:
    """Return the table of a class list; ``source`` is what messages call it."""
    return ClassTable(
        tuple(one.value for one in classes),
        tuple(one.name for one in classes),
        tuple(one.color for one in classes if one.color is not None),
        tuple(dict.fromkeys(ignore)),
        source=source,
    )


def read_classes(path: StrPath, ignore: Sequence[int] = ()) -> ClassTable:
    """Read a class list (``classes.yaml``): values, names, colours, and values to ignore.

    Parameters
    ----------
    path
        The file.
    ignore
        Further values to ignore.

    Raises
    ------
    DatasetError
        If the file can't be read, or isn't such a list; the message names line and entry.
    """
    read = read_yaml(path, kind="class list", remedy=_REMEDY, error=DatasetError).check(_File)
    return class_table(read.classes, (*read.ignore, *ignore), str(path))
