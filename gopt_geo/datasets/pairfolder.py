"""Folders of chips of one's own: ``optical/``, ``sar/`` and ``label/``, with the same names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from gopt_geo.datasets.chipfiles import IMAGES, LOSSLESS, Layer, list_stems, open_layer, pair_up
from gopt_geo.datasets.chips import ChipDataset, Holdings, Sample, choose_part
from gopt_geo.datasets.classes import ClassTable, checked_classes
from gopt_geo.errors import DatasetError
from gopt_geo.paths import StrPath

__all__ = ["PairFolder"]

Outside = Literal["edges", "declared"]


class PairFolder(ChipDataset):
    """Chips in folders: ``optical/``, one for each auxiliary modality (``sar/``), and ``label/``, with the same names.

    Chips are PNG, TIFF or JPEG, labels PNG or TIFF; the endings in the folders may differ. With a split the folders lie
    in a folder of its name: ``train/optical/0001.png``.

    Parameters
    ----------
    root
        The folder.
    split
        A folder in it; None where `root` holds the images' folders themselves. With `hold_out`, ``val`` and
        ``train`` are parts of the folder ``train``.
    classes
        Which label value is which class; None takes values 0 to 254 as the indexes, and 255 as "not labelled".
    auxiliary
        Names of the auxiliary modalities and of their folders.
    outside
        How pixels without data are found, beside what the files declare (nodata, alpha, masks). "edges": areas along a
        chip's edges that are filled with one value, 0 in all optical bands and any value in another modality, are
        outside of the swath (`gopt_geo.datasets.chipfiles.outside_swath`). "declared": no others.
    hold_out
        Of so many chips of ``train`` in the order of their names, the last is held out for ``val``; 0: none.
    optical_bands, auxiliary_bands
        1-based; None takes all.
    transforms
        Applied to each sample.

    Raises
    ------
    DatasetError
        If a folder is missing, names lack a partner, or there is nothing in the split.
    """

    def __init__(
        self,
        root: StrPath,
        split: str | None = None,
        *,
        classes: ClassTable | None = None,
        auxiliary: str | tuple[str, ...] = ("sar",),
        outside: Outside = "edges",
        hold_out: int = 0,
        optical_bands: tuple[int, ...] | None = None,
        auxiliary_bands: tuple[int, ...] | None = None,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        root, auxiliary = Path(root), (auxiliary,) if isinstance(auxiliary, str) else tuple(auxiliary)
        if outside not in get_args(Outside):
            remedy = f"use {' or '.join(map(repr, get_args(Outside)))}"
            raise DatasetError(f"outside={outside!r}", "there is no such rule", remedy)
        self.classes = checked_classes(classes)
        place = _place(root, split, hold_out)
        _check_names(auxiliary)
        roles = {folder: list_stems(place, folder, IMAGES) for folder in ("optical", *auxiliary)}
        roles["mask"] = list_stems(place, "label", (*LOSSLESS, ".npy"))
        chips = pair_up(place, roles)
        notices: list[str] = []
        if split is not None:
            every = hold_out if place.name == "train" else 0
            official = {"train" if every else split: [chip.name for chip in chips]}
            names, notices = choose_part(official, split, every, root)
            chosen = set(names)
            chips = [chip for chip in chips if chip.name in chosen]
            if not chips:
                raise DatasetError(
                    root, f"nothing is in the split {split!r} with hold_out={hold_out}", "give a smaller one"
                )
        elif hold_out:
            raise DatasetError("hold_out", "there is no split to hold out of", "give split='train' or 'val'")
        edges = outside == "edges"
        layers = {}
        for modality, bands in {"optical": optical_bands, **dict.fromkeys(auxiliary, auxiliary_bands)}.items():
            hole = 0 if edges and modality == "optical" else None
            layer = Layer(bands, hole=hole, constant_edge=edges)
            with open_layer(chips[0].files[modality], layer) as first:
                layers[modality] = Layer(bands, first.count, hole=hole, constant_edge=edges)
        if edges:
            notices.append(
                f"{root}: areas of one value along chips' edges count as outside of the swath; if they are data, set"
                " outside: declared among the data set's options"
            )
        labels = Layer()
        super().__init__(root, split, Holdings(chips, layers, "folders", labels, notices=notices), transforms)


def _place(root: Path, split: str | None, hold_out: int) -> Path:
    """Return the folder of a split."""
    if not root.is_dir():
        raise DatasetError(root, "there is no such folder", "check the path")
    parts = sorted(path.name for path in root.iterdir() if (path / "optical").is_dir())
    if split is None:
        if parts and not (root / "optical").is_dir():
            raise DatasetError(root, f"it has the parts {', '.join(parts)}", f"name one: split={parts[0]!r}")
        return root
    folder = "train" if hold_out and split in ("val", "train+val") else split
    if not (root / folder).is_dir():
        remedy = f"choose from {', '.join(parts)}" if parts else "without parts, leave the split out"
        raise DatasetError(root, f"there is no split {split!r}", remedy)
    if folder == "train" and hold_out and "val" in parts:
        raise DatasetError("hold_out", f"{root} has a validation part of its own", "give hold_out=0")
    return root / folder


def _check_names(auxiliary: tuple[str, ...]) -> None:
    wrong = [name for name in auxiliary if name in ("optical", "mask", "label") or not name.isidentifier()]
    if wrong or len(set(auxiliary)) < len(auxiliary):
        found = f"{', '.join(auxiliary)}"
        raise DatasetError("auxiliary", found, "give different names of folders such as sar, nir, thermal")
