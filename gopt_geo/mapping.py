"""From a scene and a model to the files of one map: raster, confidence, probabilities, polygons, preview."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray

from gopt_geo.aoi import AoiMask
from gopt_geo.errors import OutputError
from gopt_geo.grid import Window, lattice
from gopt_geo.inference import LikelyRows, RunReport, TileProgress
from gopt_geo.openmap import OpenMap
from gopt_geo.outputs.landcover import LandCoverWriter
from gopt_geo.outputs.preview import preview as draw_preview
from gopt_geo.outputs.probabilities import ProbabilityType, ProbabilityWriter
from gopt_geo.outputs.staging import RASTER_ENDINGS, Staging
from gopt_geo.outputs.vectors import vectorize
from gopt_geo.packs import ClassInfo
from gopt_geo.scene import BLOCK, AlignedSource, Scene
from gopt_geo.scene.labelraster import open_label_raster

__all__ = [
    "NODATA",
    "Asked",
    "MappedRows",
    "Progress",
    "Rows",
    "Targets",
    "in_pixels",
    "map_classes",
    "map_confidence",
    "open_reference",
    "run_model",
    "write_map",
    "write_preview",
    "write_vectors",
]

NODATA = 255
_PREVIEW_EDGE = 900
_WRITE_AHEAD = 2  # bands of rows that may wait while files are written


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
    probabilities
        Staged GeoTIFF of all probabilities, or None.
    """

    rasters: tuple[Path, ...]
    vectors: tuple[Path, ...]
    confidence: Path | None
    preview: Path | None
    probabilities: Path | None = None

    @classmethod
    def stage(
        cls,
        staging: Staging,
        stack: ExitStack,
        outputs: Sequence[Path],
        *,
        confidence: Path | None,
        preview: Path | None,
        probabilities: Path | None,
    ) -> Targets:
        """Check and stage all products, before any work.

        Parameters
        ----------
        staging
            Of this run.
        stack
            Removes the scratch folder; close it before publishing.
        outputs, confidence, preview, probabilities
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
        shares = staging.path(probabilities, RASTER_ENDINGS) if probabilities is not None else None
        picture = staging.path(preview, (".png",)) if preview is not None else None
        if preview is not None and find_spec("matplotlib") is None:
            raise OutputError(preview, "matplotlib isn't installed", "pip install 'gopt-geo[report]', or leave it out")
        if not rasters or (vectors and percent is None):
            # Inside a staged folder: should this run be killed, the next one clears it away with the rest.
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=staged[0].parent)))
            rasters = rasters or [scratch / "landcover.tif"]
            percent = percent or scratch / "confidence.tif"
        return cls(tuple(rasters), tuple(vectors), percent, picture, shares)


def map_classes(rows: LikelyRows, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class values of rows, uint8 [h, w]; nodata where nothing was valid.

    Parameters
    ----------
    rows
        From `run_tiles`.
    values
        Pixel value of each class, uint8 [K].
    """
    if not rows.valid.any():
        return np.full(rows.valid.shape, NODATA, np.uint8)
    return np.where(rows.valid, values[rows.index], np.uint8(NODATA))


def map_confidence(rows: LikelyRows) -> NDArray[np.uint8]:
    """Confidence of rows in percent, uint8 [h, w]; nodata where nothing was valid."""
    if not rows.valid.any():
        return np.full(rows.valid.shape, NODATA, np.uint8)
    return np.where(rows.valid, np.rint(100 * rows.largest.clip(0, 1)).astype(np.uint8), np.uint8(NODATA))


@dataclass(frozen=True)
class MappedRows:
    """Finished pixels of a map.

    Attributes
    ----------
    window
        On the scene grid.
    classes
        Class values, uint8 [h, w], 255 without data.
    percent
        Confidence, likewise; None where nobody asked for it.
    probabilities
        Of all classes, float32 [K, h, w]; None where nobody asked for them.
    """

    window: Window
    classes: NDArray[np.uint8]
    percent: NDArray[np.uint8] | None
    probabilities: NDArray[np.float32] | None


class Asked(NamedTuple):
    """What of a map is asked for besides its classes."""

    confidence: bool
    probabilities: bool


Rows = Callable[["OpenMap", Callable[[MappedRows], None], int, Asked, Callable[[Progress], None] | None], RunReport]
"""Hands all rows of a map to a sink that holds so many bytes, with what is asked for, and tells progress.

`run_model` is the usual one.
"""


def run_model(
    opened: OpenMap,
    sink: Callable[[MappedRows], None],
    held: int,
    asked: Asked,
    progress: Callable[[Progress], None] | None,
    *,
    window: Window | None = None,
) -> RunReport:
    """Run the tiles of a map, or of a part of it, and hand over the rows as they are finished."""
    values = np.array([c.value for c in opened.classes], dtype=np.uint8)
    area = opened.window if window is None else window
    tick = None if progress is None else in_pixels(progress, area.height * area.width)

    def take(rows: LikelyRows, probabilities: NDArray[np.float32] | None) -> None:
        percent = map_confidence(rows) if asked.confidence else None
        sink(MappedRows(rows.window, map_classes(rows, values), percent, probabilities))

    opened = replace(opened, options=replace(opened.options, write_ahead=_WRITE_AHEAD))
    return opened.run_likely(take, probabilities=asked.probabilities, window=area, held=held, progress=tick)


