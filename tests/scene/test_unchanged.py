"""Files that change after they were opened are told, whatever kind of source is made of them."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil

from gopt_geo.errors import SourceError
from gopt_geo.grid import Window
from gopt_geo.inference import TileOptions, run_tiles
from gopt_geo.scene import AlignedSource, RasterSource
from gopt_geo.scene.bandset import JoinedSource, StackedSource
from gopt_geo.scene.clouds import ClearSource, CloudMask, CloudSource
from gopt_geo.scene.scene import Scene
from gopt_geo.scene.unchanged import FileStates, Watched, check_unchanged
from scene.conftest import write_raster

PIXELS = np.ones((1, 40, 50), np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "a.tif", PIXELS)


def _touch(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def _rewrite(path: Path) -> None:
    """Write the file anew in its place: same size, same content, later."""
    content = path.read_bytes()
    path.write_bytes(content)
    _touch(path)


def _replace(path: Path) -> None:
    """Put a copy in its place that has the same size and times."""
    copy = path.with_name("copy.tif")
    shutil.copy2(path, copy)
    copy.replace(path)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "rewritten": (_rewrite, "it has been written to"),
    "replaced": (_replace, "another file has taken its place"),
    "grown": (_grow, r"\d+ bytes have become \d+"),
    "removed": (Path.unlink, "it is gone"),
}


@pytest.mark.brief
@pytest.mark.parametrize("change", CHANGES)
def test_every_kind_of_change_is_told(path: Path, change: str) -> None:
    make, said = CHANGES[change]
    with RasterSource(path) as source:
        source.read(Window(0, 0, 40, 50))
        source.check_unchanged()
        make(path)
        with pytest.raises(SourceError, match=rf"^{path}: its file changed while it was read: {said}") as caught:
            source.check_unchanged()
        assert "run again" in str(caught.value)


def test_reading_and_looking_are_no_changes(path: Path) -> None:
    with RasterSource(path) as source:
        path.read_bytes()
        path.with_name("other.tif").write_bytes(b"")
        RasterSource(path).close()
        source.check_unchanged()


def test_files_behind_a_file_count(tmp_path: Path, path: Path) -> None:
    mosaic = tmp_path / "mosaic.vrt"
    rasterio.shutil.copy(path, mosaic, driver="VRT")
    with RasterSource(mosaic) as source:
        _rewrite(path)
        with pytest.raises(SourceError, match=r"mosaic\.vrt: its file a\.tif changed"):
            source.check_unchanged()


def test_a_side_car_counts(tmp_path: Path) -> None:
    with rasterio.open(path := write_raster(tmp_path / "a.tif", PIXELS), "r+") as file:
        file.build_overviews([2])
    beside = path.with_name("a.tif.ovr")
    rasterio.shutil.copy(path, beside, driver="GTiff")
    with RasterSource(path) as source:
        _touch(beside)
        with pytest.raises(SourceError, match=r"its file a\.tif\.ovr changed"):
            source.check_unchanged()


def test_of_a_file_in_an_archive_the_archive_counts(tmp_path: Path, path: Path) -> None:
    archive = tmp_path / "scene.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(path, "inner/a.tif")
    with RasterSource(f"/vsizip/{archive}/inner/a.tif") as source:
        _rewrite(path)
        source.check_unchanged()
        _touch(archive)
        with pytest.raises(SourceError, match=r"its file scene\.zip changed"):
            source.check_unchanged()


def test_what_is_on_no_disk_is_not_watched() -> None:
    FileStates(["/vsimem/a.tif", "/vsicurl/https://example.org/a.tif", "/no/such/file.tif"]).check("a")


def test_a_copy_in_another_process_compares_with_the_first_opening(path: Path) -> None:
    with RasterSource(path) as source:
        stored = pickle.dumps(source)
        _rewrite(path)
        with pickle.loads(stored) as copy, pytest.raises(SourceError, match="written to"):
            copy.check_unchanged()


def test_a_read_that_fails_because_of_the_change_says_so(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1, 2000, 500), np.uint8)
    path = write_raster(tmp_path / "a.tif", noise, compress="deflate")
    with RasterSource(path) as source:
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(SourceError, match="changed while it was read"):
            source.read(Window(0, 0, 2000, 500))


def _aligned(source: Any) -> AlignedSource:
    return AlignedSource(source, source.grid)


def test_every_source_passes_it_on(tmp_path: Path) -> None:
    paths = [write_raster(tmp_path / f"{i}.tif", PIXELS) for i in range(3)]

    def sources() -> list[RasterSource]:
        return [RasterSource(path) for path in paths]

    def clear() -> ClearSource:
        first = RasterSource(paths[0])
        return ClearSource(first, _aligned(CloudSource(CloudMask(paths[2], "mask"))))

    one = RasterSource(paths[0]).grid
    made: dict[str, Watched] = {
        "stacked": StackedSource(sources(), "three"),
        "joined": JoinedSource([_aligned(source) for source in sources()], [0, 1, 2]),
        "clear": clear(),
        "aligned": _aligned(StackedSource(sources(), "three")),
        "modalities": Scene(one, {str(i): _aligned(source) for i, source in enumerate(sources())}, {}, [], 1.0),
        "masks": Scene(one, {"optical": _aligned(RasterSource(paths[0]))}, {"optical": _aligned(clear())}, [], 1.0),
    }
    for source in made.values():
        source.check_unchanged()
    check_unchanged([object()])
    _rewrite(paths[2])
    for source in made.values():
        with pytest.raises(SourceError, match=r"2\.tif"):
            source.check_unchanged()


def test_the_tiler_looks_at_the_end(path: Path) -> None:
    class Model:
        num_classes, modalities = 1, ("optical",)

        def __call__(self, values: Any, valid: Any, /) -> Any:
            return values["optical"]

    source = RasterSource(path)
    scene = Scene(source.grid, {"optical": _aligned(source)}, {}, [], 1.0)
    options = TileOptions(tile_size=16, overlap=4, batch_size=1)
    assert run_tiles(scene, Model(), options, sink=lambda rows: None).forwarded == 12
    with pytest.raises(SourceError, match="changed while it was read"):
        run_tiles(scene, Model(), options, sink=lambda rows: _touch(path) if rows.window.row == 12 else None)
