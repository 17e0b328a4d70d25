"""The classes of a training: from a class list, or as the labels have them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gopt_geo.datasets.base import IGNORED, SceneDataset
from gopt_geo.datasets.classes import ClassTable
from gopt_geo.datasets.features import Features, read_features
from gopt_geo.datasets.labels import RasterLabels, VectorLabels
from gopt_geo.errors import DatasetError, SourceError
from gopt_geo.grid import GeoBox, Window, lattice
from gopt_geo.outputs.legend import read_colours, read_legend
from gopt_geo.packmeta import ClassInfo
from gopt_geo.scene import BLOCK, AlignedSource, RasterSource
from gopt_geo.training.config import SceneConfig

__all__ = ["class_infos", "found_only", "open_labels"]

_MANY = 255
_LIST_REMEDY = "name the classes with a class list: classes: classes.yaml"


def class_infos(table: ClassTable) -> tuple[ClassInfo, ...]:
    """Return the legend of a pack: label values where all are 0 to 254, else indexes."""
    fits = all(0 <= value < IGNORED for value in table.values)
    values = table.values if fits else range(len(table))
    return tuple(
        ClassInfo(value=value, name=name, color=color)
        for value, name, color in zip(values, table.names, table.colours, strict=True)
    )


def open_labels(
    scene: SceneConfig, table: ClassTable | None, ignore: Sequence[int], grid: GeoBox
) -> tuple[SceneDataset, ClassTable]:
    """Open a scene's labels on its grid.

    Parameters
    ----------
    scene
        Names them.
    table
        Class list; None takes what is found in the labels as classes.
    ignore
        Without a class list, values that mean "not labelled".
    grid
        The scene grid.

    Raises
    ------
    GoptGeoError
        If the labels can't be read or don't lie on the grid; without a class list also if there are too many values.
    """
    if scene.class_field is not None:
        features = read_features(Path(scene.labels), scene.class_field, scene.layer)
        if table is None:
            table = _vector_classes(scene, features, ignore)
        return VectorLabels(features, scene.class_field, table, grid=grid), table
    _refuse_vectors(scene)
    if table is None:
        RasterLabels(scene.labels, grid=grid)  # says what is wrong with the raster and its place, before it is read
        table = _raster_classes(scene, ignore, grid)
    return RasterLabels(scene.labels, table, resampling=scene.label_resampling, grid=grid), table


def _refuse_vectors(scene: SceneConfig) -> None:
    """Say that a class field is missing, where labels aren't a raster but something with layers."""
    import pyogrio

    try:
        source = RasterSource(scene.labels)
    except SourceError:
        if not Path(scene.labels).exists():
            raise
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                names = [str(entry[0]) for entry in pyogrio.list_layers(scene.labels)]
                fields = [str(f) for f in pyogrio.read_info(scene.labels, layer=scene.layer or names[0])["fields"]]
        except Exception:  # no vector file either: then what the raster's reader says is what there is to say
            names = []
        if not names:
            raise
    else:
        source.close()
        return
    known = f"; its fields are {', '.join(fields)}" if fields else ""
    found = "it is a vector file, and nothing says which field holds the class"
    raise DatasetError(scene.labels, found, f"name it with class_field (--class-field){known}")


def _raster_classes(scene: SceneConfig, ignore: Sequence[int], grid: GeoBox) -> ClassTable:
    """Return the values of a label raster on the scene grid as classes."""
    found: set[int] = set()
    aligned = AlignedSource(RasterSource(scene.labels), grid, scene.label_resampling, cache_bytes=0)
    try:
        for block in lattice(Window(0, 0, *grid.shape), BLOCK):
            part = block.clip(grid.shape)
            assert part is not None
            values, valid = aligned.read(part)
            there = np.unique(values[0][valid])
            if (there != np.rint(there)).any():
                remedy = "give a raster of class values"
                raise DatasetError(scene.labels, "its values aren't whole numbers", remedy)
            found |= {int(value) for value in there}
            if len(found - set(ignore)) > _MANY:
                raise DatasetError(scene.labels, f"more than {_MANY} different values", _LIST_REMEDY)
    finally:
        aligned.source.close()
    return _named(_table(sorted(found - set(ignore)), ignore, scene.labels), scene.labels)


def _named(table: ClassTable, path: str) -> ClassTable:
    """Return classes with the names and colours that the raster's own legend has for their values."""
    legend, colours = {entry.value: entry.name for entry in read_legend(path)}, read_colours(path)
    names = [legend.get(value, "").strip() or f"class {value}" for value in table.values]
    distinct = [
        name if names.count(name) == 1 else f"{name} ({value})" for value, name in zip(table.values, names, strict=True)
    ]
    own = tuple(colours[value] for value in table.values if value in colours)
    known = len(own) == len(table) == len(set(own))  # classes of one colour couldn't be told apart in figures
    return replace(table, names=tuple(distinct), colours=own if known else ())


def _vector_classes(scene: SceneConfig, features: Features, ignore: Sequence[int]) -> ClassTable:
    """Return the values, or names, of a vector file's class field as classes."""
    values = list(dict.fromkeys(features.values.tolist()))
    names = [str(value) for value in values]
    if len(values) > _MANY:
        found = f"more than {_MANY} different values in field {scene.class_field!r}"
        raise DatasetError(scene.labels, found, _LIST_REMEDY)
    try:
        numbers = sorted({int(value) for value in values if float(value) == int(float(value))} - set(ignore))
        if all(float(value) == int(float(value)) for value in values):
            return _table(numbers, ignore, scene.labels)
    except (TypeError, ValueError):
        pass
    ordered = sorted(set(names))
    return ClassTable(tuple(range(len(ordered))), tuple(ordered), source=scene.labels)


def _table(values: Sequence[int], ignore: Sequence[int], source: str) -> ClassTable:
    if not values:
        raise DatasetError(source, "it has no labels on the scene", "check its nodata value and the values to ignore")
    names = tuple(f"class {value}" for value in values)
    return ClassTable(tuple(values), names, ignore=tuple(dict.fromkeys(ignore)), source=source)


def found_only(table: ClassTable, kept: Sequence[int]) -> ClassTable:
    """Return a class list with some of its classes alone; the values of the others are ignored."""
    lost = tuple(value for i, value in enumerate(table.values) if i not in kept)
    values, names = tuple(table.values[i] for i in kept), tuple(table.names[i] for i in kept)
    return ClassTable(values, names, ignore=(*table.ignore, *lost), source=table.source)
