"""The base of data sets of chips: images without a place of their own, sample by sample, as torchgeo has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from gopt_geo.datasets.chipfiles import Chip, Layer, natural, read_labels, read_layer
from gopt_geo.datasets.classes import IGNORED, ClassTable
from gopt_geo.errors import DatasetError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["IMAGENET", "ChipDataset", "Holdings", "Scoring", "Statistics", "choose_part", "split_of"]

Sample = dict[str, Tensor]


@dataclass(frozen=True)
class Statistics:
    """How a modality's stored values are usually normalised: (value / divide - mean) / std, channel by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    divide: float = 1.0

    def normalise(self, values: Tensor) -> Tensor:
        """Normalise stored values [..., C, H, W]."""
        mean, std = (torch.tensor(part, dtype=torch.float32)[:, None, None] for part in (self.mean, self.std))
        return (values / self.divide - mean) / std


IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 255.0)
"""Of 8-bit RGB."""


@dataclass(frozen=True)
class Scoring:
    """How published figures of a data set are made.

    Attributes
    ----------
    averaged
        Classes that the mean IoU is over.
    figures
        What is reported.
    zero_classes
        Classes that some publications add to the mean with an IoU of 0; print that figure beside the other.
    note
        What else to know before figures are compared.
    """

    averaged: int
    figures: tuple[str, ...] = ("miou",)
    zero_classes: int = 0
    note: str = ""

    def with_zero_classes(self, miou: float) -> float:
        """Return the mean IoU as it reads with the classes that count 0."""
        return miou * self.averaged / (self.averaged + self.zero_classes)


@dataclass(frozen=True)
class Holdings:
    """What a data set found on disk: the chips of the split, and how their files are read.

    Attributes
    ----------
    chips
        The samples.
    layers
        How each modality is read; the keys are the modalities' names.
    layout
        Which of the layouts in use was found.
    labels
        How labels are read.
    statistics
        Of the modalities of which they are known.
    notices
        What was found or taken for granted, one line each.
    """

    chips: Sequence[Chip]
    layers: Mapping[str, Layer]
    layout: str
    labels: Layer = field(default_factory=lambda: Layer(honour_nodata=False))
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    notices: Sequence[str] = ()


def choose_part(
    official: Mapping[str, Sequence[str]], split: str, hold_out: int, subject: str | Path
) -> tuple[list[str], list[str]]:
    """Return the names of a split, and notices.

    Parameters
    ----------
    official
        Names of each official part, ``train`` among them.
    split
        One of them; ``val`` where validation is held out of ``train``; or ``train+val``.
    hold_out
        Of so many names of ``train`` in order, the last is held out for ``val``; 0: none.
    subject
        What messages speak of.

    Raises
    ------
    DatasetError
        If there is no such split, or `hold_out` makes no sense.
    """
    if hold_out < 0 or hold_out == 1:
        raise DatasetError(
            "hold_out", f"{hold_out}", "give 0 (none) or at least 2, such as 10: every tenth image validates"
        )
    parts = {part: list(names) for part, names in official.items()}
    notices = []
    if hold_out and "val" in parts:
        raise DatasetError("hold_out", f"{subject} has a validation part of its own", "give hold_out=0")
    if hold_out:
        whole = parts["train"]
        parts["val"] = whole[hold_out - 1 :: hold_out]
        parts["train"] = [name for i, name in enumerate(whole) if (i + 1) % hold_out]
        counted = f"{len(parts['val'])} of {len(whole)} training images"
        notices.append(f"{subject}: validation is {counted}, the last of every {hold_out} in the order of the names")
    if {"train", "val"} <= set(parts):
        parts["train+val"] = sorted([*parts["train"], *parts["val"]], key=natural)
    if split not in parts:
        hint = "; hold_out=10 makes a val of train" if split == "val" else ""
        raise DatasetError(subject, f"there is no split {split!r}", f"choose from {', '.join(parts)}{hint}")
    return parts[split], notices


def split_of(
    chips: Sequence[Chip], part: str, split: str, hold_out: int, subject: str | Path
) -> tuple[list[Chip], list[str]]:
    """Return the chips of a split of an official part, ``train`` or ``test``, and notices; see `choose_part`."""
    official: dict[str, Sequence[str]] = {"train": (), "test": (), part: [chip.name for chip in chips]}
    names, notices = choose_part(official, split, hold_out if part == "train" else 0, subject)
    chosen = set(names)
    return [chip for chip in chips if chip.name in chosen], notices


