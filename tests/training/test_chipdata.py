"""Data sets of chips as training data: crops, rounds, statistics; and each labelled pixel evaluated exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from gopt_geo.errors import DatasetError
from gopt_geo.grid import Window
from gopt_geo.inference import BlendedRows, TileOptions, run_tiles
from gopt_geo.simulate.copies import write_copy
from gopt_geo.training.config import TrainConfig
from gopt_geo.training.data import TrainingData, open_training_data

SIZES = ((40, 56), (24, 24), (65, 33), (24, 24), (7, 90), (24, 24))
CLASSES = ({"value": 0, "name": "dry"}, {"value": 1, "name": "wet"}, {"value": 2, "name": "ice"})
PLAIN = {"symmetry": "none", "brightness": 0.0, "offset": 0.0, "clouds": 0.0, "dropout": {"sar": 0.0}}


def write_chips(folder: Path, seed: int = 0, unlabelled: int = 3) -> Path:
    """Chips of odd sizes, whose first band is 10 x class + 5, and whose second is the chip's number."""
    rng = np.random.default_rng(seed)
    for split in ("train", "val", "test"):
        for name in ("optical", "sar", "label"):
            (folder / split / name).mkdir(parents=True)
        for i, (height, width) in enumerate(SIZES):
            labels = rng.integers(0, 3, (height, width)).astype(np.uint8)
            optical = np.stack([10 * labels + 5, np.full_like(labels, i + 1), labels * 3 + 9], axis=-1)
            labels[rng.random(labels.shape) < 0.2] = 255
            if i == unlabelled:
                labels[:] = 255
            sar = rng.integers(1, 200, (height, width)).astype(np.uint8)
            Image.fromarray(optical.astype(np.uint8)).save(folder / split / "optical" / f"{i}.png")
            Image.fromarray(sar).save(folder / split / "sar" / f"{i}.png")
            Image.fromarray(labels).save(folder / split / "label" / f"{i}.png")
    return folder


def settings_of(root: Path, **changes: Any) -> TrainConfig:
    plain: dict[str, Any] = {
        "dataset": "pair_folder",
        "root": str(root),
        "splits": {"train": "train", "val": "val", "test": "test"},
        "options": {"outside": "declared"},
        "classes": CLASSES,
        "ignore": (255,),
        "training": {"tile_size": 32},
        "augmentation": PLAIN,
    }
    return TrainConfig.model_validate(plain | changes)


def opened(config: TrainConfig, **options: Any) -> TrainingData:
    return open_training_data(config, **({"patch_size": 8, "in_chans": 3} | options))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chips(tmp_path_factory.mktemp("chips"))


@pytest.fixture(scope="module")
def data(root: Path) -> TrainingData:
    return opened(settings_of(root))


@pytest.fixture(scope="module")
def scaled(root: Path) -> TrainingData:
    return opened(settings_of(root, augmentation=PLAIN | {"scales": (0.5, 2.0)}))


class Reads:
    """A model that reads the class from the first band, and is sure of it."""

    num_classes = 3
    modalities = ("optical", "sar")

    def __call__(self, values: dict[str, torch.Tensor], valid: dict[str, torch.Tensor], /) -> torch.Tensor:
        assert valid.keys() == values.keys()
        labels = ((values["optical"][:, 0] - 5) / 10).round().clamp(0, 2).long()
        return torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()


@pytest.mark.brief
def test_a_data_set_opens(data: TrainingData, root: Path) -> None:
    assert [(c.value, c.name) for c in data.classes] == [(0, "dry"), (1, "wet"), (2, "ice")]
    assert data.resolution_m is None
    assert data.report.tiles == {"train": 5, "val": 5, "test": 5}
    assert any("train: 1 of 6 chips have no labelled pixel" in notice for notice in data.report.notices)
    for i, split in enumerate(("train", "val", "test")):
        labels = np.concatenate([np.asarray(Image.open(p)).ravel() for p in (root / split / "label").iterdir()])
        assert data.counts[i].tolist() == np.bincount(labels[labels != 255], minlength=3).tolist()
    sar = np.concatenate([np.asarray(Image.open(p)).ravel() for p in (root / "train" / "sar").iterdir()])
    info = data.modalities["sar"]
    assert info.mean == pytest.approx((sar.mean(),) * 3)
    assert info.std == pytest.approx((sar.std(),) * 3)
    assert (info.units, info.bands, info.channels) == ("raw", ("band 1",), ((1.0,),) * 3)


