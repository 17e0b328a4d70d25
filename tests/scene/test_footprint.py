"""Where a source tells that it has no data: never where a pixel is valid, and what it reads stays the same."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gopt_geo.grid import GeoBox, Window
from gopt_geo.inference import TileOptions, run_tiles
from gopt_geo.scene import AlignedSource, RasterSource
from gopt_geo.scene.bandset import JoinedSource, StackedSource
from gopt_geo.scene.scene import Scene

SHAPE = (1100, 1300)
UTM = Affine(10, 0, 500000, 0, -10, 4600000)
GRID = GeoBox(SHAPE, UTM, "EPSG:32631")
LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {"tiled": True, "blockxsize": 128, "blockysize": 128},
    "tiles by band": {"tiled": True, "blockxsize": 256, "blockysize": 128, "interleave": "band"},
    "strips": {"blockysize": 7},
}


def _pixels(dtype: str, nodata: float | None, count: int = 2) -> np.ndarray:
    """Valid along a diagonal in the upper part, and in one pixel of its own; some pixels lack only the second band."""
    rng = np.random.default_rng(4)
    pixels = rng.integers(1, 200, (count, *SHAPE)).astype(dtype)
    row, col = np.mgrid[: SHAPE[0], : SHAPE[1]]
    there = (np.abs(row - col) < 100) & (row < 850)
    there[1000, 40] = True
    pixels[:, ~there] = 0 if nodata is None else nodata
    if count > 1:
        pixels[1, 300:310] = 0 if nodata is None else nodata
    return pixels


def _write(path: Path, pixels: np.ndarray, nodata: float | None, *, sparse: bool, **layout: Any) -> Path:
    profile = {"driver": "GTiff", "crs": "EPSG:32631", "transform": UTM, "nodata": nodata, "dtype": pixels.dtype}
    profile |= {"height": SHAPE[0], "width": SHAPE[1], "count": len(pixels), "compress": "deflate", **layout}
    with rasterio.open(path, "w", sparse_ok=sparse, **profile) as file:
        height, width = file.block_shapes[0]
        for row in range(0, SHAPE[0], height):
            for col in range(0, SHAPE[1], width):
                part = pixels[:, row : row + height, col : col + width]
                if not sparse or (part != part.dtype.type(0 if nodata is None else nodata)).any():
                    file.write(part, window=((row, row + part.shape[1]), (col, col + part.shape[2])))
    return path


@pytest.fixture(scope="module", params=[(name, dtype) for name in LAYOUTS for dtype in ("uint16", "float32")], ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RasterSource, RasterSource]:
    """The same pixels in a sparse file, and in one where nodata is written out."""
    name, dtype = request.param
    folder, nodata = tmp_path_factory.mktemp("footprint"), 0 if dtype == "uint16" else -9999.0
    pixels = _pixels(dtype, nodata)
    sparse = _write(folder / "sparse.tif", pixels, nodata, sparse=True, **LAYOUTS[name])
    dense = _write(folder / "dense.tif", pixels, nodata, sparse=False, **LAYOUTS[name])
    assert sparse.stat().st_size < dense.stat().st_size
    return RasterSource(sparse), RasterSource(dense)


windows = st.builds(Window, st.integers(-60, 1150), st.integers(-60, 1350), st.integers(1, 700), st.integers(1, 700))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(window=windows)
def test_both_read_the_same_and_blank_is_never_wrong(pair: tuple[RasterSource, RasterSource], window: Window) -> None:
    sparse, dense = pair
    one, other = sparse.read(window), dense.read(window)
    assert one[0].tobytes() == other[0].tobytes()
    assert one[1].tobytes() == other[1].tobytes()
    for source in pair:
        assert not (source.blank(window) and other[1].any())


def test_unwritten_blocks_are_told_and_written_nodata_is_not(pair: tuple[RasterSource, RasterSource]) -> None:
    sparse, dense = pair
    far, lonely = Window(896, 128, 128, 1100), Window(896, 0, 128, 1100)
    assert sparse.blank(Window(900, 256, 90, 300))
    assert not sparse.blank(lonely)
    assert not dense.blank(far)
    assert all(source.blank(Window(2000, 0, 9, 9)) for source in pair)


def test_a_value_that_is_said_to_mean_no_data_counts(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tif", _pixels("uint16", None), None, sparse=True, **LAYOUTS["tiles"])
    empty = Window(900, 256, 90, 300)
    assert not RasterSource(path).blank(empty)  # zeros are values here
    assert RasterSource(path).read(empty)[1].all()
    assert RasterSource(path, nodata=0).blank(empty)
    assert not RasterSource(path, nodata=7).blank(empty)
    assert not RasterSource(path, nodata=0, honour_nodata=False).blank(empty)


class Counting(RasterSource):
    """Counts pixels that are read, of bands one by one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.seen = 0
        super().__init__(*args, **kwargs)

    def _handle(self) -> Any:
        handle, outer = super()._handle(), self

        class Spy:
            def __getattr__(self, name: str) -> Any:
                return getattr(handle, name)

            def read(self, indexes: Any, window: Any) -> Any:
                outer.seen += int(window.height * window.width) * (1 if isinstance(indexes, int) else len(indexes))
                return handle.read(indexes, window=window)

        return Spy()


