"""Units of pixel values: brought to the pack's by statements of user or file, never by looking at pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from gopt_geo.errors import RadiometryError
from gopt_geo.scene.source import BandTags, PixelSource

__all__ = ["OpticalUnits", "Radiometry", "SarUnits", "Units", "plan_radiometry"]

OpticalUnits = Literal["reflectance", "dn10000", "byte", "raw"]
SarUnits = Literal["db", "power", "amplitude", "raw"]
Units = OpticalUnits | SarUnits

_SAR_TAGS: dict[str, SarUnits] = {
    **dict.fromkeys(("db", "decibel", "decibels"), "db"),
    **dict.fromkeys(("power", "linear", "linear power", "intensity", "m2/m2", "m^2/m^2"), "power"),
    **dict.fromkeys(("amplitude", "linear amplitude", "magnitude"), "amplitude"),
}  # fmt: skip
_OPTICAL_FACTORS = {"reflectance": 1.0, "raw": 1.0, "dn10000": 1e-4, "byte": 1 / 255}


@dataclass(frozen=True)
class Radiometry:
    """The way of one source's values from the file to the pack's unit, around the warp.

    What is linear, and the step to power, comes before the warp, because resampling averages power, not
    amplitude; the logarithm comes after.

    Parameters
    ----------
    scale, offset
        float64 [C], applied first: stored * scale + offset.
    before
        "square" turns amplitude into power, "positive" drops pixels without power, None leaves the values.
    after
        "to_db", "from_db" or None.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    before: Literal["square", "positive"] | None = None
    after: Literal["to_db", "from_db"] | None = None

    def before_warp(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Apply the linear part to values [C, h, w]; pixels without positive power become invalid, 0."""
        scale, offset = np.array(self.scale), np.array(self.offset)
        if (scale != 1).any() or (offset != 0).any():
            values = (values * scale[:, None, None] + offset[:, None, None]).astype(np.float32)
        if self.before is not None:
            valid = valid & (values > 0).all(axis=0)
        if self.before == "square":
            values = np.square(values)
            valid = valid & np.isfinite(values).all(axis=0)
        return np.where(valid, values, np.float32(0)), valid

    def after_warp(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Apply or undo the logarithm on values [C, h, w]; what overflows is invalid, and 0."""
        if self.after is None:
            return values, valid
        with np.errstate(divide="ignore", over="ignore"):
            if self.after == "to_db":
                values = np.float32(10) * np.log10(values)
            else:
                values = np.power(np.float32(10), values / np.float32(10))
        valid = valid & np.isfinite(values).all(axis=0)
        return np.where(valid, values, np.float32(0)), valid


def plan_radiometry(source: PixelSource, units: str | None, target: str, option: str) -> tuple[Radiometry, list[str]]:
    """Decide how a source's values are brought to the pack's unit.

    Parameters
    ----------
    source
        The opened source; its tags and data type are looked at, its pixels are not.
    units
        What the user states: an optical unit where `target` is "reflectance", a SAR unit where it is "db" or
        "power", any of them where it is "raw"; None if nothing is stated.
    target
        The pack's unit: "reflectance", "db", "power" or "raw".
    option
        The option that states the unit, named in messages: "--sar-units".

    Returns
    -------
    radiometry : Radiometry
    notices : list of str
        What was assumed, one line each.

    Raises
    ------
    RadiometryError
        If the unit isn't stated and can't be taken for granted, contradicts the file, or isn't a unit.
    ValueError
        If `target` isn't one of the four.
    """
    if target == "raw":
        return _plan_raw(source, units, option)
    if target == "reflectance":
        return _plan_optical(source, _checked(source, units, get_args(OpticalUnits), option), option)
    if target in ("db", "power"):
        return _plan_sar(source, _checked(source, units, get_args(SarUnits), option), target, option)
    raise ValueError(f"a pack's unit is reflectance, db, power or raw, not {target!r}")


def _checked(source: PixelSource, units: str | None, known: Sequence[str], option: str) -> str | None:
    if units is not None and units not in known:
        remedy = f"use {option} {'|'.join(known)}"
        raise RadiometryError(source.name, f"{option} {units} isn't a unit for this modality", remedy)
    return units


def _has_scale(tags: Sequence[BandTags]) -> bool:
    return any(tag.scale != 1 or tag.offset != 0 for tag in tags)


def _affine(source: PixelSource, factor: float = 1.0, *, tagged: bool = True) -> Radiometry:
    scales = [tag.scale if tagged else 1.0 for tag in source.tags]
    offsets = [tag.offset if tagged else 0.0 for tag in source.tags]
    return Radiometry(tuple(s * factor for s in scales), tuple(o * factor for o in offsets))


def _plan_raw(source: PixelSource, units: str | None, option: str) -> tuple[Radiometry, list[str]]:
    known = dict.fromkeys((*get_args(OpticalUnits), *get_args(SarUnits)))
    _checked(source, units, tuple(known), option)
    return _affine(source, tagged=units != "raw"), []


def _raw_notice(source: PixelSource, target: str, option: str) -> str:
    ignored = "; its scale and offset tags aren't applied" if _has_scale(source.tags) else ""
    return f"warning: {source.name}: values are taken as they are ({option} raw), the pack expects {target}{ignored}"


def _plan_optical(source: PixelSource, units: str | None, option: str) -> tuple[Radiometry, list[str]]:
    if units == "raw":
        return _affine(source, tagged=False), [_raw_notice(source, "reflectance", option)]
    if _has_scale(source.tags):
        if units in ("dn10000", "byte"):
            found = f"its scale and offset tags give reflectance already, {option} {units} would scale twice"
            raise RadiometryError(source.name, found, f"leave {option} out, or use {option} raw")
        return _affine(source), []
    if units is not None:
        return _affine(source, _OPTICAL_FACTORS[units]), []
    if source.dtype.kind == "f":
        return _affine(source), [
            f"{source.name}: floating-point values are taken as reflectance (say {option} otherwise)"
        ]
    remedy = f"use {option} dn10000 (value / 10000), byte (value / 255) or raw (as it is)"
    raise RadiometryError(source.name, f"{source.dtype} values without a stated unit", remedy)


def _tagged_unit(source: PixelSource, option: str) -> SarUnits | None:
    """Return the unit that the band tags state, None where they state none that is known."""
    stated = {_SAR_TAGS.get(tag.unit.casefold()) for tag in source.tags}
    if len(stated) > 1:
        units = ", ".join(tag.unit or "none" for tag in source.tags)
        remedy = f"choose bands of one unit, or use {option} db|power|amplitude|raw"
        raise RadiometryError(source.name, f"the bands' units differ ({units})", remedy)
    return stated.pop()


def _plan_sar(source: PixelSource, units: str | None, target: str, option: str) -> tuple[Radiometry, list[str]]:
    if units == "raw":
        return _affine(source, tagged=False), [_raw_notice(source, target, option)]
    notices = []
    unit = cast("SarUnits | None", units) or _tagged_unit(source, option)
    if units is not None and any(_SAR_TAGS.get(t.unit.casefold(), units) != units for t in source.tags):
        notices.append(f"{source.name}: its unit tag says {source.tags[0].unit}, {option} {units} is used")
    if unit is None:
        if source.dtype.kind != "f":
            remedy = f"use {option} db|power|amplitude|raw"
            raise RadiometryError(source.name, f"{source.dtype} values without a stated unit", remedy)
        unit = "db"
        notices.append(f"{source.name}: floating-point values are taken as dB (say {option} otherwise)")
    tags = _affine(source)
    if unit == "db":
        return Radiometry(tags.scale, tags.offset, None, None if target == "db" else "from_db"), notices
    before: Literal["square", "positive"] = "square" if unit == "amplitude" else "positive"
    return Radiometry(tags.scale, tags.offset, before, "to_db" if target == "db" else None), notices
