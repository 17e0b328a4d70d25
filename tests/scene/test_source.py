from __future__ import annotations

import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from gopt_geo.errors import BandError, GridError, SourceError
from gopt_geo.grid import Window
from gopt_geo.scene import RasterSource

WHOLE = Window(0, 0, 4, 5)


def numbers(count: int = 1, dtype: str = "float32") -> np.ndarray:
    return (np.arange(count * 20).reshape(count, 4, 5) + 1).astype(dtype)


def error_of(call, kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert text.count("; ") >= 1
    return text


@pytest.mark.brief
def test_reads_values_and_places_a_hanging_window(raster) -> None:
    path = raster("a.tif", numbers(2))
    with RasterSource(path) as source:
        values, valid = source.read(Window(-1, 3, 3, 4))
    assert values.dtype == np.float32
    expected = np.zeros((2, 3, 4), np.float32)
    expected[:, 1:, :2] = numbers(2)[:, :2, 3:]
    np.testing.assert_array_equal(values, expected)
    assert valid.sum() == 4
    assert valid[1:, :2].all()


def test_a_window_off_the_file_is_empty(raster) -> None:
    with RasterSource(raster("a.tif", numbers())) as source:
        values, valid = source.read(Window(10, 10, 2, 3))
    assert not values.any()
    assert not valid.any()


def test_bands_by_index_and_name(raster) -> None:
    path = raster("a.tif", numbers(3), descriptions=("B02", "B03", "vv"))
    with RasterSource(path, ["VV", 1, "b03"]) as source:
        assert source.indexes == (3, 1, 2)
        assert source.band_names == ("vv", "B02", "B03")
        np.testing.assert_array_equal(source.read(WHOLE)[0], numbers(3)[[2, 0, 1]])
    with RasterSource(path, ["2"]) as source:
        assert source.indexes == (2,)


@pytest.mark.parametrize("band", [0, 4, -1, "B99", "", "1.5"])
def test_an_unknown_band_is_refused(raster, band) -> None:
    path = raster("a.tif", numbers(3), descriptions=("B02", "B03", "B04"))
    text = error_of(lambda: RasterSource(path, [band]), BandError)
    assert "a.tif" in text
    assert "2 (B03)" in text


def test_an_ambiguous_name_is_refused(raster) -> None:
    path = raster("a.tif", numbers(2), descriptions=("VV", "vv"))
    assert "several bands" in error_of(lambda: RasterSource(path, ["VV"]), BandError)


@pytest.mark.parametrize("nodata", [-32768, 0])
def test_nodata_is_joined_over_the_chosen_bands(raster, nodata) -> None:
    array = numbers(3, "int16")
    array[0, 0, 0] = array[1, 1, 1] = array[2, 2, 2] = nodata
    path = raster("a.tif", array, nodata=nodata)
    with RasterSource(path, [1, 2]) as source:
        values, valid = source.read(WHOLE)
    expected = np.ones((4, 5), bool)
    expected[0, 0] = expected[1, 1] = False
    np.testing.assert_array_equal(valid, expected)
    assert not values[:, ~valid].any()


@pytest.mark.parametrize("nodata", [None, np.nan, -9999.0, -3.4028234663852886e38])
def test_undeclared_nan_and_infinities_are_invalid(raster, nodata) -> None:
    array = numbers()
    array[0, 0, :3] = np.nan, np.inf, -np.inf
    if nodata is not None:
        array[0, 1, 0] = nodata
    path = raster("a.tif", array, nodata=nodata)
    with RasterSource(path) as source:
        values, valid = source.read(WHOLE)
    assert (~valid).sum() == 3 + (nodata is not None)
    assert not valid[0, :3].any()
    assert np.isfinite(values).all()


def test_values_beyond_float32_are_invalid(raster) -> None:
    array = numbers(1, "float64")
    array[0, 3, 3] = 1e300
    with RasterSource(raster("a.tif", array)) as source:
        _, valid = source.read(WHOLE)
    assert (~valid).sum() == 1


def test_alpha_masks_and_is_no_data_band(raster) -> None:
    array = numbers(4, "uint8")
    array[3] = 255
    array[3, 2, 2] = 0
    path = raster("a.tif", array, photometric="rgb", alpha="yes")
    with RasterSource(path) as source:
        assert source.count == 3
        assert (~source.read(WHOLE)[1]).sum() == 1
    assert "no band 4" in error_of(lambda: RasterSource(path, [4]), BandError)
    with rasterio.open(path) as file:
        assert file.colorinterp[3] == ColorInterp.alpha


@pytest.mark.parametrize("internal", [True, False])
def test_mask_files_count_together_with_nodata(raster, internal) -> None:
    array = numbers(1, "uint8")
    path = raster("a.tif", array, nodata=7)
    mask = np.full((4, 5), 255, np.uint8)
    mask[3, 4] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    assert path.with_name("a.tif.msk").exists() is not internal
    with RasterSource(path) as source:
        _, valid = source.read(WHOLE)
    assert not valid[3, 4]
    assert not valid[array[0] == 7].any()
    assert (~valid).sum() == 2


def test_missing_and_foreign_files(tmp_path) -> None:
    text = error_of(lambda: RasterSource(tmp_path / "none.tif"), SourceError)
    assert "none.tif: there is no such file" in text
    (tmp_path / "a.tif").write_bytes(b"not a raster")
    assert "can't be opened" in error_of(lambda: RasterSource(tmp_path / "a.tif"), SourceError)


def test_vrt_with_code_in_it_is_not_run(raster, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    raster("a.tif", numbers())
    marker = tmp_path / "ran"
    (tmp_path / "a.vrt").write_text(
        f"""<VRTDataset rasterXSize="5" rasterYSize="4"><SRS>EPSG:32631</SRS>
        <GeoTransform>0,1,0,0,0,-1</GeoTransform>
        <VRTRasterBand dataType="Float32" band="1" subClass="VRTDerivedRasterBand">
        <PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>
        <PixelFunctionCode><![CDATA[
def f(in_ar, out_ar, *args):
    open({str(marker)!r}, "w").close()
    out_ar[:] = 1
]]></PixelFunctionCode>
        <SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename></SimpleSource>
        </VRTRasterBand></VRTDataset>"""
    )

    def read() -> None:
        with RasterSource(tmp_path / "a.vrt") as source:
            source.read(WHOLE)

    error_of(read, SourceError)
    assert not marker.exists()


def large(raster, **profile) -> Path:
    array = np.random.default_rng(0).integers(0, 255, (1, 600, 600), np.uint8)
    return raster("large.tif", array, tiled=True, blockxsize=128, blockysize=128, **profile)


@pytest.mark.brief
def test_a_truncated_file_names_itself(raster, tmp_path) -> None:
    whole = large(raster)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])

    def read() -> None:
        with RasterSource(cut) as source:
            source.read(Window(0, 0, 600, 600))

    assert "cut.tif" in error_of(read, SourceError)
    cut.write_bytes(whole.read_bytes()[:100])
    assert "cut.tif" in error_of(lambda: RasterSource(cut), SourceError)


