"""Polygon files: formats, attributes, refusals."""

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Geod

from gopt_geo.errors import GridError, OutputError, SourceError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.outputs.landcover import LandCoverWriter
from gopt_geo.outputs.legend import LegendClass
from gopt_geo.outputs.vectors import vectorize

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

UTM = Affine(10, 0, 3e5, 0, -10, 5e6)
LEGEND = [LegendClass(0, "farmland", "#ffcc00"), LegendClass(1, "forêt", "#00aa00")]
ENDINGS = [".gpkg", ".fgb", ".parquet", ".geojson"]


def make_map(path: Path, classes: Any, crs: Any = "EPSG:32633", affine: Affine = UTM) -> Path:
    classes = np.asarray(classes, np.uint8)
    grid = GeoBox(classes.shape, affine, crs)
    confidence = path.with_name(f"confidence_{path.name}")
    percent = np.where(classes == 255, 255, np.arange(classes.size).reshape(classes.shape) % 101)
    with LandCoverWriter(path, grid, LEGEND, {}, confidence) as writer:
        writer.write(Window(0, 0, *classes.shape), classes, percent.astype(np.uint8))
        writer.finish()
    return path


def read(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path)


def noisy(shape: tuple[int, int] = (70, 150)) -> Any:
    return np.random.default_rng(0).choice(np.array([0, 1, 5, 255], np.uint8), shape, p=[0.5, 0.3, 0.15, 0.05])


@pytest.mark.brief
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format(tmp_path: Path, ending: str) -> None:
    classes = noisy()
    source = make_map(tmp_path / "a.tif", classes)
    count = vectorize(source, tmp_path / f"a{ending}")
    found = read(tmp_path / f"a{ending}")
    assert len(found) == count
    assert found.crs.to_epsg() == (4326 if ending == ".geojson" else 32633)
    assert dict(zip(found.class_id, found.class_name, strict=True)) == {0: "farmland", 1: "forêt", 5: "class 5"}
    assert shapely.coverage_is_valid(found.geometry.values)
    assert "confidence_percent" not in found
    center = found.to_crs("EPSG:4326").union_all().centroid
    equal_area = found.to_crs(f"+proj=laea +lon_0={center.x} +lat_0={center.y} +datum=WGS84").area
    np.testing.assert_allclose(found.area_m2, equal_area, rtol=1e-6 if ending != ".geojson" else 5e-5)  # 9 decimals
    if ending != ".geojson":
        for value, part in found.groupby("class_id"):
            assert part.area.sum() == pytest.approx(100 * np.count_nonzero(classes == value), rel=1e-9)


def test_mean_confidence(tmp_path: Path) -> None:
    source = make_map(tmp_path / "a.tif", [[0, 0, 1], [255, 0, 1]])  # percent: 0 1 2 / - 4 5
    vectorize(source, tmp_path / "a.gpkg", confidence=tmp_path / "confidence_a.tif")
    found = read(tmp_path / "a.gpkg").set_index("class_id").confidence_percent
    assert found.to_dict() == pytest.approx({0: 5 / 3, 1: 3.5})


def test_confidence_on_another_grid(tmp_path: Path) -> None:
    source = make_map(tmp_path / "a.tif", noisy((4, 4)))
    make_map(tmp_path / "b.tif", noisy((4, 4)), affine=Affine.translation(10, 0) * UTM)
    with pytest.raises(GridError, match=r"confidence_b\.tif: isn't on the land-cover map's grid"):
        vectorize(source, tmp_path / "a.gpkg", confidence=tmp_path / "confidence_b.tif")


@pytest.mark.parametrize("ending", [".gpkg", ".fgb", ".parquet"])
def test_without_a_crs(tmp_path: Path, ending: str) -> None:
    source = make_map(tmp_path / "a.tif", noisy((5, 6)), None, Affine.identity())
    vectorize(source, tmp_path / f"a{ending}")
    found = read(tmp_path / f"a{ending}")
    assert found.area_m2.isna().all()
    assert found.total_bounds.tolist() == [0, 0, 6, 5]


