"""Promise 5: memory is bounded by width, never by height; `max_memory` cuts the window into strips."""

from __future__ import annotations

import threading
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import Window
from gopt_geo.inference import TileOptions, run_tiles
from gopt_geo.inference.memory import MemoryNeed, column_strips

MIB = 2**20


class Echo:
    """Returns its input; unlike the kit's models it keeps no list of its batches."""

    num_classes, modalities = 2, ("optical",)

    def __call__(self, values, valid):
        return values["optical"]


class Tall:
    """A source of any height that makes its pixels when they are read, and counts the tiles that are alive."""

    def __init__(self, kit, height, width, empty=None):
        self.shape = (height, width)
        self._kit, self._empty = kit, empty
        self._lock = threading.Lock()
        self.read_count = 0

    def read(self, window):
        with self._lock:
            self.read_count += 1
        valid = np.ones(window.shape, bool)
        if self._empty is not None and self._empty(window):
            valid[:] = False
        values = np.full((2, *window.shape), float(window.row % 7), np.float32)
        return self._kit.Source({"optical": values}, {"optical": valid}).read(Window(0, 0, *window.shape))


def _peak(source, model, **options):
    """Peak of Python's and numpy's memory above the start; torch's own isn't seen, so the sum is measured apart."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run_tiles(source, model, TileOptions(**options), sink=lambda rows: None)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "empty", [None, lambda window: window.row > 64 and window.col > 0, lambda window: window.row > 0]
)
def test_memory_does_not_grow_with_height(kit, empty):
    """Also with a single valid tile that waits for its batch while thousands of empty ones pass."""
    options = {"tile_size": 64, "overlap": 16, "batch_size": 2, "readers": 1}
    _peak(Tall(kit, 600, 150), Echo(), **options)  # first use of everything
    low = _peak(Tall(kit, 1600, 150, empty), Echo(), **options)
    high = _peak(Tall(kit, 16 * 1600, 150, empty), Echo(), **options)
    # 16 times taller. How far the reader is ahead at the peak is chance, within its bound; one byte a pixel of the
    # further 24,000 rows would be 3.6 MB.
    ahead = TileOptions(**options).ahead * 64 * 64 * (2 * 4 + 2)
    assert high <= low + ahead
    assert ahead < 24_000 * 150 / 20


def test_readers_stay_a_bounded_number_of_tiles_ahead(kit):
    source = Tall(kit, 2000, 64)
    most = 0
    seen = 0

    def progress(state):
        nonlocal most, seen
        seen = state.done
        most = max(most, source.read_count - seen)

    options = TileOptions(tile_size=16, overlap=0, batch_size=2, readers=3)
    run_tiles(source, Echo(), options, sink=lambda rows: None, progress=progress)
    assert most <= options.ahead + options.batch_size


def test_rows_are_handed_on_as_soon_as_no_tile_can_change_them(kit):
    """After tile row i, everything above tile row i + 1 has been delivered: at most a batch later."""
    delivered = 0
    behind = []

    def sink(rows):
        nonlocal delivered
        delivered = rows.window.row_stop

    def progress(state):
        finished_rows = (state.done - 1) // 4  # four tiles a row; this tile is done, its row perhaps not
        behind.append(finished_rows * 12 - delivered)

    options = TileOptions(tile_size=16, overlap=4, batch_size=3)
    run_tiles(Tall(kit, 500, 50), Echo(), options, sink=sink, progress=progress)
    assert max(behind) <= 0
    assert delivered == 500


def _need():
    return MemoryNeed.of(tile_size=64, batch_size=2, ahead=4, classes=3, channels=[3, 1], reserved=0)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5000), st.integers(1, 9000), st.integers(0, 40))
def test_strips_cover_the_window_once_within_the_ceiling(col, width, extra):
    need = _need()
    window = Window(7, col, 10, width)
    limit = need.at(512) + extra * 512 * need.per_column // 3
    strips = column_strips(window, need, limit)
    assert strips[0].col == col
    assert strips[-1].col_stop == window.col_stop
    for left, right in pairwise(strips):
        assert left.col_stop == right.col
        assert right.col % 512 == 0
    assert all(need.at(strip.width) <= limit for strip in strips)
    assert all(strip.shape[0] == 10 and strip.row == 7 for strip in strips)


def test_too_little_memory_names_the_least_that_would_do(kit):
    source = kit.Source({"optical": np.zeros((1, 40, 2000))})
    options = {"tile_size": 32, "overlap": 8, "batch_size": 2}
    with pytest.raises(GoptGeoError, match=r"^--max-memory: .* need (\d+) MiB; give at least \1 MiB") as caught:
        kit.run(source, kit.one_hot(3), max_memory=MIB // 4, **options)
    least = int(str(caught.value).split("give at least ")[1].split(" MiB")[0])
    _, report = kit.run(source, kit.one_hot(3), max_memory=least * MIB, **options)
    assert report.strips >= 1
    with pytest.raises(GoptGeoError, match="--max-memory"):
        kit.run(source, kit.one_hot(3), max_memory=least * MIB, reserved=MIB, **options)


def test_the_bound_covers_what_a_run_holds(kit):
    """What tracemalloc sees of a run (tiles read, rows on their way out) stays under the bound."""
    need = MemoryNeed.of(tile_size=64, batch_size=2, ahead=4, classes=2, channels=[2], reserved=0)
    assert _peak(Tall(kit, 700, 900), Echo(), tile_size=64, overlap=16, batch_size=2, readers=2) < need.at(900)


@pytest.mark.brief
def test_strips_give_the_same_bits_and_count_the_tiles_they_share(kit):
    rng = np.random.default_rng(0)
    height, width = 70, 1700
    values = rng.random((2, height, width))
    source = kit.Source({"optical": values})
    options = {"tile_size": 48, "overlap": 16, "batch_size": 4}
    whole, report = kit.run(source, Echo(), **options)
    assert (report.strips, report.repeated_tiles) == (1, 0)
    need = MemoryNeed.of(tile_size=48, batch_size=4, ahead=6, classes=2, channels=[2], reserved=0)
    cut, report = kit.run(source, Echo(), max_memory=need.at(512), **options)
    assert report.strips == 4
    assert report.repeated_tiles > 0
    assert report.forwarded == report.tiles + report.repeated_tiles
    assert report.complete_share == 1
    assert (cut.count == 1).all()
    assert cut.probabilities.tobytes() == whole.probabilities.tobytes()
    assert {window.col for window in cut.windows} == {0, 512, 1024, 1536}
