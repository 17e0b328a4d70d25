"""Temperature scaling: the one number that logits are divided by so that the confidence means what it says.

Guo et al. (2017), "On Calibration of Modern Neural Networks": the temperature T that minimises the negative
log-likelihood of held-out labels. A map's probabilities are means over tiles, so it is their likelihood that counts
here: the tiler is run as for prediction. It is run once for all temperatures tried: the reference labels go along with
the pixels, and each tile gives, for each temperature, the probability of the true class alone. So the memory is that of
a map with as many classes as temperatures, whatever the number of classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gopt_geo.assessment.modelscores import area_options, check_labels, count_tiles, labelled_in
from gopt_geo.assessment.reference import UNLABELLED, ReferenceArea
from gopt_geo.errors import GoptGeoError
from gopt_geo.grid import Window
from gopt_geo.inference import BlendedRows, TileModel, TileOptions, TileProgress, run_tiles

if TYPE_CHECKING:
    from gopt_geo.scene.scene import SceneBlock

__all__ = ["TEMPERATURES", "TemperatureFit", "fit_temperature"]

TEMPERATURES = tuple(2.0 ** (step / 4) for step in range(-12, 13))
"""Tried by `fit_temperature`: 1/8 to 8, four to an octave."""
_LABELS = "reference labels"
_LEAST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class TemperatureFit:
    """What `fit_temperature` found.

    Attributes
    ----------
    temperature
        To divide the logits by, beyond what the model does already.
    at_bound
        Whether it is the smallest or largest that was tried: the likelihood has no minimum in between.
    pixels
        Labelled pixels with a prediction.
    nll_before, nll
        Mean negative log-likelihood of their true classes in nats, without and with the temperature.
    """

    temperature: float
    at_bound: bool
    pixels: int
    nll_before: float
    nll: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain types."""
        return {
            "temperature": self.temperature,
            "at_bound": self.at_bound,
            "pixels": self.pixels,
            "nll_before": self.nll_before,
            "nll": self.nll,
        }


def fit_temperature(
    model: TileModel,
    areas: Sequence[ReferenceArea],
    options: TileOptions,
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    progress: Callable[[int, int], None] | None = None,
) -> TemperatureFit:
    """Find the temperature at which the blended probabilities of a model fit labels best.

    Parameters
    ----------
    model
        Gives softmax probabilities; of a `PackModel` that divides its logits by T0 already, T0 times the result is
        the temperature for the pack.
    areas
        Held-out ground, such as the validation blocks. Pixels without a label never count.
    options
        Tiles, as for prediction.
    temperatures
        To try, ascending, at least four, 1 among them. Between them the likelihood is interpolated over log T.
    progress
        Called with the tiles done and all tiles.

    Returns
    -------
    TemperatureFit

    Raises
    ------
    GoptGeoError
        If no labelled pixel has a prediction, a label isn't one of the classes, or as `run_tiles`.
    ValueError
        If the temperatures aren't such a row.
    """
    tried = np.asarray(temperatures, np.float64)
    if len(tried) < 4 or not (np.diff(tried) > 0).all() or tried[0] <= 0 or 1.0 not in temperatures:
        raise ValueError(f"temperatures must be at least four, positive, ascending and have 1 among them: {tried}")
    total = sum(count_tiles(area, options) for area in areas)
    surprise, pixels, done = np.zeros(len(tried)), 0, 0
    for area in areas:

        def tick(state: TileProgress, before: int = done) -> None:
            if progress is not None:
                progress(before + state.done, total)

        more, count = _surprise(model, area, area_options(area, options), tried, tick)
        surprise, pixels, done = surprise + more, pixels + count, done + count_tiles(area, options)
    if not pixels:
        names = ", ".join(area.name for area in areas[:3]) or "validation"
        found = "no labelled pixel has a prediction, so that the temperature can't be told"
        raise GoptGeoError(names, found, "give labels where there is imagery")
    return _minimum(tried, surprise / pixels, pixels)


