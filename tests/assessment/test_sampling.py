"""Samples of a map: what is drawn, where, and how it is written."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from scipy.stats import chisquare

import gopt_geo
import gopt_geo.assessment.frame as frame_module
from gopt_geo.aoi import read_aoi
from gopt_geo.assessment.frame import MapFrame
from gopt_geo.assessment.sampling import draw_units
from gopt_geo.errors import AoiError, GoptGeoError, OutputError, SampleError, SourceError

NODATA = 255


def write_map(path: Path, values: np.ndarray, *, crs: str | None = "EPSG:32632", transform=None, names: bool = True):
    """Write a class map; with a colour table and names of classes 1 to 4 (0 to 3 tenths are theirs)."""
    transform = transform or from_origin(500_000, 5_000_000, 10, 10)
    profile = {"driver": "GTiff", "height": values.shape[0], "width": values.shape[1], "count": 1}
    with rasterio.open(
        path,
        "w",
        dtype=values.dtype.name,
        nodata=NODATA if values.dtype == np.uint8 else None,
        crs=crs,
        transform=transform,
        **profile,
    ) as target:
        target.write(values, 1)
    if names:
        classes = "".join(f"<Category>{name}</Category>" for name in ("", "water", "forest", "road", "city"))
        Path(f"{path}.aux.xml").write_text(
            f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{classes}</CategoryNames></PAMRasterBand></PAMDataset>'
        )
    return path


def patchy(seed: int = 0, shape: tuple[int, int] = (90, 120)) -> np.ndarray:
    """Return a map with a rare class 3 and holes."""
    rng = np.random.default_rng(seed)
    values = np.repeat(np.repeat(rng.choice([1, 2, 4], (shape[0] // 5, shape[1] // 5)), 5, 0), 5, 1)
    values[rng.random(values.shape) < 0.01] = 3
    values[:10, :10] = NODATA
    return values.astype(np.uint8)


@pytest.fixture
def landcover(tmp_path: Path) -> Path:
    return write_map(tmp_path / "map.tif", patchy())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), units=st.tuples(*[st.integers(0, 60)] * 4), block=st.integers(7, 200))
def test_exact_counts_no_duplicates_right_strata_and_no_trace_of_blocks(
    landcover: Path, seed: int, units: tuple[int, ...], block: int
) -> None:
    values = patchy()
    with MapFrame(landcover) as frame:
        strata = frame.strata()
        assert strata.pixels.tolist() == [int((values == v).sum()) for v in (1, 2, 3, 4)]
        wanted = np.minimum(units, strata.pixels)
        drawn = draw_units(frame, strata, wanted, seed)
        assert np.bincount(drawn.strata, minlength=4).tolist() == wanted.tolist()
        assert len(set(zip(drawn.rows.tolist(), drawn.cols.tolist(), strict=True))) == wanted.sum()
        assert np.array_equal(values[drawn.rows, drawn.cols], strata.values[drawn.strata])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frame_module, "BLOCK", block)
            again = draw_units(frame, strata, wanted, seed)
        assert np.array_equal(again.rows, drawn.rows)
        assert np.array_equal(again.cols, drawn.cols)


@pytest.mark.brief
def test_a_larger_sample_holds_the_smaller_one_and_another_seed_another_sample(landcover: Path) -> None:
    def places(units: int, seed: int) -> set[tuple[int, int]]:
        with MapFrame(landcover) as frame:
            drawn = draw_units(frame, frame.strata(), np.full(4, units), seed)
        return set(zip(drawn.rows.tolist(), drawn.cols.tolist(), strict=True))

    assert places(20, 3) < places(45, 3)
    assert len(places(20, 3) & places(20, 4)) < 30  # the rare class has few pixels to choose from


def test_every_pixel_is_as_likely_and_neighbours_are_independent(tmp_path: Path) -> None:
    path = write_map(tmp_path / "even.tif", np.ones((10, 20), np.uint8))
    hits, pairs, rounds = np.zeros((10, 20)), 0, 3000
    with MapFrame(path) as frame:
        strata = frame.strata()
        for seed in range(rounds):
            drawn = draw_units(frame, strata, np.array([20]), seed)
            chosen = np.zeros((10, 20), bool)
            chosen[drawn.rows, drawn.cols] = True
            hits += chosen
            pairs += int((chosen[:, 1:] & chosen[:, :-1]).sum())
    assert chisquare(hits.ravel()).pvalue > 1e-4
    expected = rounds * 190 * (20 / 200) * (19 / 199)
    assert pairs == pytest.approx(expected, abs=5 * np.sqrt(expected))


def test_rows_are_in_random_order(landcover: Path) -> None:
    """Neither place nor class tells where in the file a unit stands."""
    with MapFrame(landcover) as frame:
        drawn = draw_units(frame, frame.strata(), np.full(4, 60), 0)
    rank = np.arange(len(drawn.rows))
    for column in (drawn.rows, drawn.cols, drawn.strata):
        assert abs(np.corrcoef(rank, column)[0, 1]) < 0.2


@pytest.mark.brief
@pytest.mark.parametrize("ending", ["gpkg", "geojson", "fgb", "parquet"])
@pytest.mark.parametrize("shape", ["point", "pixel"])
def test_files(landcover: Path, tmp_path: Path, ending: str, shape) -> None:
    output = tmp_path / f"sample.{ending}"
    report = gopt_geo.sample(landcover, output, n=210, shape=shape, seed=5)
    assert report.units == 210
    units = geopandas.read_parquet(output) if ending == "parquet" else geopandas.read_file(output)
    assert len(units) == 210
    assert units.crs.to_epsg() == (4326 if ending == "geojson" else 32632)
    assert set(units.geometry.geom_type) == {"Point" if shape == "point" else "Polygon"}
    local = units.to_crs(32632)
    centres = shapely.centroid(local.geometry.values)
    assert np.allclose(shapely.get_x(centres), 500_000 + 10 * (units["col"] + 0.5), atol=1e-3)
    assert np.allclose(shapely.get_y(centres), 5_000_000 - 10 * (units["row"] + 0.5), atol=1e-3)
    if shape == "pixel":
        assert np.allclose(local.geometry.area, 100, atol=0.1)
    assert units["reference"].isna().all()
    assert list(units.columns[:2]) == ["id", "reference"]
    assert sorted(units["id"]) == list(range(1, 211))
    values = patchy()
    assert np.array_equal(values[units["row"], units["col"]], units["stratum"])
    names = {1: "water", 2: "forest", 3: "road", 4: "city"}
    assert units["map_class"].tolist() == [names[v] for v in units["stratum"]]
    assert units.groupby("stratum")["weight"].sum().to_numpy() == pytest.approx([(values == v).sum() for v in names])
    strata = units.groupby("stratum")[["stratum_pixels", "stratum_area_m2"]].first()
    assert strata["stratum_pixels"].tolist() == [stratum.pixels for stratum in report.strata]
    assert strata["stratum_area_m2"].to_numpy() == pytest.approx(strata["stratum_pixels"] * 100, rel=2e-3)
    assert set(units["map"]) == {"map.tif"}


def test_a_blind_sample_tells_no_class(landcover: Path, tmp_path: Path) -> None:
    gopt_geo.sample(landcover, tmp_path / "blind.gpkg", n=210, blind=True)
    units = geopandas.read_file(tmp_path / "blind.gpkg")
    told = {"id", "reference", "row", "col", "pixel_area_m2", "map", "frame_pixels", "map_check", "geometry"}
    assert set(units.columns) == told


def test_an_area_of_interest(landcover: Path, tmp_path: Path) -> None:
    area = "POLYGON ((500103 4999903, 500703 4999803, 500403 4999253, 500103 4999903))"
    gopt_geo.sample(landcover, tmp_path / "s.gpkg", n=300, aoi=area, aoi_crs="EPSG:32632", minimum=2)
    units = geopandas.read_file(tmp_path / "s.gpkg")
    assert len(units) == 300
    assert shapely.distance(shapely.from_wkt(area), units.geometry.values).max() < 1e-6
    with MapFrame(landcover, read_aoi(area, "EPSG:32632")) as frame:
        inside = frame.strata().pixels.sum()
        everything = draw_units(frame, frame.strata(), frame.strata().pixels, 0)
    assert set(units["frame_pixels"]) == {inside}
    assert len(everything.rows) == inside  # a census is possible


def test_a_map_in_degrees_has_areas_and_squares_across_the_antimeridian(tmp_path: Path) -> None:
    transform = from_origin(179.95, 10, 0.01, 0.01)
    path = write_map(tmp_path / "m.tif", np.ones((6, 10), np.uint8), crs="EPSG:4326", transform=transform)
    report = gopt_geo.sample(path, tmp_path / "s.geojson", n=60, shape="pixel", allocation="equal")
    units = geopandas.read_file(tmp_path / "s.geojson")
    bounds = units.total_bounds
    assert bounds[0] >= -180
    assert bounds[2] <= 180
    assert units["pixel_area_m2"].sum() == pytest.approx(report.strata[0].area_m2)
    points = gopt_geo.sample(path, tmp_path / "p.geojson", n=60, allocation="equal")
    assert points.units == 60
    assert np.abs(geopandas.read_file(tmp_path / "p.geojson").total_bounds[[0, 2]]).max() <= 180


def test_without_a_crs(tmp_path: Path) -> None:
    path = write_map(tmp_path / "m.tif", patchy(), crs=None)
    report = gopt_geo.sample(path, tmp_path / "s.gpkg", n=210)
    assert {stratum.area_m2 for stratum in report.strata} == {None}
    assert any("no CRS" in notice for notice in report.notices)
    with pytest.raises(OutputError, match="no CRS"):
        gopt_geo.sample(path, tmp_path / "s.geojson", n=210)


def test_the_size_follows_from_the_aim(landcover: Path, tmp_path: Path) -> None:
    report = gopt_geo.sample(landcover, tmp_path / "s.gpkg", target_se=0.02, expected_accuracy="water=0.95,0.8")
    assert report.required is not None
    assert report.units == max(report.required, 200)
    report = gopt_geo.sample(landcover, tmp_path / "t.gpkg", target_se=0.2, expected_accuracy=0.8)
    assert (report.required, report.units) == (4, 200)  # the minimum of each class asks for more


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, SampleError, "-n: nothing says how many"),
        ({"n": 300, "target_se": 0.1}, SampleError, "-n: the number of units is given twice"),
        ({"target_se": 0.1}, SampleError, "-n: nothing says how many"),
        ({"n": 0}, SampleError, "-n: 0 units"),
        ({"n": 300, "seed": -1}, SampleError, "--seed"),
        ({"n": 300, "shape": "disc"}, SampleError, "--shape"),
        ({"n": 20}, SampleError, "-n: 20 units don't suffice"),
        ({"n": 10**7}, SampleError, "-n: 10000000 units of"),
        ({"n": 300, "aoi": "0,0,1,1"}, AoiError, "0,0,1,1: it doesn't touch"),
        ({"n": 300, "aoi_crs": "EPSG:4326"}, AoiError, "--aoi-crs: it serves --aoi alone"),
    ],
)
def test_refused_and_nothing_is_left(landcover: Path, tmp_path: Path, options, kind, message: str) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(kind) as caught:
        gopt_geo.sample(landcover, tmp_path / "out" / "s.gpkg", **options)
    assert str(caught.value).startswith(message)
    assert list((tmp_path / "out").iterdir()) == []


def test_maps_that_are_none(tmp_path: Path) -> None:
    floats = write_map(tmp_path / "f.tif", patchy().astype(np.float32), names=False)
    with pytest.raises(SourceError, match="not one band of classes"):
        gopt_geo.sample(floats, tmp_path / "s.gpkg", n=300)
    large = write_map(tmp_path / "l.tif", patchy().astype(np.int16) * 100, names=False)
    with pytest.raises(SampleError, match="classes are 0 to 254"):
        gopt_geo.sample(large, tmp_path / "s.gpkg", n=300)
    empty = write_map(tmp_path / "e.tif", np.full((9, 9), NODATA, np.uint8))
    with pytest.raises(SampleError, match="no pixel of it has a class"):
        gopt_geo.sample(empty, tmp_path / "s.gpkg", n=300)
    with pytest.raises(GoptGeoError, match="there is no such file"):
        gopt_geo.sample(tmp_path / "no.tif", tmp_path / "s.gpkg", n=300)


def test_nothing_is_overwritten(landcover: Path, tmp_path: Path) -> None:
    (tmp_path / "s.gpkg").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        gopt_geo.sample(landcover, tmp_path / "s.gpkg", n=300)
    assert (tmp_path / "s.gpkg").read_text() == "mine"
    gopt_geo.sample(landcover, tmp_path / "s.gpkg", n=300, overwrite=True)
    assert len(geopandas.read_file(tmp_path / "s.gpkg")) == 300
