"""STAC items as sources: bands by any of their names, and values as the item means them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pystac
import pytest

from gopt_geo.errors import BandError, SourceError
from gopt_geo.scene.stac import cloud_cover, item_bands, item_time, open_item

SQUARE = {"type": "Polygon", "coordinates": [[[9, 48], [10, 48], [10, 49], [9, 49], [9, 48]]]}
BASELINE = {"s2:processing_baseline": "05.10"}
TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


def document(assets, collection="sentinel-2-l2a", **properties):
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": "item", "collection": collection, "links": [],
        "geometry": SQUARE, "bbox": [9, 48, 10, 49], "assets": assets,
        "properties": {"datetime": "2024-06-03T10:20:30Z", **properties},
    }  # fmt: skip


def write(folder, *arguments, **properties):
    path = folder / "item.json"
    path.write_text(json.dumps(document(*arguments, **properties)))
    return path


def asset(href, media=TIFF, **fields):
    return {"href": href, "type": media, **fields}


def test_bands_by_key_by_name_and_by_common_name_in_the_order_asked_for(tmp_path):
    assets = {
        "blue": asset("./B02.tif", **{"eo:bands": [{"name": "B02", "common_name": "blue"}]}),
        "red": asset("./B04.tif", **{"eo:bands": [{"name": "B04", "common_name": "red"}]}),
        "overview": asset("./tci.tif", roles=["overview"], **{"eo:bands": [{"name": "B04", "common_name": "red"}]}),
        "metadata": {"href": "./granule.xml", "type": "application/xml"},
    }
    item = open_item(write(tmp_path, assets, **BASELINE))
    for wanted in (["red", "blue"], ["B04", "B02"], ["b04", "BLUE"]):
        found = item_bands(item, wanted)
        assert [band.name for band in found] == wanted
        assert [band.path for band in found] == [str(tmp_path / "B04.tif"), str(tmp_path / "B02.tif")]


def test_a_common_name_is_found_by_the_sensors_name(tmp_path):
    item = open_item(write(tmp_path, {"red": asset("red.tif"), "nir": asset("nir.tif")}, collection="landsat-c2-l2"))
    assert item_bands(item, ["B4"])[0].path.endswith("red.tif")
    assert item_bands(item, ["B5"])[0].path.endswith("nir.tif")


def test_an_own_name_goes_before_an_alias(tmp_path):
    """B08 is nir by alias; where a band is called so, that one is meant."""
    item = open_item(write(tmp_path, {"nir": asset("nir.tif"), "B08": asset("b08.tif")}))
    assert item_bands(item, ["B08"])[0].path.endswith("b08.tif")


def test_several_bands_in_one_file_and_bands_as_stac_1_1_lists_them(tmp_path):
    assets = {
        "image": asset("all.tif", bands=[{"name": "VV", "nodata": "nan"}, {"name": "VH", "raster:scale": 2.0}]),
    }
    item = open_item(write(tmp_path, assets, collection="sentinel-1-rtc"))
    href = str(tmp_path / "all.tif")
    vh, vv = item_bands(item, ["VH", "VV"])
    assert (vh.name, vh.path, vh.index, vh.scale, vh.offset) == ("VH", href, 2, 2.0, None)
    assert (vv.index, vv.scale) == (1, None)
    assert vv.nodata is not None
    assert vv.nodata != vv.nodata  # NaN
    with pytest.raises(BandError, match="no asset is band 'image'"):  # a file of two is no band
        item_bands(item, ["image"])


@pytest.mark.parametrize(
    ("properties", "stated", "expected"),
    [
        ({"s2:processing_baseline": "03.01"}, {}, (1e-4, 0.0, 0.0)),
        ({"s2:processing_baseline": "04.00"}, {}, (1e-4, -0.1, 0.0)),
        ({"s2:processing_baseline": "05.09"}, {}, (1e-4, -0.1, 0.0)),
        ({"sentinel:boa_offset_applied": True}, {}, (1e-4, 0.0, 0.0)),
        ({}, {"scale": 1e-4, "offset": -0.1, "nodata": 0}, (1e-4, -0.1, 0.0)),
        ({"earthsearch:boa_offset_applied": True}, {"scale": 1e-4, "offset": -0.1}, (1e-4, 0.0, 0.0)),
        ({"earthsearch:boa_offset_applied": False}, {"scale": 1e-4, "offset": -0.1}, (1e-4, -0.1, 0.0)),
    ],
)
def test_sentinel_2_values_whatever_the_baseline_and_whoever_applied_the_offset(tmp_path, properties, stated, expected):
    assets = {"B04": asset("r.tif", **{"eo:bands": [{"name": "B04"}], "raster:bands": [stated]})}
    band = item_bands(open_item(write(tmp_path, assets, **properties)), ["B04"])[0]
    assert (band.scale, band.offset, band.nodata) == expected


@pytest.mark.parametrize("properties", [{}, {"s2:processing_baseline": "abc"}])
def test_sentinel_2_whose_offset_isnt_known_is_refused(tmp_path, properties):
    assets = {"B04": asset("r.tif", **{"eo:bands": [{"name": "B04"}]})}
    item = open_item(write(tmp_path, assets, **properties))
    with pytest.raises(SourceError, match="so that the offset of its values isn't known; state raster:offset"):
        item_bands(item, ["B04"])


def test_hrefs_are_taken_from_where_the_item_lies(tmp_path):
    path = write(tmp_path, {"B04": asset("./r.tif", **{"eo:bands": [{"name": "B04"}]})}, **BASELINE)
    assert item_bands(pystac.Item.from_file(str(path)), ["B04"])[0].path == str(tmp_path / "r.tif")


def test_of_two_formats_the_one_read_in_parts_is_taken(tmp_path):
    names = {"eo:bands": [{"name": "B04", "common_name": "red"}]}
    assets = {
        "red-jp2": asset("r.jp2", "image/jp2", **names),
        "red": asset("r.tif", **names),
        "nir-jp2": asset("n.jp2", "image/jp2", **{"eo:bands": [{"name": "B08", "common_name": "nir"}]}),
    }
    item = open_item(write(tmp_path, assets, **BASELINE))
    assert [band.path for band in item_bands(item, ["red", "B08"])] == [str(tmp_path / n) for n in ("r.tif", "n.jp2")]


def test_the_scene_classification_of_sentinel_2_isnt_scaled(tmp_path):
    path = write(tmp_path, {"scl": asset("scl.tif")}, **{"s2:processing_baseline": "05.00"})
    band = item_bands(open_item(path), ["SCL"])[0]
    assert (band.scale, band.offset) == (None, None)


def test_other_sensors_values_are_what_the_item_states(tmp_path):
    assets = {"red": asset("r.tif", **{"raster:bands": [{"scale": 2.75e-5, "offset": -0.2, "nodata": 0}]})}
    band = item_bands(open_item(write(tmp_path, assets, collection="landsat-c2-l2")), ["red"])[0]
    assert (band.scale, band.offset, band.nodata) == (2.75e-5, -0.2, 0.0)


def test_a_name_that_fits_nothing_or_two_lists_what_there_is(tmp_path):
    assets = {
        "a": asset("a.tif", **{"eo:bands": [{"name": "x", "common_name": "red"}]}),
        "b": asset("b.tif", **{"eo:bands": [{"name": "y", "common_name": "red"}]}),
    }
    item = open_item(write(tmp_path, assets, **BASELINE))
    with pytest.raises(BandError, match=r"item\.json: no asset is band 'green'; choose from its bands a, b"):
        item_bands(item, ["green"])
    with pytest.raises(BandError, match="2 assets are band 'red'"):
        item_bands(item, ["red"])


def test_time_and_clouds(tmp_path):
    item = open_item(write(tmp_path, {}, **{"eo:cloud_cover": 12.5}))
    assert item_time(item) == datetime(2024, 6, 3, 10, 20, 30, tzinfo=UTC)
    assert cloud_cover(item) == 12.5
    ranged = {"datetime": None, "start_datetime": "2024-06-01T00:00:00Z", "end_datetime": "2024-06-03T00:00:00Z"}
    item = open_item(write(tmp_path, {}, **ranged))
    assert item_time(item) == datetime(2024, 6, 2, tzinfo=UTC)
    assert cloud_cover(item) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "isn't JSON"),
        ("[]", "is no STAC item but list"),
        ('{"type": "Feature", "geometry": null}', "is no STAC item but Feature"),
        ('{"type": "Catalog", "stac_version": "1.0.0"}', "is no STAC item but Catalog; search it with --catalog"),
        ('{"type": "Feature", "stac_version": "1.0.0"}', "isn't a valid STAC item"),
    ],
)
def test_what_is_no_item_is_refused_in_one_line(tmp_path, text, found):
    path = tmp_path / "item.json"
    path.write_text(text)
    with pytest.raises(SourceError, match=found) as caught:
        open_item(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_item_and_a_silent_server(tmp_path):
    with pytest.raises(SourceError, match="can't be read"):
        open_item(tmp_path / "none.json")
    with pytest.raises(SourceError, match="can't be read"):
        open_item("http://127.0.0.1:9/item.json")  # the discard port: nobody listens
