"""What region files and the rasters they name try, and what comes of it: no code, no servers, nothing elsewhere."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from pyproj import CRS
from rasterio.vrt import WarpedVRT

import gopt_geo
from gopt_geo.batch.jobs import JobMaker
from gopt_geo.batch.regions import Region, read_regions, write_regions
from gopt_geo.batch.running import prepare
from gopt_geo.batch.virtual import check_virtual
from gopt_geo.batch.work import map_region
from gopt_geo.errors import BatchError, GoptGeoError, SourceError
from gopt_geo.grid import Window
from gopt_geo.scene.source import RasterSource
from regionfiles import collection, table

SIDE = 96


class Server(ThreadingHTTPServer):
    """Refuses everything, and remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        self.send_error(404)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def scene(scenes: Path, tmp_path: Path) -> Path:
    """A folder with an optical scene and SAR, to put virtual rasters into."""
    for name in ("scene.tif", "sar.tif"):
        (tmp_path / name).write_bytes((scenes / "a" / name).read_bytes())
    return tmp_path


def virtual(folder: Path, source: str, *, beside: str = "0", kind: str = "", more: str = "") -> Path:
    """Write virtual.vrt, of as many bands and on the same grid as scene.tif."""
    with rasterio.open(folder / "scene.tif") as file:
        a, count, epsg, dtype = file.transform, file.count, file.crs.to_epsg(), file.dtypes[0]
    place = ",".join(map(str, (a.c, a.a, a.b, a.f, a.d, a.e)))
    named = {"float32": "Float32", "uint16": "UInt16", "uint8": "Byte", "int16": "Int16"}[dtype]
    bands = "".join(
        f'<VRTRasterBand dataType="{named}" band="{band}" {kind}>{more}<SimpleSource>'
        f'<SourceFilename relativeToVRT="{beside}">{source}</SourceFilename><SourceBand>{band}</SourceBand>'
        f"</SimpleSource></VRTRasterBand>"
        for band in range(1, count + 1)
    )
    path = folder / "virtual.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:{epsg}</SRS>'
        f"<GeoTransform>{place}</GeoTransform><Metadata><MDI key='LINK'>https://e.org</MDI></Metadata>{bands}"
        "</VRTDataset>"
    )
    return path


def mapped(folder: Path, optical: str, *, allow_remote: bool = False, **said: Any) -> dict[str, Any]:
    """Map a region that a file in the folder names with this optical scene, as a worker does."""
    with rasterio.open(folder / "scene.tif") as file:
        crs = file.crs.to_epsg()
        box = shapely.box(*file.bounds)
    member = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{crs}"}}
    row = {"id": "a", "optical": optical, "sar": "sar.tif", **said}
    path = collection(folder / "r.geojson", (row, box), crs=member)
    (region,) = read_regions(path, allow_remote=allow_remote)
    (folder / "out").mkdir(exist_ok=True)
    return map_region(JobMaker(folder / "out", ("tif",), {}, allow_remote=allow_remote)(region))


def inner_sources(server: Server) -> dict[str, str]:
    tiles = (
        f"<GDAL_WMS><Service name='TMS'><ServerUrl>http://{server.name}/${{z}}</ServerUrl></Service><DataWindow>"
        "<UpperLeftX>0</UpperLeftX><UpperLeftY>0</UpperLeftY><LowerRightX>96</LowerRightX><LowerRightY>-96</LowerRightY>"
        "<SizeX>96</SizeX><SizeY>96</SizeY></DataWindow><BandsCount>9</BandsCount></GDAL_WMS>"
    )
    return {
        "file system": f"/vsicurl/http://{server.name}/a.tif",
        "url": f"http://{server.name}/a.tif",
        "driver": f"WMS:http://{server.name}/wms",
        "inline": tiles.replace("<", "&lt;"),
        "cdata": f"<![CDATA[{tiles}]]>",
    }


KINDS = ["file system", "url", "driver", "inline", "cdata"]


