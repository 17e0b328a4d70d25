from __future__ import annotations

import math

import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.crs import CRS

from gopt_geo.errors import GridError
from gopt_geo.grid import (
    GeoBox,
    Window,
    corner_distance,
    crop,
    grid_of,
    lattice,
    pixel_size_m,
    same_crs,
    whole_pixel_offset,
)

windows = st.builds(Window, st.integers(-40, 40), st.integers(-40, 40), st.integers(0, 50), st.integers(0, 50))


def pixels(window: Window) -> set[tuple[int, int]]:
    return {(row, col) for row in range(window.row, window.row_stop) for col in range(window.col, window.col_stop)}


def utm(shape: tuple[int, int] = (100, 80), x: float = 500000.0, y: float = 4.6e6, size: float = 10.0) -> GeoBox:
    return GeoBox(shape, Affine(size, 0, x, 0, -size, y), "EPSG:32631")


@pytest.mark.brief
@given(windows, windows)
def test_intersection_is_the_set_of_shared_pixels(a: Window, b: Window) -> None:
    shared = a.intersect(b)
    assert (set() if shared is None else pixels(shared)) == pixels(a) & pixels(b)
    if shared is not None:
        rows, cols = shared.slices_in(a)
        assert (rows.start + a.row, cols.start + a.col) == (shared.row, shared.col)
        assert (rows.stop - rows.start, cols.stop - cols.start) == shared.shape


@given(windows, st.integers(1, 30), st.integers(1, 30))
def test_clip_keeps_what_is_inside(window: Window, height: int, width: int) -> None:
    inside = window.clip((height, width))
    expected = {(r, c) for r, c in pixels(window) if 0 <= r < height and 0 <= c < width}
    assert (set() if inside is None else pixels(inside)) == expected


def test_slices_in_refuses_a_window_that_hangs_over() -> None:
    with pytest.raises(ValueError, match="isn't inside"):
        Window(-1, 0, 4, 4).slices_in(Window(0, 0, 8, 8))


def test_negative_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Window(0, 0, -1, 2)


@given(windows, st.integers(1, 17))
def test_lattice_covers_the_window_with_anchored_blocks(window: Window, size: int) -> None:
    blocks = list(lattice(window, size))
    assert len(set(blocks)) == len(blocks)
    for block in blocks:
        assert block.row % size == 0
        assert block.col % size == 0
        assert block.shape == (size, size)
        assert block.intersect(window) is not None
    covered = set().union(*(pixels(block) for block in blocks)) if blocks else set()
    assert pixels(window) <= covered


def test_crop_places_a_hanging_window() -> None:
    part = crop(utm(), Window(-2, 3, 5, 7))
    assert part.shape == (5, 7)
    assert (part.affine.c, part.affine.f) == (500030.0, 4600020.0)
    assert part.crs == CRS("EPSG:32631")


@pytest.mark.brief
def test_whole_pixel_offset() -> None:
    source = utm()
    assert whole_pixel_offset(source, source) == (0, 0)
    assert whole_pixel_offset(crop(source, Window(-3, 7, 10, 10)), source) == (-3, 7)
    assert whole_pixel_offset(utm(x=500000.009), source) == (0, 0)  # 9e-4 pixel
    assert whole_pixel_offset(utm(x=500000.02), source) is None  # 2e-3 pixel
    assert whole_pixel_offset(utm(size=10.0002), source) is None  # 2e-5 pixel a pixel: 2e-3 at the far corner
    assert whole_pixel_offset(utm(size=20.0), source) is None
    other = GeoBox(source.shape, source.affine, "EPSG:32632")
    assert whole_pixel_offset(other, source) is None
    bare = GeoBox(source.shape, source.affine, None)
    assert whole_pixel_offset(bare, source) is None
    assert whole_pixel_offset(bare, bare) == (0, 0)


def test_whole_pixel_offset_of_south_up_and_rotated_grids() -> None:
    north = utm()
    south = GeoBox(north.shape, Affine(10, 0, 500000, 0, 10, 4.6e6 - 1000), "EPSG:32631")
    assert whole_pixel_offset(north, south) is None
    turned = GeoBox((50, 60), Affine(8, 5, 5e5, 5, -8, 4.6e6), "EPSG:32631")
    assert whole_pixel_offset(turned, north) is None
    assert whole_pixel_offset(crop(turned, Window(5, -2, 4, 4)), turned) == (5, -2)


def test_corner_distance() -> None:
    grid = utm()
    assert corner_distance(grid, grid) == 0
    assert corner_distance(grid, utm(x=500005.0)) == pytest.approx(0.5)
    assert corner_distance(grid, utm(shape=(101, 80))) == pytest.approx(1.0)
    assert corner_distance(utm(x=500005.0, size=20.0), utm(size=20.0)) == pytest.approx(0.25)
    assert corner_distance(grid, GeoBox(grid.shape, grid.affine, None)) == math.inf
    # the same ground in the neighbouring zone is turned by some degrees
    neighbour = grid.to_crs("EPSG:32632")
    assert 0 < corner_distance(grid, neighbour) < 200


def test_same_crs_forgives_the_spelling() -> None:
    wkt1 = CRS(rasterio.crs.CRS.from_epsg(32631).to_wkt(version="WKT1_GDAL"))
    assert same_crs(CRS("EPSG:32631"), wkt1)
    assert not same_crs(CRS("EPSG:32631"), CRS("EPSG:32632"))
    assert not same_crs(None, wkt1)
    assert same_crs(None, None)


@pytest.mark.brief
def test_pixel_size_is_measured_on_the_ground() -> None:
    assert pixel_size_m(utm()) == pytest.approx(10.0, rel=1e-3)  # UTM's scale on the central meridian: 0.9996
    degrees = GeoBox((100, 100), Affine(1e-4, 0, 10, 0, -1e-4, 60.005), "EPSG:4326")
    # one degree at latitude 60: 55.80 km by 111.41 km
    assert pixel_size_m(degrees) == pytest.approx(math.sqrt(5.580 * 11.141), rel=1e-3)
    mercator = degrees.to_crs("EPSG:3857", resolution=10)
    assert pixel_size_m(mercator) == pytest.approx(5.0, rel=0.01)
    feet = GeoBox((10, 10), Affine(10, 0, 984250, 0, -10, 200000), "EPSG:2263")
    assert pixel_size_m(feet) == pytest.approx(3.048, rel=1e-3)
    assert math.isnan(pixel_size_m(GeoBox((2, 2), Affine.identity(), None)))


def test_grid_of_reads_what_the_file_states(tmp_path) -> None:
    path = tmp_path / "a.tif"
    turned = Affine(10, 2, 5e5, 2, -10, 4.6e6)
    profile = {"driver": "GTiff", "width": 4, "height": 3, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", crs="EPSG:32631", transform=turned, **profile):
        pass
    with rasterio.open(path) as dataset:
        grid = grid_of(dataset)
    assert grid.shape == (3, 4)
    assert grid.affine == turned
    assert grid.crs == CRS("EPSG:32631")


def test_grid_of_refuses_pixels_without_area(tmp_path) -> None:
    path = tmp_path / "flat.tif"
    profile = {"driver": "GTiff", "width": 4, "height": 3, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", crs="EPSG:32631", transform=Affine(10, 10, 0, 10, 10, 0), **profile):
        pass
    with rasterio.open(path) as dataset, pytest.raises(GridError, match="without area"):
        grid_of(dataset)
