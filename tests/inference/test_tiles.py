"""The tile plan."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import Window
from gopt_geo.inference.tiles import TilePlan

sizes = st.integers(1, 70)


@st.composite
def plans(draw):
    tile = draw(st.integers(1, 24))
    return TilePlan((draw(sizes), draw(sizes)), tile, draw(st.integers(0, tile // 2)))


@pytest.mark.brief
@settings(max_examples=200, deadline=None)
@given(plans())
def test_every_pixel_lies_under_a_tile_and_no_tile_is_idle(plan):
    count = np.zeros(plan.shape, int)
    for row in range(plan.rows):
        for col in range(plan.cols):
            part = plan.window(row, col).clip(plan.shape)
            assert part is not None, "a tile beyond the scene"
            count[part.row : part.row_stop, part.col : part.col_stop] += 1
    assert count.min() >= 1
    assert count.max() <= 4
    if plan.rows > 1:  # one row fewer would leave pixels out
        assert plan.window(plan.rows - 2, 0).row_stop < plan.shape[0]


@settings(max_examples=200, deadline=None)
@given(plans(), st.integers(-5, 75), st.integers(-5, 75), st.integers(0, 40), st.integers(0, 40))
def test_touching_is_what_a_search_through_all_tiles_finds(plan, row, col, height, width):
    window = Window(row, col, height, width)
    inside = window.clip(plan.shape)
    found = {
        (r, c)
        for r in range(plan.rows)
        for c in range(plan.cols)
        if inside is not None and plan.window(r, c).intersect(inside) is not None
    }
    rows, cols = plan.touching(window)
    assert {(r, c) for r in rows for c in cols} == found


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 8])
def test_slots_are_evenly_used_by_rows_columns_and_whole_scenes(batch):
    plan = TilePlan((4000, 4000), 100, 0)
    patterns = {
        "whole": lambda r, c: True,
        "left half": lambda r, c: c < 20,
        "one row": lambda r, c: r == 7,
        "one column": lambda r, c: c == 7,
        "every other column": lambda r, c: c % 2 == 0,
    }
    for name, chosen in patterns.items():
        tiles = [(r, c) for r in range(40) for c in range(40) if chosen(r, c)]
        used = Counter(plan.slot(r, c, batch) for r, c in tiles)
        assert set(used) <= set(range(batch))
        assert max(used.values()) <= 1.1 * len(tiles) / batch + 1, name


def test_small_scenes_fill_their_batches():
    for cols in range(1, 5):
        plan = TilePlan((40, 10 * cols), 10, 0)
        used = Counter(plan.slot(r, c, 4) for r in range(4) for c in range(cols))
        assert set(used.values()) == {cols}


@pytest.mark.parametrize(("tile", "overlap"), [(8, 5), (8, -1), (8, 8), (1, 1), (7, 4)])
def test_overlap_beyond_half_a_tile_is_refused(tile, overlap):
    with pytest.raises(GoptGeoError, match=r"^--overlap: .*; give 0 to \d+ pixels") as caught:
        TilePlan((10, 10), tile, overlap)
    assert "\n" not in str(caught.value)


def test_bad_sizes():
    with pytest.raises(GoptGeoError, match="--tile-size"):
        TilePlan((10, 10), 0, 0)
    with pytest.raises(ValueError, match="at least one pixel"):
        TilePlan((0, 10), 8, 0)


def test_own_windows_cover_the_scene_without_overlap():
    for shape in ((1, 1), (30, 41), (64, 65), (100, 7)):
        for tile_size, overlap in ((8, 0), (8, 4), (32, 9), (200, 50)):
            plan = TilePlan(shape, tile_size, overlap)
            count = np.zeros(shape, int)
            for row in range(plan.rows):
                for col in range(plan.cols):
                    own = plan.own(row, col)
                    assert own.intersect(plan.window(row, col)) == own
                    count[own.row : own.row_stop, own.col : own.col_stop] += 1
            assert (count == 1).all()
