"""Blending windows and the accumulator's weights (promise 4)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gopt_geo.errors import GoptGeoError
from gopt_geo.inference.blend import axis_weights, blend_window, most_likely, most_likely_there
from gopt_geo.inference.tiles import TilePlan

KINDS = ("hann", "linear", "gaussian", "none")


@pytest.mark.brief
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tile", "overlap"), [(1, 0), (2, 1), (7, 3), (256, 64), (512, 256)])
def test_positive_everywhere_and_not_tapered_at_the_scenes_border(kind, tile, overlap):
    inner = blend_window(tile, overlap, kind)
    assert inner.dtype == np.float32
    assert inner.min() >= 1e-6 * 0.999
    assert inner.max() <= 1
    assert inner[tile // 2, tile // 2] == inner.max()
    corner = blend_window(tile, overlap, kind, top=True, left=True)
    half = tile - tile // 2
    assert (corner[:half, :half] == 1).all()
    alone = blend_window(tile, overlap, kind, top=True, bottom=True, left=True, right=True)
    assert (alone == 1).all()


def test_tapers_are_symmetric_and_rise():
    for kind in ("hann", "linear", "gaussian"):
        window = blend_window(64, 16, kind)
        np.testing.assert_allclose(window, window[::-1, ::-1], rtol=1e-6)
        assert (np.diff(window[32, :16]) >= 0).all()
        assert window[32, 0] < 0.05


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 300), st.sampled_from(KINDS))
def test_weights_over_every_pixel_sum_to_one_in_the_windows_proportion(data, tile, size, kind):
    overlap = data.draw(st.integers(0, tile // 2))
    plan = TilePlan((size, 1), tile, overlap)
    total = np.zeros(size + tile)
    raw_total = np.zeros(size + tile)
    for i in range(plan.rows):
        place = slice(i * plan.stride, i * plan.stride + tile)
        weights = axis_weights(i, plan.rows, tile, overlap, kind).numpy()
        assert weights.min() > 0
        total[place] += weights
        raw_total[place] += blend_window(tile, overlap, kind, top=i == 0, bottom=i == plan.rows - 1)[:, tile // 2]
    np.testing.assert_allclose(total[:size], 1, rtol=2e-7)
    for i in range(plan.rows):  # and they are the plain quotient of the tile's window and the sum of windows
        place = slice(i * plan.stride, i * plan.stride + tile)
        raw = blend_window(tile, overlap, kind, top=i == 0, bottom=i == plan.rows - 1)[:, tile // 2]
        weights = axis_weights(i, plan.rows, tile, overlap, kind).numpy()
        np.testing.assert_allclose(weights, raw / raw_total[place], rtol=1e-6)


def test_an_unknown_window_is_refused():
    with pytest.raises(GoptGeoError, match="--blend: 'hat' is unknown; choose hann, linear, gaussian or none"):
        blend_window(8, 2, "hat")  # type: ignore[arg-type]


def test_probabilities_are_averaged_not_logits(kit):
    """A pixel under two tiles gets the mean of their probabilities, by the windows' weights."""
    source = kit.Source({"optical": np.ones((1, 8, 14))})
    seen = []

    def function(values, valid):
        out = []
        for _ in range(values["optical"].shape[0]):
            share = 0.999 if not seen else 0.4
            seen.append(share)
            out.append([share, 1 - share])

        return torch.tensor(out)[:, :, None, None].expand(-1, -1, 8, 8)

    canvas, _ = kit.run(source, kit.Model(2, function), tile_size=8, overlap=2, batch_size=1, blend="none", readers=1)
    np.testing.assert_allclose(canvas.probabilities[0, :, :6], 0.999, rtol=1e-6)
    np.testing.assert_allclose(canvas.probabilities[0, :, 6:8], (0.999 + 0.4) / 2, rtol=1e-6)
    np.testing.assert_allclose(canvas.probabilities[0, :, 8:], 0.4, rtol=1e-6)
    np.testing.assert_allclose(canvas.probabilities.sum(0), 1, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_most_likely_is_argmax_and_max(classes, height, width, seed, levels):
    """With ties, of which the first class wins."""
    probabilities = np.random.default_rng(seed).integers(0, levels, (classes, height, width)).astype(np.float32)
    index, largest = most_likely(probabilities)
    assert index.dtype == np.uint8
    np.testing.assert_array_equal(index, probabilities.argmax(axis=0))
    assert largest.tobytes() == probabilities.max(axis=0).tobytes()
    there = most_likely_there(torch.from_numpy(probabilities))
    assert (there[0].numpy() == index).all()
    assert there[0].dtype == torch.uint8
    assert there[1].numpy().tobytes() == largest.tobytes()


def test_most_likely_counts_to_the_256th_class():
    probabilities = np.zeros((256, 1, 2), np.float32)
    probabilities[255, 0, 0] = probabilities[254, 0, 1] = 1
    assert most_likely(probabilities)[0].tolist() == [[255, 254]]
