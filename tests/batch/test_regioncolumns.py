"""What columns of region files say: scenes, packs, options; and paths that lead where they must not."""

from __future__ import annotations

import json
import typing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import pystac
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopt_geo.batch.regioncolumns import OPTIONS, REFUSED, concerns
from gopt_geo.batch.regionfile import FeatureFault
from gopt_geo.batch.regionpaths import PathReader
from gopt_geo.batch.regions import Region, read_regions
from gopt_geo.maprequest import MapOptions
from gopt_geo.prediction import predict
from regionfiles import SQUARE, WGS84, collection, refusal, table


def one(path: Path, row: dict[str, Any], **how: Any) -> Region:
    (region,) = read_regions(collection(path / "r.geojson", ({"id": "a", "optical": "s2.tif", **row}, SQUARE)), **how)
    return region


def refused(path: Path, row: dict[str, Any], *words: str, **how: Any) -> None:
    file = collection(path / "r.geojson", ({"id": "a", "optical": "s2.tif", **row}, SQUARE))
    refusal(file, "feature 1 ('a')", *words, **how)


@pytest.mark.brief
def test_every_option_of_predict_is_either_taken_or_refused() -> None:
    said = {*typing.get_type_hints(MapOptions), *predict.__kwdefaults__, "output", "outputs"}
    assert said - {*OPTIONS, *REFUSED} == {"pack", "progress", "load", "rows"}
    assert not set(OPTIONS) & set(REFUSED)


TAKEN: list[tuple[str, Any, Any]] = [
    ("tile_size", 512, 512),
    ("tile_size", 512.0, 512),
    ("overlap", 0, 0),
    ("batch_size", "auto", "auto"),
    ("batch_size", 8, 8),
    ("batch_size", "8", 8),
    ("resolution", 10, 10.0),
    ("resolution", 2.5, 2.5),
    ("scales", [0.75, 1], (0.75, 1.0)),
    ("scales", "0.75, 1", (0.75, 1.0)),
    ("scales", "[0.75, 1]", (0.75, 1.0)),
    ("scales", 1, (1.0,)),
    ("coregister", True, True),
    ("coregister", "False", False),
    ("pixel_grid", False, False),
    ("blend", " linear ", "linear"),
    ("augment", "dihedral", "dihedral"),
    ("precision", "bf16", "bf16"),
    ("extent", "union", "union"),
    ("crs", "EPSG:32632", "EPSG:32632"),
    ("optical_bands", "B04,B03,B02", "B04,B03,B02"),
    ("sensor", "sentinel-2-l2a", "sentinel-2-l2a"),
    ("grid", "sar", "sar"),
    ("grid", "lattice.tif", "{here}/lattice.tif"),
    ("cloud_mask", "scl", "scl"),
    ("cloud_mask", "QA_PIXEL", "QA_PIXEL"),
    ("cloud_mask", "clouds/scl.tif", "{here}/clouds/scl.tif"),
    ("cloud_mask_kind", "qa-pixel", "qa-pixel"),
    ("backbone_weights", "../w.safetensors", "{here}/../w.safetensors"),
]


@pytest.mark.brief
@pytest.mark.parametrize(("name", "value", "taken"), TAKEN)
def test_options_have_the_types_of_predict(tmp_path: Path, name: str, value: Any, taken: Any) -> None:
    options = one(tmp_path, {name: value}).options
    expected = taken.format(here=tmp_path) if isinstance(taken, str) else taken
    assert options == {name: expected}
    assert type(options[name]) is type(expected)


@pytest.mark.parametrize("name", sorted({*OPTIONS, *REFUSED, "pack", "sar", "tile_sise"}))
@pytest.mark.parametrize("value", [None, "", "  "])
def test_empty_cells_say_nothing(tmp_path: Path, name: str, value: object) -> None:
    region = one(tmp_path, {name: value})
    assert (region.options, region.pack, region.sar) == ({}, None, ())


