"""Batches whose scenes a catalogue finds, regions with several scenes, and mosaics at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from distributed import Client
from typer.testing import CliRunner, Result

import gopt_geo.batch
from gopt_geo.batch.jobs import Job, JobMaker
from gopt_geo.batch.regions import Region
from gopt_geo.batch.work import map_region
from gopt_geo.simulate import SceneSpec, write_scene
from gopt_geo_cli.main import app

EDGE = 960.0  # metres, of a scene
NORTH = 5400000.0
SPANS = {"west": (0.0, 600.0), "middle": (600.0, 1300.0), "east": (1300.0, 1920.0)}
SAID = {"optical_bands": "red,green,blue", "device": "cpu", "batch_size": 2, "tile_size": 64, "overlap": 16}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two neighbouring scenes of 96 x 96 pixels, and an index of them."""
    folder = tmp_path_factory.mktemp("index")
    rows: list[dict[str, Any]] = []
    for i in range(2):
        left = 600000.0 + i * EDGE
        paths = {stem: folder / f"{stem}_{i}.tif" for stem in ("scene", "sar", "labels", "clouds")}
        write_scene(SceneSpec(seed=20 + i, height=96, width=96, origin=(left, NORTH)), paths)
        shape = shapely.box(left, NORTH - EDGE, left + EDGE, NORTH)
        rows.append({"path": f"scene_{i}.tif", "modality": "optical", "cloud_cover": 3.0 + i, "geometry": shape})
        rows.append({"path": f"sar_{i}.tif", "modality": "sar", "cloud_cover": None, "geometry": shape})
    path = folder / "scenes.gpkg"
    geopandas.GeoDataFrame(rows, crs="EPSG:32632").to_file(path)
    return path


def region(name: str, **more: Any) -> Region:
    from pyproj import CRS

    start, stop = SPANS.get(name, (50000.0, 50300.0))
    shape = shapely.box(600000 + start, NORTH - 800, 600000 + stop, NORTH - 100)
    return Region(name, shape, CRS.from_epsg(32632), **more)


@pytest.fixture
def regions(tmp_path: Path) -> Path:
    """A file of three adjacent regions that name no scenes."""
    path = tmp_path / "regions.geojson"
    found = [region(name) for name in SPANS]
    frame = geopandas.GeoDataFrame({"id": list(SPANS)}, geometry=[r.geometry for r in found], crs="EPSG:32632")
    frame.to_crs("EPSG:4326").to_file(path)
    return path


def lattice(folder: Path) -> Path:
    path = folder / "lattice.tif"
    options = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 120, "width": 220, "crs": "EPSG:32632"}
    transform = rasterio.Affine(10, 0, 600000 - 100, 0, -10, NORTH + 100)
    with rasterio.open(path, "w", **options, transform=transform, sparse_ok=True):
        pass
    return path


def paths(folder: Path, stem: str, *numbers: int) -> tuple[str, ...]:
    return tuple(str(folder / f"{stem}_{i}.tif") for i in numbers)


def job_of(where: Path, one: Region, index: Path | None = None, **said: Any) -> Job:
    where.mkdir(exist_ok=True)
    search = None if index is None else {"catalog": str(index), "allow_remote": False}
    return JobMaker(where, ("tif",), {**SAID, **said}, search)(one)  # type: ignore[typeddict-item]


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


def batch(*arguments: object) -> Result:
    options = ("--optical-bands", "red,green,blue", "--device", "cpu", "--tile-size", "64", "--workers", "1")
    return CliRunner().invoke(app, ["batch", *map(str, arguments), *options])


@pytest.mark.brief
def test_a_worker_finds_the_scenes_of_a_region_that_names_none(index: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path / "found", region("middle"), index)
    assert job.optical == job.sar == ()
    record = map_region(job)
    assert record["status"] == "done", record
    names = {Path(one["path"]).name for one in record["inputs"]}
    assert names == {"scene_0.tif", "scene_1.tif", "sar_0.tif", "sar_1.tif"}
    # the first scene shows more of the region, and lies on top
    folder = index.parent
    named = region("middle", optical=paths(folder, "scene", 0, 1), sar=paths(folder, "sar", 0, 1))
    assert map_region(job_of(tmp_path / "named", named))["status"] == "done"
    maps = [pixels(tmp_path / place / "middle.tif") for place in ("found", "named")]
    assert (maps[0] == maps[1]).all()
    assert (maps[0] != 255).all()


def test_a_region_that_names_scenes_keeps_them(index: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path, region("west", optical=("a.tif",)), index)
    assert job.catalog is None
    assert job.optical == ("a.tif",)


def test_how_scenes_are_found_is_part_of_what_is_asked(index: Path, tmp_path: Path) -> None:
    one = region("west")
    plain = job_of(tmp_path, one)
    jobs = [job_of(tmp_path, one, path) for path in (index, index.with_suffix(".parquet"))]
    assert len({plain.digest, *(job.digest for job in jobs)}) == 3
    assert jobs[0].catalog is not None
    assert jobs[0].catalog["modalities"] == ["optical", "sar"], "what the pack knows"