@pytest.mark.parametrize("sparse", [True, False])
def test_ground_without_data_is_hardly_read(tmp_path: Path, sparse: bool) -> None:
    """Reads are cropped to what is written; of written nodata one band is read, and of data nothing twice."""
    path = _write(tmp_path / "a.tif", _pixels("uint16", 0, 4), 0, sparse=sparse, **LAYOUTS["tiles"])
    source = Counting(path)
    source.read(Window(256, 768, 256, 512))
    assert source.seen == 0 if sparse else source.seen == 256 * 512 + 1
    source.seen = 0
    source.read(Window(0, 0, 512, 512))
    assert source.seen == 4 * 512 * 512 + 1
    source.seen = 0
    source.read(Window(0, 0, 100, 1300))
    assert source.seen == 4 * 100 * 256 + 1 if sparse else source.seen >= 4 * 100 * 1300


CRSES = {"aligned": ("EPSG:32631", 0.0), "shifted": ("EPSG:32631", 3.3), "warped": ("EPSG:32632", 0.0)}


def _scene_grid(kind: str) -> GeoBox:
    crs, shift = CRSES[kind]
    if crs == "EPSG:32631":
        return GeoBox((1300, 1500), UTM @ Affine.translation(-150 + shift, -130 + shift), crs)
    box = GRID.to_crs(crs)
    return GeoBox((1500, 1700), Affine(10, 0, box.boundingbox.left - 1500, 0, -10, box.boundingbox.top + 1200), crs)


@pytest.mark.parametrize("kind", CRSES)
@pytest.mark.parametrize("resampling", ["bilinear", "nearest"])
def test_no_valid_pixel_of_the_scene_grid_is_ever_called_blank(tmp_path: Path, kind: str, resampling: Any) -> None:
    pixels, grid = _pixels("uint16", 0), _scene_grid(kind)
    sparse = RasterSource(_write(tmp_path / "a.tif", pixels, 0, sparse=True, **LAYOUTS["tiles"]))
    dense = RasterSource(_write(tmp_path / "b.tif", pixels, 0, sparse=False, **LAYOUTS["tiles"]))
    whole = AlignedSource(dense, grid, resampling)
    values, valid = whole.read(Window(0, 0, *grid.shape))
    told = AlignedSource(sparse, grid, resampling)
    blanks = 0
    for row in range(0, grid.shape[0], 100):
        for col in range(0, grid.shape[1], 100):
            window = Window(row, col, 130, 130).clip(grid.shape)
            assert window is not None
            cut = window.slices_in(Window(0, 0, *grid.shape))
            if told.blank(window):
                blanks += 1
                assert not valid[cut].any()
            one = told.read(window)
            assert one[0].tobytes() == values[:, cut[0], cut[1]].tobytes()
            assert one[1].tobytes() == valid[cut].tobytes()
    assert blanks > 20


