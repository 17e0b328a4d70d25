"""Training crops, class weights and the training loop, on a small scene and a tiny model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from gopt_geo.models import Backbone, GoPT, GoptConfig
from gopt_geo.models.backbone import build_vit
from gopt_geo.training.crops import Batch, CropSampler, Faults, SceneStore
from gopt_geo.training.fit import class_weights, fit

SIZE = 32
ALL_FAULTS = Faults(cloudy=0.5, no_optical=0.2, no_sar=0.2, half_sar=0.3)


@pytest.fixture(scope="module")
def store():
    return SceneStore((9101, 9104), size=96)


def sampler_of(store, *, faults=ALL_FAULTS, seed=3, batch=4):
    statistics = {name: store.statistics(name) for name in ("optical", "sar")}
    return CropSampler(store, statistics, size=SIZE, batch=batch, faults=faults, seed=seed)


def same(a, b):
    return (
        all(torch.equal(a.images[n], b.images[n]) and torch.equal(a.valid[n], b.valid[n]) for n in a.images)
        and a.images.keys() == b.images.keys()
        and torch.equal(a.labels, b.labels)
    )


@pytest.mark.brief
def test_a_batch_depends_on_seed_and_index_alone(store):
    sampler = sampler_of(store)
    wanted = sampler(5)
    sampler(0)
    assert same(sampler(5), wanted)
    assert same(sampler_of(store)(5), wanted)
    assert not same(sampler(6), wanted)
    assert not same(sampler_of(store, seed=4)(5), wanted)


def test_shapes_and_types(store):
    batch = sampler_of(store)(0)
    for name in ("optical", "sar"):
        assert batch.images[name].shape == (4, 3, SIZE, SIZE)
        assert batch.images[name].dtype == torch.float32
        assert torch.isfinite(batch.images[name]).all()
        assert batch.valid[name].shape == (4, SIZE, SIZE)
        assert batch.valid[name].dtype == torch.bool
    assert batch.labels.shape == (4, SIZE, SIZE)
    assert batch.labels.dtype == torch.int64


@pytest.mark.brief
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=st.integers(0, 10**6), shares=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_no_crop_lacks_both_modalities(store, index, shares):
    cloudy, *rest = shares
    no_optical, no_sar, half_sar = (s / max(sum(rest), 1) for s in rest)
    faults = Faults(cloudy=cloudy, no_optical=no_optical, no_sar=no_sar, half_sar=half_sar)
    batch = sampler_of(store, faults=faults)(index)
    assert (batch.valid["optical"] | batch.valid["sar"]).flatten(1).any(1).all()


def test_faults_are_as_frequent_as_asked(store):
    sampler = sampler_of(store, batch=16)
    batches = [sampler(i) for i in range(40)]
    optical, sar = (torch.cat([b.valid[n] for b in batches]).flatten(1) for n in ("optical", "sar"))
    shares = {
        "no optical": (~optical).all(1),
        "no sar": (~sar).all(1),
        "half sar": sar.any(1) & ~sar.all(1),
        "cloudy": optical.any(1) & ~optical.all(1),
    }
    expected = {"no optical": 0.2, "no sar": 0.2, "half sar": 0.3, "cloudy": 0.5 * 0.8}
    for name, crops in shares.items():
        assert float(crops.float().mean()) == pytest.approx(expected[name], abs=0.08), name
    none = sampler_of(store, faults=Faults())(0)
    assert all(v.all() for v in none.valid.values())


@pytest.mark.brief
def test_images_and_labels_turn_together(store):
    """A store whose images are its labels: what the sampler makes of one it must make of the other."""
    coded = SceneStore.__new__(SceneStore)
    rng = np.random.default_rng(0)
    coded.labels = rng.integers(0, 200, (2, 64, 64)).astype(np.uint8)
    coded.optical = np.repeat(coded.labels[:, None], 3, axis=1).astype(np.float16)
    coded.sar = coded.labels[:, None].astype(np.float16)
    statistics = dict.fromkeys(("optical", "sar"), ((0.0,) * 3, (1.0,) * 3))
    sampler = CropSampler(coded, statistics, size=SIZE, batch=16, faults=Faults(), seed=0)
    pieces = {
        coded.labels[s, r : r + SIZE, c : c + SIZE].tobytes() for s in (0, 1) for r in range(33) for c in range(33)
    }
    orientations = set()
    for index in range(4):
        batch = sampler(index)
        for i in range(16):
            labels = batch.labels[i].float()
            optical, sar = batch.images["optical"][i], batch.images["sar"][i]
            assert torch.equal(optical[0], optical[2])
            assert torch.equal((optical[0] / optical[0].max() * labels.max()).round(), labels)  # up to its brightness
            torch.testing.assert_close(sar[1] - sar[1].min(), labels - labels.min(), rtol=0, atol=1e-3)
            flat = batch.labels[i].numpy().astype(np.uint8)
            for turns in range(4):
                for flip in (False, True):
                    back = np.rot90(flat[:, ::-1] if flip else flat, -turns)
                    if back.tobytes() in pieces:
                        orientations.add((turns, flip))
    assert len(orientations) == 8


def test_statistics_normalise_the_crops(store):
    mean, std = store.statistics("optical")
    values = store.optical.astype(np.float64)
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)))
    np.testing.assert_allclose(std, values.std((0, 2, 3)))
    sar_mean, _ = store.statistics("sar")
    assert sar_mean == (sar_mean[0],) * 3
    assert -25 < sar_mean[0] < 0
    sampler = sampler_of(store, batch=64)
    images = torch.cat([sampler(i).images["sar"] for i in range(4)])
    assert abs(float(images.mean())) < 0.3
    assert float(images.std()) == pytest.approx(1, abs=0.3)


@pytest.mark.brief
def test_class_weights_grow_with_rarity_and_keep_the_mean_loss():
    shares = np.array([0.7, 0.2, 0.1, 0.0])
    weights = class_weights(shares).numpy()
    assert (np.diff(weights) > 0).all()
    assert np.isfinite(weights).all()
    assert (weights * shares).sum() == pytest.approx(1, rel=1e-6)
    assert weights[1] / weights[0] == pytest.approx((0.7 / 0.2) ** 0.3, rel=1e-5)
    assert class_weights(shares, power=0).numpy() == pytest.approx(np.ones(4))


def tiny_model():
    torch.manual_seed(0)
    vit = build_vit(
        {"img_size": SIZE, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "class_token": False}
    )
    return GoPT(Backbone(vit, "test"), GoptConfig(classes=7, rank=8, hidden=16))


def run(model, store, steps, **more):
    torch.manual_seed(0)
    weights = class_weights(store.class_shares(7))

    def forward(batch):
        return model(batch.images, batch.valid)

    return fit(model, forward, sampler_of(store), steps=steps, rate=3e-3, weights=weights, **more)


@pytest.mark.brief
def test_training_lowers_the_loss_and_touches_only_what_is_trained(store):
    model = tiny_model()
    digest = model.backbone.digest()
    before = {n: t.clone() for n, t in model.trainable_state().items()}
    start, end = run(tiny_model(), store, 2), run(model, store, 40)
    assert end < 0.9 * start
    assert model.backbone.digest() == digest
    assert not model.training
    assert [n for n, t in model.trainable_state().items() if torch.equal(t, before[n])] == []


def test_training_is_the_same_for_the_same_seed(store):
    first, again = tiny_model(), tiny_model()
    assert run(first, store, 4) == run(again, store, 4)
    assert all(torch.equal(t, again.trainable_state()[n]) for n, t in first.trainable_state().items())


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 10, 11, 20, 21])
def test_any_number_of_steps_has_a_schedule(steps):
    """Ten steps have a warm-up of one, which the schedule of torch can't do by itself."""
    layer = nn.Linear(1, 2)

    def sampler(index):
        return Batch({}, {}, torch.zeros(1, 1, 1, dtype=torch.long))

    def forward(batch):
        return layer(torch.ones(1, 1, 1, 1)).permute(0, 3, 1, 2)

    assert np.isfinite(fit(layer, forward, sampler, steps=steps, rate=1e-2, weights=torch.ones(2)))


def test_a_loss_that_is_not_finite_stops_the_training():
    layer = nn.Linear(1, 2)

    def forward(batch):
        return layer(torch.ones(1, 1, 2, 1)).permute(0, 3, 1, 2)

    def train(labels):
        sampler = [Batch({}, {}, torch.tensor([[labels]]))].__getitem__
        return fit(layer, forward, sampler, steps=1, rate=1e-2, weights=torch.ones(2))

    assert np.isfinite(train([255, 0]))
    with pytest.raises(FloatingPointError, match="step 0"):
        train([255, 255])  # no label at all: the mean over nothing
