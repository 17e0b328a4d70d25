"""The warp against an independent reference in double precision, and its invariance to windows and threads."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from gopt_geo.errors import GridError, SourceError
from gopt_geo.grid import GeoBox, Window, crop
from gopt_geo.scene import AlignedSource, RasterSource, plan_radiometry
from gopt_geo.scene.geometry import PixelMap

# Far from the central meridian and far north, where the zones differ most. Four blocks, three of them cut off.
SCENE = GeoBox((560, 600), Affine(10, 0, 700000, 0, -10, 6600000), "EPSG:32631")
WHOLE = Window(0, 0, *SCENE.shape)


def scene_points(cols: np.ndarray, rows: np.ndarray, crs: str) -> tuple[np.ndarray, np.ndarray]:
    """Transform scene pixel coordinates to coordinates of a CRS, by pyproj alone."""
    a, b, c, d, e, f = SCENE.affine[:6]
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    return Transformer.from_crs("EPSG:32631", crs, always_xy=True).transform(x, y)


def around(crs: str, size: tuple[float, float], margin: int = 8, south_up: bool = False) -> GeoBox:
    """Return an axis-parallel grid that covers the scene."""
    cols, rows = np.meshgrid(np.linspace(0, 600, 50), np.linspace(0, 560, 50))
    x, y = scene_points(cols, rows, crs)
    left, top = x.min() - margin * size[0] + 0.3 * size[0], y.max() + margin * size[1]
    width = int((x.max() - left) / size[0]) + margin
    height = int((top - y.min()) / size[1]) + margin
    if south_up:
        return GeoBox((height, width), Affine(size[0], 0, left, 0, size[1], top - height * size[1]), crs)
    return GeoBox((height, width), Affine(size[0], 0, left, 0, -size[1], top), crs)


def rotated(angle: float, size: float, shape: tuple[int, int]) -> GeoBox:
    """Return a grid turned around the scene's centre."""
    x, y = 700000 + 3000, 6600000 - 2800
    cos, sin = size * np.cos(np.radians(angle)), size * np.sin(np.radians(angle))
    height, width = shape
    c = x - cos * width / 2 - sin * height / 2
    f = y - sin * width / 2 + cos * height / 2
    return GeoBox(shape, Affine(cos, sin, c, sin, -cos, f), "EPSG:32631")


SOURCES = {
    "neighbour zone": around("EPSG:32632", (10, 10)),
    "degrees": around("EPSG:4326", (0.0002, 0.0001)),
    "fine": around("EPSG:32631", (2.7, 2.7)),
    "fine degrees": around("EPSG:4326", (0.00012, 0.00006)),
    "coarse": around("EPSG:32632", (60, 60)),
    "rotated": rotated(33, 10, (850, 850)),
    "rotated, oblong scale": GeoBox((420, 1500), Affine(0, 20, 698000, 4.1, 0, 6594300), "EPSG:32631"),
    "south-up": around("EPSG:32632", (10, 10), south_up=True),
    "partial": GeoBox((300, 300), Affine(10, 0, 702003, 0, -10, 6600700), "EPSG:32631"),
}


