"""The search of STAC catalogues: a static one from disk and by HTTP, and an API."""

from __future__ import annotations

import json
import shutil
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pystac
import pytest
import shapely
import shapely.geometry

from gopt_geo.errors import SourceError
from gopt_geo.scene.catalog import find_items, parse_time

AREA = shapely.box(9.2, 48.2, 9.4, 48.4)
JUNE = parse_time("2024-06")


def make_item(name, collection, day, box=(9, 48, 10, 49), **properties):
    geometry = shapely.geometry.mapping(shapely.box(*box))
    moment = datetime(2024, 6, day, 10, tzinfo=UTC)
    item = pystac.Item(name, geometry, list(box), moment, properties, collection=collection)
    item.add_asset("B04", pystac.Asset("./B04.tif", media_type="image/tiff"))
    return item


def sentinel2(name, day, clouds, **more):
    return make_item(name, "sentinel-2-l2a", day, platform="sentinel-2a", **{"eo:cloud_cover": clouds}, **more)


def sentinel1(name, day, product="RTC", **more):
    return make_item(name, "sentinel-1", day, platform="sentinel-1a", **{"sar:product_type": product}, **more)


ITEMS = [
    sentinel2("cloudy", 2, 60.0),
    sentinel2("clear", 10, 4.0),
    sentinel2("clearest, beside half of it", 11, 0.0, box=(9, 48, 9.3, 49)),
    sentinel2("elsewhere", 12, 0.0, box=(20, 48, 21, 49)),
    sentinel1("early", 1),
    sentinel1("near", 12),
    sentinel1("nearest, uncorrected", 10, "GRD"),
    sentinel1("nearest, beside half of it", 10, box=(9, 48, 9.3, 49)),
]


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalog")
    catalog = pystac.Catalog("root", "for tests")
    for name in ("sentinel-2-l2a", "sentinel-1"):
        child = pystac.Catalog(name, "for tests")
        catalog.add_child(child)
        for item in ITEMS:
            if item.collection_id == name:
                copy = item.clone()
                copy.collection_id = None  # a collection's own document isn't needed here
                copy.id = item.id.replace(" ", "_").replace(",", "")
                child.add_item(copy)
    catalog.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    return folder


@pytest.fixture
def served():
    """Serve with a handler; gives the address and the requests that came."""
    servers = []

    def serve(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def check(found):
    assert (found.optical.id, found.sar.id) == ("clear", "near")
    assert found.covered == (1.0, 1.0)
    assert found.considered == (3, 3)
    assert found.notices == ()
    assert found.optical.assets["B04"].href.startswith(("/", "http://"))


def test_a_static_catalogue_on_disk(static):
    check(find_items(str(static / "catalog.json"), AREA, JUNE))


def test_a_static_catalogue_by_http(static, served):
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, directory=str(static), **options)

        def log_message(self, *_):
            pass

    address = served(Quiet)
    found = find_items(f"{address}/catalog.json", AREA, JUNE)
    check(found)
    assert found.optical.assets["B04"].href.startswith(f"{address}/")


def test_an_api_is_asked_for_the_area_the_time_and_the_fitting_collections_alone(served):
    asked = []

    class Api(BaseHTTPRequestHandler):
        def answer(self, document):
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            here = f"http://{self.headers['Host']}"
            links = [{"rel": r, "href": here + p} for r, p in (("self", "/"), ("root", "/"), ("data", "/collections"))]
            if self.path.startswith("/collections"):
                names = ["sentinel-2-l2a", "sentinel-1-rtc", "naip"]
                extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
                self.answer({"links": links, "collections": [
                    {"type": "Collection", "stac_version": "1.0.0", "id": n, "description": n, "license": "other",
                     "extent": extent, "links": []} for n in names]})  # fmt: skip
                return
            conforms = ["core", "item-search", "collections", "ogcapi-features"]
            self.answer({
                "type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "for tests",
                "conformsTo": [f"https://api.stacspec.org/v1.0.0/{name}" for name in conforms],
                "links": [*links, {"rel": "search", "href": f"{here}/search", "type": "application/geo+json",
                                   "method": "POST"}],
            })  # fmt: skip

        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            features = [item.to_dict(include_self_link=False, transform_hrefs=False) for item in ITEMS]
            self.answer({"type": "FeatureCollection", "features": features, "links": []})

        def log_message(self, *_):
            pass

    pytest.importorskip("pystac_client")
    found = find_items(served(Api), AREA, JUNE)
    assert (found.optical.id, found.sar.id) == ("clear", "near")
    (question,) = asked
    assert sorted(question["collections"]) == ["sentinel-1-rtc", "sentinel-2-l2a"]
    assert shapely.geometry.shape(question["intersects"]).equals(AREA)
    assert question["datetime"].startswith("2024-06-01T00:00:00")