WRONG: list[tuple[str, Any, str, str]] = [
    ("tile_size", "512", "'512' is no whole number", "such as 512"),
    ("tile_size", 12.5, "12.5 is no whole number", "such as 512"),
    ("tile_size", True, "True is no whole number", "such as 512"),
    ("batch_size", "many", "'many' is no choice", "use auto or a whole number"),
    ("resolution", "10", "'10' is no number", "such as 10.5"),
    ("resolution", 10**400, "is no number", "such as 10.5"),
    ("scales", "big", "'big' isn't numbers", "[0.75, 1, 1.25]"),
    ("scales", [], "[] isn't numbers", "[0.75, 1, 1.25]"),
    ("scales", [1, None], "[1, None] isn't numbers", "[0.75, 1, 1.25]"),
    ("coregister", 1, "1 is neither true nor false", "write one of them"),
    ("coregister", "yes", "'yes' is neither true nor false", "write one of them"),
    ("blend", "gauss", "'gauss' is no choice", "use hann, linear, gaussian, none"),
    ("precision", ["fp32"], "['fp32'] is no choice", "use auto, fp32, bf16, fp16"),
    ("crs", 32632, "32632 is no text", "as text"),
    ("sar_bands", [1, 2], "[1, 2] is no text", "as text"),
    ("grid", 3, "3 is no path", "as text"),
    ("pack", 3, "3 is no path", "as text"),
    ("sar", {"a": 1}, "names no scenes", "with ; in between"),
    ("sar", ["a.tif", 3], "names no scenes", "with ; in between"),
    ("sar", [], "a scene is missing", "with ; in between"),
    ("sar", "a.tif;;b.tif", "a scene is missing", "with ; in between"),
    ("sar", "a.tif;B04.tif,,B03.tif", "a path is missing in the list", "B04.tif,B03.tif"),
    ("sar", "a\0.tif", "control character", "correct the path"),
    ("pack", "\ud800", "control character", "correct the path"),
]


@pytest.mark.brief
@pytest.mark.parametrize(("name", "value", "found", "remedy"), WRONG)
def test_wrong_values_are_refused(tmp_path: Path, name: str, value: Any, found: str, remedy: str) -> None:
    refused(tmp_path, {name: value}, f"column '{name}'", found, remedy)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_options_that_are_no_regions_are_refused(tmp_path: Path, name: str) -> None:
    refused(tmp_path, {name: 1}, f"column '{name}'", "no region can say this", REFUSED[name])


@pytest.mark.brief
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tile_sise", "tile_size"),
        ("tilesize", "tile_size"),
        ("Tile-Size", "tile_size"),
        ("OPTICAL", "optical"),
        ("optcal", "optical"),
        ("SAR", "sar"),
        ("ID", "id"),
        ("scale", "scales"),
        ("cloudmask", "cloud_mask"),
        ("extend", "extent"),
        ("AOI", "aoi"),
    ],
)
def test_misspelt_columns_are_told(tmp_path: Path, name: str, meant: str) -> None:
    refused(tmp_path, {name: "x"}, f"column '{name}'", f"'{meant}'", "rename the column")


@pytest.mark.parametrize(
    "name",
    ["fid", "gid", "grade", "optical_id", "name", "area", "class", "title", "notes", "source", "date", "country"],
)
def test_other_columns_are_left_alone(tmp_path: Path, name: str) -> None:
    assert concerns(name) is None
    assert one(tmp_path, {name: {"any": ["thing"]}}).options == {}


def test_options_in_tables(tmp_path: Path) -> None:
    row = {
        "id": 1,
        "sar": '["a;b.tif", "c.tif"]',
        "coregister": True,
        "scales": "1,2",
        "tile_size": 64,
        "resolution": 5.0,
    }
    for ending in (".gpkg", ".fgb", ".parquet"):
        (region,) = read_regions(table(tmp_path / f"r{ending}", [row], [SQUARE]))
        assert region.sar == (f"{tmp_path}/a;b.tif", f"{tmp_path}/c.tif")
        assert region.options == {"coregister": True, "scales": (1.0, 2.0), "tile_size": 64, "resolution": 5.0}
    frame = geopandas.GeoDataFrame({"id": [1], "sar": [["a.tif", "b.tif"]]}, geometry=[SQUARE], crs=WGS84)
    frame.to_parquet(tmp_path / "lists.parquet")
    assert read_regions(tmp_path / "lists.parquet")[0].sar == (f"{tmp_path}/a.tif", f"{tmp_path}/b.tif")


