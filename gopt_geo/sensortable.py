"""The sensor profiles as tables, for the documentation and the terminal."""

from __future__ import annotations

from gopt_geo.scene.sensors import Sensor, StoredValues, sensors

__all__ = ["band_table", "normalisation_table", "sensor_table"]


def sensor_table() -> str:
    """Return a Markdown table of the profiles: what is read with each, stored values, valid range."""
    rows: list[tuple[str, ...]] = [("`--sensor`, `--sar-sensor`", "what it is", "used for", "stored values", "valid")]
    rows += [
        (f"`{profile.name}`", profile.title, "; ".join(profile.products), _stored(profile), _range(profile))
        for profile in sensors()
    ]
    return _table(rows)


def band_table() -> str:
    """Return a Markdown table of all bands, those of one name in a row a profile."""
    rows: list[tuple[str, ...]] = [("profile", "band", "also called", "middle", "pixel, m")]
    for profile in sensors():
        for band in profile.bands:
            middle = f"{band.wavelength_nm:g} nm" if band.wavelength_nm else ""
            middle = f"{band.frequency_ghz:g} GHz" if band.frequency_ghz else middle
            size = f"{band.resolution_m:g}" if band.resolution_m else ""
            rows.append((f"`{profile.name}`", band.name, ", ".join(band.aliases), middle, size))
    return _table(rows)


def normalisation_table() -> str:
    """Return a Markdown table of means and standard deviations, and whose they are."""
    rows: list[tuple[str, ...]] = [("profile", "of", "mean", "standard deviation", "origin")]
    for profile in sensors():
        numbers = profile.normalisation
        if numbers is not None:
            mean, std = (", ".join(f"{value:g}" for value in values) for values in (numbers.mean, numbers.std))
            rows.append((f"`{profile.name}`", numbers.unit, mean, std, numbers.origin))
    return _table(rows)


def _stored(profile: Sensor) -> str:
    return "; ".join(_meaning(stored) for stored in profile.stored) or "you state the unit"


def _meaning(stored: StoredValues) -> str:
    types = "/".join(stored.types)
    if stored.refused is not None:
        return f"{types}: refused, not calibrated"
    meaning = str(stored.unit)
    if stored.unit == "byte":
        meaning = "value / 255"
    elif stored.scale != 1 or stored.offset != 0:
        sign = f" {'+' if stored.offset > 0 else '-'} {abs(stored.offset):g}" if stored.offset else ""
        meaning = f"value x {stored.scale:g}{sign} is {stored.unit}"
    missing = ", ".join(f"{value:g}" for value in stored.missing)
    return f"{types}: {meaning}" + (f", {missing} missing" if missing else "")


def _range(profile: Sensor) -> str:
    low, high = profile.valid_range
    return f"{low:g} to {high:g}" + (" dB" if profile.modality == "sar" else "")


def _table(rows: list[tuple[str, ...]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
