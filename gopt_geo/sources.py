"""What a user and a pack say about a scene's sources, as `gopt_geo.scene.open_scene` wants it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, get_args

from gopt_geo.errors import BandError, GoptGeoError, PackError
from gopt_geo.grid import pixel_size_m
from gopt_geo.packs import Pack, PackMeta
from gopt_geo.paths import StrPath
from gopt_geo.scene import Scene, SourceSpec, open_scene
from gopt_geo.scene.bandfiles import Source, input_files, input_name, read_item, reads_urls
from gopt_geo.scene.clouds import CloudKind, CloudMask
from gopt_geo.scene.extent import Extent
from gopt_geo.scene.mosaic import SceneMosaic

__all__ = [
    "SceneInputs",
    "SceneOptions",
    "SourceOptions",
    "check_modalities",
    "odd_pixel_size",
    "source_spec",
    "split_bands",
]

_OF = {
    "optical": ("optical_bands", "optical_units", "sensor", "cloud_mask", "cloud_mask_kind"),
    "sar": ("sar_bands", "sar_units", "sar_sensor"),
}
_CALLED = {"optical": "optical", "sar": "SAR"}
_RATIO = 1.5  # promise 7: pixels further from the pack's in size than this


class SourceOptions(TypedDict, total=False):
    """What can be said of a scene's two sources, by keyword.

    Attributes
    ----------
    optical_bands, sar_bands
        Comma-separated band numbers (from 1) or names, in the pack's order.
    optical_units
        ``reflectance``, ``dn10000``, ``byte`` or ``raw``.
    sar_units
        ``db``, ``power``, ``amplitude`` or ``raw``.
    sensor, sar_sensor
        Names of sensor profiles (docs/sensors.md), such as ``sentinel-2-l2a`` and ``sentinel-1-rtc``: they tell units
        and names of bands where neither you nor the files do.
    cloud_mask
        Raster that tells where optical pixels count as missing; or ``SCL`` or ``QA_PIXEL``, the band of that name of
        the optical source.
    cloud_mask_kind
        ``scl`` (Sentinel-2's scene classification), ``qa-pixel`` (Landsat's bits) or ``mask`` (missing where it isn't
        0); else told by the name of the mask's file.
    pixel_grid
        Accept rasters without a CRS if their shapes are equal; what is made of them then has none either.
    """

    optical_bands: str | None
    sar_bands: str | None
    optical_units: str | None
    sar_units: str | None
    sensor: str | None
    sar_sensor: str | None
    cloud_mask: StrPath | None
    cloud_mask_kind: CloudKind | None
    pixel_grid: bool


class SceneOptions(SourceOptions, total=False):
    """What can be said of a scene, by keyword: `SourceOptions`, and the grid.

    Attributes
    ----------
    grid
        ``optical``, ``sar`` or a raster's path: whose grid the scene takes.
    extent
        ``optical``, ``intersection`` or ``union``; or ``grid``: all of the raster that `grid` names.
    resolution
        Pixel size of the scene in units of the grid's CRS.
    crs
        The scene's CRS, such as ``EPSG:32632``; needs `resolution`, of which pixels begin at whole multiples.
    """

    grid: StrPath
    extent: Extent
    resolution: float | None
    crs: str | None


@dataclass(frozen=True)
class SceneInputs:
    """The sources of a scene, and what the user says of them.

    Attributes
    ----------
    optical, sar
        A raster's path, or what else names a source (docs/sources.md), a `SceneMosaic` of several among it; one of
        them may be None. The path or URL of a STAC item becomes the item, so that it is read once.
    said
        See `SceneOptions`.

    Raises
    ------
    GoptGeoError
        If there is no source, no such extent, or something is said of a source that isn't there.
    TypeError
        If there is no such option.
    """

    optical: Source | None
    sar: Source | None
    said: SceneOptions = field(default_factory=SceneOptions)

    def __post_init__(self) -> None:
        for modality, source in self.sources.items():
            object.__setattr__(self, modality, read_item(source))
        strange = sorted(set(self.said) - set(SceneOptions.__annotations__))
        if strange:
            raise TypeError(
                f"there is no option {strange[0]!r}; the options are {', '.join(SceneOptions.__annotations__)}"
            )
        extent = self.said.get("extent", "optical")
        if extent not in get_args(Extent):
            raise GoptGeoError(f"--extent {extent}", "no such extent", f"use {', '.join(get_args(Extent))}")
        if not self.sources:
            raise GoptGeoError("sources", "there is neither an optical nor a SAR raster", "name one of them, or both")
        self._check_said()

    def _check_said(self) -> None:
        """Refuse what is said of a source that isn't there."""
        said: Mapping[str, object] = self.said
        for modality, names in _OF.items():
            for name in names if modality not in self.sources else ():
                if said.get(name) is not None:
                    option = f"--{name.replace('_', '-')}"
                    raise GoptGeoError(option, f"there is no {_CALLED[modality]} raster", "name one, or leave it out")

    @property
    def sources(self) -> dict[str, Source]:
        """The sources by modality."""
        given = {"optical": self.optical, "sar": self.sar}
        return {modality: source for modality, source in given.items() if source is not None}

    @property
    def remote(self) -> bool:
        """Whether any of them is read from a server."""
        return any(reads_urls(source) for source in self.sources.values())

    @property
    def count(self) -> int:
        """How many rasters are warped, masks included: of a mosaic each raster, and the mask of each."""
        rasters = [len(source) if isinstance(source, SceneMosaic) else 1 for source in self.sources.values()]
        masked = self.optical is not None and self.said.get("cloud_mask") is not None
        return sum(rasters) + (rasters[0] if masked else 0)

    @property
    def names(self) -> dict[str, str]:
        """What the sources are called in a result's tags, by modality."""
        return {modality: input_name(source) for modality, source in self.sources.items()}

    @property
    def cloud_mask(self) -> CloudMask | None:
        """What tells where optical pixels are missing.

        Raises
        ------
        GoptGeoError
            If there is no such kind of mask, or a kind without a mask.
        """
        path, kind = self.said.get("cloud_mask"), self.said.get("cloud_mask_kind")
        if path is None and kind is not None:
            raise GoptGeoError("--cloud-mask-kind", "it needs --cloud-mask", "name a mask, or leave it out")
        return None if path is None else CloudMask(path, kind)

    def files(self) -> list[Path]:
        """Return all files that are read, for the check that no result replaces one."""
        mask = self.cloud_mask
        named = mask.path if mask is not None and mask.keyword is None else None  # what a keyword finds is no result
        given = [named, self.said.get("grid", "optical")]
        also = [Path(path) for path in given if path is not None and path not in ("optical", "sar")]
        return also + [file for source in self.sources.values() for file in input_files(source)]

    def specs(self, meta: PackMeta) -> dict[str, SourceSpec]:
        """Return what is known of each source for a pack, by modality."""
        said, specs = self.said, {}
        if self.optical is not None:
            specs["optical"] = source_spec(
                "optical",
                self.optical,
                meta,
                bands=said.get("optical_bands"),
                units=said.get("optical_units"),
                mask=self.cloud_mask,
                sensor=said.get("sensor"),
            )
        if self.sar is not None:
            bands, units = said.get("sar_bands"), said.get("sar_units")
            sensor = said.get("sar_sensor")
            specs["sar"] = source_spec("sar", self.sar, meta, bands=bands, units=units, sensor=sensor)
        return specs

    def open(
        self, meta: PackMeta, cache_bytes: int | None = None, shifts: Mapping[str, tuple[float, float]] | None = None
    ) -> Scene:
        """Open the scene for a pack; see `gopt_geo.scene.open_scene` for `cache_bytes`, `shifts` and the errors."""
        said, specs = self.said, self.specs(meta)
        return open_scene(
            specs.pop("optical", None),
            specs,
            grid=said.get("grid", "optical"),
            extent=said.get("extent", "optical"),
            resolution=said.get("resolution"),
            crs=said.get("crs"),
            pixel_grid=said.get("pixel_grid", False),
            cache_bytes=cache_bytes,
            shifts=shifts,
        )


