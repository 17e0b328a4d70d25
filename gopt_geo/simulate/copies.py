"""Tiny copies of published data sets: their folders, names and encodings, with invented pixels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from gopt_geo.errors import DatasetError

__all__ = ["LAYOUTS", "write_copy"]

_DRIVERS = {".png": "PNG", ".tif": "GTiff", ".jpg": "JPEG"}
_NOISE = 12.0  # standard deviation of 8-bit pixels about their class's level
_FILL = 255  # value of SAR outside of the swath, as some chips have it


@dataclass(frozen=True)
class _Copy:
    """A copy under way: where, how many images of each part, of which size, and the source of all that is random."""

    folder: Path
    layout: str
    train: int
    test: int
    size: tuple[int, int]
    rng: np.random.Generator

    def labels(self, classes: int) -> NDArray[np.uint8]:
        """Return class indexes [H, W] in square patches; the first patches go through the classes in order."""
        height, width = self.size
        cell = max(min(height, width) // 6, 1)
        shape = -(-height // cell), -(-width // cell)
        patches = self.rng.integers(0, classes, shape)
        start = int(self.rng.integers(classes))
        count = min(patches.size // 2, classes)
        patches.flat[:count] = (start + np.arange(count)) % classes
        return np.kron(patches, np.ones((cell, cell), np.int64))[:height, :width].astype(np.uint8)

    def image(self, labels: NDArray[np.uint8], bands: int, top: int = 255) -> NDArray[np.uint16]:
        """Return pixels [bands, H, W] from 1 to below `top`: a level for each class and band, and noise."""
        levels = np.random.default_rng(bands).uniform(0.15, 0.85, (256, bands)) * top
        noise = self.rng.normal(0, _NOISE * top / 255, (bands, *labels.shape))
        return np.clip(np.moveaxis(levels[labels], -1, 0) + noise, 1, top - 1).astype(np.uint16)


def _write(path: Path, pixels: NDArray[np.generic], dtype: str = "uint8", place: Affine | None = None) -> None:
    """Write [H, W] or [C, H, W] as the path's ending says; with a place, in UTM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (pixels if pixels.ndim == 3 else pixels[None]).astype(dtype)
    where = {} if place is None else {"crs": "EPSG:32649", "transform": place}
    profile = {"count": pixels.shape[0], "height": pixels.shape[1], "width": pixels.shape[2], "dtype": dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver=_DRIVERS[path.suffix], **profile, **where) as dataset:
            dataset.write(pixels)