def test_blocks_that_turned_out_empty_are_made_once_and_kept_in_no_memory(tmp_path: Path) -> None:
    source = RasterSource(_write(tmp_path / "b.tif", np.zeros((2, *SHAPE), np.uint16), 0, sparse=False))
    aligned = AlignedSource(source, GRID)
    made: list[Window] = []
    produce = aligned._produce
    aligned._produce = lambda block: made.append(block) or produce(block)  # type: ignore[method-assign, func-returns-value]
    assert not aligned.blank(Window(0, 0, 512, 512))  # it isn't known as yet
    for _ in range(3):
        values, valid = aligned.read(Window(100, 100, 900, 900))
        assert not values.any()
        assert not valid.any()
    assert len(made) == len(set(made)) == 4
    assert aligned.blank(Window(100, 100, 800, 800))
    assert aligned.cache.bytes == 0


def test_modalities_are_blank_together_and_bands_each_for_all(tmp_path: Path) -> None:
    left, right = np.zeros((2, 1, *SHAPE), np.uint16)
    left[:, :, :512], right[:, :, 1024:] = 5, 5
    sources = [
        RasterSource(_write(tmp_path / f"{i}.tif", pixels, 0, sparse=True, **LAYOUTS["tiles"]))
        for i, pixels in enumerate((left, right))
    ]
    one, other = (AlignedSource(source, GRID) for source in sources)
    scene = Scene(GRID, {"optical": one, "sar": other}, {}, [], 1.0)
    at_left, between = Window(0, 0, 512, 512), Window(0, 512, 512, 512)
    assert scene.blank(between, ("optical", "sar"))
    assert not scene.blank(at_left, ("optical", "sar"))
    assert scene.blank(at_left, ("sar",))
    assert not scene.blank(at_left, ("thermal",))  # unknown here: the reader says so
    assert not scene.blank(at_left, ())
    assert JoinedSource([one, other], [0, 1]).blank(at_left)
    assert StackedSource(sources, "both").blank(at_left)


def test_tiles_without_data_are_never_read(tmp_path: Path) -> None:
    """The tiler asks first; what it maps is what it maps of a scene that can't tell."""
    pixels = _pixels("uint16", 0)
    source = RasterSource(_write(tmp_path / "a.tif", pixels, 0, sparse=True, **LAYOUTS["tiles"]))
    scene = Scene(GRID, {"optical": AlignedSource(source, GRID)}, {}, [], 1.0)
    lock, reads = threading.Lock(), []

    class Model:
        num_classes, modalities = 2, ("optical",)

        def __call__(self, values: Any, valid: Any, /) -> Any:
            return values["optical"]

    class Mute:
        shape = scene.shape

        def read(self, window: Window, /) -> Any:
            with lock:
                reads.append(window)
            return scene.read(window)

    class Telling(Mute):
        def blank(self, window: Window, modalities: tuple[str, ...], /) -> bool:
            return scene.blank(window, modalities)

    def mapped(source: Any) -> tuple[bytes, Any]:
        canvas = np.full((2, *SHAPE), np.nan, np.float32)

        def sink(rows: Any) -> None:
            place = rows.window.slices_in(Window(0, 0, *SHAPE))
            canvas[:, place[0], place[1]] = rows.probabilities

        options = TileOptions(tile_size=128, overlap=32, batch_size=2)
        report = run_tiles(source, Model(), options, sink=sink)
        return canvas.tobytes(), report

    telling, report = mapped(Telling())
    read = len(reads)
    assert report.skipped > report.tiles / 3
    assert read < report.tiles * 0.8
    reads.clear()
    mute, other = mapped(Mute())
    assert len(reads) == report.tiles
    assert telling == mute
    assert (report.forwarded, report.skipped) == (other.forwarded, other.skipped)