def write_map(
    opened: OpenMap,
    targets: Targets,
    progress: Callable[[Progress], None] | None = None,
    *,
    tags: Mapping[str, str] | None = None,
    probability_type: ProbabilityType = "float32",
    rows: Rows = run_model,
) -> RunReport:
    """Make a map, and write land cover, confidence and probabilities in one pass.

    Parameters
    ----------
    opened
        What it is made with; of an area of interest its window alone is written, masked by it.
    targets
        Where to.
    progress
        Called after each tile.
    tags
        Of the files; else the map's own.
    probability_type
        How probabilities are stored.
    rows
        Where the pixels come from.
    """
    area = opened.window
    tags = opened.tags if tags is None else tags
    first, *copies = targets.rasters
    with ExitStack() as stack:
        writer = stack.enter_context(LandCoverWriter(first, opened.grid, opened.classes, tags, targets.confidence))
        shares = None
        if targets.probabilities is not None:
            names = [c.name for c in opened.classes]
            shares = stack.enter_context(
                ProbabilityWriter(targets.probabilities, opened.grid, names, tags, probability_type)
            )

        def sink(made: MappedRows) -> None:
            place = made.window.within(area)
            writer.write(place, made.classes, made.percent if targets.confidence is not None else None)
            if shares is not None:
                assert made.probabilities is not None
                shares.write(place, made.probabilities, made.classes != NODATA)

        buffers = (1 + (targets.confidence is not None)) * BLOCK * opened.scene.shape[1]
        held = buffers + (0 if shares is None else shares.memory)
        asked = Asked(targets.confidence is not None, shares is not None)
        report = rows(opened, sink, held, asked, progress)
        writer.finish()
        if shares is not None:
            shares.finish()
    for copy in copies:
        for file in first.parent.glob(f"{first.name}*"):
            shutil.copyfile(file, copy.with_name(copy.name + file.name.removeprefix(first.name)))
    return report


def in_pixels(progress: Callable[[Progress], None], pixels: int) -> Callable[[TileProgress], None]:
    """Return what tells progress in pixels where the tiler tells it in tiles."""
    return lambda state: progress(Progress("mapping", pixels * state.done // max(state.total, 1), pixels))


def _area(scene: Scene, aoi: AoiMask | None) -> Window:
    """Return the window of the scene grid that is mapped."""
    return Window(0, 0, *scene.shape) if aoi is None else aoi.window


def write_vectors(targets: Targets) -> tuple[int, ...]:
    """Write the polygon files from the finished raster; number of polygons of each."""
    return tuple(vectorize(targets.rasters[0], path, confidence=targets.confidence) for path in targets.vectors)


def open_reference(path: Path, scene: Scene) -> AlignedSource:
    """Open a label raster on the grid of a scene; the caller closes it.

    Raises
    ------
    GoptGeoError
        If it can't be read, has several bands, or shows other ground than the scene.
    """
    return open_label_raster(path, scene.grid, "the scene", mixed=True, cache_bytes=0)


def write_preview(
    scene: Scene,
    targets: Targets,
    classes: Sequence[ClassInfo],
    reference: AlignedSource | None,
    step: int | None = None,
    aoi: AoiMask | None = None,
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
        Labels on the scene's grid, or None.
    step
        Every how many pixels are shown; chosen from the size if None.
    aoi
        The area that the raster was cut to, or None.
    """
    if targets.preview is None:
        return
    area = _area(scene, aoi)
    height, width = area.shape
    step = step or -(-max(height, width) // _PREVIEW_EDGE)
    shape = -(-height // step), -(-width // step)
    optical = np.full((3, *shape), np.nan, np.float32) if "optical" in scene.modalities else None
    radar = np.full(shape, np.nan, np.float32) if "sar" in scene.modalities else None
    mapped = np.full(shape, NODATA, np.uint8)
    truth = np.full(shape, NODATA, np.uint8) if reference is not None else None
    with rasterio.open(targets.rasters[0]) as dataset:
        # Block by block: rows across a wide scene, or the whole of it, would not fit.
        for block in lattice(area, BLOCK):
            block_part = block.intersect(area)
            if block_part is None:
                continue
            read, window = scene.read(block_part), block_part.within(area)
            first = -window.row % step, -window.col % step
            thin = (..., slice(first[0], None, step), slice(first[1], None, step))
            there = (..., *_thinned(window, first, step))
            if optical is not None:
                optical[there] = _shown(read.values["optical"], read.valid["optical"])[thin][:3]
            if radar is not None:
                radar[there] = _shown(read.values["sar"], read.valid["sar"])[thin][0]
            place = ((window.row, window.row_stop), (window.col, window.col_stop))
            mapped[there] = dataset.read(1, window=place)[thin]
            if reference is not None and truth is not None:
                labels, labelled = reference.read(block_part)
                known = labelled & (labels[0] >= 0) & (labels[0] < NODATA)
                truth[there] = np.where(known, labels[0], NODATA)[thin].astype(np.uint8)
    scene.check_unchanged()
    draw_preview(targets.preview, optical, radar, mapped, truth, classes)


def _thinned(window: Window, first: tuple[int, int], step: int) -> tuple[slice, slice]:
    """Rows and columns of the picture that a window's pixels, from ``first`` in steps, fall on."""
    row, col = (window.row + first[0]) // step, (window.col + first[1]) // step
    return (
        slice(row, row + len(range(first[0], window.height, step))),
        slice(col, col + len(range(first[1], window.width, step))),
    )


def _shown(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Values with NaN where there is no data."""
    return np.where(valid, values, np.float32(np.nan))
