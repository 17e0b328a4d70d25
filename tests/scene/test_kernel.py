"""The bilinear kernel against scipy's, in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from gopt_geo.scene import kernel
from gopt_geo.scene.kernel import bilinear


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(2, 40), st.integers(2, 40)),
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.lists(st.floats(-1.04, 1.04), min_size=4, max_size=4),
    st.tuples(st.floats(-30, 60), st.floats(-30, 60)),
)
@pytest.mark.brief
def test_against_the_same_in_double_precision(size, shape, linear, offset) -> None:
    values = np.random.default_rng(0).uniform(-1, 1, size).astype(np.float32)
    matrix = np.array([[linear[0], linear[1], offset[0]], [linear[2], linear[3], offset[1]]])
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    x, y = (matrix[i, 0] * cols + matrix[i, 1] * rows + matrix[i, 2] - 0.5 for i in range(2))
    result = bilinear(values, matrix, shape)
    assert result.dtype == np.float32
    for band, got in zip(values.astype(np.float64), result, strict=True):
        np.testing.assert_allclose(got, map_coordinates(band, [y, x], order=1, mode="nearest"), atol=1e-6)


def test_the_parts_it_works_in_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).uniform(size=(2, 90, 80)).astype(np.float32)
    matrix = np.array([[0.99, 0.02, 1.3], [-0.02, 1.01, 4.7]])
    whole = bilinear(values, matrix, (70, 66))
    monkeypatch.setattr(kernel, "_AT_ONCE", 1)
    assert bilinear(values, matrix, (70, 66)).tobytes() == whole.tobytes()


def test_what_is_constant_stays_so() -> None:
    values = np.full((1, 9, 9), 0.1, np.float32)
    assert (bilinear(values, np.array([[0.3, 0.1, -2], [0.05, 0.4, 1]]), (30, 30)) == np.float32(0.1)).all()
