"""Label rasters on the grid of other ground: one way to open them for maps, previews and data sets."""

from __future__ import annotations

from gopt_geo.errors import BandError, GridError
from gopt_geo.grid import GeoBox
from gopt_geo.paths import StrPath
from gopt_geo.scene.extent import place_scene
from gopt_geo.scene.source import RasterSource
from gopt_geo.scene.warp import AlignedSource

__all__ = ["check_label_raster", "open_label_raster"]


def check_label_raster(source: RasterSource, *, placed: bool = True) -> None:
    """Refuse a raster with several bands, or, where it must be placed, without a CRS."""
    if source.count != 1:
        raise BandError(source.name, f"it has {source.count} bands", "give a label raster, which has one")
    if placed and source.grid.crs is None:
        raise GridError(source.name, "it has no CRS", "set it with gdal_edit -a_srs")


def open_label_raster(
    path: StrPath, grid: GeoBox, ground: str, *, mixed: bool = False, cache_bytes: int | None = None
) -> AlignedSource:
    """Open a label raster on a grid: the nearest label of each pixel.

    On a grid without a CRS, a raster of equal shape is taken pixel by pixel.

    Parameters
    ----------
    path
        The raster.
    grid
        Of the ground it is compared with.
    ground
        What messages call that ground.
    mixed
        Whether labels with a CRS may be laid on ground without one.
    cache_bytes
        See `AlignedSource`.

    Raises
    ------
    GoptGeoError
        If it can't be read, has several bands, or shows other ground.
    """
    source = RasterSource(path)
    try:
        _check_ground(source, grid, ground, mixed=mixed)
        return AlignedSource(source, grid, "nearest", by_pixel=grid.crs is None, cache_bytes=cache_bytes)
    except BaseException:
        source.close()
        raise


def _check_ground(source: RasterSource, grid: GeoBox, ground: str, *, mixed: bool) -> None:
    """Refuse labels of other ground."""
    check_label_raster(source, placed=grid.crs is not None)
    if grid.crs is not None:
        place_scene({"ground": (ground, grid), "labels": (source.name, source.grid)}, grid, "optical")
        return
    if source.grid.crs is not None and not mixed:
        raise GridError(ground, f"it has no CRS, and {source.name} has one", "set it with gdal_edit -a_srs")
    if source.grid.shape != grid.shape:
        shapes = f"{tuple(source.grid.shape)} differs from {ground}'s {tuple(grid.shape)}"
        raise GridError(source.name, f"without a CRS, its shape {shapes}", "give a raster of the same pixels")
