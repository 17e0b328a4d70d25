"""Tiles, overlaps, blending windows and averaging: seams and accuracy against cost, with the embedded demo pack.

    OMP_NUM_THREADS=1 python benchmarks/tiling.py --json benchmarks/results/tiling.json --figure docs/images/tiling.png

Scenes are simulated, 768 x 768 pixels, and only the 512 x 512 in their middle count: no scene border is in sight. What
a map is compared with is the mean of probabilities over four shifted tile origins, tiles of the pack's size, overlap by
half. The difference is the total variation (half of the sum of absolute differences over the classes), near tile
borders (within 4 pixels of one) and in the interior (10 pixels away at least); the seam is the former less the latter.
Cost is processor time of reading, model and blending, per megapixel of the scene.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from gopt_geo.assessment.metrics import Scores
from gopt_geo.inference import BlendedRows, BlendKind, TileModel, TileOptions, run_tiles
from gopt_geo.inference.augmented import AugmentedModel, Symmetry
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.packs import Pack, demo_pack_path, load_model, read_pack
from gopt_geo.scene.arrays import ArrayScene
from gopt_geo.simulate import CLASS_NAMES, SceneSpec, SimulatedScene, simulate_scene
from gopt_geo.training.demo import FIRST_TEST_SEED

EDGE, MARGIN = 768, 128
CORE = slice(MARGIN, EDGE - MARGIN)
NEAR, FAR = 4, 10
SIZES = (64, 128, 256)
OVERLAPS = (0.0, 0.125, 0.25, 0.5)
BLENDS: tuple[BlendKind, ...] = ("hann", "gaussian", "linear", "none")
CLASSES = len(CLASS_NAMES)


@dataclass(frozen=True)
class Setting:
    """One way to cut, blend and average."""

    tile: int
    overlap: float
    blend: BlendKind = "hann"
    augment: Symmetry = "none"
    scales: tuple[float, ...] = (1.0,)

    @property
    def options(self) -> TileOptions:
        """Tiles; batches of as many pixels, whatever the size."""
        return TileOptions(self.tile, round(self.overlap * self.tile), max(1, (256 // self.tile) ** 2), self.blend)

    @property
    def averaged(self) -> bool:
        """Whether a tile is predicted more than once."""
        return self.augment != "none" or self.scales != (1.0,)

    @property
    def name(self) -> str:
        """What is averaged, in words."""
        sizes = ", ".join(f"{s:g}" for s in self.scales)
        return f"{self.augment}; sizes {sizes}" if self.scales != (1.0,) else self.augment


AVERAGED = (
    ("flip", (1.0,)),
    ("dihedral", (1.0,)),
    ("none", (0.75, 1.0, 1.25)),
    ("dihedral", (0.75, 1.0, 1.25)),
)


def settings(tile: int) -> list[Setting]:
    """All that is compared; what is averaged, at the pack's own tile size."""
    plain = [
        Setting(size, overlap, blend)
        for size in SIZES
        for overlap in OVERLAPS
        for blend in (BLENDS if overlap else BLENDS[:1])  # without overlap there is nothing to blend
    ]
    return plain + [Setting(tile, 0.25, "hann", symmetry, scales) for symmetry, scales in AVERAGED]  # type: ignore[arg-type]


@dataclass
class Tally:
    """What a setting adds up to over the scenes."""

    matrix: NDArray[np.int64] = field(default_factory=lambda: np.zeros((CLASSES, CLASSES), np.int64))
    near: float = 0.0
    near_pixels: int = 0
    far: float = 0.0
    far_pixels: int = 0
    seconds: float = 0.0
    pixels: int = 0  # of whole scenes

    def figures(self) -> dict[str, float | None]:
        """Return cost, differences to the reference, and accuracy."""
        scores = Scores.from_matrix(self.matrix)
        far = self.far / self.far_pixels if self.far_pixels else None
        return {
            "seconds_per_megapixel": 1e6 * self.seconds / self.pixels,
            "near_borders": self.near / self.near_pixels,
            "interior": far,
            "excess": None if far is None else self.near / self.near_pixels - far,
            "miou": float(scores.mean_iou),
            "oa": float(scores.overall_accuracy),
        }


