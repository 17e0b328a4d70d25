"""Which ids and geometries regions may have, in files and in Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import CRS

from gopt_geo.batch.regionids import alike, id_fault
from gopt_geo.batch.regions import Region, check_regions, read_regions
from gopt_geo.errors import BatchError
from regionfiles import BOW_TIE, SQUARE, WGS84, collection, refusal, table

WRONG_IDS = {
    "": "empty",
    "   ": "empty",
    ".": "a folder",
    "..": "a folder",
    "../a": "separator",
    "a/b": "separator",
    "a\\b": "separator",
    "/etc/passwd": "separator",
    "a\0b": "U+0000",
    "a\nb": "U+000A",
    "a\x7f": "U+007F",
    "a\u202eb": "U+202E",
    "a\u200bb": "U+200B",
    "a\ud800": "U+D800",
    ".hidden": "begins with '.'",
    "-o": "begins with '-'",
    " a": "spaces around",
    "a\u00a0": "spaces around",
    "con": "Windows",
    "NUL.x": "Windows",
    "Com1": "Windows",
    "lpt²": "Windows",
    "a:b": "not all file systems",
    "a*": "not all file systems",
    "ä" * 101: "200 bytes",
    "Failures": "the batch itself",
    "a.confidence": "the batch itself",
}


@pytest.mark.brief
@pytest.mark.parametrize(("text", "why"), WRONG_IDS.items())
def test_wrong_ids_are_refused(tmp_path: Path, text: str, why: str) -> None:
    good = ({"id": "good", "optical": "a.tif"}, SQUARE)
    path = collection(tmp_path / "r.geojson", good, ({"id": text, "optical": "a.tif"}, SQUARE))
    refusal(path, "feature 2", why, "give it")
    with pytest.raises(BatchError, match="region 1"):
        check_regions([Region(text, SQUARE, WGS84)])


@pytest.mark.parametrize("value", [1.5, True, None, ["a"], {"a": 1}])
def test_ids_are_texts_or_whole_numbers(tmp_path: Path, value: object) -> None:
    refusal(collection(tmp_path / "r.geojson", ({"id": value, "optical": "a.tif"}, SQUARE)), "feature 1", " id")


@pytest.mark.brief
@pytest.mark.parametrize(
    ("first", "second", "how"),
    [
        ("a", "a", "the same id"),
        (1, "1", "the same id"),
        ("Field", "fIELD", "one name to some file systems"),
        ("caf\u00e9", "cafe\u0301", "one name to some file systems"),
        ("STRASSE", "straße", "one name to some file systems"),
        ("\u212b", "\u00e5", "one name to some file systems"),
    ],
)
def test_ids_that_would_share_a_file_are_refused(tmp_path: Path, first: object, second: object, how: str) -> None:
    rows = [{"id": text, "optical": "a.tif"} for text in (first, "other", second)]
    refusal(collection(tmp_path / "r.geojson", *((row, SQUARE) for row in rows)), "features 1 and 3", how)
    with pytest.raises(BatchError, match="regions 1 and 3"):
        check_regions([Region(str(row["id"]), SQUARE, WGS84) for row in rows])


anything = st.text(st.characters(), min_size=1, max_size=260) | st.text("./\\-~a\u0301 ", min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(text=anything)
def test_what_is_taken_stays_in_its_folder(tmp_path: Path, text: str) -> None:
    if id_fault(text) is not None:
        return
    place = tmp_path / f"{text}.probabilities.tif"
    assert place.parent == tmp_path
    assert place.resolve().parent == tmp_path.resolve()
    hidden = place.with_name(f".{place.name}.0123456789ab.part.dead")  # as results are staged
    hidden.write_bytes(b"")
    assert hidden in list(tmp_path.iterdir())
    hidden.unlink()


@given(st.lists(anything, min_size=2, max_size=2))
def test_names_alike_are_told_whatever_their_case(texts: list[str]) -> None:
    first, second = texts
    assert alike(first) == alike(alike(first))
    assert alike(first.upper()) == alike(first.upper().lower()) or "İ" in first.upper()
    if first.casefold() == second.casefold():
        assert alike(first) == alike(second)


@pytest.mark.brief
@pytest.mark.parametrize(
    ("shape", "found", "remedy"),
    [
        (None, "no geometry", "draw"),
        ({"type": "Polygon", "coordinates": []}, "empty", "draw"),
        (shapely.Point(9, 50), "is a Point", "a polygon"),
        (shapely.LineString([(9, 50), (10, 50)]), "is a LineString", "a polygon"),
        (shapely.GeometryCollection([SQUARE]), "is a GeometryCollection", "a polygon"),
        (BOW_TIE, "Self-intersection[9.05 50.05]", "make_valid"),
        (shapely.box(500000, 5500000, 510000, 5600000), "beyond the longitudes or latitudes", "state the CRS"),
        (shapely.box(50, 89, 51, 90.1), "beyond the longitudes or latitudes", "longitude comes first"),
        ({"type": "Polygon", "coordinates": [[[9, 50], [10, 51], [9, 51], [9, 52]]]}, "can't be built", "correct"),
        ({"type": "Polygon", "coordinates": "9 50"}, "can't be built", "correct"),
        ({"type": "Polygon"}, "can't be built", "correct"),
        ({"type": "Blob", "coordinates": []}, "can't be built", "correct"),
        ([1, 2], "can't be built", "correct"),
        ("POLYGON EMPTY", "can't be built", "correct"),
        ({"type": "Polygon", "coordinates": [[[10**400, 0], [1, 1], [0, 1], [10**400, 0]]]}, "can't be built", "corr"),
    ],
)
def test_wrong_geometries_are_refused(tmp_path: Path, shape: Any, found: str, remedy: str) -> None:
    good = ({"id": "good", "optical": "a.tif"}, SQUARE)
    path = collection(tmp_path / "r.geojson", good, ({"id": "bad", "optical": "a.tif"}, shape), good)
    text = refusal(path, "feature 2 ('bad')", found, remedy)
    assert "(and 1 further fault in it)" in text  # the id that stands there twice
    if shape is None or isinstance(shape, shapely.Geometry):
        with pytest.raises(BatchError, match=r"region 2 \('bad'\)"):
            check_regions([Region("good", SQUARE, WGS84), Region("bad", shape, WGS84)])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_endless_coordinates_are_refused(tmp_path: Path, value: float) -> None:
    shape = shapely.Polygon([(9, 50), (value, 50), (10, 51)])
    refusal(table(tmp_path / "r.parquet", [{"id": "a", "sar": "a.tif"}], [shape]), "feature 1 ('a')", "aren't finite")


@pytest.mark.parametrize("ending", [".gpkg", ".fgb", ".parquet"])
def test_wrong_geometries_are_refused_in_tables_too(tmp_path: Path, ending: str) -> None:
    rows = [{"id": text, "sar": "a.tif"} for text in ("a", "b", "c")]
    path = table(tmp_path / f"r{ending}", rows, [SQUARE, BOW_TIE, SQUARE])
    refusal(path, "('b')", "Self-intersection")
    refusal(
        table(tmp_path / f"p{ending}", rows, [shapely.Point(9, 50)] * 3), "('", "is a Point", "and 2 further faults"
    )


@pytest.mark.parametrize("turn", [-360, 0, 360])
def test_both_conventions_of_longitude_are_taken(tmp_path: Path, turn: int) -> None:
    shape = shapely.box(*np.clip([179 + turn / 2, 50, 181 + turn / 2, 51], -360, 360))
    path = collection(tmp_path / "r.geojson", ({"id": "a", "optical": "a.tif"}, shape))
    assert read_regions(path)[0].geometry == shape


def test_heights_are_left_out(tmp_path: Path) -> None:
    high = shapely.force_3d(SQUARE, 100.0)
    path = collection(tmp_path / "r.geojson", ({"id": "a", "optical": "a.tif"}, high))
    assert read_regions(path)[0].geometry == SQUARE
    assert not check_regions([Region("a", high, WGS84)])[0].geometry.has_z


def test_an_empty_file_and_no_scenes(tmp_path: Path) -> None:
    refusal(collection(tmp_path / "none.geojson"), "holds no features")
    path = collection(tmp_path / "r.geojson", ({"id": "a"}, SQUARE))
    refusal(path, "feature 1 ('a')", "names no scene", "--catalog")
    (region,) = read_regions(path, need_sources=False)
    assert (region.optical, region.sar) == ((), ())


def test_regions_of_python_are_checked(tmp_path: Path) -> None:
    good = Region("a", SQUARE, WGS84, ("s2.tif",), options={"tile_size": 256})
    assert check_regions(iter([good])) == (good,)
    with pytest.raises(BatchError, match="no regions"):
        check_regions([])
    for change, words in (
        ({"id": 3}, "its id 3 is no text"),
        ({"geometry": "POLYGON EMPTY"}, "its geometry is a str"),
        ({"crs": "EPSG:4326"}, "its CRS"),
        ({"crs": CRS.from_epsg(4978)}, "its CRS"),  # earth-centred
        ({"optical": "s2.tif"}, "optical is no tuple"),
        ({"options": {"device": "cuda"}}, "no option 'device'"),
        ({"options": {"tile_sise": 1}}, "no option 'tile_sise'"),
    ):
        with pytest.raises(BatchError, match=words):
            check_regions([good, replace(good, **{"id": "b", **change})])
