"""Areas of interest: what is read, what is refused, which pixels they hold, and maps cut by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from gopt_geo.aoi import read_aoi
from gopt_geo.errors import AoiError
from gopt_geo.grid import GeoBox, Window, crop

UTM = GeoBox((700, 900), Affine(10, 0, 500000, 0, -10, 5000000), "EPSG:32632")


def centres(grid: GeoBox) -> np.ndarray:
    """Pixel centres in the grid's CRS, [h * w, 2]."""
    rows, cols = np.mgrid[: grid.shape[0], : grid.shape[1]] + 0.5
    x, y = grid.affine * (cols.ravel(), rows.ravel())
    return np.stack([x, y], axis=1)


def exact(grid: GeoBox, polygon: shapely.Geometry, crs: str) -> np.ndarray:
    """The definition: every pixel centre is brought to the polygon's CRS and asked."""
    points = centres(grid)
    there = Transformer.from_crs(grid.crs.proj, crs, always_xy=True).transform(*points.T)
    return shapely.contains_xy(polygon, *there).reshape(tuple(grid.shape))


def whole(grid: GeoBox) -> Window:
    return Window(0, 0, *grid.shape)


BOX_UTM = shapely.box(501234.0, 4995000.0, 507654.0, 4999321.0)


@pytest.mark.parametrize("driver", ["GeoJSON", "GPKG", "ESRI Shapefile", "FlatGeobuf"])
def test_formats_agree(driver: str, tmp_path: Path) -> None:
    crs = "EPSG:4326" if driver == "GeoJSON" else "EPSG:32632"
    frame = geopandas.GeoDataFrame(geometry=[BOX_UTM], crs="EPSG:32632")
    frame["geometry"] = frame.geometry.segmentize(100)
    path = (
        tmp_path / {"GeoJSON": "a.geojson", "GPKG": "a.gpkg", "ESRI Shapefile": "a.shp", "FlatGeobuf": "a.fgb"}[driver]
    )
    frame.to_crs(crs).to_file(path, driver=driver)
    mask = read_aoi(path).mask(UTM, whole(UTM))
    assert (mask == exact(UTM, BOX_UTM, "EPSG:32632")).all()
    assert mask.sum() == 642 * 432


def test_texts_agree() -> None:
    by_wkt = read_aoi(BOX_UTM.wkt, "EPSG:32632")
    by_ewkt = read_aoi(f"SRID=32632;{BOX_UTM.wkt}")
    by_bounds = read_aoi("501234, 4995000,507654,4999321", "EPSG:32632")
    expected = exact(UTM, BOX_UTM, "EPSG:32632")
    for aoi in (by_wkt, by_ewkt, by_bounds):
        assert (aoi.mask(UTM, whole(UTM)) == expected).all()
    degrees = shapely.box(9.01, 45.1, 9.08, 45.14)
    text = json.dumps(shapely.geometry.mapping(degrees))
    assert (read_aoi(text).mask(UTM, whole(UTM)) == read_aoi("9.01,45.1,9.08,45.14").mask(UTM, whole(UTM))).all()


def test_edges_bend_as_the_projection_does() -> None:
    grid = GeoBox((400, 3000), Affine(100, 0, 300000, 0, -100, 6020000), "EPSG:32632")
    parallel = shapely.box(5.0, 54.0, 13.0, 54.1)  # its sides sag by kilometres in UTM
    mask = read_aoi("5.0,54.0,13.0,54.1").mask(grid, whole(grid))
    expected = exact(grid, parallel, "EPSG:4326")
    assert expected.any()
    assert (mask != expected).sum() <= 3  # a centre may lie on the border
    corners = shapely.transform(
        parallel,
        lambda p: np.stack(~grid.affine * Transformer.from_crs(4326, 32632, always_xy=True).transform(*p.T), axis=1),
    )
    straight = shapely.contains_xy(corners, *(np.mgrid[:3000, :400] + 0.5).reshape(2, -1)).reshape(3000, 400).T
    assert (straight != expected).sum() > 1000


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["EPSG:4326", "EPSG:32632", "EPSG:3035"]))
def test_mask_is_the_centres_inside(seed: int, crs: str) -> None:
    rng = np.random.default_rng(seed)
    grid = GeoBox((60, 80), Affine(20, 0, 500000, 0, -20, 5000000), "EPSG:32632")
    angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(100, 900, (7, 1)) + (500800, 4999400)
    there = Transformer.from_crs(32632, crs, always_xy=True)
    polygon = shapely.Polygon(np.stack(there.transform(*ring.T), axis=1))
    if not polygon.is_valid:
        return
    expected = exact(grid, polygon, crs)
    if not expected.any():
        return
    aoi = read_aoi(polygon.wkt, crs)
    assert (aoi.mask(grid, whole(grid)) != expected).sum() <= 1
    on = aoi.on(grid)
    assert on.window.shape == tuple(np.ptp(np.argwhere(on.read(whole(grid))), axis=0) + 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(-50, 690), st.integers(-50, 890), st.integers(1, 600), st.integers(1, 600))
