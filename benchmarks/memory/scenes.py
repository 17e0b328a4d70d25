"""Scenes of any size at little cost: one simulated pattern, written over and over, all over or in a few places."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from speed.inputs import Pair

from gopt_geo.simulate import SceneSpec, simulate_scene

__all__ = ["places", "write_pair"]

BLOCK = 512
PIXEL = 10.0
CORNER = (300_000.0, 5_600_000.0)  # west of the middle of UTM zone 32, in Germany
CRS, SAR_CRS = "EPSG:32632", "EPSG:32633"
NODATA = -9999.0


def write_pair(folder: Path, height: int, width: int, *, patches: Iterable[tuple[int, int]] | None = None) -> Pair:
    """Write four optical bands and one of SAR, float32, SAR in the next UTM zone and larger all around.

    Parameters
    ----------
    folder
        Gets both files.
    height, width
        Of the optical raster, in pixels.
    patches
        Blocks of 512 pixels, by row and column of blocks of the optical raster, that hold data; the others are never
        written (sparse files). None: all do, in both.
    """
    scene = simulate_scene(SceneSpec(1, BLOCK, BLOCK))
    there = None if patches is None else sorted(set(patches))
    grid = Affine(PIXEL, 0, CORNER[0], 0, -PIXEL, CORNER[1])
    kept = {"optical": there, "sar": None}
    bounds = (CORNER[0], CORNER[1] - PIXEL * height, CORNER[0] + PIXEL * width, CORNER[1])
    west, south, east, north = (PIXEL * round(edge / PIXEL) for edge in transform_bounds(CRS, SAR_CRS, *bounds))
    sar_grid = Affine(PIXEL, 0, west, 0, -PIXEL, north)
    sar_shape = round((north - south) / PIXEL), round((east - west) / PIXEL)
    if there is not None:
        kept["sar"] = sorted({block for place in there for block in _below(place, grid, sar_grid, sar_shape)})
    decibel = (10 * np.log10(scene.sar[:1])).astype(np.float32)
    optical, sar = (folder / f"{height}x{width}-{name}.tif" for name in ("optical", "sar"))
    names = ("blue", "green", "red", "nir")
    _write(optical, scene.optical.astype(np.float32), (height, width), CRS, grid, kept["optical"], names)
    _write(sar, decibel, sar_shape, SAR_CRS, sar_grid, kept["sar"], ("VV",))
    return Pair(optical, sar, {"optical_units": "reflectance", "sar_units": "db"})


def places(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """Spread places of 2 x 2 blocks that hold data over a scene, the corners among them; all their blocks."""
    rows, cols = -(-height // BLOCK), -(-width // BLOCK)
    random = np.random.default_rng(0)
    starts = [(0, 0), (0, cols - 2), (rows - 2, 0), (rows - 2, cols - 2)][:count]
    starts += [(int(random.integers(rows - 1)), int(random.integers(cols - 1))) for _ in range(count - len(starts))]
    return [(max(row, 0) + i, max(col, 0) + j) for row, col in starts for i in (0, 1) for j in (0, 1)]


def _below(place: tuple[int, int], grid: Affine, sar_grid: Affine, shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Blocks of the SAR raster that a block of the optical one lies over."""
    row, col = place
    west, north = grid * (col * BLOCK, row * BLOCK)
    east, south = grid * ((col + 1) * BLOCK, (row + 1) * BLOCK)
    west, south, east, north = transform_bounds(CRS, SAR_CRS, west, south, east, north)
    left, top = ~sar_grid * (west, north)
    right, bottom = ~sar_grid * (east, south)
    last = (shape[0] - 1) // BLOCK, (shape[1] - 1) // BLOCK
    rows = range(max(0, int(top // BLOCK)), min(last[0], int(bottom // BLOCK)) + 1)
    cols = range(max(0, int(left // BLOCK)), min(last[1], int(right // BLOCK)) + 1)
    return [(i, j) for i in rows for j in cols]


def _write(
    path: Path,
    pattern: NDArray[np.float32],
    shape: tuple[int, int],
    crs: str,
    grid: Affine,
    blocks: Iterable[tuple[int, int]] | None,
    names: tuple[str, ...],
) -> None:
    """Write the pattern into blocks of a file, all of them if None."""
    every = ((row, col) for row in range(-(-shape[0] // BLOCK)) for col in range(-(-shape[1] // BLOCK)))
    layout: dict[str, Any] = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "interleave": "pixel"}
    layout |= {"compress": "deflate", "zlevel": 1, "sparse_ok": True, "bigtiff": "if_safer", "nodata": NODATA}
    size = {"height": shape[0], "width": shape[1], "count": len(pattern), "dtype": "float32"}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=grid, **size, **layout) as file:
        file.descriptions = names
        for row, col in every if blocks is None else blocks:
            tall, wide = min(BLOCK, shape[0] - row * BLOCK), min(BLOCK, shape[1] - col * BLOCK)
            place = Window(col * BLOCK, row * BLOCK, wide, tall)
            file.write(pattern[:, :tall, :wide], window=place)
