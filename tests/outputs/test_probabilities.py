"""Probabilities as a COG: pixels, names, scale, layout, memory."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rio_cogeo.cogeo import cog_validate

from gopt_geo.errors import GoptGeoError, OutputError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.outputs.probabilities import ProbabilityWriter

NAMES = ["farmland", "city & <town>", "forêt"]
STEPS = {"float32": 0.0, "uint16": 1e-4, "uint8": 1e-2}


def grid(height: int, width: int, crs: str | None = "EPSG:32632") -> GeoBox:
    return GeoBox((height, width), Affine(10, 0, 500_000, 0, -10, 5_400_000), crs)


def drawn(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    shares = rng.dirichlet((0.4, 1, 2), (height, width)).astype(np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(shares), rng.random((height, width)) < 0.7


def written(path: Path, shape: tuple[int, int], kind: str, windows: list[Window]) -> tuple[np.ndarray, np.ndarray]:
    shares, valid = drawn(*shape)
    with ProbabilityWriter(path, grid(*shape), NAMES, {"MADE": "here"}, kind) as writer:  # type: ignore[arg-type]
        for window in windows:
            cut = (..., slice(window.row, window.row_stop), slice(window.col, window.col_stop))
            writer.write(window, shares[cut], valid[cut])
        writer.finish()
    return shares, valid


def bands(height: int, width: int) -> list[Window]:
    """Uneven row bands, of two column strips."""
    edges = [0, 13, 77, 128, 300, height]
    rows = [(a, b) for a, b in itertools.pairwise(edges)]
    half = width // 2 + 5
    return [Window(a, c, b - a, w) for c, w in ((0, half), (half, width - half)) for a, b in rows]


@pytest.mark.brief
@pytest.mark.parametrize("kind", ["float32", "uint16", "uint8"])
def test_pixels_names_and_scale(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "p.tif"
    shares, valid = written(path, (620, 530), kind, bands(620, 530))
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    with rasterio.open(path) as file:
        stored = file.read()
        assert (file.descriptions, file.dtypes) == (tuple(NAMES), (kind,) * 3)
        assert file.tags()["MADE"] == "here"
        assert file.overviews(1) == [2]
        scale = file.scales[0]
        assert file.scales == (scale,) * 3
        assert file.offsets == (0.0,) * 3
        masked = file.read(masked=True)
    np.testing.assert_array_equal(~np.ma.getmaskarray(masked), np.broadcast_to(valid, stored.shape))
    found = stored[:, valid].astype(np.float64) * scale
    if kind == "float32":
        assert scale == 1
        np.testing.assert_array_equal(stored[:, valid], shares[:, valid])
    else:
        assert scale == STEPS[kind]
        assert np.abs(found - shares[:, valid]).max() <= 0.5 * scale + 1e-6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.tif"]


def test_overviews_leave_nodata_out(tmp_path: Path) -> None:
    shares = np.full((3, 600, 600), 0.25, np.float32)
    valid = np.zeros((600, 600), bool)
    valid[::2, ::2] = True
    with ProbabilityWriter(tmp_path / "p.tif", grid(600, 600), NAMES, {}) as writer:
        writer.write(Window(0, 0, 600, 600), shares, valid)
        writer.finish()
    with rasterio.open(tmp_path / "p.tif", overview_level=0) as file:
        np.testing.assert_array_equal(file.read(), np.full((3, 300, 300), 0.25, np.float32))


def test_what_is_never_written_is_nodata_and_takes_no_room(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    shares, valid = np.full((3, 8, 4096), 0.5, np.float32), np.ones((8, 4096), bool)
    with ProbabilityWriter(path, grid(16384, 4096), NAMES, {}) as writer:
        writer.write(Window(640, 0, 8, 4096), shares, valid)
        writer.write(Window(700, 0, 8, 4096), shares, np.zeros_like(valid))
        writer._dataset.close()
        raw = next(tmp_path.glob(".p.tif.rows.tif"))
        assert raw.stat().st_size < 3 * 64 * 4096 * 4 * 1.5  # one row of blocks of each band
        writer.finish()
    with rasterio.open(path) as file:
        assert np.isnan(file.read(2, window=((0, 640), (0, 4096)))).all()
        assert (file.read(2, window=((640, 648), (0, 4096))) == 0.5).all()


def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    shares, valid = np.full((3, 128, 1024), 0.5, np.float32), np.ones((128, 1024), bool)
    peaks = []
    for height in (1024, 8192):
        with ProbabilityWriter(tmp_path / f"{height}.tif", grid(height, 1024), NAMES, {}) as writer:
            tracemalloc.start()
            for row in range(0, height, 128):
                writer.write(Window(row, 0, 128, 1024), shares, valid)
            writer.finish()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] <= 1.05 * peaks[0] + 65536


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 3)])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_thin_rasters_without_a_crs(tmp_path: Path, shape: tuple[int, int]) -> None:
    shares, valid = drawn(*shape)
    with ProbabilityWriter(tmp_path / "p.tif", grid(*shape, None), NAMES, {}) as writer:
        writer.write(Window(0, 0, *shape), shares, valid)
        writer.finish()
    with rasterio.open(tmp_path / "p.tif") as file:
        np.testing.assert_array_equal(file.read()[:, valid], shares[:, valid])
        assert file.tags()["GEOREFERENCING"].startswith("none")


def test_what_doesnt_fit_is_refused(tmp_path: Path) -> None:
    shares, valid = drawn(4, 4)
    with pytest.raises(
        GoptGeoError, match="--probabilities-type float16: there is no such type; choose float32, uint16"
    ):
        ProbabilityWriter(tmp_path / "p.tif", grid(4, 4), NAMES, {}, "float16")  # type: ignore[arg-type]
    with ProbabilityWriter(tmp_path / "p.tif", grid(4, 4), NAMES, {}) as writer:
        for window, values in ((Window(1, 0, 4, 4), shares), (Window(0, 0, 4, 4), shares[:2])):
            with pytest.raises(ValueError, match="Window"):
                writer.write(window, values, valid)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"p\.tif: GDAL can't write it"):
        ProbabilityWriter(tmp_path / "none" / "p.tif", grid(4, 4), NAMES, {})
