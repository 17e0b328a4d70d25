"""Temperature scaling on what the tiler makes of a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gopt_geo.assessment.modelscores import count_tiles, evaluate_model
from gopt_geo.assessment.temperature import TEMPERATURES, fit_temperature
from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import Window
from gopt_geo.inference import TileOptions

from .helpers import BlurModel, PixelModel, area_of, random_area

OPTIONS = TileOptions(tile_size=32, overlap=8, batch_size=2)


class Cooled:
    """A model whose logits are divided by a temperature, as a pack's are."""

    def __init__(self, model, temperature):
        self.num_classes, self.modalities = model.num_classes, model.modalities
        self._model, self._temperature = model, temperature

    def __call__(self, values, valid, /):
        return torch.softmax(self._model(values, valid).log() / self._temperature, dim=1)


@pytest.mark.brief
@settings(max_examples=8, deadline=None)
@given(st.floats(0.3, 3), st.integers(0, 99))
def test_a_known_temperature_is_found(sharpness, seed):
    """Labels are drawn from the model's own probabilities before these were sharpened."""
    area = random_area(seed, (120, 150), sharpness=sharpness)
    fit = fit_temperature(PixelModel(4), [area], OPTIONS)
    assert fit.temperature == pytest.approx(sharpness, rel=0.06)
    assert not fit.at_bound
    assert fit.nll <= fit.nll_before


@pytest.mark.brief
def test_it_is_the_minimum_of_the_blended_likelihood():
    """Where tiles overlap and disagree, the likelihood that counts is that of their mean."""
    areas = [random_area(seed, (70, 60), sharpness=2.5) for seed in range(2)]
    model = BlurModel(4)
    fit = fit_temperature(model, areas, OPTIONS)
    nll = {
        factor: evaluate_model(Cooled(model, factor * fit.temperature), areas, 4, OPTIONS).calibration.nll
        for factor in (0.98, 1.0, 1.02)
    }
    assert nll[1.0] < min(nll[0.98], nll[1.02])
    assert fit.nll == pytest.approx(nll[1.0], rel=1e-5)
    plain = evaluate_model(model, areas, 4, OPTIONS)
    assert fit.nll_before == pytest.approx(plain.calibration.nll, rel=1e-5)
    assert fit.pixels == plain.calibration.total


def test_it_mends_the_calibration():
    area = random_area(5, (128, 128), sharpness=3)
    fit = fit_temperature(PixelModel(4), [area], OPTIONS)
    before = evaluate_model(PixelModel(4), [area], 4, OPTIONS).calibration
    after = evaluate_model(Cooled(PixelModel(4), fit.temperature), [area], 4, OPTIONS).calibration
    assert before.ece > 0.1
    assert before.overconfidence > 0.1
    assert after.ece < 0.02


def test_unlabelled_pixels_never_count():
    area = random_area(6, (64, 64), sharpness=2)
    block, labels = area.source.read(area.window), area.labels(area.window)
    other = block.values["optical"].copy()
    other[:, labels == 255] = 50
    valid = np.ones(labels.shape, bool)
    valid[:7] = False
    one, two = (
        fit_temperature(PixelModel(4), [area_of(values, labels, valid=valid)], OPTIONS)
        for values in (block.values["optical"], other)
    )
    assert one == two
    assert one.pixels == (labels[7:] != 255).sum()


def test_a_window_is_fitted_alone():
    area = random_area(7, (96, 96), sharpness=2)
    values, labels = area.source.read(area.window).values["optical"], area.labels(area.window).copy()
    window = Window(10, 20, 50, 60)
    inside = area_of(values, labels, window=window)
    mask = np.full(labels.shape, 255, np.uint8)
    mask[10:60, 20:80] = labels[10:60, 20:80]
    calls = []
    fit = fit_temperature(PixelModel(4), [inside], OPTIONS, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (count_tiles(inside, OPTIONS),) * 2
    assert fit.temperature == pytest.approx(
        fit_temperature(PixelModel(4), [area_of(values, mask)], OPTIONS).temperature
    )


def test_a_likelihood_without_a_minimum_ends_at_the_bound():
    values = np.zeros((2, 32, 32), np.float32)
    values[1] = 1
    labels = np.ones((32, 32), np.uint8)
    fit = fit_temperature(PixelModel(2), [area_of(values, labels)], OPTIONS)
    assert (fit.temperature, fit.at_bound) == (TEMPERATURES[0], True)
    wrong = fit_temperature(PixelModel(2), [area_of(values, 1 - labels)], OPTIONS)
    assert (wrong.temperature, wrong.at_bound) == (TEMPERATURES[-1], True)
    assert wrong.to_dict()["at_bound"] is True


def test_what_can_not_be_fitted_is_said():
    area = random_area(8, (32, 32))
    values = area.source.read(area.window).values["optical"]
    empty = area_of(values, np.full((32, 32), 255, np.uint8), name="block 3")
    with pytest.raises(GoptGeoError, match="block 3: no labelled pixel has a prediction"):
        fit_temperature(PixelModel(4), [empty], OPTIONS)
    with pytest.raises(GoptGeoError, match="validation: no labelled pixel"):
        fit_temperature(PixelModel(4), [], OPTIONS)
    with pytest.raises(GoptGeoError, match="label index 9 is none of the 4 classes"):
        fit_temperature(PixelModel(4), [area_of(values, np.full((32, 32), 9, np.uint8))], OPTIONS)
    for wrong in ((1, 2, 3), (1, 2, 4, 3), (0, 1, 2, 3), (0.5, 2, 3, 4)):
        with pytest.raises(ValueError, match="temperatures must be"):
            fit_temperature(PixelModel(4), [area], OPTIONS, temperatures=wrong)
