"""The shift between optical and SAR as a job of its own: a report, a picture, and the SAR raster moved to its place."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from gopt_geo.description import crs_name
from gopt_geo.errors import GoptGeoError, GridError, ShiftError, SourceError
from gopt_geo.grid import Window, lattice
from gopt_geo.outputs.moved import write_moved
from gopt_geo.outputs.shift_picture import draw_shift
from gopt_geo.outputs.staging import RASTER_ENDINGS, Staging
from gopt_geo.paths import StrPath, optional_path
from gopt_geo.scene import BLOCK, SourceSpec, open_scene
from gopt_geo.scene.bandfiles import Source, band_files, source_name
from gopt_geo.scene.moving import LITTLE, compose, move_grid, move_notice
from gopt_geo.scene.shift import PairShift, ShiftEstimate, estimate_pair
from gopt_geo.scene.shift.placing import POINTS, describe_shift
from gopt_geo.sources import SceneInputs, SceneOptions, SourceOptions, split_bands

__all__ = ["CoregisterReport", "coregister", "describe_shift"]

SEARCH = 12
_PICTURE_EDGE = 1000  # pixels; more don't show
_LEAST_POINTS = 4
_SEARCHES = 2, 100  # pixels; what lies further off is another place, or another error than a residual shift


@dataclass(frozen=True)
class CoregisterReport:
    """The shift between two rasters.

    Attributes
    ----------
    pair
        The estimate in optical pixels, and the rasters' grids.
    moved
        How far SAR was moved in units of its CRS, along x and y; None where nothing was written.
    outputs
        Paths of the results.
    notices
        What the user should know.
    """

    pair: PairShift
    moved: tuple[float, float] | None
    outputs: tuple[Path, ...]
    notices: tuple[str, ...]

    @property
    def estimate(self) -> ShiftEstimate:
        """The estimate, in optical pixels."""
        return self.pair.estimate

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain data; what isn't known is None."""
        found, grid = self.estimate, self.pair.grid
        placed = grid.crs is not None
        return {
            "reliable": found.reliable,
            "dx": _number(found.dx),
            "dy": _number(found.dy),
            "spread": _number(found.spread),
            "points": len(found.points),
            "trusted_points": len(found.trusted),
            "unit": "optical pixels, right and down; how far SAR content lies from where it belongs",
            "pixel_size_m": _number(self.pair.pixel_size),
            "confidence": _number(found.fit),
            "parts_differ_by": _number(found.apart),
            "reason": found.reason or None,
            "moved": None if self.moved is None else list(self.moved),
            "optical_crs": crs_name(grid),
            "optical_transform": list(grid.affine[:6]) if placed else None,
            "vectors": [
                {
                    **{"x": point.x, "y": point.y, "dx": _number(point.dx), "dy": _number(point.dy)},
                    **{"confidence": _number(point.confidence), "trusted": point in found.trusted},
                }
                for point in found.points
            ],
        }


def coregister(
    optical: Source,
    sar: Source,
    output: StrPath | None = None,
    *,
    json_file: StrPath | None = None,
    picture: StrPath | None = None,
    points: int = POINTS,
    search: int = SEARCH,
    overwrite: bool = False,
    **said: Unpack[SourceOptions],
) -> CoregisterReport:
    """Estimate how far SAR lies from where it belongs on an optical raster, and move it there if asked to.

    Parameters
    ----------
    optical, sar
        Sources, as for `gopt_geo.predict` (docs/sources.md); CRS, pixel size and extent may differ.
    output
        Write the SAR raster's pixels, untouched, under the corrected geotransform here (.tif).
    json_file, picture
        Also write all figures (.json); also draw the shifts as arrows over the optical raster (.png).
    points
        How many points to look at, at most: 4 or more.
    search
        Largest shift that is looked for along each axis, in pixels of the coarser raster: 2 to 100.
    overwrite
        Replace results that exist.
    said
        Of the sources: see `gopt_geo.sources.SourceOptions`. Without ``optical_bands`` red, green and blue are looked
        at where bands have these names, else all; without ``sar_bands`` all. Optical units don't matter.

    Returns
    -------
    CoregisterReport

    Raises
    ------
    ShiftError
        If ``output`` is asked for and the estimate isn't reliable.
    GoptGeoError
        If the rasters, options or outputs don't serve; nothing stands at the output paths then.
    """
    _check_options(optical, sar, points, search, said)
    inputs, pixel_grid = SceneInputs(optical, sar, cast("SceneOptions", said)), bool(said.get("pixel_grid"))
    named = {name: optional_path(path) for name, path in (("tif", output), ("json", json_file), ("png", picture))}
    file = _movable(sar, pixel_grid) if output is not None else None
    with Staging(overwrite, inputs=inputs.files()) as staging:
        endings = {"tif": RASTER_ENDINGS, "json": (".json",), "png": (".png",)}
        staged = {name: staging.path(path, endings[name]) for name, path in named.items() if path is not None}
        specs = _specs(inputs)
        pair = estimate_pair(specs["optical"], specs["sar"], points=points, search=search, pixel_grid=pixel_grid)
        moved, notices = None, list(pair.notices)
        if file is not None:
            moved, more = _write(pair, file, staged["tif"])
            notices += more
        written = tuple(path for path in named.values() if path is not None)
        report = CoregisterReport(pair, moved, written, tuple(notices))
        if "json" in staged:
            text = json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n"
            staged["json"].write_text(text, encoding="utf-8")
        if "png" in staged:
            image, extent = _image(specs["optical"], pair, pixel_grid)
            draw_shift(staged["png"], image, extent, pair.estimate, describe_shift(pair))
        staging.publish()
    return report


