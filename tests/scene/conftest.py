from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

WriteRaster = Callable[..., Path]

UTM31 = Affine(10, 0, 500000, 0, -10, 4600000)


def write_raster(
    path: Path,
    array: np.ndarray,
    crs: str | None = "EPSG:32631",
    transform: Affine | None = UTM31,
    *,
    descriptions: tuple[str, ...] = (),
    units: tuple[str, ...] = (),
    scales: tuple[float, ...] = (),
    offsets: tuple[float, ...] = (),
    **profile: object,
) -> Path:
    bands = array if array.ndim == 3 else array[None]
    options = {"driver": "GTiff", "dtype": bands.dtype, "crs": crs, **profile}
    if transform is not None:
        options["transform"] = transform
    with rasterio.open(path, "w", count=bands.shape[0], height=bands.shape[1], width=bands.shape[2], **options) as file:
        file.write(bands)
        for name, value in (
            ("descriptions", descriptions),
            ("units", units),
            ("scales", scales),
            ("offsets", offsets),
        ):
            if value:
                setattr(file, name, value)
    return path


@pytest.fixture
def raster(tmp_path: Path) -> Iterator[WriteRaster]:
    """Write a raster into the test's folder: raster(name, array, crs, transform, **profile)."""

    def write(name: str, array: np.ndarray, *args: object, **kwargs: object) -> Path:
        return write_raster(tmp_path / name, array, *args, **kwargs)

    return write  # type: ignore[return-value]


@pytest.fixture(scope="module")
def module_raster(tmp_path_factory: pytest.TempPathFactory) -> WriteRaster:
    """Write a raster into a folder that lives as long as the test module."""
    folder = tmp_path_factory.mktemp("rasters")

    def write(name: str, array: np.ndarray, *args: object, **kwargs: object) -> Path:
        return write_raster(folder / name, array, *args, **kwargs)

    return write
