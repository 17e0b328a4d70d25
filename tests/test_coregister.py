"""The verb coregister, on files: report, picture, and SAR moved; and what predict makes of shifts."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning

import gopt_geo
from gopt_geo.coregistration import CoregisterReport, describe_shift
from gopt_geo.errors import GoptGeoError, GridError, OutputError, RadiometryError, ShiftError, SourceError
from gopt_geo.outputs.moved import write_moved
from gopt_geo.prediction import PredictReport
from gopt_geo.scene import SourceSpec
from gopt_geo.scene.shift.placing import Placement, place_sources
from gopt_geo.simulate import SceneSpec, write_scene

SHIFT = (4.25, -2.5)  # SAR pixels, which are as large as the optical ones


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A simulated pair: scene; sar as it belongs; shifted, whose content lies SHIFT from there. Don't write there."""
    folder = tmp_path_factory.mktemp("pair")
    paths = {stem: folder / f"{stem}.tif" for stem in ("scene", "sar", "labels", "clouds")}
    write_scene(SceneSpec(seed=6, height=320, width=320), paths)
    return paths | {"shifted": shifted_copy(paths["sar"], folder / "shifted.tif", *SHIFT)}


def shifted_copy(source: Path, target: Path, dx: float, dy: float, **changes: Any) -> Path:
    with rasterio.open(source) as file:
        a, b, c, d, e, f = file.transform[:6]
        profile = file.profile | {"transform": Affine(a, b, c + dx * a + dy * b, d, e, f + dx * d + dy * e)} | changes
        pixels, names, units = file.read(), file.descriptions, file.units
    with rasterio.open(target, "w", **profile) as file:
        file.write(pixels.astype(profile["dtype"]))
        file.descriptions, file.units = names, units
    return target


def corner(path: Path) -> tuple[float, float]:
    with rasterio.open(path) as file:
        return file.transform.c, file.transform.f


def close(report: CoregisterReport, before: CoregisterReport, dx: float, dy: float) -> bool:
    one, other = report.estimate, before.estimate
    return math.dist((one.dx - other.dx, one.dy - other.dy), (dx, dy)) < 0.25


@pytest.fixture(scope="module")
def own(pair: dict[str, Path]) -> CoregisterReport:
    """What is seen without a shift; not quite 0, as a radar folds walls over."""
    return gopt_geo.coregister(pair["scene"], pair["sar"])


@pytest.mark.brief
def test_the_moved_raster_lies_where_it_belongs(pair: dict[str, Path], own: CoregisterReport, tmp_path: Path) -> None:
    output = tmp_path / "moved.tif"
    report = gopt_geo.coregister(pair["scene"], pair["shifted"], output)
    assert close(report, own, *SHIFT)
    assert report.outputs == (output,)
    assert report.moved == pytest.approx((-10 * report.estimate.dx, 10 * report.estimate.dy))
    with rasterio.open(output) as file, rasterio.open(pair["shifted"]) as source:
        np.testing.assert_array_equal(file.read(), source.read())
        for key in ("driver", "dtype", "crs", "count", "blockxsize", "compress"):
            assert file.profile[key] == source.profile[key]
        assert np.isnan(file.nodata)
        assert (file.descriptions, file.units) == (source.descriptions, source.units)
        said = file.tags()["GOPT_GEO_SHIFT_CORRECTED"]
        assert said.startswith(f"{report.estimate.dx:.3f} right, {report.estimate.dy:.3f} down")
    again = gopt_geo.coregister(pair["scene"], output)
    assert again.estimate.reliable
    assert again.estimate.length < 0.2
    assert corner(output) == pytest.approx(corner(pair["sar"]), abs=10 * (own.estimate.length + 0.3))


