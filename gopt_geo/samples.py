"""Assessing a map by a stratified sample: ``gopt-geo sample`` draws it, ``gopt-geo evaluate --sample`` evaluates it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from gopt_geo.aoi import Aoi, read_aoi
from gopt_geo.assessment.allocation import Allocation, allocate, expected_accuracies, least_units, required_units
from gopt_geo.assessment.frame import FrameStrata, MapFrame
from gopt_geo.assessment.sampleevaluation import SampleAssessment, evaluate_units
from gopt_geo.assessment.samplefile import REFERENCE, UnitShape, write_units
from gopt_geo.assessment.sampling import draw_units
from gopt_geo.errors import AoiError, SampleError
from gopt_geo.mapping import Progress
from gopt_geo.outputs.staging import VECTOR_ENDINGS, Staging
from gopt_geo.outputs.vectors import check_vector_output
from gopt_geo.paths import StrPath

__all__ = ["SampleAssessment", "SampleReport", "StratumReport", "evaluate_sample", "sample"]


@dataclass(frozen=True)
class StratumReport:
    """One stratum of a sample: a class of the map. Its area is None where the map has no CRS."""

    value: int
    name: str
    pixels: int
    area_m2: float | None
    units: int


@dataclass(frozen=True)
class SampleReport:
    """What `sample` drew.

    Attributes
    ----------
    output
        The file.
    strata
        By class value.
    required
        Units that the target standard error asks for, of which the strata's minimum may make more; None where the
        number was given.
    notices
        What the user should know.
    """

    output: Path
    strata: tuple[StratumReport, ...]
    required: int | None
    notices: tuple[str, ...]

    @property
    def units(self) -> int:
        """All drawn units."""
        return sum(stratum.units for stratum in self.strata)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain types."""
        return {
            "output": str(self.output),
            "units": self.units,
            "required": self.required,
            "strata": [{name: getattr(s, name) for name in s.__dataclass_fields__} for s in self.strata],
            "notices": list(self.notices),
        }


