"""A small scene whose pixels say where they are, and configurations on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import shapely
import torch
from affine import Affine

from gopt_geo.training.config import TrainConfig
from gopt_geo.training.data import TrainingData, open_training_data

EDGE, TILE = 256, 16
PLACE = Affine(10, 0, 600000, 0, -10, 5400000)
PLAIN = {"symmetry": "none", "brightness": 0.0, "offset": 0.0, "clouds": 0.0}


def write(path: Path, bands: np.ndarray, names: tuple[str, ...] = (), **profile: Any) -> Path:
    bands = bands if bands.ndim == 3 else bands[None]
    shape = {"count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2]}
    options = {"driver": "GTiff", "dtype": bands.dtype, "crs": "EPSG:32632", "transform": PLACE, **shape, **profile}
    with rasterio.open(path, "w", **options) as file:
        file.write(bands)
        for i, name in enumerate(names, 1):
            file.set_band_description(i, name)
    return path


def write_ground(folder: Path) -> dict[str, str]:
    """Optical: row and column of each pixel / 1000, and 0.4 or 0.5; SAR: -row / 10 dB, missing in the last 64 columns.

    Labels: 10, 20 and 30 in squares of 16 pixels, 30 rare; 0 is not labelled.
    """
    rows, cols = np.mgrid[:EDGE, :EDGE].astype(np.float32)
    optical = np.stack([rows / 1000, cols / 1000, 0.4 + 0.1 * ((rows + cols) % 2)])
    sar = -5 - rows / 10
    sar[:, -64:] = np.nan
    rng = np.random.default_rng(0)
    kinds = rng.choice([10, 20, 30], (EDGE // 16, EDGE // 16), p=[0.6, 0.36, 0.04])
    labels = np.kron(kinds, np.ones((16, 16))).astype(np.uint8)
    labels[:20, :30] = 0
    return {
        "optical": str(write(folder / "optical.tif", optical, ("red", "green", "blue"))),
        "sar": str(write(folder / "sar.tif", sar, ("VV",), nodata=np.nan)),
        "labels": str(write(folder / "labels.tif", labels, nodata=0)),
    }


def write_polygons(path: Path, boxes: list[tuple[int, int, int, int, Any]]) -> str:
    """Write polygons of (row, column, height, width, class) in pixels."""
    shapes = []
    for row, col, height, width, _ in boxes:
        left, top = PLACE.c + 10 * col, PLACE.f - 10 * row
        shapes.append(shapely.box(left, top - 10 * height, left + 10 * width, top))
    frame = geopandas.GeoDataFrame({"kind": [box[4] for box in boxes]}, geometry=shapes, crs="EPSG:32632")
    frame.to_file(path)
    return str(path)


def config(scene: dict[str, Any], **changes: Any) -> TrainConfig:
    both = {"optical", "sar"} <= {key for key, value in scene.items() if value is not None}
    none_dropped = {"dropout": {"optical": 0.0, "sar": 0.0} if both else {}}
    plain = {"training": {"tile_size": TILE}, "augmentation": PLAIN | none_dropped} | changes
    return TrainConfig.model_validate({"scene": scene, **plain})


def opened(settings: TrainConfig, **options: Any) -> TrainingData:
    expected = {"patch_size": 8, "in_chans": 3, "channel_names": ("red", "green", "blue")}
    return open_training_data(settings, **{**expected, **options})


def places(sample: dict[str, torch.Tensor]) -> set[tuple[int, int]]:
    """Return the scene's pixels that a plain sample shows."""
    valid = sample["validity_optical"]
    rows, cols = ((sample["optical"][i][valid] * 1000).round().int().tolist() for i in (0, 1))
    return set(zip(rows, cols, strict=True))
