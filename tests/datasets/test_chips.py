"""Chips in folders: samples, validity, splits, and what is wrong with a copy."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchgeo.datasets import NonGeoDataset

from gopt_geo.datasets.chipfiles import natural, outside_swath
from gopt_geo.datasets.chips import Statistics, choose_part
from gopt_geo.datasets.classes import ClassTable
from gopt_geo.datasets.pairfolder import PairFolder
from gopt_geo.errors import DatasetError
from gopt_geo.simulate.copies import write_copy
from realdata import DATA, needs

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
FLOOD = ClassTable((0, 255), ("dry", "flood"), ("#cccccc", "#0000ff"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_copy("pair_folder", tmp_path / "chips", train=5)


def stored(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read())


def rewrite(path: Path, pixels: np.ndarray, **profile: object) -> None:
    driver = {".png": "PNG", ".tif": "GTiff"}[path.suffix]
    shape = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    with rasterio.open(path, "w", driver=driver, dtype=str(pixels.dtype), **shape, **profile) as dataset:
        dataset.write(pixels)


@pytest.mark.brief
@pytest.mark.parametrize("layout", ["png", "tif", "jpg"])
def test_samples_hold_the_stored_pixels(tmp_path: Path, layout: str) -> None:
    root = write_copy("pair_folder", tmp_path / "chips", layout)
    dataset = PairFolder(root, "train", classes=FLOOD)
    assert isinstance(dataset, NonGeoDataset)
    assert len(dataset) == 4
    assert dataset.modalities == ("optical", "sar")
    sample = dataset[1]
    assert set(sample) == {"optical", "sar", "validity_optical", "validity_sar", "mask"}
    assert all(isinstance(value, torch.Tensor) for value in sample.values())
    assert (sample["optical"].dtype, sample["optical"].shape) == (torch.float32, (3, 32, 48))
    assert (sample["sar"].dtype, sample["sar"].shape) == (torch.float32, (1, 32, 48))
    assert sample["validity_sar"].dtype == torch.bool
    assert (sample["mask"].dtype, sample["mask"].shape) == (torch.int64, (32, 48))
    for modality in ("optical", "sar"):
        assert np.array_equal(sample[modality].numpy(), stored(dataset.files(1)[modality]))
        assert sample[f"validity_{modality}"].all()
    assert np.array_equal(sample["mask"].numpy(), stored(dataset.files(1)["mask"])[0] // 255)


@pytest.mark.brief
def test_filled_edges_carry_no_data(folder: Path) -> None:
    sample = PairFolder(folder, "train", classes=FLOOD)[0]
    assert not sample["validity_optical"][:5].any()
    assert sample["validity_optical"][5:].all()
    assert not sample["validity_sar"][:4].any()
    assert sample["validity_sar"][4:].all()
    assert (sample["sar"][:, :4] == 0).all()
    assert (sample["mask"][:4] == 255).all(), "nothing was seen there"
    assert (sample["mask"][4:] < 2).all()
    believed = PairFolder(folder, "train", classes=FLOOD, outside="declared")
    assert believed[0]["validity_sar"].all()
    assert (believed[0]["sar"][:, :4] == 255).all()
    assert not any("outside" in notice for notice in believed.notices)


def test_declared_nodata_carries_no_data(tmp_path: Path) -> None:
    root = write_copy("pair_folder", tmp_path / "chips", "tif")
    path = root / "train/sar/0002.tif"
    pixels = stored(path)
    pixels[0, 10, 10:14] = 7
    pixels[pixels == 7] = 7
    rewrite(path, pixels, nodata=7)
    validity = PairFolder(root, "train", classes=FLOOD, outside="declared")[1]["validity_sar"]
    assert np.array_equal(validity.numpy(), pixels[0] != 7)


@given(st.integers(0, 255), st.integers(0, 3), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_filled_area_is_found_whole_on_any_side(value: int, side: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (1, 40, 56)).astype(np.float32)
    area = np.zeros(pixels.shape[1:], bool)
    np.rot90(area, side)[:width] = True
    pixels[:, area] = value
    found = outside_swath(pixels, None)
    assert found[area].all()
    # what else is found has the value and is connected to the area: a few pixels by chance
    assert (pixels[0][found] == value).all()
    assert (found & ~area).sum() < 20


def test_holes_in_the_midst_and_dark_water_are_data() -> None:
    pixels = np.random.default_rng(3).integers(1, 256, (1, 64, 64)).astype(np.float32)
    pixels[0, 20:40, 20:40] = 0
    pixels[0, 50, :7] = 0  # touches the edge with one pixel
    assert not outside_swath(pixels, 0).any()
    pixels[0, :3] = 255  # filled, but not with the value that means it
    assert not outside_swath(pixels, 0).any()
    assert outside_swath(pixels, None).sum() >= 3 * 64


def test_optical_is_outside_where_all_bands_are_zero() -> None:
    pixels = np.random.default_rng(4).integers(1, 256, (3, 32, 32)).astype(np.float32)
    pixels[:2, :4] = 0
    assert not outside_swath(pixels, 0).any()
    pixels[2, :4] = 0
    assert np.array_equal(outside_swath(pixels, 0), np.arange(32)[:, None].repeat(32, 1) < 4)


@pytest.mark.brief
def test_loads_with_workers_and_transforms(folder: Path) -> None:
    def halve(sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**sample, "optical": sample["optical"] / 2}

    dataset = PairFolder(folder, "train", classes=FLOOD, transforms=halve)
    batches = list(DataLoader(dataset, batch_size=2, num_workers=2))
    assert [len(batch["mask"]) for batch in batches] == [2, 2, 1]
    plain = PairFolder(folder, "train", classes=FLOOD)
    assert torch.equal(batches[1]["optical"][1] * 2, plain[3]["optical"])
    assert [sample["mask"].shape for sample in plain] == [(32, 48)] * 5, "iteration ends"


def test_parts_held_out_of_train(folder: Path) -> None:
    parts = {
        split: {d.name(i) for i in range(len(d))}
        for split in ("train", "val", "train+val")
        for d in [PairFolder(folder, split, hold_out=2)]
    }
    assert parts["val"] == {"0002", "0004"}
    assert parts["train"] == {"0001", "0003", "0005"}
    assert parts["train+val"] == parts["train"] | parts["val"]
    assert len(PairFolder(folder, "test", hold_out=2)) == 2


@given(st.lists(st.integers(0, 999), min_size=1, max_size=60, unique=True), st.integers(2, 12))
def test_parts_share_nothing_and_lose_nothing(numbers: list[int], every: int) -> None:
    names = [f"chip{n}" for n in sorted(numbers)]
    train, _ = choose_part({"train": names}, "train", every, "x")
    val, _ = choose_part({"train": names}, "val", every, "x")
    assert sorted(train + val) == sorted(names)
    assert len(val) == len(names) // every
    assert choose_part({"train": names}, "train", 0, "x")[0] == names


def test_names_sort_by_their_numbers() -> None:
    assert sorted(["t_10", "t_9", "t_1", "a", "t_1b"], key=natural) == ["a", "t_1", "t_1b", "t_9", "t_10"]


def test_several_auxiliary_modalities_and_bands(folder: Path) -> None:
    for part in ("train", "test"):
        shutil.copytree(folder / part / "optical", folder / part / "nir")
    dataset = PairFolder(folder, "train", auxiliary=("sar", "nir"), optical_bands=(3, 1), auxiliary_bands=(1,))
    sample = dataset[1]
    assert dataset.modalities == ("optical", "sar", "nir")
    assert torch.equal(sample["optical"][1], sample["nir"][0])
    assert sample["optical"].shape[0] == 2


def test_labels_without_classes_are_indexes(folder: Path) -> None:
    path = folder / "train/label/0002.png"
    pixels = stored(path)
    pixels[pixels > 0] = 9
    pixels[0, 0, :3] = 255
    rewrite(path, pixels)
    mask = PairFolder(folder, "train")[1]["mask"]
    assert np.array_equal(mask.numpy(), pixels[0])
    assert mask[0, 0] == 255


def test_statistics_normalise() -> None:
    values = torch.full((2, 3, 1, 1), 51.0)
    out = Statistics((0.1, 0.2, 0.3), (0.1, 0.1, 0.2), 255.0).normalise(values)
    assert torch.allclose(out.flatten(), torch.tensor([1.0, 0.0, -0.5] * 2), atol=1e-6)


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(DatasetError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.brief
def test_a_half_copied_folder_lists_what_lacks(folder: Path) -> None:
    (folder / "train/sar/0003.png").unlink()
    (folder / "train/label/0001.png").unlink()
    text = refused(lambda: PairFolder(folder, "train"))
    assert "sar/ (.png, .tif, .tiff, .jpg, .jpeg) lacks 0003" in text
    assert "label/ (.png, .tif, .tiff, .npy) lacks 0001" in text
    assert "5 in optical/" in text
    assert "4 in sar/" in text


def test_equal_totals_of_other_names_are_noticed(folder: Path) -> None:
    (folder / "train/sar/0003.png").rename(folder / "train/sar/0033.png")
    text = refused(lambda: PairFolder(folder, "train"))
    assert "lacks 0033" in text
    assert "lacks 0003" in text


def test_missing_folders_and_splits_are_told(folder: Path, tmp_path: Path) -> None:
    assert "there is no such folder" in refused(lambda: PairFolder(tmp_path / "nothing"))
    assert "name one: split='test'" in refused(lambda: PairFolder(folder))
    assert "choose from test, train" in refused(lambda: PairFolder(folder, "valid"))
    assert "hold_out=10 makes a val" in refused(lambda: choose_part({"train": ["a"]}, "val", 0, "x"))
    shutil.rmtree(folder / "train/sar")
    text = refused(lambda: PairFolder(folder, "train"))
    assert "there is no folder sar (found: label, optical)" in text
    assert "expected sar/" in text


def test_odd_options_are_told(folder: Path) -> None:
    assert "at least 2" in refused(lambda: PairFolder(folder, "train", hold_out=1))
    assert "auxiliary" in refused(lambda: PairFolder(folder, "train", auxiliary=("optical",)))
    assert "no split to hold out of" in refused(lambda: PairFolder(folder / "train", hold_out=3))
    (folder / "val/optical").mkdir(parents=True)
    assert "validation part of its own" in refused(lambda: PairFolder(folder, "train", hold_out=3))


def test_two_files_of_one_name_are_told(folder: Path) -> None:
    shutil.copy(folder / "train/sar/0002.png", folder / "train/sar/0002.tif")
    assert "have one name" in refused(lambda: PairFolder(folder, "train"))


def test_other_systems_leavings_are_passed_over(folder: Path) -> None:
    (folder / "train/sar/._0002.png").write_bytes(b"x")
    (folder / "train/sar/Thumbs.db").write_bytes(b"x")
    (folder / "train/sar/0002.png.aux.xml").write_text("<PAMDataset/>")
    assert len(PairFolder(folder, "train")) == 5


@pytest.mark.brief
def test_a_damaged_file_is_named(folder: Path) -> None:
    path = folder / "train/optical/0004.png"
    path.write_bytes(path.read_bytes()[:900])
    dataset = PairFolder(folder, "train", classes=FLOOD)
    assert "0004.png" in refused(lambda: dataset[3])
    assert "0004.png" in refused(dataset.check)
    path.write_bytes(b"")
    assert "0004.png" in refused(lambda: dataset[3])


def test_other_sizes_bands_and_kinds_are_named(folder: Path) -> None:
    path = folder / "train/sar/0002.png"
    whole = stored(path)
    dataset = PairFolder(folder, "train", classes=FLOOD)
    rewrite(path, whole[:, :-1])
    text = refused(lambda: dataset[1])
    assert "0002 differ in size: optical 32 x 48, sar 31 x 48, labels 32 x 48" in text
    rewrite(path, np.repeat(whole, 3, axis=0))
    assert "it has 3 bands, expected 1" in refused(lambda: dataset[1])
    by_band = PairFolder(folder, "train", classes=FLOOD, auxiliary_bands=(1,))
    assert "there is no band 2" in refused(lambda: PairFolder(folder, "train", auxiliary_bands=(2,)))
    assert by_band[1]["sar"].shape == (1, 32, 48)
    label = folder / "train/label/0003.png"
    rewrite(label, np.repeat(stored(label), 3, axis=0))
    assert "labels are one band" in refused(lambda: dataset[2])


def test_unknown_labels_are_named_with_file_and_value(folder: Path) -> None:
    path = folder / "train/label/0002.png"
    pixels = stored(path)
    pixels[0, 3, 4] = 77
    rewrite(path, pixels)
    text = refused(lambda: PairFolder(folder, "train", classes=FLOOD)[1])
    assert "0002.png" in text
    assert "label 77 is none of the classes (0 dry, 255 flood)" in text


def test_palette_labels_are_their_values_and_palette_images_are_refused(folder: Path) -> None:
    for kind in ("label", "optical"):
        path = folder / f"train/{kind}/0002.png"
        with rasterio.open(path, "w", driver="PNG", count=1, height=32, width=48, dtype="uint8") as out:
            out.write(np.full((1, 32, 48), 255, np.uint8))
            out.write_colormap(1, {0: (9, 9, 9, 255), 255: (1, 2, 3, 255)})
        if kind == "label":
            assert (PairFolder(folder, "train", classes=FLOOD)[1]["mask"] == 1).all()
    dataset = PairFolder(folder, "train", classes=FLOOD, optical_bands=(1,))
    assert "colour table" in refused(lambda: dataset[1])


def test_a_damaged_jpeg_is_named(tmp_path: Path) -> None:
    root = write_copy("pair_folder", tmp_path / "chips", "jpg")
    path = root / "train/sar/0002.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    assert "0002.jpg" in refused(lambda: PairFolder(root, "train", classes=FLOOD)[1])


def test_can_be_sent_to_another_process(folder: Path) -> None:
    dataset = PairFolder(folder, "train", classes=FLOOD)
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[1]["sar"], dataset[1]["sar"])
    assert copy.notices == dataset.notices


def test_array_labels(folder: Path) -> None:
    shutil.rmtree(folder / "train/label")
    (folder / "train/label").mkdir()
    for i in range(5):
        np.save(folder / f"train/label/000{i + 1}.npy", np.full((32, 48), i % 2 * 255, np.uint8))
    dataset = PairFolder(folder, "train", classes=FLOOD)
    assert (dataset[1]["mask"] == 1).all()
    path = folder / "train/label/0002.npy"
    np.save(path, np.zeros((32, 48)))
    assert "it holds float64 [32, 48]" in refused(lambda: dataset[1])
    np.save(path, np.array([object()]), allow_pickle=True)
    assert "can't be read" in refused(lambda: dataset[1])


@pytest.mark.brief
def test_plots_images_labels_and_prediction(folder: Path, tmp_path: Path) -> None:
    dataset = PairFolder(folder, "train", classes=FLOOD)
    sample = dict(dataset[0])
    sample["prediction"] = torch.zeros_like(sample["mask"])
    figure = dataset.plot(sample, suptitle="one")
    assert [axis.get_title() for axis in figure.axes] == ["optical", "sar", "mask", "prediction"]
    assert figure.get_suptitle() == "one"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["dry", "flood", "not labelled"]
    drawn = figure.axes[1].images[0].get_array()
    assert np.allclose(drawn[0, 0], (1, 0, 1)), "no data is magenta"
    assert np.allclose(drawn[10, 10, 0], drawn[10, 10, 2]), "the rest is grey"
    figure.savefig(tmp_path / "one.png")
    assert [axis.get_title() for axis in dataset.plot(sample, show_titles=False).axes] == [""] * 4


class TestOmbria:
    pytestmark = needs(DATA / "ombria")

    def test_is_read_as_it_is(self) -> None:
        parts = {s: PairFolder(DATA / "ombria", s, classes=FLOOD, hold_out=10) for s in ("train", "val", "test")}
        assert {split: len(part) for split, part in parts.items()} == {"train": 562, "val": 62, "test": 70}
        names = [parts["train"].name(i) for i in range(562)]
        white, grey, dark = (parts["train"][names.index(name)] for name in ("0343", "0401", "0128"))
        assert (~white["validity_sar"]).float().mean() == pytest.approx(0.241, abs=1e-3)
        assert (~grey["validity_sar"]).float().mean() == pytest.approx(0.139, abs=1e-3)
        assert (~grey["validity_optical"]).float().mean() == pytest.approx(0.150, abs=1e-3)
        assert dark["validity_sar"].all(), "water of value 0 is data"
        assert set(grey["mask"].unique().tolist()) == {0, 1, 255}


@pytest.mark.brief
def test_options_that_make_no_sense_are_told(tmp_path: Path) -> None:
    root = write_copy("pair_folder", tmp_path / "copy")
    with pytest.raises(DatasetError, match="outside='x': there is no such rule; use 'edges' or 'declared'"):
        PairFolder(root, "train", outside="x")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="it is no class list"):
        PairFolder(root, "train", classes="classes.yaml")  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="nothing is in the split 'val' with hold_out=1000"):
        PairFolder(root, "val", hold_out=1000)
    assert PairFolder(root, "train", auxiliary="sar").modalities == ("optical", "sar")
