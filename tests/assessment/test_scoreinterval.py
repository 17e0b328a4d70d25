"""The score interval of weighted sums of shares against enumeration, and what must hold of any interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binom

from gopt_geo.assessment.scoreinterval import normal_quantile, score_interval, score_probability
from gopt_geo.assessment.weightedsums import constrained_shares, tails

ONE = np.ones(1)


def _mid_p(values: np.ndarray, probabilities: np.ndarray, distance: float, middle: float) -> float:
    """P(|T - middle| > distance) + P(|T - middle| = distance) / 2."""
    away = np.abs(values - middle) - distance
    equal = np.abs(away) < 1e-12
    return float(probabilities[(away > 0) & ~equal].sum() + probabilities[equal].sum() / 2)


def _of_one(right: int, n: int, whole: float) -> float:
    k = np.arange(n + 1)
    return _mid_p(k / n, binom.pmf(k, n, whole), abs(right / n - whole), whole)


@pytest.mark.brief
@pytest.mark.parametrize(("right", "n"), [(0, 50), (3, 50), (25, 50), (50, 50), (1, 2), (37, 400)])
def test_of_one_stratum_it_is_the_exact_binomial_test(right: int, n: int) -> None:
    """Where no other count is as far from the asked share, but for the blur of an eighth of a standard deviation."""
    asked = np.linspace(0.001, 0.999, 400)
    found = score_probability(np.full((1, 400), right / n), np.array([float(n)]), ONE, asked)
    compared = 0
    for share, probability in zip(asked, found, strict=True):
        deviation = np.sqrt(n * share * (1 - share))
        mirrored = 2 * n * share - right
        nearest = min((abs(k - mirrored) for k in range(n + 1) if k != right), default=9.0)
        apart = min(nearest, 1, 2 * abs(n * share - right))
        if apart > 0.5 * deviation or (apart == nearest and abs(nearest - 0.5) < 0.02):
            compared += 1
            assert probability == pytest.approx(_of_one(right, n, share), abs=8e-3)
    assert compared > 5


@pytest.mark.parametrize(("right", "n"), [(0, 40), (1, 50), (3, 50), (40, 40), (12, 80)])
def test_the_ends_of_one_stratum_against_a_search(right: int, n: int) -> None:
    lower, upper = score_interval(np.array([right / n]), np.array([float(n)]), ONE, 0.95)
    asked = np.linspace(1e-4, 1 - 1e-4, 5_000)
    accepted = [share for share in asked if _of_one(right, n, share) >= 0.05]
    assert float(lower) == pytest.approx(min(accepted) if right else 0, abs=0.006)
    assert float(upper) == pytest.approx(max(accepted) if right < n else 1, abs=0.006)


def _all_pairs(units: list[int], weights: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All values of the sum over two strata, and their probabilities."""
    counts = [np.arange(n + 1) for n in units]
    first, second = (binom.pmf(k, n, p) for k, n, p in zip(counts, units, shares, strict=True))
    values = weights[0] * counts[0][:, None] / units[0] + weights[1] * counts[1][None] / units[1]
    return values.ravel(), np.outer(first, second).ravel()


@pytest.mark.brief
@pytest.mark.parametrize("shares", [(0.02, 0.01), (0.95, 0.01), (0.5, 0.3), (1.0, 0.004), (0.9, 0.0)])
@pytest.mark.parametrize("distance", [0.0, 0.9, 1.7, 2.4, 7.0])
def test_the_distribution_of_two_strata_against_all_pairs(shares: tuple[float, float], distance: float) -> None:
    units, weights, true = [60, 90], np.array([0.23, 0.77]), np.array(shares)
    values, probabilities = _all_pairs(units, weights, true)
    deviation = np.sqrt((weights**2 * true * (1 - true) / units).sum())
    found = tails(true[:, None], np.array(units, float), weights / units, np.array([distance * deviation]))
    # The exact function has steps: the blurred one lies between its values a little to the left and to the right.
    nearby = [
        _mid_p(values, probabilities, (distance + by) * deviation, float(weights @ true))
        for by in (-0.35, 0.35)
        if distance + by >= 0
    ]
    assert min(nearby) - 2e-3 <= float(found[0]) <= max([*nearby, float(distance == 0)]) + 2e-3