@pytest.mark.brief
@pytest.mark.parametrize("tile", [32, 64, 96])
def test_every_labelled_pixel_is_scored_exactly_once(data: TrainingData, tile: int) -> None:
    for part, i in (("val", 1), ("test", 2)):
        model, matrix, forwarded = Reads(), np.zeros((3, 3), np.int64), 0
        for area in data.areas(part, tile):

            def wanted(window: Window, labels: Any = area.labels) -> np.ndarray:
                return labels(window) != 255

            def sink(rows: BlendedRows, labels: Any = area.labels, matrix: np.ndarray = matrix) -> None:
                truth = labels(rows.window)
                assert not (rows.valid & (truth == 255)).any()
                np.add.at(matrix, (truth[rows.valid], rows.probabilities.argmax(axis=0)[rows.valid]), 1)

            overlap = tile // 4 if area.overlap is None else area.overlap
            options = TileOptions(tile_size=tile, overlap=overlap, batch_size=2, blend="hann")
            report = run_tiles(area.source, model, options, window=area.window, wanted=wanted, sink=sink)
            forwarded += report.forwarded
        assert matrix.tolist() == np.diag(data.counts[i]).tolist()
        if tile == 96:
            assert forwarded == 5  # a tile each, and none for the chip without labels


def test_no_tile_mixes_two_chips(data: TrainingData) -> None:
    (area,) = data.areas("val", 96)
    assert area.overlap == 0
    assert area.window.shape == (5 * 96, 96)
    for row in range(0, 5 * 96, 96):
        block = area.source.read(Window(row, 0, 96, 96))
        assert len(np.unique(block.values["optical"][1][block.valid["optical"]])) == 1
    small, *large = data.areas("val", 32)
    assert small.window.shape == (2 * 32, 32)
    assert [area.window.shape for area in large] == [(40, 56), (65, 33), (7, 90)]


@pytest.mark.brief
def test_a_round_goes_through_all_chips_with_labels(data: TrainingData) -> None:
    rounds = data.train.rounds
    assert rounds == 5
    orders = []
    for turn in range(6):
        seen = []
        for number in range(turn * rounds, (turn + 1) * rounds):
            sample = data.train[number]
            (chip,) = set(sample["optical"][1][sample["validity_optical"]].int().tolist())
            seen.append(chip)
        assert sorted(seen) == [1, 2, 3, 5, 6]
        orders.append(seen)
    assert len({tuple(order) for order in orders}) > 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 10**9), low=st.sampled_from([0.5, 1.0]))
def test_crops_are_whole_labelled_and_true(data: TrainingData, scaled: TrainingData, number: int, low: float) -> None:
    tiles = data.train
    if low != 1:
        tiles = scaled.train
    sample = tiles[number]
    mask = sample["mask"]
    assert mask.shape == (32, 32)
    there = mask != 255
    assert there.any()
    assert sample["validity_optical"][there].all()
    assert (sample["optical"][:, ~sample["validity_optical"]] == 0).all()
    if low == 1:
        assert torch.equal(sample["optical"][0][there], 10.0 * mask[there] + 5)


def test_workers_and_order_dont_matter(data: TrainingData) -> None:
    numbers = [9, 2, 0, 14, 3, 7, 1, 8]
    alone = list(DataLoader(data.train, batch_size=2, sampler=numbers))
    forked = list(DataLoader(data.train, batch_size=2, sampler=numbers, num_workers=2))
    for a, b in zip(alone, forked, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert torch.equal(data.train[14]["mask"], alone[1]["mask"][1])


def test_known_statistics_are_those_of_the_data_set(tmp_path: Path) -> None:
    write_copy("mfnet", tmp_path)
    config = {"dataset": "mfnet", "root": str(tmp_path), "splits": {"train": "train", "val": "val", "test": "test"}}
    with opened(TrainConfig.model_validate(config | {"training": {"tile_size": 32}})) as data:
        assert data.modalities["optical"].mean == pytest.approx((0.485 * 255, 0.456 * 255, 0.406 * 255))
        assert data.modalities["optical"].std == pytest.approx((0.229 * 255, 0.224 * 255, 0.225 * 255))
        assert list(data.modalities) == ["optical", "thermal"]
        assert "as usual for this data set" in data.report.measured
        assert len(data.classes) == 9


def test_stops(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no such folder"):
        opened(settings_of(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match=r"pair_folder: there is no nir; choose model\.modalities from optical, sar"):
        opened(settings_of(root, model={"modalities": ("nir",)}, augmentation={}))
    with pytest.raises(DatasetError, match="speckle: no modality is in dB or power"):
        opened(settings_of(root, augmentation={"speckle": 4.0}))
    with pytest.raises(DatasetError, match="all labelled pixels of train are of one class, ice"):
        opened(settings_of(root, classes=CLASSES[2:], ignore=(0, 1, 255)))
    with pytest.raises(DatasetError, match="no chip of train has a labelled pixel"):
        opened(settings_of(root, classes=({"value": 7, "name": "none"},), ignore=(0, 1, 2, 255)))


def test_values_to_ignore_need_a_class_list(root: Path) -> None:
    with pytest.raises(DatasetError, match="ignore: 1, 2 can't be ignored without a class list"):
        opened(settings_of(root, classes=None, ignore=(1, 2)))


def test_labels_that_are_indexes_need_no_class_list(root: Path) -> None:
    with opened(settings_of(root, classes=None, ignore=()), parts=("test",)) as data:
        assert [(c.value, c.name) for c in data.classes] == [(0, "class 0"), (1, "class 1"), (2, "class 2")]
