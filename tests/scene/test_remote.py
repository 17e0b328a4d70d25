"""Rasters on a server: only the parts that are needed travel, and what fails says so in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from gopt_geo.errors import SourceError
from gopt_geo.grid import Window
from gopt_geo.scene import RasterSource
from gopt_geo.scene.remote import REMOTE, address, gdal_name, is_remote, name_of, shown
from rangeserver import Served, serve
from scene.conftest import write_raster

pytestmark = pytest.mark.brief
SIZE = 3000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    folder = tmp_path_factory.mktemp("served")
    noise = np.random.default_rng(0).integers(0, 10000, (2, SIZE, SIZE)).astype(np.uint16)
    plain = write_raster(folder / "plain.tif", noise)
    with rasterio.open(plain) as file:
        rasterio.shutil.copy(file, folder / "cog.tif", driver="COG", BLOCKSIZE=256, COMPRESS="DEFLATE")
    with serve(folder) as served:
        yield served, folder


def test_only_the_window_travels(server: tuple[Served, Path]) -> None:
    served, folder = server
    whole = (folder / "cog.tif").stat().st_size
    window = Window(1300, 700, 512, 512)
    served.sent.clear()
    served.requests.clear()
    with RasterSource(f"{served.url}/cog.tif") as source, RasterSource(folder / "cog.tif") as local:
        assert source.grid == local.grid
        np.testing.assert_array_equal(source.read(window)[0], local.read(window)[0])
    pixels = 9 * 256 * 256 * 2 * 2  # nine blocks at most, two bands of two bytes
    assert served.sent["cog.tif"] < pixels + 300_000
    assert served.sent["cog.tif"] < 0.1 * whole
    assert served.names == {"cog.tif"}  # neither the folder nor companions were asked for


def test_a_path_that_lost_a_slash_is_mended(server: tuple[Served, Path]) -> None:
    served, _ = server
    with RasterSource(Path(f"{served.url}/cog.tif")) as source:
        assert source.count == 2


def test_what_isnt_there_is_one_line_without_keys(server: tuple[Served, Path]) -> None:
    served, _ = server
    with pytest.raises(SourceError) as caught:
        RasterSource(f"{served.url}/nowhere.tif?token=secret")
    text = str(caught.value)
    assert text.startswith(f"{served.url}/nowhere.tif: it can't be opened (")
    assert "secret" not in text
    assert "check the URL" in text
    assert "\n" not in text


def test_a_server_that_fails_while_reading(server: tuple[Served, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    served, _ = server
    monkeypatch.setitem(REMOTE, "GDAL_HTTP_RETRY_DELAY", "0.01")
    with RasterSource(f"{served.url}/plain.tif?again") as source:
        served.broken.add("plain.tif")
        try:
            with pytest.raises(SourceError, match=r"can't be read .*; check the network"):
                source.read(Window(SIZE - 600, 0, 512, 512))
        finally:
            served.broken.clear()
    assert sum(status == 500 for _, _, status in served.requests) > 1  # it was tried again


@pytest.mark.parametrize(
    ("path", "name", "remote"),
    [
        ("https://host/a/b.tif?key=1", "/vsicurl/https://host/a/b.tif?key=1", True),
        ("https:/host/b.tif", "/vsicurl/https://host/b.tif", True),
        ("HTTP://host/b.tif", "/vsicurl/http://host/b.tif", True),
        ("s3://bucket/b.tif", "/vsis3/bucket/b.tif", True),
        ("gs://bucket/b.tif", "/vsigs/bucket/b.tif", True),
        ("az://box/b.tif", "/vsiaz/box/b.tif", True),
        ("/vsicurl/https://host/b.tif", "/vsicurl/https://host/b.tif", True),
        ("/vsizip/a.zip/b.tif", "/vsizip/a.zip/b.tif", False),
        ("folder/b.tif", "folder/b.tif", False),
        ("ftp://host/b.tif", "ftp://host/b.tif", False),
    ],
)
def test_addresses(path: str, name: str, remote: bool) -> None:
    assert gdal_name(path) == name
    assert is_remote(path) is remote
    assert name_of(path) == "b.tif"


def test_keys_and_users_arent_shown() -> None:
    assert shown("https://me:word@host/b.tif?key=1") == "https://host/b.tif"
    assert address(Path("s3://bucket/b.tif")) == "s3://bucket/b.tif"
    assert shown("a?b.tif") == "a?b.tif"


@pytest.mark.parametrize("path", ["ftp://host/a.tif", "foo:/bar.tif"])
def test_other_ways_are_refused_without_a_try(path: str) -> None:
    with pytest.raises(
        SourceError, match="isn't a way to a raster; give a path, or a URL of http, https, s3, gs or az"
    ):
        RasterSource(path)
