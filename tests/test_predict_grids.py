"""Whose grid and extent a map takes, its resolution, and rasters without a CRS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from gopt_geo.errors import GridError, OutputError, ResolutionError
from gopt_geo.grid import corner_distance, grid_of, whole_pixel_offset
from gopt_geo.packs import read_pack, write_pack
from gopt_geo.prediction import PredictReport
from gopt_geo.simulate import SceneSpec, write_scene

Run = Callable[..., PredictReport]
Pixels = Callable[..., np.ndarray]
Files = dict[str, Path]


def grid(path: Path) -> Any:
    with rasterio.open(path) as file:
        return grid_of(file)


def move(source: Path, target: Path, transform: Affine | None, crs: str | None) -> Path:
    """Copy a raster with another georeference."""
    with rasterio.open(source) as old:
        profile = {**old.profile, "crs": crs}
        if transform is None:
            del profile["transform"]
        else:
            profile["transform"] = transform
        with rasterio.open(target, "w", **profile) as new:
            new.write(old.read())
            new.descriptions, new.scales, new.units = old.descriptions, old.scales, old.units
    return target


@pytest.fixture
def coarse(tmp_path: Path) -> Files:
    """A scene of 20 m pixels."""
    folder = tmp_path / "coarse"
    folder.mkdir()
    paths = {stem: folder / f"{stem}.tif" for stem in ("scene", "sar", "labels", "clouds")}
    write_scene(SceneSpec(seed=8, height=48, width=64, resolution=20.0), paths)
    return paths


def test_far_resolution_is_refused_or_accepted_or_resampled(
    run: Run, coarse: Files, pixels: Pixels, tmp_path: Path
) -> None:
    inputs = {"optical": coarse["scene"], "sar": coarse["sar"]}
    with pytest.raises(ResolutionError, match=r"scene\.tif: pixels of 20 m .* knows 10 m; .*--allow-resolution"):
        run("map.tif", **inputs)
    assert not (tmp_path / "map.tif").exists()
    report = run("as_is.tif", **inputs, allow_resolution=True)
    assert any(n.startswith("warning: pixels of 20 m") for n in report.notices)
    assert pixels(tmp_path / "as_is.tif").shape == (48, 64)
    report = run("fine.tif", **inputs, resolution=10.0)
    assert not any("pixels of" in n for n in report.notices)
    assert pixels(tmp_path / "fine.tif").shape == (96, 128)
    assert grid(tmp_path / "fine.tif").affine[:6] == (10, 0, 600000, 0, -10, 5400000)


def test_a_pack_that_knows_no_pixel_size_maps_any(run: Run, scene: Files, tiny_pack: Path, tmp_path: Path) -> None:
    pack = read_pack(tiny_pack)
    write_pack(tmp_path / "chips.safetensors", pack.meta.model_copy(update={"resolution_m": None}), pack.state)
    report = run("map.tif", pack=tmp_path / "chips.safetensors", resolution=20.0)
    assert any("the pixel size isn't checked: the pack 'tiny'" in notice for notice in report.notices)


@pytest.mark.parametrize("size", [14.9, 15.1, 6.7, 6.6])
def test_the_bound_is_one_and_a_half(run: Run, scene: Files, size: float) -> None:
    accepted = 10 / 1.5 < size * 1.0004 < 15  # at 10.4 degrees east the UTM pixel is 10.004 m on the ground
    if accepted:
        assert run(resolution=size).shape
    else:
        with pytest.raises(ResolutionError):
            run(resolution=size)


def test_sar_grid(run: Run, scene: Files, tmp_path: Path) -> None:
    report = run("map.tif", grid="sar", allow_resolution=True)
    assert grid(tmp_path / "map.tif").crs.epsg == 4326
    assert whole_pixel_offset(grid(tmp_path / "map.tif"), grid(scene["sar"])) is not None
    assert report.shared == pytest.approx(1, abs=0.1)


def test_grid_of_a_file(run: Run, scene: Files, coarse: Files, tmp_path: Path) -> None:
    run("map.tif", grid=str(coarse["labels"]), allow_resolution=True)
    with rasterio.open(tmp_path / "map.tif") as result:
        assert result.res == (20, 20)
        assert result.shape == (45, 65)
    with pytest.raises(OutputError, match="is also an input"):
        run(str(coarse["labels"]), grid=str(coarse["labels"]), overwrite=True)


def test_extents(run: Run, aligned_scene: Files, pixels: Pixels, tmp_path: Path) -> None:
    shifted = move(aligned_scene["sar"], tmp_path / "east.tif", Affine(10, 0, 600300, 0, -10, 5400000), "EPSG:32632")
    inputs = {"optical": aligned_scene["scene"], "sar": shifted}
    shapes = {}
    for extent in ("optical", "intersection", "union"):
        report = run(f"{extent}.tif", **inputs, extent=extent)
        shapes[extent] = pixels(tmp_path / f"{extent}.tif").shape
        assert report.shape == shapes[extent]
        assert (pixels(tmp_path / f"{extent}.tif") != 255).all(), "one of the two has data everywhere"
    assert shapes == {"optical": (90, 130), "intersection": (90, 100), "union": (90, 160)}
    report = run("again.tif", **inputs)
    assert report.shared == pytest.approx(100 / 130)
    assert not any("has data in both" in notice for notice in report.notices)


@pytest.mark.parametrize(("tile_size", "overlap"), [(32, 8), (64, 32), (256, 0)])
def test_the_share_counts_pixels_with_data(
    run: Run, aligned_scene: Files, tmp_path: Path, tile_size: int, overlap: int
) -> None:
    mask = np.zeros((90, 130), np.uint8)
    mask[:, :101] = 1
    mask[7, 120] = 1
    with rasterio.open(aligned_scene["clouds"]) as clouds:
        profile = clouds.profile
    with rasterio.open(tmp_path / "mask.tif", "w", **profile) as file:
        file.write(mask, 1)
    inputs = {"optical": aligned_scene["scene"], "sar": aligned_scene["sar"], "cloud_mask": tmp_path / "mask.tif"}
    report = run(f"{tile_size}.tif", **inputs, tile_size=tile_size, overlap=overlap)
    assert report.shared == (mask == 0).mean()
    assert any("only 22.3 % of the map has data in both rasters" in notice for notice in report.notices)


def test_rasters_without_a_crs(run: Run, aligned_scene: Files, pixels: Pixels, tmp_path: Path) -> None:
    optical = move(aligned_scene["scene"], tmp_path / "o.tif", None, None)
    sar = move(aligned_scene["sar"], tmp_path / "s.tif", None, None)
    with pytest.raises(GridError, match=r"o\.tif: it has no CRS; .*--pixel-grid"):
        run("map.tif", optical=optical, sar=sar)
    report = run("map.tif", "map.gpkg", optical=optical, sar=sar, pixel_grid=True, preview="view.png")
    assert any("carries no CRS" in notice for notice in report.notices)
    with rasterio.open(tmp_path / "map.tif") as result:
        assert result.crs is None
        assert result.tags()["GOPT_GEO_CRS"].startswith("none")
    run("placed.tif", optical=aligned_scene["scene"], sar=aligned_scene["sar"])
    np.testing.assert_array_equal(pixels(tmp_path / "map.tif"), pixels(tmp_path / "placed.tif"))
    with pytest.raises(OutputError, match=r"map\.geojson: .*no CRS"):
        run("map.geojson", optical=optical, sar=sar, pixel_grid=True)
    assert not (tmp_path / "map.geojson").exists()


def test_pixel_grid_needs_equal_shapes(run: Run, scene: Files) -> None:
    with pytest.raises(GridError, match="equal shape"):
        run(pixel_grid=True)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3035", "EPSG:4326"])
@pytest.mark.parametrize("south_up", [False, True])
def test_any_affine_and_crs(
    run: Run, aligned_scene: Files, pixels: Pixels, tmp_path: Path, crs: str, south_up: bool
) -> None:
    """A rotated or mirrored grid is carried into the result; the pixels are those of the plain one."""
    size = 0.0001 if crs == "EPSG:4326" else 10
    x, y = {"EPSG:32632": (6e5, 5.4e6), "EPSG:3035": (4.3e6, 2.9e6), "EPSG:4326": (10.4, 48.7)}[crs]
    affine = Affine.translation(x, y) * Affine.rotation(20) * Affine.scale(size, size if south_up else -size)
    moved = {n: move(aligned_scene[n], tmp_path / f"{n}.tif", affine, crs) for n in ("scene", "sar")}
    run("map.tif", optical=moved["scene"], sar=moved["sar"])
    run("plain.tif", optical=aligned_scene["scene"], sar=aligned_scene["sar"])
    assert corner_distance(grid(moved["scene"]), grid(tmp_path / "map.tif")) < 1e-6
    np.testing.assert_array_equal(pixels(tmp_path / "map.tif"), pixels(tmp_path / "plain.tif"))
