"""Region polygons: an exact, valid, noded coverage."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gopt_geo.outputs.noding import densified, label_regions, region_polygons

NORTH_UP = Affine(10, 0, 5e5, 0, -10, 5e6)
AFFINES = [NORTH_UP, Affine(10, 0, 5e5, 0, 10, 5e6), Affine(7, 3, 100, 3, -7, 200)]
rasters = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 255]))


def polygons_of(values: Any, affine: Affine = NORTH_UP) -> tuple[Any, Any]:
    labels, count = label_regions(values, values != 255)
    return labels, region_polygons(labels, count, affine)


@pytest.mark.brief
@settings(max_examples=150, deadline=None)
@given(values=rasters, affine=st.sampled_from(AFFINES))
def test_polygons_cover_the_valid_pixels_exactly(values: Any, affine: Affine) -> None:
    labels, polygons = polygons_of(values, affine)
    assert len(polygons) == labels.max()
    if len(polygons) == 0:
        return
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    assert shapely.is_ccw(shapely.get_exterior_ring(polygons)).all()
    pixel = abs(affine.determinant)
    pixels = np.bincount(labels.ravel(), minlength=len(polygons) + 1)[1:]
    np.testing.assert_allclose(shapely.area(polygons), pixels * pixel, rtol=1e-9)
    union = shapely.union_all(polygons)  # of disjoint polygons: no overlap is hidden in equal areas
    np.testing.assert_allclose(union.area, pixels.sum() * pixel, rtol=1e-9)
    rows, cols = np.indices(values.shape)
    a, b, c, d, e, f = affine[:6]
    x, y = a * (cols + 0.5) + b * (rows + 0.5) + c, d * (cols + 0.5) + e * (rows + 0.5) + f
    for label, polygon in enumerate(polygons, 1):
        assert np.array_equal(shapely.contains_xy(polygon, x, y), labels == label)


@settings(max_examples=50, deadline=None)
@given(values=rasters)
def test_simplifying_keeps_the_coverage_valid(values: Any) -> None:
    _, polygons = polygons_of(values)
    if len(polygons):
        assert shapely.coverage_is_valid(shapely.coverage_simplify(polygons, 15.0))


def test_three_polygons_share_the_vertex_where_they_meet() -> None:
    _, polygons = polygons_of(np.array([[0, 0], [1, 2]], np.uint8), Affine.identity())
    for polygon in polygons:
        assert (1.0, 1.0) in set(polygon.exterior.coords)


def test_nodata_counts_as_a_neighbour() -> None:
    _, polygons = polygons_of(np.array([[0, 0], [1, 255]], np.uint8), Affine.identity())
    assert (1.0, 1.0) in set(polygons[0].exterior.coords)


def test_straight_borders_have_no_further_vertices() -> None:
    _, polygons = polygons_of(np.array([[0] * 8, [1] * 8], np.uint8))
    assert [len(p.exterior.coords) for p in polygons] == [5, 5]


def test_corners_do_not_connect() -> None:
    labels, polygons = polygons_of(np.array([[0, 1], [1, 0]], np.uint8))
    assert len(polygons) == 4
    assert labels.max() == 4


def test_a_hole_that_touches_its_ring_in_a_point() -> None:
    values = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 0]], np.uint8)
    _, polygons = polygons_of(values)
    ring = next(p for p in polygons if p.area == 1100)
    assert ring.is_valid
    assert len(ring.interiors) == 1
    values = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1]], np.uint8)  # the hole touches the outside diagonally
    _, polygons = polygons_of(values)
    assert shapely.is_valid(polygons).all()
    assert len(polygons[0].interiors) == 1


def test_densified_borders_are_shared() -> None:
    _, polygons = polygons_of(np.array([[0] * 9, [1] * 9], np.uint8), Affine.identity())
    for polygon in densified(polygons, 3):
        assert {(3.0, 1.0), (6.0, 1.0)} <= set(polygon.exterior.coords)


@settings(max_examples=150, deadline=None)
@given(values=rasters, every=st.integers(1, 5), shift=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_densified_rings_have_a_vertex_on_each_line_they_cross(values: Any, every: int, shift: tuple[int, int]) -> None:
    _, polygons = polygons_of(values, Affine.translation(*shift))
    found = densified(polygons, every)
    assert len(found) == len(polygons)
    if len(polygons) == 0:
        return
    assert shapely.coverage_is_valid(found)
    for polygon, denser in zip(polygons, found, strict=True):
        for ring, more in zip(rings_of(polygon), rings_of(denser), strict=True):
            wanted = [ring[0]]
            for (x0, y0), (x1, y1) in pairwise(ring):
                steps = max(abs(x1 - x0), abs(y1 - y0))
                for step in range(1, steps + 1):
                    x, y = x0 + (x1 - x0) * step // steps, y0 + (y1 - y0) * step // steps
                    along = x if y0 == y1 else y
                    if step == steps or along % every == 0:
                        wanted.append((x, y))
            assert more == wanted


def rings_of(polygon: shapely.Polygon) -> list[list[tuple[int, int]]]:
    return [[(int(x), int(y)) for x, y in ring.coords] for ring in (polygon.exterior, *polygon.interiors)]


def test_nothing_valid() -> None:
    _, polygons = polygons_of(np.full((3, 4), 255, np.uint8))
    assert polygons.shape == (0,)