@pytest.fixture(scope="module")
def paths(module_raster):
    """One raster of noise with holes for each source grid; the nodata value is as bad as can be."""
    files = {}
    for number, (name, grid) in enumerate(SOURCES.items()):
        rng = np.random.default_rng(number)
        array = rng.uniform(0, 1, (2, *grid.shape)).astype(np.float32)
        height, width = grid.shape
        array[:, height // 3 : height // 3 + 9, width // 4 : width // 2] = -1e38
        array[0][rng.uniform(size=grid.shape) < 0.02] = -1e38
        files[name] = module_raster(f"{number}.tif", array, grid.crs.to_wkt(), grid.affine, nodata=-1e38, tiled=True)
    return files


def kernel(position: np.ndarray, scale: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return triangular weights [n, size] on pixel centres, and their sum had the raster no end."""
    centres = np.arange(-60, size + 60) + 0.5
    weights = np.clip(1 - np.abs(centres - position[:, None]) * scale, 0, None)
    return weights[:, 60:-60], weights.sum(axis=1)


def reference(path, grid: GeoBox, scale, rows: np.ndarray, cols: np.ndarray):
    """Value and valid share of the kernel for pixels of the scene, in double precision."""
    with RasterSource(path) as source:
        values, valid = source.read(Window(0, 0, *grid.shape))
    x, y = scene_points(cols + 0.5, rows + 0.5, grid.crs.to_wkt())
    inverse = ~grid.affine
    px = inverse.a * x + inverse.b * y + inverse.c
    py = inverse.d * x + inverse.e * y + inverse.f
    wx, total_x = kernel(px, scale[0], grid.shape[1])
    wy, total_y = kernel(py, scale[1], grid.shape[0])
    weight = ((wy @ valid.astype(float)) * wx).sum(axis=1)
    summed = np.stack([((wy @ band.astype(float)) * wx).sum(axis=1) for band in values])
    with np.errstate(invalid="ignore", divide="ignore"):
        return summed / weight, weight / (total_x * total_y)


@pytest.mark.parametrize("name", SOURCES)
def test_values_and_validity_against_the_reference(paths, name) -> None:
    grid = SOURCES[name]
    rng = np.random.default_rng(9)
    rows, cols = rng.integers(0, 560, 600), rng.integers(0, 600, 600)
    rows[:60], cols[:60] = rng.integers(508, 516, 60), rng.integers(508, 516, 60)  # where four blocks meet
    aligned = AlignedSource(RasterSource(paths[name]), SCENE)
    values, valid = aligned.read(WHOLE)
    expected, share = reference(paths[name], grid, aligned.scale, rows, cols)
    clear = np.abs(share - 0.5) > 0.02  # a position error of 0.01 pixel moves the share by up to 0.02
    np.testing.assert_array_equal(valid[rows, cols][clear], (share >= 0.5)[clear])
    both = valid[rows, cols] & (share > 0.45)
    assert both.sum() > (400 if name != "partial" else 80)
    error = np.abs(values[:, rows, cols] - expected)[:, both]
    # Noise in 0..1: two slopes of at most 1 a pixel, times 0.01 pixel, over a kernel of which half is valid.
    # Where no projection is between the grids the pieces are exact and only float32 is left.
    same_crs = grid.crs == SCENE.crs
    assert error.max() < (2e-5 if same_crs else 0.04)
    assert np.median(error) < (1e-6 if same_crs else 0.004)
    assert not values[:, ~valid].any()
    aligned.close()


@pytest.mark.parametrize("name", SOURCES)
def test_the_kernel_scale_is_the_ratio_of_pixel_sizes(paths, name) -> None:
    grid = SOURCES[name]
    aligned = AlignedSource(RasterSource(paths[name]), SCENE)
    inverse = ~grid.affine
    x, y = scene_points(np.array([300.0, 301.0, 300.0]), np.array([280.0, 280.0, 281.0]), grid.crs.to_wkt())
    px, py = inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f
    ratio = np.hypot(px[1] - px[0], px[2] - px[0]), np.hypot(py[1] - py[0], py[2] - py[0])
    for scale, wanted in zip(aligned.scale, ratio, strict=True):
        assert scale == pytest.approx(1 / wanted if 1 / wanted < 0.95 else 1.0, rel=0.02)
    aligned.close()


@pytest.mark.parametrize("name", ["neighbour zone", "degrees", "coarse", "fine degrees"])
@pytest.mark.brief
def test_the_transformer_stays_within_a_hundredth_of_a_pixel(name) -> None:
    mapping = PixelMap(SCENE, SOURCES[name], name)
    worst = 0.0

    def visit(window: Window) -> None:
        nonlocal worst
        matrix, error = mapping.fit(window)
        if error > 0.005:  # as the warp splits
            half = (window.height + 1) // 2, (window.width + 1) // 2
            for row in (window.row, window.row + half[0]):
                for col in (window.col, window.col + half[1]):
                    visit(Window(row, col, *half))
            return
        rng = np.random.default_rng(0)
        points = rng.uniform(0, (window.width, window.height), (200, 2))
        x, y = scene_points(points[:, 0] + window.col, points[:, 1] + window.row, SOURCES[name].crs.to_wkt())
        inverse = ~SOURCES[name].affine
        px = inverse.a * x + inverse.b * y + inverse.c
        py = inverse.d * x + inverse.e * y + inverse.f
        fitted = points @ matrix[:, :2].T + matrix[:, 2]
        worst = max(worst, float(np.hypot(fitted[:, 0] - px, fitted[:, 1] - py).max()))

    visit(Window(0, 0, 512, 512))
    assert 0 < worst <= 0.01


@pytest.mark.parametrize("name", SOURCES)
def test_any_window_is_the_cut_of_the_whole(paths, name) -> None:
    whole = AlignedSource(RasterSource(paths[name]), SCENE)
    values, valid = whole.read(WHOLE)
    pieces = AlignedSource(RasterSource(paths[name]), SCENE, cache_bytes=0)  # each read produces its blocks anew

    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(-90, 580), st.integers(-90, 620), st.integers(1, 120), st.integers(1, 120))
    def check(row: int, col: int, height: int, width: int) -> None:
        window = Window(row, col, height, width)
        got_values, got_valid = pieces.read(window)
        wanted_values, wanted_valid = np.zeros_like(got_values), np.zeros_like(got_valid)
        inside = window.clip(SCENE.shape)
        if inside is not None:
            to, where = inside.slices_in(window), inside.slices_in(WHOLE)
            wanted_values[:, to[0], to[1]] = values[:, where[0], where[1]]
            wanted_valid[to] = valid[where]
        assert got_values.tobytes() == wanted_values.tobytes()
        assert got_valid.tobytes() == wanted_valid.tobytes()

    check()
    pieces.close()
    whole.close()


@pytest.mark.parametrize("name", SOURCES)
def test_a_window_by_itself_is_about_the_same(paths, name) -> None:
    """Where nothing is warped the very same; else within the tolerance of the warp, which noise shows at its worst."""
    whole, alone = (AlignedSource(RasterSource(paths[name]), SCENE, by_window=by_window) for by_window in (False, True))
    for row, col, height, width in [(470, 480, 90, 70), (-40, 530, 168, 168), (100, 100, 128, 200), (900, 0, 9, 9)]:
        window = Window(row, col, height, width)
        (values, valid), (wanted, wanted_valid) = alone.read(window), whole.read(window)
        assert values.shape == wanted.shape
        assert not values[:, ~valid].any()
        if whole.offset is not None:
            assert values.tobytes() == wanted.tobytes()
            assert valid.tobytes() == wanted_valid.tobytes()
        assert (valid != wanted_valid).mean() < 0.01
        both = valid & wanted_valid
        assert np.abs(values - wanted)[:, both].max(initial=0) < 0.04
    assert alone.cache.bytes == 0
    alone.close()
    whole.close()


@pytest.mark.parametrize("name", ["degrees", "fine"])
@pytest.mark.brief
def test_four_threads_in_any_order_read_the_same(paths, name) -> None:
    whole = AlignedSource(RasterSource(paths[name]), SCENE)
    values, valid = whole.read(WHOLE)
    shared = AlignedSource(RasterSource(paths[name]), SCENE, cache_bytes=3 << 20)  # one block and a bit: it churns
    wrong: list[Window] = []
    together = threading.Barrier(4)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        together.wait()
        for row, col in rng.integers(0, 520, (6, 2)).tolist():
            window = Window(row, col, 40, 80)
            rows, cols = window.slices_in(WHOLE)
            got_values, got_valid = shared.read(window)
            if not (np.array_equal(got_values, values[:, rows, cols]) and np.array_equal(got_valid, valid[rows, cols])):
                wrong.append(window)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert shared.cache.bytes <= 3 << 20
    shared.close()
    whole.close()


def test_gdal_honours_the_pinned_scale_as_destination_by_source_pixels() -> None:
    """The warp relies on it; GDAL's documentation says so, and here is the proof for the GDAL in use."""
    rng = np.random.default_rng(0)
    source = rng.normal(size=(1, 300, 300)).astype(np.float32)
    fine, coarse = Affine(10, 0, 0, 0, -10, 3000), Affine(37, 0, 100, 0, -37, 2900)

    def warp(**options: float) -> np.ndarray:
        result = np.zeros((1, 60, 60), np.float32)
        crs = CRS.from_epsg(32631)
        reproject(
            source, result, src_transform=fine, dst_transform=coarse, src_crs=crs, dst_crs=crs,
            resampling=Resampling.bilinear, **options,
        )  # fmt: skip
        return result[0, 10:40, 10:40]

    def triangle(row: int, col: int, scale: float) -> float:
        x, y = 10 + 3.7 * (col + 0.5), 10 + 3.7 * (row + 0.5)
        centres = np.arange(300) + 0.5
        weight = np.outer(*(np.clip(1 - np.abs(centres - p) * scale, 0, None) for p in (y, x)))
        return float((weight * source[0]).sum() / weight.sum())

    for scale in (10 / 37, 0.1):
        result = warp(XSCALE=scale, YSCALE=scale)
        for row, col in ((10, 10), (20, 33), (39, 12)):
            assert result[row - 10, col - 10] == pytest.approx(triangle(row, col, scale), abs=1e-5)
    np.testing.assert_allclose(warp(), warp(XSCALE=10 / 37, YSCALE=10 / 37), atol=1e-5)
    # above 1 there is nothing to widen: source by destination pixels would be the wrong way round
    np.testing.assert_array_equal(warp(XSCALE=3.7, YSCALE=3.7), warp(XSCALE=1, YSCALE=1))
    assert np.abs(warp(XSCALE=1, YSCALE=1) - warp()).max() > 1


@pytest.mark.parametrize(("row", "col"), [(0, 0), (7, -12)])
@pytest.mark.brief
def test_grids_offset_by_whole_pixels_are_read(module_raster, row, col) -> None:
    array = np.random.default_rng(0).uniform(size=(1, 560, 600)).astype(np.float32)
    path = module_raster(f"same{row}.tif", array, SCENE.crs.to_wkt(), SCENE.affine)
    grid = crop(SCENE, Window(row, col, 560, 600))
    # the 15th digit of a stored transform mustn't make another grid
    grid = GeoBox(grid.shape, Affine(*(v * (1 + 1e-15) for v in grid.affine[:6])), grid.crs)
    with RasterSource(path) as source:
        aligned = AlignedSource(source, grid)
        assert aligned.offset == (row, col)
        window = Window(100, 90, 450, 470)
        values, valid = aligned.read(window)
    shifted = array[:, 100 + row : 550 + row, 90 + col : 560 + col]
    np.testing.assert_array_equal(values[:, : shifted.shape[1]], shifted)
    np.testing.assert_array_equal(valid.sum(), shifted[0].size)


@pytest.mark.parametrize("nodata", [-32768.0, 1e38, -3.4028234663852886e38, np.nan])
@pytest.mark.parametrize("name", ["neighbour zone", "fine"])
def test_nodata_never_bleeds(module_raster, nodata, name) -> None:
    grid = SOURCES[name]
    hole = np.random.default_rng(1).uniform(size=grid.shape) < 0.2
    array = np.full((1, *grid.shape), 5, np.float32)
    array[0][hole] = nodata
    path = module_raster(f"bleed{name[:4]}{nodata}.tif", array, grid.crs.to_wkt(), grid.affine, nodata=nodata)
    with RasterSource(path) as source:
        values, valid = AlignedSource(source, SCENE).read(Window(0, 0, 300, 300))
    assert 0.5 < valid.mean() <= 1
    np.testing.assert_allclose(values[0][valid], 5, rtol=1e-6)
    assert not values[0][~valid].any()


def test_labels_by_nearest_and_mode(module_raster) -> None:
    fine = GeoBox((90, 90), Affine(10, 0, 700000, 0, -10, 6600000), "EPSG:32631")
    labels = np.repeat(np.repeat(np.arange(9, dtype=np.uint8).reshape(3, 3), 30, 0), 30, 1)
    labels[::7, ::5] = 77  # specks that the mode drops
    labels[60:90, 60:80] = 255  # two thirds of the last block are nodata
    path = module_raster("labels.tif", labels, fine.crs.to_wkt(), fine.affine, nodata=255)
    coarse = GeoBox((3, 3), Affine(300, 0, 700000, 0, -300, 6600000), "EPSG:32631")
    with RasterSource(path) as source:
        values, valid = AlignedSource(source, coarse, "mode").read(Window(0, 0, 3, 3))
        nearest = AlignedSource(source, crop(fine, Window(0, 0, 80, 80)).zoom_out(0.5), "nearest")
        near, near_valid = nearest.read(Window(0, 0, 160, 160))
    expected = np.arange(9).reshape(3, 3)
    expected[2, 2] = 0
    np.testing.assert_array_equal(values[0], expected)
    np.testing.assert_array_equal(valid, expected == np.arange(9).reshape(3, 3))
    doubled = np.repeat(np.repeat(labels, 2, 0), 2, 1)[:160, :160]
    np.testing.assert_array_equal(near_valid, doubled != 255)
    np.testing.assert_array_equal(near[0], np.where(doubled == 255, 0, doubled))


@pytest.mark.parametrize("units", ["power", "amplitude"])
def test_sar_is_averaged_in_power(module_raster, units) -> None:
    grid = GeoBox((120, 120), Affine(10, 0, 700000, 0, -10, 6600000), "EPSG:32631")
    power = np.random.default_rng(0).gamma(1, 1, (1, 120, 120)).astype(np.float32)
    path = module_raster(f"{units}.tif", np.sqrt(power) if units == "amplitude" else power, "EPSG:32631", grid.affine)
    coarse = GeoBox((24, 24), Affine(50, 0, 700000, 0, -50, 6600000), "EPSG:32631")
    plain = module_raster(f"plain{units}.tif", power, "EPSG:32631", grid.affine)
    with RasterSource(path) as source, RasterSource(plain) as bare:
        plan, _ = plan_radiometry(source, units, "db", "--sar-units")
        values, _ = AlignedSource(source, coarse, radiometry=plan).read(Window(0, 0, 24, 24))
        averaged, _ = AlignedSource(bare, coarse).read(Window(0, 0, 24, 24))
    np.testing.assert_allclose(values, 10 * np.log10(averaged), atol=1e-4)


def test_very_fine_sources_are_read_in_parts(module_raster) -> None:
    grid = GeoBox((3000, 3000), Affine(0.5, 0, 700000, 0, -0.5, 6600000), "EPSG:32631")
    array = np.full((1, 3000, 3000), 3, np.uint8)
    path = module_raster("fine.tif", array, "EPSG:32631", grid.affine, compress="deflate", tiled=True)
    reads: list[int] = []
    with RasterSource(path) as source:
        read = source.read
        source.read = lambda window: (reads.append(window.height * window.width), read(window))[1]  # type: ignore[method-assign]
        coarse = GeoBox((75, 75), Affine(20, 0, 700000, 0, -20, 6600000), "EPSG:32631")
        aligned = AlignedSource(source, coarse)
        values, valid = aligned.read(Window(0, 0, 75, 75))
    assert valid.all()
    np.testing.assert_allclose(values, 3, rtol=1e-6)
    assert len(reads) > 1
    assert max(reads) <= 1_500_000


def test_a_world_map_on_both_sides_of_the_antimeridian(module_raster) -> None:
    world = np.tile(np.arange(720, dtype=np.float32), (360, 1))
    path = module_raster("world.tif", world, "EPSG:4326", Affine(0.5, 0, -180, 0, -0.5, 90))
    grid = GeoBox((200, 600), Affine(500, 0, 150000, 0, -500, 7150000), "EPSG:32701")  # crosses 180 degrees
    with RasterSource(path) as source:
        values, valid = AlignedSource(source, grid).read(Window(0, 0, 200, 600))
    rows, cols = np.mgrid[0:200:7, 0:600:7]
    x, y = grid.affine.c + 500 * (cols + 0.5), grid.affine.f - 500 * (rows + 0.5)
    longitude, _ = Transformer.from_crs("EPSG:32701", "EPSG:4326", always_xy=True).transform(x, y)
    inside = np.abs(longitude) < 179.7
    assert (longitude > 0).any()
    assert (longitude < 0).any()
    assert valid[rows, cols][inside].all()
    np.testing.assert_allclose(values[0, rows, cols][inside], ((longitude + 180) / 0.5 - 0.5)[inside], atol=0.02)


def test_a_grid_without_a_crs_cannot_be_warped(module_raster) -> None:
    path = module_raster("plain.tif", np.ones((1, 9, 9), np.float32), None, Affine(10, 0, 0, 0, -10, 90))
    with RasterSource(path) as source, pytest.raises(GridError, match=r"plain\.tif: only one of the grids"):
        AlignedSource(source, SCENE)


def test_a_damaged_file_is_reported_by_every_reader(module_raster) -> None:
    array = np.random.default_rng(0).integers(0, 255, (1, 600, 600), np.uint8)
    path = module_raster("damaged.tif", array, SCENE.crs.to_wkt(), SCENE.affine, compress="deflate", tiled=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60000] = b"\x00" * 60000
    path.write_bytes(bytes(data))
    aligned = AlignedSource(RasterSource(path), SCENE)
    caught: list[str] = []

    def work() -> None:
        try:
            aligned.read(WHOLE)
        except SourceError as error:
            caught.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(caught) == 3
    assert all("damaged.tif" in text for text in caught)


def test_an_aligned_source_crosses_process_borders(paths) -> None:
    aligned = AlignedSource(RasterSource(paths["degrees"]), SCENE, "nearest", cache_bytes=1 << 20)
    copy = pickle.loads(pickle.dumps(aligned))
    window = Window(500, 500, 20, 20)
    assert copy.read(window)[0].tobytes() == aligned.read(window)[0].tobytes()
    assert copy.resampling == Resampling.nearest
    assert copy.cache.capacity == 1 << 20