class Remembered:
    """A model that keeps what it says, for runs that only blend it otherwise."""

    def __init__(self, model: TileModel) -> None:
        self.num_classes, self.modalities = model.num_classes, model.modalities
        self._model, self._kept, self._next = model, [], None  # type: ignore[var-annotated]

    def again(self) -> None:
        """Say the same once more, from the first batch on."""
        self._next = iter(self._kept)

    def __call__(self, values: dict[str, Tensor], valid: dict[str, Tensor], /) -> Tensor:
        """Probabilities of the model."""
        if self._next is not None:
            return next(self._next)
        self._kept.append(self._model(values, valid))
        return self._kept[-1]


def source_of(scene: SimulatedScene, shift: tuple[int, int] = (0, 0)) -> ArrayScene:
    cut = (..., slice(shift[0], None), slice(shift[1], None))
    sar = (10 * np.log10(scene.sar[:1])).astype(np.float32)
    return ArrayScene({"optical": np.ascontiguousarray(scene.optical[:3][cut]), "sar": np.ascontiguousarray(sar[cut])})


def mapped(source: ArrayScene, model: TileModel, options: TileOptions) -> tuple[NDArray[np.float32], float]:
    """Return the probabilities of a scene, and the processor time that they took."""
    found = np.empty((CLASSES, *source.shape), np.float32)

    def sink(rows: BlendedRows) -> None:
        w = rows.window
        found[:, w.row : w.row_stop, w.col : w.col_stop] = rows.probabilities

    begin = time.process_time()
    run_tiles(source, model, options, sink=sink)
    return found, time.process_time() - begin


def reference(scene: SimulatedScene, model: PackModel, tile: int) -> NDArray[np.float32]:
    """Return the mean over four tile origins, [K, 512, 512]."""
    total = np.zeros((CLASSES, EDGE - 2 * MARGIN, EDGE - 2 * MARGIN), np.float64)
    step = tile // 4
    for shift in ((0, 0), (0, step), (step, 0), (step, step)):
        found, _ = mapped(source_of(scene, shift), model, Setting(tile, 0.5).options)
        rows, cols = (slice(MARGIN - s, EDGE - MARGIN - s) for s in shift)
        total += found[:, rows, cols]
    return (total / 4).astype(np.float32)


def border_distance(setting: Setting) -> NDArray[np.float64]:
    """Pixels from each pixel of the middle to the nearest border of a tile, [512, 512]."""
    size, stride = setting.tile, setting.tile - setting.options.overlap
    lines = {start + end for start in range(0, EDGE, stride) for end in (0, size)}
    centres = np.arange(EDGE)[CORE] + 0.5
    away = np.abs(centres[:, None] - np.array(sorted(lines))).min(axis=1)
    return np.minimum(away[:, None], away[None])


def add(
    tally: Tally, setting: Setting, found: NDArray[np.float32], wanted: NDArray[np.float32], truth: NDArray[Any]
) -> None:
    inner = found[:, CORE, CORE]
    error = 0.5 * np.abs(inner - wanted).sum(axis=0)
    away = border_distance(setting)
    near, far = away < NEAR, away >= FAR
    tally.near, tally.near_pixels = tally.near + float(error[near].sum()), tally.near_pixels + int(near.sum())
    tally.far, tally.far_pixels = tally.far + float(error[far].sum()), tally.far_pixels + int(far.sum())
    np.add.at(tally.matrix, (truth.ravel(), inner.argmax(axis=0).ravel()), 1)


def measure(pack: Pack, seeds: Iterable[int], chosen: Sequence[Setting]) -> dict[Setting, Tally]:
    """Run all settings on all scenes."""
    models = {tile: PackModel(load_model(pack), pack.meta, tile) for tile in {s.tile for s in chosen}}
    own = pack.meta.tile_size
    models.setdefault(own, PackModel(load_model(pack), pack.meta, own))
    tallies = {setting: Tally() for setting in chosen}
    for seed in seeds:
        scene = simulate_scene(SceneSpec(seed, height=EDGE, width=EDGE))
        truth, source = scene.labels[CORE, CORE], source_of(scene)
        wanted = reference(scene, models[own], own)
        remembered: dict[tuple[int, float], tuple[Remembered, float]] = {}
        for setting, tally in tallies.items():
            plain, key = models[setting.tile], (setting.tile, setting.overlap)
            if setting.averaged:
                patch = plain.model.backbone.patch_size
                averaged = AugmentedModel(plain, patch, setting.scales, setting.augment)
                found, seconds = mapped(source, averaged, setting.options)
            elif key in remembered:
                model, seconds = remembered[key]
                model.again()
                found, _ = mapped(source, model, setting.options)
            else:
                model = Remembered(plain)
                found, seconds = mapped(source, model, setting.options)
                remembered[key] = model, seconds
            tally.seconds, tally.pixels = tally.seconds + seconds, tally.pixels + EDGE * EDGE
            add(tally, setting, found, wanted, truth)
        print(f"scene {seed} done", flush=True)
    return tallies


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("tile", "overlap", "window", "averaged", "s/MP", "near borders", "interior", "mIoU")
    for row in rows:
        inside = "-" if row["interior"] is None else f"{row['interior']:.4f}"
        table.add_row(
            str(row["tile"]),
            f"{row['overlap']:g}",
            row["blend"],
            row["averaged"],
            f"{row['seconds_per_megapixel']:.2f}",
            f"{row['near_borders']:.4f}",
            inside,
            f"{row['miou']:.4f}",
        )
    Console(width=110).print(table)