def test_a_sum_that_many_counts_make_up() -> None:
    """No steps of note there: the probability is the enumerated one."""
    units, weights, true = [400, 700], np.array([0.41, 0.59]), np.array([0.3, 0.12])
    values, probabilities = _all_pairs(units, weights, true)
    deviation = np.sqrt((weights**2 * true * (1 - true) / units).sum())
    for distance in (0.3, 1.0, 1.96, 3.0):
        found = tails(true[:, None], np.array(units, float), weights / units, np.array([distance * deviation]))
        exact = _mid_p(values, probabilities, distance * deviation, float(weights @ true))
        assert float(found[0]) == pytest.approx(exact, abs=3e-3)


@pytest.mark.parametrize("counts", [(0, 0), (2, 0), (0, 4), (5, 7), (60, 0)])
def test_the_shares_are_the_likeliest(counts: tuple[int, int]) -> None:
    """Of two strata: all pairs (p1, p2) on a fine net, the likeliest for each sum."""
    units, weights = np.array([60.0, 90.0]), np.array([0.2, 0.8])
    count = np.array(counts, float)[:, None]
    second = np.linspace(1e-9, 1 - 1e-9, 40_001)
    for whole in (0.004, 0.05, 0.2, 0.6, 0.97):
        first = (whole - 0.8 * second) / 0.2
        keep = (first > 0) & (first < 1)
        pair = np.stack((first[keep], second[keep]))
        likelihood = (count * np.log(pair) + (units[:, None] - count) * np.log1p(-pair)).sum(axis=0)
        found = constrained_shares(count / units[:, None], (weights / units)[:, None], weights, np.array([whole]))
        assert weights @ found[:, 0] == pytest.approx(whole, abs=1e-9)
        assert found[:, 0] == pytest.approx(pair[:, likelihood.argmax()], abs=5e-4)


samples = st.lists(st.tuples(st.integers(2, 80), st.floats(0, 1), st.floats(0.01, 1)), min_size=1, max_size=6).map(
    lambda rows: (
        np.array([np.rint(n * share) / n for n, share, _ in rows]),
        np.array([float(n) for n, _, _ in rows]),
        np.array([w for _, _, w in rows]) / sum(w for _, _, w in rows),
    )
)


@settings(max_examples=30, deadline=None)
@given(samples, st.floats(0.001, 0.999))
def test_what_holds_of_any_sample(sample: tuple[np.ndarray, np.ndarray, np.ndarray], whole: float) -> None:
    shares, units, weights = sample
    estimate = float(weights @ shares)
    lower, upper = (float(end) for end in score_interval(shares, units, weights, 0.95))
    assert 0 <= lower <= estimate + 1e-12
    assert estimate - 1e-12 <= upper <= 1
    mirrored = score_interval(1 - shares, units, weights, 0.95)
    assert (1 - float(mirrored[1]), 1 - float(mirrored[0])) == pytest.approx((lower, upper), abs=1e-6)
    asked = np.array(whole)
    assert float(score_probability(1 - shares, units, weights, 1 - asked)) == pytest.approx(
        float(score_probability(shares, units, weights, asked)), abs=1e-6
    )
    order = np.argsort(shares, kind="stable")
    turned = score_interval(shares[order], units[order], weights[order], 0.95)
    assert (float(turned[0]), float(turned[1])) == pytest.approx((lower, upper), abs=1e-7)


@settings(max_examples=30, deadline=None)
@given(samples, st.floats(0.5, 0.995))
def test_the_ends_solve_the_equation(sample: tuple[np.ndarray, np.ndarray, np.ndarray], level: float) -> None:
    shares, units, weights = sample
    estimate = float(weights @ shares)
    for end, sign in zip(score_interval(shares, units, weights, level), (-1, 1), strict=True):
        inner, outer = end - sign * 1e-8, end + sign * 1e-7
        if abs(float(end) - estimate) > 1e-6:
            assert float(score_probability(shares, units, weights, np.array(inner))) >= 1 - level - 1e-4
        if 0 < outer < 1:
            assert float(score_probability(shares, units, weights, np.array(outer))) < 1 - level + 1e-4


