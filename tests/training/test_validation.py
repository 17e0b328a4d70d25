"""Validation is shared out by whole rows of tiles: each pixel to one process."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopt_geo.assessment.modelscores import ModelScores
from gopt_geo.assessment.reference import ReferenceArea
from gopt_geo.grid import Window
from gopt_geo.inference import TileOptions
from gopt_geo.packmeta import ClassInfo
from gopt_geo.training.validation import figure_names, figures_of, share_of


@pytest.mark.brief
@given(
    rows=st.tuples(st.integers(0, 90), st.integers(1, 110)),
    world=st.integers(1, 5),
    overlap=st.sampled_from([None, 0, 4]),
)
def test_shares_cover_an_area_once(rows: tuple[int, int], world: int, overlap: int | None) -> None:
    source = SimpleNamespace(shape=(200, 40), read=None)
    window = Window(rows[0], 3, rows[1], 20)
    area = ReferenceArea("a", source, window, lambda w: np.zeros(w.shape, np.uint8), overlap)
    options = TileOptions(tile_size=16, overlap=8)
    count = np.zeros((200, 40), int)
    for rank in range(world):
        part = share_of(area, options, rank, world)
        if part is not None:
            assert part.source is area.source
            count[part.window.row : part.window.row_stop, part.window.col : part.window.col_stop] += 1
    expected = np.zeros_like(count)
    expected[window.row : window.row_stop, window.col : window.col_stop] = 1
    assert (count == expected).all()


def test_figures_by_name() -> None:
    scores = ModelScores.empty(2)
    matrix = np.array([[3, 1, 0], [0, 4, 0]])
    scores = ModelScores(matrix, scores.calibration)
    classes = [ClassInfo(value=k, name=name, color="#000000") for k, name in enumerate(("a", "b, c"))]
    found = figures_of(scores, classes)
    assert list(found) == figure_names(classes) == ["val_miou", "val_oa", "val_kappa", "val_iou_a", "val_iou_b, c"]
    assert found["val_iou_a"] == 0.75
    assert found["val_oa"] == 0.875