def _minimum(tried: NDArray[np.float64], means: NDArray[np.float64], pixels: int) -> TemperatureFit:
    """Interpolate the likelihood over log T and find its minimum near the best of the temperatures tried."""
    from scipy.interpolate import CubicSpline
    from scipy.optimize import minimize_scalar

    before = float(means[int(np.flatnonzero(tried == 1.0)[0])])
    best = int(means.argmin())
    if best in (0, len(tried) - 1):
        return TemperatureFit(float(tried[best]), True, pixels, before, float(means[best]))
    logs = np.log(tried)
    curve = CubicSpline(logs, means)
    bounds = (float(logs[best - 1]), float(logs[best + 1]))
    found = minimize_scalar(lambda log: float(curve(log)), bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return TemperatureFit(math.exp(float(found.x)), False, pixels, before, float(found.fun))


def _surprise(
    model: TileModel,
    area: ReferenceArea,
    options: TileOptions,
    temperatures: NDArray[np.float64],
    tick: Callable[[TileProgress], None],
) -> tuple[NDArray[np.float64], int]:
    """Return the sum of -log(blended probability of the true class) by temperature, [J], and the pixels."""
    sums, pixels = np.zeros(len(temperatures)), 0
    wanted = labelled_in(area)

    def sink(rows: BlendedRows) -> None:
        nonlocal pixels
        labels = area.labels(rows.window)
        scored = (labels != UNLABELLED) & rows.valid
        check_labels(area, labels[scored], model.num_classes)
        own = rows.probabilities[:, scored].astype(np.float64).clip(_LEAST)
        np.subtract(sums, np.log(own).sum(axis=1), out=sums)
        pixels += int(scored.sum())

    run_tiles(
        _WithLabels(area),
        _TrueClassModel(model, temperatures.tolist()),
        options,
        window=area.window,
        wanted=wanted,
        sink=sink,
        progress=tick,
    )
    return sums, pixels


class _WithLabels:
    """An area's source with its labels as one more modality, which is never valid and so makes no pixel valid."""

    def __init__(self, area: ReferenceArea) -> None:
        self._area = area
        self.shape: tuple[int, int] = area.source.shape

    def read(self, window: Window, /) -> SceneBlock:
        """Return pixels and labels of a window; unlabelled outside of the area."""
        from gopt_geo.scene.scene import SceneBlock

        block = self._area.source.read(window)
        labels = np.full(window.shape, UNLABELLED, np.float32)
        inside = window.intersect(self._area.window)
        if inside is not None:
            labels[inside.slices_in(window)] = self._area.labels(inside)
        values = {**block.values, _LABELS: labels[None]}
        return SceneBlock(values, {**block.valid, _LABELS: np.zeros(window.shape, bool)})


class _TrueClassModel:
    """Gives the true class's probability at each of J temperatures, float32 [B, J, t, t], in place of classes."""

    def __init__(self, model: TileModel, temperatures: Sequence[float]) -> None:
        self._model, self._temperatures = model, temperatures
        self.num_classes = len(temperatures)
        self.modalities = (*model.modalities, _LABELS)

    def __call__(self, values: dict[str, Tensor], valid: dict[str, Tensor], /) -> Tensor:
        labels = values[_LABELS][:, 0].long()
        # Beyond the scene there are zeros, which count as little as unlabelled pixels do.
        index = torch.where(labels < self._model.num_classes, labels, 0)[:, None]
        probabilities = self._model(
            {name: pixels for name, pixels in values.items() if name != _LABELS},
            {name: mask for name, mask in valid.items() if name != _LABELS},
        )
        logs = probabilities.float().clamp_min(_LEAST).log()  # logits but for a constant
        own = torch.empty((len(labels), self.num_classes, *labels.shape[1:]), device=logs.device)
        for place, temperature in enumerate(self._temperatures):
            scaled = torch.log_softmax(logs / temperature, dim=1)
            own[:, place] = scaled.gather(1, index)[:, 0].exp()
        return own