def _write_list(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _pair_folder(copy: _Copy) -> None:
    """``{train,test}/{optical,sar,label}``; the first chip of a part lies partly outside of the swath."""
    for part, count in (("train", copy.train), ("test", copy.test)):
        for number in range(count):
            labels = copy.labels(2)
            optical, sar = copy.image(labels, 3), copy.image(labels, 1)
            if number == 0:
                optical[:, :5], sar[:, :4] = 0, _FILL
            name = f"{number + 1:04d}"
            place = copy.folder / part
            _write(place / "optical" / f"{name}.{copy.layout}", optical)
            _write(place / "sar" / f"{name}.{copy.layout}", sar)
            _write(place / "label" / f"{name}.{'png' if copy.layout == 'jpg' else copy.layout}", labels * 255)


def _whu_opt_sar(copy: _Copy) -> None:
    names = [f"NH49E{1 + i // 24:03d}{1 + i % 24:03d}" for i in range(copy.train + copy.test)]
    for i, name in enumerate(names):
        labels = copy.labels(8)
        # sheets side by side, of 5 m
        place = Affine(5, 0, 500000 + i * 5 * copy.size[1], 0, -5, 3400000) if copy.layout == "crs" else None
        _write(copy.folder / "optical" / f"{name}.tif", copy.image(labels, 4), place=place)
        _write(copy.folder / "sar" / f"{name}.tif", copy.image(labels, 1), place=place)
        _write(copy.folder / "lbl" / f"{name}.tif", labels * 10, place=place)
    lines = ["Training set:", *names[: copy.train], "", "Test set:", *names[copy.train :]]
    _write_list(copy.folder / "The division of the dataset.txt", lines)


def _nyudv2(copy: _Copy) -> None:
    total = copy.train + copy.test
    parts = {"train": range(copy.train), "test": range(copy.train, total)}
    for part, numbers in parts.items():
        for number in numbers:
            labels = copy.labels(41)
            depth = copy.image(labels, 1, 8000)
            depth[:, 2:6, 2:6] = 0
            if copy.layout == "A":
                _write(copy.folder / "RGB" / f"{number}.jpg", copy.image(labels, 3))
                _write(copy.folder / "HHA" / f"{number}.jpg", copy.image(labels, 3))
                _write(copy.folder / "Depth" / f"{number}.png", depth // 32)
                _write(copy.folder / "Label" / f"{number}.png", labels)
                continue
            place, name = copy.folder / part, f"{number + 1:04d}.png"
            _write(place / "rgb" / name, copy.image(labels, 3))
            _write(place / "depth" / name, np.maximum(depth, 1), "uint16")
            _write(place / "depth_raw" / name, depth, "uint16")
            _write(place / "labels_40" / name, labels)
    if copy.layout == "A":
        _write_list(copy.folder / "train.txt", [f"RGB/{i}.jpg\tLabel/{i}.png" for i in parts["train"]])
        _write_list(copy.folder / "test.txt", [str(i) for i in parts["test"]])


def _sunrgbd(copy: _Copy) -> None:
    from scipy.io import savemat

    listed: dict[str, list[str]] = {"train": [], "test": []}
    height, width = copy.size
    for part, count in (("train", copy.train), ("test", copy.test)):
        for number in range(count):
            shrunk = _Copy(copy.folder, copy.layout, 0, 0, (height - number % 3, width), copy.rng)  # sizes vary
            labels = shrunk.labels(38)
            depth = shrunk.image(labels, 1, 60000)
            depth[:, 2:6, 2:6] = 0
            if copy.layout == "flat":
                _write(copy.folder / "RGB" / f"{part}_{number}.jpg", shrunk.image(labels, 3))
                _write(copy.folder / "Depth" / f"{part}_{number}.png", depth, "uint16")
                _write(copy.folder / "labels" / f"{part}_{number}.png", labels)
                continue
            folder = f"kv2/kinect2data/{number:06d}_{part}"
            listed[part].append(f"/n/fs/sun3d/data/SUNRGBD/{folder}")
            place = copy.folder / "SUNRGBD" / folder
            _write(place / "image" / f"{number:07d}.jpg", shrunk.image(labels, 3))
            _write(place / "depth_bfx" / f"{number:07d}.png", depth, "uint16")
            (place / "label").mkdir()
            np.save(place / "label/label.npy", labels)
    if copy.layout == "official":
        place = copy.folder / "SUNRGBDtoolbox/traintestSUNRGBD"
        place.mkdir(parents=True)
        cells = {f"all{part}": np.array(paths, dtype=object).reshape(1, -1) for part, paths in listed.items()}
        savemat(place / "allsplit.mat", cells)


def _mfnet(copy: _Copy) -> None:
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for part, count in (("train", copy.train), ("val", copy.test), ("test", copy.test)):
        for _ in range(count):
            number = sum(map(len, parts.values())) + 1
            name = f"{number:05d}{'D' if number % 2 else 'N'}"
            parts[part].append(name)
            labels = copy.labels(9)
            _write(copy.folder / "images" / f"{name}.png", copy.image(labels, 4))
            _write(copy.folder / "labels" / f"{name}.png", labels)
    for part, names in parts.items():
        _write_list(copy.folder / f"{part}.txt", names)
    for time, letter in (("day", "D"), ("night", "N")):
        _write_list(copy.folder / f"test_{time}.txt", [name for name in parts["test"] if name.endswith(letter)])


def _pst900(copy: _Copy) -> None:
    for part, count in (("train", copy.train), ("test", copy.test)):
        for number in range(count):
            labels = copy.labels(5)
            thermal = copy.image(labels, 1)
            thermal[:, 2:6, 2:6] = 0
            files: dict[str, tuple[NDArray[np.generic], str]] = {
                "rgb": (copy.image(labels, 3), "uint8"),
                "thermal": (thermal, "uint8"),
                "thermal_raw": (copy.image(labels, 1, 30000), "uint16"),
                "depth": (copy.image(labels, 1, 8000), "uint16"),
                "labels": (labels, "uint8"),
            }
            for folder, (pixels, dtype) in files.items():
                _write(copy.folder / part / folder / f"{number}_bag_rgb_frame{number:06d}.png", pixels, dtype)


_WRITERS: dict[str, tuple[Callable[[_Copy], None], tuple[str, ...]]] = {
    "pair_folder": (_pair_folder, ("png", "tif", "jpg")),
    "whu_opt_sar": (_whu_opt_sar, ("crs", "no_crs")),
    "nyudv2": (_nyudv2, ("A", "B")),
    "sunrgbd": (_sunrgbd, ("flat", "official")),
    "mfnet": (_mfnet, ("images",)),
    "pst900": (_pst900, ("folders",)),
}

LAYOUTS: dict[str, tuple[str, ...]] = {name: layouts for name, (_, layouts) in _WRITERS.items()}
"""Layouts of each data set that copies are made in; the first is the usual one."""


def write_copy(
    dataset: str,
    folder: str | Path,
    layout: str | None = None,
    *,
    train: int = 4,
    test: int = 2,
    size: tuple[int, int] = (32, 48),
    seed: int = 0,
) -> Path:
    """Write a tiny copy of a data set; the same arguments give the same pixels.

    Parameters
    ----------
    dataset
        A key of `LAYOUTS`.
    folder
        A new or an empty folder.
    layout
        One of `LAYOUTS`; None: the first.
    train, test
        Number of images in the training and test parts (MFNet has as many for validation as for test).
    size
        Height and width of the images in pixels, at least 8; they vary a little in SUN RGB-D.
    seed
        Everything random derives from it.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    DatasetError
        If there is no such data set or layout, a number makes no sense, or the folder isn't empty.
    """
    folder = Path(folder)
    if dataset not in LAYOUTS:
        raise DatasetError(dataset, "there is no such data set", f"choose from {', '.join(LAYOUTS)}")
    layout = layout or LAYOUTS[dataset][0]
    if layout not in LAYOUTS[dataset]:
        raise DatasetError(dataset, f"there is no layout {layout!r}", f"choose from {', '.join(LAYOUTS[dataset])}")
    if min(size) < 8 or train < 1 or test < 1:
        found = f"{train} and {test} images of {size[0]} x {size[1]} pixels"
        raise DatasetError(dataset, found, "give at least one each, of at least 8 x 8 pixels")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(folder, "it isn't an empty folder", "name a new one")
    folder.mkdir(parents=True, exist_ok=True)
    _WRITERS[dataset][0](_Copy(folder, layout, train, test, size, np.random.default_rng(seed)))
    return folder
