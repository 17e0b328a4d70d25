"""Confusion matrices and scores against scikit-learn."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, jaccard_score
from sklearn.metrics import confusion_matrix as sk_confusion_matrix

from gopt_geo.assessment.metrics import Scores, confusion_matrix

CLASSES = [10, 0, 30]  # neither sorted nor dense
pixels = arrays(np.uint8, 40, elements=st.sampled_from([0, 10, 30]))


@pytest.mark.brief
@settings(max_examples=40, deadline=None)
@given(truth=pixels, prediction=pixels)
def test_scores_against_sklearn(truth: Any, prediction: Any) -> None:
    matrix = confusion_matrix(truth, prediction, CLASSES)
    assert np.array_equal(matrix[:, :3], sk_confusion_matrix(truth, prediction, labels=CLASSES))
    assert matrix[:, 3].sum() == 0
    scores = Scores.from_matrix(matrix)
    iou = jaccard_score(truth, prediction, labels=CLASSES, average=None, zero_division=0)
    iou[~np.isin(CLASSES, [*truth, *prediction])] = np.nan
    np.testing.assert_allclose(scores.iou, iou)
    assert scores.mean_iou == pytest.approx(np.nanmean(iou))
    f1 = f1_score(truth, prediction, labels=CLASSES, average=None, zero_division=0)
    f1[np.isnan(iou)] = np.nan
    np.testing.assert_allclose(scores.f1, f1)
    assert scores.mean_f1 == pytest.approx(np.nanmean(f1))
    assert scores.absent == np.isnan(iou).sum()
    assert scores.overall_accuracy == pytest.approx(accuracy_score(truth, prediction))
    if len({*truth.tolist(), *prediction.tolist()}) > 1:
        assert scores.kappa == pytest.approx(cohen_kappa_score(truth, prediction, labels=CLASSES))
    else:
        assert math.isnan(scores.kappa)


@given(truth=pixels, prediction=pixels, ignored=arrays(np.bool_, 40))
@settings(max_examples=30, deadline=None)
def test_unlabelled_pixels_leave_both(truth: Any, prediction: Any, ignored: Any) -> None:
    masked = np.where(ignored, 255, truth)
    expected = confusion_matrix(truth[~ignored], prediction[~ignored], CLASSES)
    assert np.array_equal(confusion_matrix(masked, prediction, CLASSES), expected)


@pytest.mark.brief
def test_what_the_map_leaves_out_counts_as_an_error() -> None:
    matrix = confusion_matrix(np.array([0, 0, 10, 10, 255]), np.array([0, 255, 10, 10, 255]), CLASSES)
    assert matrix.tolist() == [[2, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    scores = Scores.from_matrix(matrix)
    assert scores.unpredicted == 0.25
    assert scores.overall_accuracy == 0.75
    assert scores.iou[:2] == (1.0, 0.5)
    assert scores.mean_iou == 0.75
    assert scores.absent == 1
    assert scores.producers_accuracy[1] == 0.5
    assert scores.users_accuracy[1] == 1.0
    assert Scores.from_matrix(matrix[:, :-1]).overall_accuracy == 1.0


def test_a_class_that_is_only_predicted_is_present() -> None:
    scores = Scores.from_matrix(confusion_matrix(np.array([0, 0]), np.array([0, 10]), CLASSES))
    assert scores.iou[:2] == (0.0, 0.5)
    assert scores.mean_iou == 0.25


def test_nothing_labelled() -> None:
    scores = Scores.from_matrix(confusion_matrix(np.array([255]), np.array([0]), CLASSES))
    assert math.isnan(scores.mean_iou)
    assert scores.to_dict()["kappa"] is None
    assert scores.to_dict()["iou"] == [None] * 3


@pytest.mark.parametrize(("truth", "prediction"), [([7], [0]), ([0], [7])])
def test_strange_values(truth: list[int], prediction: list[int]) -> None:
    with pytest.raises(ValueError, match=r"\[7\]"):
        confusion_matrix(np.array(truth), np.array(prediction), CLASSES)


def test_shapes() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        confusion_matrix(np.zeros(2, int), np.zeros(3, int), CLASSES)
    with pytest.raises(ValueError, match="not a confusion matrix"):
        Scores.from_matrix(np.zeros((3, 5), int))