def source_spec(
    name: str,
    path: Source,
    meta: PackMeta,
    *,
    bands: str | None = None,
    units: str | None = None,
    mask: CloudMask | None = None,
    sensor: str | None = None,
) -> SourceSpec:
    """Put together what is known of one source.

    Parameters
    ----------
    name
        Its modality, one of the pack's.
    path
        Its raster.
    meta
        Of the pack: how many bands it expects, how they are called, and their unit.
    bands
        Comma-separated band numbers (from 1) or names, as given with ``--NAME-bands``.
    units
        As given with ``--NAME-units``.
    mask
        Marks pixels not to use.
    sensor
        Name of the sensor's profile.

    Raises
    ------
    BandError
        If the list of bands has a gap.
    """
    info = meta.modalities[name]
    return SourceSpec(
        path=path,
        bands=split_bands(bands, f"--{name}-bands"),
        units=units,
        target_units=info.units,
        count=len(info.bands),
        band_names=info.bands,
        mask=mask,
        sensor=sensor,
    )


def check_modalities(pack: Pack, names: Iterable[str]) -> None:
    """Refuse a pack that doesn't know one of these modalities.

    Raises
    ------
    PackError
        If it doesn't.
    """
    unknown = [name for name in names if name not in pack.meta.modalities]
    if unknown:
        remedy = "use a pack for these modalities"
        if unknown == ["optical"] and "sar" in pack.meta.modalities:
            remedy = "name SAR alone, gopt-geo predict --sar FILE, or use another pack"
        found = f"it knows {', '.join(pack.meta.modalities)}, not {', '.join(unknown)}"
        raise PackError(pack.path or pack.meta.title, found, remedy)


def odd_pixel_size(scene: Scene, meta: PackMeta) -> str | None:
    """Say what was found where a scene's pixels are more than 1.5 times larger or smaller than the pack's.

    None where they aren't, or where the scene has no CRS to tell, or the pack doesn't know the size of its own.
    """
    if scene.grid.crs is None or meta.resolution_m is None:
        return None
    size = pixel_size_m(scene.grid)
    ratio = max(size / meta.resolution_m, meta.resolution_m / size) if size > 0 else math.inf
    if ratio <= _RATIO:
        return None
    return f"pixels of {size:.3g} m on the scene grid, and the pack {meta.title!r} knows {meta.resolution_m:g} m"


def split_bands(text: str | None, option: str) -> list[int | str] | None:
    """Split a list of bands; whole numbers are 1-based indices, all else names.

    Raises
    ------
    BandError
        If the list has a gap.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise BandError(f"{option} {text!r}", "a band is missing in the list", f"write it as {option} 3,2,1 or B04,B03")
    return [int(part) if part.isdecimal() else part for part in parts]
