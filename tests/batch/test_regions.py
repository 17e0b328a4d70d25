"""Regions from files: four formats, what is refused of them, and the way back into a file."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from pyproj import CRS

from gopt_geo.batch.regioncolumns import OPTIONS
from gopt_geo.batch.regionfile import ENDINGS as FORMATS
from gopt_geo.batch.regions import Region, check_regions, read_regions, write_regions
from gopt_geo.errors import BatchError, OutputError
from regionfiles import BOW_TIE, HOLED, SQUARE, TWO, UTM, WGS84, Row, collection, refusal, table

ENDINGS = sorted(FORMATS)


@pytest.mark.brief
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("crs", [WGS84, UTM], ids=["degrees", "metres"])
def test_all_formats_say_the_same(tmp_path: Path, ending: str, crs: CRS) -> None:
    shapes = [SQUARE, TWO, HOLED] if crs == WGS84 else [shapely.box(5e5, 5.5e6, 5.1e5, 5.6e6)] * 3
    shapes = [shapely.MultiPolygon([s]) if s.geom_type == "Polygon" else s for s in shapes]  # FlatGeobuf keeps one type
    rows = [
        {"id": "a", "optical": "s2/a.tif", "sar": "s1.tif;more/s1.tif", "pack": None, "tile_size": 256.0, "name": "x"},
        {"id": "b", "optical": "/data/b.tif", "sar": None, "pack": "p.safetensors", "tile_size": None, "name": "y"},
        {"id": "ç d", "optical": None, "sar": "B1.tif,B2.tif", "pack": None, "tile_size": None, "name": "z"},
    ]
    path = table(tmp_path / f"regions{ending}", rows, shapes, crs)
    here = str(tmp_path)
    read = {region.id: region for region in read_regions(path)}  # FlatGeobuf has an order of its own
    assert read["a"].optical == (f"{here}/s2/a.tif",)
    assert read["a"].sar == (f"{here}/s1.tif", f"{here}/more/s1.tif")
    assert read["a"].pack is None
    assert read["a"].options == {"tile_size": 256}
    assert type(read["a"].options["tile_size"]) is int
    assert read["b"].optical == ("/data/b.tif",)
    assert read["b"].sar == ()
    assert read["b"].pack == f"{here}/p.safetensors"
    assert read["b"].options == {}
    assert read["ç d"].sar == (f"{here}/B1.tif,{here}/B2.tif",)
    for text, shape in zip(("a", "b", "ç d"), shapes, strict=True):
        assert read[text].geometry == shape
        assert read[text].crs.equals(crs, ignore_axis_order=True)


@pytest.mark.brief
def test_reading_goes_through_any_order_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").mkdir()
    path = collection(tmp_path / "jobs" / "r.geojson", ({"id": 7, "optical": "../s2.tif"}, SQUARE))
    monkeypatch.chdir(tmp_path)
    (region,) = read_regions("jobs/r.geojson")
    assert region == read_regions(path)[0]
    assert region.id == "7"
    assert Path(region.optical[0]).is_absolute()
    assert Path(region.optical[0]).resolve() == tmp_path / "s2.tif"


def test_a_feature_alone_and_ids_of_features(tmp_path: Path) -> None:
    path = tmp_path / "r.geojson"
    shape = shapely.geometry.mapping(SQUARE)
    feature = {"type": "Feature", "id": 12, "properties": {"optical": "a.tif"}, "geometry": shape}
    path.write_text("\ufeff" + json.dumps(feature), encoding="utf-8")
    assert [region.id for region in read_regions(path)] == ["12"]
    both = {**feature, "id": "outer", "properties": {"optical": "a.tif", "id": "inner"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [both, {**feature, "properties": None}]}))
    assert [region.id for region in read_regions(path, need_sources=False)] == ["inner", "12"]


def test_a_geopackage_whose_key_is_called_id(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame({"optical": ["a.tif", "b.tif"]}, geometry=[SQUARE, SQUARE], crs=WGS84)
    frame.to_file(tmp_path / "r.gpkg", layer_options={"FID": "id"})
    assert [region.id for region in read_regions(tmp_path / "r.gpkg")] == ["1", "2"]


def test_layers_of_a_geopackage(tmp_path: Path) -> None:
    path = tmp_path / "r.gpkg"
    for layer in ("fields", "towns"):
        frame = geopandas.GeoDataFrame({"id": [layer], "optical": ["a.tif"]}, geometry=[SQUARE], crs=WGS84)
        frame.to_file(path, layer=layer)
    refusal(path, "several layers (fields, towns)", f"{path}|fields")
    assert read_regions(f"{path}|towns")[0].id == "towns"
    with pytest.raises(BatchError, match="no layer 'roads'"):
        read_regions(f"{path}|roads")
    with pytest.raises(BatchError, match="only a GeoPackage has layers"):
        read_regions(f"{table(tmp_path / 'r.fgb', [{'id': 'a'}], [SQUARE])}|r")


@pytest.mark.brief
@pytest.mark.parametrize("crs", [WGS84, UTM, CRS.from_user_input("OGC:CRS84"), CRS.from_proj4("+proj=laea +lat_0=50")])
def test_written_regions_are_read_back_equal(tmp_path: Path, crs: CRS) -> None:
    shapes = [SQUARE, TWO, HOLED, shapely.box(1 / 3, 2 / 3, np.nextafter(1, 2), np.pi)]
    regions = [Region(f"r{i}", shape, crs, optical=("/s/a;b.tif", "/s/c.tif")) for i, shape in enumerate(shapes)]
    regions[1] = replace(regions[1], optical=(), sar=("/s/1.tif,/s/2.tif",), pack="/p/x.safetensors")
    said = {"scales": (0.75, 1.0), "batch_size": "auto", "tile_size": 512, "resolution": 10.0, "cloud_mask": "SCL"}
    regions[2] = replace(regions[2], options={**said, "coregister": True, "grid": "/g.tif", "sar_units": "db"})
    path = tmp_path / "failures.geojson"
    path.write_text("of an earlier run")
    write_regions(path, regions)
    again = read_regions(path)
    assert again == tuple(regions)
    assert type(again[2].options["scales"]) is tuple
    assert [entry.name for entry in tmp_path.iterdir()] == ["failures.geojson"]
    if crs.to_epsg():  # GDAL takes the two of WGS 84 for one, and names others as it likes
        assert geopandas.read_file(path).crs == crs


def test_regions_in_several_crs_come_back_too(tmp_path: Path) -> None:
    regions = (
        Region("a", SQUARE, WGS84, ("/a.tif",)),
        Region("b", shapely.box(5e5, 5.5e6, 5.1e5, 5.6e6), UTM, ("/b.tif",)),
    )
    write_regions(tmp_path / "r.geojson", regions)
    assert read_regions(tmp_path / "r.geojson") == regions


def test_urls_come_back_where_they_are_allowed(tmp_path: Path) -> None:
    path = collection(tmp_path / "r.geojson", ({"id": "a", "optical": ["https://e.org/a;b.tif?k=1"]}, SQUARE))
    regions = read_regions(path, allow_remote=True)
    write_regions(tmp_path / "again.geojson", regions)
    assert read_regions(tmp_path / "again.geojson", allow_remote=True) == regions
    refusal(tmp_path / "again.geojson", "--allow-remote")


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "r.geojson"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_regions(path, [Region("a", SQUARE, WGS84, options={"grid": object()})])
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.geojson"]
    with pytest.raises(OutputError, match="unknown ending"):
        write_regions(tmp_path / "r.gpkg", [])


@pytest.mark.brief
def test_regions_travel(tmp_path: Path) -> None:
    region = Region("a", TWO, UTM, ("/a.tif",), options={"scales": (1.0,)})
    assert pickle.loads(pickle.dumps(region)) == region


# files


@pytest.mark.brief
@pytest.mark.parametrize("path", ["/vsicurl/http://127.0.0.1:9/r.geojson", "https://e.org/r.geojson", "GPKG:/x/r.gpkg"])
def test_region_files_are_on_disk(path: str) -> None:
    with pytest.raises(BatchError, match="this machine's disk alone"):
        read_regions(path)


@pytest.mark.parametrize("name", ["missing.geojson", "fo\0lder.geojson", "x" * 300 + ".gpkg", "folder.gpkg"])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.gpkg").mkdir()
    with pytest.raises(BatchError, match="no such file"):
        read_regions(f"{tmp_path}/{name}")


@pytest.mark.brief
@pytest.mark.parametrize("ending", [".shp", ".csv", ".vrt", ".kml", ".xml", ".sqlite", ""])
def test_other_formats_are_not_opened(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"r{ending}").write_text("<OGRVRTDataSource/>")
    refusal(tmp_path / f"r{ending}", "unknown ending", "GeoPackage (.gpkg)")


@pytest.mark.brief
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_an_ending_hides_is_not_opened(tmp_path: Path, ending: str) -> None:
    """GDAL goes by content: a virtual data source of any name would send it to other files and servers."""
    inner = collection(tmp_path / "inner.geojson", ({"id": "a", "optical": "a.tif"}, SQUARE))
    path = tmp_path / f"r{ending}"
    path.write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="inner"><SrcDataSource>{inner}</SrcDataSource></OGRVRTLayer>'
        "</OGRVRTDataSource>"
    )
    assert len(geopandas.read_file(path)) == 1 or ending.endswith("parquet")  # what would have happened
    refusal(path, "give" if "json" in ending or "parquet" in ending else "isn't")


def test_one_format_under_the_ending_of_another(tmp_path: Path) -> None:
    good = {ending: table(tmp_path / f"g{ending}", [{"id": "a", "sar": "a"}], [SQUARE]) for ending in ENDINGS}
    for ending in ENDINGS:
        for other, path in good.items():
            if FORMATS[ending] != FORMATS[other]:
                wrong = tmp_path / f"wrong{ending}"
                wrong.write_bytes(path.read_bytes())
                refusal(wrong)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97])
def test_truncated_files_are_refused(tmp_path: Path, ending: str, share: float) -> None:
    rows = [{"id": f"r{i}", "optical": f"{i}.tif"} for i in range(500)]
    whole = table(tmp_path / f"whole{ending}", rows, [SQUARE] * 500).read_bytes()
    path = tmp_path / f"cut{ending}"
    path.write_bytes(whole[: int(share * len(whole))])
    refusal(path)


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "null",
        "{}",
        '{"type": "Topology"}',
        '{"type": "FeatureCollection"}',
        '{"type": "FeatureCollection", "features": {}}',
        '{"type": "FeatureCollection", "features": [3]}',
        '{"type": "FeatureCollection", "features": [{"properties": [1]}]}',
        '{"type": "FeatureCollection", "features": [NaN]}',
        "[" * 100_000,
        '{"type": "Feature", "properties": {"id": "a"}, "geometry": ' + '{"a":' * 100_000,
    ],
)
def test_json_that_is_no_geojson(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.geojson").write_text(text)
    refusal(tmp_path / "r.geojson", "give" if "features" not in text or "{}" in text else "")


@pytest.mark.parametrize(
    "name",
    ["+proj=longlat +nadgrids=/etc/passwd", "file.prj", "EPSG:999999", "urn:ogc:def:crs:EPSG::4978", "", None, 4326],
)
def test_only_known_crs_are_taken(tmp_path: Path, name: object) -> None:
    member = {"type": "name", "properties": {"name": name}}
    refusal(collection(tmp_path / "r.geojson", ({"id": "a", "optical": "a"}, SQUARE), crs=member), "CRS")


@pytest.mark.parametrize("member", [None, {}, {"type": "link", "properties": {"href": "https://e.org"}}, "EPSG:4326"])
def test_other_ways_to_state_a_crs_are_refused(tmp_path: Path, member: object) -> None:
    refusal(collection(tmp_path / "r.geojson", ({"id": "a", "optical": "a"}, SQUARE), crs=member), "CRS")


@pytest.mark.parametrize("ending", [".gpkg", ".fgb", ".parquet"])
def test_tables_without_a_crs_are_refused(tmp_path: Path, ending: str) -> None:
    refusal(table(tmp_path / f"r{ending}", [{"id": "a", "sar": "a"}], [SQUARE], None), "CRS")


def test_faults_are_counted_and_the_first_is_told(tmp_path: Path) -> None:
    rows: list[tuple[Row, Any]] = [({"id": f"r{i}", "optical": "a.tif"}, SQUARE) for i in range(20)]
    rows[5] = ({"id": "r5", "optical": "a.tif", "tile_size": "x", "blend": "y"}, SQUARE)
    rows[3] = ({"id": "r3", "optical": "a.tif"}, BOW_TIE)
    rows[9] = ({"id": "r8", "optical": "a.tif"}, None)
    text = refusal(collection(tmp_path / "r.geojson", *rows), "feature 4 ('r3')", "Self-intersection")
    assert "(and 4 further faults in it)" in text


def test_many_regions(tmp_path: Path) -> None:
    """All ids are compared with each other, and all geometries are looked at: without quadratic work."""
    count = 20_000
    rows = [{"id": f"r{i}", "optical": f"{i}.tif"} for i in range(count)]
    left = np.linspace(-170, 170, count)
    path = table(tmp_path / "r.parquet", rows, list(shapely.box(left, 10, left + 0.1, 10.1)))
    regions = read_regions(path)
    assert len(regions) == len({region.id for region in regions}) == count
    assert len({id(region.crs) for region in regions}) == 1
    assert check_regions(regions) == regions


def test_the_page_says_what_is_taken(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "batch.md").read_text()
    example = page.split("```json\n")[1].split("```")[0]
    (tmp_path / "r.geojson").write_text(example)
    first, second = read_regions(tmp_path / "r.geojson")
    assert (first.id, second.id) == ("rhine-1", "rhine-2")
    assert second.options == {"cloud_mask": f"{tmp_path}/s2/clouds.tif", "tile_size": 512}
    row = next(line for line in page.splitlines() if line.startswith("| any option"))
    assert row.split("`")[3::2] == list(OPTIONS)
    for name in FORMATS:
        assert f"`{name}`" in page
