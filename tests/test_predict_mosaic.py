"""Maps of several scenes that show the ground together, and of regions that share a grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

import gopt_geo
from gopt_geo.errors import OutputError
from gopt_geo.grid import grid_of, whole_pixel_offset
from gopt_geo.prediction import PredictReport

Run = Callable[..., PredictReport]
Pixels = Callable[..., np.ndarray]
Files = dict[str, Path]


def cut(source: Path, target: Path, cols: slice) -> Path:
    """Copy some of a raster's columns, with what it says of its bands."""
    with rasterio.open(source) as old:
        window = Window(cols.start, 0, cols.stop - cols.start, old.height)
        profile = {**old.profile, "width": window.width, "transform": old.window_transform(window)}
        with rasterio.open(target, "w", **profile) as new:
            new.write(old.read(window=window))
            new.descriptions, new.scales, new.offsets, new.units = old.descriptions, old.scales, old.offsets, old.units
    return target


@pytest.fixture
def parts(aligned_scene: Files, tmp_path: Path) -> dict[str, gopt_geo.SceneMosaic]:
    """The scene's rasters in two overlapping parts each."""
    return {
        name: gopt_geo.SceneMosaic(
            (
                cut(aligned_scene[stem], tmp_path / f"{name}_west.tif", slice(0, 80)),
                cut(aligned_scene[stem], tmp_path / f"{name}_east.tif", slice(60, 130)),
            )
        )
        for name, stem in (("optical", "scene"), ("sar", "sar"))
    }


def placed(path: Path, onto: Path) -> tuple[slice, slice]:
    """Return the rows and columns of another map that a map covers."""
    with rasterio.open(path) as part, rasterio.open(onto) as whole:
        offset = whole_pixel_offset(grid_of(part), grid_of(whole))
        assert offset is not None
        row, col = offset
        return slice(row, row + part.height), slice(col, col + part.width)


@pytest.mark.brief
def test_parts_of_a_scene_are_mapped_like_the_scene(
    run: Run, aligned_scene: Files, parts: dict[str, Any], pixels: Pixels, tmp_path: Path
) -> None:
    run("whole.tif", optical=aligned_scene["scene"], sar=aligned_scene["sar"])
    report = run("parts.tif", **parts, confidence="parts_confidence.tif")
    assert report.shape == (90, 130)
    assert report.shared == 1
    assert (pixels(tmp_path / "parts.tif") == pixels(tmp_path / "whole.tif")).all()
    with rasterio.open(tmp_path / "parts.tif") as file:
        assert file.tags()["GOPT_GEO_INPUT_OPTICAL"] == "optical_west.tif; optical_east.tif"


def test_no_result_replaces_a_raster_of_a_mosaic(run: Run, parts: dict[str, Any]) -> None:
    with pytest.raises(OutputError, match="is also an input"):
        run(str(parts["sar"].sources[1]), **parts, overwrite=True)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3035", "EPSG:32633"])
def test_a_window_of_a_chosen_crs_is_the_cut_of_the_whole(
    run: Run, scene: Files, pixels: Pixels, tmp_path: Path, crs: str
) -> None:
    grid = {"crs": crs, "resolution": 9.5, "batch_size": 2}
    run("whole.tif", **grid, confidence="whole_confidence.tif")
    with rasterio.open(tmp_path / "whole.tif") as file:
        assert file.crs == crs
        assert file.res == (9.5, 9.5)
        assert file.transform.c / 9.5 == pytest.approx(round(file.transform.c / 9.5), abs=1e-6)
        left, bottom, right, top = file.bounds
    box = (
        left + 0.3 * (right - left),
        bottom + 0.2 * (top - bottom),
        left + 0.7 * (right - left),
        top - 0.4 * (top - bottom),
    )
    run("part.tif", **grid, aoi=",".join(map(str, box)), aoi_crs=crs, confidence="part_confidence.tif")
    place = placed(tmp_path / "part.tif", tmp_path / "whole.tif")
    for name in ("", "_confidence"):
        part, whole = pixels(tmp_path / f"part{name}.tif"), pixels(tmp_path / f"whole{name}.tif")[place]
        assert (part != 255).sum() > 500
        assert (part[part != 255] == whole[part != 255]).all()


@pytest.mark.brief
def test_regions_on_one_lattice_agree_on_shared_ground(
    run: Run, aligned_scene: Files, parts: dict[str, Any], pixels: Pixels, tmp_path: Path
) -> None:
    """The regions' scenes differ where neither needs them; what both see, both map alike, to the bit."""
    with rasterio.open(aligned_scene["scene"]) as file:
        transform, (left, bottom, right, top) = file.transform, file.bounds
    lattice = tmp_path / "lattice.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 170, "width": 250, "crs": "EPSG:32632"}
    with rasterio.open(lattice, "w", **profile, transform=transform @ rasterio.Affine.translation(-61, -43)):
        pass
    grid = {"grid": str(lattice), "extent": "grid", "batch_size": 2}
    west, east = parts["optical"].sources
    middle = {"sar": parts["sar"], **grid}
    in_metres = {**middle, "aoi_crs": "EPSG:32632"}
    # The eastern raster begins at column 60: no tile over columns up to 20 reaches it.
    run("one.tif", optical=west, aoi=f"{left},{bottom},{left + 200},{top}", confidence="one_k.tif", **in_metres)
    run(
        "two.tif",
        optical=parts["optical"],
        aoi=f"{left + 100},{bottom},{right},{top}",
        confidence="two_k.tif",
        **in_metres,
    )
    run("all.tif", optical=gopt_geo.SceneMosaic((west, east)), confidence="all_k.tif", **middle)
    assert pixels(tmp_path / "all.tif").shape == (170, 250)
    one, two = (placed(tmp_path / name, tmp_path / "all.tif") for name in ("one.tif", "two.tif"))
    for suffix in (".tif", "_k.tif"):
        maps = []
        for name, place in (("one", one), ("two", two)):
            canvas = np.full((170, 250), 255, np.uint8)
            canvas[place] = pixels(tmp_path / f"{name}{suffix}")
            maps.append(canvas)
        shared = (maps[0] != 255) & (maps[1] != 255)
        assert shared.sum() == 10 * 90
        assert (maps[0][shared] == maps[1][shared]).all()
        for canvas in maps:
            assert (canvas[canvas != 255] == pixels(tmp_path / f"all{suffix}")[canvas != 255]).all()
