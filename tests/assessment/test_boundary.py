"""Boundary F1, counted block by block."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from gopt_geo.assessment import BoundaryCounts, count_boundaries
from gopt_geo.grid import Window

from .helpers import reader


def count(truth, mapped, classes=3, tolerance=2, block=512, window=None):
    window = window or Window(0, 0, *truth.shape)
    return count_boundaries(reader(truth), reader(mapped), window, classes, tolerance, block)


def blobs(seed, shape=(60, 70), size=9, unlabelled=0.1):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (-(-shape[0] // size), -(-shape[1] // size)), dtype=np.uint8)
    labels = np.kron(coarse, np.ones((size, size), np.uint8))[: shape[0], : shape[1]]
    labels[rng.random(shape) < unlabelled] = 255
    return labels


def points_of(classes, labelled, value):
    """The border pixels of a class, one by one."""
    found = []
    height, width = classes.shape
    for row in range(height):
        for col in range(width):
            if classes[row, col] != value or not labelled[row, col]:
                continue
            for r, c in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
                if 0 <= r < height and 0 <= c < width and labelled[r, c] and classes[r, c] != value:
                    found.append((row, col))
                    break
    return np.array(found).reshape(-1, 2)


@pytest.mark.brief
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.integers(0, 4))
def test_against_the_definition(seed, tolerance):
    truth, mapped = blobs(seed, (25, 31)), blobs(seed + 1, (25, 31))
    counted = count(truth, mapped, tolerance=tolerance)
    labelled = truth != 255
    for value in range(3):
        own, other = points_of(mapped, labelled, value), points_of(truth, labelled, value)
        assert counted.counts[[0, 2], value].tolist() == [len(own), len(other)]
        for row, a, b in ((1, own, other), (3, other, own)):
            near = 0
            if len(a) and len(b):
                near = int((NearestNeighbors(n_neighbors=1).fit(b).kneighbors(a)[0] <= tolerance + 1e-9).sum())
            assert counted.counts[row, value] == near


@pytest.mark.brief
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.integers(0, 5), st.integers(1, 40))
def test_blocks_change_nothing(seed, tolerance, block):
    truth, mapped = blobs(seed), blobs(seed + 1)
    assert np.array_equal(
        count(truth, mapped, tolerance=tolerance).counts, count(truth, mapped, tolerance=tolerance, block=block).counts
    )


def test_a_map_that_is_the_reference_is_perfect():
    truth = blobs(3)
    counted = count(truth, np.where(truth == 255, 1, truth).astype(np.uint8), tolerance=0)
    assert counted.f1 == (1.0, 1.0, 1.0)
    assert counted.mean == 1.0


@pytest.mark.parametrize(("shift", "expected"), [(1, 1.0), (2, 1.0), (3, 0.0)])
def test_a_border_that_is_moved(shift, expected):
    """Beyond the tolerance a straight border has no counterpart; each class has it on its own side."""
    truth, mapped = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
    truth[:, 12:], mapped[:, 12 + shift :] = 1, 1
    counted = count(truth, mapped, 2, 2)
    assert counted.f1 == (expected, expected)


def test_unlabelled_ground_makes_no_borders():
    truth = np.zeros((20, 20), np.uint8)
    truth[:, 8:12] = 255
    truth[:, 12:] = 1
    mapped = np.zeros((20, 20), np.uint8)
    mapped[:, 9:] = 1
    counted = count(truth, mapped, 2)
    assert not counted.counts.any()
    assert np.isnan(counted.mean)
    assert counted.to_dict()["mean_f1"] is None


def test_holes_in_the_map_make_borders():
    truth, mapped = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    mapped[5:8, 5:8] = 255
    counted = count(truth, mapped, 1)
    assert counted.counts[:, 0].tolist() == [12, 0, 0, 0]
    assert counted.precision == (0.0,)


def test_a_reference_without_borders_tells_nothing():
    """Points and polygons that don't touch: the map's borders in them have no counterpart that could be there."""
    truth = np.full((20, 20), 255, np.uint8)
    truth[3, 3:5], truth[10:15, 10:15] = 0, 1
    mapped = np.zeros((20, 20), np.uint8)
    mapped[:, 4], mapped[10:15, 12:] = 1, 1
    counted = count(truth, mapped, 2)
    assert (counted.counts[0] > 0).all()
    assert not counted.counts[2:].any()
    assert np.isnan(counted.f1).all()
    assert counted.to_dict()["f1"] == [None, None]
    assert counted.to_dict()["mean_f1"] is None


def test_borders_that_the_map_alone_lacks_count():
    truth, mapped = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    truth[:, 10:] = 1
    counted = count(truth, mapped, 2)
    assert counted.f1 == (0.0, 0.0)
    assert counted.mean == 0.0


def test_a_window_sees_nothing_beyond_it():
    truth, mapped = blobs(4), blobs(5)
    inner = count(truth, mapped, window=Window(10, 10, 30, 30))
    cut = count(truth[10:40, 10:40], mapped[10:40, 10:40])
    assert np.array_equal(inner.counts, cut.counts)


def test_sums():
    one, two = count(blobs(6), blobs(7)), count(blobs(8), blobs(9))
    assert np.array_equal((one + two).counts, one.counts + two.counts)
    with pytest.raises(ValueError, match="can't be summed"):
        one + BoundaryCounts.empty(3, 5)
    with pytest.raises(ValueError, match="tolerance of -1"):
        count(blobs(6), blobs(7), tolerance=-1)
