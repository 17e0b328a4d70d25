"""Promise 2: a model that returns its input gives it back; every pixel is delivered once; nodata (promise 6)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gopt_geo.grid import Window
from gopt_geo.inference import TileOptions, run_tiles

sizes = st.integers(1, 75)
KINDS = st.sampled_from(["hann", "linear", "gaussian", "none"])


@st.composite
def settings_of_tiles(draw):
    tile = draw(st.integers(1, 33))
    return {
        "tile_size": tile,
        "overlap": draw(st.integers(0, tile // 2)),
        "batch_size": draw(st.integers(1, 9)),
        "blend": draw(KINDS),
        "readers": draw(st.integers(1, 3)),
    }


@pytest.mark.brief
@settings(max_examples=80, deadline=None)
@given(sizes, sizes, settings_of_tiles(), st.integers(0, 2**32 - 1))
@example(1, 1, {"tile_size": 33, "overlap": 16, "batch_size": 8, "blend": "hann", "readers": 1}, 0)
def test_classes_exactly_and_floats_to_a_millionth(kit, height, width, options, seed):
    if height * width > 40 * options["tile_size"] ** 2:
        options = options | {"tile_size": options["tile_size"] + 12}
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 5, (1, height, width))
    canvas, report = kit.run(kit.Source({"optical": classes}), kit.one_hot(5), **options)
    assert (canvas.count == 1).all()
    assert canvas.valid.all()
    assert (canvas.probabilities.argmax(0) == classes[0]).all()
    np.testing.assert_allclose(canvas.probabilities.sum(0), 1, rtol=1e-6)
    assert report.forwarded == report.tiles

    floats = (rng.normal(size=(2, height, width)) * 10.0 ** rng.integers(-6, 6, (2, height, width))).astype("f4")
    canvas, _ = kit.run(kit.Source({"optical": floats}), kit.copy_values(2), **options)
    np.testing.assert_allclose(canvas.probabilities, floats, rtol=1e-6)


def test_all_batches_have_the_full_size(kit):
    model = kit.one_hot(3)
    _, report = kit.run(kit.Source({"optical": np.zeros((1, 50, 30))}), model, tile_size=16, overlap=4, batch_size=4)
    assert set(model.batches) == {4}
    assert report.batches == len(model.batches)
    assert report.tiles == 4 * 3
    assert report.batches == 3


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), settings_of_tiles(), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_validity_passes_through_and_empty_tiles_are_not_forwarded(kit, height, width, options, seed, share):
    options["tile_size"] += 4
    rng = np.random.default_rng(seed)
    coarse = rng.random((-(-height // 11), -(-width // 11))) < share
    valid = {name: np.kron(rng.random(coarse.shape) < share, np.ones((11, 11), bool))[:height, :width] for name in "ab"}
    valid = {"optical": valid["a"], "sar": valid["b"]}
    truth = {name: rng.normal(size=(1, height, width)) * mask for name, mask in valid.items()}
    seen = []

    def function(values, masks):
        for slot in range(len(masks["optical"])):
            seen.append(bool((masks["optical"][slot] | masks["sar"][slot]).any()))
        for name in masks:  # values arrive with their masks
            assert (values[name][:, 0][~masks[name]] == 0).all()
        return torch.where(masks["optical"][:, None], values["optical"], 100 + values["sar"])

    canvas, report = kit.run(kit.Source(truth, valid), kit.Model(1, function, ("optical", "sar")), **options)
    either = valid["optical"] | valid["sar"]
    assert (canvas.count == 1).all()
    assert (canvas.valid == either).all()
    assert report.complete_share == (valid["optical"] & valid["sar"]).mean()
    assert (canvas.probabilities[:, ~either] == 0).all()
    expected = np.where(valid["optical"], truth["optical"][0], 100 + truth["sar"][0])
    np.testing.assert_allclose(canvas.probabilities[0][either], expected[either].astype("f4"), rtol=1e-6)
    assert all(seen)
    assert report.forwarded + report.skipped == report.tiles
    if not either.any():
        assert report.batches == 0


def test_half_an_empty_scene_costs_half_the_batches(kit):
    shape = (320, 320)
    swath = np.zeros(shape, bool)
    rows, cols = np.indices(shape)
    whole = {"optical": np.ones(shape, bool)}
    patterns = {"left": cols < 160, "top": rows < 160, "swath": np.abs(rows - cols + 30) < 70}
    model = kit.one_hot(2)
    options = {"tile_size": 16, "overlap": 0, "batch_size": 4}
    zeros = {"optical": np.zeros((1, *shape))}
    _, full = kit.run(kit.Source(zeros, whole), model, **options)
    assert full.batches == 100
    for name, swath in patterns.items():
        _, report = kit.run(kit.Source(zeros, {"optical": swath}), model, **options)
        assert report.batches <= 1.05 * -(-report.forwarded // 4) + 1, name
        assert report.skipped >= 120


def test_a_modality_the_source_lacks_is_left_out(kit):
    seen = []

    def function(values, valid):
        seen.append((tuple(values), tuple(valid)))
        return values["optical"]

    source = kit.Source({"optical": np.ones((1, 9, 9)), "nir": np.ones((1, 9, 9))})
    kit.run(source, kit.Model(1, function, ("optical", "sar")), tile_size=8, overlap=2)
    assert set(seen) == {(("optical",), ("optical",))}
    with pytest.raises(ValueError, match="the model takes sar, the source has optical"):
        kit.run(source, kit.Model(1, function, ("sar",)), tile_size=8, overlap=2)


def test_rows_are_the_sinks_to_keep(kit):
    kept = []
    values = np.arange(40 * 24, dtype=np.float32).reshape(1, 40, 24)
    run_tiles(
        kit.Source({"optical": values}),
        kit.copy_values(1),
        TileOptions(tile_size=8, overlap=2),
        sink=kept.append,
    )
    np.testing.assert_allclose(np.concatenate([rows.probabilities for rows in kept], 1), values, rtol=1e-6)
    assert [rows.window.row for rows in kept] == sorted(rows.window.row for rows in kept)
    assert kept[0].window == Window(0, 0, 6, 24)


def test_progress_counts_every_tile(kit):
    heard = []
    valid = np.zeros((30, 30), bool)
    valid[:8, :8] = True
    kit.run(
        kit.Source({"optical": np.zeros((1, 30, 30))}, {"optical": valid}),
        kit.one_hot(2),
        tile_size=8,
        overlap=0,
        progress=heard.append,
    )
    assert [p.done for p in heard] == list(range(1, 17))
    assert {p.total for p in heard} == {16}
    assert heard[-1].forwarded == 1
