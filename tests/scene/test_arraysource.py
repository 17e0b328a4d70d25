"""Arrays of xarray as sources: what they say of place, bands and values, and what can't be read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.xr import wrap_xr

from gopt_geo.errors import BandError, GoptGeoError, GridError, SourceError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.scene import RasterSource, SourceSpec, open_scene
from gopt_geo.scene.arraysource import ArraySource
from scene.conftest import write_raster

pytestmark = pytest.mark.brief
GRID = GeoBox((40, 50), Affine(10, 0, 500_000, 0, -10, 4_600_000), "EPSG:32631")
WINDOW = Window(-3, 30, 20, 30)


def numbers(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(1).integers(1, 200, shape).astype(dtype)


def array(values: np.ndarray, **attributes: Any) -> xr.DataArray:
    dims = ["band", "y", "x"] if values.ndim == 3 else ["y", "x"]
    return wrap_xr(values, GRID, dims=dims, axis=values.ndim - 2).assign_attrs(attributes)


def same_as_file(found: ArraySource, path: Path, **options: Any) -> None:
    with RasterSource(path, **options) as file:
        assert (found.grid, found.count, found.dtype) == (file.grid, file.count, file.dtype)
        for one, other in zip(found.read(WINDOW), file.read(WINDOW), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("lazy", [False, True])
def test_it_reads_what_a_file_of_the_same_pixels_reads(tmp_path: Path, lazy: bool) -> None:
    values = numbers(3, 40, 50)
    values[1, 10, 40] = np.nan
    values[2, 12, 41] = 7
    path = write_raster(tmp_path / "a.tif", values, "EPSG:32631", GRID.affine, nodata=7)
    given = array(values, nodata=7)
    same_as_file(ArraySource(given.chunk({"y": 16, "x": 16}) if lazy else given), path)
    same_as_file(ArraySource(given, [3, 1]), path, bands=[3, 1])
    same_as_file(ArraySource(given, honour_nodata=False), path, honour_nodata=False)


def test_bands_by_name_and_in_any_order_of_dimensions() -> None:
    given = array(numbers(2, 40, 50)).assign_coords(band=["B04", "B03"])
    source = ArraySource(given.transpose("y", "x", "band"), ["b03"])
    assert (source.file_names, source.band_names) == ({1: "B04", 2: "B03"}, ("B03",))
    np.testing.assert_array_equal(source.read(Window(0, 0, 40, 50))[0], given.values[1:])
    with pytest.raises(BandError, match=r"there is no band 'B08'; choose from bands 1 \(B04\), 2 \(B03\)"):
        ArraySource(given, ["B08"])
    said = ArraySource(array(numbers(2, 40, 50), long_name=("VV", "VH")))
    assert said.band_names == ("VV", "VH")


def test_a_datasets_variables_are_bands() -> None:
    first, second = (array(numbers(40, 50, dtype="uint16") + i, units="dB") for i in (0, 1))
    source = ArraySource(xr.Dataset({"VV": first, "VH": second}), ["VH"])
    np.testing.assert_array_equal(source.read(Window(0, 0, 40, 50))[0][0], second.values)
    assert source.tags[0].unit == "dB"
    assert source.grid == GRID
    with pytest.raises(SourceError, match="its variables differ in units"):
        ArraySource(xr.Dataset({"VV": first, "VH": second.assign_attrs(units="power")}))


def test_scale_offset_and_unit_are_understood() -> None:
    source = ArraySource(array(numbers(40, 50), scale_factor=0.5, add_offset=-1.0, units=" power "))
    assert tuple(source.tags[0]) == (0.5, -1.0, "power")


def test_complex_values_and_processes() -> None:
    source = pickle.loads(pickle.dumps(ArraySource(array((numbers(40, 50) * (3 + 4j)).astype(np.complex64)))))
    assert source.dtype == np.complex64
    np.testing.assert_allclose(source.read(Window(0, 0, 40, 50))[0][0], 5 * numbers(40, 50))


def test_without_a_place_it_lies_on_pixels(tmp_path: Path) -> None:
    bare = xr.DataArray(numbers(40, 50), dims=("y", "x"), name="bare")
    assert ArraySource(bare).grid.crs is None
    spec = SourceSpec(bare, None, "reflectance", "reflectance", 1)
    with pytest.raises(GridError, match="array bare: it has no CRS"):
        open_scene(spec, {})
    with open_scene(spec, {}, pixel_grid=True) as scene:
        assert scene.shape == (40, 50)


def test_a_scene_of_an_array_and_a_file(tmp_path: Path) -> None:
    values = numbers(3, 40, 50)
    path = write_raster(tmp_path / "optical.tif", values, "EPSG:32631", GRID.affine)
    moved = GeoBox((30, 30), Affine(17, 0, 500_010, 0, -17, 4_599_990), "EPSG:32631")
    sar = wrap_xr(-numbers(30, 30), moved, units="dB")
    file = write_raster(tmp_path / "sar.tif", sar.values, "EPSG:32631", moved.affine, units=("dB",))
    scenes = [
        open_scene(
            SourceSpec(optical, None, "reflectance", "reflectance", 3), {"sar": SourceSpec(radar, None, None, "db", 1)}
        )
        for optical, radar in ((path, file), (array(values), sar), (array(values), file))
    ]
    blocks = [scene.read(Window(0, 0, 40, 50)) for scene in scenes]
    for block in blocks[1:]:
        for name in ("optical", "sar"):
            assert block.values[name].tobytes() == blocks[0].values[name].tobytes()
            assert block.valid[name].tobytes() == blocks[0].valid[name].tobytes()
    assert blocks[0].valid["sar"].any()


def uneven() -> xr.DataArray:
    return xr.DataArray(numbers(4, 3), dims=("y", "x"), coords={"y": [4, 3, 1, 0], "x": [0, 1, 2]})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (array(numbers(2, 40, 50)).rename(band="time"), "its dimensions are time, y, x; choose one of each but bands"),
        (xr.DataArray(numbers(3), dims="n"), "its dimensions are n"),
        (xr.DataArray(np.full((2, 2), "a"), dims=("y", "x")), "its values are <U1"),
        (uneven(), "its coordinates y aren't evenly spaced"),
        (array(numbers(2, 40, 50))[:0], "there are no bands"),
        (xr.Dataset({"n": ("n", numbers(3))}), "its variables aren't bands of one size"),
    ],
)
def test_what_cant_be_read_is_said_in_one_line(given: Any, found: str) -> None:
    with pytest.raises(GoptGeoError) as caught:
        ArraySource(given)
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_lazy_array_that_fails_is_an_error_of_the_source() -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise ValueError("no luck")

    lazy = da.map_blocks(fail, da.zeros((40, 50), chunks=20), dtype="float32", meta=np.zeros((0, 0), "float32"))
    source = ArraySource(array(numbers(40, 50)).copy(data=lazy))
    with pytest.raises(SourceError, match=r"it can't be computed \(ValueError: no luck\)"):
        source.read(Window(0, 0, 5, 5))
