"""How many units, and how many of each stratum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gopt_geo.assessment.allocation import allocate, expected_accuracies, required_units
from gopt_geo.errors import SampleError

WEIGHTS = np.array([0.02, 0.015, 0.32, 0.645])  # Olofsson et al. (2014), section 5.1
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])


@pytest.mark.brief
def test_the_published_size() -> None:
    assert required_units(PIXELS, WEIGHTS, np.array([0.7, 0.6, 0.9, 0.95]), 0.01) == 641


def test_a_small_map_needs_fewer() -> None:
    few, many = (required_units(PIXELS // by, WEIGHTS, np.full(4, 0.8), 0.01) for by in (2000, 1))
    assert many == 1600  # (0.4 / 0.01)^2
    assert few < 0.8 * many
    spread, n = 0.16, few  # the standard error of a simple sample of n of 5000, with the finite population correction
    assert spread / n * (1 - n / 5000) == pytest.approx(0.01**2, rel=2e-3)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=8),
    st.integers(1, 3000),
    st.sampled_from(["proportional", "equal", "olofsson"]),
    st.integers(2, 80),
)
def test_sums_and_limits(pixels: list[int], total: int, method, minimum: int) -> None:
    sizes = np.array(pixels)
    floors = np.minimum(minimum, sizes)
    if not floors.sum() <= total <= sizes.sum():
        with pytest.raises(SampleError):
            allocate(total, sizes, sizes / sizes.sum(), method, minimum)
        return
    units = allocate(total, sizes, sizes / sizes.sum(), method, minimum)
    assert units.sum() == total
    assert np.all(units >= floors)
    assert np.all(units <= sizes)
    free = (units > floors) & (units < sizes)
    ideal = np.ones(len(sizes)) if method == "equal" else sizes / sizes.sum()
    ratio = units[free] / ideal[free]
    if free.sum() > 1:  # those that no limit holds share in proportion, to a unit
        assert np.all(np.abs(units[free] - ideal[free] * np.median(ratio)) <= 1 + 0.5 * ideal[free] / ideal[free].min())


@pytest.mark.brief
def test_the_three_ways() -> None:
    assert allocate(640, PIXELS, WEIGHTS, "equal").tolist() == [160] * 4
    assert allocate(1000, PIXELS, WEIGHTS, "proportional").tolist() == [20, 15, 320, 645]
    units = allocate(641, PIXELS, WEIGHTS, "olofsson")
    assert units.tolist()[:2] == [50, 50]
    assert units[2] / units[3] == pytest.approx(0.32 / 0.645, rel=0.01)
    assert allocate(641, PIXELS, WEIGHTS, "olofsson", 75).tolist()[:2] == [75, 75]


def test_a_stratum_smaller_than_the_minimum_is_taken_whole() -> None:
    assert allocate(200, np.array([7, 10_000]), np.array([0.0007, 0.9993])).tolist() == [7, 193]


@pytest.mark.parametrize(
    ("total", "method", "minimum", "message"),
    [
        (100, "olofsson", None, "-n: 100 units don't suffice for 4 strata of at least 50; ask for 200 or more"),
        (10**8, "equal", None, "-n: 100000000 units of 10000000 pixels"),
        (500, "optimal", None, "--allocation: 'optimal' is unknown"),
        (500, "olofsson", 1, "--minimum: 1 units can't tell a variance"),
    ],
)
def test_refused(total: int, method, minimum: int | None, message: str) -> None:
    with pytest.raises(SampleError) as caught:
        allocate(total, PIXELS, WEIGHTS, method, minimum)
    assert str(caught.value).startswith(message)


CLASSES = {1: "water", 4: "forest"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.8", [0.8, 0.8]),
        ("water=0.9, 0.7", [0.9, 0.7]),
        ("4=0.6,1=0.95", [0.95, 0.6]),
        ("forest=1,0.5", [0.5, 1.0]),
        ("Forest=1, WATER =0.5", [0.5, 1.0]),
    ],
)
def test_expected_accuracies(text: str, expected: list[float]) -> None:
    assert expected_accuracies(text, CLASSES).tolist() == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("high", "'high' gives no accuracy"),
        ("85", "'85' gives no accuracy"),
        ("water=", "'water=' gives no accuracy"),
        ("sea=0.5", r"'sea' is no class of the map; choose from water \(1\), forest \(4\)"),
        ("forst=0.5", "'forst' is no class of the map; did you mean 'forest'"),
        ("water=0.5", "forest: no accuracy is given"),
        ("nan", "'nan' gives no accuracy"),
    ],
)
def test_expected_accuracies_refused(text: str, found: str) -> None:
    with pytest.raises(SampleError, match=found):
        expected_accuracies(text, CLASSES)


@pytest.mark.parametrize("target", [0, -0.1, 0.5, float("nan")])
def test_targets_out_of_range(target: float) -> None:
    with pytest.raises(SampleError, match="--target-se"):
        required_units(PIXELS, WEIGHTS, np.full(4, 0.8), target)


def test_perfect_accuracy_needs_no_sample() -> None:
    with pytest.raises(SampleError, match="nothing to estimate"):
        required_units(PIXELS, WEIGHTS, np.ones(4), 0.01)
