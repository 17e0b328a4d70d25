"""From a scene and a model to the files of one map: raster, confidence, polygons, preview."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from gopt_geo.errors import OutputError
from gopt_geo.grid import Window
from gopt_geo.inference import BlendedRows, RunReport, TileModel, TileOptions, TileProgress, run_tiles
from gopt_geo.outputs.landcover import LandCoverWriter
from gopt_geo.outputs.preview import preview as draw_preview
from gopt_geo.outputs.staging import RASTER_ENDINGS, Staging
from gopt_geo.outputs.vectors import vectorize
from gopt_geo.packs import ClassInfo
from gopt_geo.scene import AlignedSource, RasterSource, Scene

__all__ = ["NODATA", "Progress", "Targets", "map_rows", "write_map", "write_preview", "write_vectors"]

NODATA = 255
_PREVIEW_EDGE = 900
_PREVIEW_ROWS = 64  # rows of the picture made at a time: a whole scene at full size would not fit


@dataclass(frozen=True)
class Progress:
    """Where long work stands: ``done`` of ``total`` pixels of the scene grid in ``stage``."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Targets:
    """Where the products of one run are written before they are published.

    Attributes
    ----------
    rasters
        Staged land-cover GeoTIFFs; the first is written, the others are copies of it. At least one: in the scratch
        folder where none was asked for.
    vectors
        Staged polygon files.
    confidence
        Staged confidence GeoTIFF; in the scratch folder where polygons alone need it; None where nothing does.
    preview
        Staged picture, or None.
    """

    rasters: tuple[Path, ...]
    vectors: tuple[Path, ...]
    confidence: Path | None
    preview: Path | None

    @classmethod
    def stage(
        cls, staging: Staging, stack: ExitStack, outputs: Sequence[Path], confidence: Path | None, preview: Path | None
    ) -> Targets:
        """Check and stage all products, before any work.

        Parameters
        ----------
        staging
            Of this run.
        stack
            Removes the scratch folder; close it before publishing.
        outputs, confidence, preview
            Final paths.

        Raises
        ------
        OutputError
            See `Staging.path`; or if there is nothing to write.
        """
        if not outputs:
            raise OutputError("-o", "no output named", "name at least one, such as -o landcover.tif")
        staged = [staging.path(final) for final in outputs]
        rasters = [path for path in staged if path.suffix.lower() in RASTER_ENDINGS]
        vectors = [path for path in staged if path not in rasters]
        percent = staging.path(confidence, RASTER_ENDINGS) if confidence is not None else None
        picture = staging.path(preview, (".png",)) if preview is not None else None
        if not rasters or (vectors and percent is None):
            # Inside a staged folder: should this run be killed, the next one clears it away with the rest.
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=staged[0].parent)))
            rasters = rasters or [scratch / "landcover.tif"]
            percent = percent or scratch / "confidence.tif"
        return cls(tuple(rasters), tuple(vectors), percent, picture)


def map_rows(rows: BlendedRows, values: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Class values and confidence in percent of blended rows, both uint8 [h, w]; nodata where nothing was valid.

    Parameters
    ----------
    rows
        From `run_tiles`.
    values
        Pixel value of each class, uint8 [K].
    """
    classes = values[rows.probabilities.argmax(axis=0)]
    confidence = np.rint(100 * rows.probabilities.max(axis=0).clip(0, 1)).astype(np.uint8)
    nodata = np.uint8(NODATA)
    return np.where(rows.valid, classes, nodata), np.where(rows.valid, confidence, nodata)


def write_map(
    scene: Scene,
    model: TileModel,
    classes: Sequence[ClassInfo],
    options: TileOptions,
    targets: Targets,
    tags: dict[str, str],
    progress: Callable[[Progress], None] | None,
) -> RunReport:
    """Run the tiles of a scene and write land cover and confidence."""
    values = np.array([c.value for c in classes], dtype=np.uint8)
    height, width = scene.shape

    def tick(state: TileProgress) -> None:
        if progress is not None:
            progress(Progress("mapping", height * width * state.done // max(state.total, 1), height * width))

    first, *copies = targets.rasters
    with LandCoverWriter(first, scene.grid, classes, tags, targets.confidence) as writer:

        def sink(rows: BlendedRows) -> None:
            mapped, percent = map_rows(rows, values)
            writer.write(rows.window, mapped, percent if targets.confidence is not None else None)

        report = run_tiles(scene, model, options, sink=sink, progress=tick)
        writer.finish()
    for copy in copies:
        for file in first.parent.glob(f"{first.name}*"):
            shutil.copyfile(file, copy.with_name(copy.name + file.name.removeprefix(first.name)))
    return report


def write_vectors(targets: Targets) -> tuple[int, ...]:
    """Write the polygon files from the finished raster; number of polygons of each."""
    return tuple(vectorize(targets.rasters[0], path, confidence=targets.confidence) for path in targets.vectors)


def write_preview(
    scene: Scene, targets: Targets, classes: Sequence[ClassInfo], reference: Path | None, step: int | None = None
) -> None:
    """Draw optical, SAR, map and reference side by side, thinned to at most 900 pixels a side.

    Parameters
    ----------
    scene
        Its first three optical bands are shown as red, green and blue.
    targets
        With a finished raster.
    classes
        Legend.
    reference
        Label raster on any grid, or None.
    step
        Every how many pixels are shown; chosen from the size if None.
    """
    if targets.preview is None:
        return
    height, width = scene.shape
    step = step or -(-max(height, width) // _PREVIEW_EDGE)
    labels = None
    if reference is not None:
        labels = AlignedSource(RasterSource(reference), scene.grid, resampling="nearest")
    optical, radar, truth = [], [], []
    for row in range(0, height, _PREVIEW_ROWS * step):
        window = Window(row, 0, min(_PREVIEW_ROWS * step, height - row), width)
        block = scene.read(window)
        thin = (..., slice(None, None, step), slice(None, None, step))
        images = {name: np.where(block.valid[name], values, np.nan)[thin] for name, values in block.values.items()}
        optical.append(images["optical"])
        radar.append(images["sar"] if "sar" in images else np.full_like(images["optical"][:1], np.nan))
        if labels is not None:
            values, valid = labels.read(window)
            truth.append(np.where(valid[thin], values[0][thin], NODATA).astype(np.uint8))
    with rasterio.open(targets.rasters[0]) as dataset:
        # Strided reads would average or pick by overview; the picture shows the map's own pixels.
        rows = [
            dataset.read(1, window=((r, min(r + 1, height)), (0, width)))[:, ::step] for r in range(0, height, step)
        ]
    draw_preview(
        targets.preview,
        np.concatenate(optical, axis=1),
        np.concatenate(radar, axis=1)[0],
        np.concatenate(rows),
        np.concatenate(truth) if truth else None,
        classes,
    )