def test_geojson_needs_a_crs(tmp_path: Path) -> None:
    source = make_map(tmp_path / "a.tif", noisy((5, 6)), None, Affine.identity())
    with pytest.raises(OutputError, match=r"no CRS; write \.gpkg"):
        vectorize(source, tmp_path / "a.geojson")
    assert not (tmp_path / "a.geojson").exists()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_map_without_data(tmp_path: Path, ending: str) -> None:
    source = make_map(tmp_path / "a.tif", np.full((5, 6), 255))
    assert vectorize(source, tmp_path / f"a{ending}") == 0
    assert len(read(tmp_path / f"a{ending}")) == 0


def test_geojson_bends_borders_that_are_straight_on_the_map(tmp_path: Path) -> None:
    """A border of 20 km in UTM, at the zone's edge, isn't straight in longitude and latitude."""
    source = make_map(tmp_path / "a.tif", np.repeat([[0], [1]], 2000, axis=1), affine=Affine(10, 0, 2e5, 0, -10, 7e6))
    vectorize(source, tmp_path / "a.geojson")
    found = read(tmp_path / "a.geojson")
    assert shapely.coverage_is_valid(found.geometry.values)
    assert shapely.get_num_coordinates(found.geometry.values).min() > 60
    back = found.to_crs("EPSG:32633").geometry.values
    np.testing.assert_allclose(shapely.area(back), 2000 * 100, rtol=1e-3)
    exterior = json.loads((tmp_path / "a.geojson").read_text())["features"][0]["geometry"]["coordinates"][0]
    assert shapely.LinearRing(exterior).is_ccw


def test_geojson_is_cut_at_the_antimeridian(tmp_path: Path) -> None:
    source = make_map(tmp_path / "a.tif", np.zeros((20, 100)), "EPSG:32601", Affine(1000, 0, 1.2e5, 0, -1000, 5e5))
    vectorize(source, tmp_path / "a.geojson")
    found = read(tmp_path / "a.geojson")
    parts = found.geometry.explode(index_parts=False)
    assert len(parts) == 2
    assert (parts.bounds.maxx - parts.bounds.minx).max() < 2
    area = sum(abs(Geod(ellps="WGS84").geometry_area_perimeter(p)[0]) for p in parts)
    assert area == pytest.approx(found.area_m2[0], rel=1e-3)


@pytest.mark.parametrize("west", [-180, 0])
def test_geojson_of_the_whole_earth(tmp_path: Path, west: int) -> None:
    source = make_map(tmp_path / "a.tif", np.zeros((18, 36)), "EPSG:4326", Affine(10, 0, west, 0, -10, 90))
    vectorize(source, tmp_path / "a.geojson")
    found = read(tmp_path / "a.geojson")
    assert found.total_bounds.tolist() == [-180, -90, 180, 90]
    assert found.geometry.area.sum() == pytest.approx(360 * 180)


def test_geojson_around_a_pole(tmp_path: Path) -> None:
    source = make_map(tmp_path / "a.tif", np.zeros((4, 4)), "EPSG:3413", Affine(10, 0, -20, 0, -10, 20))
    with pytest.raises(OutputError, match="surrounds a pole"):
        vectorize(source, tmp_path / "a.geojson")


@pytest.mark.parametrize(("count", "dtype"), [(1, "float32"), (3, "uint8")])
def test_not_a_class_map(tmp_path: Path, count: int, dtype: str) -> None:
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=4, height=4, count=count, dtype=dtype) as d:
        d.write(np.zeros((count, 4, 4), dtype))
    with pytest.raises(SourceError, match="not one band of classes"):
        vectorize(tmp_path / "a.tif", tmp_path / "a.gpkg")


def test_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("not a raster")
    with pytest.raises(SourceError, match="can't be read"):
        vectorize(tmp_path / "a.tif", tmp_path / "a.gpkg")


def test_unwritable(tmp_path: Path) -> None:
    source = make_map(tmp_path / "a.tif", noisy((4, 4)))
    for ending in ENDINGS:
        with pytest.raises(OutputError):
            vectorize(source, tmp_path / "gone" / f"a{ending}")
