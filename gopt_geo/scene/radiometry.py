"""Units of pixel values: brought to the pack's by statements of user or file, never by looking at pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from gopt_geo.errors import RadiometryError
from gopt_geo.scene.sensors import Sensor, StoredValues
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
_AT_ONCE = 1 << 15  # pixels scaled at a time
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
    missing
        Stored values that mean no data.
    within
        Values before the warp, in its unit, outside of which a pixel is invalid; None sets no limits.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    before: Literal["square", "positive"] | None = None
    after: Literal["to_db", "from_db"] | None = None
    missing: tuple[float, ...] = ()
    within: tuple[float, float] | None = None

    def before_warp(
        self, values: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Apply the linear part to values [C, h, w]; pixels without positive power or beyond the limits become 0.

        The values are overwritten: nobody else may hold them.
        """
        for missing in self.missing:
            valid = valid & (values != np.float32(missing)).all(axis=0)
        if any(scale != 1 for scale in self.scale) or any(offset != 0 for offset in self.offset):
            self._scale_in_place(values)
        if self.before is not None:
            valid = valid & (values > 0).all(axis=0)
        if self.before == "square":
            np.square(values, out=values)
            valid = valid & np.isfinite(values).all(axis=0)
        if self.within is not None:
            low, high = (np.float32(limit) for limit in self.within)
            valid = valid & ((values >= low) & (values <= high)).all(axis=0)
        return _cleared(values, valid), valid

    def _scale_in_place(self, values: NDArray[np.float32]) -> None:
        """Compute stored * scale + offset in double precision; by rows, so that the doubles stay in the CPU's cache."""
        rows = max(_AT_ONCE // max(values.shape[2], 1), 1)
        for band, scale, offset in zip(values, self.scale, self.offset, strict=True):
            for row in range(0, len(band), rows):
                part = np.multiply(band[row : row + rows], scale, dtype=np.float64)
                if offset != 0:
                    part += offset
                band[row : row + rows] = part

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
        return _cleared(values, valid), valid


def _cleared(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    return values if valid.all() else np.where(valid, values, np.float32(0))


def plan_radiometry(
    source: PixelSource, units: str | None, target: str, option: str, profile: Sensor | None = None
) -> tuple[Radiometry, list[str]]:
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
    profile
        The sensor, where it is known: it gives the unit where neither user nor file states one, and the limits.

    Returns
    -------
    radiometry : Radiometry
    notices : list of str
        What was assumed, one line each.

    Raises
    ------
    RadiometryError
        If the unit isn't stated and can't be taken for granted, contradicts the file, or isn't a unit; or the sensor's
        values of this data type can't be used.
    ValueError
        If `target` isn't one of the four.
    """
    _refuse_complex(source, units, target, option)
    stored = profile.values_of(source.dtype) if profile is not None else None
    if stored is not None and stored.refused is not None and "raw" not in (units, target):
        raise RadiometryError(source.name, stored.refused.found, stored.refused.remedy)
    if target == "raw":
        plan, notices = _plan_raw(source, units, option)
    elif target == "reflectance":
        stated = _checked(source, units, get_args(OpticalUnits), option)
        plan, notices = _plan_optical(source, stated, option, stored)
    elif target in ("db", "power"):
        stated = _checked(source, units, get_args(SarUnits), option)
        plan, notices = _plan_sar(source, stated, target, option, stored)
    else:
        raise ValueError(f"a pack's unit is reflectance, db, power or raw, not {target!r}")
    limits = None if profile is None or "raw" in (target, units) else _limits(profile, plan)
    return replace(plan, missing=() if stored is None else stored.missing, within=limits), notices


def _limits(profile: Sensor, plan: Radiometry) -> tuple[float, float]:
    """Return the sensor's valid range in the unit that values have before the warp."""
    low, high = profile.valid_range
    if plan.before is None:
        return low, high
    return float(10 ** (low / 10)), float(10 ** (high / 10))


def _refuse_complex(source: PixelSource, units: str | None, target: str, option: str) -> None:
    """Refuse complex values where they can't be: of them the amplitude is read."""
    if source.dtype.kind != "c":
        return
    if target == "reflectance" and units != "raw":
        raise RadiometryError(source.name, "complex values, as SAR has them", "give an optical raster; or swap the two")
    if units in ("db", "power"):
        found = f"complex values have an amplitude, {option} {units} can't be"
        raise RadiometryError(source.name, found, f"leave {option} out, or use {option} amplitude")


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


def _plan_optical(
    source: PixelSource, units: str | None, option: str, stored: StoredValues | None
) -> tuple[Radiometry, list[str]]:
    if units == "raw":
        return _affine(source, tagged=False), [_raw_notice(source, "reflectance", option)]
    if _has_scale(source.tags):
        if units in ("dn10000", "byte"):
            found = f"its scale and offset tags give reflectance already, {option} {units} would scale twice"
            raise RadiometryError(source.name, found, f"leave {option} out, or use {option} raw")
        return _affine(source), _tags_differ(source, stored) if units is None else []
    if units is not None:
        return _affine(source, _OPTICAL_FACTORS[units]), []
    if stored is not None and stored.unit is not None:
        factor = _OPTICAL_FACTORS[stored.unit]
        scales, offsets = (stored.scale * factor,) * source.count, (stored.offset * factor,) * source.count
        return Radiometry(scales, offsets), _note(source, stored)
    if source.dtype.kind == "f":
        return _affine(source), [
            f"{source.name}: floating-point values are taken as reflectance (say {option} otherwise)"
        ]
    remedy = f"use {option} dn10000 (value / 10000), byte (value / 255) or raw (as it is)"
    raise RadiometryError(source.name, f"{source.dtype} values without a stated unit", remedy)


def _note(source: PixelSource, stored: StoredValues) -> list[str]:
    """Return what the profile wants told, with the source's name behind the level of the notice."""
    if stored.note is None:
        return []
    level, mark, text = stored.note.rpartition("warning: ")
    return [f"{level}{mark}{source.name}: {text}"]


def _tags_differ(source: PixelSource, stored: StoredValues | None) -> list[str]:
    """Say where a file's scale and offset aren't the sensor's; the file's are used."""
    if stored is None or stored.unit is None or source.dtype.kind == "f":
        return []
    offsets = (stored.offset, *stored.other_offsets)
    for tag in source.tags:
        if not np.isclose(tag.scale, stored.scale) or not np.isclose(tag.offset, offsets).any():
            usual = f"the sensor's are {stored.scale:g} and {stored.offset:g}"
            return [f"{source.name}: its scale {tag.scale:g} and offset {tag.offset:g} are used; {usual}"]
    return []


def _tagged_unit(source: PixelSource, option: str) -> SarUnits | None:
    """Return the unit that the band tags state, None where they state none that is known."""
    stated = {_SAR_TAGS.get(tag.unit.casefold()) for tag in source.tags}
    if len(stated) > 1:
        units = ", ".join(tag.unit or "none" for tag in source.tags)
        remedy = f"choose bands of one unit, or use {option} db|power|amplitude|raw"
        raise RadiometryError(source.name, f"the bands' units differ ({units})", remedy)
    return stated.pop()


def _plan_sar(
    source: PixelSource, units: str | None, target: str, option: str, stored: StoredValues | None
) -> tuple[Radiometry, list[str]]:
    if units == "raw":
        return _affine(source, tagged=False), [_raw_notice(source, target, option)]
    notices = []
    unit = cast("SarUnits | None", units) or _tagged_unit(source, option)
    unit = "amplitude" if source.dtype.kind == "c" else unit  # whatever the tag says, it is read so
    if units is not None and any(_SAR_TAGS.get(t.unit.casefold(), units) != units for t in source.tags):
        notices.append(f"{source.name}: its unit tag says {source.tags[0].unit}, {option} {units} is used")
    usual = stored.unit if stored is not None else None
    if units is None and unit is not None and usual not in (None, unit):
        notices.append(f"{source.name}: its unit tag {source.tags[0].unit} is used; the sensor's values are {usual}")
    if unit is None and stored is not None and usual is not None:
        unit = cast("SarUnits", usual)
        notices += _note(source, stored)
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
