"""From a sample whose references were filled in to areas: the way through files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import from_origin
from typer.testing import CliRunner

import gopt_geo
from gopt_geo.errors import AoiError, GoptGeoError, SampleError
from gopt_geo.outputs.area_picture import draw_areas, told_unit
from gopt_geo_cli.main import app
from gopt_geo_cli.sampletables import sample_lines

NAMES = {1: "water", 2: "forest", 3: "road", 4: "city"}


def write_map(path: Path, values: np.ndarray, *, names: bool = True, crs: str = "EPSG:32632", origin=None, size=10.0):
    left, top = origin or (500_000, 5_000_000)
    profile = {"driver": "GTiff", "height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(
        path, "w", nodata=255, crs=crs, transform=from_origin(left, top, size, size), **profile
    ) as target:
        target.write(values, 1)
    if names:
        classes = "".join(f"<Category>{NAMES.get(v, '')}</Category>" for v in range(5))
        Path(f"{path}.aux.xml").write_text(
            f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{classes}</CategoryNames></PAMRasterBand></PAMDataset>'
        )
    return path


@pytest.fixture
def truth() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.repeat(np.repeat(rng.choice([1, 2, 3, 4], (20, 25), p=[0.3, 0.5, 0.05, 0.15]), 5, 0), 5, 1).astype("u1")


@pytest.fixture
def landcover(tmp_path: Path, truth: np.ndarray) -> Path:
    """Return a map with 15 % of its pixels wrong."""
    rng = np.random.default_rng(2)
    wrong = rng.random(truth.shape) < 0.15
    return write_map(tmp_path / "map.tif", np.where(wrong, rng.choice([1, 2, 3, 4], truth.shape), truth).astype("u1"))


def draw(landcover: Path, truth: np.ndarray, target: Path, entry=int, **options) -> geopandas.GeoDataFrame:
    """Draw a sample and fill it in with the truth."""
    gopt_geo.sample(landcover, target, **{"n": 400, **options}, overwrite=True)
    units = geopandas.read_parquet(target) if target.suffix == ".parquet" else geopandas.read_file(target)
    units["reference"] = [entry(v) for v in truth[units["row"], units["col"]]]
    save(units, target)
    return units


def save(units: geopandas.GeoDataFrame, target: Path) -> None:
    target.unlink(missing_ok=True)
    if target.suffix == ".parquet":
        units.to_parquet(target)
    else:
        units.to_file(target, layer="sample")


@pytest.mark.brief
@pytest.mark.parametrize("ending", ["gpkg", "geojson", "fgb", "parquet"])
@pytest.mark.parametrize("entry", [int, str, lambda v: NAMES[v].upper()], ids=["values", "texts", "names"])
def test_from_sample_to_areas_in_all_formats(landcover, truth, tmp_path, ending: str, entry) -> None:
    target = tmp_path / f"s.{ending}"
    draw(landcover, truth, target, entry)
    found = gopt_geo.evaluate_sample(landcover, target)
    assert found.class_names == tuple(NAMES.values())
    assert found.unit == "m2"
    assert found.units.sum() == 400
    assert found.left_out == 0
    true = np.array([(truth == v).mean() for v in NAMES])
    assert np.all(np.abs(found.estimates.share - true) < 4 * found.estimates.share_se)
    assert found.estimates.total_area == pytest.approx(truth.size * 100, rel=2e-3)
    assert found.mapped_area.sum() == pytest.approx(found.estimates.total_area)
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_census_gives_the_map_of_truth(landcover, truth, tmp_path) -> None:
    draw(landcover, truth, tmp_path / "s.gpkg", n=truth.size, allocation="proportional")
    found = gopt_geo.evaluate_sample(landcover, tmp_path / "s.gpkg")
    assert found.estimates.share == pytest.approx([(truth == v).mean() for v in NAMES], rel=1e-4)
    assert found.estimates.lower == pytest.approx(found.estimates.upper)
    with rasterio.open(landcover) as source:
        assert found.estimates.overall == pytest.approx((source.read(1) == truth).mean(), rel=1e-4)


def test_pixels_of_unequal_size_count_by_their_area(tmp_path: Path) -> None:
    """A strip from the equator to 80 degrees north; truth is another class above 60 degrees, where pixels are small."""
    path = write_map(tmp_path / "m.tif", np.ones((160, 4), "u1"), crs="EPSG:4326", origin=(0, 80), size=0.5)
    truth = np.ones((160, 4), "u1")
    truth[:40] = 2
    draw(path, truth, tmp_path / "s.gpkg", n=640, allocation="equal")
    found = gopt_geo.evaluate_sample(path, tmp_path / "s.gpkg")
    share = (np.sin(np.radians(80)) - np.sin(np.radians(60))) / np.sin(np.radians(80))
    assert found.estimates.share[1] == pytest.approx(share, rel=0.02)  # not 0.25; a sphere's zones here


@pytest.mark.brief
def test_a_blind_sample_needs_the_map_and_the_area(landcover, truth, tmp_path) -> None:
    area = "9.0002,45.1485,9.0095,45.153"
    draw(landcover, truth, tmp_path / "open.gpkg", aoi=area)
    draw(landcover, truth, tmp_path / "blind.gpkg", aoi=area, blind=True)
    blind = gopt_geo.evaluate_sample(landcover, tmp_path / "blind.gpkg", aoi=area)
    told = gopt_geo.evaluate_sample(landcover, tmp_path / "open.gpkg")
    assert np.array_equal(blind.units, told.units)
    assert blind.estimates.area == pytest.approx(told.estimates.area)
    gopt_geo.evaluate_sample(landcover, tmp_path / "open.gpkg", aoi=area)
    with pytest.raises(SampleError, match="give the --aoi that it was drawn in"):
        gopt_geo.evaluate_sample(landcover, tmp_path / "blind.gpkg")
    with pytest.raises(SampleError, match="--aoi: the sample was drawn from other ground"):
        gopt_geo.evaluate_sample(landcover, tmp_path / "open.gpkg", aoi="9.0002,45.1485,9.008,45.153")
    with pytest.raises(AoiError, match="serves --aoi alone"):
        gopt_geo.evaluate_sample(landcover, tmp_path / "open.gpkg", aoi_crs="EPSG:4326")
    with rasterio.open(landcover) as source:
        values = source.read(1)
    other = write_map(tmp_path / "other.tif", np.roll(values, 1, axis=0))
    with pytest.raises(SampleError, match="it isn't the map that was sampled"):
        gopt_geo.evaluate_sample(other, tmp_path / "blind.gpkg", aoi=area)
    with pytest.raises(SampleError, match=r"of 400 sampled pixels have another class than in map.tif"):
        gopt_geo.evaluate_sample(other, tmp_path / "open.gpkg")


@pytest.mark.brief
def test_gaps_are_refused_or_left_out_with_a_warning(landcover, truth, tmp_path) -> None:
    target = tmp_path / "s.gpkg"
    units = draw(landcover, truth, target)
    gaps = units.copy()
    gaps["reference"] = gaps["reference"].astype("Int64")
    gaps.loc[:24, "reference"] = pd.NA
    save(gaps, target)
    with pytest.raises(SampleError, match="25 of 400 units have no entry in the field reference; fill them in"):
        gopt_geo.evaluate_sample(landcover, target)
    found = gopt_geo.evaluate_sample(landcover, target, skip_unfilled=True)
    assert (found.left_out, found.units.sum()) == (25, 375)
    assert any(notice.startswith("warning: 25 of 400 units") for notice in found.notices)
    save(units.iloc[5:], target)  # rows deleted instead
    with pytest.raises(SampleError, match=r"5 of 400 units have no entry .*\(5 of them no row\)"):
        gopt_geo.evaluate_sample(landcover, target)
    assert gopt_geo.evaluate_sample(landcover, target, skip_unfilled=True).left_out == 5
    save(units[units["stratum"] != 3], target)
    with pytest.raises(SampleError, match="all units of one are missing"):
        gopt_geo.evaluate_sample(landcover, target, skip_unfilled=True)
    units["reference"] = None
    save(units, target)
    with pytest.raises(SampleError, match="400 of 400 units have no entry"):
        gopt_geo.evaluate_sample(landcover, target, skip_unfilled=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda u: u.assign(reference=u["reference"].replace(3, 9)),
            r"references that are no class: 9; choose from \w+ \(1\)",
        ),
        (lambda u: u.assign(reference="sea"), "references that are no class: sea"),
        (lambda u: u.assign(reference=1.5), "references that are no class: 1.5"),
        (lambda u: pd.concat([u, u.iloc[:1]]), "is in it 2 times; keep one"),
        (lambda u: u.drop(columns="stratum_pixels"), "it has no field stratum_pixels"),
        (lambda u: u.rename(columns={"reference": "truth"}), "no field reference; name one with --reference-field"),
        (lambda u: u.assign(stratum_pixels=np.arange(len(u))), "rows of one stratum tell different sizes"),
        (lambda u: u.assign(frame_pixels=np.arange(len(u))), "the field frame_pixels differs between its rows"),
        (lambda u: u.assign(row="x"), "the field row isn't a number in row 1"),
        (lambda u: u.assign(stratum_area_m2="12,5"), "the field stratum_area_m2 isn't a number in row 1"),
        (lambda u: u.assign(inclusion_probability="0,1"), "the field inclusion_probability isn't a number in row 1"),
        (lambda u: u.iloc[:0], "it holds no unit"),
    ],
)
def test_samples_that_are_refused(landcover, truth, tmp_path, change, message: str) -> None:
    target = tmp_path / "s.gpkg"
    save(change(draw(landcover, truth, target)), target)
    with pytest.raises(SampleError, match=message):
        gopt_geo.evaluate_sample(landcover, target)


def test_an_emptied_inclusion_probability_tells_of_no_lost_units(landcover, truth, tmp_path) -> None:
    units = draw(landcover, truth, tmp_path / "s.gpkg")
    save(units.assign(inclusion_probability=np.nan), tmp_path / "s.gpkg")
    assert gopt_geo.evaluate_sample(landcover, tmp_path / "s.gpkg").left_out == 0


def test_files_that_are_none(landcover, tmp_path) -> None:
    with pytest.raises(SampleError, match="there is no such file"):
        gopt_geo.evaluate_sample(landcover, tmp_path / "no.gpkg")
    (tmp_path / "text.gpkg").write_text("hello")
    with pytest.raises(SampleError, match="it can't be read"):
        gopt_geo.evaluate_sample(landcover, tmp_path / "text.gpkg")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(SampleError, match="it can't be read"):
        gopt_geo.evaluate_sample(landcover, tmp_path / "text.parquet")


@pytest.mark.parametrize("level", [0.3, 1.0, 95])
def test_levels_out_of_range(landcover, tmp_path, level: float) -> None:
    with pytest.raises(SampleError, match="--level"):
        gopt_geo.evaluate_sample(landcover, tmp_path / "s.gpkg", level=level)


def test_another_field_and_a_table_without_geometries(landcover, truth, tmp_path) -> None:
    units = draw(landcover, truth, tmp_path / "s.gpkg")
    first = gopt_geo.evaluate_sample(landcover, tmp_path / "s.gpkg", level=0.9)
    units["second_opinion"] = units["reference"]
    pd.DataFrame(units.drop(columns=["geometry", "reference"])).to_csv(tmp_path / "s.csv", index=False)
    again = gopt_geo.evaluate_sample(landcover, tmp_path / "s.csv", reference_field="second_opinion", level=0.9)
    assert np.array_equal(first.units, again.units)
    assert again.estimates.upper == pytest.approx(first.estimates.upper)
    assert again.estimates.level == 0.9


def test_strata_of_an_older_map(landcover, truth, tmp_path) -> None:
    """The newer map lies on another grid and in another CRS's offset; areas stay those of the sample."""
    draw(landcover, truth, tmp_path / "s.gpkg", n=800)
    newer = write_map(tmp_path / "new.tif", np.repeat(np.repeat(truth, 2, 0), 2, 1), size=5.0)
    with pytest.raises(SampleError, match="say --other-strata"):
        gopt_geo.evaluate_sample(newer, tmp_path / "s.gpkg")
    found = gopt_geo.evaluate_sample(newer, tmp_path / "s.gpkg", other_strata=True)
    same = gopt_geo.evaluate_sample(landcover, tmp_path / "s.gpkg")
    assert found.estimates.overall == 1.0  # the newer map is the truth
    assert found.estimates.share == pytest.approx(same.estimates.share)
    assert found.mapped_area is None
    assert found.to_dict()["classes"][0]["mapped_area"] is None
    small = write_map(tmp_path / "small.tif", truth[:50])
    with pytest.raises(SampleError, match="it has no class at"):
        gopt_geo.evaluate_sample(small, tmp_path / "s.gpkg", other_strata=True)
    with pytest.raises(SampleError, match="--aoi"):
        gopt_geo.evaluate_sample(newer, tmp_path / "s.gpkg", other_strata=True, aoi="9,45,10,46")
    draw(landcover, truth, tmp_path / "b.gpkg", blind=True)
    with pytest.raises(SampleError, match="it is blind"):
        gopt_geo.evaluate_sample(newer, tmp_path / "b.gpkg", other_strata=True)


