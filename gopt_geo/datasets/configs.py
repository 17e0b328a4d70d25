"""The part of a configuration that says what data set is read: its name, folder, options, splits and classes.

The files are those of `gopt_geo.training.configfile`, and may say how a model is trained, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gopt_geo.datasets.classes import ClassEntry, ClassTable, checked_entries, class_table, read_classes
from gopt_geo.datasets.registry import DATASETS, check_options, dataset_options, open_dataset, takes_classes
from gopt_geo.errors import ConfigError
from gopt_geo.modelfaults import first_fault, key_fault, ways_in
from gopt_geo.paths import StrPath
from gopt_geo.yamlfile import read_yaml

if TYPE_CHECKING:
    from gopt_geo.datasets.chips import ChipDataset, Sample

__all__ = ["CONFIG_REMEDY", "DatasetConfig", "SplitNames", "listed_classes", "read_config"]

CONFIG_REMEDY = "docs/configuration.md tells what a configuration holds"
_TRAINING = ("scene", "split", "model", "training", "augmentation", "evaluation", "title", "output")
"""What else a configuration may hold; `gopt_geo.training.configfile` reads it."""


class SplitNames(BaseModel):
    """Which part of a data set serves for what."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    train: str = Field(min_length=1, description="part to train on")
    val: str = Field(min_length=1, description="part to validate on")
    test: str = Field(min_length=1, description="part to test on")


class DatasetConfig(BaseModel):
    """A data set of chips, as a configuration names it; `open` opens a part of it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    dataset: str = Field(description="a data set of chips; docs/datasets.md")
    root: str = Field(min_length=1, description="its folder, relative to the working directory")
    splits: SplitNames = Field(description="which of its parts serves for what")
    options: dict[str, Any] = Field(default_factory=dict, description="of the data set")
    classes: str | tuple[ClassEntry, ...] | None = Field(
        default=None, description="a class list, or its file; else that of the data set"
    )
    ignore: tuple[int, ...] = Field(default=(), description="label values that mean: not labelled")

    @field_validator("options")
    @classmethod
    def _plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Keep options as a file would hold them, so that they read back equal."""
        plain: dict[str, Any] = json.loads(json.dumps(options, default=str))
        return plain

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.dataset not in DATASETS:
            found = f"there is no data set {self.dataset!r}"
            raise key_fault(("dataset",), found, f"choose from {', '.join(DATASETS)}")
        try:
            check_options(self.dataset, self.options)
        except ValidationError as error:
            first = first_fault(error, dataset_options(self.dataset), ways_in(self.options, ("options",)), ("options",))
            raise key_fault(first.key, first.found, first.remedy or "") from error
        if takes_classes(self.dataset):
            if isinstance(self.classes, tuple):
                checked_entries(self.classes, self.ignore)
            return self
        for name in ("classes", "ignore"):
            if getattr(self, name):
                raise key_fault((name,), f"{self.dataset} has classes of its own", "leave it out")
        return self

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
            If the folder isn't as documented, or a class list can't be read.
        """
        names = self.splits.model_dump()
        if part not in names:
            raise ConfigError(f"part {part!r}", "there is no such part", f"choose from {', '.join(names)}")
        place = Path(self.root).expanduser() if root is None else root
        table = listed_classes(self.classes, self.ignore)
        return open_dataset(self.dataset, place, names[part], classes=table, transforms=transforms, **self.options)


def listed_classes(
    classes: str | Sequence[ClassEntry] | None, ignore: Sequence[int] = (), source: str = "classes"
) -> ClassTable | None:
    """Return the class list that a configuration holds or names, or None.

    Raises
    ------
    DatasetError
        If it names a file that can't be read, or is none.
    """
    if classes is None:
        return None
    if isinstance(classes, str):
        return read_classes(Path(classes).expanduser(), ignore)
    return class_table(classes, ignore, source)


def read_config(path: StrPath) -> DatasetConfig:
    """Read what a configuration says of its data set.

    Raises
    ------
    ConfigError
        If it can't be read; if a key is unknown or missing, or a value of the wrong type: its line is named.
    """
    document = read_yaml(path, kind="configuration", remedy=CONFIG_REMEDY, error=ConfigError)
    content = document.content
    if isinstance(content, dict):
        if content.get("scene") is not None:
            raise document.fault(("scene",), "it is of a scene, not of a data set", "read it with read_train_config")
        content = {key: value for key, value in content.items() if key not in _TRAINING}
    return document.having(content).check(DatasetConfig)