def test_window_is_cut_from_the_whole(row: int, col: int, height: int, width: int) -> None:
    aoi = read_aoi(
        "SRID=32632;POLYGON ((499000 5001000, 506005 4999995, 508888 4993100, 500500 4994000, 499000 5001000))"
    )
    mask = aoi.on(UTM)
    window = Window(row, col, height, width)
    padded = np.pad(mask.read(whole(UTM)), 700)
    assert (mask.read(window) == padded[row + 700 : row + 700 + height, col + 700 : col + 700 + width]).all()


def test_several_polygons_and_holes() -> None:
    ring = BOX_UTM.difference(BOX_UTM.buffer(-1000))
    other = shapely.box(508000, 4993500, 508500, 4993900)
    aoi = read_aoi(shapely.union_all([ring, other]).wkt, "EPSG:32632")
    assert len(aoi.polygons) == 2
    assert (aoi.mask(UTM, whole(UTM)) == exact(UTM, ring.union(other), "EPSG:32632")).all()


@pytest.mark.parametrize(
    "text",
    [
        "179.95,-17.05,-179.95,-16.95",
        "179.95,-17.05,180.05,-16.95",
        "-180.05,-17.05,-179.95,-16.95",
        "MULTIPOLYGON (((179.95 -17.05, 180 -17.05, 180 -16.95, 179.95 -16.95, 179.95 -17.05)),"
        " ((-180 -17.05, -179.95 -17.05, -179.95 -16.95, -180 -16.95, -180 -17.05)))",
    ],
)
@pytest.mark.parametrize("crs", ["EPSG:32760", "EPSG:32701", "EPSG:4326"])
def test_antimeridian(text: str, crs: str) -> None:
    x, y = (180.0, -17.0)
    if crs == "EPSG:4326":
        grid = GeoBox((240, 240), Affine(0.001, 0, x - 0.12, 0, -0.001, y + 0.12), crs)
    else:
        x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(x, y)
        grid = GeoBox((240, 240), Affine(100, 0, round(x) - 12000, 0, -100, round(y) + 12000), crs)
    mask = read_aoi(text).mask(grid, whole(grid))
    lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(*centres(grid).T)
    expected = ((np.abs(np.mod(lon, 360) - 180) < 0.05) & (np.abs(lat + 17) < 0.05)).reshape(240, 240)
    assert expected.sum() > 5000
    assert (mask != expected).sum() <= (300 if crs == "EPSG:4326" else 3)  # there borders run along centres


def test_area_larger_than_the_scene_is_everywhere() -> None:
    mask = read_aoi("-180,-90,180,90").on(UTM)
    assert mask.read(whole(UTM)).all()
    assert mask.window == whole(UTM)
    assert any("beyond the scene" in notice for notice in mask.notices)


def test_invalid_polygons_are_made_valid_and_told(tmp_path: Path) -> None:
    bow = "POLYGON ((501000 4995000, 505000 4999000, 505000 4995000, 501000 4999000, 501000 4995000))"
    aoi = read_aoi(bow, "EPSG:32632")
    assert any("made valid" in notice for notice in aoi.notices)
    assert aoi.mask(UTM, whole(UTM)).sum() == pytest.approx(2 * 400 * 200 / 2, rel=0.02)


def write(path: Path, shapes: list[Any], crs: str | None, **options: Any) -> Path:
    geopandas.GeoDataFrame(geometry=shapes, crs=crs).to_file(path, **options)
    return path


@pytest.mark.parametrize(
    ("text", "crs", "found"),
    [
        ("x" * 5000, None, "there is no such file"),
        ("nowhere.gpkg", None, "there is no such file"),
        ("POINT (9 45)", None, "points"),
        ("LINESTRING (9 45, 10 46)", None, "lines"),
        ("GEOMETRYCOLLECTION (POLYGON ((9 45, 10 45, 10 46, 9 45)), POINT (9 45))", None, "points"),
        ("POLYGON EMPTY", None, "empty"),
        ("POLYGON ((9 45, 10 45", None, "WKT"),
        ("POLYGON ((9 45, 10 45, 9 45))", None, "no area"),
        ("9,45,9,46", None, "no area"),
        ("9,46,10,45", None, "no area"),
        ("500000,4990000,501000,4991000", None, "beyond 90 degrees"),
        ("10,45,9,46", "EPSG:4327777", "no such CRS"),
        ("507000,45,9,46", None, "minx is above maxx"),
        ("SRID=4326;POLYGON ((9 45, 10 45, 10 46, 9 45))", "EPSG:32632", "--aoi-crs says"),
        ('{"type": "Nothing"}', None, "can't be read"),
    ],
)
def test_refused_texts(text: str, crs: str | None, found: str) -> None:
    with pytest.raises(AoiError, match=found):
        read_aoi(text, crs)


