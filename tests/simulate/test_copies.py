"""Tiny copies: what is in the folders, in which encoding; read here with rasterio alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy.io import loadmat

from gopt_geo.errors import DatasetError
from gopt_geo.simulate.copies import LAYOUTS, write_copy

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
ALL = [(name, layout) for name, layouts in LAYOUTS.items() for layout in layouts]


def tree(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.mark.brief
@pytest.mark.parametrize(("name", "layout"), ALL)
def test_the_same_arguments_give_the_same_files(tmp_path: Path, name: str, layout: str) -> None:
    first, second, third = (
        write_copy(name, tmp_path / str(i), layout, train=2, test=1, seed=seed) for i, seed in enumerate((5, 5, 6))
    )
    assert tree(first) == tree(second) == tree(third)
    images = [path for path in tree(first) if not path.endswith((".txt", ".mat"))]
    assert all((first / path).read_bytes() == (second / path).read_bytes() for path in images)
    assert all((first / path).read_bytes() != (third / path).read_bytes() for path in images)


def test_trees(tmp_path: Path) -> None:
    def of(name: str, layout: str) -> list[str]:
        return tree(write_copy(name, tmp_path / f"{name}{layout}", layout, train=1, test=1))

    assert of("nyudv2", "B")[:4] == [f"test/{d}/0002.png" for d in ("depth", "depth_raw", "labels_40", "rgb")]
    assert "NH49E001001.tif" in of("whu_opt_sar", "crs")[1]
    assert of("sunrgbd", "flat")[-1] == "labels/train_0.png"
    official = of("sunrgbd", "official")
    assert "SUNRGBD/kv2/kinect2data/000000_train/label/label.npy" in official
    assert of("mfnet", "images")[:3] == [f"images/0000{i}{'DND'[i - 1]}.png" for i in (1, 2, 3)]
    assert of("pair_folder", "jpg")[:2] == ["test/label/0001.png", "test/optical/0001.jpg"]


def test_encodings(tmp_path: Path) -> None:
    def read(path: Path) -> tuple[np.ndarray, rasterio.DatasetReader]:
        with rasterio.open(path) as dataset:
            return dataset.read(), dataset

    whu = write_copy("whu_opt_sar", tmp_path / "whu", "crs", size=(64, 64))
    labels, dataset = read(whu / "lbl/NH49E001001.tif")
    assert set(np.unique(labels)) <= set(range(0, 80, 10))
    assert len(np.unique(labels)) > 4
    assert dataset.crs.to_epsg() == 32649
    assert read(whu / "optical/NH49E001001.tif")[1].count == 4
    depth, dataset = read(write_copy("nyudv2", tmp_path / "nyu", "B") / "train/depth_raw/0001.png")
    assert dataset.dtypes == ("uint16",)
    assert 255 < depth.max() <= 8000
    assert (depth == 0).sum() == 16
    assert read(write_copy("mfnet", tmp_path / "mf") / "images/00001D.png")[1].count == 4
    split = loadmat(
        write_copy("sunrgbd", tmp_path / "sun", "official") / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
    )
    assert split["alltrain"].shape == (1, 4)
    assert str(split["alltest"][0][0][0]).startswith("/n/fs/sun3d/data/SUNRGBD/kv2/")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("ade20k",), "no such data set"),
        (("nyudv2", "C"), "no layout 'C'; choose from A, B"),
    ],
)
def test_refuses_what_it_does_not_know(tmp_path: Path, arguments: tuple[str, ...], found: str) -> None:
    with pytest.raises(DatasetError, match=found):
        write_copy(arguments[0], tmp_path / "new", *arguments[1:])


def test_refuses_odd_numbers_and_full_folders(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="at least 8 x 8"):
        write_copy("mfnet", tmp_path / "new", size=(7, 20))
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DatasetError, match="isn't an empty folder"):
        write_copy("mfnet", tmp_path)
    assert tree(tmp_path) == ["file"]
