"""Real rasters, awkward ones among them: a right result or a clear error, never anything else."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer

from gopt_geo.errors import BandError, GoptGeoError
from gopt_geo.grid import GeoBox, Window, grid_of, pixel_size_m
from gopt_geo.scene import RasterSource, Scene, SourceSpec, open_scene
from realdata import DATA, REFUSED, ROBUSTNESS_FILES, needs

pytestmark = needs(DATA)

UNITS = {"optical": "reflectance", "sar": "db"}


def spec(path: Path, modality: str, **changes: object) -> SourceSpec:
    options = {"bands": [1], "units": "raw", "target_units": UNITS[modality], "count": 1, **changes}
    return SourceSpec(path, **options)  # type: ignore[arg-type]


def some_windows(scene: Scene) -> list[Window]:
    """Corners, the middle, and one that hangs over."""
    height, width = scene.shape
    size = 200
    places = [(-50, -50), (height // 2, width // 2), (height - 100, width - 100)]
    return [Window(row, col, size, size) for row, col in places]


def check(scene: Scene) -> None:
    for window in some_windows(scene):
        block = scene.read(window)
        for name in scene.modalities:
            values, valid = block.values[name], block.valid[name]
            assert values.dtype == np.float32
            assert np.isfinite(values).all()
            assert not values[:, ~valid].any()


def as_the_file_says(path: Path, scene: Scene, name: str) -> None:
    """On its own grid a scene holds what rasterio's masked read gives, NaN taken out."""
    window = some_windows(scene)[1].clip(scene.shape)
    assert window is not None
    area = rasterio.windows.Window(window.col, window.row, window.width, window.height)
    with rasterio.open(path) as file:
        expected = file.read(1, masked=True, window=area)
    block = scene.read(window)
    usable = ~np.ma.getmaskarray(expected) & np.isfinite(expected.data)
    np.testing.assert_array_equal(block.valid[name], usable)
    np.testing.assert_array_equal(block.values[name][0][usable], expected.data[usable].astype(np.float32))


@pytest.mark.parametrize("modality", ["optical", "sar"])
@pytest.mark.parametrize("name", ROBUSTNESS_FILES)
def test_an_awkward_raster_alone(name, modality) -> None:
    path = DATA / "robustness" / name
    entry = spec(path, modality)
    optical, auxiliary = (entry, {}) if modality == "optical" else (None, {"sar": entry})
    if name in REFUSED:
        with pytest.raises(GoptGeoError) as caught, open_scene(optical, auxiliary) as scene:
            scene.read(Window(0, 0, *scene.shape))
        assert name in str(caught.value)
        assert REFUSED[name] in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    with open_scene(optical, auxiliary) as scene:
        if name == "cog_gcps.tif":  # warped onto the affine grid that fits its points best
            check(scene)
            assert scene.grid.crs.epsg == 4326
            assert scene.read(Window(200, 200, 300, 300)).valid[modality].all()
            return
        with rasterio.open(path) as file:
            assert scene.grid == grid_of(file)
        check(scene)
        as_the_file_says(path, scene, modality)