@pytest.mark.parametrize("compress", ["deflate", "lzw", "zstd"])
def test_damaged_bytes_in_the_middle(raster, compress) -> None:
    path = large(raster, compress=compress)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40000] = b"\x5a" * 40000
    path.write_bytes(bytes(data))
    with RasterSource(path) as source:
        text = error_of(lambda: source.read(Window(0, 0, 600, 600)), SourceError)
    assert "large.tif" in text
    assert "can't be read" in text


def test_of_complex_values_the_amplitude_is_read(raster) -> None:
    stored = np.array([[[3 + 4j, 0], [np.nan, -9]]], np.complex64)
    with RasterSource(raster("c.tif", stored, nodata=-9)) as source:
        assert source.dtype == np.complex64
        values, valid = source.read(Window(0, 0, 2, 2))
    assert values.tolist() == [[[5, 0], [0, 0]]]
    assert valid.tolist() == [[True, True], [False, False]]


def test_a_crs_without_a_geotransform_is_refused(raster) -> None:
    path = raster("a.tif", numbers(), "EPSG:32631", None)
    assert "no geotransform" in error_of(lambda: RasterSource(path), GridError)


def test_no_crs_is_left_to_the_scene(raster, recwarn) -> None:
    path = raster("a.png", numbers(1, "uint8"), None, None, driver="PNG")
    recwarn.clear()  # writing warns too
    with RasterSource(path) as source:
        assert source.grid.crs is None
        assert source.grid.affine == Affine.identity()
        assert source.control is None
    assert not [w for w in recwarn if w.category is rasterio.errors.NotGeoreferencedWarning]


def test_tags_are_read(raster) -> None:
    path = raster("a.tif", numbers(2, "int16"), scales=(0.5, 2.0), offsets=(1.0, 0.0), units=("dB", ""))
    with RasterSource(path, [2, 1]) as source:
        assert [tuple(tag) for tag in source.tags] == [(2.0, 0.0, ""), (0.5, 1.0, "dB")]


def test_threads_have_handles_of_their_own_and_closing_closes_all(raster) -> None:
    source = RasterSource(large(raster))
    whole = source.read(Window(0, 0, 600, 600))[0]
    wrong: list[int] = []
    together = threading.Barrier(4)

    def work(seed: int) -> None:
        together.wait()
        rng = np.random.default_rng(seed)
        for row, col in rng.integers(0, 500, (20, 2)):
            part, _ = source.read(Window(int(row), int(col), 100, 100))
            if not np.array_equal(part, whole[:, row : row + 100, col : col + 100]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    handles = list(source._handles.values())
    assert len(handles) == 5
    source.close()
    assert all(handle.closed for handle in handles)


def test_a_source_crosses_process_borders(raster) -> None:
    source = RasterSource(raster("a.tif", numbers(3), descriptions=("a", "b", "c")), ["c"])
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(WHOLE)[0], source.read(WHOLE)[0])


def test_a_file_that_vanishes_between_threads(raster, tmp_path) -> None:
    path = raster("a.tif", numbers())
    source = RasterSource(path)
    shutil.move(path, tmp_path / "b.tif")
    caught: list[BaseException] = []

    def work() -> None:
        try:
            source.read(WHOLE)
        except SourceError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(caught) == 1
