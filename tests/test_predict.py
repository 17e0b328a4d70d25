"""The main job on small simulated scenes: products, validity, and what the pixels must not depend on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from rio_cogeo import cog_validate

import gopt_geo
from gopt_geo import ceiling, mapping, openmap
from gopt_geo.errors import DeviceMemoryError, DrawingError, GoptGeoError
from gopt_geo.grid import Window, corner_distance, grid_of
from gopt_geo.inference.execution import Execution
from gopt_geo.maprequest import MapRequest
from gopt_geo.outputs.legend import read_legend
from gopt_geo.packs import demo_pack_path
from gopt_geo.prediction import PredictReport
from gopt_geo.scene.mosaic import SceneMosaic
from gopt_geo.simulate import CLASS_NAMES, CLASS_VALUES
from gopt_geo.sources import SceneInputs

Run = Callable[..., PredictReport]
Pixels = Callable[..., np.ndarray]
Files = dict[str, Path]


def copy_raster(source: Path, target: Path, change: Callable[[np.ndarray], np.ndarray], **profile: Any) -> Path:
    """Copy a raster with its names, scales and units, its pixels changed."""
    with rasterio.open(source) as old, rasterio.open(target, "w", **{**old.profile, **profile}) as new:
        new.write(change(old.read()))
        new.descriptions, new.scales, new.offsets, new.units = old.descriptions, old.scales, old.offsets, old.units
    return target


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.brief
def test_all_products_of_one_run(run: Run, scene: Files, pixels: Pixels, tmp_path: Path) -> None:
    vectors = ["map.gpkg", "map.geojson", "map.fgb", "map.parquet"]
    report = run(
        "map.tif",
        *vectors,
        confidence="percent.tif",
        preview="view.png",
        reference=scene["labels"],
        cloud_mask=scene["clouds"],
    )
    assert [path.name for path in report.outputs] == ["map.tif", *vectors, "percent.tif", "view.png"]
    assert {*names(tmp_path)} - {"map.tif.aux.xml"} == {"map.tif", *vectors, "percent.tif", "view.png"}
    classes, percent = pixels(tmp_path / "map.tif"), pixels(tmp_path / "percent.tif")
    assert {*np.unique(classes)} <= {*CLASS_VALUES}
    assert len(np.unique(classes)) > 2, "the tiny model should draw something"
    assert percent.max() <= 100
    assert percent.min() >= 100 // len(CLASS_VALUES)
    for name in vectors:
        table = (
            geopandas.read_file(tmp_path / name) if name != "map.parquet" else geopandas.read_parquet(tmp_path / name)
        )
        assert len(table) == report.polygons[0]
        assert table.crs.to_epsg() == (4326 if name == "map.geojson" else 32632)
        assert {*table["class_id"]} == {*np.unique(classes).tolist()}
    table = geopandas.read_file(tmp_path / "map.gpkg")
    assert table.area.sum() == pytest.approx(classes.size * 100, rel=1e-9)
    by_class = table.dissolve("class_name").area
    for value, name in zip(CLASS_VALUES, CLASS_NAMES, strict=True):
        assert by_class.get(name, 0) == pytest.approx(np.count_nonzero(classes == value) * 100, rel=1e-9)
    mean = (table["confidence_percent"] * table.area).sum() / table.area.sum()
    assert mean == pytest.approx(percent.mean(), rel=1e-6)
    assert (tmp_path / "view.png").read_bytes().startswith(b"\x89PNG")


def test_raster_lies_on_the_optical_grid_as_valid_cog_with_legend(run: Run, scene: Files, tmp_path: Path) -> None:
    run("map.tif", confidence="percent.tif")
    for name in ("map.tif", "percent.tif"):
        assert cog_validate(tmp_path / name, strict=True, quiet=True) == (True, [], [])
        with rasterio.open(tmp_path / name) as result, rasterio.open(scene["scene"]) as optical:
            assert corner_distance(grid_of(optical), grid_of(result)) < 1e-6
            assert (result.shape, result.crs, result.nodata) == (optical.shape, optical.crs, 255)
    assert [(e.value, e.name) for e in read_legend(tmp_path / "map.tif")] == list(
        zip(CLASS_VALUES, CLASS_NAMES, strict=True)
    )


def test_tags_say_how_the_map_was_made(run: Run, tiny_pack: Path, tmp_path: Path) -> None:
    report = run("map.tif")
    assert any(n.startswith("warning: pack 'tiny': for tests only") for n in report.notices)
    with rasterio.open(tmp_path / "map.tif") as result:
        tags = result.tags()
    assert tags["GOPT_GEO_NOTICE"] == "for tests only"
    assert tags["GOPT_GEO_PRECISION"] == "fp32"
    assert tags["GOPT_GEO_VERSION"] == gopt_geo.__version__
    assert tags["GOPT_GEO_PACK_SHA256"]
    assert (tags["GOPT_GEO_INPUT_OPTICAL"], tags["GOPT_GEO_INPUT_SAR"]) == ("scene.tif", "sar.tif")


def test_polygons_alone_leave_nothing_else(run: Run, tmp_path: Path) -> None:
    report = run("only.gpkg")
    assert names(tmp_path) == ["only.gpkg"]
    assert report.polygons == (len(geopandas.read_file(tmp_path / "only.gpkg")),)
    assert "confidence_percent" in geopandas.read_file(tmp_path / "only.gpkg")


def test_geojson_is_what_the_standard_wants(run: Run, tmp_path: Path) -> None:
    run("map.geojson")
    found = json.loads((tmp_path / "map.geojson").read_text())
    assert found["type"] == "FeatureCollection"
    first = found["features"][0]["geometry"]["coordinates"]
    while isinstance(first[0], list):
        first = first[0]
    assert 10 < first[0] < 11  # longitude first
    assert 48 < first[1] < 49


def test_two_rasters_are_alike(run: Run, pixels: Pixels, tmp_path: Path) -> None:
    run("a.tif", "b.tiff")
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), pixels(tmp_path / "b.tiff"))
    assert read_legend(tmp_path / "a.tif") == read_legend(tmp_path / "b.tiff")


def test_both_modalities_change_the_map(run: Run, pixels: Pixels, scene: Files, tmp_path: Path) -> None:
    run("both.tif")
    run("optical.tif", sar=None)
    flat = copy_raster(scene["scene"], tmp_path / "flat.tif", lambda p: np.full_like(p, 900))
    run("sar.tif", optical=flat)
    both, optical, sar = (pixels(tmp_path / f"{n}.tif") for n in ("both", "optical", "sar"))
    assert (both != optical).any()
    assert (both != sar).any()


def test_masked_pixels_are_predicted_from_sar_and_nodata_where_that_lacks_too(
    run: Run, pixels: Pixels, aligned_scene: Files, tmp_path: Path
) -> None:
    clouds = np.zeros((90, 130), bool)
    clouds[10:60, 20:80] = True
    gap = np.zeros((90, 130), bool)
    gap[40:90, 60:130] = True
    mask = copy_raster(aligned_scene["clouds"], tmp_path / "mask.tif", lambda p: clouds[None].astype(p.dtype))
    sar = copy_raster(aligned_scene["sar"], tmp_path / "hole.tif", lambda p: np.where(gap, np.nan, p))
    run("map.tif", optical=aligned_scene["scene"], sar=sar, cloud_mask=mask, confidence="percent.tif")
    for name in ("map.tif", "percent.tif"):
        np.testing.assert_array_equal(pixels(tmp_path / name) == 255, clouds & gap)
    run("half.gpkg", optical=aligned_scene["scene"], sar=sar, cloud_mask=mask)
    covered = geopandas.read_file(tmp_path / "half.gpkg").area.sum()
    assert covered == pytest.approx(np.count_nonzero(~(clouds & gap)) * 100, rel=1e-9)


def test_values_under_the_mask_dont_matter(run: Run, pixels: Pixels, scene: Files, tmp_path: Path) -> None:
    with rasterio.open(scene["clouds"]) as file:
        cloudy = file.read(1) != 0
    assert 0.1 < cloudy.mean() < 0.6
    other = copy_raster(scene["scene"], tmp_path / "other.tif", lambda p: np.where(cloudy, 9999, p).astype(p.dtype))
    run("a.tif", cloud_mask=scene["clouds"])
    run("b.tif", cloud_mask=scene["clouds"], optical=other)
    run("c.tif", optical=other)
    a, b, c = (pixels(tmp_path / f"{n}.tif") for n in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_readers_dont_matter(run: Run, pixels: Pixels, tmp_path: Path) -> None:
    run("one.tif", readers=1, confidence="one_percent.tif")
    run("three.tif", readers=3, confidence="three_percent.tif")
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "three.tif").read_bytes()
    assert (tmp_path / "one_percent.tif").read_bytes() == (tmp_path / "three_percent.tif").read_bytes()


def test_batches_and_strips_dont_matter(run: Run, pixels: Pixels, tmp_path: Path, monkeypatch: Any) -> None:
    from gopt_geo.inference import engine

    run("whole.tif", confidence="whole_percent.tif")
    run("batch.tif", batch_size=3, confidence="batch_percent.tif")
    halves = [Window(0, 0, 90, 64), Window(0, 64, 90, 66)]
    monkeypatch.setattr(engine, "column_strips", lambda window, need, limit: halves)
    report = run("strips.tif", confidence="strips_percent.tif", max_memory="8GB")
    assert report.run.strips == 2
    assert report.run.repeated_tiles > 0
    assert any("ran twice" in notice for notice in report.notices)
    for kind in ("", "_percent"):
        whole = pixels(tmp_path / f"whole{kind}.tif")
        np.testing.assert_array_equal(whole, pixels(tmp_path / f"strips{kind}.tif"))
        # Over batch sizes probabilities agree to 1e-5: a tie may fall the other way, or a rounded percent.
        assert np.mean(whole != pixels(tmp_path / f"batch{kind}.tif")) < 1e-3


def test_a_ceiling_names_the_polygon_files_that_it_does_not_bound(run: Run) -> None:
    report = run("map.gpkg", "map.fgb", max_memory="8GB")
    told = [notice for notice in report.notices if "polygons" in notice]
    assert len(told) == 1
    assert told[0].startswith("warning: --max-memory doesn't bound the polygons of map.fgb, which are written at once;")


def test_map_is_the_same_on_a_cut_of_the_files_where_tiles_are_the_same(
    run: Run, pixels: Pixels, aligned_scene: Files, tmp_path: Path
) -> None:
    """Tiles are anchored at the scene's corner: a file cut off at the right and below gives the same inner tiles."""
    cut = {}
    for name in ("scene", "sar"):
        cut[name] = copy_raster(
            aligned_scene[name], tmp_path / f"{name}_cut.tif", lambda p: p[:, :80, :104], height=80, width=104
        )
    run("whole.tif", optical=aligned_scene["scene"], sar=aligned_scene["sar"])
    run("cut.tif", optical=cut["scene"], sar=cut["sar"])
    # Strides of 24: full tiles end at 80 rows and 104 columns; the last 8 of these rows and columns overlap further
    # tiles in the whole scene alone.
    np.testing.assert_array_equal(pixels(tmp_path / "whole.tif")[:72, :96], pixels(tmp_path / "cut.tif")[:72, :96])


