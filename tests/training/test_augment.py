"""Augmentation of training tiles: what each change does, and what it must never do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gopt_geo.errors import DatasetError
from gopt_geo.training.augment import Augmentation, make_augmentation, resize, turn
from gopt_geo.training.config import AugmentationConfig

UNITS = {"optical": "reflectance", "sar": "db"}
SPREAD = {"optical": (0.1, 0.1), "sar": (4.0,)}
OFF = {"symmetry": "none", "brightness": 0.0, "offset": 0.0, "clouds": 0.0, "dropout": {"optical": 0.0}}


def sample_of(height: int = 24, width: int = 24, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return {
        "optical": torch.from_numpy(rng.uniform(0.1, 0.9, (2, height, width)).astype(np.float32)),
        "validity_optical": torch.ones(height, width, dtype=torch.bool),
        "sar": torch.from_numpy(rng.normal(-12, 4, (1, height, width)).astype(np.float32)),
        "validity_sar": torch.ones(height, width, dtype=torch.bool),
        "mask": torch.from_numpy(rng.integers(0, 4, (height, width))),
    }


def augmentation(**changes: Any) -> Augmentation:
    return make_augmentation(AugmentationConfig.model_validate(OFF | changes), UNITS, SPREAD)


def draws(count: int, **changes: Any) -> list[dict[str, torch.Tensor]]:
    apply = augmentation(**changes)
    return [apply(sample_of(), np.random.default_rng((1, i))) for i in range(count)]


@pytest.mark.brief
def test_the_eight_symmetries_differ_and_keep_pixels_together() -> None:
    sample = sample_of(8, 8)
    sample["mask"] = torch.arange(64).reshape(8, 8)
    sample["sar"] = sample["mask"][None].float()
    turned = [turn(sample, number) for number in range(8)]
    assert len({tuple(one["mask"].flatten().tolist()) for one in turned}) == 8
    assert all(torch.equal(one["sar"][0], one["mask"].float()) for one in turned)
    assert [tuple(turn(sample_of(4, 6), n)["mask"].shape) for n in range(8)] == [(4, 6)] * 2 + [(6, 4)] * 2 + [
        (4, 6)
    ] * 2 + [(6, 4)] * 2
    mirrored = turn(sample, 1)["mask"]
    assert torch.equal(mirrored, sample["mask"].flip(-1))


def test_nothing_asked_for_changes_nothing() -> None:
    for after in draws(5):
        assert all(torch.equal(after[key], value) for key, value in sample_of().items())


def test_brightness_is_one_factor_and_offset_one_step_in_std() -> None:
    before = sample_of()
    factors, steps = [], []
    for after in draws(300, brightness=0.05, offset=0.5):
        ratio = after["optical"] / before["optical"]
        assert ratio.std() < 1e-5
        factors.append(float(ratio.mean().log()))
        step = after["sar"] - before["sar"]
        assert step.std() < 1e-5
        steps.append(float(step.mean()) / 4)
    assert np.std(factors) == pytest.approx(0.05, rel=0.2)
    assert np.std(steps) == pytest.approx(0.5, rel=0.2)


@pytest.mark.brief
def test_speckle_is_gamma_in_power() -> None:
    before = sample_of(64, 64)
    looks = 4.0
    apply = augmentation(speckle=looks)
    after = apply(before, np.random.default_rng(0))
    power = 10 ** ((after["sar"] - before["sar"]) / 10)
    assert float(power.mean()) == pytest.approx(1, abs=0.02)
    assert float(power.var()) == pytest.approx(1 / looks, rel=0.1)
    linear = make_augmentation(
        AugmentationConfig.model_validate(OFF | {"speckle": looks}), UNITS | {"sar": "power"}, SPREAD
    )
    doubled = linear({**before, "sar": torch.full_like(before["sar"], 2.0)}, np.random.default_rng(0))["sar"] / 2
    assert torch.allclose(doubled, power, rtol=1e-3)


def test_clouds_hide_optical_pixels_alone_and_in_patches() -> None:
    shares = []
    for after in draws(200, clouds=1.0):
        assert after["validity_sar"].all()
        assert (after["optical"][:, ~after["validity_optical"]] == 0).all()
        assert torch.equal(after["mask"], sample_of()["mask"])  # SAR shows the ground below
        shares.append(1 - float(after["validity_optical"].float().mean()))
    assert 0.25 < np.mean(shares) < 0.5
    assert sum(not one["validity_optical"].all() for one in draws(200, clouds=0.25)) in range(25, 80)


@pytest.mark.brief
def test_dropout_never_takes_both() -> None:
    gone = {"optical": 0, "sar": 0}
    for after in draws(600, dropout={"optical": 0.3, "sar": 0.2}):
        there = {name: bool(after[f"validity_{name}"].any()) for name in gone}
        assert any(there.values())
        for name in gone:
            gone[name] += not there[name]
            assert there[name] or (after[name] == 0).all()
        assert torch.equal(after["mask"], sample_of()["mask"])
    assert gone["optical"] / 600 == pytest.approx(0.3, abs=0.06)
    assert gone["sar"] / 600 == pytest.approx(0.2, abs=0.06)
    usual = make_augmentation(AugmentationConfig(), UNITS, SPREAD)
    assert usual.dropout == {"optical": 0.15, "sar": 0.15}
    assert make_augmentation(AugmentationConfig(), {"optical": "raw"}, {}).dropout == {}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_label_that_something_shows_is_always_left(seed: int) -> None:
    """SAR covers a corner, the only label lies outside of it: neither clouds nor dropout may take what shows it."""
    sample = sample_of(seed=seed)
    sample["validity_sar"][8:] = False
    sample["sar"] = torch.where(sample["validity_sar"], sample["sar"], 0.0)
    sample["mask"] = torch.full_like(sample["mask"], 255)
    sample["mask"][20, 20] = 1
    after = augmentation(clouds=1.0, dropout={"optical": 0.9, "sar": 0.1})(sample, np.random.default_rng(seed))
    assert after["mask"][20, 20] == 1
    assert after["validity_optical"][20, 20]


def test_labels_that_nothing_shows_any_more_are_ignored() -> None:
    sample = sample_of()
    sample["validity_sar"][:, 12:] = False
    after = augmentation(dropout={"optical": 1.0})(sample, np.random.default_rng(0))
    assert (after["mask"][:, 12:] == 255).all()
    assert (after["mask"][:, :12] != 255).all()


@settings(max_examples=30, deadline=None)
@given(height=st.integers(3, 40), width=st.integers(3, 40), to=st.integers(4, 32))
def test_resizing_keeps_invalid_values_out(height: int, width: int, to: int) -> None:
    sample = sample_of(height, width)
    sample["optical"] = torch.full_like(sample["optical"], 0.25)
    sample["validity_optical"][: height // 2] = False
    sample["optical"][:, : height // 2] = 9e9  # as if a reader left something there
    sample["validity_sar"][:] = False
    after = resize(sample, (to, to))
    valid = after["validity_optical"]
    assert after["mask"].shape == valid.shape == (to, to)
    assert torch.allclose(after["optical"][:, valid], torch.tensor(0.25), atol=1e-5)
    assert (after["optical"][:, ~valid] == 0).all()
    assert (after["mask"][~valid] == 255).all()
    assert set(after["mask"].unique().tolist()) <= {0, 1, 2, 3, 255}


def test_scales_are_even_in_the_logarithm() -> None:
    apply = augmentation(scales=(0.5, 2.0))
    found = [apply.scale(np.random.default_rng((2, i))) for i in range(500)]
    assert min(found) >= 0.5
    assert max(found) <= 2
    assert np.mean(np.log(found)) == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize(
    ("changes", "units", "found"),
    [
        ({"dropout": {"nir": 0.1}}, UNITS, "there is no modality nir; use optical, sar"),
        ({"dropout": {"optical": 0.1}}, {"optical": "raw"}, "optical is the only modality"),
        ({"speckle": 3.0}, UNITS | {"sar": "raw"}, "no modality is in dB or power"),
    ],
)
def test_what_makes_no_sense(changes: dict[str, Any], units: dict[str, str], found: str) -> None:
    with pytest.raises(DatasetError, match=found):
        make_augmentation(AugmentationConfig.model_validate(OFF | changes), units, SPREAD)
