"""Sensor profiles: what is known of a sensor's bands and values, read from the data files beside the package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gopt_geo.errors import RadiometryError

__all__ = [
    "Normalisation",
    "Sensor",
    "SensorBand",
    "StoredValues",
    "find_sensor",
    "sensor",
    "sensor_names",
    "sensors",
]

_FOLDER = "data/sensors"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SensorBand(_Strict):
    """One band.

    Attributes
    ----------
    name
        As the sensor's files call it.
    aliases
        Further names; the common names of STAC's EO extension ("red") first among them.
    wavelength_nm, frequency_ghz
        Middle of an optical band; of a SAR. None where the profile is of no one sensor.
    resolution_m
        Size of its pixels as delivered.
    """

    name: str = Field(min_length=1)
    aliases: tuple[str, ...] = ()
    wavelength_nm: float | None = Field(default=None, gt=0)
    frequency_ghz: float | None = Field(default=None, gt=0)
    resolution_m: float | None = Field(default=None, gt=0)


class Refusal(_Strict):
    """Why values can't be used, and what to do."""

    found: str
    remedy: str


class StoredValues(_Strict):
    """What values of some data types mean: physical = stored * scale + offset.

    Attributes
    ----------
    types
        Names of data types, "uint16".
    unit
        Of the physical values; "byte" is reflectance = stored / 255. None: the user states it.
    scale, offset
        See above.
    other_offsets
        Further offsets that files of the sensor state.
    missing
        Stored values that mean no data, in addition to the file's nodata.
    note
        What to tell when this is taken for granted.
    refused
        Why such values can't be used; None: they can.
    awaits_sun
        Whether the physical values are still to be divided by the sine of the sun's elevation.
    """

    types: tuple[str, ...] = Field(min_length=1)
    unit: Literal["reflectance", "byte", "db", "power", "amplitude"] | None = None
    scale: float = Field(default=1.0, gt=0)
    offset: float = 0.0
    other_offsets: tuple[float, ...] = ()
    missing: tuple[float, ...] = ()
    note: str | None = None
    refused: Refusal | None = None
    awaits_sun: bool = False


class StatedBy(_Strict):
    """How a file says that it is of this sensor; patterns must fit the whole text, upper and lower case alike.

    Attributes
    ----------
    tags
        Pattern by name of a tag; one that fits is enough.
    files
        Pattern of the file's name.
    stac
        Pattern of a STAC item's collection.
    """

    tags: Mapping[str, str] = Field(default_factory=dict)
    files: str | None = None
    stac: str | None = None