# paths


@pytest.mark.brief
def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "all [1], 2"
    folder.mkdir()
    for name in ("B04.tif", "B03.tif", "one,two.tif", "what?.tif"):
        (folder / name).write_text("")
    region = one(folder, {"optical": ["one,two.tif", "what?.tif", "B0*.tif", "/x/B[34].tif", "S.SAFE"]})
    exact = [str(folder / name) for name in ("one,two.tif", "what?.tif")]
    assert region.optical[:2] == tuple(exact)
    assert sorted(path.name for path in Path("/").glob(region.optical[2].lstrip("/"))) == ["B03.tif", "B04.tif"]
    assert region.optical[3:] == ("/x/B[34].tif", f"{folder}/S.SAFE")
    assert one(folder, {"optical": "/x/B04.tif,/x/B03.tif"}).optical == ("/x/B04.tif,/x/B03.tif",)
    refused(folder, {"optical": "B04.tif,B03.tif"}, "has a comma in its name")  # where it ends can't be told then


FAR = [
    "https://e.org/a.tif",
    "HTTP://e.org/a.tif",
    "https:/e.org/a.tif",
    "s3://bucket/a.tif",
    "gs://bucket/a.tif",
    "az://c/a.tif",
    "/vsicurl/https://e.org/a.tif",
    "/vsis3/bucket/a.tif",
    "/vsizip//data/a.zip/a.tif",
    "/vsizip//vsicurl/https://e.org/a.zip/a.tif",
    " /vsitar//data/a.tar/a.tif",
]
NEVER = [
    "/vsimem/a.tif",
    "/vsistdin/",
    "/vsipython/a.tif",
    "/vsipyopener_1/a.tif",
    "/vsifsspec/a.tif",
    "/vsisubfile/0_10,/a.tif",
    "/vsisparse/a.xml",
    "/vsicrypt/a.tif",
    "/vsihdfs/a.tif",
    "/vsiwebhdfs/http://e.org/a.tif",
    "/vsicurl?url=http://e.org/a.tif",
    "/vsizip//vsimem/a.zip/a.tif",
    "/vsizip/{/vsimem/a.zip}/a.tif",
    "ftp://e.org/a.tif",
    "file:///etc/passwd",
    "NETCDF:/data/a.nc:x",
]


@pytest.mark.brief
@pytest.mark.parametrize("column", ["optical", "sar", "cloud_mask", "grid"])
@pytest.mark.parametrize("text", FAR)
def test_what_is_far_needs_leave(tmp_path: Path, column: str, text: str) -> None:
    refused(tmp_path, {column: text}, f"column '{column}'", "isn't on this machine's disk", "--allow-remote")
    region = one(tmp_path, {column: text}, allow_remote=True)
    values = {"optical": region.optical, "sar": region.sar, **region.options}[column]
    expected = {"HTTP://e.org/a.tif": "http://e.org/a.tif", "https:/e.org/a.tif": "https://e.org/a.tif"}.get(text, text)
    assert values in ((expected.strip(),), expected.strip())


@pytest.mark.brief
@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("text", NEVER)
def test_what_is_never_taken(tmp_path: Path, text: str, allow: bool) -> None:
    for value in (text, [text], f"/a.tif,{text}" if not set(",?") & set(text) else text):
        refused(tmp_path, {"sar": value}, "isn't a way to a raster", allow_remote=allow)


