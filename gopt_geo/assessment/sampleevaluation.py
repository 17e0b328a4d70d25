"""Areas and accuracies of a map from a sample whose reference classes were filled in."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gopt_geo.aoi import Aoi
from gopt_geo.assessment.allocation import MINIMUM
from gopt_geo.assessment.areaestimates import AreaEstimates, Strata, estimate_areas
from gopt_geo.assessment.frame import NO_CLASS, FrameStrata, MapFrame
from gopt_geo.assessment.samplefile import REFERENCE, UnitTable, read_units
from gopt_geo.assessment.sampleplaces import Placed, place_units
from gopt_geo.classnames import find_class, meant_classes
from gopt_geo.errors import SampleError

__all__ = ["SampleAssessment", "evaluate_units"]

_Int = NDArray[np.int64]


@dataclass(frozen=True)
class SampleAssessment:
    """What `evaluate_units` found.

    Attributes
    ----------
    map, sample
        The two files.
    class_values, class_names
        The K classes: those of the map's frame and of the references.
    strata
        What the sample was drawn from.
    stratum_units
        int64 [H]: evaluated units of each stratum.
    unit
        Of areas: "m2", or "pixels" where the map has no CRS.
    mapped_area
        float64 [K], in that unit: area that the map gives each class; None where the strata are another map's.
    units
        int64 [K, K]: sampled units, map classes down, reference classes across.
    left_out
        Units without a reference, which were left out.
    estimates
        The figures, by class.
    notices
        What the reader of the figures should know.
    """

    map: str
    sample: str
    class_values: tuple[int, ...]
    class_names: tuple[str, ...]
    strata: Strata
    stratum_units: _Int
    unit: str
    mapped_area: NDArray[np.float64] | None
    units: _Int
    left_out: int
    estimates: AreaEstimates
    notices: tuple[str, ...]

    @property
    def conventions(self) -> tuple[str, ...]:
        """How the figures are made, a line each."""
        strata = "map: area of the map's pixels, with its errors"
        if self.mapped_area is None:
            strata = "strata are those of the map that was sampled (Stehman 2014)"
        return (
            "estimates and SE: stratified, unbiased (Olofsson et al. 2014, eq. 1 to 11), with finite population "
            "correction",
            "interval: stratified score interval, which covers better than the plain one (estimate -+ z SE) where a "
            "class is rare or few errors were found",
            strata,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain types for JSON; undefined ones are None. Areas are in `unit`."""
        total = self.estimates.total_area
        classes: list[dict[str, Any]] = []
        found = self.estimates.to_dict()
        for k, (value, name) in enumerate(zip(self.class_values, self.class_names, strict=True)):
            areas = {
                key: found[source][k] * total
                for key, source in (
                    ("area", "share"),
                    ("area_se", "share_se"),
                    ("area_lower", "lower"),
                    ("area_upper", "upper"),
                    ("area_plain_lower", "plain_lower"),
                    ("area_plain_upper", "plain_upper"),
                )
            }
            mapped = None if self.mapped_area is None else float(self.mapped_area[k])
            classes.append({"value": value, "name": name, "mapped_area": mapped, **areas})
        strata = [
            {"name": name, "area": float(area), "units": int(units)}
            for name, area, units in zip(self.strata.names, self.strata.areas, self.stratum_units, strict=True)
        ]
        return {
            "map": self.map,
            "sample": self.sample,
            "unit": self.unit,
            "classes": classes,
            "strata": strata,
            "units": self.units.tolist(),
            "units_left_out": self.left_out,
            "estimates": found,
            "conventions": list(self.conventions),
            "notices": list(self.notices),
        }


