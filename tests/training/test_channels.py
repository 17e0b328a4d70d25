"""From bands to channels, and the moments of channels gathered in parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gopt_geo.errors import DatasetError
from gopt_geo.training.channels import channel_matrix, describe_matrix, modality_info
from gopt_geo.training.statistics import Moments, region_blocks, with_bands


@pytest.mark.brief
@pytest.mark.parametrize(
    ("bands", "channels", "matrix"),
    [
        (3, 3, ((1, 0, 0), (0, 1, 0), (0, 0, 1))),
        (1, 3, ((1,), (1,), (1,))),
        (2, 3, ((1, 0), (0, 1), (0.5, 0.5))),
        (4, 3, ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0.5, 0.5))),
        (2, 4, ((1, 0), (0, 1), (0.5, 0.5), (0.5, 0.5))),
        (2, 1, ((0.5, 0.5),)),
    ],
)
def test_channel_matrix(bands: int, channels: int, matrix: tuple[tuple[float, ...], ...]) -> None:
    assert channel_matrix(bands, channels) == matrix


@given(bands=st.integers(1, 9), channels=st.integers(1, 9))
def test_every_channel_is_a_mean_and_every_band_counts(bands: int, channels: int) -> None:
    matrix = np.array(channel_matrix(bands, channels))
    assert np.allclose(matrix.sum(axis=1), 1)
    assert (matrix.sum(axis=0) > 0).all()


def test_describe_matrix() -> None:
    assert describe_matrix(("VV", "VH"), channel_matrix(2, 3)) == "VV | VH | mean of VV, VH"


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(st.integers(0, 30), min_size=1, max_size=6), seed=st.integers(0, 999), level=st.floats(-1e4, 1e4))
def test_moments_in_parts_are_those_of_the_whole(parts: list[int], seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    matrix = ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5))
    moments, pixels = Moments(matrix), []
    for count in parts:
        values = (level + rng.normal(0, 1, (2, 4, count + 1))).astype(np.float32)
        valid = rng.random((4, count + 1)) < 0.7
        moments.add(values, valid)
        pixels.append(values[:, valid])
    whole = np.array(matrix) @ np.concatenate(pixels, axis=1).astype(np.float64)
    assert moments.count == whole.shape[1]
    if moments.count:
        assert np.allclose(moments.mean, whole.mean(axis=1), rtol=1e-12, atol=1e-12)
        assert np.allclose(moments.std, whole.std(axis=1), rtol=1e-9, atol=1e-12)


def test_modality_info_refuses_what_cant_be_normalised() -> None:
    matrix = channel_matrix(1, 3)
    with pytest.raises(DatasetError, match="sar: no pixel of the training ground carries data"):
        modality_info("sar", ("VV",), "db", matrix, Moments(matrix))
    flat = Moments(matrix)
    flat.add(np.full((1, 3, 3), -7, np.float32), np.ones((3, 3), bool))
    with pytest.raises(DatasetError, match="sar: all 9 training pixels have one value in channel 1"):
        modality_info("sar", ("VV",), "db", matrix, flat)
    flat.add(np.full((1, 3, 3), np.nextafter(np.float32(-7), np.float32(0))), np.ones((3, 3), bool))
    with pytest.raises(DatasetError, match="sar: all 18 training pixels have one value in channel 1"):
        modality_info("sar", ("VV",), "db", matrix, flat)  # but for the rounding of a warp
    both = Moments(with_bands(matrix))
    both.add(np.arange(9, dtype=np.float32).reshape(1, 3, 3), np.ones((3, 3), bool))
    info = modality_info("sar", ("VV",), "db", matrix, both.first(3))
    assert info.mean == (4, 4, 4)
    assert both.std[3] == pytest.approx(info.std[0])


def test_large_scenes_are_sampled_by_seed() -> None:
    from gopt_geo.grid import Window

    class Region:
        windows = (Window(0, 0, 5120, 5120), Window(5120, 0, 512, 512))

    every, of = region_blocks(Region(), 200, 0)  # type: ignore[arg-type]
    assert len(every) == of == 101
    some, of = region_blocks(Region(), 64, 0)  # type: ignore[arg-type]
    assert (len(set(some)), of) == (64, 101)
    assert set(some) < set(every)
    assert some == region_blocks(Region(), 64, 0)[0]  # type: ignore[arg-type]
    assert some != region_blocks(Region(), 64, 1)[0]  # type: ignore[arg-type]
