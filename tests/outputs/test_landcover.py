"""Land-cover COGs: pixels, grid, legend, layout."""

import os
import shutil
import subprocess
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rio_cogeo.cogeo import cog_validate

from gopt_geo.errors import OutputError
from gopt_geo.grid import GeoBox, Window, corner_distance, grid_of
from gopt_geo.outputs.landcover import LandCoverWriter
from gopt_geo.outputs.legend import LegendClass, read_legend

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

LEGEND = [
    LegendClass(0, "farmland", "#ffcc00"),
    LegendClass(1, "city & <town>", "#ff0000"),
    LegendClass(40, "forêt", "#00aa00"),
]
UTM = Affine(10, 0, 5e5, 0, -10, 5e6)
ALBERS = "+proj=aea +lat_0=23 +lon_0=-96 +lat_1=29.5 +lat_2=45.5 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"


def classes_of(shape: tuple[int, int], seed: int = 0) -> Any:
    return np.random.default_rng(seed).choice(np.array([0, 1, 40, 255], np.uint8), shape)


def write(path: Path, grid: GeoBox, classes: Any, confidence: Path | None = None, step: int = 100) -> None:
    height = len(classes)
    with LandCoverWriter(path, grid, LEGEND, {"PACK": "demo"}, confidence) as writer:
        for row in range(0, height, step):
            part = classes[row : row + step]
            percent = None if confidence is None else np.where(part == 255, 255, part).astype(np.uint8)
            writer.write(Window(row, 0, *part.shape), part, percent)
        writer.finish()


@pytest.mark.brief
@pytest.mark.parametrize(
    ("crs", "affine"),
    [
        ("EPSG:32633", UTM),
        ("EPSG:32633", Affine(7.07, 7.07, 5e5, 7.07, -7.07, 5e6)),  # rotated
        ("EPSG:4326", Affine(0.1 / 3, 0, 10, 0, 0.1 / 7, -20)),  # south-up
        (ALBERS, Affine(30, 0, 1e5 / 3, 0, -30, 2e6 / 3)),
        (None, Affine.identity()),
        (None, Affine(1, 0, 3, 0, -1, 7)),
    ],
)
def test_grid_pixels_and_layout(tmp_path: Path, crs: str | None, affine: Affine) -> None:
    grid = GeoBox((530, 700), affine, crs)
    classes = classes_of((530, 700))
    path, percent = tmp_path / "a.tif", tmp_path / "c.tif"
    write(path, grid, classes, percent)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "a.tif.aux.xml", "c.tif"]
    for file in (path, percent):
        valid, errors, warnings = cog_validate(file, strict=True)
        assert valid, (errors, warnings)
        with rasterio.open(file) as dataset:
            assert corner_distance(grid_of(dataset), grid) < 1e-6
            assert dataset.nodata == 255
            assert dataset.dtypes == ("uint8",)
            assert dataset.block_shapes == [(512, 512)]
            assert dataset.overviews(1) == [2]
            assert dataset.tags()["PACK"] == "demo"
            assert ("GEOREFERENCING" in dataset.tags()) is (crs is None)
            assert np.array_equal(dataset.read(1), classes)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (3000, 2), (512, 512), (513, 3)])
def test_odd_sizes(tmp_path: Path, shape: tuple[int, int]) -> None:
    classes = classes_of(shape)
    write(tmp_path / "a.tif", GeoBox(shape, UTM, "EPSG:32633"), classes, step=7)
    thin = max(shape) > 512 and min(shape) < 3  # can't be halved until it fits a tile: a warning
    assert cog_validate(tmp_path / "a.tif", strict=not thin)[0]
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert np.array_equal(dataset.read(1), classes)


@pytest.mark.brief
def test_the_legend_survives(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", GeoBox((20, 30), UTM, "EPSG:32633"), classes_of((20, 30)))
    assert read_legend(tmp_path / "a.tif") == LEGEND
    with rasterio.open(tmp_path / "a.tif") as dataset:
        colors = dataset.colormap(1)
    assert [colors[v] for v in (0, 1, 40, 255)] == [
        (255, 204, 0, 255),
        (255, 0, 0, 255),
        (0, 170, 0, 255),
        (0, 0, 0, 0),
    ]


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo (gdal-bin) isn't installed")
def test_gdalinfo_shows_the_legend(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", GeoBox((600, 30), UTM, "EPSG:32633"), classes_of((600, 30)))
    clean = {k: v for k, v in os.environ.items() if k not in ("GDAL_DATA", "PROJ_DATA", "PROJ_LIB")}
    command = ["gdalinfo", str(tmp_path / "a.tif")]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=clean).stdout
    for line in ("40: forêt", "1: city & <town>", "40: 0,170,0,255", "LAYOUT=COG", "<F>farmland</F>"):
        assert line in told
    assert "NoData Value=255" in told


def test_no_legend_in_the_file(tmp_path: Path) -> None:
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=2, height=2, count=1, dtype="uint8") as d:
        d.write(np.zeros((1, 2, 2), np.uint8))
    assert read_legend(tmp_path / "a.tif") == []


