"""Rasters with awkward properties, as optical and as SAR: a right map or one line that says what to do."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo import cog_validate
from typer.testing import CliRunner

from gopt_geo.grid import corner_distance, grid_of, to_rasterio_crs
from gopt_geo.scene import RasterSource
from gopt_geo_cli.main import app
from realdata import REFUSED, ROBUSTNESS, ROBUSTNESS_FILES, needs

pytestmark = [
    *needs(ROBUSTNESS),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]
WITHOUT_CRS = ["float_nan.tif", "rotated.tif"]
BY_POINTS = "cog_gcps.tif"


def validity(path: Path, bands: list[int]) -> np.ndarray:
    """Where all bands carry data, by GDAL's own masks."""
    with rasterio.open(path) as file:
        values = file.read(bands).astype(np.float64)
        return (file.read_masks(bands) > 0).all(axis=0) & np.isfinite(values).all(axis=0)


def partner(path: Path, like: Path, count: int, value: float) -> Path:
    """A raster on the grid of another: constant in its left half, nodata in its right half."""
    with RasterSource(like, honour_nodata=False) as file:
        grid = file.grid
    profile = {
        "crs": to_rasterio_crs(grid.crs),
        "transform": grid.affine,
        "width": grid.shape[1],
        "height": grid.shape[0],
    }
    if profile["crs"] is None:
        del profile["crs"]
    pixels = np.full((count, profile["height"], profile["width"]), value, np.float32)
    pixels[:, :, (profile["width"] + 1) // 2 :] = np.nan
    with rasterio.open(path, "w", driver="GTiff", count=count, dtype="float32", nodata=np.nan, **profile) as file:
        file.write(pixels)
    return path


def bands_of(path: Path, role: str) -> list[int]:
    with rasterio.open(path) as file:
        there = [i for i in file.indexes if file.colorinterp[i - 1] != rasterio.enums.ColorInterp.alpha]
    return [there[i % len(there)] for i in range(3)] if role == "optical" else there[:1]


def predict(name: str, role: str, folder: Path, pack: Path, *options: str) -> tuple[Any, Path, list[int]]:
    awkward = ROBUSTNESS / name
    bands = bands_of(awkward, role)
    count, value = (1, -12.0) if role == "optical" else (3, 0.1)
    other = partner(folder / "partner.tif", awkward, count, value)
    pair = (awkward, other) if role == "optical" else (other, awkward)
    given = [f"--{role}-bands", ",".join(str(b) for b in bands), f"--{role}-units", "raw", "--allow-resolution"]
    given += ["--pack", str(pack), "--device", "cpu", "--tile-size", "128", "--overlap", "0"]
    out = folder / "map.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        ran = CliRunner().invoke(app, ["predict", *(str(p) for p in pair), "-o", str(out), *given, *options])
    assert "Traceback" not in ran.output
    return ran, out, bands


def check_map(ran: Any, out: Path, name: str, bands: list[int]) -> None:
    assert ran.exit_code == 0, (ran.output, ran.exception)
    awkward = ROBUSTNESS / name
    with rasterio.open(out) as found, RasterSource(awkward, honour_nodata=False) as wanted:
        assert found.shape == wanted.grid.shape
        assert corner_distance(wanted.grid, grid_of(found)) < 1e-6
        nodata = found.read(1) == 255
    expected = ~validity(awkward, bands)
    if name == BY_POINTS:  # warped onto the affine grid that fits best: all but its seam with that grid's edges
        expected, nodata = expected[8:-8, 8:-8], nodata[8:-8, 8:-8]
    expected[:, : (expected.shape[1] + 1) // 2 + (8 if name == BY_POINTS else 0)] = False
    np.testing.assert_array_equal(nodata, expected)
    assert cog_validate(out, strict=True, quiet=True) == (True, [], [])


@pytest.mark.parametrize("role", ["optical", "sar"])
@pytest.mark.parametrize("name", ROBUSTNESS_FILES)
def test_right_or_refused(tiny_pack: Path, tmp_path: Path, name: str, role: str) -> None:
    ran, out, bands = predict(name, role, tmp_path, tiny_pack)
    if name not in REFUSED:
        check_map(ran, out, name, bands)
        return
    assert ran.exit_code == 2, (ran.output, ran.exception)
    lines = [line for line in ran.stderr.splitlines() if not line.startswith("predict: mapping")]
    assert len(lines) == 1
    found = REFUSED[name]
    if name in WITHOUT_CRS and role == "sar":
        found = "no CRS"  # the partner, which is opened first, lacks it too
    assert found in lines[0]
    assert "; " in lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["partner.tif"]


@pytest.mark.parametrize("role", ["optical", "sar"])
@pytest.mark.parametrize("name", WITHOUT_CRS)
def test_without_a_crs_pixel_upon_pixel(tiny_pack: Path, tmp_path: Path, name: str, role: str) -> None:
    ran, out, bands = predict(name, role, tmp_path, tiny_pack, "--pixel-grid")
    check_map(ran, out, name, bands)
    with rasterio.open(out) as found:
        assert found.crs is None