@settings(max_examples=15, deadline=None)
@given(samples)
def test_a_higher_level_makes_no_end_come_nearer(sample: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    ends = [score_interval(*sample, level) for level in (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)]
    assert np.all(np.diff([float(lower) for lower, _ in ends]) <= 1e-8)
    assert np.all(np.diff([float(upper) for _, upper in ends]) >= -1e-8)


def test_the_interval_holds_what_the_test_accepts() -> None:
    """The benchmark asks the test instead of the ends: over 900 samples both say the same of the truth."""
    rng = np.random.default_rng(7)
    differ = 0
    for _ in range(15):
        count = int(rng.integers(2, 8))
        units, weights = rng.integers(20, 120, count).astype(float), rng.dirichlet(np.ones(count))
        true = np.where(np.arange(count) == 0, 0.93, rng.uniform(0, 0.04, count))
        found = np.stack([rng.binomial(int(n), p, 60) / n for n, p in zip(units, true, strict=True)])
        whole = np.full(60, weights @ true)
        accepted = score_probability(found, units, weights, whole) >= 0.05
        lower, upper = score_interval(found, units, weights, 0.95)
        differ += int((accepted != ((lower <= whole) & (whole <= upper))).sum())
    assert differ <= 1  # the accepted sums have a gap in a few of 100,000


def test_a_stratum_of_which_all_was_sampled_is_known() -> None:
    shares, units, weights = np.array([0.3, 0.1]), np.array([10.0, 50.0]), np.array([0.4, 0.6])
    lower, upper = score_interval(shares, units, weights, 0.95, np.array([1.0, 0.0]))
    alone = score_interval(shares[1:], units[1:], ONE, 0.95)
    assert (float(lower), float(upper)) == pytest.approx(
        (0.12 + 0.6 * float(alone[0]), 0.12 + 0.6 * float(alone[1])), abs=1e-6
    )
    both = score_interval(shares, units, weights, 0.95, np.ones(2))
    assert (float(both[0]), float(both[1])) == pytest.approx((0.18, 0.18), abs=1e-8)
    part = score_interval(shares, units, weights, 0.95, np.array([0.5, 0.5]))
    none = score_interval(shares, units, weights, 0.95)
    assert float(part[1] - part[0]) == pytest.approx(float(none[1] - none[0]) * np.sqrt(0.5), rel=0.08)


def test_what_was_found_nowhere_may_be_in_the_heaviest_stratum() -> None:
    """All of the sum goes where a unit weighs most, as the likelihood has it, unless weights are near each other."""
    shares, units, weights = np.zeros(3), np.array([50.0, 80.0, 90.0]), np.array([0.1, 0.7, 0.2])
    upper = float(score_interval(shares, units, weights, 0.95)[1])
    alone = float(score_interval(np.zeros(1), np.array([80.0]), ONE, 0.95)[1])
    assert upper == pytest.approx(0.7 * alone, rel=1e-5)


def _pulled(pull: np.ndarray, weights: np.ndarray, shares: np.ndarray, asked: float) -> np.ndarray:
    """The shares with p^ - p = lambda c p (1 - p) that sum to what is asked, by a search."""

    def at(multiplier: float) -> np.ndarray:
        return np.array(
            [
                brentq(lambda p, s=s, c=c: s - p - c * p * (1 - p), 0, 1)
                for s, c in zip(shares, multiplier * pull, strict=True)
            ]
        )

    return at(brentq(lambda m: weights @ at(m) - asked, -800, 2_000))


@pytest.mark.parametrize(
    ("counts", "units", "found", "asked"),
    [
        ((3, 4), (150, 400), 64 / 13, 0.028),
        ((3, 4), (150, 400), 64 / 13, 0.009),
        ((2, 30), (150, 400), 23.2903226, 0.055),
        ((9, 60), (300, 400), 63.375, 0.12),
    ],
)
@pytest.mark.parametrize("upside_down", [False, True])
def test_unequal_weights_are_drawn_together_where_few_units_were_found(
    counts: tuple[int, int], units: tuple[int, int], found: float, asked: float, upside_down: bool
) -> None:
    """Above the estimate the rare shares rise by drawn weights, the less drawn the more units; below, by their own."""
    weights, shares = np.array([0.6, 0.4]), np.array(counts) / units
    pull = weights / np.array(units)
    if asked > weights @ shares:
        assert (weights @ shares) ** 2 / (weights * pull @ shares) == pytest.approx(found, rel=1e-6)
        pull = pull + 0.5 / (1 + (found / 10) ** 2) * (weights @ pull - pull)
    true = _pulled(pull, weights, shares, asked)
    values, probabilities = _all_pairs(list(units), weights, true)
    exact = _mid_p(values, probabilities, abs(float(weights @ shares) - asked), asked)
    turned, at = (1 - shares, 1 - asked) if upside_down else (shares, asked)
    answer = score_probability(turned, np.array(units, float), weights, np.array(at))
    assert float(answer) == pytest.approx(exact, abs=4e-3)


@pytest.mark.parametrize(("times", "least", "most"), [(1, 0.01, 1.0), (40, 0.0, 1e-3)])
def test_many_units_leave_the_likeliest_shares(times: int, least: float, most: float) -> None:
    units, weights = np.array([800.0, 1000.0, 1200.0]), np.array([0.15, 0.75, 0.1])
    shares = np.array([1, 1, 2]) * times / units
    deviation = np.sqrt((weights**2 / units) @ (shares * (1 - shares)))
    asked = np.array([weights @ shares + 1.5 * deviation])
    fit = constrained_shares(shares[:, None], (weights / units)[:, None], weights, asked)
    likeliest = tails(fit, units, weights / units, asked - weights @ shares)
    found = score_probability(shares, units, weights, asked[0])
    assert least <= abs(float(found) - float(likeliest[0])) <= most


def test_coverage_of_two_strata_by_enumeration() -> None:
    """A class of which 0.3 to 5 units are missed in the large stratum: exact coverages, and those of the plain one."""
    units, weights = np.array([60.0, 90.0]), np.array([0.1, 0.9])
    first, second = (a.ravel() for a in np.meshgrid(np.arange(61), np.arange(91), indexing="ij"))
    shares = np.stack((first / 60, second / 90))
    half = normal_quantile(0.95) * np.sqrt((weights**2 / (units - 1)) @ (shares * (1 - shares)))
    covered, plain = [], []
    for missed in np.linspace(0.3, 5, 30) / 90:
        probability = binom.pmf(first, 60, 0.93) * binom.pmf(second, 90, missed)
        keep, whole = probability > 1e-8, float(weights @ [0.93, missed])
        accepted = score_probability(shares[:, keep], units, weights, np.full(keep.sum(), whole)) >= 0.05
        covered.append(probability[keep][accepted].sum())
        plain.append(probability[np.abs(weights @ shares - whole) <= half].sum())
    assert 0.945 <= np.mean(covered) <= 0.96
    assert min(covered) > 0.92
    assert np.mean(plain) < 0.87


def test_many_questions_at_once() -> None:
    rng = np.random.default_rng(3)
    shares, units, weights = rng.integers(0, 40, (3, 5, 7)) / 40, np.full(3, 40.0), np.array([0.2, 0.3, 0.5])
    lower, upper = score_interval(shares, units, weights, 0.9)
    assert lower.shape == upper.shape == (5, 7)
    one = score_interval(shares[:, 2, 3], units, weights, 0.9)
    assert (float(one[0]), float(one[1])) == pytest.approx((float(lower[2, 3]), float(upper[2, 3])), abs=1e-9)


@pytest.mark.parametrize("level", [0, 1, -1, 95])
def test_levels_that_are_none(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        normal_quantile(level)
    with pytest.raises(ValueError, match="level"):
        score_interval(np.array([0.5]), np.array([10.0]), ONE, level)
