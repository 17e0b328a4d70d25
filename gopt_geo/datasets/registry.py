"""Data sets of chips by name: what configurations and the command line open."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from gopt_geo.datasets.classes import ClassTable
from gopt_geo.errors import DatasetError
from gopt_geo.paths import StrPath

if TYPE_CHECKING:
    from gopt_geo.datasets.chips import ChipDataset, Sample

__all__ = ["DATASETS", "check_options", "dataset_class", "dataset_options", "open_dataset", "takes_classes"]

DATASETS = {
    "pair_folder": ("gopt_geo.datasets.pairfolder", "PairFolder"),
    "whu_opt_sar": ("gopt_geo.datasets.whu_opt_sar", "WHUOptSar"),
    "nyudv2": ("gopt_geo.datasets.nyudv2", "NYUDv2"),
    "sunrgbd": ("gopt_geo.datasets.sunrgbd", "SUNRGBD"),
    "mfnet": ("gopt_geo.datasets.mfnet", "MFNet"),
    "pst900": ("gopt_geo.datasets.pst900", "PST900"),
}
"""Module and class of each data set; imported when it is asked for."""

_ELSEWHERE = ("root", "split", "classes", "transforms")  # parameters that aren't options of a configuration


def dataset_class(name: str) -> type[ChipDataset]:
    """Return the class of a data set.

    Raises
    ------
    DatasetError
        If there is no data set of this name.
    """
    if name not in DATASETS:
        raise DatasetError(name, "there is no such data set", f"choose from {', '.join(DATASETS)}")
    module, kind = DATASETS[name]
    found: type[ChipDataset] = getattr(import_module(module), kind)
    return found


@cache
def dataset_options(name: str) -> type[BaseModel]:
    """Return a model of the options of a data set, made of its constructor's signature.

    Raises
    ------
    DatasetError
        If there is no data set of this name.
    """
    constructor = dataset_class(name).__init__
    hints = get_type_hints(constructor)
    fields: dict[str, Any] = {
        key: (hints[key], parameter.default)
        for key, parameter in inspect.signature(constructor).parameters.items()
        if key not in ("self", *_ELSEWHERE)
    }
    strict = ConfigDict(extra="forbid", strict=True)
    return create_model(f"{name} options", __config__=strict, **fields)


def check_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a data set's options, checked and in the types that its constructor takes; only those that are given.

    Raises
    ------
    pydantic.ValidationError
        If an option is unknown or of the wrong type.
    DatasetError
        If there is no data set of this name.
    """
    model = dataset_options(name)
    # By way of JSON, which has lists and no tuples: strict about types, and lenient about that difference.
    checked = model.model_validate_json(json.dumps(dict(options), default=str))
    return {key: getattr(checked, key) for key in options}


def takes_classes(name: str) -> bool:
    """Tell whether a data set has no classes of its own."""
    return "classes" in inspect.signature(dataset_class(name).__init__).parameters


def open_dataset(
    name: str,
    root: StrPath,
    split: str | None,
    *,
    classes: ClassTable | None = None,
    transforms: Callable[[Sample], Sample] | None = None,
    **options: Any,
) -> ChipDataset:
    """Open a data set of chips by its name.

    Parameters
    ----------
    name
        A key of `DATASETS`.
    root
        Its folder.
    split
        Which part; None where the data set allows it.
    classes
        Of data sets that have none of their own (``pair_folder``).
    transforms
        Applied to each sample.
    options
        The data set's own, as its class documents them.

    Raises
    ------
    DatasetError
        If there is no such data set, an option is unknown or of the wrong type, or the folder isn't as documented.
    """
    try:
        checked = check_options(name, options)
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(dataset_options(name).model_fields) or "none"
        key = ".".join(map(str, first["loc"]))
        raise DatasetError(name, f"option {key}: {first['msg']}", f"its options are {known}") from error
    if classes is not None:
        if not takes_classes(name):
            raise DatasetError(name, "it has classes of its own", "leave the class list out")
        checked["classes"] = classes
    kind: Callable[..., ChipDataset] = dataset_class(name)
    return kind(root, split, transforms=transforms, **checked)
