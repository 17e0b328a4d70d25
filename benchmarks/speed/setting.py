"""What is measured, and on what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from speed.inputs import ModelFiles, Pair, make_model_files, real_pair, simulate_pair

__all__ = ["Setting"]


@dataclass
class Setting:
    """What is measured.

    Attributes
    ----------
    folder
        For inputs and maps.
    device, threads, turns
        As on the command line.
    size
        Edge of the scenes in pixels.
    model
        "vit-s", "vit-b" or "vit-t".
    tile_size, overlap
        In pixels.
    precision, compiled
        Of the model.
    quick
        A tiny backbone and small scenes: whether everything runs. Budgets are not judged.
    """

    folder: Path
    device: torch.device
    threads: int = 1
    turns: int = 2
    size: int = 4096
    model: str = "vit-s"
    tile_size: int = 512
    overlap: int = 64
    precision: str = "fp32"
    compiled: bool = False
    readers: int = 1
    quick: bool = False
    files: ModelFiles | None = None

    def __post_init__(self) -> None:
        if self.quick:
            self.size, self.model, self.tile_size, self.overlap, self.turns = 300, "vit-t", 128, 16, 1
        self.files = make_model_files(self.folder, self.model, self.tile_size, self.overlap)

    @property
    def said(self) -> dict[str, Any]:
        """What `predict` is told of the model and how it runs."""
        assert self.files is not None
        return {
            "pack": self.files.pack,
            "backbone_weights": self.files.weights,
            "device": str(self.device),
            "precision": self.precision,
            "compile": self.compiled,
            "threads": self.threads if self.device.type == "cpu" else None,
            "readers": self.readers,
        }

    @property
    def title(self) -> str:
        """Model and tiles, for titles."""
        how = f", {self.precision}" + (", compiled" if self.compiled else "")
        return f"{self.model}, tiles of {self.tile_size}, overlap {self.overlap}, {self.device}{how}"

    def scene(self, height: int | None = None, width: int | None = None, *, data_rows: int | None = None) -> Pair:
        """Return a simulated pair; the usual size where none is named."""
        return simulate_pair(self.folder, height or self.size, width or self.size, data_rows=data_rows)

    def real(self) -> Pair:
        """Return a real pair in two CRSs, or a simulated one where there is none."""
        pair = None if self.quick else real_pair(self.folder)
        return pair if pair is not None else self.scene(300, 400)