@pytest.mark.parametrize("text", ["GTIFF_DIR:1:/a.tif", "WMS:https://e.org", "a.vrt,GTIFF_DIR:1:/a.tif", "~/a.tif"])
def test_connection_strings_are_names_of_files(tmp_path: Path, text: str) -> None:
    assert all(part.startswith(f"{tmp_path}/") for part in one(tmp_path, {"sar": text}).sar[0].split(","))


def test_a_pattern_is_no_list(tmp_path: Path) -> None:
    refused(tmp_path, {"sar": "/a*.tif,https://e.org/b.tif"}, "at once", allow_remote=True)
    refused(tmp_path, {"sar": "*.tif,/vsicurl?url=x"}, "at once")


@pytest.mark.brief
@pytest.mark.parametrize("text", [*FAR, "/vsimem/a.tif"])
@pytest.mark.parametrize("column", ["pack", "backbone_weights"])
def test_packs_and_weights_are_never_far(tmp_path: Path, column: str, text: str) -> None:
    refused(tmp_path, {column: text}, "isn't on this machine's disk", "copy it there", allow_remote=True)


@pytest.mark.parametrize(
    "text",
    ["//vsicurl/http://e.org/a", "///vsicurl/http://e.org/a", "/./vsis3/b/a", "/a/../vsis3/b/a", "/a//../vsis3/b/a"],
)
def test_detours_are_followed(tmp_path: Path, text: str) -> None:
    refused(tmp_path, {"optical": text}, "--allow-remote")
    refused(tmp_path, {"optical": f"/a.tif,{text}"}, "--allow-remote")
    refused(tmp_path, {"optical": f"/a.tif;{text}"}, "--allow-remote")


@given(st.text("/.,vsicurlzp{}:~mem[*?\\ ", max_size=40))
def test_no_path_leaves_the_disk_unnoticed(text: str) -> None:
    try:
        taken = PathReader(Path("/data"), allow_remote=False).raster(text)
    except FeatureFault:
        return
    for part in taken.split(","):
        assert part.startswith("/")
        assert not str(Path(part)).lstrip("/").startswith("vsi")


def test_lists_of_urls_and_paths(tmp_path: Path) -> None:
    text = "https://e.org/B04.tif,B03.tif"
    refused(tmp_path, {"optical": text}, "--allow-remote")
    region = one(tmp_path, {"optical": text}, allow_remote=True)
    assert region.optical == (f"https://e.org/B04.tif,{tmp_path}/B03.tif",)
    signed = "https://e.org/a.tif?bbox=1,2,3,4"
    assert one(tmp_path, {"optical": signed}, allow_remote=True).optical == (signed,)
    archive = one(tmp_path, {"optical": "/vsizip/s2.zip/a.tif"}, allow_remote=True)
    assert archive.optical == (f"/vsizip/{tmp_path}/s2.zip/a.tif",)


def test_keys_in_urls_stay_out_of_messages(tmp_path: Path) -> None:
    url = "https://user:secret@e.org/a.tif?sig=secret"
    with pytest.raises(Exception, match="--allow-remote") as caught:
        one(tmp_path, {"optical": url})
    assert "secret" not in str(caught.value)


@pytest.mark.brief
def test_stac_items_may_not_name_what_is_far(tmp_path: Path) -> None:
    item = pystac.Item("S2", None, None, datetime(2024, 6, 1, tzinfo=UTC), {})
    item.add_asset("B04", pystac.Asset("./B04.tif"))
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item.to_dict(include_self_link=False)))
    assert one(tmp_path, {"optical": "item.json"}).optical == (str(path),)
    item.add_asset("B03", pystac.Asset("https://e.org/B03.tif?sig=secret"))
    path.write_text(json.dumps(item.to_dict(include_self_link=False)))
    refused(tmp_path, {"optical": "a.tif;item.json"}, "STAC item S2 names https://e.org/B03.tif", "--allow-remote")
    assert one(tmp_path, {"optical": "item.json"}, allow_remote=True).optical == (str(path),)
    path.write_text("{}")  # damaged: its region's fault, not the whole batch's
    assert one(tmp_path, {"optical": "item.json"}).optical == (str(path),)