@pytest.mark.brief
def test_the_report_as_data(pair: dict[str, Path], tmp_path: Path) -> None:
    report = gopt_geo.coregister(str(pair["scene"]), str(pair["shifted"]), json_file=tmp_path / "r.json", points=9)
    found = json.loads((tmp_path / "r.json").read_text())
    assert found == json.loads(json.dumps(report.to_dict()))
    assert found["reliable"] is True
    assert (found["dx"], found["dy"]) == (report.estimate.dx, report.estimate.dy)
    assert found["points"] == len(found["vectors"]) == 9
    assert 0 < found["spread"] < 3
    assert found["moved"] is None
    assert found["reason"] is None
    assert found["optical_crs"] == "EPSG:32632"
    assert sum(vector["trusted"] for vector in found["vectors"]) == found["trusted_points"]
    assert set(found["vectors"][0]) == {"x", "y", "dx", "dy", "confidence", "trusted"}
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_the_picture(pair: dict[str, Path], tmp_path: Path) -> None:
    from PIL import Image

    gopt_geo.coregister(pair["scene"], pair["shifted"], picture=tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as image:
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for drawn in ((255, 212, 0), (255, 42, 109)):  # arrows of points, and of all together
        assert (colours == drawn).all(axis=1).sum() > 200


@pytest.mark.brief
@pytest.mark.parametrize("size", [(1, 1), (20, 20), (50, 60)])
def test_no_reliable_estimate_is_a_report_too(tmp_path: Path, size: tuple[int, int]) -> None:
    gopt_geo.simulate_files(tmp_path / "s", size=size)
    optical, sar = tmp_path / "s/scene.tif", tmp_path / "s/sar.tif"
    files = {"json_file": tmp_path / "r.json", "picture": tmp_path / "p.png"}
    report = gopt_geo.coregister(optical, sar, **files)
    assert not report.estimate.reliable
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["reliable"], found["dx"], found["dy"], found["spread"]) == (False, None, None, None)
    assert found["reason"] == report.estimate.reason != ""
    assert (tmp_path / "p.png").stat().st_size > 1000
    assert describe_shift(report.pair).startswith("no reliable estimate")
    files = {name: path.with_name("other" + path.suffix) for name, path in files.items()}
    with pytest.raises(ShiftError, match="no reliable estimate of its shift"):
        gopt_geo.coregister(optical, sar, tmp_path / "moved.tif", **files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.png", "r.json", "s"]  # nothing new, nothing hidden


def test_the_line_says_where_to(pair: dict[str, Path], own: CoregisterReport) -> None:
    line = describe_shift(gopt_geo.coregister(pair["scene"], pair["shifted"]).pair, "sar")
    assert line.startswith("SAR lies ")
    assert " right, " in line
    assert " up)" in line
    assert " m from where it belongs" in line


# --- what else a raster holds ---------------------------------------------------------------------------------------


def raster(path: Path, **changes: Any) -> Path:
    profile = {"driver": "GTiff", "width": 64, "height": 48, "count": 2, "dtype": "uint16", "crs": "EPSG:32631"}
    profile |= {"transform": Affine(10, 0, 500000, 0, -10, 4600000)} | changes
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile) as file:
        file.write(rng.integers(1, 1000, (profile["count"], 48, 64)).astype(profile["dtype"]))
        file.update_tags(PLACE="somewhere")
        file.update_tags(1, BAND="one")
        file.descriptions = ("VV", "VH")[: profile["count"]]
        file.scales = (0.5,) * profile["count"]
    return path


def move(source: Path, folder: Path, step: tuple[float, float] = (25.0, -7.5)) -> tuple[Path, list[str]]:
    folder.mkdir(exist_ok=True)
    return folder / "moved.tif", write_moved(source, folder / "moved.tif", step, {"GOPT_GEO_SHIFT_CORRECTED": "so"})


def check_moved(source: Path, target: Path) -> None:
    with rasterio.open(source) as before, rasterio.open(target) as after:
        np.testing.assert_array_equal(after.read(), before.read())
        np.testing.assert_array_equal(after.read_masks(), before.read_masks())
        a, b, c, d, e, f = before.transform[:6]
        assert after.transform[:6] == pytest.approx((a, b, c + 25, d, e, f - 7.5), abs=1e-9)
        assert after.crs == before.crs
        assert after.scales == before.scales
        assert after.descriptions == before.descriptions
        assert after.colorinterp == before.colorinterp
        tags = after.tags()
        assert tags.pop("GOPT_GEO_SHIFT_CORRECTED") == "so"
        assert tags == before.tags()
        assert after.tags(1) == before.tags(1)