def test_refused_files(tmp_path: Path) -> None:
    with pytest.raises(AoiError, match="states no CRS"):
        read_aoi(write(tmp_path / "a.shp", [BOX_UTM], None))
    assert read_aoi(tmp_path / "a.shp", "EPSG:32632").mask(UTM, whole(UTM)).any()
    with pytest.raises(AoiError, match="--aoi-crs says"):
        read_aoi(write(tmp_path / "b.gpkg", [BOX_UTM], "EPSG:32632"), "EPSG:4326")
    with pytest.raises(AoiError, match="it is empty"):
        read_aoi(write(tmp_path / "c.gpkg", [], "EPSG:32632", driver="GPKG"))
    (tmp_path / "d.gpkg").write_bytes(b"nothing of the kind")
    with pytest.raises(AoiError, match="can't be read"):
        read_aoi(tmp_path / "d.gpkg")
    write(tmp_path / "e.gpkg", [BOX_UTM], "EPSG:32632", layer="one")
    write(tmp_path / "e.gpkg", [BOX_UTM.buffer(-900)], "EPSG:32632", layer="two")
    with pytest.raises(AoiError, match="several layers"):
        read_aoi(tmp_path / "e.gpkg")
    one, two = (read_aoi(f"{tmp_path / 'e.gpkg'}|{name}").mask(UTM, whole(UTM)).sum() for name in ("one", "two"))
    assert one > two > 0


def test_outside_and_too_small() -> None:
    with pytest.raises(AoiError, match="doesn't touch the scene"):
        read_aoi("20,10,21,11").on(UTM)
    with pytest.raises(AoiError, match="doesn't touch the scene"):
        read_aoi("9.2,45,9.3,45.05").on(UTM)
    with pytest.raises(AoiError, match="no pixel's centre"):
        read_aoi("500011,4999991,500013,4999993", "EPSG:32632").on(UTM)
    with pytest.raises(AoiError, match="no CRS"):
        read_aoi("9,45,10,46").on(GeoBox((5, 5), Affine.identity(), None))


def test_wkt_for_provenance_is_in_degrees() -> None:
    shape = shapely.from_wkt(read_aoi(BOX_UTM.wkt, "EPSG:32632").wkt)
    west, south, east, north = shape.bounds
    assert 9 < west < east < 9.2
    assert 45 < south < north < 46


# maps


@pytest.fixture
def corner(scene: dict[str, Path]) -> tuple[str, Window]:
    """An area over one part of the scene, and the window of its pixels."""
    with rasterio.open(scene["scene"]) as dataset:
        x, y = dataset.transform * (70.2, 10.2)
        polygon = shapely.Polygon([(x, y), (x + 400, y - 50), (x + 350, y - 300), (x + 40, y - 260)])
        return f"SRID={dataset.crs.to_epsg()};{polygon.wkt}", Window(10, 70, 30, 40)


def test_predict_inside_is_bit_identical(
    run: Callable[..., Any], tmp_path: Path, corner: tuple[str, Window], pixels: Callable[..., np.ndarray]
) -> None:
    text, expected = corner
    full = run("full.tif", confidence="full_percent.tif")
    cut = run("cut.tif", "cut.gpkg", confidence="cut_percent.tif", preview="cut.png", aoi=text)
    with rasterio.open(tmp_path / "full.tif") as one, rasterio.open(tmp_path / "cut.tif") as two:
        grid = GeoBox(one.shape, one.transform, one.crs.to_wkt())
        assert two.tags()["GOPT_GEO_AOI"].startswith("SRID=")
        place = ~one.transform * (two.transform.c, two.transform.f)
    row, col = round(place[1]), round(place[0])
    height, width = cut.shape
    assert (row, col, height, width) == (expected.row, expected.col, expected.height, expected.width)
    inside = read_aoi(text).mask(grid, Window(row, col, height, width))
    for name in ("{}.tif", "{}_percent.tif"):
        whole_map = pixels(tmp_path / name.format("full"))[row : row + height, col : col + width]
        part = pixels(tmp_path / name.format("cut"))
        assert (part[inside] == whole_map[inside]).all()
        assert (part[~inside] == 255).all()
        assert (part[inside] != 255).any()
        assert 0.3 < inside.mean() < 1
    assert cut.run.forwarded < full.run.forwarded
    polygons = geopandas.read_file(tmp_path / "cut.gpkg")
    assert polygons.geometry.union_all().area == pytest.approx(100 * (pixels(tmp_path / "cut.tif") != 255).sum())
    assert (tmp_path / "cut.png").exists()