def evaluate_units(
    landcover: str | PathLike[str],
    sample: str | PathLike[str],
    *,
    reference_field: str = REFERENCE,
    level: float = 0.95,
    aoi: Aoi | None = None,
    skip_unfilled: bool = False,
    other_strata: bool = False,
) -> SampleAssessment:
    """Estimate the area of each class and a map's accuracy from a sample with reference classes.

    Parameters
    ----------
    landcover
        The map.
    sample
        Drawn by `gopt-geo sample`, with the reference class of each unit filled in: a value or a name of the legend.
    reference_field
        Which field holds it.
    level
        Of the confidence intervals.
    aoi
        The area that the sample was drawn in; needed of a blind sample, else checked where given.
    skip_unfilled
        Whether units without a reference are left out. That is right only where they lack it by chance.
    other_strata
        The sample was drawn from another map, such as an older one, whose classes are the strata; the units are looked
        up in this map by their coordinates.

    Raises
    ------
    SampleError
        If the sample isn't this map's, references are missing or are none of the classes, or a stratum has too few.
    GoptGeoError
        If a file can't be read.
    """
    if not 0.5 <= level < 1:
        raise SampleError("--level", f"{level:g} is out of range", "give a level such as 0.95")
    table = read_units(sample, reference_field)
    with MapFrame(landcover, aoi) as frame:
        placed = place_units(table, frame, aoi, other_strata=other_strata)
        references = _references(table, frame)
        notices = list(frame.notices)
        if not frame.legend:
            notices.append("warning: the map has no legend: every value in map or references is taken as a class")
        kept = references >= 0
        notices += _unfilled(table, kept, reference_field, skip_unfilled, placed.lost)
        occurring = {*placed.mapped[kept].tolist(), *references[kept].tolist()}
        values = tuple(sorted(occurring if other_strata else occurring | set(placed.strata.values.tolist())))
        names = tuple(frame.class_name(value) for value in values)
    counts, units = _count(table, placed, references, values)
    strata = Strata(placed.strata.names, placed.strata.sizes, placed.strata.pixels)
    stratum_units = units.sum(axis=(1, 2))
    return SampleAssessment(
        map=str(landcover),
        sample=str(sample),
        class_values=values,
        class_names=names,
        strata=strata,
        stratum_units=stratum_units,
        unit="m2" if np.isfinite(placed.strata.areas).all() else "pixels",
        mapped_area=None if other_strata else _mapped_areas(placed.strata, values),
        units=units.sum(axis=0),
        left_out=int((~kept).sum()) + placed.lost,
        estimates=estimate_areas(counts, strata, level=level, units=units),
        notices=(*notices, *_few(strata.names, stratum_units)),
    )


def _references(table: UnitTable, frame: MapFrame) -> _Int:
    """Return the references as class values, int64 [n]; -1 where there is none."""
    names = {name: value for value, name in frame.legend.items()}
    found = np.full(len(table.references), -1, np.int64)
    strange: list[str] = []
    for index, entry in enumerate(table.references):
        value = find_class(entry, names) if isinstance(entry, str) else entry
        if isinstance(value, int) and 0 <= value < NO_CLASS and (not frame.legend or value in frame.legend):
            found[index] = value
        elif entry is not None and str(entry) not in strange:
            strange.append(str(entry))
    if strange:
        shown = ", ".join(strange[:6]) + (", ..." if len(strange) > 6 else "")
        called = [f"{name} ({value})" for value, name in frame.legend.items()]
        remedy = meant_classes(strange[0], names, called) if called else "give values from 0 to 254"
        raise SampleError(table.name, f"references that are no class: {shown}", remedy)
    return found


def _unfilled(table: UnitTable, kept: NDArray[np.bool_], field: str, skip: bool, lost: int) -> list[str]:
    """Refuse a sample with gaps, or tell of them; `lost` units have no row at all any more."""
    missing = int((~kept).sum()) + lost
    if not missing:
        return []
    of_all = f"{missing} of {len(kept) + lost} units"
    if not skip or not kept.any():
        found = f"{of_all} have no entry in the field {field}" + (f" ({lost} of them no row)" if lost else "")
        remedy = "fill them in" + ("" if skip else "; where they lack it by chance, --skip-unfilled leaves them out")
        raise SampleError(table.name, found, remedy)
    return [
        f"warning: {of_all} have no reference and are left out: right only if they lack it by chance, not where the "
        "class was hard to tell"
    ]


def _count(
    table: UnitTable, placed: Placed, references: _Int, values: tuple[int, ...]
) -> tuple[NDArray[np.float64], _Int]:
    """Return units by stratum, map class and reference class, [H, K, K]: weighted by their pixels' sizes, and plain.

    Weights have a mean of 1 in each stratum: where pixels differ in size (degrees), shares are of ground, not pixels.
    """
    kept = references >= 0
    members, sizes = placed.members[kept], table.pixel_areas[kept]
    strata, count = len(placed.strata.values), len(values)
    weights = np.ones(len(members))
    if np.isfinite(sizes).all() and (sizes > 0).all():
        number = np.maximum(np.bincount(members, minlength=strata), 1)
        weights = sizes / (np.bincount(members, sizes, strata) / number)[members]
    mapped, truth = (np.searchsorted(values, column[kept]) for column in (placed.mapped, references))
    cells = (members * count + mapped) * count + truth
    shape = (strata, count, count)
    weighted = np.bincount(cells, weights, strata * count**2)
    units = np.bincount(cells, minlength=strata * count**2)
    return np.asarray(weighted, np.float64).reshape(shape), np.asarray(units, np.int64).reshape(shape)


def _mapped_areas(strata: FrameStrata, values: tuple[int, ...]) -> NDArray[np.float64]:
    areas = dict(zip(strata.values.tolist(), strata.sizes.tolist(), strict=True))
    return np.array([areas.get(value, 0.0) for value in values])


def _few(names: tuple[str, ...], units: _Int) -> list[str]:
    few = [f"{name} ({count})" for name, count in zip(names, units.tolist(), strict=True) if count < MINIMUM]
    if not few:
        return []
    return [f"strata with fewer than {MINIMUM} units, where intervals are less sure: {', '.join(few)}"]
