"""A full disk at any point of writing: an error, never a file that lacks what was written into it."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from gopt_geo.errors import OutputError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.outputs.complete import WrittenBlocks, check_complete
from gopt_geo.outputs.landcover import LandCoverWriter
from gopt_geo.outputs.probabilities import ProbabilityWriter
from gopt_geo.packs import ClassInfo

SHAPE = (700, 900)
GRID = GeoBox(SHAPE, Affine(10, 0, 5e5, 0, -10, 46e5), "EPSG:32631")
LEGEND = [ClassInfo(value=i, name=f"c{i}", color=f"#{30 * i:02x}8040") for i in range(7)]
Write = Callable[[Path], None]


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Let no file grow beyond a number of bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _classes(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 7, SHAPE).astype(np.uint8)
    with LandCoverWriter(path, GRID, LEGEND, {}) as writer:
        for row in range(0, SHAPE[0], 100):
            writer.write(Window(row, 0, 100, SHAPE[1]), pixels[row : row + 100])
        writer.finish()


def _probabilities(path: Path) -> None:
    pixels = np.random.default_rng(0).random((2, *SHAPE), np.float32)
    valid = np.ones((19, SHAPE[1]), np.bool_)
    with ProbabilityWriter(path, GRID, ["a", "b"], {}) as writer:
        for row in range(0, SHAPE[0], 19):  # blocks are filled bit by bit, and some only when the file is closed
            part = pixels[:, row : row + 19]
            writer.write(Window(row, 0, part.shape[1], SHAPE[1]), part, valid[: part.shape[1]])
        writer.finish()


@pytest.mark.parametrize("write", [_classes, _probabilities])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.3, 0.5, 0.7, 0.85, 0.9, 0.93, 0.96, 0.98, 0.99, 0.999])
def test_a_full_disk_is_always_told(tmp_path: Path, write: Write, share: float) -> None:
    write(tmp_path / "whole.tif")
    whole = (tmp_path / "whole.tif").read_bytes()
    with file_size_limit(int(len(whole) * share)), pytest.raises(OutputError, match="see whether the disk is full"):
        write(tmp_path / "cut.tif")
    with file_size_limit(len(whole) * 2):
        write(tmp_path / "again.tif")
    assert (tmp_path / "again.tif").read_bytes() == whole


@pytest.mark.parametrize("needed", [True, False])
def test_blocks_that_are_missing_or_cut_off(tmp_path: Path, needed: bool) -> None:
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "height": 100, "width": 150, "count": 1, "dtype": "uint8", "sparse_ok": True}
    profile |= {
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
        "nodata": 0,
        "crs": GRID.crs,
        "transform": GRID.affine,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.ones((1, 64, 64), np.uint8), window=((0, 64), (0, 64)))
    written = WrittenBlocks((100, 150), (64, 64))
    written.add(Window(0, 0, 10, 10), np.ones((10, 10), bool))
    check_complete(path, written, path)
    with pytest.raises(OutputError, match="5 of its blocks are missing or cut off"):
        check_complete(path, None, path)
    if needed:
        written.add(Window(70, 130, 10, 10), np.ones((10, 10), bool))
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(OutputError, match="1 of its blocks are missing or cut off"):
        check_complete(path, written, path)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 89), st.integers(0, 69), st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_blocks_of_any_window(row: int, col: int, height: int, width: int, seed: int) -> None:
    whole = np.zeros((150, 130), np.bool_)
    there = np.random.default_rng(seed).random((height, width)) < 0.01
    whole[row : row + height, col : col + width] = there
    written = WrittenBlocks(whole.shape, (16, 32))
    written.add(Window(row, col, height, width), there)
    for (i, j), found in np.ndenumerate(written.there):
        assert found == whole[i * 16 : i * 16 + 16, j * 32 : j * 32 + 32].any()
