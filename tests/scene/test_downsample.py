"""The case in which GDAL's own defaults fail worst: a 10 m source in another zone, on a scene grid of 37 m."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine

from gopt_geo.grid import GeoBox, Window
from gopt_geo.scene import AlignedSource, RasterSource

SCENE = GeoBox((530, 640), Affine(37, 0, 690000, 0, -37, 6610000), "EPSG:32631")


@pytest.fixture(scope="module")
def source(module_raster) -> RasterSource:
    cover = SCENE.to_crs("EPSG:32632", resolution=10)
    rng = np.random.default_rng(0)
    array = rng.uniform(0, 1, (1, *cover.shape)).astype(np.float32)
    array[0, 200:260, 300:900] = np.nan
    return RasterSource(module_raster("ten.tif", array, cover.crs.to_wkt(), cover.affine, nodata=np.nan, tiled=True))


@pytest.mark.brief
def test_every_window_is_the_cut_of_the_whole(source: RasterSource) -> None:
    whole_values, whole_valid = AlignedSource(source, SCENE).read(Window(0, 0, *SCENE.shape))
    assert 0.9 < whole_valid.mean() < 1
    # The kernel takes in 3.7 source pixels a side: plain noise of standard deviation 0.29 must come out averaged.
    assert whole_values[:, whole_valid].std() < 0.29 / 2
    rng = np.random.default_rng(1)
    for _ in range(25):
        row, col = int(rng.integers(-40, 500)), int(rng.integers(-40, 630))
        window = Window(row, col, int(rng.integers(45, 200)), int(rng.integers(45, 200)))
        values, valid = AlignedSource(source, SCENE).read(window)  # a new one: nothing cached helps
        inside = window.clip(SCENE.shape)
        assert inside is not None
        rows, cols = inside.slices_in(window)
        cut = np.s_[inside.row : inside.row_stop, inside.col : inside.col_stop]
        np.testing.assert_array_equal(valid[rows, cols], whole_valid[cut])
        np.testing.assert_array_equal(values[:, rows, cols], whole_values[(slice(None), *cut)])
        outside = np.ones(window.shape, dtype=bool)
        outside[rows, cols] = False
        assert not valid[outside].any()
        assert not values[:, outside].any()