def middle_in_mercator(path: Path) -> GeoBox:
    """Return a grid of 150 pixels square in web Mercator, about as fine as the raster, amid its valid pixels."""
    with RasterSource(path, honour_nodata=False) as source:
        grid = source.grid
    with rasterio.open(path) as file:
        mask = file.read_masks(1) if path.name != "corrupt.tif" else np.ones(file.shape, np.uint8)
    rows, cols = np.nonzero(mask)
    middle = len(rows) // 2
    row, col = (rows[middle], cols[middle]) if len(rows) else (grid.shape[0] // 2, grid.shape[1] // 2)
    a, b, c, d, e, f = grid.affine[:6]
    x, y = a * (col + 0.5) + b * (row + 0.5) + c, d * (col + 0.5) + e * (row + 0.5) + f
    east, north = Transformer.from_crs(grid.crs.proj, 3857, always_xy=True).transform(x, y)
    latitude = Transformer.from_crs(grid.crs.proj, 4326, always_xy=True).transform(x, y)[1]
    size = pixel_size_m(grid) / math.cos(math.radians(latitude)) * 0.9
    return GeoBox((150, 150), Affine(size, 0, east - 75 * size, 0, -size, north + 75 * size), "EPSG:3857")


@pytest.mark.parametrize("name", [name for name in ROBUSTNESS_FILES if REFUSED.get(name) != "no CRS"])
def test_an_awkward_raster_as_sar_under_an_optical_one(name, raster) -> None:
    path = DATA / "robustness" / name
    grid = middle_in_mercator(path)
    image = np.full((1, *grid.shape), 1, np.uint8)
    optical = spec(raster("optical.tif", image, "EPSG:3857", grid.affine), "optical")
    if name in REFUSED:
        with (
            pytest.raises(GoptGeoError, match=name.replace(".", r"\.")),
            open_scene(optical, {"sar": spec(path, "sar")}) as scene,
        ):
            scene.read(Window(0, 0, *scene.shape))
        return
    with open_scene(optical, {"sar": spec(path, "sar")}) as scene:
        check(scene)
        block = scene.read(Window(0, 0, *scene.shape))
        assert block.valid["sar"].any()
        with rasterio.open(path) as file:
            stored = file.read(1, masked=True)
        kept = stored.data[~np.ma.getmaskarray(stored) & np.isfinite(stored.data)]
        warped = block.values["sar"][0][block.valid["sar"]]
        span = float(kept.max()) - float(kept.min())
        assert warped.min() >= kept.min() - 1e-5 * span  # a weighted mean stays within
        assert warped.max() <= kept.max() + 1e-5 * span


@pytest.mark.parametrize("number", sorted(p.name[:-8] for p in (DATA / "volkov").glob("*_opt.tif")))
def test_volkov(number) -> None:
    a, b = DATA / "volkov" / f"{number}_opt.tif", DATA / "volkov" / f"{number}_sar.tif"
    optical = spec(a, "optical", bands=None, count=3, units="byte")
    with open_scene(optical, {"sar": spec(b, "sar", bands=None)}) as scene:
        check(scene)
        block = scene.read(Window(0, 0, *scene.shape))
        assert scene.shared > 0.9
    with rasterio.open(a) as file:
        np.testing.assert_allclose(block.values["optical"], file.read() / 255 * block.valid["optical"], atol=1e-6)


def test_spacenet6() -> None:
    folder = DATA / "spacenet6"
    optical = spec(folder / "rgb_unmasked.tif", "optical", bands=None, count=3)
    with open_scene(optical, {"sar": spec(folder / "sar_masked.tif", "sar")}) as scene:
        check(scene)
        valid = scene.read(Window(0, 0, *scene.shape)).valid
    assert valid["optical"].all()
    assert 0.4 < valid["sar"].mean() < 0.8  # 39 % are NaN


@pytest.mark.parametrize("name", ["sar_hh.tif", "sar_vv.tif"])
def test_spacenet6_complex(name: str) -> None:
    folder = DATA / "spacenet6"
    with rasterio.open(folder / name) as file:
        stored = np.abs(file.read(1)).astype(np.float64)
        grid = grid_of(file)
    with open_scene(None, {"sar": spec(folder / name, "sar", units=None, target_units="db")}) as scene:
        assert scene.grid == grid  # turned by 90.7 degrees, and left so
        block = scene.read(Window(0, 0, *scene.shape))
    np.testing.assert_array_equal(block.valid["sar"], stored > 0)
    wanted = 20 * np.log10(stored[stored > 0])
    np.testing.assert_allclose(block.values["sar"][0][stored > 0], wanted, atol=1e-3)
    optical = spec(folder / "rgb_unmasked.tif", "optical", bands=None, count=3)
    with open_scene(optical, {"sar": spec(folder / name, "sar", units=None, target_units="db")}) as scene:
        check(scene)
    with pytest.raises(GoptGeoError, match="complex values, as SAR has them"):
        open_scene(spec(folder / name, "optical", units=None, target_units="reflectance"), {})
    with pytest.raises(GoptGeoError, match="complex values have an amplitude"):
        open_scene(None, {"sar": spec(folder / name, "sar", units="power", target_units="db")})


def test_worldcereal(tmp_path) -> None:
    folder = DATA / "worldcereal"
    s2, s1 = folder / "S2_2021-06-01.tif", folder / "S1_2021-06-01.tif"
    names = ("B04", "B03", "B02")
    sar = {"sar": spec(s1, "sar", bands=None, count=2, units=None)}
    by_name = {"bands": list(names), "count": 3, "units": "dn10000", "band_names": names}
    with pytest.raises(BandError, match="without names"):  # these files name no bands
        open_scene(spec(s2, "optical", **by_name), sar)
    named = tmp_path / "named.tif"
    with rasterio.open(s2) as file, rasterio.open(named, "w", **file.profile) as copy:
        copy.write(file.read())
        copy.descriptions = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B11", "B12")
        stored = file.read([3, 2, 1], masked=True)
    by_order = {**by_name, "bands": [3, 2, 1]}
    blocks = []
    for path, choice in ((s2, by_order), (named, by_name), (named, {**by_name, "bands": None})):
        with open_scene(spec(path, "optical", **choice), sar) as scene:
            check(scene)
            assert any("taken as dB" in notice for notice in scene.notices)
            blocks.append(scene.read(Window(0, 0, 100, 100)))
    for block in blocks:
        usable = ~np.ma.getmaskarray(stored).any(axis=0)
        np.testing.assert_array_equal(block.valid["optical"], usable)
        np.testing.assert_allclose(block.values["optical"][:, usable], stored.data[:, usable] * 1e-4, rtol=1e-6)


@pytest.mark.parametrize("patch", sorted(p.name for p in (DATA / "bigearthnet").glob("*") if p.is_dir()))
def test_bigearthnet(patch, tmp_path) -> None:
    folder = DATA / "bigearthnet" / patch
    bands = [next(folder.glob(f"S2*_{name}.tif")) for name in ("B04", "B03", "B02")]
    radar = next(folder.glob("S1*_VV.tif"))
    with rasterio.open(bands[0]) as file:
        size, wkt, transform = file.shape, file.crs.to_wkt(), file.transform.to_gdal()
    inner = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><SimpleSource>'
        f"<SourceFilename>{path}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for number, path in enumerate(bands, 1)
    )
    stack = tmp_path / "stack.vrt"
    stack.write_text(
        f'<VRTDataset rasterXSize="{size[1]}" rasterYSize="{size[0]}"><SRS>{wkt.replace("&", "&amp;")}</SRS>'
        f"<GeoTransform>{','.join(map(repr, transform))}</GeoTransform>{inner}</VRTDataset>"
    )
    optical = spec(stack, "optical", bands=None, count=3, units="dn10000")
    with open_scene(optical, {"sar": spec(radar, "sar", bands=None, units="db")}) as scene:
        check(scene)
        block = scene.read(Window(0, 0, *size))
        assert scene.shared > 0.99
    with rasterio.open(bands[0]) as file:
        np.testing.assert_allclose(block.values["optical"][0], file.read(1) * 1e-4, rtol=1e-6)
    assert block.valid["sar"].mean() > 0.99