def _check_options(optical: Source, sar: Source, points: int, search: int, said: SourceOptions) -> None:
    """Refuse options that make no sense, before any file is opened."""
    strange = sorted(set(said) - set(SourceOptions.__annotations__))
    if strange:
        known = ", ".join(SourceOptions.__annotations__)
        raise TypeError(f"there is no option {strange[0]!r}; the options are {known}")
    if points < _LEAST_POINTS:
        raise GoptGeoError(f"--points {points}", "too few can't disagree", f"give {_LEAST_POINTS} or more")
    if not _SEARCHES[0] <= search <= _SEARCHES[1]:
        raise GoptGeoError(f"--search {search}", "out of range", f"give {_SEARCHES[0]} to {_SEARCHES[1]} pixels")
    chosen = said.get("optical_bands") is not None and said.get("sar_bands") is not None
    paths = isinstance(optical, str | os.PathLike) and isinstance(sar, str | os.PathLike)
    if (optical is sar or (paths and str(optical) == str(sar))) and not chosen:
        remedy = "give two rasters, or say which bands are which with --optical-bands and --sar-bands"
        raise SourceError(source_name(sar), "it is given as OPTICAL and as SAR", remedy)


def _specs(inputs: SceneInputs) -> dict[str, SourceSpec]:
    """Return what is known of the sources, without a pack to say what bands and units are wanted."""
    said, sar = inputs.said, inputs.sar
    assert sar is not None
    units = said.get("sar_units")
    bands = split_bands(said.get("optical_bands"), "--optical-bands")
    colours = ("red", "green", "blue")
    optical = SourceSpec(
        inputs.sources["optical"], bands, said.get("optical_units"), "raw", None, inputs.cloud_mask, colours
    )
    optical.sensor = said.get("sensor")
    sar_bands = split_bands(said.get("sar_bands"), "--sar-bands")
    # In decibels contrast is even from dark to bright; "raw" takes the values as they are.
    radar = SourceSpec(sar, sar_bands, units, "raw" if units == "raw" else "db", None, sensor=said.get("sar_sensor"))
    return {"optical": optical, "sar": radar}


def _movable(sar: Source, pixel_grid: bool) -> Path:
    """Return the file that is to be moved, or refuse what can't be, before any work."""
    if pixel_grid:
        raise GridError("-o", "with --pixel-grid there is no geotransform to correct", "leave one of them out")
    if band_files(sar) is not None:
        remedy = "name one raster: gdalbuildvrt -separate sar.vrt FILES puts them together"
        raise SourceError(source_name(sar), "-o moves one raster, and this is several files", remedy)
    if not isinstance(sar, str | os.PathLike) or not Path(sar).is_file():
        remedy = "check the path, or download or write it first"
        raise SourceError(source_name(sar), "-o copies a local file, and there is none", remedy)
    return Path(sar)


def _write(pair: PairShift, sar: Path, target: Path) -> tuple[tuple[float, float], list[str]]:
    """Write the moved SAR raster; how far it was moved in units of its CRS, and what is to be said."""
    found, grid = pair.estimate, pair.auxiliary_grid
    if not found.reliable:
        remedy = "leave -o out to see the report, or give rasters with more structure in common"
        raise ShiftError(sar, f"no reliable estimate of its shift ({found.reason}), so it isn't moved", remedy)
    moved, error = move_grid(grid, pair.grid, found.dx, found.dy, str(sar))
    step = moved.affine.c - grid.affine.c, moved.affine.f - grid.affine.f
    shift = f"{found.dx:.3f} right, {found.dy:.3f} down, in optical pixels; moved by {step[0]:.10g}, {step[1]:.10g}"
    notices = write_moved(sar, target, step, {"GOPT_GEO_SHIFT_CORRECTED": shift})
    return step, notices + ([move_notice(str(sar), error)] if error > LITTLE else [])


def _image(
    spec: SourceSpec, pair: PairShift, pixel_grid: bool
) -> tuple[NDArray[np.float32], tuple[float, float, float, float]]:
    """Read the optical raster where both were compared, thinned; its bands and extent in optical pixels.

    The extent is left, right, bottom, top, as matplotlib wants it.
    """
    common = pair.common_grid
    height, width = common.shape
    step = -(-max(height, width) // _PICTURE_EDGE)
    with open_scene(spec, {}, grid="optical" if pixel_grid else common, pixel_grid=pixel_grid, cache_bytes=0) as scene:
        bands = 3 if scene.counts["optical"] >= 3 else 1
        image = np.full((bands, -(-height // step), -(-width // step)), np.nan, np.float32)
        for block in lattice(Window(0, 0, height, width), BLOCK):
            part = block.clip((height, width))
            if part is None:
                continue
            read = scene.read(part)
            values = np.where(read.valid["optical"], read.values["optical"][:bands], np.float32(np.nan))
            row, col = -part.row % step, -part.col % step
            thin = values[:, row::step, col::step]
            top, left = (part.row + row) // step, (part.col + col) // step
            image[:, top : top + thin.shape[1], left : left + thin.shape[2]] = thin
    a, _, left, _, e, top = compose(~pair.grid.affine, common.affine)[:6]
    right, bottom = left + a * step * image.shape[2], top + e * step * image.shape[1]
    return image, (left, right, bottom, top)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