def test_a_region_without_scenes_fails_alone_and_comes_again_once_the_index_has_them(
    index: Path, tmp_path: Path
) -> None:
    record = map_region(job_of(tmp_path, region("elsewhere"), index))
    assert record["status"] == "failed"
    assert "no optical scene shows the region" in record["error"]["message"]
    assert record["error"]["allows"] == "never"
    assert [one["path"] for one in record["inputs"]] == [str(index)]


@pytest.mark.brief
def test_a_batch_from_an_index_with_its_mosaics(index: Path, regions: Path, tmp_path: Path) -> None:
    out, grid = tmp_path / "out", lattice(tmp_path)
    products = ["--mosaic", tmp_path / "all.vrt", "--mosaic", out / "all.gpkg"]
    asked = [regions, "-o", out, "--catalog", index, "--grid", grid, "--extent", "grid", *products]
    result = batch(*asked)
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "all.vrt") in result.output
    together, valid = pixels(tmp_path / "all.vrt"), 0
    for name in SPANS:
        valid += int((pixels(out / f"{name}.tif") != 255).sum())
    assert (together != 255).sum() == valid, "adjacent regions share no pixel and leave none out"
    frame = geopandas.read_file(out / "all.gpkg")
    assert shapely.coverage_is_valid(frame.geometry.values)
    assert frame.area.sum() == pytest.approx(100 * valid)
    # once more: nothing is mapped, the mosaics are made again
    before = (tmp_path / "all.vrt").stat().st_ino
    result = batch(*asked)
    assert result.exit_code == 0, result.output
    assert "0 regions mapped, 3 kept, 0 failed" in result.output
    assert (tmp_path / "all.vrt").stat().st_ino != before
    assert (pixels(tmp_path / "all.vrt") == together).all()


def test_regions_that_fail_are_missing_in_the_mosaic(index: Path, tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame({"id": ["west", "elsewhere"]}, crs="EPSG:32632", geometry=[
        region("west").geometry, region("elsewhere").geometry
    ])  # fmt: skip
    frame.to_file(tmp_path / "regions.gpkg")
    result = batch(
        tmp_path / "regions.gpkg", "-o", tmp_path / "out", "--catalog", index, "--mosaic", tmp_path / "m.tif"
    )
    assert result.exit_code == 1, result.output
    assert "1 failed region missing in what was laid together" in result.output
    assert (pixels(tmp_path / "m.tif") == pixels(tmp_path / "out" / "west.tif")).all()
    failures = json.loads((tmp_path / "out" / "failures.geojson").read_text())
    assert [feature["properties"]["id"] for feature in failures["features"]] == ["elsewhere"]


def test_what_is_wrong_with_mosaics_is_told_before_anything_is_mapped(
    index: Path, regions: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.gpkg").write_text("mine")
    for options, words in (
        (["--mosaic", tmp_path / "m.png"], "unknown ending '.png'"),
        (["--mosaic", tmp_path / "no" / "m.vrt"], "doesn't exist"),
        (["--mosaic", tmp_path / "mine.gpkg"], "exists, and is no mosaic of maps"),
        (["--mosaic", tmp_path / "m.vrt", "--products", "gpkg"], "add tif to --products"),
        (["--mosaic", tmp_path / "out" / "m.png"], "unknown ending '.png'"),
        (["--mosaic", tmp_path / "out" / "west.tif"], "it is where the result of a region goes"),
    ):
        result = batch(regions, "-o", tmp_path / "out", "--catalog", index, *options)
        assert result.exit_code == 2, result.output
        assert words in " ".join(result.output.split())
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "mine.gpkg").read_text() == "mine"


def test_what_is_wrong_with_a_catalogue_is_told_at_once(regions: Path, tmp_path: Path) -> None:
    for options, words in (
        ([], "name its scenes in the columns optical and sar, or find them with --catalog"),
        (["--time", "2024"], "--time: it needs --catalog"),
        (["--catalog", tmp_path / "no.gpkg"], "there is no such file"),
        (["--catalog", "https://example.org", "--time", "2024"], "use --allow-remote"),
        (["--catalog", tmp_path / "catalog.json"], "it needs --time"),
    ):
        result = batch(regions, "-o", tmp_path / "out", *options)
        assert result.exit_code == 2, result.output
        assert words in " ".join(result.output.split())
        assert not (tmp_path / "out").exists()


def test_in_python(index: Path, client: Client, tmp_path: Path) -> None:
    found = [region(name) for name in SPANS]
    with gopt_geo.batch.run(
        found, client=client, output=tmp_path / "out", catalog=index, crs="EPSG:32632", resolution=10.0, **SAID
    ) as run:
        results = {result.id: result for result in run}
    assert {result.status for result in results.values()} == {"done"}, results
    maps = [results[name].outputs[0] for name in SPANS]
    report = gopt_geo.batch.mosaic_maps(maps, tmp_path / "all.tif")
    assert report.maps == 3
    assert (pixels(tmp_path / "all.tif") != 255).all()
