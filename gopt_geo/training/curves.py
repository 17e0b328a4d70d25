"""The figures of a run: curves of loss and scores, the confusion matrix, and example tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.assessment.reference import UNLABELLED, ReferenceArea
from gopt_geo.grid import Window
from gopt_geo.inference import BlendedRows, TileModel, TileOptions, run_tiles
from gopt_geo.outputs.drawing import drawing, new_figure, printable
from gopt_geo.packmeta import ClassInfo, ModalityInfo, PackMeta
from gopt_geo.training.checkpoints import unwritable

__all__ = ["best_windows", "draw_confusion", "draw_curves", "draw_examples", "picture_of"]

_EXAMPLES = 3
_SMOOTH = 50
_COLOURS = ("red", "green", "blue")


def draw_curves(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Draw loss, learning rate and validation over the steps; ``rows`` are those of metrics.csv."""
    with _figure(path, 8, 6) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        steps = np.array([row["step"] for row in rows])
        losses = np.array([row.get("loss", np.nan) for row in rows])
        upper.plot(steps, losses, color="#bbbbbb", linewidth=0.6, label="loss of a step")
        width = max(1, min(_SMOOTH, len(rows) // 10))
        if len(rows) > width > 1:
            mean = np.convolve(losses, np.ones(width) / width, "valid")
            upper.plot(steps[width - 1 :], mean, color="#1f77b4", label=f"mean of {width} steps")
        upper.set(ylabel="loss", ylim=(0, None))
        rate = upper.twinx()
        rate.plot(steps, [row.get("learning_rate", np.nan) for row in rows], color="#d62728", linewidth=0.8, alpha=0.6)
        rate.set_ylabel("learning rate", color="#d62728")
        upper.legend(loc="upper right", frameon=False)
        scored = [row for row in rows if "val_miou" in row]
        for name, label in (("val_miou", "mIoU"), ("val_oa", "overall accuracy"), ("val_kappa", "kappa")):
            lower.plot(
                [row["step"] for row in scored],
                [row.get(name, np.nan) for row in scored],
                marker="o",
                ms=3,
                label=label,
            )
        lower.set(xlabel="step", ylabel="validation", ylim=(0, 1))
        lower.legend(loc="best", frameon=True, framealpha=0.8, edgecolor="none")


def draw_confusion(path: Path, matrix: NDArray[np.int64], classes: Sequence[ClassInfo]) -> None:
    """Draw a confusion matrix as shares of each reference class.

    Parameters
    ----------
    path
        Of the picture.
    matrix
        int64 [K, K + 1]; the last column has pixels without a prediction, and is left out where there are none.
    classes
        K.
    """
    names = [printable(info.name)[:24] for info in classes]
    shown, columns = (matrix, [*names, "(none)"]) if matrix[:, -1].any() else (matrix[:, :-1], names)
    shares = shown / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = min(3.0 + 0.55 * len(names), 40.0)
    with _figure(path, size + 1, size) as figure:
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="map", ylabel="reference")
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                color = "white" if share > 0.6 else "black"
                axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=7, color=color)
        figure.colorbar(image, ax=axes, label="share of the reference class", shrink=0.8)


