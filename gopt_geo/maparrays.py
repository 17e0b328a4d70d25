"""Maps as arrays of xarray: in memory, with coordinates, legend and tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gopt_geo.ceiling import bounded_gdal_cache
from gopt_geo.grid import GeoBox, Window
from gopt_geo.inference import LikelyRows, RunReport, TileProgress
from gopt_geo.mapping import NODATA, Progress, in_pixels, map_classes, map_confidence
from gopt_geo.maprequest import MapRequest
from gopt_geo.openmap import OpenMap, open_map
from gopt_geo.packs import ClassInfo

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MapPixels", "as_dataset", "map_pixels", "predict_arrays"]


class MapPixels(NamedTuple):
    """The pixels of a map or a part of it.

    Attributes
    ----------
    landcover
        Class values, uint8 [h, w]; 255 where there is no data.
    confidence
        Percent, uint8 [h, w]; likewise.
    probabilities
        float32 [K, h, w], NaN where there is no data; None if not asked for.
    """

    landcover: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None


def map_pixels(
    opened: OpenMap,
    window: Window,
    *,
    probabilities: bool = False,
    progress: Callable[[TileProgress], None] | None = None,
) -> tuple[MapPixels, RunReport]:
    """Run the tiles of a window of the scene grid, and keep its pixels.

    Parameters
    ----------
    opened
        What the map is made with.
    window
        Inside of what is mapped.
    probabilities
        Whether to keep those of all classes.
    progress
        Called after each tile.
    """
    values = np.array([c.value for c in opened.classes], dtype=np.uint8)
    landcover, confidence = (np.full(window.shape, NODATA, np.uint8) for _ in range(2))
    shares = np.full((len(values), *window.shape), np.nan, np.float32) if probabilities else None

    def take(rows: LikelyRows, found: NDArray[np.float32] | None) -> None:
        place = rows.window.slices_in(window)
        landcover[place], confidence[place] = map_classes(rows, values), map_confidence(rows)
        if shares is not None and found is not None:
            shares[:, *place] = np.where(rows.valid, found, np.float32(np.nan))

    held = landcover.nbytes + confidence.nbytes + (0 if shares is None else shares.nbytes)
    report = opened.run_likely(take, probabilities=probabilities, window=window, held=held, progress=progress)
    return MapPixels(landcover, confidence, shares), report


def predict_arrays(
    request: MapRequest, *, probabilities: bool = False, progress: Callable[[Progress], None] | None = None
) -> xr.Dataset:
    """Make a map in memory; see `as_dataset`.

    Raises
    ------
    GoptGeoError
        Whatever is wrong with sources, pack or options.
    """
    with bounded_gdal_cache(), open_map(request) as opened:
        window = opened.window
        tick = None if progress is None else in_pixels(progress, window.height * window.width)
        pixels, run = map_pixels(opened, window, probabilities=probabilities, progress=tick)
        notices = [*opened.notices, *opened.run_notices(run)]
        return as_dataset(opened.grid, opened.classes, opened.tags, notices, pixels._asdict())


def as_dataset(
    grid: GeoBox,
    classes: Sequence[ClassInfo],
    tags: Mapping[str, str],
    notices: Sequence[str],
    pixels: Mapping[str, Any],
) -> xr.Dataset:
    """Put pixels, of numpy or dask, on their grid.

    Parameters
    ----------
    grid
        The map's.
    classes
        Its legend.
    tags
        How it was made.
    notices
        What the user should know, one line each.
    pixels
        Arrays by the names of `MapPixels`; None leaves one out.

    Returns
    -------
    Dataset
        Variables ``landcover``, ``confidence`` and, where asked for, ``probabilities`` with a coordinate ``class`` of
        names. Coordinates and CRS as odc-geo and rioxarray read them; tags as attributes, and ``notices``.
    """
    import xarray as xr
    from odc.geo.xr import xr_coords

    coords = xr_coords(grid, always_yx=False)
    across = grid.dimensions
    names, values = [c.name for c in classes], [c.value for c in classes]
    about: dict[str, dict[str, Any]] = {
        "landcover": {
            "long_name": "land cover",
            "nodata": NODATA,
            "flag_values": np.array(values, np.uint8),
            "flag_meanings": " ".join(name.replace(" ", "_") for name in names),
            "flag_colors": " ".join(c.color for c in classes),
        },
        "confidence": {"long_name": "confidence", "units": "percent", "nodata": NODATA},
        "probabilities": {"long_name": "probability of each class", "nodata": np.nan},
    }
    variables = {}
    for name, array in pixels.items():
        if array is None:
            continue
        further = {"class": names} if array.ndim == 3 else {}
        variable = xr.DataArray(array, {**further, **coords}, (*further, *across), attrs=about[name])
        variable.encoding["grid_mapping"] = "spatial_ref"
        variables[name] = variable
    return xr.Dataset(variables, attrs={**tags, "notices": "\n".join(notices)})
