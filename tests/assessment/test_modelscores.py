"""Models on areas with labels, through the tiler."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from gopt_geo.assessment import confusion_matrix
from gopt_geo.assessment.calibration import Calibration
from gopt_geo.assessment.modelscores import ModelScores, count_tiles, evaluate_model
from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import Window
from gopt_geo.inference import TileOptions

from .helpers import BlurModel, PixelModel, area_of, random_area

OPTIONS = TileOptions(tile_size=32, overlap=8, batch_size=2)


def whole(area):
    block = area.source.read(Window(0, 0, *area.source.shape))
    return torch.softmax(torch.from_numpy(block.values["optical"]), 0).numpy()


@pytest.mark.brief
def test_the_matrix_is_that_of_the_whole():
    area = random_area(0)
    found = evaluate_model(PixelModel(4), [area], 4, OPTIONS, boundary=2)
    labels, predicted = area.labels(area.window), whole(area).argmax(axis=0)
    assert np.array_equal(found.matrix, confusion_matrix(labels, predicted.astype(np.uint8), range(4)))
    assert found.scores.pixels == (labels != 255).sum()
    assert found.boundary is not None
    assert found.boundary_f1 == found.boundary.f1
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["scores"]["mean_iou"] == found.scores.mean_iou
    assert written["calibration"]["pixels"] == found.scores.pixels
    assert written["boundary"]["tolerance_pixels"] == 2


@pytest.mark.brief
def test_calibration_is_that_of_torchmetrics():
    area = random_area(1)
    found = evaluate_model(PixelModel(4), [area], 4, OPTIONS)
    labels = area.labels(area.window)
    probabilities, truth = torch.from_numpy(whole(area)[:, labels != 255].T), torch.from_numpy(labels[labels != 255])
    expected = multiclass_calibration_error(probabilities, truth.long(), num_classes=4, n_bins=15, norm="l1")
    assert found.calibration.ece == pytest.approx(float(expected), abs=1e-5)
    nll = torch.nn.functional.nll_loss(probabilities.log(), truth.long())
    assert found.calibration.nll == pytest.approx(float(nll), rel=1e-5)
    onehot = torch.nn.functional.one_hot(truth.long(), 4)
    assert found.calibration.brier == pytest.approx(float((probabilities - onehot).square().sum(1).mean()), rel=1e-5)


def test_tiles_without_labels_are_not_forwarded():
    area = random_area(2, (128, 128))
    labels = np.full((128, 128), 255, np.uint8)
    labels[5, 5] = 1
    model = PixelModel(4)
    sparse = area_of(area.source.read(area.window).values["optical"], labels)
    found = evaluate_model(model, [sparse], 4, TileOptions(tile_size=32, overlap=0, batch_size=1))
    assert model.tiles == 1
    assert found.scores.pixels == 1
    assert found.boundary is None


def test_areas_are_run_by_themselves_and_summed():
    areas = [random_area(seed, (40, 50)) for seed in range(3)]
    one_by_one = [evaluate_model(BlurModel(4), [area], 4, OPTIONS, boundary=1) for area in areas]
    calls = []
    together = evaluate_model(
        BlurModel(4), areas, 4, OPTIONS, boundary=1, progress=lambda done, total: calls.append((done, total))
    )
    summed = ModelScores.empty(4, boundary=1) + one_by_one[0] + one_by_one[1] + one_by_one[2]
    assert np.array_equal(together.counts(), summed.counts())
    assert calls[-1] == (sum(count_tiles(area, OPTIONS) for area in areas),) * 2
    assert [done for done, _ in calls] == list(range(1, calls[-1][0] + 1))


@pytest.mark.parametrize("boundary", [None, 2])
def test_counts_travel_as_one_vector(boundary):
    found = evaluate_model(PixelModel(4), [random_area(3)], 4, OPTIONS, boundary=boundary, bins=7)
    again = ModelScores.from_counts(found.counts(), 4, bins=7, boundary=boundary)
    assert again.to_dict() == found.to_dict()
    assert again.matrix.dtype == np.int64
    with pytest.raises(ValueError, match="are needed"):
        ModelScores.from_counts(found.counts()[1:], 4, bins=7, boundary=boundary)


def test_an_area_may_be_a_window_and_have_an_overlap_of_its_own():
    area = random_area(4, (96, 96))
    values, labels = area.source.read(area.window).values["optical"], area.labels(area.window)
    window = Window(10, 20, 50, 60)
    found = evaluate_model(PixelModel(4), [area_of(values, labels, window=window)], 4, OPTIONS)
    assert found.scores.pixels == (labels[10:60, 20:80] != 255).sum()
    apart = area_of(values, labels, overlap=0)
    assert count_tiles(apart, OPTIONS) == 9
    assert count_tiles(area, OPTIONS) == 16
    assert np.array_equal(
        evaluate_model(PixelModel(4), [apart], 4, OPTIONS).matrix,
        evaluate_model(PixelModel(4), [area], 4, OPTIONS).matrix,
    )


def test_ground_without_pixels_counts_as_unpredicted():
    area = random_area(5, (64, 64), labelled=1.0)
    values, labels = area.source.read(area.window).values["optical"], area.labels(area.window)
    valid = np.ones((64, 64), bool)
    valid[:, 40:] = False
    found = evaluate_model(PixelModel(4), [area_of(values, labels, valid=valid)], 4, OPTIONS)
    assert found.matrix[:, 4].sum() == 64 * 24
    assert np.array_equal(found.matrix[:, 4], np.bincount(labels[:, 40:].ravel(), minlength=4))
    assert found.calibration.total == 64 * 40
    assert found.scores.unpredicted == pytest.approx(24 / 64)


def test_labels_beyond_the_classes_are_refused():
    area = random_area(6, (32, 32), labelled=1.0)
    values, labels = area.source.read(area.window).values["optical"], area.labels(area.window).copy()
    labels[3, 3] = 7
    with pytest.raises(GoptGeoError, match="block 4: label index 7 is none of the 4 classes"):
        evaluate_model(PixelModel(4), [area_of(values, labels, name="block 4")], 4, OPTIONS)
    with pytest.raises(ValueError, match="the model has 5 classes, not 4"):
        evaluate_model(PixelModel(5), [area], 4, OPTIONS)


def test_strips_change_nothing(monkeypatch):
    """Under a ceiling on memory rows come strip by strip, and borders are still those of the whole."""
    monkeypatch.setattr("gopt_geo.inference.memory.STRIP", 64)
    monkeypatch.setattr("gopt_geo.assessment.modelscores._IN_MEMORY", 0)
    area = random_area(7, (80, 400))
    free = evaluate_model(BlurModel(4), [area], 4, OPTIONS, boundary=2)
    tight = TileOptions(tile_size=32, overlap=8, batch_size=2, max_memory=700_000)
    strips = evaluate_model(BlurModel(4), [area], 4, tight, boundary=2)
    assert np.array_equal(free.matrix, strips.matrix)
    assert np.array_equal(free.boundary.counts, strips.boundary.counts)
    assert np.array_equal(free.calibration.pixels, strips.calibration.pixels)
    assert np.allclose(free.counts(), strips.counts(), rtol=1e-12)  # sums of confidences are rounded in another order


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 60), st.integers(1, 20), st.integers(0, 99))
def test_calibration_counts_add_up(classes, pixels, bins, seed):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), pixels).T.astype(np.float32).reshape(classes, pixels)
    truth = rng.integers(0, classes, pixels)
    half = pixels // 2
    parts = [
        Calibration.of_probabilities(probabilities[:, s], truth[s], bins) for s in (slice(half), slice(half, None))
    ]
    both, once = parts[0] + parts[1], Calibration.of_probabilities(probabilities, truth, bins)
    assert np.array_equal(both.pixels, once.pixels)
    assert np.array_equal(both.right, once.right)
    if pixels:
        assert both.ece == pytest.approx(once.ece)
        assert 0 <= once.ece <= 1
        assert abs(once.overconfidence) <= once.ece + 1e-9
        assert 0 <= once.brier <= 2
    else:
        assert np.isnan(once.ece)
        assert once.to_dict()["ece"] is None


def test_bins_are_closed_above():
    """A confidence on the border of two bins falls into the lower one, as in the paper."""
    counted = Calibration.of_confidence(np.array([0.0, 0.5, 0.50001, 1.0]), np.array([True, True, False, True]), 2)
    assert counted.pixels.tolist() == [2, 2]
    assert counted.right.tolist() == [2, 1]
    assert counted.to_dict()["brier"] is None
    assert [one["accuracy"] for one in counted.bins()] == [1.0, 0.5]
    with pytest.raises(ValueError, match="bins"):
        counted + Calibration.empty(3)