PANELS = (("excess", "seam: difference near tile borders less interior"), ("miou", "mIoU"))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw seams and accuracy against cost."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", dpi=90)
    marks = {"hann": "o", "gaussian": "^", "linear": "s", "none": "x"}
    for panel, (what, title) in zip(panels, PANELS, strict=True):
        for colour, size in zip(("#c1440e", "#1f6f8b", "#3f7d20"), SIZES, strict=True):
            own = [row for row in rows if row["tile"] == size and row["averaged"] == "none"]
            line = [row for row in own if row["blend"] == "hann"]
            places = [(row["seconds_per_megapixel"], row[what]) for row in line]
            panel.plot(*zip(*places, strict=True), color=colour, lw=1, label=f"tile {size}")
            for row in own:
                panel.plot(row["seconds_per_megapixel"], row[what], marks[row["blend"]], color=colour, ms=5, alpha=0.8)
            for row, place in zip(line, places, strict=True):
                panel.annotate(
                    f"{row['overlap']:g}", place, (-4, 3), textcoords="offset points", ha="right", fontsize=6
                )
        for row in rows:
            # Averaged over sizes, a map differs from the reference everywhere, and the seam can't be told.
            if row["averaged"] != "none" and (what == "miou" or "sizes" not in row["averaged"]):
                place = row["seconds_per_megapixel"], row[what]
                panel.plot(*place, "*", color="black", ms=8)
                text = row["averaged"].replace("none; ", "").replace("; ", ",\n")
                panel.annotate(text, place, (0, -7), textcoords="offset points", ha="center", va="top", fontsize=7)
        panel.set(xscale="log", xlabel="processor time, s per megapixel", title=title, xticks=(2, 5, 10, 20, 50, 100))
        panel.minorticks_off()
        panel.xaxis.set_major_formatter("{x:g}")
        panel.grid(alpha=0.3)
        panel.margins(x=0.15, y=0.15)
    for kind, mark in marks.items():
        panels[0].plot([], [], mark, color="grey", ms=5, label=kind)
    panels[0].plot([], [], "*", color="black", ms=8, label="averaged (tile 128)")
    panels[0].legend(fontsize=7, ncols=2)
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write JSON and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--only", type=int, help="this tile size alone, nothing averaged")
    parser.add_argument("--rows", type=Path, help="a JSON file of an earlier run, to be shown and drawn again")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args(arguments)
    document = measured(given.scenes, given.only) if given.rows is None else json.loads(given.rows.read_text("utf-8"))
    show(document["rows"])
    if given.json is not None:
        given.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if given.figure is not None:
        draw(document["rows"], given.figure)


def measured(scenes: int, only: int | None) -> dict[str, Any]:
    """Measure all settings, or those of one tile size."""
    pack = read_pack(demo_pack_path())
    chosen = settings(pack.meta.tile_size)
    if only is not None:
        chosen = [s for s in chosen if s.tile == only and not s.averaged]
    seeds = range(FIRST_TEST_SEED, FIRST_TEST_SEED + scenes)
    rows = [
        asdict(setting) | {"averaged": setting.name} | tally.figures()
        for setting, tally in measure(pack, seeds, chosen).items()
    ]
    return {
        "seeds": [seeds[0], seeds[-1]],
        "threads": torch.get_num_threads(),
        "pack": pack.meta.title,
        "tile_size": pack.meta.tile_size,
        "overlap": pack.meta.overlap,
        "rows": rows,
    }


if __name__ == "__main__":
    main()