@pytest.mark.parametrize("kind", KINDS)
def test_virtual_rasters_reach_no_server(scene: Path, server: Server, kind: str) -> None:
    path = virtual(scene, inner_sources(server)[kind])
    with pytest.raises(SourceError, match="no file on this machine's disk"):
        check_virtual([str(path)])
    for optical in ("virtual.vrt", "virtual.vrt,virtual.vrt", "virt*.vrt", "nested.vrt", "disguised.tif"):
        (scene / "nested.vrt").write_text(path.read_text().replace(inner_sources(server)[kind], str(path)))
        (scene / "disguised.tif").write_text(path.read_text())
        record = mapped(scene, optical)
        assert record["status"] == "failed"
        assert "--allow-remote" in record["error"]["message"]
    assert server.asked == []
    assert list((scene / "out").iterdir()) == []


def test_where_it_is_allowed_servers_are_asked(scene: Path, server: Server) -> None:
    """Without the check all of it would happen: else the test above says nothing."""
    for kind, source in inner_sources(server).items():
        server.asked.clear()
        path = virtual(scene, source)
        with pytest.raises(SourceError), RasterSource(path) as raster:
            raster.read(Window(0, 0, SIDE, SIDE))
        assert server.asked, kind
    assert mapped(scene, "virtual.vrt", allow_remote=True)["status"] == "failed"


@pytest.mark.parametrize("column", ["cloud_mask", "grid"])
def test_masks_and_grids_are_looked_through_too(scene: Path, server: Server, column: str) -> None:
    virtual(scene, inner_sources(server)["file system"])
    record = mapped(scene, "scene.tif", **{column: "virtual.vrt"})
    assert "--allow-remote" in record["error"]["message"]
    assert server.asked == []


def test_sound_virtual_rasters_are_mapped_as_what_they_show(scene: Path) -> None:
    said = {"optical_bands": "1,2,3", "optical_units": "dn10000"}  # which a virtual raster here doesn't tell
    first = mapped(scene, "scene.tif")
    assert first["status"] == "done", first.get("error")
    with rasterio.open(scene / "out" / "a.tif") as file:
        expected = file.read()
    for source, beside in (("scene.tif", "1"), (str(scene / "scene.tif"), "0")):
        virtual(scene, source, beside=beside)
        shutil.rmtree(scene / "out")
        record = mapped(scene, "virtual.vrt", **said)
        assert record["status"] == "done", record.get("error")
        with rasterio.open(scene / "out" / "a.tif") as file:
            assert np.array_equal(file.read(), expected)


def test_mosaics_of_gopt_geo_itself_pass(scene: Path) -> None:
    from gopt_geo.batch.together import mosaic_maps

    assert mapped(scene, "scene.tif")["status"] == "done"
    mosaic_maps([scene / "out" / "a.tif"], [scene / "out" / "mosaic.vrt"])
    check_virtual([str(scene / "out" / "mosaic.vrt"), str(scene / "missing.tif"), str(scene)])


def test_virtual_rasters_of_other_tools_pass(scene: Path) -> None:
    with rasterio.open(scene / "scene.tif") as file, WarpedVRT(file, crs="EPSG:4326") as warped:
        rasterio.shutil.copy(warped, scene / "warped.vrt", driver="VRT")
    assert "VRTWarpedDataset" in (scene / "warped.vrt").read_text()
    check_virtual([str(scene / "warped.vrt")])
    path = virtual(scene, "scene.tif", beside="1", more="<Description>Level: 2A</Description>")
    points = '<GCPList Projection="EPSG:4326"><GCP Id="1" Pixel="0" Line="0" X="9" Y="50"/></GCPList>'
    path.write_text(path.read_text().replace("<Metadata>", f"{points}<Metadata>"))
    check_virtual([str(path)])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (("<SRS>", "<!DOCTYPE a><SRS>"), "entities"),
        (("</VRTDataset>", ""), "no sound XML"),
        (("scene.tif", "secret.txt"), "isn't a raster of GTiff"),
        (("scene.tif", "missing.tif"), "is no file on this machine's disk"),
        (("scene.tif", "NETCDF:scene.tif:x"), "is no file on this machine's disk"),
        (("<SRS>", "<OverviewList>/vsicurl/http://e.org/a</OverviewList><SRS>"), "is no file on this machine's disk"),
    ],
)
def test_what_else_virtual_rasters_may_not_say(scene: Path, change: tuple[str, str], found: str) -> None:
    (scene / "secret.txt").write_text("0 1 2")
    path = virtual(scene, "scene.tif", beside="1")
    check_virtual([str(path)])
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(SourceError, match=found):
        check_virtual([str(path)])


