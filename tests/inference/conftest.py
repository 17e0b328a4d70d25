"""Sources, sinks and tiny models for the tiler's tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gopt_geo.grid import Window
from gopt_geo.inference import TileOptions, run_tiles


class Source:
    """Arrays as a scene: values {name: [C, H, W]}, validity {name: [H, W]}; refuses windows outside."""

    def __init__(self, values, valid=None, *, delay: Callable[[Window], None] | None = None):
        self.values = {name: np.asarray(array, np.float32) for name, array in values.items()}
        self.shape = next(iter(self.values.values())).shape[1:]
        self.valid = valid or {name: np.ones(self.shape, bool) for name in values}
        self.delay = delay
        self.threads: set[str] = set()

    def read(self, window):
        assert window.row >= 0
        assert window.col >= 0
        assert window.row_stop <= self.shape[0]
        assert window.col_stop <= self.shape[1]
        self.threads.add(threading.current_thread().name)
        if self.delay is not None:
            self.delay(window)
        cut = (slice(window.row, window.row_stop), slice(window.col, window.col_stop))
        return SimpleNamespace(
            values={name: array[(slice(None), *cut)].copy() for name, array in self.values.items()},
            valid={name: mask[cut].copy() for name, mask in self.valid.items()},
        )


class Canvas:
    """A sink that counts how often each pixel of a scene is delivered."""

    def __init__(self, classes, shape):
        self.probabilities = np.full((classes, *shape), np.nan, np.float32)
        self.valid = np.zeros(shape, bool)
        self.count = np.zeros(shape, int)
        self.windows: list[Window] = []

    def __call__(self, rows):
        w = rows.window
        assert rows.probabilities.shape == (len(self.probabilities), w.height, w.width)
        assert rows.probabilities.dtype == np.float32
        assert rows.valid.shape == (w.height, w.width)
        cut = (slice(w.row, w.row_stop), slice(w.col, w.col_stop))
        self.probabilities[(slice(None), *cut)] = rows.probabilities
        self.valid[cut] = rows.valid
        self.count[cut] += 1
        self.windows.append(w)


class Model:
    """A model from a function of (values, valid); remembers how many batches and how many slots it saw."""

    def __init__(self, classes, function, modalities=("optical",)):
        self.num_classes, self.modalities, self._function = classes, modalities, function
        self.batches: list[int] = []

    def __call__(self, values, valid):
        self.batches.append(next(iter(values.values())).shape[0])
        return self._function(values, valid)


def one_hot(classes):
    """A model whose probabilities are the one-hot of the class in the first optical band."""

    def function(values, valid):
        index = values["optical"][:, 0].long()
        return torch.nn.functional.one_hot(index, classes).permute(0, 3, 1, 2).float()

    return Model(classes, function)


def copy_values(channels, modalities=("optical",)):
    """A model that returns the optical values as they are."""
    return Model(channels, lambda values, valid: values["optical"], modalities)


def run(source, model, window=None, *, progress=None, **options):
    """Run, and return the canvas and the report."""
    canvas = Canvas(model.num_classes, source.shape)
    report = run_tiles(source, model, TileOptions(**options), window=window, sink=canvas, progress=progress)
    return canvas, report


def no_reader_left() -> bool:
    """Whether all reader threads have ended; at once, not soon."""
    return not any(thread.name.startswith("gopt-geo-reader") for thread in threading.enumerate())


@pytest.fixture(scope="session")
def kit():
    """Everything above; session-wide, so that hypothesis may use it."""
    return SimpleNamespace(
        Source=Source,
        Canvas=Canvas,
        Model=Model,
        one_hot=one_hot,
        copy_values=copy_values,
        run=run,
        no_reader_left=no_reader_left,
    )
