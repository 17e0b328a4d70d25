"""Maps of scenes that a STAC catalogue holds: found, read in parts, and the same as of the files themselves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.shutil
import shapely
import shapely.geometry
from rasterio.warp import transform_bounds
from typer.testing import CliRunner

import gopt_geo
from gopt_geo.prediction import PredictReport
from gopt_geo.simulate import SceneSpec, write_scene
from gopt_geo_cli.main import app
from rangeserver import Served, serve

Run = Callable[..., PredictReport]
SIZE = 1600


def cogs(folder: Path) -> tuple[float, float, float, float]:
    """Write a simulated scene as Sentinel-2 and Sentinel-1 come: a band a file; return its bounds in degrees."""
    paths = {stem: folder / f"{stem}.tif" for stem in ("scene", "sar", "labels", "clouds")}
    write_scene(SceneSpec(seed=5, height=SIZE, width=SIZE, cloud=0.2), paths)
    with rasterio.open(paths["scene"]) as file:
        for index, band in enumerate(("B04", "B03", "B02"), start=1):
            profile = {**file.profile, "count": 1, "driver": "GTiff", "nodata": None, "dtype": "uint16"}
            with rasterio.open(folder / "one.tif", "w", **profile) as one:
                # as digital numbers of processing baseline 04.00 and newer
                one.write(np.round(file.read(index) * file.scales[index - 1] * 1e4 + 1000).astype(np.uint16), 1)
            with rasterio.open(folder / "one.tif") as one:
                rasterio.shutil.copy(one, folder / f"{band}.tif", driver="COG", BLOCKSIZE=128)
        bounds = transform_bounds(file.crs, 4326, *file.bounds)
    with (
        rasterio.open(paths["sar"]) as file,
        rasterio.open(
            folder / "one.tif", "w", **{**file.profile, "dtype": "float32", "count": 1, "nodata": -32768}
        ) as one,
    ):
        one.write(np.power(10, file.read(1) / 10).astype(np.float32), 1)
    with rasterio.open(folder / "one.tif") as one:
        rasterio.shutil.copy(one, folder / "vv.tif", driver="COG", BLOCKSIZE=128)
    (folder / "one.tif").unlink()
    shutil.move(paths["clouds"], folder / "scl_like.tif")
    return bounds


def raised_by_hand(folder: Path, target: Path) -> list[Path]:
    """Copy the bands with the scale and offset in their tags."""
    copies = []
    for band in ("B04", "B03", "B02"):
        copies.append(Path(shutil.copy(folder / f"{band}.tif", target / f"{band}.tif")))
        with rasterio.open(copies[-1], "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
            file.scales, file.offsets, file.nodata = (1e-4,), (-0.1,), 0
    return copies


def items(bounds: tuple[float, float, float, float]) -> list[pystac.Item]:
    box = shapely.geometry.mapping(shapely.box(*bounds))
    optical = {"platform": "sentinel-2b", "eo:cloud_cover": 12.0, "s2:processing_baseline": "05.10"}
    sar = {"platform": "sentinel-1a", "sar:product_type": "RTC"}
    found = []
    for name, day, properties in (("optical", 10, optical), ("sar", 12, sar)):
        item = pystac.Item(name, box, list(bounds), datetime(2024, 6, day, tzinfo=UTC), properties)
        found.append(item)
    for band, common in (("B04", "red"), ("B03", "green"), ("B02", "blue")):
        fields = {"eo:bands": [{"name": band, "common_name": common}]}
        found[0].add_asset(common, pystac.Asset(f"./{band}.tif", media_type=pystac.MediaType.COG, extra_fields=fields))
    found[1].add_asset("vv", pystac.Asset("./vv.tif", media_type=pystac.MediaType.COG))
    return found


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path, tuple[float, ...]]]:
    folder = tmp_path_factory.mktemp("catalog")
    bounds = cogs(folder)
    root = pystac.Catalog("root", "for tests")
    for item in items(bounds):
        root.add_item(item)
    layout = pystac.layout.TemplateLayoutStrategy(item_template="")
    root.normalize_hrefs(str(folder), strategy=layout)
    root.save(pystac.CatalogType.SELF_CONTAINED)
    with serve(folder) as served:
        yield served, folder, bounds


def area(bounds: tuple[float, ...]) -> str:
    """A tenth of each side, a tenth from the upper left."""
    left, bottom, right, top = bounds
    x, y = 0.1 * (right - left), 0.1 * (top - bottom)
    return ",".join(f"{v:.6f}" for v in (left + x, top - 2 * y, left + 2 * x, top - y))


@pytest.mark.brief
def test_a_map_from_a_catalogue_reads_the_area_alone(
    run: Run, catalog: Any, tiny_pack: Path, pixels: Any, tmp_path: Path
) -> None:
    served, folder, bounds = catalog
    aoi = area(bounds)
    served.sent.clear()
    arguments = ["predict", "--catalog", f"{served.url}/catalog.json", "--aoi", aoi, "--time", "2024-06"]
    arguments += ["-o", str(tmp_path / "map.tif"), "--pack", str(tiny_pack), "--device", "cpu"]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    assert "note: optical: optical (2024-06-10 00:00, 12 % cloud; shows 100 % of the area; the best of 1)" in ran.stderr
    assert "note: SAR: sar (2024-06-12 00:00; shows 100 % of the area; the best of 1)" in ran.stderr
    for name in ("B04.tif", "vv.tif"):
        assert served.sent[name] < 0.5 * (folder / name).stat().st_size
    plain = raised_by_hand(folder, tmp_path)  # what the item states by itself, said by hand of the files
    optical = ",".join(map(str, plain))
    run("plain.tif", optical=optical, sar=folder / "vv.tif", optical_bands=None, sar_units="power", aoi=aoi)
    np.testing.assert_array_equal(pixels(tmp_path / "map.tif"), pixels(tmp_path / "plain.tif"))
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.tags()["GOPT_GEO_INPUT_OPTICAL"] == "STAC item optical"
        assert file.read(1).min() < 255


def test_a_scene_is_found_by_the_api_and_taken_as_it_is(run: Run, catalog: Any, pixels: Any, tmp_path: Path) -> None:
    _, folder, bounds = catalog
    found = gopt_geo.find_scene(folder / "catalog.json", area(bounds), "2024")
    assert (found.optical.id, found.sar.id) == ("optical", "sar")
    run("items.tif", optical=found.optical, sar=found.sar, optical_bands=None, aoi=area(bounds))
    run("files.tif", optical=folder / "optical.json", sar=folder / "sar.json", optical_bands=None, aoi=area(bounds))
    np.testing.assert_array_equal(pixels(tmp_path / "items.tif"), pixels(tmp_path / "files.tif"))
    told = gopt_geo.info(folder / "optical.json")
    assert [band["name"] for band in told["bands"]] == ["red", "green", "blue"]
    assert told["bands"][0]["offset"] == pytest.approx(-0.1)
    pair = gopt_geo.info(found.optical, found.sar)
    assert pair["sensors"] == {"optical": None, "sar": "sentinel-1-rtc"}
    assert pair["acquired"]["days_apart"] == 2


@pytest.mark.brief
@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--catalog", "c.json", "--aoi", "0,0,1,1"], "it needs --aoi and --time"),
        (["o.tif", "s.tif", "--catalog", "c.json"], "it stands instead of OPTICAL and SAR"),
        (["o.tif", "s.tif", "--time", "2024"], "it needs --catalog"),
        (["o.tif", "s.tif", "--max-cloud", "0"], "it needs --catalog"),
        ([], "give OPTICAL and SAR, --sar alone, or --catalog with --aoi and --time"),
        (["--catalog", "{here}/none.json", "--aoi", "0,0,1,1", "--time", "2024"], "the catalogue can't be read"),
        (["--catalog", "{url}", "--aoi", "0,0,1,1", "--time", "2024"], "no item over the area"),
        (["--catalog", "{url}", "--aoi", "{area}", "--time", "2023"], "no item over the area"),
        (["--catalog", "{url}", "--aoi", "{area}", "--time", "2024", "--max-cloud", "5"], "at most 5 % cloud"),
        (["--catalog", "{url}", "--aoi", "{area}", "--time", "2024", "--max-cloud", "101"], "it isn't a share"),
        (["--catalog", "{url}", "--aoi", "{area}", "--time", "soon"], "it isn't a range of time"),
    ],
)
def test_searches_that_find_nothing(catalog: Any, tmp_path: Path, options: list[str], found: str) -> None:
    served, _, bounds = catalog
    known = {"url": f"{served.url}/catalog.json", "area": area(bounds), "here": str(tmp_path)}
    given = [option.format(**known) for option in options]
    ran = CliRunner().invoke(app, ["predict", *given, "-o", str(tmp_path / "map.tif")])
    assert ran.exit_code == 2, ran.output
    assert found in " ".join(ran.stderr.split())
    assert not list(tmp_path.iterdir())
