"""Rasters placed by ground control points: the way through the points, and what can't place a raster."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint as Gcp
from scipy.ndimage import binary_erosion

from gopt_geo.errors import GridError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.scene import AlignedSource, RasterSource, SourceSpec, open_scene
from gopt_geo.scene.controlpoints import fit_points
from scene.conftest import write_raster

pytestmark = pytest.mark.brief
SHAPE = (300, 400)
TURNED = Affine(9.0, 3.0, 500_000, 3.0, -9.0, 4_600_000)  # a radar's track isn't north
CRS = "EPSG:32631"


def bent(col: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a pixel of the bent raster lies on the straight grid: up to some pixels away."""
    return col + 3 * np.sin(col / 180) + row * col / 40_000, row + 2 * np.cos(row / 130) - 1e-5 * col**2


def points(count: int = 21) -> list[Gcp]:
    cols, rows = np.meshgrid(np.linspace(0, SHAPE[1], count), np.linspace(0, SHAPE[0], count))
    found = []
    for col, row in zip(cols.ravel(), rows.ravel(), strict=True):
        x, y = TURNED @ tuple(float(v) for v in bent(col, row))
        found.append(Gcp(float(row), float(col), float(x), float(y)))
    return found


def placed(path: Path, array: np.ndarray, gcps: list[Gcp], crs: str | None = CRS) -> Path:
    write_raster(path, array, None, None)
    with rasterio.open(path, "r+") as file:
        file.gcps = (gcps, rasterio.crs.CRS.from_user_input(crs) if crs else None)
    return path


def test_the_spline_goes_through_what_was_bent() -> None:
    control = fit_points(points(), rasterio_crs(), SHAPE, "a.tif")
    rng = np.random.default_rng(0)
    true = rng.uniform((0, 0), SHAPE[::-1], (2000, 2))
    x, y = TURNED @ bent(true[:, 0], true[:, 1])
    back = ~control.grid.affine
    fitted = np.stack(back @ (x, y), axis=1)
    assert np.hypot(*(fitted - true).T).max() > 1  # an affine grid alone is off by pixels
    assert np.hypot(*(control.correct(fitted) - true).T).max() < 0.02
    assert 0.3 < control.off < 3


def rasterio_crs() -> Any:
    return GeoBox((1, 1), Affine.identity(), CRS).crs


def test_few_points_make_an_affine_grid() -> None:
    corners = [Gcp(r, c, *map(float, TURNED @ (c, r))) for r, c in ((0, 0), (0, 400), (300, 0))]
    control = fit_points(corners, rasterio_crs(), SHAPE, "a.tif")
    assert control.grid.affine.almost_equals(TURNED, 1e-6)
    assert control.off < 1e-6
    ways = np.array([(1.0, 2.0), (np.nan, 0.0)])
    np.testing.assert_array_equal(control.correct(ways), ways)


def test_what_isnt_finite_stays_so() -> None:
    control = fit_points(points(5), rasterio_crs(), SHAPE, "a.tif")
    found = control.correct(np.array([(1.0, 2.0), (np.inf, 0.0), (np.nan, 1.0)]))
    assert np.isfinite(found).all(axis=1).tolist() == [True, False, False]
    copy = pickle.loads(pickle.dumps(control))
    np.testing.assert_array_equal(copy.correct(np.array([(1.0, 2.0)])), found[:1])


def test_a_bent_raster_is_straightened_by_one_warp(tmp_path: Path) -> None:
    rows, cols = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]] + 0.5
    x, y = TURNED @ bent(cols, rows)
    signal = np.stack([x - 500_000, y - 4_600_000]).astype(np.float32)  # each pixel says where it lies
    path = placed(tmp_path / "bent.tif", signal, points())
    grid = GeoBox((250, 250), Affine(9, 0, 500_600, 0, -9, 4_600_200), CRS)
    aligned = AlignedSource(RasterSource(path), grid)
    values, valid = aligned.read(Window(0, 0, 250, 250))
    assert valid.mean() > 0.7
    row, col = np.mgrid[0:250, 0:250] + 0.5
    wanted = np.stack([600 + 9 * col, 200 - 9 * row])
    inner = binary_erosion(valid, iterations=4)  # at the raster's edge, pixels are means of one side alone
    off = np.hypot(*(values - wanted))[inner] / np.sqrt(90)  # in pixels of the raster
    assert np.median(off) < 0.01
    assert off.max() < 0.05
    pieces = [pickle.loads(pickle.dumps(aligned)).read(Window(r, 0, 50, 250))[0] for r in range(0, 250, 50)]
    assert np.concatenate(pieces, axis=1).tobytes() == values.tobytes()


def spec(path: Path, target: str, count: int) -> SourceSpec:
    return SourceSpec(path, None, "raw", target, count)


def test_it_can_be_either_source_of_a_scene(tmp_path: Path) -> None:
    bent_path = placed(tmp_path / "bent.tif", np.ones((1, *SHAPE), np.float32), points())
    straight = write_raster(
        tmp_path / "a.tif",
        np.ones((1, 300, 300), np.float32),
        CRS,
        Affine.translation(5e5, 46e5) @ Affine.scale(10, -10),
    )
    with open_scene(spec(straight, "reflectance", 1), {"sar": spec(bent_path, "db", 1)}) as scene:
        assert any("bent.tif: placed by 441 ground control points" in notice for notice in scene.notices)
        assert scene.read(Window(0, 0, *scene.shape)).valid["sar"].any()
    with open_scene(spec(bent_path, "reflectance", 1), {"sar": spec(straight, "db", 1)}) as scene:
        assert scene.shape == SHAPE
        assert scene.grid.crs == rasterio_crs()
        valid = scene.read(Window(0, 0, *scene.shape)).valid["optical"]
        assert 0.9 < valid.mean() < 1  # warped onto the affine grid, not laid upon it
    with open_scene(spec(bent_path, "reflectance", 1), {}, pixel_grid=True) as scene:
        assert scene.grid.affine == Affine.identity()
        assert scene.read(Window(0, 0, *scene.shape)).valid["optical"].all()


@pytest.mark.parametrize(
    ("gcps", "crs", "found"),
    [
        (points(5)[:2], CRS, "2 ground control points, 3 to 4000 can place it"),
        (points(5)[:5], CRS, "its 5 ground control points lie on a line"),
        (points(5), None, "its ground control points have no CRS"),
        (points(70), CRS, "4900 ground control points, 3 to 4000"),
        ([*points(5), Gcp(0.0, 0.0, 600_000, 4_700_000)], CRS, "its ground control points contradict each other (by"),
        ([*points(5)[:-1], Gcp(300.0, 400.0, 5e5, 46e5)], CRS, "its ground control points contradict each other (by"),
        ([*points(5), Gcp(1.0, 1.0, float("nan"), 1.0)], CRS, "some ground control points aren't finite"),
    ],
)
def test_points_that_place_nothing(gcps: list[Gcp], crs: str | None, found: str) -> None:
    with pytest.raises(GridError) as caught:
        fit_points(gcps, rasterio_crs() if crs else None, SHAPE, "a.tif")
    assert str(caught.value).startswith(f"a.tif: {found}")


def test_too_few_points_are_an_error_of_the_scene_not_of_the_file(tmp_path: Path) -> None:
    path = placed(tmp_path / "a.tif", np.ones((1, *SHAPE), np.float32), points(5)[:2])
    with pytest.raises(GridError, match="2 ground control points"):
        open_scene(spec(path, "reflectance", 1), {})
    with open_scene(spec(path, "reflectance", 1), {}, pixel_grid=True) as scene:
        assert scene.shape == SHAPE
