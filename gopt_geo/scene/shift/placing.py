"""Whether auxiliary sources lie where they belong, as other jobs look in passing; and how to bring them there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gopt_geo.errors import ShiftError
from gopt_geo.grid import GeoBox
from gopt_geo.scene.mosaic import SceneMosaic
from gopt_geo.scene.opening import SourceSpec
from gopt_geo.scene.shift.pair import PairShift, estimate_pair

__all__ = ["CHECK_POINTS", "POINTS", "Placement", "describe_shift", "place_sources"]

POINTS = 64
CHECK_POINTS = 16
"""Points of the check that other jobs make in passing."""

_NOTABLE = 1.0  # optical pixels; a smaller shift hardly costs a map anything


@dataclass(frozen=True)
class Placement:
    """Where a job's auxiliary sources lie.

    Attributes
    ----------
    shifts
        What to correct, for `gopt_geo.scene.open_scene`: by modality, in optical pixels.
    notices
        What the user should know.
    tags
        What a result should say of it.
    """

    shifts: dict[str, tuple[float, float]] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)


def place_sources(
    specs: Mapping[str, SourceSpec],
    *,
    correct: bool = False,
    pixel_grid: bool = False,
    part: Callable[[GeoBox], GeoBox] | None = None,
) -> Placement:
    """Look in passing whether auxiliary sources lie where they belong; or estimate how to bring them there.

    Parameters
    ----------
    specs
        The sources by modality, "optical" among them or not.
    correct
        Whether shifts shall be corrected. Else 16 points are looked at, which takes about a third of a second a source,
        and a reliable shift of more than a pixel is a warning.
    pixel_grid
        Whether georeferencing is ignored: then nothing is checked.
    part
        Where to look in passing, see `gopt_geo.scene.shift.estimate_pair`. What is corrected is estimated from all of
        the ground, so that it doesn't depend on an area of interest.

    Raises
    ------
    ShiftError
        If `correct`, and there is nothing to correct or an estimate isn't reliable.
    GoptGeoError
        If a source can't be opened, see `gopt_geo.scene.open_scene`.
    """
    others = [name for name in specs if name != "optical"]
    if "optical" not in specs or not others or pixel_grid:
        if not correct:
            return Placement()
        found = (
            "there is no place to correct with --pixel-grid" if pixel_grid else "it needs an optical and a SAR raster"
        )
        raise ShiftError("--coregister", found, "leave it out")
    shifts, notices, tags = {}, [], {}
    for name in others:
        several = specs[name].path
        if correct and isinstance(several, SceneMosaic) and len(several) > 1:
            found = f"{name.upper()} is a mosaic of {len(several)} rasters, each with a shift of its own"
            raise ShiftError(
                "--coregister", found, "correct each with gopt-geo coregister OPTICAL SAR -o FILE, then map"
            )
        points, where = (POINTS, None) if correct else (CHECK_POINTS, part)
        pair = estimate_pair(specs["optical"], specs[name], name, points=points, part=where)
        estimate, said = pair.estimate, describe_shift(pair, name)
        if not correct:
            if estimate.reliable and estimate.length > _NOTABLE:
                notices.append(f"warning: {said}; --coregister corrects it, docs/coregistration.md tells how")
            continue
        if not estimate.reliable:
            remedy = "leave it out, or look at the report of gopt-geo coregister"
            raise ShiftError(
                "--coregister", f"no reliable estimate of the shift of {name.upper()}: {estimate.reason}", remedy
            )
        shifts[name] = (estimate.dx, estimate.dy)
        notices.append(f"{said}; corrected")
        tags[f"GOPT_GEO_SHIFT_{name.upper()}"] = (
            f"{estimate.dx:.3f} right, {estimate.dy:.3f} down, optical pixels; corrected"
        )
    return Placement(shifts, tuple(notices), tags)


def describe_shift(pair: PairShift, name: str = "sar") -> str:
    """Say in one line how far a source lies off, and to where."""
    found, what = pair.estimate, name.upper()
    if not found.reliable:
        return f"no reliable estimate: {found.reason}"
    size = pair.pixel_size
    metres = f", {found.length * size:.3g} m" if math.isfinite(size) else ""
    across = f"{abs(found.dx):.2f} {'right' if found.dx >= 0 else 'left'}"
    down = f"{abs(found.dy):.2f} {'down' if found.dy >= 0 else 'up'}"
    return f"{what} lies {found.length:.2f} optical pixels{metres} from where it belongs ({across}, {down})"