def draw_examples(
    path: Path, areas: Sequence[ReferenceArea], model: TileModel, meta: PackMeta, options: TileOptions
) -> None:
    """Draw tiles of the areas: what each modality shows, the labels, and the model's map.

    Parameters
    ----------
    path
        Of the picture.
    areas
        Of which those tiles are shown that have the most labels.
    model, meta, options
        As for prediction.
    """
    windows = best_windows(areas, options.tile_size)
    columns = [*meta.modalities, "labels", "map"]
    with _figure(path, 2.6 * len(columns) + 1.6, 2.6 * max(1, len(windows)) + 0.4) as figure:
        grid = figure.subplots(max(1, len(windows)), len(columns), squeeze=False)
        for axes, title in zip(grid[0], columns, strict=True):
            axes.set_title(title, fontsize=9)
        for line in grid:
            for axes in line:
                axes.set_axis_off()
        for line, (area, window) in zip(grid, windows, strict=False):
            block = area.source.read(window)
            pictures = [
                picture_of(block.values[name], block.valid[name], info)
                if name in block.values
                else np.zeros((*window.shape, 3))
                for name, info in meta.modalities.items()
            ]
            found = _predicted(area, window, model, options)
            pictures += [_painted(area.labels(window), meta.classes), _painted(found, meta.classes)]
            for axes, picture in zip(line, pictures, strict=True):
                axes.imshow(picture, interpolation="nearest")
        from matplotlib.patches import Patch

        handles = [Patch(color=info.color, label=printable(info.name)[:24]) for info in meta.classes]
        figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8)


def best_windows(areas: Sequence[ReferenceArea], tile: int) -> list[tuple[ReferenceArea, Window]]:
    """Return the windows of a tile's size with the most labelled pixels, a few, in order of place."""
    counted = []
    for number, area in enumerate(areas):
        outer = area.window
        for row in range(outer.row, outer.row_stop, tile):
            for col in range(outer.col, outer.col_stop, tile):
                window = Window(row, col, tile, tile).intersect(outer)
                if window is not None:
                    counted.append((int((area.labels(window) != UNLABELLED).sum()), number, window))
    counted.sort(key=lambda entry: -entry[0])
    best = sorted(counted[:_EXAMPLES], key=lambda entry: (entry[1], entry[2].row, entry[2].col))
    return [(areas[number], window) for count, number, window in best if count]


def picture_of(values: NDArray[np.float32], valid: NDArray[np.bool_], info: ModalityInfo) -> NDArray[np.float64]:
    """Return an RGB picture [h, w, 3], 0 to 1: colours by their names or the first bands, stretched; black if invalid.

    Parameters
    ----------
    values
        float32 [bands, h, w].
    valid
        bool [h, w].
    info
        Names the bands.
    """
    colours = [info.bands.index(name) for name in _COLOURS if name in info.bands]
    if len(colours) < 3:
        colours = [0, 1, 2] if len(info.bands) >= 3 else [0, 0, 0]
    picture = np.zeros((*valid.shape, 3))
    if valid.any():
        for channel, band in enumerate(colours):
            low, high = np.percentile(values[band][valid], (2, 98))
            picture[..., channel] = np.clip((values[band] - low) / max(high - low, 1e-9), 0, 1) * valid
    return picture


def _painted(indexes: NDArray[np.uint8], classes: Sequence[ClassInfo]) -> NDArray[np.float64]:
    """Return class indexes [h, w] in their colours; white where there is none."""
    colours = np.ones((256, 3))
    for number, info in enumerate(classes):
        colours[number] = np.frombuffer(bytes.fromhex(info.color[1:]), np.uint8) / 255
    return np.asarray(colours[indexes], np.float64)


def _predicted(area: ReferenceArea, window: Window, model: TileModel, options: TileOptions) -> NDArray[np.uint8]:
    """Return the model's classes in a window, uint8 [h, w]; 255 where there is no data."""
    from gopt_geo.assessment.modelscores import area_options

    found = np.full(window.shape, UNLABELLED, np.uint8)

    def sink(rows: BlendedRows) -> None:
        part = rows.probabilities.argmax(axis=0).astype(np.uint8)
        part[~rows.valid] = UNLABELLED
        found[rows.window.slices_in(window)] = part

    run_tiles(area.source, model, area_options(area, options), window=window, sink=sink)
    return found


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Any]:
    """Yield an empty figure; what is drawn on it appears at the path whole."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with drawing(path, "the extra 'report'"):
            figure = new_figure(width, height)
            figure.set_layout_engine("constrained")
            yield figure
            figure.savefig(temporary, format="png")
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
