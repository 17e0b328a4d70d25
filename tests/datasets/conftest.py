"""An optical raster, a SAR raster in another CRS, and labels of the same ground, small enough to read whole."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer


class Ground(NamedTuple):
    """Paths of rasters of one ground; optical and labels on one grid of 600 x 640 pixels, 10 m, EPSG:32631."""

    optical: Path
    sar: Path
    labels: Path
    clouds: Path


SHAPE = 600, 640
ORIGIN = 700000.0, 5000000.0
AFFINE = Affine(10, 0, ORIGIN[0], 0, -10, ORIGIN[1])


def write(
    path: Path, array: np.ndarray, crs: str = "EPSG:32631", transform: Affine = AFFINE, **profile: object
) -> Path:
    bands = array if array.ndim == 3 else array[None]
    shape = {"count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2]}
    options = {"driver": "GTiff", "dtype": bands.dtype, "crs": crs, "transform": transform, **shape, **profile}
    with rasterio.open(path, "w", **options) as file:
        file.write(bands)
    return path


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Four classes in squares, unlabelled in the north-west; a hole in the SAR; a cloud. Don't write there."""
    folder = tmp_path_factory.mktemp("ground")
    rng = np.random.default_rng(0)
    optical = rng.integers(1, 9000, (3, *SHAPE)).astype(np.uint16)
    labels = np.kron(rng.integers(0, 4, (30, 32)), np.ones((20, 20))).astype(np.uint8) * 10 + 10
    labels[:50, :90] = 0
    clouds = np.zeros(SHAPE, np.uint8)
    clouds[100:140, 200:300] = 1
    corners = np.array([(0, 0), (SHAPE[1], 0), (0, SHAPE[0]), SHAPE[::-1]]) * (10, -10) + ORIGIN
    x, y = Transformer.from_crs("EPSG:32631", "EPSG:32632", always_xy=True).transform(*corners.T)
    height, width = int((max(y) - min(y)) / 12) + 20, int((max(x) - min(x)) / 12) + 20
    sar = rng.normal(-12, 4, (1, height, width)).astype(np.float32)
    sar[0, 300:340, 200:260] = np.nan
    return Ground(
        write(folder / "optical.tif", optical),
        write(
            folder / "sar.tif", sar, "EPSG:32632", Affine(12, 0, min(x) - 100.7, 0, -12, max(y) + 90.3), nodata=np.nan
        ),
        write(folder / "labels.tif", labels, nodata=0),
        write(folder / "clouds.tif", clouds),
    )