def sample(
    landcover: StrPath,
    output: StrPath,
    *,
    n: int | None = None,
    expected_accuracy: float | str | None = None,
    target_se: float | None = None,
    allocation: Allocation = "olofsson",
    minimum: int | None = None,
    aoi: StrPath | None = None,
    aoi_crs: str | None = None,
    shape: UnitShape = "point",
    blind: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> SampleReport:
    """Draw a stratified random sample of a map's pixels, without replacement; the strata are its classes.

    The map is read twice, block by block. The sample depends on map, area, numbers and seed alone, and with the same
    seed a stratum's larger sample holds its smaller one.

    Parameters
    ----------
    landcover
        Raster with one band of classes, as `predict` writes it.
    output
        `.gpkg`, `.geojson` (EPSG:4326), `.fgb` or `.parquet`.
    n
        Units. Or:
    expected_accuracy, target_se
        The user's accuracies to expect (``0.85``, or ``"water=0.95,2=0.7,0.85"`` by name or value), and the standard
        error of overall accuracy to reach: n follows by Olofsson et al. (2014), eq. 13.
    allocation, minimum
        How units are shared out, see `gopt_geo.assessment.allocation.allocate`.
    aoi, aoi_crs
        Area of interest, see `gopt_geo.aoi.read_aoi`.
    shape
        "point" (a pixel's centre) or "pixel" (its square).
    blind
        Leave out all fields that tell the map's class.
    seed
        Another seed draws another sample.
    overwrite
        Replace the file if it exists.
    progress
        Called now and then.

    Returns
    -------
    SampleReport

    Raises
    ------
    GoptGeoError
        If the map or the area can't be read, the numbers don't fit, or the file can't be written.
    """
    _check_numbers(n, expected_accuracy, target_se, seed, shape)
    area = _area(aoi, aoi_crs)
    inputs = [landcover, *([area.path] if area is not None and area.path is not None else [])]
    with Staging(overwrite, inputs=inputs) as staging, MapFrame(landcover, area) as frame:
        staged = staging.path(output, VECTOR_ENDINGS)
        check_vector_output(output, frame.grid.crs)
        strata = frame.strata(_stage(progress, "count classes"))
        required = None
        if n is None:
            assert target_se is not None
            names = dict(zip(strata.values.tolist(), strata.names, strict=True))
            accuracies = expected_accuracies(str(expected_accuracy), names)
            required = required_units(strata.pixels, strata.weights, accuracies, target_se)
            n = max(required, int(least_units(strata.pixels, allocation, minimum).sum()))
        units = allocate(n, strata.pixels, strata.weights, allocation, minimum)
        drawn = draw_units(frame, strata, units, seed, _stage(progress, "draw units"))
        write_units(staged, frame, strata, drawn, shape=shape, blind=blind)
        notices = (*frame.notices, *_notices(frame, strata, units.tolist()))
        staging.publish()
    rows = zip(strata.values.tolist(), strata.names, strata.pixels.tolist(), strata.areas, units.tolist(), strict=True)
    reports = tuple(
        StratumReport(value, name, pixels, float(size) if np.isfinite(size) else None, count)
        for value, name, pixels, size, count in rows
    )
    return SampleReport(Path(output), reports, required, notices)


def evaluate_sample(
    landcover: StrPath,
    sample: StrPath,
    *,
    reference_field: str = REFERENCE,
    level: float = 0.95,
    aoi: StrPath | None = None,
    aoi_crs: str | None = None,
    skip_unfilled: bool = False,
    other_strata: bool = False,
) -> SampleAssessment:
    """Estimate area per class and a map's accuracy from a sample whose reference classes were filled in.

    See `gopt_geo.assessment.sampleevaluation.evaluate_units`; the area is read as `gopt_geo.aoi.read_aoi` does.
    """
    return evaluate_units(
        landcover,
        sample,
        reference_field=reference_field,
        level=level,
        aoi=_area(aoi, aoi_crs),
        skip_unfilled=skip_unfilled,
        other_strata=other_strata,
    )


def _area(aoi: StrPath | None, aoi_crs: str | None) -> Aoi | None:
    if aoi is None and aoi_crs is not None:
        raise AoiError("--aoi-crs", "it serves --aoi alone", "name an area, or leave it out")
    return None if aoi is None else read_aoi(aoi, aoi_crs)


def _check_numbers(
    n: int | None, expected_accuracy: float | str | None, target_se: float | None, seed: int, shape: str
) -> None:
    if n is not None and (expected_accuracy is not None or target_se is not None):
        raise SampleError("-n", "the number of units is given twice", "leave out -n, or --target-se and its accuracy")
    if n is None and (expected_accuracy is None or target_se is None):
        found = "nothing says how many units to draw"
        raise SampleError("-n", found, "give -n, or --target-se and --expected-accuracy together")
    if n is not None and n < 1:
        raise SampleError("-n", f"{n} units are none", "give 1 or more")
    if seed < 0:
        raise SampleError("--seed", "out of range", "give a number 0 or above")
    if shape not in get_args(UnitShape):
        raise SampleError("--shape", f"{shape!r} is unknown", f"choose from {', '.join(get_args(UnitShape))}")


def _stage(progress: Callable[[Progress], None] | None, stage: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(Progress(stage, done, total))


def _notices(frame: MapFrame, strata: FrameStrata, units: list[int]) -> list[str]:
    notices = []
    if not frame.legend:
        notices.append("warning: the map has no legend: references can only be given as class values")
    if not np.isfinite(strata.areas).all():
        notices.append("warning: the map has no CRS: strata and estimates count pixels")
    whole = [name for name, p, u in zip(strata.names, strata.pixels.tolist(), units, strict=True) if p == u]
    if whole:
        notices.append(f"all pixels of {', '.join(whole)} are in the sample")
    return notices