@pytest.mark.brief
def test_a_geotiff_keeps_all_it_holds(tmp_path: Path) -> None:
    source = raster(tmp_path / "a.tif", nodata=3, compress="lzw", photometric="minisblack")
    with rasterio.open(source, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    target, notices = move(source, tmp_path / "out")
    check_moved(source, target)
    assert notices == []
    with rasterio.open(target) as file:
        assert file.overviews(1) == [2, 4]
        assert file.nodata == 3
    assert hashlib.sha256(source.read_bytes()).hexdigest() == digest
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["moved.tif"]


@pytest.mark.parametrize("inside", [True, False])
def test_masks_come_along(tmp_path: Path, inside: bool) -> None:
    source = raster(tmp_path / "a.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(source, "r+") as file:
        mask = np.full((48, 64), 255, np.uint8)
        mask[:9] = 0
        file.write_mask(mask)
    target, _ = move(source, tmp_path / "out")
    check_moved(source, target)
    assert target.with_name("moved.tif.msk").exists() is not inside


def test_sidecars_come_along_without_a_place_of_their_own(tmp_path: Path) -> None:
    """GDAL believes a geotransform in .aux.xml more than the file's own."""
    source = raster(tmp_path / "a.tif")
    aux = source.with_name("a.tif.aux.xml")
    place = "<GeoTransform>500100, 10, 0, 4600100, 0, -10</GeoTransform>"
    item = '<PAMRasterBand band="1"><Metadata><MDI key="NOTE">kept</MDI></Metadata></PAMRasterBand>'
    aux.write_text(f"<PAMDataset>{place}{item}</PAMDataset>")
    assert corner(source) == (500100, 4600100)
    target, _ = move(source, tmp_path / "out")
    assert corner(target) == (500125, 4600092.5)
    with rasterio.open(target) as file:
        assert file.tags(1)["NOTE"] == "kept"


def test_a_cog_becomes_a_plain_geotiff_and_says_so(tmp_path: Path) -> None:
    source = tmp_path / "cog.tif"
    rasterio.shutil.copy(raster(tmp_path / "a.tif"), source, driver="COG")
    target, (notice,) = move(source, tmp_path / "out")
    check_moved(source, target)
    assert "cloud-optimised" in notice


@pytest.mark.parametrize(
    "transform",
    [Affine(0.3, -10, 500000, 10, 0.3, 4600000), Affine(10, 0, 500000, 0, 10, 4599000)],
    ids=["rotated", "south-up"],
)
def test_directions_stay(tmp_path: Path, transform: Affine) -> None:
    source = raster(tmp_path / "a.tif", transform=transform)
    check_moved(source, move(source, tmp_path / "out")[0])


def test_pixels_that_are_points_stay_so(tmp_path: Path) -> None:
    source = raster(tmp_path / "a.tif")
    with rasterio.open(source, "r+") as file:
        file.update_tags(AREA_OR_POINT="Point")
    check_moved(source, move(source, tmp_path / "out")[0])


def test_control_points_are_moved(tmp_path: Path) -> None:
    corners = [(0, 0), (0, 64), (48, 0), (48, 64)]
    points = [
        GroundControlPoint(r, c, 500000 + 10 * c, 4600000 - 10 * r, 0, str(i)) for i, (r, c) in enumerate(corners)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        source = raster(tmp_path / "a.tif", transform=None, crs=None)
        with rasterio.open(source, "r+") as file:
            file.gcps = points, rasterio.crs.CRS.from_epsg(32631)
        target, _ = move(source, tmp_path / "out")
        with rasterio.open(target) as file:
            moved, crs = file.gcps
    assert crs.to_epsg() == 32631
    assert [(p.row, p.col, p.x, p.y) for p in moved] == [(p.row, p.col, p.x + 25, p.y - 7.5) for p in points]


@pytest.mark.parametrize(("name", "driver"), [("a.vrt", "VRT"), ("a.img", "HFA"), ("a.dat", "ENVI")])
def test_other_formats_become_geotiffs_of_the_same_pixels(tmp_path: Path, name: str, driver: str) -> None:
    source = tmp_path / name
    rasterio.shutil.copy(raster(tmp_path / "base.tif"), source, driver=driver)
    target, notices = move(source, tmp_path / "out")
    assert "no GeoTIFF" in notices[0]
    with rasterio.open(source) as before, rasterio.open(target) as after:
        assert after.driver == "GTiff"
        np.testing.assert_array_equal(after.read(), before.read())
        assert after.descriptions == before.descriptions
        assert corner(target) == pytest.approx((before.transform.c + 25, before.transform.f - 7.5))


def test_colours_come_along(tmp_path: Path) -> None:
    source = raster(tmp_path / "a.tif", dtype="uint8", photometric="minisblack")
    with rasterio.open(source, "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    check_moved(source, move(source, tmp_path / "out")[0])


# --- grids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"sar_crs": "EPSG:4326"}, {"sar_crs": "EPSG:3857", "sar_resolution": 15.0}])
def test_the_move_is_made_in_the_crs_of_sar(tmp_path: Path, changes: dict[str, Any]) -> None:
    paths = {stem: tmp_path / f"{stem}.tif" for stem in ("scene", "sar", "labels", "clouds")}
    write_scene(SceneSpec(seed=6, height=320, width=320, **changes), paths)
    shifted = shifted_copy(paths["sar"], tmp_path / "shifted.tif", 4, 3)
    report = gopt_geo.coregister(paths["scene"], shifted, tmp_path / "moved.tif")
    assert report.estimate.length > 3
    again = gopt_geo.coregister(paths["scene"], tmp_path / "moved.tif")
    assert again.estimate.reliable
    assert again.estimate.length < 0.2
    with rasterio.open(tmp_path / "moved.tif") as file, rasterio.open(shifted) as source:
        assert file.crs == source.crs
        np.testing.assert_array_equal(file.read(), source.read())


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.brief
@pytest.mark.parametrize(
    ("options", "error", "found"),
    [
        ({"points": 3}, GoptGeoError, "--points 3"),
        ({"search": 1}, GoptGeoError, "--search 1"),
        ({"search": 101}, GoptGeoError, "--search 101"),
        ({"output": "moved.png"}, OutputError, "unknown ending"),
        ({"json_file": "r.txt"}, OutputError, "unknown ending"),
        ({"picture": "p.jpg"}, OutputError, "unknown ending"),
        ({"output": "moved.tif", "pixel_grid": True}, GridError, "no geotransform"),
        ({"sar_bands": "VX"}, GoptGeoError, "VX"),
    ],
)
def test_options_that_make_no_sense(
    pair: dict[str, Path], tmp_path: Path, options: dict[str, Any], error: type[GoptGeoError], found: str
) -> None:
    files = {n: tmp_path / options[n] for n in ("output", "json_file", "picture") if n in options}
    with pytest.raises(error, match=found):
        gopt_geo.coregister(pair["scene"], pair["shifted"], **options | files)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["colour", "grid", "extent"])
def test_an_unknown_option(pair: dict[str, Path], option: str) -> None:
    """The grid is the optical raster's: what other jobs say of it isn't passed over in silence."""
    with pytest.raises(TypeError, match=option):
        gopt_geo.coregister(pair["scene"], pair["sar"], **{option: "sar"})


@pytest.mark.brief
def test_rasters_that_make_no_pair(pair: dict[str, Path], tmp_path: Path) -> None:
    optical, sar = pair["scene"], pair["sar"]
    with pytest.raises(SourceError, match="as OPTICAL and as SAR"):
        gopt_geo.coregister(optical, optical)
    with pytest.raises(SourceError, match="no such file"):
        gopt_geo.coregister(optical, tmp_path / "none.tif")
    far = shifted_copy(sar, tmp_path / "far.tif", 5000, 0)
    with pytest.raises(GridError, match="doesn't overlap"):
        gopt_geo.coregister(optical, far)
    placeless = shifted_copy(sar, tmp_path / "placeless.tif", 0, 0, crs=None)
    with pytest.raises(GridError, match="no CRS"):
        gopt_geo.coregister(optical, placeless)
    whole = shifted_copy(sar, tmp_path / "whole.tif", 0, 0, dtype="int16", nodata=None, predictor=2)
    with rasterio.open(whole, "r+") as file:
        file.units = ("",)
    with pytest.raises(RadiometryError, match="--sar-units"):
        gopt_geo.coregister(optical, whole)
    with pytest.raises(SourceError, match="several files"):
        gopt_geo.coregister(optical, f"{sar},{far}", tmp_path / "moved.tif")
    with pytest.raises(OutputError, match="also an input"):
        gopt_geo.coregister(optical, sar, sar, overwrite=True)


def test_an_array_is_compared_and_not_moved(pair: dict[str, Path], own: CoregisterReport, tmp_path: Path) -> None:
    import odc.geo.xr
    import xarray as xr

    with rasterio.open(pair["shifted"]) as file:
        pixels, grid = file.read(1), odc.geo.geobox.GeoBox(file.shape, file.transform, str(file.crs))
    array = odc.geo.xr.wrap_xr(pixels, grid)
    assert isinstance(array, xr.DataArray)
    report = gopt_geo.coregister(pair["scene"], array, sar_units="db")
    assert close(report, own, *SHIFT)
    with pytest.raises(SourceError, match="local file"):
        gopt_geo.coregister(pair["scene"], array, tmp_path / "moved.tif", sar_units="db")


def test_results_are_not_replaced_unasked(pair: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "moved.tif").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        gopt_geo.coregister(pair["scene"], pair["shifted"], tmp_path / "moved.tif")
    assert (tmp_path / "moved.tif").read_text() == "mine"
    gopt_geo.coregister(pair["scene"], pair["shifted"], tmp_path / "moved.tif", overwrite=True)
    assert corner(tmp_path / "moved.tif") != corner(pair["shifted"])


def test_rasters_without_a_place_are_laid_upon_each_other(pair: dict[str, Path], own: CoregisterReport) -> None:
    report = gopt_geo.coregister(pair["scene"], pair["shifted"], pixel_grid=True)
    assert close(report, own, 0, 0)  # the shift is in the geotransform alone, which is ignored
    assert math.isnan(report.pair.pixel_size)
    assert report.to_dict()["optical_crs"] is None
    assert " m from" not in describe_shift(report.pair)


# --- what other jobs make of it -------------------------------------------------------------------------------------


def specs(pair: dict[str, Path], sar: str) -> dict[str, SourceSpec]:
    return {
        "optical": SourceSpec(pair["scene"], ["red", "green", "blue"], None, "reflectance", 3),
        "sar": SourceSpec(pair[sar], None, None, "db", 1),
    }


@pytest.mark.brief
def test_a_shift_is_told_in_passing(pair: dict[str, Path]) -> None:
    assert place_sources(specs(pair, "sar")) == Placement()
    placement = place_sources(specs(pair, "shifted"))
    (warning,) = placement.notices
    assert warning.startswith("warning: SAR lies ")
    assert "--coregister corrects it" in warning
    assert placement.shifts == {}
    assert place_sources(specs(pair, "shifted"), pixel_grid=True) == Placement()
    assert place_sources({"optical": specs(pair, "sar")["optical"]}) == Placement()


def test_a_shift_is_corrected_when_asked_to(pair: dict[str, Path], own: CoregisterReport) -> None:
    placement = place_sources(specs(pair, "shifted"), correct=True)
    dx, dy = placement.shifts["sar"]
    assert (dx - own.estimate.dx, dy - own.estimate.dy) == pytest.approx(SHIFT, abs=0.3)
    assert placement.tags == {"GOPT_GEO_SHIFT_SAR": f"{dx:.3f} right, {dy:.3f} down, optical pixels; corrected"}
    assert placement.notices[0].endswith("; corrected")


def test_what_cannot_be_corrected_is_an_error(pair: dict[str, Path], tmp_path: Path) -> None:
    both = specs(pair, "sar")
    with pytest.raises(ShiftError, match="--pixel-grid"):
        place_sources(both, correct=True, pixel_grid=True)
    with pytest.raises(ShiftError, match="an optical and a SAR raster"):
        place_sources({"optical": both["optical"]}, correct=True)
    gopt_geo.simulate_files(tmp_path / "s", size=(20, 20))
    small = {"scene": tmp_path / "s/scene.tif", "sar": tmp_path / "s/sar.tif"}
    assert place_sources(specs(small, "sar")) == Placement()  # nothing reliable, nothing said
    with pytest.raises(ShiftError, match="no reliable estimate of the shift of SAR"):
        place_sources(specs(small, "sar"), correct=True)


def test_predict_warns_or_corrects(
    pair: dict[str, Path], run: Callable[..., PredictReport], pixels: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    ends = {"optical": pair["scene"], "sar": pair["shifted"]}
    plain = run("plain.tif", **ends)
    assert any(notice.startswith("warning: SAR lies ") for notice in plain.notices)
    corrected = run("corrected.tif", coregister=True, **ends)
    assert not any(notice.startswith("warning: SAR lies ") for notice in corrected.notices)
    assert any(notice.endswith("; corrected") for notice in corrected.notices)
    with rasterio.open(tmp_path / "corrected.tif") as file:
        assert file.tags()["GOPT_GEO_SHIFT_SAR"].endswith("corrected")
        assert file.tags()["GOPT_GEO_INPUT_SAR"] == "shifted.tif"
    with rasterio.open(tmp_path / "plain.tif") as file:
        assert "GOPT_GEO_SHIFT_SAR" not in file.tags()
    # The same map as from the raster that coregister writes: one and the same move.
    gopt_geo.coregister(pair["scene"], pair["shifted"], tmp_path / "moved.tif")
    run("moved_map.tif", optical=pair["scene"], sar=tmp_path / "moved.tif")
    np.testing.assert_array_equal(pixels(tmp_path / "corrected.tif"), pixels(tmp_path / "moved_map.tif"))
    with pytest.raises(ShiftError):
        run("none.tif", coregister=True, pixel_grid=True, **ends)
    assert not (tmp_path / "none.tif").exists()
