"""Polygons made block by block: those of the whole map, whatever the blocks."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import shapely
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from gopt_geo.grid import GeoBox, Window
from gopt_geo.outputs.areas import region_areas
from gopt_geo.outputs.blockpolygons import PolygonBatch, block_polygons
from gopt_geo.outputs.noding import label_regions, region_polygons

Classes = NDArray[np.uint8]
AFFINE = Affine(10, 0, 600000, 0, -10, 5400000)


def reader(classes: Classes) -> Callable[[Window], Classes]:
    """Read windows of an array, beyond which is nodata."""
    padded = np.pad(classes, 1, constant_values=255)

    def read(window: Window) -> Classes:
        return padded[window.row + 1 : window.row_stop + 1, window.col + 1 : window.col_stop + 1]

    return read


def by_blocks(classes: Classes, size: int, affine: Affine = AFFINE) -> PolygonBatch:
    grid = GeoBox(classes.shape, affine, "EPSG:32632")
    batches = list(block_polygons(grid, reader(classes), size=size))
    return PolygonBatch(
        *(np.concatenate([getattr(b, part.name) for b in batches]) for part in dataclasses.fields(PolygonBatch))
    )


def at_once(
    classes: Classes, affine: Affine = AFFINE
) -> tuple[NDArray[np.object_], NDArray[np.int32], NDArray[np.float64]]:
    labels, count = label_regions(classes, classes != 255)
    values = np.zeros(count + 1, np.int32)
    values[labels] = classes
    areas = region_areas(labels, count, GeoBox(classes.shape, affine, "EPSG:32632"))
    return region_polygons(labels, count, affine), values[1:], areas


def smooth(height: int, width: int, seed: int, scale: float = 2.0, classes: int = 4) -> Classes:
    """Patches of classes, with nodata among them."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), scale)
    cuts = np.quantile(noise, np.linspace(0, 1, classes + 2)[1:-1])
    found = np.digitize(noise, cuts).astype(np.uint8)
    return np.where(found == classes, np.uint8(255), found)


def canonical(shapes: NDArray[np.object_]) -> list[bytes]:
    return [shapely.to_wkb(shape) for shape in shapely.normalize(shapes)]


@pytest.mark.brief
@pytest.mark.parametrize("size", [3, 8, 13, 64])
@pytest.mark.parametrize(("seed", "scale"), [(0, 2.0), (1, 0.6), (2, 0.0)])
def test_polygons_are_those_of_the_whole_map(size: int, seed: int, scale: float) -> None:
    classes = smooth(41, 37, seed, scale)
    found, (shapes, values, areas) = by_blocks(classes, size), at_once(classes)
    ours, theirs = canonical(found.shapes), canonical(shapes)
    assert sorted(ours) == sorted(theirs), "vertex by vertex"
    order, wanted = np.argsort(ours), np.argsort(theirs)
    assert (found.classes[order] == values[wanted]).all()
    np.testing.assert_allclose(found.areas[order], areas[wanted], rtol=1e-8)
    assert shapely.coverage_is_valid(found.shapes)
    assert shapely.is_ccw(shapely.get_exterior_ring(found.shapes)).all()


def test_blocks_of_one_pixel() -> None:
    classes = smooth(9, 11, 3, 0.7)
    assert sorted(canonical(by_blocks(classes, 1).shapes)) == sorted(canonical(at_once(classes)[0]))


@pytest.mark.parametrize("affine", [Affine(10, 0, 0, 0, 10, 0), Affine.rotation(31) @ Affine.scale(25, -10)])
def test_any_grid(affine: Affine) -> None:
    classes = smooth(20, 30, 4)
    found, (shapes, _, _) = by_blocks(classes, 7, affine), at_once(classes, affine)
    assert len(found.shapes) == len(shapes)
    assert shapely.is_ccw(shapely.get_exterior_ring(found.shapes)).all()
    ours, theirs = shapely.area(found.shapes).sum(), shapely.area(shapes).sum()
    assert ours == pytest.approx(theirs, rel=1e-12)
    assert shapely.coverage_is_valid(found.shapes)


def test_one_class_over_all_blocks_is_one_rectangle() -> None:
    found = by_blocks(np.zeros((50, 70), np.uint8), 16)
    assert len(found.shapes) == 1
    assert shapely.get_num_coordinates(found.shapes[0]) == 5


def test_rings_and_spirals_across_blocks() -> None:
    rows, cols = np.indices((48, 48)) - 24
    turn = (np.arctan2(rows, cols) / (2 * np.pi) + np.hypot(rows, cols) / 8) % 1
    classes = (turn > 0.5).astype(np.uint8)
    classes[(np.abs(rows) == 20) | (np.abs(cols) == 20)] = 2
    found, (shapes, _, _) = by_blocks(classes, 10), at_once(classes)
    assert sorted(canonical(found.shapes)) == sorted(canonical(shapes))


def test_nothing_but_nodata() -> None:
    found = by_blocks(np.full((20, 20), 255, np.uint8), 8)
    assert len(found.shapes) == len(found.classes) == len(found.areas) == 0


def test_blocks_without_data_are_not_asked_for_more() -> None:
    classes = np.full((64, 64), 255, np.uint8)
    classes[20:30, 20:30] = 3
    read = reader(classes)

    def sparse(window: Window) -> Classes | None:
        found = read(window)
        return None if (found == 255).all() else found

    batches = list(block_polygons(GeoBox((64, 64), AFFINE, "EPSG:32632"), sparse, size=8))
    assert sum(len(batch.shapes) for batch in batches) == 1


def test_memory_does_not_grow_with_the_map() -> None:
    """Eight times the rows, of the same ground again and again: the same peak."""
    part = smooth(128, 128, 7, 3.0)
    part[-1] = 255  # what is open in one part must not be in the next: that would be one polygon that has to be held

    def peak(times: int) -> int:
        def read(window: Window) -> Classes:
            rows = np.arange(window.row, window.row_stop)
            cols = np.arange(window.col, window.col_stop)
            inside = ((rows >= 0) & (rows < 128 * times))[:, None] & ((cols >= 0) & (cols < 128))
            return np.where(inside, part[np.ix_(rows % 128, cols % 128)], np.uint8(255))

        tracemalloc.start()
        for _ in block_polygons(GeoBox((128 * times, 128), AFFINE, "EPSG:32632"), read, size=64):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(16) < 1.15 * peak(2)