def test_pack_from_the_environment(run: Run, tiny_pack: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GOPT_GEO_PACK", str(tiny_pack))
    report = run("map.tif", pack=None)
    assert any("'tiny'" in notice for notice in report.notices)
    monkeypatch.setenv("GOPT_GEO_PACK", str(tmp_path / "none.safetensors"))
    with pytest.raises(gopt_geo.errors.PackError, match=r"none\.safetensors: can't be read"):
        run("other.tif", pack=None)


def test_overwrite(run: Run, pixels: Pixels, tmp_path: Path) -> None:
    target = tmp_path / "map.tif"
    target.write_text("mine")
    with pytest.raises(gopt_geo.errors.OutputError, match="--overwrite"):
        run("map.tif")
    assert target.read_text() == "mine"
    run("map.tif", overwrite=True)
    assert pixels(target).shape == (90, 130)


@pytest.mark.parametrize("step", [1, 3, 7])
def test_preview_shows_the_maps_own_pixels(
    run: Run, pixels: Pixels, scene: Files, tmp_path: Path, step: int, monkeypatch: Any
) -> None:
    from gopt_geo import mapping

    shown: list[Any] = []
    monkeypatch.setattr(mapping, "draw_preview", lambda path, *arrays: (shown.extend(arrays), path.write_bytes(b"")))
    monkeypatch.setattr(mapping, "BLOCK", 32)
    monkeypatch.setattr(mapping, "_PREVIEW_EDGE", -(-130 // step))
    run("map.tif", preview="view.png", reference=scene["labels"], cloud_mask=scene["clouds"])
    optical, radar, mapped, truth, _ = shown
    np.testing.assert_array_equal(mapped, pixels(tmp_path / "map.tif")[::step, ::step])
    np.testing.assert_array_equal(truth, pixels(scene["labels"])[::step, ::step])
    cloudy = pixels(scene["clouds"])[::step, ::step] != 0
    red = (pixels(scene["scene"]).astype(np.float32) / 10000)[::step, ::step]
    np.testing.assert_array_equal(np.isnan(optical[0]), cloudy)
    np.testing.assert_allclose(optical[0][~cloudy], red[~cloudy], rtol=1e-5)
    assert np.isfinite(radar).mean() > 0.9


@pytest.mark.brief
def test_a_picture_that_cannot_be_drawn_costs_the_picture_alone(
    run: Callable[..., PredictReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(output: Path, *_: object) -> None:
        output.write_bytes(b"half of a picture")
        raise DrawingError(output, "the picture can't be drawn (ValueError: odd)", "leave it out")

    monkeypatch.setattr(mapping, "draw_preview", fail)
    report = run("map.tif", preview="view.png")
    assert [path.name for path in report.outputs] == ["map.tif"]
    assert {*names(tmp_path)} - {"map.tif.aux.xml"} == {"map.tif"}
    assert f"warning: --preview {tmp_path / 'view.png'}: the picture can't be drawn (ValueError: odd)" in "\n".join(
        report.notices
    )


@pytest.mark.brief
def test_tiles_that_memory_cannot_hold_are_refused_and_not_tried(run: Run, tmp_path: Path) -> None:
    with pytest.raises(DeviceMemoryError) as caught:
        run("map.tif", tile_size=160_000, batch_size=4)
    said = str(caught.value)
    assert said.startswith("--tile-size 160000: batches of 4 tiles of 160000 x 160000 pixels need about ")
    assert said.endswith("lower --tile-size or --batch-size; a tile needn't be larger than the scene")
    assert names(tmp_path) == []


def test_tiles_are_refused_by_what_is_free(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "available_memory", lambda: 1000)
    with pytest.raises(DeviceMemoryError, match=r"of memory, and 0\.0 GiB are free"):
        run("map.tif")
    monkeypatch.setattr(ceiling, "available_memory", lambda: None)
    run("map.tif")


def test_free_memory_is_what_the_system_says() -> None:
    free = ceiling.available_memory()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert free is not None
    assert 0 < free < total


def test_a_reduced_precision_is_told_by_tag_report_and_notice(
    run: Run, pixels: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    full = run("full.tif", device="cpu", pack=demo_pack_path())
    low = run("low.tif", device="cpu", pack=demo_pack_path(), precision="bf16")
    assert (full.device, full.precision, full.warm_up) == ("cpu", "fp32", 0)
    assert (low.device, low.precision) == ("cpu", "bf16")
    with rasterio.open(tmp_path / "full.tif") as one, rasterio.open(tmp_path / "low.tif") as other:
        assert [file.tags()["GOPT_GEO_PRECISION"] for file in (one, other)] == ["fp32", "bf16"]
    assert not any("bf16" in line for line in full.notices)
    assert any(line == "the model runs in bf16 on cpu, blending in float32 (--precision)" for line in low.notices)
    one, other = pixels(tmp_path / "full.tif"), pixels(tmp_path / "low.tif")
    assert 0 < (one != other).mean() < 0.05


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++ on a CPU")
def test_compiled_the_map_is_the_same_and_the_warm_up_is_told(
    run: Run, pixels: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    torch._dynamo.reset()
    run("plain.tif", device="cpu")
    report = run("compiled.tif", device="cpu", compile=True)
    assert report.precision == "fp32, compiled"
    assert 0 < report.warm_up < report.seconds
    assert any(line.startswith("the model's warm-up took ") for line in report.notices)
    with rasterio.open(tmp_path / "compiled.tif") as file:
        assert file.tags()["GOPT_GEO_PRECISION"] == "fp32, compiled"
    assert np.array_equal(pixels(tmp_path / "plain.tif"), pixels(tmp_path / "compiled.tif"))


def test_the_batch_is_found_and_told(run: Run, tmp_path: Path) -> None:
    assert run("map.tif").run.batch_size == 16  # tiles of 32 pixels are small
    assert run("one.tif", tile_size=128, overlap=0).run.batch_size == 2  # all there are
    for wrong in ("several", 1.5, True, None):
        with pytest.raises(
            GoptGeoError, match=f"^--batch-size: {wrong!r} is no number of tiles; give a whole number, or"
        ):
            run("map.tif", batch_size=wrong, overwrite=True)
    with rasterio.open(tmp_path / "map.tif") as file:
        assert "batch 16" in file.tags()["GOPT_GEO_TILES"]


@pytest.mark.parametrize("wrong", ["3", 2.5, True])
def test_reading_threads_are_a_whole_number(run: Run, tmp_path: Path, wrong: object) -> None:
    with pytest.raises(GoptGeoError, match=f"^--readers: {wrong!r} is no number of threads; give a whole number, or"):
        run("map.tif", readers=wrong)
    assert not (tmp_path / "map.tif").exists()


@pytest.mark.brief
def test_how_many_threads_read() -> None:
    """One on a CPU, more where something is to be waited for; what is asked for goes first."""
    cpu, gpu = (Execution(torch.device(device)) for device in ("cpu", "cuda"))
    local, remote = (SceneInputs(f"{place}a.tif", None) for place in ("", "https://example.com/"))
    for inputs, execution, number in ((local, cpu, 1), (remote, cpu, 2), (local, gpu, 4), (remote, gpu, 4)):
        assert openmap._readers(MapRequest(inputs), execution) == number
    assert SceneInputs(SceneMosaic(("a.tif", "https://example.com/b.tif")), None).remote
    assert not SceneInputs(SceneMosaic(("a.tif", "b.tif")), None).remote


def test_the_batch_may_take_a_quarter_of_the_ceiling_or_half_of_what_is_free(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: list[int | None] = []
    edges: list[int] = []

    def choose(*_: object, edge: int, memory: int | None) -> int:
        edges.append(edge)
        allowed.append(memory)
        return 2

    monkeypatch.setattr(openmap, "choose_batch_size", choose)
    monkeypatch.setattr(openmap, "resident_memory", lambda: 100 << 20)
    monkeypatch.setattr(openmap, "available_memory", lambda: 6 << 30)
    assert run("free.tif").run.batch_size == 2
    assert run("ceiling.tif", max_memory="2GiB").run.batch_size == 2
    fixed = (100 << 20) + ceiling.FIRST_USE + ceiling.GDAL_CACHE
    assert allowed == [3 << 30, ((2 << 30) - fixed) // 4]
    run("asked.tif", batch_size=3)
    assert len(allowed) == 2
    run("averaged.tif", tile_size=64, scales=(0.5, 1.5))
    assert edges[2:] == [96], "of tiles that are averaged over sizes the largest decides"
