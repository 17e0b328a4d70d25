"""Polygon files: formats, attributes, refusals."""

import gc
import json
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import CRS, Geod
from scipy import ndimage

from gopt_geo.errors import GridError, OutputError, SourceError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.outputs import blockpolygons, vectors
from gopt_geo.outputs.areas import region_areas
from gopt_geo.outputs.classraster import ClassRaster
from gopt_geo.outputs.landcover import LandCoverWriter
from gopt_geo.outputs.legend import LegendClass
from gopt_geo.outputs.noding import densified, label_regions, region_polygons
from gopt_geo.outputs.vectors import to_longitude_latitude, vectorize

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


def patches(shape: tuple[int, int] = (230, 290), scale: float = 9.0) -> Any:
    """Regions that go on over many blocks, with borders that are straight for more than 64 pixels."""
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=shape), scale)
    classes = np.digitize(noise, np.quantile(noise, [0.3, 0.5, 0.9])).astype(np.uint8)
    classes[20:, 30] = 5
    classes[77, 40:] = 6
    classes[classes == 3] = 255
    return classes


def expected(classes: Any, valid: Any, percent: Any, known: Any, ending: str) -> gpd.GeoDataFrame:
    """Return the polygons of a map that is held whole, in UTM."""
    labels, count = label_regions(classes, valid)
    regions = np.arange(1, count + 1)
    shapes, crs = region_polygons(labels, count, UTM), CRS("EPSG:32633")
    if ending == ".geojson":
        pixels = densified(region_polygons(labels, count, Affine.identity()), 64)
        shapes = shapely.orient_polygons(shapely.transform(pixels, lambda p: p @ [[10, 0], [0, -10]] + [3e5, 5e6]))
        shapes, crs = to_longitude_latitude(shapes, crs, "a.geojson"), CRS("EPSG:4326")
    fields = {
        "class_id": ndimage.maximum(classes, labels, regions),
        "area_m2": region_areas(labels, count, GeoBox(classes.shape, UTM, "EPSG:32633")),
        "confidence_percent": ndimage.mean(percent, np.where(known, labels, 0), regions),
    }
    return gpd.GeoDataFrame(fields, geometry=shapes, crs=crs)


def in_order(frame: gpd.GeoDataFrame, digits: int | None = None) -> gpd.GeoDataFrame:
    """Sort by shape, vertex by vertex."""
    shapes = (
        frame.geometry.values
        if digits is None
        else shapely.transform(frame.geometry.values, partial(np.round, decimals=digits))
    )
    keys = [shapely.to_wkb(shape) for shape in shapely.normalize(shapes)]
    return frame.assign(key=keys).sort_values("key").reset_index(drop=True)


@pytest.mark.brief
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("block", [48, 2048])
def test_polygons_are_those_of_the_whole_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, block: int
) -> None:
    classes = patches()
    source, sure = make_map(tmp_path / "a.tif", classes), tmp_path / "confidence_a.tif"
    with rasterio.open(sure, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        percent = file.read(1)
        percent[::3, :150] = 255  # some have no confidence where there is a class
        file.write(percent, 1)
    monkeypatch.setattr(blockpolygons, "BLOCK", block)
    count = vectorize(source, tmp_path / f"a{ending}", confidence=sure)
    wanted = expected(classes, classes != 255, percent, percent != 255, ending)
    assert count == len(wanted)
    digits = 9 if ending == ".geojson" else None
    found, wanted = in_order(read(tmp_path / f"a{ending}"), digits), in_order(wanted, digits)
    assert (found.key == wanted.key).all(), "vertex by vertex"
    assert (found.class_id == wanted.class_id).all()
    np.testing.assert_allclose(found.area_m2, wanted.area_m2, rtol=1e-8)
    np.testing.assert_allclose(found.confidence_percent, wanted.confidence_percent, rtol=1e-12)
    if ending == ".geojson":
        assert (
            shapely.get_num_coordinates(found.geometry.values).sum()
            > shapely.get_num_coordinates(region_polygons(*label_regions(classes, classes != 255), UTM)).sum()
        ), "borders are densified"
    else:
        assert shapely.coverage_is_valid(found.geometry.values)
        for value, part in found.groupby("class_id"):
            assert part.area.sum() == pytest.approx(100 * np.count_nonzero(classes == value), rel=1e-9)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_any_type_and_any_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """No value of a type is taken for nodata: what is valid is for the file's mask to tell."""
    low, high = max(np.iinfo(kind).min, -(2**31)), min(np.iinfo(kind).max, 2**31 - 1)
    rng = np.random.default_rng(2)
    classes = rng.choice(np.array([low, 0, 1, high], kind), (60, 50))
    valid = rng.random(classes.shape) > 0.1
    profile = {"driver": "GTiff", "height": 60, "width": 50, "count": 1, "dtype": kind, "transform": UTM}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"),
        rasterio.open(tmp_path / "a.tif", "w", crs="EPSG:32633", **profile) as file,
    ):
        file.write(classes, 1)
        file.write_mask(valid)
    monkeypatch.setattr(blockpolygons, "BLOCK", 16)
    vectorize(tmp_path / "a.tif", tmp_path / "a.gpkg")
    found = in_order(read(tmp_path / "a.gpkg"))
    wanted = in_order(expected(classes.astype(np.int64), valid, classes, valid, ".gpkg"))
    assert (found.key == wanted.key).all()
    assert (found.class_id == wanted.class_id).all()
    assert set(found.class_name) == {f"class {value}" for value in (low, 0, 1, high)}