class ChipDataset(NonGeoDataset):
    """Base of the data sets of chips.

    All values of a sample are tensors: for each modality its stored values, float32 [C, H, W], under its name, and
    under ``validity_`` and its name, bool [H, W], which pixels carry data (the others are 0); and ``mask``, int64
    [H, W], class indexes, 255 where there is no label, or no modality carries data.

    Attributes
    ----------
    root : pathlib.Path
        The data set's folder.
    split : str or None
        The part that is shown.
    layout : str
        Which of the layouts in use was found.
    modalities : tuple of str
        ``optical`` and the auxiliary ones.
    classes : ClassTable or None
        Values, names and colours of the classes; None where labels are class indexes already.
    statistics : mapping
        How modalities are usually normalised, where that is known.
    scoring : Scoring or None
        How published figures are made.
    notices : list of str
        What was found or taken for granted, one line each.
    """

    classes: ClassTable | None = None
    scoring: Scoring | None = None

    def __init__(
        self,
        root: Path,
        split: str | None,
        holdings: Holdings,
        transforms: Callable[[Sample], Sample] | None,
    ) -> None:
        if not holdings.chips:
            raise DatasetError(root, f"no sample is in split {split!r}", "complete the copy, or choose another split")
        self.root, self.split, self.transforms = root, split, transforms
        self._chips, self._layers, self._labels = tuple(holdings.chips), dict(holdings.layers), holdings.labels
        self.modalities = tuple(holdings.layers)
        self.statistics, self.layout = dict(holdings.statistics), holdings.layout
        self.notices = list(holdings.notices)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._chips)

    def name(self, index: int) -> str:
        """Return a sample's name."""
        return self._chips[index].name

    def files(self, index: int) -> dict[str, Path]:
        """Return a sample's files: of each modality, and of ``mask``."""
        return dict(self._chips[index].files)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample.

        Raises
        ------
        IndexError
            If there is no such sample.
        DatasetError
            If a file is damaged or not as documented, the files' shapes differ, or a label is none of the classes.
        """
        chip = self._chips[index]
        sample: Sample = {}
        shapes: dict[str, tuple[int, int]] = {}
        for modality, layer in self._layers.items():
            values, valid, shapes[modality] = read_layer(chip.files[modality], layer, chip.window)
            sample[modality] = torch.from_numpy(values)
            sample[f"validity_{modality}"] = torch.from_numpy(valid)
        sample["mask"], shapes["labels"] = self._mask(chip)
        if len(set(shapes.values())) > 1:
            sizes = ", ".join(f"{key} {height} x {width}" for key, (height, width) in shapes.items())
            found = f"the images of {chip.name} differ in size: {sizes} (height x width)"
            raise DatasetError(self.root, found, "they must lie pixel on pixel: complete or correct the copy")
        seen = torch.stack([sample[f"validity_{modality}"] for modality in self.modalities]).any(dim=0)
        sample["mask"][~seen] = IGNORED
        return sample if self.transforms is None else self.transforms(sample)

    def _mask(self, chip: Chip) -> tuple[Tensor, tuple[int, int]]:
        path = chip.files["mask"]
        labels, labelled, shape = read_labels(path, self._labels, chip.window)
        mask = np.full(labels.shape, IGNORED, np.int64)
        if self.classes is not None:
            mask[labelled] = self.classes.index(labels[labelled], str(path))
            return torch.from_numpy(mask), shape
        wrong = labels[labelled & ((labels < 0) | (labels > IGNORED))]
        if wrong.size:
            found = f"label {int(wrong[0])} is none of 0 to {IGNORED}"
            raise DatasetError(path, found, "say what the values mean with a class list: classes=read_classes(...)")
        mask[labelled] = labels[labelled]
        return torch.from_numpy(mask), shape

    def check(self) -> None:
        """Read every sample, to find what is wrong with a copy before a long run does.

        Raises
        ------
        DatasetError
            Of the first sample that can't be used.
        """
        transforms, self.transforms = self.transforms, None
        try:
            for index in range(len(self)):
                self[index]
        finally:
            self.transforms = transforms

    def plot(self, sample: Mapping[str, Any], show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Draw a sample: its modalities, its labels, and a ``prediction`` [H, W] where it has one.

        Parameters
        ----------
        sample
            As the data set returns it.
        show_titles
            Whether each panel is named.
        suptitle
            Title of the whole.

        Returns
        -------
        matplotlib.figure.Figure
            To be shown or saved by the caller.
        """
        from gopt_geo.datasets.chipplot import draw_sample

        return draw_sample(sample, self.modalities, self.classes, show_titles=show_titles, suptitle=suptitle)

    def __str__(self) -> str:
        """Name the data set, its part and size."""
        return f"{type(self).__name__}({self.root}, split={self.split!r}, layout={self.layout!r}): {len(self)} samples"
