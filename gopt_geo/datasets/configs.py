"""Configurations of data sets: YAML files with a data set, its folder, options and splits, and a known recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gopt_geo.datasets.classes import ClassTable
from gopt_geo.datasets.registry import DATASETS, check_options, open_dataset, takes_classes
from gopt_geo.errors import DatasetError
from gopt_geo.paths import StrPath

if TYPE_CHECKING:
    from gopt_geo.datasets.chips import ChipDataset, Sample

__all__ = ["DatasetConfig", "Evaluation", "Recipe", "read_config"]

_LARGEST = 1 << 20  # bytes of a configuration
_REMEDY = "see docs/datasets.md for what a configuration holds"
_Path = tuple[str | int, ...]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Class(_Strict):
    value: int
    name: str = Field(min_length=1)
    color: str | None = Field(default=None, pattern=r"^#[0-9a-fA-F]{6}$")


class Recipe(_Strict):
    """How published models are trained on a data set, as far as that is documented; None where it isn't.

    Attributes
    ----------
    flip
        Whether images are mirrored at random, left to right.
    scales
        Smallest and largest factor by which they are scaled at random.
    crop
        Height and width of the training crops in pixels.
    optimizer, learning_rate, weight_decay
        Of the optimiser.
    batch
        Images in a step.
    schedule, power
        How the rate falls: "poly" is (1 - step / steps) ** power.
    warmup_epochs
        Epochs in which the rate rises to its full value.
    """

    flip: bool | None = None
    scales: tuple[float, float] | None = None
    crop: tuple[int, int] | None = None
    optimizer: Literal["adamw"] | None = None
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    batch: int | None = Field(default=None, ge=1)
    schedule: Literal["poly"] | None = None
    power: float | None = Field(default=None, gt=0)
    warmup_epochs: int | None = Field(default=None, ge=0)


class Evaluation(_Strict):
    """How published models are evaluated: a window [height, width] in pixels, and its stride as a share of it."""

    window: tuple[int, int]
    stride: float = Field(gt=0, le=1)


class _Splits(_Strict):
    train: str
    val: str
    test: str


class _File(_Strict):
    dataset: str
    root: str = Field(min_length=1)
    splits: _Splits
    options: dict[str, Any] = {}
    classes: list[_Class] | None = Field(default=None, min_length=1)
    ignore: list[int] = []
    training: Recipe | None = None
    evaluation: Evaluation | None = None


@dataclass(frozen=True)
class DatasetConfig:
    """A configuration that was read and checked; `open` opens a part of its data set.

    Attributes
    ----------
    path
        The file.
    dataset
        Name of the data set, a key of `gopt_geo.datasets.registry.DATASETS`.
    root
        Its folder, relative to the working directory.
    splits
        Which split of the data set is used as ``train``, ``val`` and ``test``.
    options
        Of the data set.
    classes
        Where the data set has none of its own.
    training, evaluation
        What is documented of published models.
    """

    path: Path
    dataset: str
    root: Path
    splits: Mapping[str, str]
    options: Mapping[str, Any]
    classes: ClassTable | None = None
    training: Recipe | None = None
    evaluation: Evaluation | None = None

    def open(
        self,
        part: Literal["train", "val", "test"],
        *,
        root: StrPath | None = None,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> ChipDataset:
        """Open a part of the data set, in the configuration's folder or in another.

        Raises
        ------
        DatasetError
            If the folder isn't as documented.
        """
        if part not in self.splits:
            known = ", ".join(self.splits)
            raise DatasetError(self.path, f"there is no part {part!r}", f"choose from {known}")
        place = self.root if root is None else root
        split = self.splits[part]
        return open_dataset(self.dataset, place, split, classes=self.classes, transforms=transforms, **self.options)


def read_config(path: StrPath) -> DatasetConfig:
    """Read a configuration of a data set.

    Raises
    ------
    DatasetError
        If it can't be read; if a key is unknown or missing, or a value of the wrong type: its line is named.
    """
    path = Path(path)
    text = _read(path)
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        content = yaml.safe_load(text)
        lines = _lines(node) if node is not None else {}
    except (yaml.YAMLError, RecursionError) as error:
        raise DatasetError(path, f"it isn't YAML ({error})", _REMEDY) from error
    try:
        file = _File.model_validate_json(_json(content))
        if file.dataset not in DATASETS:
            where = f"{path}, line {lines[('dataset',)]}"
            raise DatasetError(where, f"there is no data set {file.dataset!r}", f"choose from {', '.join(DATASETS)}")
    except ValidationError as error:
        raise _first(path, lines, error, ()) from error
    try:
        options = check_options(file.dataset, file.options)
    except ValidationError as error:
        raise _first(path, lines, error, ("options",)) from error
    if file.classes is not None and not takes_classes(file.dataset):
        where = f"{path}, line {lines[('classes',)]}"
        raise DatasetError(where, f"{file.dataset} has classes of its own", "leave the class list out")
    return DatasetConfig(
        path,
        file.dataset,
        Path(file.root).expanduser(),
        file.splits.model_dump(),
        options,
        _classes(path, file),
        file.training,
        file.evaluation,
    )


def _classes(path: Path, file: _File) -> ClassTable | None:
    if file.classes is None:
        return None
    colours = tuple(one.color for one in file.classes if one.color is not None)
    values, names = tuple(one.value for one in file.classes), tuple(one.name for one in file.classes)
    return ClassTable(values, names, colours, tuple(file.ignore), source=str(path))


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise DatasetError(path, f"{path.stat().st_size} bytes are no configuration", _REMEDY)
        return path.read_text("utf-8")
    except OSError as error:
        raise DatasetError(path, f"it can't be read ({error.strerror})", "check the path") from error
    except UnicodeDecodeError as error:
        raise DatasetError(path, "it isn't text in UTF-8", _REMEDY) from error


def _json(content: Any) -> str:
    """Return what was read as JSON, in which lists and tuples are one; dates and the like become text."""
    import json

    return json.dumps({} if content is None else content, default=str)


def _lines(node: yaml.Node, path: _Path = ()) -> dict[_Path, int]:
    """Return the line of each key and entry, by its path."""
    found: dict[_Path, int] = {path: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            found |= _lines(value, (*path, str(key.value)))
            found[(*path, str(key.value))] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            found |= _lines(value, (*path, i))
    return found


def _first(path: Path, lines: Mapping[_Path, int], error: ValidationError, prefix: _Path) -> DatasetError:
    """Return the first thing that is wrong, with its line and key."""
    first = error.errors()[0]
    loc = (*prefix, *first["loc"])
    known = next((loc[:n] for n in range(len(loc), -1, -1) if loc[:n] in lines), ())
    where = f"{path}, line {lines.get(known, 1)}"
    key = ".".join(map(str, loc)) or "the file"
    what = {"extra_forbidden": "unknown key", "missing": "it is missing"}.get(first["type"], first["msg"])
    return DatasetError(where, f"{key}: {what}", _REMEDY)