def test_a_map_without_legend(truth, tmp_path) -> None:
    path = write_map(tmp_path / "m.tif", np.where(truth == 3, 2, truth).astype("u1"), names=False)
    draw(path, truth, tmp_path / "s.gpkg")
    found = gopt_geo.evaluate_sample(path, tmp_path / "s.gpkg")
    assert found.class_names == ("class 1", "class 2", "class 3", "class 4")  # 3 is in the references alone
    assert found.mapped_area[2] == 0
    assert np.isnan(found.estimates.users[2])
    assert found.estimates.share[2] > 0
    assert any("no legend" in notice for notice in found.notices)


def test_table_and_picture(landcover, truth, tmp_path) -> None:
    draw(landcover, truth, tmp_path / "s.gpkg", allocation="proportional", n=200)
    found = gopt_geo.evaluate_sample(landcover, tmp_path / "s.gpkg").to_dict()
    lines = list(sample_lines(found, 80))
    assert max(map(len, lines)) <= 80
    words = [" ".join(line.split()) for line in lines]
    assert "area in ha map estimate SE 95 % from to" in words
    water = found["classes"][0]
    figures = [f"{water[key] / 1e4:,.1f}" for key in ("mapped_area", "area", "area_se", "area_lower", "area_upper")]
    assert f"1 water {' '.join(figures)}" in words
    assert f"1 water {' '.join(map(str, found['units'][0]))} {sum(found['units'][0])}" in words
    assert any(line.startswith(f"overall accuracy {found['estimates']['overall']:.4f}") for line in words)
    assert "over 200 units in 4 strata" in words
    assert any("score interval" in line for line in words)
    assert any("fewer than 50 units" in notice for notice in found["notices"])
    draw_areas(tmp_path / "areas.png", found)
    assert (tmp_path / "areas.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(GoptGeoError, match="--figures"):
        draw_areas(tmp_path / "no" / "areas.png", found)


@pytest.mark.brief
def test_the_command(landcover, truth, tmp_path) -> None:
    draw(landcover, truth, tmp_path / "s.gpkg")
    arguments = ["evaluate", str(landcover), "--sample", str(tmp_path / "s.gpkg"), "--level", "0.9"]
    arguments += ["--json", str(tmp_path / "a.json"), "--figures", str(tmp_path / "pictures")]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    assert run.stdout.splitlines()[-2:] == [str(tmp_path / "a.json"), str(tmp_path / "pictures" / "areas.png")]
    assert json.loads((tmp_path / "a.json").read_text())["estimates"]["level"] == 0.9
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["areas.png"]
    gopt_geo.sample(landcover, tmp_path / "empty.gpkg", n=400)
    run = CliRunner().invoke(app, ["evaluate", str(landcover), "--sample", str(tmp_path / "empty.gpkg")])
    assert run.exit_code == 2
    assert run.stderr.startswith(f"error: {tmp_path / 'empty.gpkg'}: 400 of 400 units have no entry in the field")
    assert run.stderr.count("\n") == 1


def test_units_of_areas() -> None:
    assert told_unit(5e5, "m2") == ("m2", 1.0)
    assert told_unit(5e7, "m2") == ("ha", 1e4)
    assert told_unit(5e7, "pixels") == ("pixels", 1.0)