def test_coverage_goes_before_clouds_and_part_of_the_area_is_said(static):
    east = shapely.box(9.2, 48.2, 9.25, 48.25)  # within all footprints
    found = find_items(str(static / "catalog.json"), east, JUNE)
    assert found.optical.id.startswith("clearest")
    assert found.sar.id.startswith("nearest_beside")
    beyond = shapely.box(9.9, 48.2, 10.1, 48.4)
    found = find_items(str(static / "catalog.json"), beyond, JUNE)
    assert found.covered == pytest.approx((0.5, 0.5))
    assert "50 % of the area" in found.notices[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_cloud": 1.0, "area": shapely.box(9.5, 48.5, 9.6, 48.6)}, "at most 1 % cloud"),
        ({"time": parse_time("2024-07")}, "no item over the area .*; check the area and --collection"),
        ({"time": parse_time("2024-06-02/2024-06-11"), "area": shapely.box(9.5, 48.5, 9.6, 48.6)}, "no Sentinel-1 RTC"),
    ],
)
def test_nothing_that_fits_is_an_error_that_says_what_to_widen(static, options, message):
    given = SimpleNamespace(**{"area": AREA, "time": JUNE, "max_cloud": 20.0, **options})
    with pytest.raises(SourceError, match=message):
        find_items(str(static / "catalog.json"), given.area, given.time, max_cloud=given.max_cloud)


def test_a_catalogue_that_isnt_there_or_isnt_one(tmp_path):
    for text in (None, "", "{}", '{"type": "Feature"}'):
        path = tmp_path / "catalog.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(SourceError, match="the catalogue can't be read") as caught:
            find_items(str(path), AREA, JUNE)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2024", "2024-01-01T00:00:00", "2024-12-31T23:59:59.999999"),
        ("2024-12", "2024-12-01T00:00:00", "2024-12-31T23:59:59.999999"),
        ("2024-02/2024-02-29", "2024-02-01T00:00:00", "2024-02-29T23:59:59.999999"),
        ("2024-06-03T10:00:00+02:00/2024-06-04", "2024-06-03T08:00:00", "2024-06-04T23:59:59.999999"),
    ],
)
def test_time_ranges(text, start, end):
    found = parse_time(text)
    assert (found.start, found.end) == tuple(datetime.fromisoformat(t).replace(tzinfo=UTC) for t in (start, end))


@pytest.mark.parametrize(
    "text", ["", "/", "2024-06-01/", "summer", "2024-13", "2024-06-31", "2024-06-02/2024-06-01", "1/2/3"]
)
def test_what_is_no_time_range_is_refused(text):
    with pytest.raises(SourceError, match=r"^--time"):
        parse_time(text)


def test_documents_that_cant_be_read_are_passed_over_and_told(static, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(static, copy)
    root = copy / "catalog.json"
    document = json.loads(root.read_text())
    for href in ("./gone.json", "./catalog.json"):  # one that leads nowhere, and one in a circle
        document["links"].append({"rel": "child", "href": href, "type": "application/json"})
    root.write_text(json.dumps(document))
    found = find_items(str(root), AREA, JUNE)
    assert (found.optical.id, found.sar.id) == ("clear", "near")
    assert any("1 documents can't be read, such as " in notice and "gone.json" in notice for notice in found.notices)
