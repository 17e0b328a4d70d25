"""What the sections share: the setting, models and inputs, timing in turns, and tables with budgets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from costs.clocks import Clocks, in_turns
from gopt_geo.models import Backbone, GoptConfig
from gopt_geo.models.backbone import build_vit

__all__ = ["CLASSES", "Images", "Section", "Setting", "compare", "make_backbone", "make_images", "take_turns"]

CLASSES = 7
VIT_B = "vit_base_patch16_224"
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}
BUSY = 1.05  # wall over processor time of one thread from which on others are taken to have used the machine

Images = dict[str, Tensor]
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What is measured, and on what.

    Attributes
    ----------
    device, threads, repeats
        As on the command line.
    quick
        A tiny backbone and small images: whether everything runs, in seconds. Budgets are not judged.
    """

    device: torch.device
    threads: int = 1
    repeats: int = 5
    quick: bool = False

    @property
    def model(self) -> str:
        """Name of the backbone, for titles."""
        return "a tiny transformer" if self.quick else "ViT-B/16"

    @property
    def inputs(self) -> str:
        """Model and inputs of a training step, for titles."""
        return f"{self.model}, {self.size} x {self.size}, batch {self.batch}"

    @property
    def size(self) -> int:
        """Edge of the images in pixels."""
        return 32 if self.quick else 256

    @property
    def batch(self) -> int:
        """Images a step."""
        return 2 if self.quick else 4


@dataclass
class Section:
    """A table of figures, some of which have a budget.

    Attributes
    ----------
    title
        Above the table.
    judged
        Whether budgets count; else they are not shown either.
    rows
        Name to figures, in order.
    missed
        A line for each budget that was missed.
    notes
        Below the table.
    """

    title: str
    judged: bool = True
    rows: dict[str, Row] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, row: Row, key: str = "", budget: float | None = None) -> None:
        """Note a row; its figure ``key`` must not be above ``budget``."""
        if budget is not None and self.judged:
            kept = bool(row[key] <= budget)
            row = {**row, "budget": f"{key} <= {budget:g}", "kept": kept}
            if not kept:
                self.missed.append(f"{self.title}: {name}: {key} is {row[key]:.4g}, its budget is {budget:g}")
        self.rows[name] = row

    def show(self, console: Console) -> None:
        """Print the table."""
        columns = list(dict.fromkeys(key for row in self.rows.values() for key in row))
        table = Table("", *columns, title=self.title, title_justify="left")
        for name, row in self.rows.items():
            table.add_row(name, *(_text(row.get(key, "")) for key in columns))
        console.print(table)
        for note in self.notes:
            console.print(note)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data, figures to four digits."""
        rows = {
            n: {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in r.items()} for n, r in self.rows.items()
        }
        return {"title": self.title, "rows": rows, **({"notes": self.notes} if self.notes else {})}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def make_backbone(setting: Setting, name: str = VIT_B) -> Backbone:
    """Build a backbone with random weights: what it costs depends on shapes alone."""
    if setting.quick:
        return Backbone(build_vit(TINY), "random:tiny").to(setting.device)
    vit = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    return Backbone(vit, f"random:{name}").to(setting.device)


def make_images(setting: Setting, batch: int | None = None) -> tuple[Images, Tensor]:
    """Normalised images of both modalities, and labels."""
    batch = setting.batch if batch is None else batch
    generator = torch.Generator().manual_seed(0)
    shape = (batch, setting.size, setting.size)
    images = {n: torch.randn(batch, 3, *shape[1:], generator=generator) for n in ("optical", "sar")}
    labels = torch.randint(0, CLASSES, shape, generator=generator)
    return {n: v.to(setting.device) for n, v in images.items()}, labels.to(setting.device)


def default_config(backbone: Backbone, **changes: Any) -> GoptConfig:
    """Build the default configuration, but for the changes."""
    return GoptConfig.for_width(backbone.embed_dim, **{"classes": CLASSES, **changes})


def take_turns(actions: Mapping[str, Callable[[], object]], setting: Setting, repeats: int) -> dict[str, Clocks]:
    """Time actions in turns; the first turns warm up and don't count."""
    in_turns(actions, 3 if setting.device.type == "cuda" else 1, setting.device)
    return in_turns(actions, repeats, setting.device)


def compare(times: Mapping[str, Clocks], references: Mapping[str, str], setting: Setting) -> dict[str, Row]:
    """Medians, and ratios of medians and of minima to each one's reference.

    ``ratio`` is of processor time on the CPU, which other processes disturb least, and of wall time on a GPU.
    """
    rows: dict[str, Row] = {}
    for name, own in times.items():
        base = times[references[name]]
        wall, processor = _ratios(own.wall, base.wall), _ratios(own.processor, base.processor)
        main, other = (wall, processor) if setting.device.type == "cuda" else (processor, wall)
        rows[name] = {
            "wall s": statistics.median(own.wall),
            "processor s": statistics.median(own.processor),
            "ratio": main[0],
            "ratio of minima": main[1],
        }
        if setting.device.type != "cuda":
            rows[name] |= {"wall ratio": other[0], "wall ratio of minima": other[1]}
    return rows


def _ratios(own: list[float], base: list[float]) -> tuple[float, float]:
    return statistics.median(own) / statistics.median(base), min(own) / min(base)


def tell_disturbance(section: Section, setting: Setting) -> None:
    """Note below a table of times which clock counts, and whether the machine was busy with other things."""
    if setting.device.type == "cuda":
        section.notes.append("Ratios are of wall time, after the GPU has finished.")
        return
    note = "Ratios are of processor time."
    if setting.threads == 1 and any(row["wall s"] > BUSY * row["processor s"] for row in section.rows.values()):
        note += " Wall time is longer: the machine was busy with other things, and wall ratios are rough."
    section.notes.append(note)
