"""Labels from rasters and vector files on a scene grid."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from gopt_geo.datasets.base import IGNORED
from gopt_geo.datasets.classes import ClassTable
from gopt_geo.datasets.geo import SarDataset
from gopt_geo.datasets.labels import RasterLabels, VectorLabels
from gopt_geo.errors import BandError, DatasetError, GridError
from gopt_geo.grid import Window, grid_of

from .conftest import AFFINE, SHAPE, Ground, write

CLASSES = ClassTable((10, 20, 30, 40), ("wheat", "maize", "rice", "beet"), ignore=(0,))
WINDOW = Window(-5, -5, 80, 120)


@pytest.mark.brief
def test_values_become_class_indexes_and_nodata_is_ignored(ground: Ground) -> None:
    with rasterio.open(ground.labels) as file:
        stored = file.read(1)
    expected = np.full(WINDOW.shape, IGNORED)
    expected[5:, 5:] = np.where(stored == 0, IGNORED, stored // 10 - 1)[:75, :115]
    dataset = RasterLabels(ground.labels, CLASSES)
    np.testing.assert_array_equal(dataset.read(WINDOW)["mask"], expected)
    np.testing.assert_array_equal(dataset.read_labels(WINDOW), expected)
    plain = RasterLabels(ground.labels).read(WINDOW)["mask"].numpy()
    np.testing.assert_array_equal(plain, np.where(expected == IGNORED, IGNORED, expected * 10 + 10))


@pytest.mark.parametrize(("resampling", "kept"), [("nearest", 1), ("mode", 0)])
def test_on_another_grid(tmp_path: Path, ground: Ground, resampling: str, kept: int) -> None:
    labels = np.zeros((300, 300), np.uint8)
    labels[4::10, 4::10] = 1  # one pixel of a hundred: that nearest to a coarse pixel's centre
    labels[5::10, 5::10] = 1
    fine = RasterLabels(
        write(tmp_path / "fine.tif", labels, transform=AFFINE @ Affine.scale(0.1)), resampling=resampling
    )
    with rasterio.open(ground.optical) as file:
        grid = grid_of(file)
    coarse = fine.on(grid)
    assert coarse.footprint == Window(0, 0, 30, 30)
    mask = coarse.read(Window(0, 0, 40, 40))["mask"]
    assert (mask[:30, :30] == kept).all()
    assert (mask[30:] == IGNORED).all()
    assert fine.read(Window(0, 0, 300, 300))["mask"].sum() == 2 * 30 * 30


def test_label_rasters_that_can_not_be_used(ground: Ground, tmp_path: Path) -> None:
    with pytest.raises(BandError, match="3 bands"):
        RasterLabels(ground.optical)
    with pytest.raises(GridError, match="no CRS"):
        RasterLabels(write(tmp_path / "bare.tif", np.ones((9, 9), np.uint8), None))
    few = RasterLabels(ground.labels, ClassTable((10, 20, 30), ("a", "b", "c")))
    with pytest.raises(DatasetError, match=r"labels\.tif: label 40 is none of the classes \(10 a, 20 b, 30 c\)"):
        few.read(Window(0, 0, 600, 640))
    halves = RasterLabels(write(tmp_path / "half.tif", np.full((9, 9), 1.5, np.float32)))
    with pytest.raises(DatasetError, match="aren't whole"):
        halves.read(Window(0, 0, 9, 9))
    big = RasterLabels(write(tmp_path / "big.tif", np.full((9, 9), 300, np.uint16)))
    with pytest.raises(DatasetError, match="label 300 is none of 0 to 254"):
        big.read(Window(0, 0, 9, 9))


def fields(path: Path, crs: str = "EPSG:32631", **columns: list[object]) -> Path:
    """Fields on columns 10 to 30 and 20 to 40 of rows 10 to 20, and a point in pixel (5, 50)."""
    shapes = [
        shapely.box(700100, 4999800, 700300, 4999900),
        shapely.box(700200, 4999800, 700400, 4999900),
        # a shapefile holds one kind of geometry
        shapely.box(700500, 4999940, 700510, 4999950) if path.suffix == ".shp" else shapely.Point(700503, 4999947),
    ]
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32631").to_crs(crs)
    frame.to_file(path)
    return path


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326"])
@pytest.mark.parametrize("kind", [".gpkg", ".geojson", ".shp"])
@pytest.mark.brief
def test_features_label_the_pixels_they_hold(tmp_path: Path, ground: Ground, crs: str, kind: str) -> None:
    if kind == ".geojson" and crs != "EPSG:4326":
        crs = "OGC:CRS84"
    path = fields(tmp_path / f"fields{kind}", crs, crop=["maize", "rice", "beet"])
    expected = np.full((30, 60), IGNORED)
    expected[10:20, 10:20], expected[10:20, 20:40], expected[5, 50] = 1, 2, 3
    both = SarDataset(ground.sar) & VectorLabels(path, "crop", CLASSES)
    with rasterio.open(ground.optical) as file:
        grid = grid_of(file)
    np.testing.assert_array_equal(both.on(grid).read(Window(0, 0, 30, 60))["mask"], expected)
    assert both.members[1].read(Window(0, 0, 600, 640))["mask"].shape == SHAPE


def test_numbers_as_classes_and_features_without_one(tmp_path: Path, ground: Ground) -> None:
    with rasterio.open(ground.optical) as file:
        grid = grid_of(file)
    path = fields(tmp_path / "numbers.gpkg", crop=[10, None, 40])
    labels = VectorLabels(path, "crop", CLASSES, grid=grid)
    assert labels.notices == [f"{path}: 1 features without a value in 'crop' are passed over"]
    mask = labels.read(Window(0, 0, 30, 60))["mask"]
    assert (mask[10:20, 10:30] == 0).all()
    assert (mask != IGNORED).sum() == 10 * 20 + 1
    plain = VectorLabels(fields(tmp_path / "plain.gpkg", crop=[1, 2, 3]), "crop", grid=grid)
    assert set(plain.read(Window(0, 0, 30, 60))["mask"].unique().tolist()) == {1, 2, 3, IGNORED}


def test_vector_files_that_can_not_be_used(tmp_path: Path, ground: Ground) -> None:
    path = fields(tmp_path / "fields.gpkg", crop=["maize", "tulip", "beet"], nothing=[None] * 3)
    for options, message in (
        (("plant",), "no field 'plant'.*crop, nothing"),
        (("crop", CLASSES), "'tulip' is none of the classes.*wheat, maize"),
        (("crop",), "'maize' isn't a number"),
        (("nothing",), "no feature has a value"),
    ):
        with pytest.raises(DatasetError, match=message):
            VectorLabels(path, *options)
    with pytest.raises(DatasetError, match="no such file"):
        VectorLabels(tmp_path / "missing.gpkg", "crop")
    with pytest.raises(DatasetError, match="can't be read"):
        VectorLabels(ground.optical, "crop")
    numbers = fields(tmp_path / "numbers.gpkg", crop=[1, 2, 3])
    with pytest.raises(DatasetError, match="no grid of its own"):
        VectorLabels(numbers, "crop").read(Window(0, 0, 1, 1))
    far = write(tmp_path / "far.tif", np.ones((9, 9), np.float32), "EPSG:32633")
    with pytest.raises(DatasetError, match="none of its 3 features lies on the grid"):
        SarDataset(far) & VectorLabels(numbers, "crop")
    geopandas.GeoDataFrame({"crop": [1]}, geometry=[shapely.LineString([(0, 0), (1, 1)])], crs=4326).to_file(
        tmp_path / "lines.gpkg"
    )
    with pytest.raises(DatasetError, match="lines"):
        VectorLabels(tmp_path / "lines.gpkg", "crop")
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        geopandas.GeoDataFrame({"crop": [1]}, geometry=[shapely.Point(1, 1)]).to_file(tmp_path / "bare.gpkg")
    with pytest.raises(DatasetError, match="no CRS"):
        VectorLabels(tmp_path / "bare.gpkg", "crop")
