"""What a training is made of, as plain data: sources or data set, split, model, optimisation, augmentation, evaluation.

A configuration names files, numbers and words; it names no Python class and imports nothing.
"""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from gopt_geo.datasets.classes import ClassEntry, checked_entries
from gopt_geo.datasets.configs import DatasetConfig, SplitNames
from gopt_geo.modelfaults import first_fault, key_fault, ways_in
from gopt_geo.training.sections import (
    AugmentationConfig,
    EvaluationConfig,
    ModelConfig,
    OptimisationConfig,
    SceneConfig,
    SplitConfig,
    Strict,
    Text,
)

__all__ = [
    "AugmentationConfig",
    "ClassEntry",
    "EvaluationConfig",
    "ModelConfig",
    "OptimisationConfig",
    "SceneConfig",
    "SplitConfig",
    "SplitNames",
    "TrainConfig",
]

_OF_DATASETS = ("root", "splits", "options")


class TrainConfig(Strict):
    """A training: either a ``scene``, or a ``dataset`` with its ``root`` and ``splits``."""

    scene: SceneConfig | None = Field(default=None, description="one scene and its labels")
    dataset: str | None = Field(default=None, description="a data set of chips, instead of a scene; docs/datasets.md")
    root: Text | None = Field(default=None, description="its folder, relative to the working directory")
    splits: SplitNames | None = Field(default=None, description="which of its parts serves for what")
    options: dict[str, Any] = Field(default_factory=dict, description="of the data set")
    classes: Text | tuple[ClassEntry, ...] | None = Field(
        default=None, description="a class list, or its file; else that of the data set or label raster"
    )
    ignore: tuple[int, ...] = Field(default=(), description="label values that mean: not labelled")
    split: SplitConfig = Field(default_factory=SplitConfig, description="blocks of a scene's labels; docs/splits.md")
    model: ModelConfig = Field(default_factory=ModelConfig, description="what is trained; docs/model.md")
    training: OptimisationConfig = Field(default_factory=OptimisationConfig, description="how it is trained")
    augmentation: AugmentationConfig = Field(
        default_factory=AugmentationConfig, description="random changes of training tiles; shares are of the tiles"
    )
    evaluation: EvaluationConfig = Field(
        default_factory=EvaluationConfig, description="validation and gopt-geo evaluate, with the tiler that predicts"
    )
    title: str | None = Field(
        default=None, min_length=1, max_length=200, description="the pack's name; else the output's"
    )
    output: Text | None = Field(default=None, description="folder of the run")

    @field_validator("options")
    @classmethod
    def _plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Keep options as a file would hold them, so that they read back equal."""
        plain: dict[str, Any] = json.loads(json.dumps(options, default=str))
        return plain

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.scene is not None and self.dataset is not None:
            raise key_fault(("dataset",), "scene is there, too", "train on a scene, or on a data set")
        if self.scene is None and self.dataset is None:
            raise key_fault((), "it has neither a scene nor a dataset", "name one: scene: {optical, sar, labels}")
        if self.dataset is None:
            for name in _OF_DATASETS:
                if getattr(self, name):
                    raise key_fault((name,), "it is of a data set, and this is a scene", "leave it out")
            if isinstance(self.classes, tuple):
                checked_entries(self.classes, self.ignore)
        else:
            for name in _OF_DATASETS[:2]:
                if getattr(self, name) is None:
                    raise key_fault((name,), "it is missing", "a data set needs root and splits")
            if self.split != SplitConfig():
                raise key_fault(("split",), "it is of a scene's labels; a data set has splits", "leave it out")
            self._check_dataset()
        return self

    @model_validator(mode="after")
    def _modalities(self) -> Self:
        """Check the names of a scene's modalities; those of a data set are known when it is opened."""
        there: tuple[str, ...] | None = None
        if self.scene is not None:
            there = tuple(name for name in ("optical", "sar") if getattr(self.scene, name) is not None)
        for i, name in enumerate(self.model.modalities or ()):
            if there is not None and name not in there:
                raise key_fault(
                    ("model", "modalities", i), f"the scene has no {name}", f"choose from {', '.join(there)}"
                )
        used = self.model.modalities or there
        for name in self.augmentation.dropout:
            if used is not None and name not in used:
                found = f"there is no modality {name}"
                raise key_fault(("augmentation", "dropout", name), found, f"choose from {', '.join(used)}")
            if used is not None and len(used) == 1 and self.augmentation.dropout[name] > 0:
                found = f"{name} is the only modality"
                raise key_fault(("augmentation", "dropout", name), found, "leave it out")
        return self

    def _check_dataset(self) -> None:
        try:
            self.dataset_config()
        except ValidationError as error:
            fault = first_fault(error, DatasetConfig, ways_in(self.model_dump()))
            raise key_fault(fault.key, fault.found, fault.remedy or "") from error

    def dataset_config(self) -> DatasetConfig:
        """Return the part that says what data set is read.

        Raises
        ------
        ValueError
            If it is of a scene.
        """
        if self.dataset is None or self.root is None or self.splits is None:
            raise ValueError("it is of a scene, not of a data set")
        return DatasetConfig(
            dataset=self.dataset,
            root=self.root,
            splits=self.splits,
            options=self.options,
            classes=self.classes,
            ignore=self.ignore,
        )