def test_overviews_elsewhere(scene: Path, server: Server) -> None:
    """GDAL takes the overviews of any raster from where its metadata says."""
    with rasterio.open(scene / "scene.tif", "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"/vsicurl/http://{server.name}/a.ovr")
    record = mapped(scene, "scene.tif")
    assert "--allow-remote" in record["error"]["message"]
    assert server.asked == []


@pytest.mark.parametrize("allow_remote", [False, True])
def test_code_in_rasters_is_not_run(scene: Path, monkeypatch: pytest.MonkeyPatch, allow_remote: bool) -> None:
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    marker = scene / "ran"
    code = (
        "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
        f"<PixelFunctionCode><![CDATA[\ndef f(in_ar, out_ar, *args):\n    open({str(marker)!r}, 'w').close()\n"
        "    out_ar[:] = 1\n]]></PixelFunctionCode>"
    )
    path = virtual(scene, "scene.tif", beside="1", kind='subClass="VRTDerivedRasterBand"', more=code)
    record = mapped(scene, "virtual.vrt", allow_remote=allow_remote)
    assert record["status"] == "failed"
    with pytest.raises(GoptGeoError):
        gopt_geo.predict(path, scene / "sar.tif", scene / "map.tif")
    with pytest.raises(GoptGeoError):
        gopt_geo.predict(scene / "scene.tif", scene / "sar.tif", scene / "map.tif", cloud_mask=path)
    assert not marker.exists()
    assert not (scene / "map.tif").exists()
    with rasterio.open(path) as file:  # what would have happened
        file.read(1)
    assert marker.exists()


@pytest.mark.brief
@pytest.mark.parametrize("text", ["../a", "/tmp/a", "..", "a/../../b", "a\\..\\b", "out/../../a", "C:\\a"])
def test_ids_do_not_leave_the_folder(tmp_path: Path, text: str) -> None:
    path = collection(tmp_path / "r.geojson", ({"id": text, "optical": "a.tif"}, shapely.box(0, 0, 1, 1)))
    with pytest.raises(BatchError, match="can't name a file"):
        read_regions(path)


def test_regions_can_not_say_where_results_go(tmp_path: Path) -> None:
    box = shapely.box(0, 0, 1, 1)
    for column in ("output", "outputs", "preview", "confidence", "probabilities", "overwrite"):
        path = collection(tmp_path / "r.geojson", ({"id": "a", "optical": "a.tif", column: "/etc/x.tif"}, box))
        with pytest.raises(BatchError, match="no region can say this"):
            read_regions(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A pickle in a column of bytes, and one under each ending, are data and nothing else."""
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "exploded"),))  # type: ignore[return-value]

    bomb = pickle.dumps(Bomb())
    for ending in (".geojson", ".gpkg", ".fgb", ".parquet"):
        (tmp_path / f"r{ending}").write_bytes(bomb)
        with pytest.raises(BatchError):
            read_regions(tmp_path / f"r{ending}")
    import geopandas

    frame = geopandas.GeoDataFrame({"id": ["a"], "optical": [bomb]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326)
    frame.to_parquet(tmp_path / "r.parquet")
    with pytest.raises(BatchError, match="names no scenes"):
        read_regions(tmp_path / "r.parquet")
    assert not (tmp_path / "exploded").exists()
    pickle.loads(bomb)
    assert (tmp_path / "exploded").exists()


def test_regions_of_python_may_name_what_they_like(tmp_path: Path) -> None:
    region = Region("a", shapely.box(0, 0, 1, 1), CRS.from_epsg(4326), ("a.vrt",))
    path = tmp_path / "r.geojson"
    write_regions(path, [region])
    row = {"path": "o.tif", "modality": "optical"}
    search = {"catalog": table(tmp_path / "index.gpkg", [row], [region.geometry])}
    cases: list[tuple[Any, dict[str, Any], bool]] = [
        ([region], {}, True),
        (path, {}, False),
        (path, {"allow_remote": True}, True),
        ([region], search, False),
        ([region], {**search, "allow_remote": True}, True),
    ]
    for regions, how, allowed in cases:
        batch = prepare(regions, output=tmp_path / "out", **how)
        assert batch.make(region).allow_remote is allowed
