"""WHU-OPT-SAR: land use from GF-1 optical and GF-3 SAR scenes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from gopt_geo.datasets.chipfiles import Chip, Layer, list_stems, natural, open_layer, pair_up, some
from gopt_geo.datasets.chips import IMAGENET, ChipDataset, Holdings, Sample, Scoring, choose_part
from gopt_geo.datasets.legends import WHU7
from gopt_geo.datasets.lists import read_text
from gopt_geo.errors import DatasetError
from gopt_geo.grid import GeoBox, Window, same_crs, whole_pixel_offset
from gopt_geo.grid import crop as crop_grid
from gopt_geo.paths import StrPath

__all__ = ["SPLIT_FILE", "WHUOptSar", "read_division"]

SPLIT_FILE = "The division of the dataset.txt"
_ENDINGS = (".tif", ".tiff")
_HEADING = re.compile(r"(?i)(train|test|val|训练|测试|验证)")
_PARTS = {"train": "train", "训练": "train", "test": "test", "测试": "test", "val": "val", "验证": "val"}
_NAME = re.compile(r"[A-Za-z]+[0-9][A-Za-z0-9_-]*")


class WHUOptSar(ChipDataset):
    """Same-named scenes of 5556 x 3704 pixels of 5 m, 7 classes: ``optical/*.tif``, ``sar/*.tif``, ``lbl/*.tif``.

    There are 100 scenes; a copy may hold fewer, with a CRS or without. The official split is by scene (80 / 20).
    Modalities: ``optical`` (red, green, blue), ``sar``, and on request ``nir``, the optical files' fourth band.

    Parameters
    ----------
    root
        The folder.
    split
        ``train``, ``val``, ``test``, ``train+val`` (the 80), or None: all scenes that are there, without a division.
    crop
        Edge in pixels of the squares that scenes are cut into from their upper left corner, without overlap (256: 21 x
        14 = 294 a scene); what is left over at the right and below is left out. None: whole scenes.
    auxiliary
        Of "sar" and "nir".
    split_file
        The division; None takes ``The division of the dataset.txt`` in `root`. See `read_division`.
    hold_out
        Of so many training scenes in the order of the file's names, the last is held out for ``val``, so that a scene
        is on the same side in every copy; 0: none.
    transforms
        Applied to each sample.

    Raises
    ------
    DatasetError
        If a folder, a partner of a scene, or the division is missing; if a scene's images differ in size or place.
    """

    classes = WHU7
    scoring = Scoring(
        7,
        ("miou", "oa", "kappa"),
        zero_classes=1,
        note="background is ignored; some publications average 8 classes, background with IoU 0: print that beside",
    )

    def __init__(
        self,
        root: StrPath,
        split: str | None = "train",
        *,
        crop: int | None = 256,
        auxiliary: tuple[str, ...] = ("sar",),
        split_file: StrPath | None = None,
        hold_out: int = 10,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        root = Path(root)
        if crop is not None and crop < 1:
            raise DatasetError("crop", f"{crop} pixels", "give at least 1, or none for whole scenes")
        layers = _layers(auxiliary)
        places = {"optical": "optical", "sar": "sar", "nir": "optical"}
        roles = {modality: list_stems(root, places[modality], _ENDINGS) for modality in layers}
        roles["mask"] = list_stems(root, "lbl", _ENDINGS)
        scenes = pair_up(root, roles)
        notices = [f"{root}: {len(scenes)} scenes found"]
        if split is not None:
            file = Path(split_file) if split_file is not None else root / SPLIT_FILE
            scenes, more = _divide(scenes, file, split, hold_out, root)
            notices += more
        elif split_file is not None:
            raise DatasetError(
                "split_file", "no split is asked for", "give split='train', 'val' or 'test', or leave it out"
            )
        self._grids = {scene.name: _grid(scene, layers, notices) for scene in scenes}
        shapes = {name: (grid.shape[0], grid.shape[1]) for name, grid in self._grids.items()}
        chips = (
            scenes if crop is None else [chip for scene in scenes for chip in _crops(scene, shapes[scene.name], crop)]
        )
        layout = "with CRS" if any(grid.crs is not None for grid in self._grids.values()) else "without CRS"
        holdings = Holdings(chips, layers, layout, statistics={"optical": IMAGENET}, notices=notices)
        super().__init__(root, split, holdings, transforms)

    def grid(self, index: int) -> GeoBox:
        """Return the grid of a sample; its CRS is None in copies without one."""
        chip = self._chips[index]
        whole = self._grids[self.scene(index)]
        return whole if chip.window is None else crop_grid(whole, chip.window)

    def scene(self, index: int) -> str:
        """Return the name of the scene that a sample is part of."""
        return self._chips[index].files["mask"].stem


def _layers(auxiliary: tuple[str, ...]) -> dict[str, Layer]:
    known = {"sar": Layer(count=1), "nir": Layer((4,), alpha_is_data=True)}
    wrong = [name for name in auxiliary if name not in known]
    if wrong or len(set(auxiliary)) < len(auxiliary):
        raise DatasetError("auxiliary", f"{', '.join(auxiliary)}", "choose from sar, nir, each once")
    return {"optical": Layer((1, 2, 3), alpha_is_data=True), **{name: known[name] for name in auxiliary}}


def _grid(scene: Chip, layers: Mapping[str, Layer], notices: list[str]) -> GeoBox:
    """Return a scene's grid, after checking that its images lie pixel on pixel."""
    grids = {}
    for role, path in scene.files.items():
        with open_layer(path, layers.get(role, Layer())) as source:
            grids[role] = source.grid
    first = grids["optical"]
    for role, grid in grids.items():
        if grid.shape != first.shape:
            sizes = ", ".join(f"{key} {one.shape[0]} x {one.shape[1]}" for key, one in grids.items())
            found = f"the images of {scene.name} differ in size: {sizes} (height x width)"
            raise DatasetError(scene.files[role], found, "complete or correct the copy")
        if grid.crs is None or first.crs is None:
            if not same_crs(grid.crs, first.crs):
                notices.append(f"{scene.name}: one of its images has no CRS; they are taken as pixel on pixel")
        elif whole_pixel_offset(grid, first) != (0, 0):
            found = f"the images of {scene.name} lie on different grids"
            raise DatasetError(scene.files[role], found, "warp it onto the optical image's grid, or get the copy again")
    return first


def _crops(scene: Chip, shape: tuple[int, int], size: int) -> Iterator[Chip]:
    """Cut a scene into squares from its upper left corner, named scene_row_column."""
    rows, cols = shape[0] // size, shape[1] // size
    if not rows * cols:
        found = f"{scene.name} has {shape[0]} x {shape[1]} pixels, crops have {size}"
        raise DatasetError("crop", found, "give a smaller crop, or none for whole scenes")
    for row in range(rows):
        for col in range(cols):
            window = Window(row * size, col * size, size, size)
            yield Chip(f"{scene.name}_{row}_{col}", scene.files, window)


def _divide(scenes: list[Chip], file: Path, split: str, hold_out: int, root: Path) -> tuple[list[Chip], list[str]]:
    """Return the scenes of a split that are there, and notices of those that aren't."""
    if not file.is_file():
        remedy = f"get {SPLIT_FILE!r} from the data set's page, name a file with split_file, or give split=None"
        raise DatasetError(file, "there is no division into training and test scenes", remedy)
    official = read_division(file)
    names, notices = choose_part(official, split, 0 if "val" in official else hold_out, root)
    there = {scene.name: scene for scene in scenes}
    if missing := [name for name in names if name not in there]:
        notices.append(f"{root}: {len(missing)} of {len(names)} scenes of {split} aren't in this copy: {some(missing)}")
    if unlisted := set(there) - {name for part in official.values() for name in part}:
        notices.append(f"{root}: {len(unlisted)} scenes are in no part of {file.name}: {some(unlisted)}")
    return [there[name] for name in names if name in there], notices


def read_division(file: StrPath) -> dict[str, list[str]]:
    """Read which scenes are for training and which for test.

    A line with "train", "test" or "val" (or 训练, 测试, 验证) is a heading; what follows a colon in it, and the lines
    below, name scenes, one or several a line, with spaces, commas or semicolons between, with or without ``.tif``.

    Returns
    -------
    dict
        ``train`` and ``test``, and ``val`` where the file has it: names in natural order.

    Raises
    ------
    DatasetError
        If the file can't be read, a line is neither, a part is missing, or a scene is in two.
    """
    file = Path(file)
    remedy = "write a heading with 'train' or 'test', and below it the scenes' names"
    parts: dict[str, list[str]] = {}
    current: list[str] | None = None
    for number, line in enumerate(read_text(file).splitlines(), 1):
        heading = _HEADING.search(line)
        if heading is not None:
            current = parts.setdefault(_PARTS[heading[1].lower()], [])
            line = re.split(r"[:：]", line, maxsplit=1)[1] if re.search("[:：]", line) else ""
        for token in re.split(r"[\s,;，；、]+", line.strip()):
            name = re.sub(r"(?i)\.tiff?$", "", token.strip("'\"[]()"))
            if not name or name.isdigit():  # a count, or a number in a list
                continue
            if current is None or not _NAME.fullmatch(name):
                raise DatasetError(file, f"line {number}: {token[:40]!r} is no scene under a heading", remedy)
            current.append(name)
    if not parts.get("train") or not parts.get("test"):
        raise DatasetError(
            file, f"it names scenes only for {' and '.join(k for k in parts if parts[k]) or 'no part'}", remedy
        )
    everything = [name for names in parts.values() for name in names]
    if twice := {name for name in everything if everything.count(name) > 1}:
        raise DatasetError(file, f"{some(twice)} are named twice", "a scene belongs to one part")
    return {part: sorted(names, key=natural) for part, names in parts.items()}