def test_portions_are_added_where_the_format_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_map(tmp_path / "a.tif", noisy())
    written: list[int] = []
    usual = vectors.write_features

    def write_features(output: Path, shapes: Any, *args: Any, **kwargs: Any) -> None:
        written.append(len(shapes))
        usual(output, shapes, *args, **kwargs)

    monkeypatch.setattr(vectors, "write_features", write_features)
    monkeypatch.setattr(vectors, "_AT_A_TIME", 200)
    monkeypatch.setattr(blockpolygons, "BLOCK", 16)
    for ending in ENDINGS:
        written.clear()
        count = vectorize(source, tmp_path / f"a{ending}", confidence=tmp_path / "confidence_a.tif")
        assert sum(written) == count == len(read(tmp_path / f"a{ending}"))
        assert (len(written) > 5) is (ending == ".gpkg")


def test_memory_does_not_grow_with_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight times the rows of the same ground: the same peak, and no read larger than a block and its frame."""
    part = patches((256, 256))
    part[-1] = 255  # what is open in one part must not be in the next: that would be one polygon that has to be held
    largest = 0
    usual = ClassRaster.pixels

    def pixels(raster: ClassRaster, window: Window) -> Any:
        nonlocal largest
        largest = max(largest, window.height * window.width)
        gc.collect()  # cycles that nothing holds any more wait for the collector, as many as it pleases
        return usual(raster, window)

    monkeypatch.setattr(ClassRaster, "pixels", pixels)
    monkeypatch.setattr(blockpolygons, "BLOCK", 128)
    monkeypatch.setattr(vectors, "_AT_A_TIME", 50)
    sources = {times: make_map(tmp_path / f"{times}.tif", np.tile(part, (times, 1))) for times in (2, 16)}

    def peak(times: int) -> int:
        tracemalloc.start()
        vectorize(sources[times], tmp_path / f"{times}.gpkg", confidence=tmp_path / f"confidence_{times}.tif")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    gc.freeze()  # what is there already needn't be looked through each time
    try:
        peak(16)  # first use of everything
        assert peak(16) < 1.15 * peak(2)
    finally:
        gc.unfreeze()
    assert largest == 130 * 129


def test_confidence_of_another_size(tmp_path: Path) -> None:
    source = make_map(tmp_path / "a.tif", noisy((4, 4)))
    make_map(tmp_path / "b.tif", noisy((4, 5)))
    with pytest.raises(GridError, match=r"confidence_b\.tif: isn't on the land-cover map's grid"):
        vectorize(source, tmp_path / "a.gpkg", confidence=tmp_path / "confidence_b.tif")


@pytest.mark.parametrize("name", ["a.tif", "confidence_a.tif"])
def test_damaged_bytes_are_told(tmp_path: Path, name: str) -> None:
    source = make_map(tmp_path / "a.tif", noisy((600, 600)))
    with rasterio.open(tmp_path / name) as file:
        start = int(file.get_tag_item("BLOCK_OFFSET_0_1", "TIFF", bidx=1))
    data = bytearray((tmp_path / name).read_bytes())
    data[start : start + 40] = b"\xff" * 40
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=rf"/{name}: can't be read"):
        vectorize(source, tmp_path / "a.gpkg", confidence=tmp_path / "confidence_a.tif")
