"""Opening of a scene's sources: bands, units and place as asked for, checked before anything is warped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from typing import Any

import numpy as np

from gopt_geo.errors import BandError, GridError, RadiometryError, SourceError
from gopt_geo.grid import GeoBox, Window, lattice, whole_pixel_offset
from gopt_geo.scene.arraysource import ArraySource
from gopt_geo.scene.bandfile import BandFile, choose_bands
from gopt_geo.scene.bandfiles import Source, band_files, is_array, source_name
from gopt_geo.scene.bandnames import find_band, kind_of, lacking
from gopt_geo.scene.bandset import JoinedSource, StackedSource, open_groups
from gopt_geo.scene.clouds import ClearSource, CloudMask, CloudSource, find_mask
from gopt_geo.scene.controlpoints import ControlPoints
from gopt_geo.scene.dates import Acquired
from gopt_geo.scene.identity import asked_sensor, identify, sensor_option, stated_sensor
from gopt_geo.scene.moving import LITTLE, move_grid, move_notice
from gopt_geo.scene.radiometry import Radiometry, plan_radiometry
from gopt_geo.scene.sensors import Sensor
from gopt_geo.scene.source import PixelSource, RasterSource
from gopt_geo.scene.warp import AlignedSource

__all__ = ["Opened", "SourceSpec", "check_georeferenced", "open_source"]

_Raster = RasterSource | ArraySource
_KINDS = {"optical": "optical", "sar": "SAR"}
_SCAN = 1024  # pixels; edge of the windows in which a source is searched for data
_GLANCE = 256  # the same, where pixels come from a server
_MANY = 0.5  # share of a source's pixels, made unusable by its unit, that is worth a warning
_MASK_BYTES = 8 << 20  # cache of a cloud mask on its source's grid: six blocks


@dataclass
class SourceSpec:
    """What the user and the pack say about one source.

    Parameters
    ----------
    path
        The raster's path or URL; or what names several files of one band each, see
        `gopt_geo.scene.bandfiles.band_files`; or these files; or an array; or several of these in a mosaic.
    bands
        Bands by 1-based index or name; None chooses by `band_names`, or all data bands if there are `count`.
    units
        Unit of the values as the user states it (see `plan_radiometry`), None if not stated.
    target_units
        The pack's unit: "reflectance", "db", "power" or "raw".
    count
        Bands the pack expects; None takes as many as there are.
    mask
        Marks pixels not to use (clouds), see `gopt_geo.scene.clouds.CloudMask`; of a raster all values but 0. Aligned
        by nearest neighbour.
    band_names
        The pack's names of its bands.
    sensor
        Name of the sensor's profile as the user states it, see `gopt_geo.scene.sensors`; None goes by what the source
        says of itself.
    acquired
        When it was acquired, where that is known (from a catalog); None goes by what the source says of itself.
    """

    path: Source | Sequence[BandFile]
    bands: Sequence[int | str] | None
    units: str | None
    target_units: str
    count: int | None
    mask: str | PathLike[str] | CloudMask | None = None
    band_names: tuple[str, ...] = ()
    sensor: str | None = None
    acquired: datetime | None = None


@dataclass(frozen=True)
class Opened:
    """A source before the scene grid is known.

    Attributes
    ----------
    name
        What messages call it.
    parts
        Groups of bands that lie on one grid, the finest first, and the way of their values to the pack's unit.
    order
        Which of the parts' bands, counted through, each band of the modality is.
    mask
        Marks pixels not to use.
    acquired
        When; None where nothing tells.
    """

    name: str
    parts: tuple[tuple[PixelSource, Radiometry], ...]
    order: tuple[int, ...]
    mask: CloudSource | None
    acquired: Acquired | None = None

    @property
    def grid(self) -> GeoBox:
        """Grid of the finest bands."""
        return self.parts[0][0].grid

    @property
    def grids(self) -> tuple[GeoBox, ...]:
        """The same: what lies on several grids of its own is `gopt_geo.scene.mosaicking.OpenedMosaic`."""
        return (self.grid,)

    def align(
        self, grid: GeoBox, *, by_pixel: bool, cache_bytes: int | None, by_window: bool = False
    ) -> AlignedSource | JoinedSource:
        """Bring the source onto the scene grid; each group of bands takes its share of the cache."""
        total = sum(source.count for source, _ in self.parts)
        aligned = []
        for source, radiometry in self.parts:
            share = None if cache_bytes is None else cache_bytes * source.count // total
            if self.mask is not None and not by_pixel and whole_pixel_offset(grid, source.grid) is None:
                clouds = AlignedSource(self.mask, source.grid, "nearest", cache_bytes=_MASK_BYTES)
                source, share = ClearSource(source, clouds), None if share is None else max(share - _MASK_BYTES, 0)
            aligned.append(
                AlignedSource(
                    source, grid, radiometry=radiometry, by_pixel=by_pixel, cache_bytes=share, by_window=by_window
                )
            )
        in_place = len(aligned) == 1 and self.order == tuple(range(total))
        return aligned[0] if in_place else JoinedSource(aligned, self.order)

    def move(self, reference: GeoBox, dx: float, dy: float) -> list[str]:
        """Move all grids by a shift in pixels of a reference grid, see `move_grid`; return what is to be said of it."""
        error = 0.0
        for source in (*(part for part, _ in self.parts), *([] if self.mask is None else [self.mask])):
            source.grid, off = move_grid(source.grid, reference, dx, dy, self.name)
            error = max(error, off)
        return [move_notice(self.name, error)] if error > LITTLE else []

    def close(self) -> None:
        """Close all files."""
        for source, _ in self.parts:
            source.close()
        if self.mask is not None:
            self.mask.close()


def open_source(modality: str, spec: SourceSpec, pixel_grid: bool, notices: list[str]) -> Opened:
    """Open a source, and check all that can be checked before the scene grid is known.

    Parameters
    ----------
    modality
        Its modality; messages name the options after it.
    spec
        What is said of it.
    pixel_grid
        Whether georeferencing is ignored.
    notices
        What was taken for granted is added here.

    Raises
    ------
    GoptGeoError
        If a file, its bands, unit, place or data don't serve; no file stays open then.
    """
    asked = asked_sensor(modality, spec.sensor)
    name, sources, order, files = _with_bands(modality, spec, asked)
    mask: CloudSource | None = None
    try:
        if pixel_grid:
            _check_one_shape(name, sources)
        known = identify(modality, spec.path, asked, sources, files, spec.acquired)
        notices += known.notices
        parts = []
        for source in sources:
            check_georeferenced(source, pixel_grid)
            if source.control is not None and not pixel_grid:
                notices.append(_of_points(source.name, source.control))
            _check_colours(source)
            radiometry, said = plan_radiometry(
                source, spec.units, spec.target_units, f"--{modality}-units", known.profile
            )
            notices += [line for line in said if line not in notices]
            lost = _check_has_data(source, radiometry)
            if lost > _MANY:
                notices.append(_of_lost(source.name, lost, modality))
            parts.append((source, radiometry))
        if spec.mask is not None:
            found, said = find_mask(spec.mask, spec.path)
            notices += said
            mask = CloudSource(found)
            check_georeferenced(mask, pixel_grid)
    except BaseException:
        for source in (*sources, *([] if mask is None else [mask])):
            source.close()
        raise
    return Opened(name, tuple(parts), tuple(order), mask, known.acquired)


def _with_bands(
    modality: str, spec: SourceSpec, asked: Sensor | None
) -> tuple[str, list[PixelSource], list[int], list[str]]:
    """Open a source with as many bands as the pack expects: its name, groups of bands, their order, and its files."""
    option = f"--{modality}-bands"
    files = band_files(spec.path)
    if files is None:
        source = _raster_with_bands(modality, spec, asked)
        return source.name, [source], list(range(source.count)), [source.name]
    _check_kind(modality, spec, source_name(spec.path), [file.name for file in files], None)
    listed = isinstance(spec.path, Sequence) and not isinstance(spec.path, str)
    name = f"{modality}: {len(files)} files" if listed else source_name(spec.path)
    chosen = choose_bands(files, spec.bands, spec.band_names, spec.count, name, option)
    groups, order = open_groups(chosen, name)
    return name, groups, order, [file.path for file in chosen]


def _open_one(path: Source | Sequence[BandFile], bands: Sequence[int | str] | None = None) -> _Raster:
    if is_array(path):
        return ArraySource(path, bands)
    assert isinstance(path, str | PathLike)
    return RasterSource(path, bands)


def _raster_with_bands(modality: str, spec: SourceSpec, asked: Sensor | None) -> _Raster:
    wanted = f"the pack expects {spec.count}" + (f" ({', '.join(spec.band_names)})" if spec.band_names else "")
    option = f"--{modality}-bands"
    source = _open_one(spec.path)
    profile = asked or stated_sensor(source.name, source.file_tags)
    try:
        _check_kind(modality, spec, source.name, list(source.file_names.values()), profile, source.dtype)
        _check_names(modality, spec, source, profile)
    except BaseException:
        source.close()
        raise
    bands = _bands_by_name(source, spec, profile)
    if bands is not None:
        source.close()
        source = _open_one(spec.path, bands)
    if spec.count in (None, source.count):
        return source
    source.close()
    if spec.bands is not None:
        raise BandError(source.name, f"{option} names {_bands(source.count)}, {wanted}", f"name {_bands(spec.count)}")
    remedy = f"choose with {option} from {source.describe_bands()}"
    raise BandError(source.name, f"it has {_bands(source.count)}, {wanted}", remedy)


def _check_kind(
    modality: str,
    spec: SourceSpec,
    name: str,
    bands: Sequence[str],
    profile: Sensor | None,
    dtype: np.dtype[Any] | None = None,
) -> None:
    """Refuse an optical raster given as SAR and the reverse, where names or sensor tell; "raw" insists on it."""
    if modality not in _KINDS or spec.units == "raw":
        return
    if dtype is not None and dtype.kind == "c" and modality == "optical":
        raise RadiometryError(name, "complex values, as SAR has them", "give an optical raster; or swap the two")
    found = profile.modality if profile is not None else kind_of(bands)
    if found in (None, modality):
        return
    why = f"sensor {profile.name}" if profile is not None else f"bands {', '.join(bands[:4])}"
    told = f"it is {_KINDS[found or modality]} ({why}), and is given as {_KINDS[modality]}"
    raise SourceError(name, told, f"swap OPTICAL and SAR, or insist with --{modality}-units raw")


def _check_names(modality: str, spec: SourceSpec, source: _Raster, profile: Sensor | None) -> None:
    """Refuse a raster whose bands have names that sensors use, but not those that the pack calls for."""
    if spec.bands is not None or spec.count is None or spec.units == "raw":
        return
    fault = lacking(spec.band_names, list(source.file_names.values()), profile)
    if fault is not None:
        remedy = f"the pack expects {', '.join(spec.band_names)}; choose others with --{modality}-bands"
        raise BandError(source.name, fault, f"{remedy} from {source.describe_bands()}")


def _bands_by_name(source: _Raster, spec: SourceSpec, profile: Sensor | None) -> list[int | str] | None:
    """Return which bands of a raster are asked for, those by name as indexes; None means all.

    A raster that names no bands, and has as many as its sensor, has the sensor's.
    """
    indexes, names = list(source.file_names), list(source.file_names.values())
    if profile is not None and not any(names) and len(names) == len(profile.bands):
        names = list(profile.band_names)
    wanted: Sequence[int | str] | None = spec.bands
    if (
        wanted is None
        and spec.band_names
        and all(len(find_band(band, names, profile)) == 1 for band in spec.band_names)
    ):
        wanted = spec.band_names
    if wanted is None:
        return None
    places = [find_band(band, names, profile) if isinstance(band, str) else [] for band in wanted]
    # a name that fits no band, or several, is left for the source to complain about
    return [indexes[place[0]] if len(place) == 1 else band for band, place in zip(wanted, places, strict=True)]


def _bands(count: int) -> str:
    return f"{count} band" if count == 1 else f"{count} bands"


def check_georeferenced(source: PixelSource, pixel_grid: bool) -> None:
    """Refuse a source that nothing places.

    Raises
    ------
    GridError
        If it has no CRS, unless georeferencing is ignored.
    """
    if pixel_grid or source.grid.crs is not None:
        return
    if source.not_placed is not None:
        raise source.not_placed
    raise GridError(source.name, "it has no CRS", "set it with gdal_edit -a_srs, or use --pixel-grid")


def _of_points(name: str, control: ControlPoints) -> str:
    return (
        f"{name}: placed by {len(control.true)} ground control points, from which the best affine grid is"
        f" {control.off:.2g} pixels off; relief isn't corrected"
    )


def _of_lost(name: str, lost: float, modality: str) -> str:
    return (
        f"warning: {name}: of the pixels looked at, {100 * lost:.1f} % can't be of the unit or the sensor, and count as"
        f" missing; check --{modality}-units and {sensor_option(modality)}"
    )


def _check_one_shape(name: str, sources: Sequence[PixelSource]) -> None:
    if len({tuple(source.grid.shape) for source in sources}) > 1:
        found = f"its bands have {len(sources)} pixel sizes"
        raise GridError(name, found, "--pixel-grid needs bands of one shape; leave it out")


def _check_colours(source: PixelSource) -> None:
    if source.has_palette:
        remedy = "expand the colours with gdal_translate -expand rgb"
        raise RadiometryError(source.name, "its values are entries of a colour table", remedy)


def _check_has_data(source: PixelSource, radiometry: Radiometry) -> float:
    """Search the file for one usable pixel, from its middle outwards; return the share that the unit made unusable."""
    height, width = source.grid.shape
    before = after = 0

    def from_middle(window: Window) -> float:
        return abs(window.row + _SCAN / 2 - height / 2) + abs(window.col + _SCAN / 2 - width / 2)

    blocks = sorted(lattice(Window(0, 0, height, width), _SCAN), key=from_middle)
    if isinstance(source, RasterSource | StackedSource) and source.remote:  # a look at less, where pixels travel
        blocks.insert(0, Window(max(height - _GLANCE, 0) // 2, max(width - _GLANCE, 0) // 2, _GLANCE, _GLANCE))
    for block in blocks:
        inside = block.clip((height, width))
        if inside is None:
            continue
        values, valid = source.read(inside)
        present = valid & (values != 0).any(axis=0)  # 0 is no data to many, and says nothing about units
        for missing in radiometry.missing:
            present &= (values != missing).all(axis=0)
        before += int(present.sum())
        after += int(radiometry.before_warp(values, valid)[1].sum())
        if after:
            return 1 - after / max(before, after)
    raise SourceError(
        source.name,
        "no pixel carries data (all nodata, NaN, masked, not positive, or outside of the sensor's range)",
        "give a file with data",
    )
