"""The scenes of a region, from an index of footprints or a STAC catalogue; and what an untrusted one may not do."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import pystac
import pytest
import shapely

from gopt_geo.batch.finding import CatalogFinder, FoundScenes, IndexFinder, _of_item, open_finder
from gopt_geo.batch.footprints import FootprintIndex
from gopt_geo.errors import GoptGeoError, SourceError
from gopt_geo.scene import SceneMosaic
from gopt_geo.scene.bandfiles import names_item, read_item

ENDINGS = (".parquet", ".gpkg", ".geojson")
REGION = shapely.box(10.0, 50.0, 11.0, 51.0)
Row = dict[str, Any]


def optical(name: str, west: float, east: float, clouds: float = 5, day: str = "2024-06-10") -> Row:
    row = {"path": f"scenes/{name}.tif", "modality": "optical", "cloud_cover": clouds, "datetime": f"{day}T10:00:00Z"}
    return {**row, "geometry": shapely.box(west, 49.5, east, 51.5)}


def sar(name: str, west: float, east: float, day: str = "2024-06-10") -> Row:
    return {**optical(name, west, east, 0, day), "modality": "SAR", "cloud_cover": None}


BOTH = [optical("o", 9, 12), sar("s", 9, 12)]


def write(path: Path, rows: list[Row], crs: str | None = "EPSG:4326", dates: bool = False) -> Path:
    frame = geopandas.GeoDataFrame(rows, geometry="geometry", crs=crs)
    if dates:
        frame["datetime"] = pandas.to_datetime(frame["datetime"])
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path, engine="pyogrio")
    return path


def names(found: FoundScenes) -> tuple[list[str], list[str]]:
    return [Path(str(path)).stem for path in found.optical], [Path(str(path)).stem for path in found.sar]


def message(call: Callable[[], object], *words: str, kind: type[GoptGeoError] = SourceError) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), caught.value


@pytest.mark.brief
@pytest.mark.parametrize("dates", [False, True], ids=["text", "dates"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_paths_are_relative_to_the_index(tmp_path: Path, ending: str, dates: bool) -> None:
    index = write(tmp_path / f"index{ending}", [*BOTH, optical("far", 40, 41)], dates=dates)
    found = IndexFinder(index, time="2024-06").find(REGION, "EPSG:4326")
    assert found.optical == (str(tmp_path / "scenes" / "o.tif"),)
    assert found.sar == (str(tmp_path / "scenes" / "s.tif"),)
    assert found.covered == {"optical": 1.0, "sar": 1.0}
    assert found.sources == (found.optical[0], found.sar[0])
    assert found.notices == ()


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_index_tells_scene_by_scene(tmp_path: Path, ending: str) -> None:
    index = FootprintIndex(write(tmp_path / f"index{ending}", BOTH))
    one, two = index.near((10.0, 50.0, 11.0, 51.0))
    assert (one.modality, two.modality) == ("optical", "sar")
    assert one.time == two.time == datetime(2024, 6, 10, 10, tzinfo=UTC)
    assert (one.clouds, two.clouds) == (5, None)
    assert one.geometry.equals(shapely.box(9, 49.5, 12, 51.5))
    assert list(index.near((20.0, 50.0, 21.0, 51.0))) == []


@pytest.mark.brief
def test_of_those_that_show_all_the_least_cloudy_goes_first(tmp_path: Path) -> None:
    rows = [optical("cloudy", 9, 12, 15), optical("clear", 9.5, 11.5, 2), optical("clearer_half", 9, 10.5, 0), BOTH[1]]
    assert names(IndexFinder(write(tmp_path / "i.gpkg", rows)).find(REGION, "EPSG:4326")) == (["clear"], ["s"])


@pytest.mark.brief
def test_then_the_nearest_in_time_and_as_many_as_are_needed(tmp_path: Path) -> None:
    rows = [
        optical("west", 9, 10.6, 1, "2024-06-10"),
        optical("east_late", 10.5, 12, 3, "2024-08-01"),
        optical("east", 10.5, 12, 3, "2024-06-12"),
        optical("east_cloudy", 10.5, 12, 9, "2024-06-10"),
        sar("long_ago", 9, 12, "2024-03-01"),
        sar("same_week", 9, 12, "2024-06-13"),
    ]
    found = IndexFinder(write(tmp_path / "i.parquet", rows)).find(REGION, "EPSG:4326")
    assert names(found) == (["west", "east"], ["same_week"])
    assert found.covered["optical"] == pytest.approx(1)
    mosaic, single = found.sources
    assert mosaic == SceneMosaic(found.optical)
    assert single == found.sar[0]


def test_a_gap_is_told(tmp_path: Path) -> None:
    found = IndexFinder(write(tmp_path / "i.gpkg", [optical("o", 9, 10.75), BOTH[1]])).find(REGION, "EPSG:4326")
    assert found.covered["optical"] == pytest.approx(0.75, abs=1e-3)
    assert any("optical scenes show 75 % of the region" in notice for notice in found.notices)


def test_time_and_clouds_are_bounds(tmp_path: Path) -> None:
    rows = [optical("june", 9, 12, 50), optical("may", 9, 12, 0, "2024-05-31"), BOTH[1]]
    index = write(tmp_path / "i.gpkg", rows)
    message(
        lambda: IndexFinder(index, time="2024-06").find(REGION, "EPSG:4326"),
        "no optical scene shows the region",
        "2 do otherwise",
        "--max-cloud",
    )
    assert names(IndexFinder(index, time="2024-06", max_cloud=60).find(REGION, "EPSG:4326"))[0] == ["june"]
    assert names(IndexFinder(index).find(REGION, "EPSG:4326"))[0] == ["may"]
    message(lambda: IndexFinder(index, max_cloud=101), "--max-cloud 101")
    unknown = write(tmp_path / "u.gpkg", [{**BOTH[0], "cloud_cover": None}, {**BOTH[0], "cloud_cover": 30}, BOTH[1]])
    message(lambda: IndexFinder(unknown).find(REGION, "EPSG:4326"), "no optical scene")
    silent = write(tmp_path / "s.gpkg", [{k: v for k, v in row.items() if k != "cloud_cover"} for row in BOTH])
    assert names(IndexFinder(silent).find(REGION, "EPSG:4326")) == (["o"], ["s"])


def test_a_modality_that_is_missing_is_an_error_unless_it_is_not_asked_for(tmp_path: Path) -> None:
    index = write(tmp_path / "i.gpkg", BOTH[:1])
    message(lambda: IndexFinder(index).find(REGION, "EPSG:4326"), "i.gpkg", "no SAR scene shows the region")
    assert IndexFinder(index, modalities=["optical"]).find(REGION, "EPSG:4326").sources[1] is None
    message(lambda: IndexFinder(index).find(shapely.box(0, 0, 1, 1), "EPSG:4326"), "no optical scene shows the region;")


def test_columns_of_their_own_name_pairs(tmp_path: Path) -> None:
    rows = [{"optical": "a.tif", "sar": "b.tif", "geometry": shapely.box(9, 49, 12, 52)}]
    rows.append({"optical": None, "sar": "c.tif", "geometry": shapely.box(9, 49, 10.1, 52)})
    found = IndexFinder(write(tmp_path / "i.geojson", rows)).find(REGION, "EPSG:4326")
    assert names(found) == (["a"], ["b"])


@pytest.mark.parametrize("ending", [".gpkg", ".parquet"])
def test_regions_and_index_may_differ_in_crs(tmp_path: Path, ending: str) -> None:
    frame = geopandas.GeoDataFrame(BOTH, geometry="geometry", crs="EPSG:4326").to_crs("EPSG:3035")
    index = write(tmp_path / f"i{ending}", frame.to_dict("records"), "EPSG:3035")
    region = geopandas.GeoSeries([REGION], crs="EPSG:4326").to_crs("EPSG:32632")[0]
    for area, crs in ((region, "EPSG:32632"), (REGION, "EPSG:4326")):
        found = IndexFinder(index).find(area, crs)
        assert names(found) == (["o"], ["s"])
        assert found.covered["optical"] > 0.999
    message(lambda: IndexFinder(index).find(REGION, "nonsense"), "its CRS nonsense")


@pytest.mark.parametrize("ending", ENDINGS)
def test_urls_need_leave(tmp_path: Path, ending: str) -> None:
    for url in (
        "https://example.org/o.tif",
        "s3://bucket/o.tif",
        "/vsicurl/https://example.org/o.tif",
        "/vsizip//a.zip",
    ):
        for text in (url, f"scenes/b4.tif,{url}"):
            index = write(tmp_path / f"i{ending}", [{**BOTH[0], "path": text}, BOTH[1]])
            finder = IndexFinder(index)
            message(lambda finder=finder: finder.find(REGION, "EPSG:4326"), f"i{ending}, feature ", "--allow-remote")
            found = IndexFinder(index, allow_remote=True).find(REGION, "EPSG:4326")
            assert str(found.optical[0]).endswith(url)
            index.unlink()


def test_an_item_may_not_name_urls_either(tmp_path: Path) -> None:
    item = item_of("S2", 9, 12, 5, "sentinel-2a", href="https://example.org/B04.tif")
    item.save_object(include_self_link=False, dest_href=str(tmp_path / "item.json"))
    index = write(tmp_path / "i.gpkg", [{**BOTH[0], "path": "item.json"}, BOTH[1]])
    message(lambda: IndexFinder(index).find(REGION, "EPSG:4326"), "STAC item S2 names https://", "--allow-remote")
    assert IndexFinder(index, allow_remote=True).find(REGION, "EPSG:4326").optical == (str(tmp_path / "item.json"),)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modality": "radar"}, ("its modality is 'radar'", "optical or sar")),
        ({"path": ""}, ("names no raster",)),
        ({"datetime": "yesterday"}, ("its datetime is 'yesterday'",)),
        ({"cloud_cover": 140}, ("its cloud_cover is 140",)),
        ({"geometry": shapely.Point(10.5, 50.5)}, ("its footprint is a Point", "polygons")),
    ],
)
@pytest.mark.parametrize("ending", [".parquet", ".geojson", ".gpkg"])
def test_a_wrong_feature_is_named(tmp_path: Path, ending: str, change: Row, words: tuple[str, ...]) -> None:
    index = write(tmp_path / f"i{ending}", [BOTH[1], {**BOTH[0], **change}])
    number = {".parquet": 1, ".geojson": 1, ".gpkg": 2}[ending]
    message(lambda: IndexFinder(index).find(REGION, "EPSG:4326"), f"i{ending}, feature {number}: ", *words)
    assert names(IndexFinder(write(tmp_path / "g.gpkg", BOTH)).find(REGION, "EPSG:4326")) == (["o"], ["s"])


def test_features_without_a_place_show_nothing(tmp_path: Path) -> None:
    rows = [*BOTH, {**BOTH[0], "geometry": None}, {**BOTH[0], "geometry": shapely.Polygon()}]
    for ending in ENDINGS:
        index = write(tmp_path / f"i{ending}", rows)
        assert names(IndexFinder(index).find(REGION, "EPSG:4326")) == (["o"], ["s"])


def test_files_that_are_no_index(tmp_path: Path) -> None:
    good = write(tmp_path / "i.gpkg", BOTH)
    message(lambda: FootprintIndex(tmp_path / "no.gpkg"), "no.gpkg: there is no such file")
    message(lambda: FootprintIndex(tmp_path / "i.shp"), ".shp isn't one of an index", ".parquet")
    vrt = tmp_path / "v.gpkg"
    vrt.write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="i"><SrcDataSource>{good}</SrcDataSource></OGRVRTLayer>'
        "</OGRVRTDataSource>"
    )
    message(lambda: FootprintIndex(vrt), "its content isn't that of a .gpkg file")
    for ending, head in ((".parquet", b"PAR1"), (".gpkg", b"SQLite format 3\0"), (".geojson", b"{")):
        broken = tmp_path / f"broken{ending}"
        broken.write_bytes(head + b"garbage" * 20)
        message(lambda broken=broken: FootprintIndex(broken), f"broken{ending}", "can't be read")
    frame = geopandas.GeoDataFrame({"name": ["a"]}, geometry=[REGION], crs="EPSG:4326")
    frame.to_file(tmp_path / "c.gpkg")
    message(lambda: FootprintIndex(tmp_path / "c.gpkg"), "lacks columns that name rasters (it has name)")
    pandas.DataFrame({"path": ["a"], "modality": ["sar"]}).to_parquet(tmp_path / "p.parquet")
    message(lambda: FootprintIndex(tmp_path / "p.parquet"), "states no geometry")
    write(tmp_path / "bare.parquet", BOTH, None)
    message(lambda: FootprintIndex(tmp_path / "bare.parquet"), "states no CRS")
    frame.to_file(good, layer="second", mode="a")
    message(lambda: FootprintIndex(good), "2 layers with geometries")


def test_an_index_can_be_handed_to_another_process(tmp_path: Path) -> None:
    for ending in ENDINGS:
        finder = pickle.loads(pickle.dumps(IndexFinder(write(tmp_path / f"i{ending}", BOTH))))
        assert names(finder.find(REGION, "EPSG:4326")) == (["o"], ["s"])


@pytest.mark.parametrize("ending", [".parquet", ".gpkg"])
def test_many_footprints(tmp_path: Path, ending: str) -> None:
    """A search looks at what lies near: its answer comes from a handful of 40,000 features."""
    west, south = (axis.ravel() for axis in np.meshgrid(np.arange(200) * 0.5, np.arange(100) * 0.5))
    frame = geopandas.GeoDataFrame(
        {
            "path": [f"{i}.tif" for i in range(2 * len(west))],
            "modality": ["optical"] * len(west) + ["sar"] * len(west),
            "geometry": np.tile(shapely.box(west, south, west + 0.6, south + 0.6), 2),
        },
        crs="EPSG:4326",
    )
    index = tmp_path / f"i{ending}"
    frame.to_parquet(index) if ending == ".parquet" else frame.to_file(index)
    opened = FootprintIndex(index)
    assert len(list(opened.near((50.7, 20.7, 50.9, 20.9)))) == 2
    found = IndexFinder(index).find(shapely.box(50.0, 20.0, 51.0, 21.0), "EPSG:4326")
    assert found.covered == {"optical": 1.0, "sar": 1.0}
    assert len(found.optical) == len(found.sar) == 4


def item_of(name: str, west: float, east: float, clouds: float, platform: str, href: str = "B04.tif") -> pystac.Item:
    shape = shapely.box(west, 49.5, east, 51.5)
    item = pystac.Item(
        id=name,
        geometry=shapely.geometry.mapping(shape),
        bbox=list(shape.bounds),
        datetime=datetime(2024, 6, 10, 10, tzinfo=UTC),
        properties={"platform": platform, "eo:cloud_cover": clouds},
    )
    key = "vv" if platform == "sentinel-1a" else "B04"
    item.add_asset(key, pystac.Asset(href=href, media_type=pystac.MediaType.COG, roles=["data"]))
    if platform == "sentinel-1a":
        item.properties |= {"sar:product_type": "RTC", "sar:instrument_mode": "IW"}
        item.collection_id = "sentinel-1-rtc"
    return item


def catalogue(folder: Path, items: list[pystac.Item]) -> Path:
    root = pystac.Catalog(id="scenes", description="scenes")
    root.add_items(items)
    root.normalize_and_save(str(folder), catalog_type=pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"


@pytest.fixture
def items() -> list[pystac.Item]:
    return [
        item_of("west", 9, 10.6, 1, "sentinel-2a"),
        item_of("east", 10.5, 12, 3, "sentinel-2b"),
        item_of("east_cloudy", 10.5, 12, 90, "sentinel-2b"),
        item_of("radar", 9, 12, 0, "sentinel-1a"),
    ]


@pytest.mark.brief
def test_a_static_catalogue(tmp_path: Path, items: list[pystac.Item]) -> None:
    found = CatalogFinder(catalogue(tmp_path, items), "2024-06").find(REGION, "EPSG:4326")
    assert names(found) == (["west", "east"], ["radar"])
    assert all(Path(str(path)).is_file() for path in (*found.optical, *found.sar))
    assert found.covered["optical"] == pytest.approx(1)
    assert isinstance(found.sources[0], SceneMosaic)


def test_what_a_catalogue_may_not(tmp_path: Path, items: list[pystac.Item]) -> None:
    items[1].assets["B04"].href = "https://example.org/B04.tif"
    root = catalogue(tmp_path, items)
    message(lambda: CatalogFinder(root, "2024-06").find(REGION, "EPSG:4326"), "STAC item east names", "--allow-remote")
    assert CatalogFinder(root, "2024-06", allow_remote=True).find(REGION, "EPSG:4326").optical
    message(lambda: CatalogFinder("https://example.org", "2024-06"), "read over the network", "--allow-remote")
    message(
        lambda: CatalogFinder(root, "2024-06", max_cloud=0).find(REGION, "EPSG:4326"),
        "no optical scene",
        "3 do otherwise",
    )
    assert not CatalogFinder(root, "2024-06", modalities=["sar"]).find(REGION, "EPSG:4326").optical


def test_what_is_named_decides_how_it_is_searched(tmp_path: Path, items: list[pystac.Item]) -> None:
    index, root = write(tmp_path / "i.gpkg", BOTH), catalogue(tmp_path, items)
    assert isinstance(open_finder(index), IndexFinder)
    assert isinstance(open_finder(root, time="2024-06"), CatalogFinder)
    message(lambda: open_finder(root), "--catalog", "it needs --time")
    message(lambda: open_finder(index, collections=["a"]), "--collection", "an index, which has none")


def test_a_damaged_document_is_told(tmp_path: Path, items: list[pystac.Item]) -> None:
    root = catalogue(tmp_path, items)
    (tmp_path / "east_cloudy" / "east_cloudy.json").write_text(json.dumps({"type": "Feature"}))
    found = CatalogFinder(root, "2024-06").find(REGION, "EPSG:4326")
    assert any("1 documents can't be read" in notice for notice in found.notices)


@pytest.fixture
def api(items: list[pystac.Item]) -> Iterator[str]:
    """A STAC API with the items: its search, and each item at its own address."""

    class Api(BaseHTTPRequestHandler):
        def answer(self, document: Row) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def documents(self) -> list[Row]:
            here = f"http://{self.headers['Host']}"
            found = [item.to_dict(include_self_link=False, transform_hrefs=False) for item in items]
            for one in found:
                address = f"{here}/collections/all/items/{one['id']}"
                one["links"] = [{"rel": "self", "href": address, "type": "application/geo+json"}]
            return found

        def do_GET(self) -> None:
            here = f"http://{self.headers['Host']}"
            if "/items/" in self.path:
                self.answer(next(one for one in self.documents() if self.path.endswith(f"/{one['id']}")))
                return
            search = {"rel": "search", "href": f"{here}/search", "type": "application/geo+json", "method": "POST"}
            links = [{"rel": "self", "href": f"{here}/"}, {"rel": "root", "href": f"{here}/"}, search]
            conforms = [f"https://api.stacspec.org/v1.0.0/{name}" for name in ("core", "item-search")]
            document = {"type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "for tests"}
            self.answer({**document, "conformsTo": conforms, "links": links})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer({"type": "FeatureCollection", "features": self.documents(), "links": []})

        def log_message(self, *_: object) -> None:
            pass

    pytest.importorskip("pystac_client")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_items_of_an_api_are_named_by_where_they_are(api: str) -> None:
    finder = CatalogFinder(api, "2024-06", collections=["all"], allow_remote=True)
    found = finder.find(REGION, "EPSG:4326")
    assert found.optical == (f"{api}collections/all/items/west", f"{api}collections/all/items/east")
    assert found.sar == (f"{api}collections/all/items/radar",)
    item = read_item(found.optical[0])
    assert isinstance(item, pystac.Item)
    assert item.id == "west"
    message(lambda: CatalogFinder(api, "2024-06"), "read over the network")


@pytest.mark.parametrize(
    ("path", "item"),
    [
        ("scenes/item.json", True),
        ("https://example.org/collections/s2/items/S2A_1", True),
        ("https://example.org/collections/s2/items/S2A_1?key=a/b", True),
        ("https://example.org/collections/s2/items/S2A_1.tif", False),
        ("https://example.org/collections/s2/items/S2A_1/B04", False),
        ("collections/s2/items/S2A_1", False),
    ],
)
def test_where_items_are(path: str, item: bool) -> None:
    assert names_item(path) is item


def test_an_item_without_an_address_is_refused(tmp_path: Path) -> None:
    item = item_of("west", 9, 12, 1, "sentinel-2a")
    message(lambda: _of_item(item, "optical"), "STAC item west: it doesn't say where it can be read again")