def test_overviews_are_made_by_mode_and_average(tmp_path: Path) -> None:
    classes = np.zeros((1024, 1024), np.uint8)
    classes[1::2, 1::2] = 40  # a quarter: never the mode, and the average of 0 and 40 is no class
    write(tmp_path / "a.tif", GeoBox((1024, 1024), UTM, "EPSG:32633"), classes, tmp_path / "c.tif")
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as dataset:
        assert np.array_equal(np.unique(dataset.read(1)), [0])
    with rasterio.open(tmp_path / "c.tif", overview_level=0) as dataset:
        assert np.array_equal(np.unique(dataset.read(1)), [10])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_in_any_heights_and_column_strips(tmp_path: Path, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 1100)), data.draw(st.integers(1, 600))
    classes = classes_of((height, width), data.draw(st.integers(0, 9)))
    cuts = sorted(data.draw(st.sets(st.integers(1, 600), max_size=2)))
    edges = [0, *(c for c in cuts if c < width), width]
    with LandCoverWriter(tmp_path / "a.tif", GeoBox((height, width), UTM, "EPSG:32633"), LEGEND, {}) as writer:
        for left, right in pairwise(edges):
            row = 0
            while row < height:
                step = min(data.draw(st.integers(1, 1100)), height - row)
                writer.write(Window(row, left, step, right - left), classes[row : row + step, left:right])
                row += step
        writer.finish()
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert np.array_equal(dataset.read(1), classes)


def test_what_is_never_written_is_nodata(tmp_path: Path) -> None:
    with LandCoverWriter(tmp_path / "a.tif", GeoBox((600, 20), UTM, "EPSG:32633"), LEGEND, {}) as writer:
        writer.write(Window(550, 5, 2, 3), np.ones((2, 3), np.uint8))
        writer.finish()
    expected = np.full((600, 20), 255)
    expected[550:552, 5:8] = 1
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert np.array_equal(dataset.read(1), expected)


def test_programming_errors(tmp_path: Path) -> None:
    grid = GeoBox((10, 10), UTM, "EPSG:32633")
    with LandCoverWriter(tmp_path / "a.tif", grid, LEGEND, {}) as writer:
        with pytest.raises(ValueError, match="isn't inside"):
            writer.write(Window(8, 0, 4, 10), np.zeros((4, 10), np.uint8))
        with pytest.raises(ValueError, match="can't take"):
            writer.write(Window(0, 0, 4, 10), np.zeros((4, 9), np.uint8))
        with pytest.raises(ValueError, match="confidence"):
            writer.write(Window(0, 0, 4, 10), np.zeros((4, 10), np.uint8), np.zeros((4, 10), np.uint8))
    for legend in ([LegendClass(255, "x", "#000000")], [LEGEND[0], LEGEND[0]]):
        with pytest.raises(ValueError, match="distinct"):
            LandCoverWriter(tmp_path / "b.tif", grid, legend, {})


def test_gdal_errors_become_ours(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can't write it"):
        LandCoverWriter(tmp_path / "gone" / "a.tif", GeoBox((9, 9), UTM, "EPSG:32633"), LEGEND, {})


def test_memory_does_not_grow_with_height(tmp_path: Path) -> None:
    band = classes_of((256, 500))

    def peak(height: int) -> int:
        tracemalloc.start()
        with LandCoverWriter(tmp_path / "a.tif", GeoBox((height, 500), UTM, "EPSG:32633"), LEGEND, {}) as writer:
            for row in range(0, height, 256):
                writer.write(Window(row, 0, 256, 500), band)
            writer.finish()
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return traced

    peak(512)  # imports
    assert peak(256 * 16) < 1.5 * peak(512)
