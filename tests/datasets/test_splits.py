"""Splits by blocks of ground: no leak across the buffer, shares, seeds, costs, and what can't be split."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter

from gopt_geo.datasets.compat import grid_sampler, random_sampler
from gopt_geo.datasets.geo import ImageDataset, ScenePairs
from gopt_geo.datasets.labels import RasterLabels, VectorLabels
from gopt_geo.datasets.regions import BlockLayout, rectangles
from gopt_geo.datasets.splits import PARTS, Split, split_labels
from gopt_geo.errors import DatasetError, SplitError
from gopt_geo.grid import Window

from .conftest import AFFINE, write

SHAPE = 150, 170


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> ScenePairs:
    """An image that numbers its pixels from 1, and labels of four classes with a corner unlabelled."""
    folder = tmp_path_factory.mktemp("split")
    image = np.arange(1, SHAPE[0] * SHAPE[1] + 1, dtype=np.float32).reshape(SHAPE)
    labels = np.kron(np.random.default_rng(0).integers(0, 4, (30, 34)), np.ones((5, 5))).astype(np.uint8)
    labels[:50, :40] = 255
    return ImageDataset(write(folder / "image.tif", image), "nir", "raw") & RasterLabels(
        write(folder / "labels.tif", labels, nodata=255)
    )


def seen(part: ScenePairs, tile: int, *, images: bool) -> np.ndarray:
    """Tell which pixels of the scene samplers' tiles show, by the image's numbers or by the labels."""
    result = np.zeros(SHAPE, bool)
    generator = torch.Generator().manual_seed(0)
    for query in (*random_sampler(part, tile, 40, generator=generator), *grid_sampler(part, tile)):
        sample = part[query]
        if images:
            numbers = sample["nir"][0][sample["validity_nir"]].numpy().astype(int) - 1
            result.reshape(-1)[numbers] = True
        a, _, c, _, e, f = sample["transform"].tolist()
        row, col = np.nonzero(sample["mask"].numpy() != 255)
        result[row + round((f - AFFINE.f) / e), col + round((c - AFFINE.c) / a)] = True
    return result


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 99),
    st.integers(3, 14),
    st.integers(0, 16),
    st.integers(12, 45),
    st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.8, 0, 0.2), (0.8, 0.2, 0)]),
)
@pytest.mark.brief
def test_no_pixel_seen_in_training_lies_within_the_buffer(pairs, seed, tile, buffer, block, shares) -> None:
    sized = pairs.on(pairs.grid)
    sized._tile_size = tile
    try:
        split = split_labels(sized, tile, shares=shares, buffer=buffer, block=block, seed=seed)
    except SplitError:  # such as a buffer that leaves nothing
        reject()
    training = seen(sized.within(split.train), tile, images=True)
    assert training.any()
    scored = np.zeros(SHAPE, bool)
    for region in (split.val, split.test):
        if region is not None:
            part = sized.within(region)
            assert not (seen(part, tile, images=True) & training).any() or buffer < tile - 1
            own = seen(part, tile, images=False)
            assert not (maximum_filter(own, 2 * buffer + 1) & training).any()
            scored |= own
    if split.val is not None and split.test is not None:
        val, test = (split.val.read(Window(0, 0, *SHAPE)), split.test.read(Window(0, 0, *SHAPE)))
        assert not (maximum_filter(test, 2 * buffer + 1) & val).any()
    assert scored.any()


@pytest.fixture(scope="module")
def split(pairs) -> Split:
    return split_labels(pairs, 8, block=16)


@pytest.mark.brief
def test_each_class_is_shared_out_as_asked(pairs, split: Split) -> None:
    shares = split.counts / split.counts.sum(axis=0)
    np.testing.assert_allclose(shares, [[0.7] * 4, [0.15] * 4, [0.15] * 4], atol=0.04)
    window = Window(0, 0, *SHAPE)
    for number, region in enumerate((split.train, split.val, split.test)):
        labels = pairs.within(region).read_labels(window)
        assert np.bincount(labels[labels != 255], minlength=4).tolist() == split.counts[number].tolist()
    assert (split.counts + split.lost).sum() == (pairs.read_labels(window) != 255).sum()


def test_what_the_buffer_costs_is_told(split: Split) -> None:
    lost, total = int(split.lost.sum()), int((split.counts + split.lost).sum())
    assert lost > 0
    assert split.notices == [
        f"the buffer of 8 pixels costs {lost:,} of {total:,} labelled pixels, {100 * lost / total:.1f} % "
        f"(train {_lost(split, 0)}, val {_lost(split, 1)}, test 0.0 %)"
    ]


def _lost(split: Split, part: int) -> str:
    return f"{100 * split.lost[part].sum() / (split.lost + split.counts)[part].sum():.1f} %"


@pytest.mark.brief
def test_a_seed_gives_one_split(pairs, split: Split) -> None:
    again, other = split_labels(pairs, 8, block=16), split_labels(pairs, 8, block=16, seed=1)
    for part in PARTS:
        assert getattr(again, part).windows == getattr(split, part).windows
    assert other.train.windows != split.train.windows


def test_labels_are_read_by_blocks(pairs, monkeypatch: pytest.MonkeyPatch, split: Split) -> None:
    windows: list[Window] = []
    read = type(pairs).read_labels
    monkeypatch.setattr("gopt_geo.datasets.splits.BLOCK", 32)
    monkeypatch.setattr(
        type(pairs), "read_labels", lambda self, window: (windows.append(window), read(self, window))[1]
    )
    assert split_labels(pairs, 8, block=16).train.windows == split.train.windows
    assert len(windows) == 5 * 6
    assert max(window.height * window.width for window in windows) == 32 * 32


def test_vector_labels_and_areas(tmp_path: Path, pairs) -> None:
    import geopandas

    boxes = [shapely.box(700000 + 200 * i, 4999000, 700100 + 200 * i, 5000000) for i in range(8)]
    path = tmp_path / "fields.gpkg"
    geopandas.GeoDataFrame({"crop": [i % 2 for i in range(8)]}, geometry=boxes, crs="EPSG:32631").to_file(path)
    labels = VectorLabels(path, "crop", grid=pairs.grid)
    split = split_labels(labels, 5, block=20, shares=(0.6, 0.2, 0.2))
    assert (split.counts > 0).all()
    assert (split.counts + split.lost).sum() == 8 * 10 * 100
    area = "SRID=32631;POLYGON ((700000 4999500, 701600 4999500, 701600 5000000, 700000 5000000, 700000 4999500))"
    small = split_labels(labels.inside(area), 5, block=20, shares=(0.6, 0.2, 0.2))
    assert (small.counts + small.lost).sum() == 8 * 10 * 50
    assert max(window.row_stop for window in small.train.windows) <= 50


def test_a_class_in_one_block_is_told(tmp_path: Path) -> None:
    labels = np.zeros((60, 60), np.uint8)
    labels[2:6, 2:6] = 3
    split = split_labels(RasterLabels(write(tmp_path / "rare.tif", labels)), 4, block=12)
    assert any(n.startswith("warning: class 3 has no pixel in ") for n in split.notices)
    assert not any("class 0" in notice for notice in split.notices)
    small = split_labels(RasterLabels(tmp_path / "rare.tif"), 4, block=12, buffer=1)
    assert any("images at the edge of validation" in notice for notice in small.notices)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": (0.7, 0.2, 0.2)}, "sum to 1"),
        ({"shares": (0.7, 0.3)}, "sum to 1"),
        ({"shares": (1.2, -0.2, 0)}, "sum to 1"),
        ({"shares": (0, 0.5, 0.5)}, "training has no share"),
        ({"buffer": -1}, "buffer"),
        ({"buffer": 16.5}, "give a whole number of pixels"),
        ({"seed": -1}, "seed: -1; give 0 or more"),
        ({"block": 0}, "block"),
        ({"tile_size": 0}, "tile_size"),
        ({"block": 150}, "1 of 1 blocks have labels, for 3 parts"),
        ({"block": 30, "buffer": 140}, "leaves no labels for"),
    ],
)
def test_what_can_not_be_split(pairs, options, message) -> None:
    arguments = {"tile_size": 8} | options
    with pytest.raises(SplitError, match=message):
        split_labels(pairs, **arguments)


def test_labels_are_needed(pairs, split: Split, tmp_path: Path) -> None:
    image, labels = pairs.members
    with pytest.raises(DatasetError, match="no labels"):
        split_labels(image, 8)
    empty = write(tmp_path / "empty.tif", np.full((40, 40), 255, np.uint8), nodata=255)
    with pytest.raises(SplitError, match="no labels"):
        split_labels(RasterLabels(empty), 8)
    with pytest.raises(DatasetError, match="another grid"):
        RasterLabels(empty).within(split.train)
    with pytest.raises(DatasetError, match="part of a split"):
        image & labels.within(split.train)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 30), st.integers(0, 12), st.integers(0, 999))
@pytest.mark.brief
def test_cells_near_blocks_and_their_rectangles(height, width, edge, buffer, seed) -> None:
    layout = BlockLayout(Window(-3, 5, height, width), edge, buffer)
    blocks = np.random.default_rng(seed).random(layout.shape) < 0.3
    near = layout.near(blocks)
    sizes = np.diff(layout.rows), np.diff(layout.cols)

    def pixels(cells: np.ndarray) -> np.ndarray:
        return np.repeat(np.repeat(cells, sizes[0], axis=0), sizes[1], axis=1)

    own = pixels(layout.spread(blocks.astype(np.int8)))
    assert own.shape == (height, width)
    np.testing.assert_array_equal(pixels(near), maximum_filter(own, 2 * buffer + 1, mode="constant") > 0)
    covered = np.zeros(near.shape, int)
    for row, col, row_stop, col_stop in rectangles(near, *sizes):
        covered[row:row_stop, col:col_stop] += 1
    np.testing.assert_array_equal(covered, near)


def test_the_map_of_a_split(split: Split) -> None:
    figure = split.plot()
    (axis,) = figure.axes
    words = [text.get_text() for text in axis.get_legend().get_texts()]
    assert words == [
        *(f"{part}: {count:,} labels" for part, count in zip(PARTS, split.counts.sum(axis=1), strict=True)),
        "buffer, not used",
        "no labels",
    ]
    assert axis.get_xlim() == (700000, 701700)
    assert axis.get_ylim() == (4998500, 5000000)
    assert all(a != b for a, b in pairwise(words))
