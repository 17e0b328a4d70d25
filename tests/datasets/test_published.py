"""The published data sets: layouts, encodings, splits and conventions, on tiny copies of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from scipy.io import savemat

from gopt_geo.datasets.lists import name_list
from gopt_geo.datasets.mfnet import MFNet
from gopt_geo.datasets.nyudv2 import NYUDv2
from gopt_geo.datasets.pst900 import PST900
from gopt_geo.datasets.sunrgbd import SUNRGBD
from gopt_geo.datasets.whu_opt_sar import SPLIT_FILE, WHUOptSar, read_division
from gopt_geo.errors import DatasetError
from gopt_geo.simulate.copies import write_copy

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
Copy = Callable[..., Path]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    def make(dataset: str, layout: str | None = None, **options: object) -> Path:
        return write_copy(dataset, tmp_path / f"{dataset}_{layout}", layout, **options)

    return make


def stored(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read())


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(DatasetError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(dataset) -> list[str]:
    return [dataset.name(i) for i in range(len(dataset))]


def shifted(labels: np.ndarray) -> np.ndarray:
    """Value - 1, 0 to 255: what NYUDv2 and SUN RGB-D do."""
    return np.where(labels == 0, 255, labels.astype(int) - 1)


# WHU-OPT-SAR


@pytest.mark.brief
@pytest.mark.parametrize("layout", ["crs", "no_crs"])
def test_whu_is_read_whole_and_in_crops(copy: Copy, layout: str) -> None:
    root = copy("whu_opt_sar", layout, train=10, test=2, size=(40, 61))
    scenes = WHUOptSar(root, "test", crop=None)
    assert len(scenes) == 2
    sample = scenes[0]
    labels = stored(root / "lbl" / f"{scenes.name(0)}.tif")[0].astype(int)
    assert np.array_equal(sample["mask"].numpy(), np.where(labels == 0, 255, labels // 10 - 1))
    assert torch.equal(sample["optical"], torch.from_numpy(stored(scenes.files(0)["optical"])[:3]).float())
    crops = WHUOptSar(root, "test", crop=20, auxiliary=("sar", "nir"))
    assert len(crops) == 2 * 2 * 3
    assert crops.modalities == ("optical", "sar", "nir")
    assert (crops.name(5), crops.scene(5)) == (f"{scenes.name(0)}_1_2", scenes.name(0))
    part = crops[5]
    assert torch.equal(part["optical"], sample["optical"][:, 20:40, 40:60])
    assert torch.equal(part["mask"], sample["mask"][20:40, 40:60])
    assert np.array_equal(part["nir"][0].numpy(), stored(crops.files(5)["optical"])[3, 20:40, 40:60])
    assert crops.layout == {"crs": "with CRS", "no_crs": "without CRS"}[layout]
    grid = crops.grid(5)
    assert grid.shape == (20, 20)
    if layout == "crs":
        assert grid.crs.epsg == 32649
        whole = scenes.grid(0).affine
        assert (grid.affine.c, grid.affine.f) == (whole.c + 40 * 5, whole.f - 20 * 5)
    else:
        assert grid.crs is None


def test_whu_crops_of_the_real_size_are_294(copy: Copy) -> None:
    # the real scenes' shape, an eighth of the size: 3704 / 256 and 5556 / 256 keep their whole parts
    root = copy("whu_opt_sar", "no_crs", train=1, test=1, size=(463, 695))
    assert len(WHUOptSar(root, "train", crop=32, hold_out=0)) == 294


def test_whu_validation_is_the_same_in_every_copy(copy: Copy) -> None:
    root = copy("whu_opt_sar", train=20, test=2)
    official = read_division(root / SPLIT_FILE)
    val = WHUOptSar(root, "val", crop=None)
    assert names(val) == [official["train"][9], official["train"][19]]
    assert len(WHUOptSar(root, "train", crop=None)) == 18
    assert len(WHUOptSar(root, "train+val", crop=None)) == 20
    assert len(WHUOptSar(root, None, crop=None)) == 22
    for name in official["train"][:5]:  # a copy of part of the scenes
        for folder in ("optical", "sar", "lbl"):
            (root / folder / f"{name}.tif").unlink()
    fewer = WHUOptSar(root, "val", crop=None)
    assert names(fewer) == names(val)
    train = WHUOptSar(root, "train", crop=None)
    assert len(train) == 13
    assert any("5 of 18 scenes of train aren't in this copy" in notice for notice in train.notices)


@pytest.mark.parametrize(
    "text",
    [
        "train\nNH49E001013\nNH49E001014\n\ntest\nNI49E002001\n",
        "Train set (2 images):\nNH49E001014.tif, NH49E001013.tif\nTest set (1):\nNI49E002001.tif\n",
        "﻿training: NH49E001013; NH49E001014\r\ntesting: NI49E002001\r\n",
        "训练集：\nNH49E001013、NH49E001014\n测试集：\nNI49E002001\n",
    ],
)
def test_divisions_are_read_liberally(tmp_path: Path, text: str) -> None:
    path = tmp_path / SPLIT_FILE
    for encoding in ("utf-8", "gb18030"):
        path.write_bytes(text.encode(encoding))
        assert read_division(path) == {"train": ["NH49E001013", "NH49E001014"], "test": ["NI49E002001"]}


def test_a_division_may_have_its_own_validation(copy: Copy, tmp_path: Path) -> None:
    root = copy("whu_opt_sar", train=3, test=1)
    one, two, three, four = sorted(path.stem for path in (root / "lbl").iterdir())
    path = tmp_path / "mine.txt"
    path.write_text(f"train\n{one}\nval\n{two}\ntest\n{three}\n")
    assert names(WHUOptSar(root, "val", crop=None, split_file=path)) == [two]
    dataset = WHUOptSar(root, "train", crop=None, split_file=path)
    assert names(dataset) == [one]
    assert any(f"1 scenes are in no part of mine.txt: {four}" in notice for notice in dataset.notices)


def test_whu_refuses_what_it_cannot_read(copy: Copy, tmp_path: Path) -> None:
    root = copy("whu_opt_sar", "crs")
    assert "give a smaller crop" in refused(lambda: WHUOptSar(root, "train"))
    assert "choose from train, test, val, train+val" in refused(lambda: WHUOptSar(root, "valid"))
    assert "choose from sar, nir" in refused(lambda: WHUOptSar(root, auxiliary=("vv",)))
    for text, found in (
        ("NH49E001013\n", "line 1: 'NH49E001013' is no scene under a heading"),
        ("train\nsome words\n", "line 2: 'some' is no scene"),
        ("train\nNH49E001013\n", "it names scenes only for train"),
        ("train\nNH49E001013\ntest\nNH49E001013\n", "NH49E001013 are named twice"),
    ):
        path = tmp_path / "division.txt"
        path.write_text(text)
        assert found in refused(lambda path=path: read_division(path))
    (root / SPLIT_FILE).unlink()
    assert "give split=None" in refused(lambda: WHUOptSar(root, "train", crop=8))
    name = sorted(path.name for path in (root / "sar").iterdir())[1]
    pixels = stored(root / "sar" / name)
    with rasterio.open(root / "sar" / name, "r+") as dataset:
        dataset.transform = rasterio.Affine(5, 0, 0, 0, -5, 0)
    assert "different grids" in refused(lambda: WHUOptSar(root, None, crop=8))
    shape = {"count": 1, "height": 31, "width": 48, "dtype": "uint8"}
    with rasterio.open(root / "sar" / name, "w", driver="GTiff", **shape) as dataset:
        dataset.write(pixels[:, :31])
    assert "differ in size: optical 32 x 48, sar 31 x 48" in refused(lambda: WHUOptSar(root, None, crop=8))
    (root / "sar" / name).unlink()
    assert f"lacks {name[:-4]}" in refused(lambda: WHUOptSar(root, None, crop=8))


def test_whu_scores_seven_classes_and_prints_eight() -> None:
    scoring = WHUOptSar.scoring
    assert scoring.averaged == len(WHUOptSar.classes) == 7
    for seven, eight in ((0.5007, 0.4382), (0.4910, 0.4296), (0.4706, 0.4118)):
        assert scoring.with_zero_classes(seven) == pytest.approx(eight, abs=2e-4)


# NYUDv2


@pytest.mark.brief
def test_nyu_layout_a(copy: Copy) -> None:
    root = copy("nyudv2", "A")
    train, test = NYUDv2(root, "train"), NYUDv2(root, "test")
    assert (names(train), names(test)) == (["0", "1", "2", "3"], ["4", "5"])
    assert train.layout == "A"
    assert "layout A found" in train.notices[0]
    sample = train[1]
    assert set(sample) == {"optical", "hha", "validity_optical", "validity_hha", "mask"}
    assert sample["hha"].shape == (3, 32, 48)
    assert np.array_equal(sample["mask"].numpy(), shifted(stored(root / "Label/1.png")[0]))
    assert train.statistics["hha"].divide == 255
    eight_bit = NYUDv2(root, "test", auxiliary="depth")
    assert (eight_bit.statistics["depth"].mean, eight_bit.statistics["depth"].std) == ((0.48,), (0.28,))
    assert not eight_bit[0]["validity_depth"][2:6, 2:6].any()
    (root.parent / "up").mkdir()
    root.rename(root.parent / "up/NYUDepthv2")
    assert len(NYUDv2(root.parent / "up", "test")) == 2


@pytest.mark.brief
def test_nyu_layout_b(copy: Copy) -> None:
    root = copy("nyudv2", "B")
    train, test = NYUDv2(root, "train"), NYUDv2(root, "test", auxiliary="depth_raw")
    assert names(train) == ["0001", "0002", "0003", "0004"]
    assert names(test) == ["0005", "0006"]
    assert train.layout == "B"
    sample = train[3]
    assert np.array_equal(sample["depth"].numpy(), stored(root / "train/depth/0004.png"))
    assert sample["depth"].max() > 255, "millimetres"
    assert sample["validity_depth"].all()
    assert train.statistics["depth"].mean == (2841.949,)
    raw = test[0]["validity_depth"]
    assert not raw[2:6, 2:6].any()
    assert raw.sum() == 32 * 48 - 16
    assert np.array_equal(sample["mask"].numpy(), shifted(stored(root / "train/labels_40/0004.png")[0]))


def test_nyu_holds_out_only_on_request(copy: Copy) -> None:
    for layout in "AB":
        root = copy("nyudv2", layout, train=6)
        assert "choose from train, test; hold_out=10" in refused(lambda root=root: NYUDv2(root, "val"))
        val, train = NYUDv2(root, "val", hold_out=3), NYUDv2(root, "train", hold_out=3)
        assert not set(names(val)) & set(names(train))
        assert (len(val), len(train), len(NYUDv2(root, "test", hold_out=3))) == (2, 4, 2)


def test_nyu_refuses_what_it_cannot_read(copy: Copy, tmp_path: Path) -> None:
    a, b = copy("nyudv2", "A"), copy("nyudv2", "B")
    (tmp_path / "empty").mkdir()
    text = refused(lambda: NYUDv2(tmp_path / "empty"))
    assert "neither of NYUDv2's layouts is there (found: nothing)" in text
    assert "expected A: RGB/*.jpg" in text
    assert "layout B has no auxiliary 'hha'; choose from depth, depth_raw" in refused(
        lambda: NYUDv2(b, auxiliary="hha")
    )
    assert "layout 'A' isn't there, B is" in refused(lambda: NYUDv2(b, layout="A"))
    shutil.copytree(a, b, dirs_exist_ok=True)
    assert "both of NYUDv2's layouts" in refused(lambda: NYUDv2(b))
    assert (NYUDv2(b, layout="A").layout, NYUDv2(b, layout="B").layout) == ("A", "B")
    (a / "HHA/2.jpg").unlink()
    text = refused(lambda: NYUDv2(a))
    assert "of 4 names (train.txt)" in text
    assert "HHA/ (.jpg, .png) lacks 2" in text
    assert len(NYUDv2(a, "test")) == 2
    (a / "test.txt").unlink()
    assert "there is no such file" in refused(lambda: NYUDv2(a, "test"))


@pytest.mark.brief
def test_lists_of_names(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("RGB/2.jpg\tLabel/2.png\n10\n\n  a.b \r\nimages/x.PNG\n")
    assert name_list(path) == ["2", "10", "a.b", "x"]
    for text, found in (("", "names nothing"), ("1\n1\n", "1 occurs twice"), ("RGB/2.jpg Label/3.png", "line 1")):
        path.write_text(text)
        assert found in refused(lambda: name_list(path))
    path.write_bytes(b"\xff\xff\xff\xff")
    assert "isn't text" in refused(lambda: name_list(path))


# SUN RGB-D


@pytest.mark.brief
@pytest.mark.parametrize("layout", ["flat", "official"])
def test_sun_layouts(copy: Copy, layout: str) -> None:
    root = copy("sunrgbd", layout)
    train, test = SUNRGBD(root, "train"), SUNRGBD(root, "test")
    assert (len(train), len(test), train.layout) == (4, 2, layout)
    assert not set(names(train)) & set(names(test))
    assert {tuple(sample["mask"].shape) for sample in train} == {(32, 48), (31, 48), (30, 48)}, "sizes vary"
    sample, files = train[0], train.files(0)
    assert np.array_equal(sample["depth"].numpy(), stored(files["depth"]))
    assert (sample["depth"] > 255).any()
    assert not sample["validity_depth"][2:6, 2:6].any()
    labels = np.load(files["mask"]) if layout == "official" else stored(files["mask"])[0]
    assert np.array_equal(sample["mask"].numpy(), shifted(labels))
    assert train.statistics["depth"].mean == (19025.15,)
    assert len(train.classes) == 37
    assert train.classes.names == NYUDv2.classes.names[:37]


def test_sun_split_file_at_the_top_and_odd_ones(copy: Copy) -> None:
    root = copy("sunrgbd", "official")
    file = root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
    shutil.move(file, root / "allsplit.mat")
    assert len(SUNRGBD(root, "test")) == 2
    label = next((root / "SUNRGBD").rglob("*_train/label/label.npy"))
    label.unlink()
    text = refused(lambda: SUNRGBD(root, "train"))
    assert "of 4 folders in allsplit.mat 3 are complete" in text
    assert f"{label.parent.parent.name} (mask)" in text
    for content, found in (
        ({"other": 1}, "it has no alltrain"),
        ({"alltrain": "/etc/x"}, "isn't a folder below SUNRGBD"),
    ):
        savemat(root / "allsplit.mat", content)
        assert found in refused(lambda: SUNRGBD(root, "train"))
    (root / "allsplit.mat").write_bytes(b"MATLAB 5.0")
    assert "can't be read" in refused(lambda: SUNRGBD(root, "train"))


def test_sun_refuses_what_it_cannot_read(copy: Copy, tmp_path: Path) -> None:
    root = copy("sunrgbd", "flat")
    assert "neither of SUN RGB-D's layouts" in refused(lambda: SUNRGBD(tmp_path / "nothing"))
    assert "layout 'official' isn't there" in refused(lambda: SUNRGBD(root, layout="official"))
    (root / "labels/train_1.png").unlink()
    assert "labels/*.png lacks train_1" in refused(lambda: SUNRGBD(root, "train"))
    assert len(SUNRGBD(root, "test")) == 2


# MFNet


@pytest.mark.brief
def test_mfnet(copy: Copy) -> None:
    root = copy("mfnet")
    parts = {split: MFNet(root, split) for split in ("train", "val", "test", "test_day", "test_night", "train+val")}
    assert [len(part) for part in parts.values()] == [4, 2, 2, 1, 1, 6]
    assert names(parts["test_day"])[0].endswith("D")
    assert names(parts["test_night"])[0].endswith("N")
    sample, pixels = parts["train"][2], stored(parts["train"].files(2)["optical"])
    assert np.array_equal(sample["optical"].numpy(), pixels[:3]), "the fourth channel isn't transparency"
    assert np.array_equal(sample["thermal"].numpy(), pixels[3:])
    assert sample["validity_optical"].all()
    assert np.array_equal(sample["mask"].numpy(), stored(parts["train"].files(2)["mask"])[0])
    assert (MFNet.scoring.averaged, len(MFNet.classes), MFNet.classes.names[0]) == (9, 9, "unlabelled")
    assert MFNet.classes.ignore == ()


def test_mfnet_thermal_of_zero_is_data(copy: Copy) -> None:
    root = copy("mfnet")
    dataset = MFNet(root)
    path = dataset.files(0)["optical"]
    pixels = stored(path)
    pixels[3, 4:8] = 0
    with rasterio.open(path, "w", driver="PNG", count=4, height=32, width=48, dtype="uint8") as out:
        out.write(pixels)
    sample = dataset[0]
    assert np.array_equal(sample["optical"].numpy(), pixels[:3])
    assert sample["validity_thermal"].all()


def test_mfnet_refuses_what_it_cannot_read(copy: Copy) -> None:
    root = copy("mfnet")
    assert "choose from train, val, test" in refused(lambda: MFNet(root, "trainval"))
    name = name_list(root / "val.txt")[1]
    (root / "images" / f"{name}.png").unlink()
    assert f"images/*.png lacks {name}" in refused(lambda: MFNet(root, "val"))
    path = root / "labels" / f"{name_list(root / 'train.txt')[0]}.png"
    with rasterio.open(path, "w", driver="PNG", count=1, height=32, width=48, dtype="uint8") as out:
        out.write(np.full((1, 32, 48), 9, np.uint8))
    text = refused(lambda: MFNet(root)[0])
    assert str(path) in text
    assert "label 9 is none of the classes" in text


# PST900


@pytest.mark.brief
def test_pst900(copy: Copy) -> None:
    root = copy("pst900", train=20)
    parts = {split: PST900(root, split) for split in ("train", "val", "test", "train+val")}
    assert [len(part) for part in parts.values()] == [18, 2, 2, 20]
    assert set(names(parts["train"])) | set(names(parts["val"])) == set(names(parts["train+val"]))
    assert "20 images in train" in parts["train"].notices[0]
    sample = parts["test"][0]
    assert not sample["validity_thermal"][2:6, 2:6].any()
    assert sample["validity_thermal"].sum() == 32 * 48 - 16
    raw = PST900(root, "test", thermal="thermal_raw")
    assert raw.modalities == ("optical", "thermal")
    assert np.array_equal(raw[0]["thermal"].numpy(), stored(raw.files(0)["thermal"]))
    assert raw[0]["thermal"].max() > 255
    assert np.array_equal(sample["mask"].numpy(), stored(raw.files(0)["mask"])[0])
    assert (PST900.scoring.averaged, len(PST900.classes), PST900.classes.ignore) == (5, 5, ())


def test_pst900_refuses_what_it_cannot_read(copy: Copy) -> None:
    root = copy("pst900")
    assert "choose from train, test, val" in refused(lambda: PST900(root, "valid"))
    shutil.rmtree(root / "test/thermal")
    assert "there is no folder thermal (found: depth, labels, rgb, thermal_raw)" in refused(
        lambda: PST900(root, "test")
    )
    for path in (root / "train/thermal").iterdir():
        shutil.copy(root / "train/thermal_raw" / path.name, path)
    assert "its values are uint16, expected uint8" in refused(lambda: PST900(root)[0])