def test_predict_skips_tiles_without_the_area(run: Callable[..., Any], corner: tuple[str, Window]) -> None:
    two = "MULTIPOLYGON (((0 0, 60 0, 60 -60, 0 -60, 0 0)), ((1200 -800, 1290 -800, 1290 -890, 1200 -890, 1200 -800)))"
    _, _ = corner
    from gopt_geo.description import describe

    report = run("none.tif")
    with rasterio.open(report.outputs[0]) as dataset:
        shape = shapely.transform(
            shapely.from_wkt(two), lambda p: p + np.array([dataset.transform.c, dataset.transform.f])
        )
        text = f"SRID={dataset.crs.to_epsg()};{shape.wkt}"
    assert describe(report.outputs[0])
    cut = run("two.tif", aoi=text)
    assert cut.run.tiles == report.run.tiles  # the window spans them
    assert cut.run.forwarded <= 3  # of 24
    assert cut.run.complete_share <= 1


def test_predict_share_counts_the_area_alone(run: Callable[..., Any], aligned_scene: dict[str, Path]) -> None:
    with rasterio.open(aligned_scene["scene"]) as dataset:
        x, y = dataset.transform * (5, 5)
        text = f"SRID={dataset.crs.to_epsg()};" + shapely.Point(x + 400, y - 400).buffer(200).wkt
    cut = run("round.tif", aoi=text, optical=aligned_scene["scene"], sar=aligned_scene["sar"])
    assert cut.shared == pytest.approx(1.0)


def test_predict_leaves_nothing_of_an_area_outside(run: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(AoiError, match="doesn't touch"):
        run("map.tif", aoi="100,10,101,11")
    with pytest.raises(AoiError, match="no such file"):
        run("map.tif", aoi=str(tmp_path / "missing.gpkg"))
    with pytest.raises(AoiError, match="it needs --aoi"):
        run("map.tif", aoi_crs="EPSG:4326")
    assert list(tmp_path.iterdir()) == []


def test_predict_with_area_in_strips_is_the_same(
    run: Callable[..., Any], tmp_path: Path, corner: tuple[str, Window], pixels: Callable[..., np.ndarray]
) -> None:
    run("one.tif", aoi=corner[0])
    run("two.tif", aoi=corner[0], readers=1)
    assert (pixels(tmp_path / "one.tif") == pixels(tmp_path / "two.tif")).all()


def test_crop_keeps_the_lattice() -> None:
    mask = read_aoi(BOX_UTM.wkt, "EPSG:32632").on(UTM)
    box = crop(UTM, mask.window)
    assert (box.affine.c - UTM.affine.c) % 10 == 0
    assert (box.affine.f - UTM.affine.f) % 10 == 0


@pytest.mark.brief
@pytest.mark.parametrize("ring", ["[[9.005, 41.98]]", "[[9.005, 41.98], [9.006, 41.98]]"])
def test_polygons_of_too_few_corners(tmp_path: Path, ring: str) -> None:
    text = f'{{"type": "Polygon", "coordinates": [{ring}]}}'
    file = tmp_path / "few.geojson"
    file.write_text(text)
    for source in (text, file):
        with pytest.raises(AoiError, match=r"can't be built|no area|can't be read|is empty"):
            read_aoi(source)


def test_surroundings_of_an_area() -> None:
    grid = GeoBox((2000, 3000), Affine(10, 0, 500_000, 0, -10, 4_600_000), "EPSG:32631")
    area = read_aoi("510000,4590000,510500,4590500", "EPSG:32631")
    part = area.surroundings(grid)
    assert part.shape == (512, 512)
    assert area.on(part).window.shape == area.on(grid).window.shape == (50, 50)
    corner = read_aoi("500000,4599000,500100,4600000", "EPSG:32631")
    assert corner.surroundings(grid).affine == grid.affine
    elsewhere = read_aoi("10000,4599000,11000,4600000", "EPSG:32631")
    assert elsewhere.surroundings(grid) is grid
