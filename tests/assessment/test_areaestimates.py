"""Area estimates against published figures, hand calculation and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gopt_geo.assessment.areaestimates import Strata, estimate_areas
from gopt_geo.errors import SampleError

# Olofsson et al. (2014), table 8: deforestation, forest gain, stable forest, stable non-forest; 30 m pixels.
OLOFSSON = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
HECTARES = Strata(("deforestation", "gain", "forest", "non-forest"), PIXELS * 0.09)


@pytest.mark.brief
def test_the_published_example() -> None:
    """235,086 pixels of deforestation, -+ 68,418 with z = 1.96: 21,158 ha -+ 6,158 ha; overall accuracy 0.947."""
    in_pixels = estimate_areas(OLOFSSON, Strata(HECTARES.names, PIXELS.astype(float)))
    assert in_pixels.area[0] == pytest.approx(235_086, abs=1)
    assert 1.96 * in_pixels.share_se[0] * 1e7 == pytest.approx(68_418, abs=1)
    found = estimate_areas(OLOFSSON, HECTARES)
    assert found.area == pytest.approx([21_158, 11_686, 285_770, 581_386], abs=1)
    assert (found.plain_upper - found.share) * found.total_area == pytest.approx(
        [6_158, 3_756, 15_510, 16_282], abs=1.5
    )
    assert found.plain_lower == pytest.approx(2 * found.share - found.plain_upper)
    assert found.overall == pytest.approx(0.947, abs=5e-4)
    assert 1.96 * found.overall_se == pytest.approx(0.018, abs=5e-4)
    assert found.users == pytest.approx([0.88, 0.73, 0.93, 0.96], abs=5e-3)
    assert 1.96 * found.users_se == pytest.approx([0.07, 0.10, 0.04, 0.02], abs=5e-3)
    assert found.producers == pytest.approx([0.75, 0.85, 0.93, 0.96], abs=5e-3)
    assert 1.96 * found.producers_se[0] == pytest.approx(0.21, abs=5e-3)
    assert found.proportions[0] == pytest.approx([0.0176, 0, 0.0013, 0.0011], abs=5e-5)
    assert found.mapped_units.tolist() == [75, 75, 165, 325]
    assert found.reference_units.tolist() == [69, 56, 175, 340]


def _producers_variance(matrix: np.ndarray, pixels: np.ndarray, j: int) -> float:
    """Olofsson et al. (2014), eq. 7, as it is printed."""
    n = matrix.sum(axis=1)
    in_reference = float((pixels * matrix[:, j] / n).sum())
    p, u = pixels[j] * matrix[j, j] / n[j] / in_reference, matrix[j, j] / n[j]
    own = pixels[j] ** 2 * (1 - p) ** 2 * u * (1 - u) / (n[j] - 1)
    others = [
        pixels[i] ** 2 * matrix[i, j] / n[i] * (1 - matrix[i, j] / n[i]) / (n[i] - 1) for i in range(len(n)) if i != j
    ]
    return (own + p**2 * sum(others)) / in_reference**2


matrices = (
    st.integers(2, 5)
    .flatmap(lambda k: st.lists(st.lists(st.integers(0, 40), min_size=k, max_size=k), min_size=k, max_size=k))
    .map(np.array)
)


@settings(max_examples=60, deadline=None)
@given(matrices, st.randoms(use_true_random=False))
def test_the_general_form_is_the_papers_where_strata_are_the_maps_classes(matrix: np.ndarray, random) -> None:
    matrix = matrix + 2 * np.eye(len(matrix), dtype=int)
    pixels = np.array([random.randint(10_000, 10**7) for _ in matrix]).astype(float)
    found = estimate_areas(matrix, Strata(tuple("abcde"[: len(matrix)]), pixels))
    for j in range(len(matrix)):
        assert found.producers_se[j] ** 2 == pytest.approx(_producers_variance(matrix, pixels, j), abs=1e-12)
    assert found.share.sum() == pytest.approx(1)
    assert found.proportions.sum() == pytest.approx(1)
    assert np.all((found.lower >= 0) & (found.lower <= found.share) & (found.share <= found.upper + 1e-15))
    assert np.all(found.upper <= 1 + 1e-12)
    assert found.overall_lower <= found.overall <= found.overall_upper
    order = np.random.default_rng(random.randint(0, 9)).permutation(len(matrix))
    turned = estimate_areas(matrix[np.ix_(order, order)], Strata(tuple("abcde"[: len(matrix)]), pixels[order]))
    assert turned.upper == pytest.approx(found.upper[order], rel=1e-9)


def test_strata_of_another_map() -> None:
    """Two old strata, three classes; by hand after Stehman (2014)."""
    counts = np.zeros((2, 3, 3), int)
    counts[0] = [[10, 2, 0], [1, 6, 0], [0, 0, 1]]
    counts[1] = [[3, 0, 1], [0, 5, 1], [0, 2, 28]]
    found = estimate_areas(counts, Strata(("old a", "old b"), np.array([300.0, 700.0])))
    n = (20, 40)
    assert found.share == pytest.approx([0.3 * 11 / 20 + 0.7 * 3 / 40, 0.3 * 8 / 20 + 0.7 * 7 / 40, 0.015 + 0.7 * 0.75])
    assert found.users[0] == pytest.approx((0.3 * 10 / 20 + 0.7 * 3 / 40) / (0.3 * 12 / 20 + 0.7 * 4 / 40))
    values = [
        [1 - found.users[0]] * right + [-found.users[0]] * wrong + [0.0] * rest
        for right, wrong, rest in ((10, 2, 8), (3, 1, 36))
    ]
    variance = sum(w**2 * np.var(v, ddof=1) / m for w, v, m in zip((0.3, 0.7), values, n, strict=True))
    assert found.users_se[0] == pytest.approx(math.sqrt(variance) / (0.3 * 12 / 20 + 0.7 * 4 / 40))


@pytest.mark.brief
def test_a_census_leaves_nothing_open() -> None:
    matrix = np.array([[7, 3], [1, 9]])
    found = estimate_areas(matrix, Strata(("a", "b"), np.array([10.0, 10.0]), np.array([10, 10])))
    assert found.share_se == pytest.approx([0, 0])
    assert found.lower == pytest.approx(found.upper)
    half = estimate_areas(matrix, Strata(("a", "b"), np.array([20.0, 20.0]), np.array([20, 20])))
    none = estimate_areas(matrix, Strata(("a", "b"), np.array([20.0, 20.0])))
    assert half.share_se == pytest.approx(none.share_se * math.sqrt(0.5))
    assert np.all(half.upper - half.lower < none.upper - none.lower)
    one = estimate_areas(np.array([[1, 0], [1, 9]]), Strata(("a", "b"), np.array([1.0, 40.0]), np.array([1, 40])))
    assert one.share[0] == pytest.approx((1 + 4) / 41)


def test_without_an_error_the_plain_interval_is_empty_and_the_score_interval_is_not() -> None:
    found = estimate_areas(np.diag([50, 50]), Strata(("a", "b"), np.array([1.0, 9.0])))
    assert found.plain_lower[0] == found.plain_upper[0] == pytest.approx(0.1)
    assert found.lower[0] < 0.1 - 0.005
    assert found.upper[0] > 0.1 + 0.05


def test_units_count_by_their_pixels_size() -> None:
    weighted = np.array([[30.0, 20.0], [5.5, 44.5]])
    found = estimate_areas(weighted, Strata(("a", "b"), np.array([1.0, 1.0])), units=np.array([[32, 18], [5, 45]]))
    assert found.share[0] == pytest.approx(0.5 * 0.6 + 0.5 * 0.11)
    assert found.reference_units.tolist() == [37, 63]


@pytest.mark.brief
@pytest.mark.parametrize(
    ("matrix", "pixels", "message"),
    [
        ([[0, 0], [3, 50]], None, "stratum a: it has no sampled unit"),
        ([[9, 1], [0, 1]], None, "stratum b: it has one sampled unit"),
        ([[9, 1], [0, 1]], [100, 90], "stratum b: it has one sampled unit"),
        ([[9, 1], [5, 5]], [8, 90], "stratum a: it has 10 sampled units but 8 pixels"),
    ],
)
def test_refused(matrix: list[list[int]], pixels: list[int] | None, message: str) -> None:
    strata = Strata(("a", "b"), np.array([8.0, 90.0]), None if pixels is None else np.array(pixels))
    with pytest.raises(SampleError, match=message):
        estimate_areas(np.array(matrix), strata)


def test_undefined_figures_are_none_in_json() -> None:
    """The map has no third class, and no unit is of it in truth."""
    counts = np.zeros((2, 3, 3), int)
    counts[0, 0, 0], counts[1, 1, 1] = 30, 30
    found = estimate_areas(counts, Strata(("a", "b"), np.array([1.0, 1.0]))).to_dict()
    assert found["users"] == [1.0, 1.0, None]
    assert found["producers"] == [1.0, 1.0, None]
    assert found["upper"][2] > 0.02  # not found in 60 units isn't the same as not there
    assert found["lower"][2] == 0


def test_the_level_widens_the_interval() -> None:
    widths = [
        np.ptp([(f := estimate_areas(OLOFSSON, HECTARES, level=v)).lower[0], f.upper[0]]) for v in (0.8, 0.95, 0.99)
    ]
    assert widths == sorted(widths)