class Normalisation(_Strict):
    """Statistics for (value - mean) / std, where a pack doesn't bring its own.

    Attributes
    ----------
    unit
        Of the values.
    origin
        Whose numbers these are, or by which rule.
    mean, std
        By band, in the profile's order; one number stands for all.
    """

    unit: Literal["reflectance", "db"]
    origin: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Sensor(_Strict):
    """The profile of a sensor.

    Attributes
    ----------
    name
        The name of its file; `--sensor` takes it.
    title
        In words.
    modality
        "optical" or "sar".
    products
        What is read with it.
    bands
        In the order of files that don't name them.
    valid_range
        Physical values (reflectance; dB) outside of which a pixel counts as missing.
    stored
        What stored values mean, by data type.
    stated
        How files say that they are of this sensor.
    normalisation
        None where no numbers can be attributed and no rule derived.
    origin
        Where the numbers come from.
    """

    name: str
    title: str
    modality: Literal["optical", "sar"]
    products: tuple[str, ...]
    bands: tuple[SensorBand, ...] = Field(min_length=1)
    valid_range: tuple[float, float]
    stored: tuple[StoredValues, ...]
    stated: StatedBy = StatedBy()
    normalisation: Normalisation | None = None
    origin: str

    @model_validator(mode="after")
    def _consistent(self) -> Sensor:
        names = [name.casefold() for band in self.bands for name in (band.name, *band.aliases)]
        if len(set(names)) < len(names):
            raise ValueError("two bands have one name")
        types = [kind for stored in self.stored for kind in stored.types]
        if len(set(types)) < len(types) or any(np.dtype(kind).name != kind for kind in types):
            raise ValueError("a data type is unknown, or stands twice")
        if self.valid_range[0] >= self.valid_range[1]:
            raise ValueError("the valid range is empty")
        statistics = self.normalisation
        if statistics and {len(statistics.mean), len(statistics.std)} - {1, len(self.bands)}:
            raise ValueError("the normalisation isn't of these bands")
        if statistics and min(statistics.std) <= 0:
            raise ValueError("a standard deviation isn't positive")
        return self

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands in order."""
        return tuple(band.name for band in self.bands)

    @property
    def generic(self) -> bool:
        """Whether it is of no one sensor, so that no file can contradict it."""
        return all(band.wavelength_nm is None and band.frequency_ghz is None for band in self.bands)

    def values_of(self, dtype: np.dtype[Any]) -> StoredValues | None:
        """Return what stored values of a data type mean, None where the profile doesn't say."""
        return next((stored for stored in self.stored if dtype.name in stored.types), None)

    def names_of(self, band: str) -> set[str]:
        """Return all names of a band, in lower case; empty where it is none of this sensor's."""
        key = _short(band)
        for own in self.bands:
            names = {own.name.casefold(), *(alias.casefold() for alias in own.aliases)}
            if key in {_short(name) for name in names}:
                return names | {key}
        return set()

    def statistics(self, bands: Sequence[str]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Return mean and std of bands, by any of their names; None without numbers, or where a band is unknown."""
        if self.normalisation is None:
            return None
        places = [next((i for i, own in enumerate(self.bands) if self._is(own, band)), None) for band in bands]
        if None in places:
            return None
        mean, std = (self._for_all(numbers) for numbers in (self.normalisation.mean, self.normalisation.std))
        return tuple(mean[i] for i in places if i is not None), tuple(std[i] for i in places if i is not None)

    def _is(self, own: SensorBand, band: str) -> bool:
        return own.name.casefold() in self.names_of(band)

    def _for_all(self, numbers: tuple[float, ...]) -> tuple[float, ...]:
        return numbers * len(self.bands) if len(numbers) == 1 else numbers


def _short(name: str) -> str:
    """Return a band's name in lower case without leading zero: "b4" of B04."""
    return re.sub(r"\Ab0(?=\d\Z)", "b", name.casefold())


def sensor_names(modality: str | None = None) -> tuple[str, ...]:
    """Return the names of all profiles, or of those of "optical" or "sar"."""
    return tuple(profile.name for profile in sensors() if modality in (None, profile.modality))


def sensors() -> tuple[Sensor, ...]:
    """Return all profiles, in alphabetical order."""
    return tuple(_profiles().values())


def sensor(name: str, modality: str | None = None, option: str = "--sensor") -> Sensor:
    """Return a profile.

    Parameters
    ----------
    name
        Its name, upper and lower case alike.
    modality
        "optical" or "sar" where it must be of that.
    option
        The option that names it in messages.

    Raises
    ------
    RadiometryError
        If there is none, or it is of the other modality.
    """
    found = _profiles().get(name.casefold())
    known = ", ".join(sensor_names(modality))
    if found is None:
        raise RadiometryError(f"{option} {name}", "there is no such sensor profile", f"choose from {known}")
    if modality not in (None, found.modality):
        what = f"it is the profile of {'a SAR' if found.modality == 'sar' else 'an optical'} sensor"
        raise RadiometryError(f"{option} {name}", what, f"choose from {known}")
    return found


def find_sensor(
    tags: Mapping[str, str], file_name: str = "", collection: str = ""
) -> tuple[Sensor, Literal["tag", "name", "item", "metadata"], str] | None:
    """Find the sensor that a file says it is of.

    Parameters
    ----------
    tags
        The file's.
    file_name
        Path or name.
    collection
        Of a STAC item.

    Returns
    -------
    The profile, what states it, and the statement; None where nothing does.
    """
    stem = PurePath(file_name.split("?")[0]).name
    for profile in sensors():
        stated = profile.stated
        for tag, pattern in stated.tags.items():
            if _fits(pattern, str(tags.get(tag, ""))):
                return profile, "tag", f"its tag {tag}"
        if stated.stac and _fits(stated.stac, collection):
            return profile, "item", f"its collection {collection}"
        if stated.files and _fits(stated.files, stem):
            return profile, "name", "its name"
    return None


def _fits(pattern: str, text: str) -> bool:
    return bool(text) and re.fullmatch(pattern, text, re.IGNORECASE | re.DOTALL) is not None


@cache
def _profiles() -> dict[str, Sensor]:
    return {profile.name: profile for profile in sorted(_read(), key=lambda profile: profile.name)}


def _read() -> Iterator[Sensor]:
    import yaml

    for file in files("gopt_geo").joinpath(_FOLDER).iterdir():
        if file.name.endswith(".yaml"):
            document = yaml.safe_load(file.read_text(encoding="utf-8"))
            yield Sensor(name=file.name.removesuffix(".yaml"), **document)
