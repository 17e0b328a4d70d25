"""The plan of a training: steps, rates, and which samples a step takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopt_geo.training.config import OptimisationConfig
from gopt_geo.training.schedule import Plan, StepSampler, noise_seed, step_samples


@pytest.mark.brief
@given(
    schedule=st.sampled_from(["cosine", "poly", "constant"]),
    steps=st.integers(1, 300),
    warmup=st.integers(0, 300),
)
def test_rates_rise_then_fall_and_never_vanish(schedule: str, steps: int, warmup: int) -> None:
    config = OptimisationConfig(steps=steps, warmup_steps=min(warmup, steps), schedule=schedule, learning_rate=0.5)
    plan = Plan.of(config, rounds=10)
    rates = [plan.rate_at(step) for step in range(steps)]
    assert all(0 < rate <= 0.5 for rate in rates)
    assert max(rates) == pytest.approx(0.5)
    up, down = rates[: plan.warmup], rates[plan.warmup :]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    if schedule == "constant":
        assert all(rate == 0.5 for rate in down)


def test_what_is_left_open() -> None:
    plan = Plan.of(OptimisationConfig(), rounds=100)
    assert (plan.steps, plan.warmup, plan.validate_every, plan.checkpoint_every) == (2000, 100, 200, 200)
    plan = Plan.of(OptimisationConfig(epochs=3, warmup_epochs=1, batch=8, devices=2), rounds=100)
    assert (plan.steps, plan.warmup) == (21, 7)  # 100 samples in steps of 16


@pytest.mark.parametrize(
    ("labelled", "accumulate", "batch", "passes"),
    [
        (1.0, None, 8, 1),
        (0.5, None, 8, 1),
        (0.49, None, 16, 2),
        (0.25, None, 16, 2),
        (0.24, None, 24, 3),
        (0.0, None, 24, 3),
        (0.1, 4, 24, 12),
    ],
)
def test_sparse_labels_make_larger_steps_in_passes_that_are_no_larger(
    labelled: float, accumulate: int | None, batch: int, passes: int
) -> None:
    config = OptimisationConfig(accumulate=accumulate, epochs=1)
    plan = Plan.of(config, rounds=96, labelled=labelled)
    assert (plan.batch, plan.passes, plan.steps) == (batch, passes, 96 // batch)


def test_a_batch_that_is_asked_for_is_taken() -> None:
    plan = Plan.of(OptimisationConfig(batch=6, accumulate=3), rounds=1, labelled=0.01)
    assert (plan.batch, plan.passes) == (6, 3)
    assert Plan.of(OptimisationConfig(batch=6), rounds=1, labelled=0.01).passes == 1


def test_the_last_step_is_validated_and_saved() -> None:
    plan = Plan.of(OptimisationConfig(steps=10, validate_every=4, checkpoint_every=3), rounds=1)
    assert [done for done in range(1, 11) if plan.validates(done)] == [4, 8, 10]
    assert [done for done in range(1, 11) if plan.saves(done)] == [3, 6, 9, 10]


@given(batch=st.integers(1, 5), world=st.integers(1, 4), start=st.integers(0, 6))
def test_every_sample_comes_once_whoever_takes_it_and_wherever_it_is_gone_on(
    batch: int, world: int, start: int
) -> None:
    steps = 9
    taken = [n for step in range(steps) for rank in range(world) for n in step_samples(step, batch, rank, world)]
    assert taken == list(range(steps * batch * world))
    later = [n for rank in range(world) for part in StepSampler(start, steps, batch, rank, world) for n in part]
    assert sorted(later) == taken[start * batch * world :]
    assert len(StepSampler(start, steps, batch)) == steps - start


def test_seeds_of_the_models_own_draws() -> None:
    seeds = {noise_seed(seed, number) for seed in range(3) for number in range(50)}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert noise_seed(1, 2) == noise_seed(1, 2)
