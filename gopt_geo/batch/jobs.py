"""What is asked of a worker for one region, as plain values that travel; and where its results go."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapely
from pyproj import CRS

import gopt_geo
from gopt_geo.errors import BatchError
from gopt_geo.maprequest import MapOptions, MapRequest
from gopt_geo.outputs.probabilities import ProbabilityType
from gopt_geo.packchoice import choose_pack
from gopt_geo.scene.mosaic import one_source

if TYPE_CHECKING:
    from gopt_geo.batch.regions import Region
    from gopt_geo.scene.bandfiles import Source

__all__ = ["PRODUCTS", "Job", "JobMaker", "RegionOptions", "Share", "product_names"]

PRODUCTS = {
    "tif": ".tif",
    "gpkg": ".gpkg",
    "geojson": ".geojson",
    "fgb": ".fgb",
    "parquet": ".parquet",
    "confidence": ".confidence.tif",
    "probabilities": ".probabilities.tif",
    "preview": ".png",
}
"""What a region can be asked for, and what comes after its id in the file's name."""

_BESIDE = ("confidence", "probabilities", "preview")  # keywords of predict; the others are its outputs
_NOT_OF_REGIONS = ("aoi", "aoi_crs")
_NO_MATTER = ("readers", "max_memory", "threads")  # how a map is made, not what it is
_FILES = ("grid", "cloud_mask", "backbone_weights", "pack")  # keywords that may be paths, if a file is there


class RegionOptions(MapOptions, total=False):
    """What can be said of all regions, by keyword: `MapOptions`, but for the area, and how probabilities are stored."""

    probabilities_type: ProbabilityType


@dataclass(frozen=True)
class Share:
    """What a task does of a map that is made in bands.

    Attributes
    ----------
    bands
        All of them: row, column, height and width on the scene grid.
    band
        The one to be made; None: all are, and are to be laid together.
    inputs
        State of the inputs that the bands are made of.
    digest
        Of the region's job.
    """

    bands: tuple[tuple[int, int, int, int], ...]
    band: tuple[int, int, int, int] | None
    inputs: tuple[Mapping[str, Any], ...]
    digest: str


@dataclass(frozen=True)
class Job:
    """A region's map: what `gopt_geo.predict` is called with on a worker.

    Attributes
    ----------
    id
        The region's.
    optical, sar
        Scenes of a modality, the first named wins; () where there is none.
    outputs
        Paths of the map, a product each.
    beside
        Keywords of predict that name further files: confidence, probabilities, preview.
    options
        Further keywords of predict, the area among them; plain values.
    pack_sha256
        Of the pack that the worker must find.
    catalog
        Keywords of `gopt_geo.batch.finding.open_finder`, where the worker has to find the scenes; else None.
    version
        Of gopt-geo where the job was made; the worker's must be the same.
    split
        Pixels beyond which the map is made in bands; None: never.
    share
        Of a task for a part of such a map: what it has to do.
    allow_remote
        Whether rasters may name others on servers, as virtual ones do.
    """

    id: str
    optical: tuple[str, ...]
    sar: tuple[str, ...]
    outputs: tuple[str, ...]
    beside: Mapping[str, str]
    options: Mapping[str, Any]
    pack_sha256: str
    catalog: Mapping[str, Any] | None = None
    version: str = field(default_factory=lambda: gopt_geo.__version__)
    split: int | None = None
    share: Share | None = None
    allow_remote: bool = True

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of all results."""
        return (*self.outputs, *self.beside.values())

    @property
    def sources(self) -> tuple[Source | None, Source | None]:
        """Optical and SAR as predict takes them."""
        return one_source(self.optical), one_source(self.sar)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides what the results are, but for the inputs' content.

        What is said as it is by default counts as not said; what changes no result doesn't count.
        """
        if self.share is not None:
            return self.share.digest
        usual = _usual()
        said = {name: value for name, value in self.options.items() if name not in _NO_MATTER and value != usual[name]}
        asked = [self.id, self.optical, self.sar, self.outputs, dict(self.beside), said, self.pack_sha256]
        asked += [] if self.catalog is None else [dict(self.catalog)]
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class _KnownPack:
    """What jobs need to know of a pack; its path is None where it is the embedded one."""

    path: str | None
    sha256: str
    resolution_m: float | None
    modalities: tuple[str, ...]


def product_names(products: str | Iterable[str]) -> tuple[str, ...]:
    """Return names of products, each once; ``tif,gpkg`` is a list too.

    Raises
    ------
    BatchError
        If there is none, or no such product.
    """
    names = products.split(",") if isinstance(products, str) else products
    names = tuple(dict.fromkeys(name.strip().lower().removeprefix(".") for name in names if name.strip()))
    strange = [name for name in names if name not in PRODUCTS]
    if strange:
        raise BatchError(f"--products {strange[0]}", "no such product", f"use some of {', '.join(PRODUCTS)}")
    if all(name in _BESIDE for name in names):
        raise BatchError("--products", "no map is among them", "name tif, or a format of polygons")
    return names


class JobMaker:
    """Makes jobs of regions.

    Parameters
    ----------
    output
        Folder of the results.
    products
        Names of `PRODUCTS`.
    said
        Keywords of predict for all regions, the pack among them; a region's own go first.
    catalog
        Keywords of `gopt_geo.batch.finding.open_finder`, where regions that name no scenes shall find some; what is
        looked for follows from the pack.
    split
        Pixels beyond which a map is made in bands, by several workers; None: never.
    allow_remote
        Of the jobs.

    Raises
    ------
    BatchError
        If a keyword isn't one for batches.
    """

    def __init__(
        self,
        output: Path,
        products: Sequence[str],
        said: RegionOptions,
        catalog: Mapping[str, Any] | None = None,
        split: int | None = None,
        *,
        allow_remote: bool = True,
    ) -> None:
        for name in said:
            if name in _NOT_OF_REGIONS:
                raise BatchError(name, "each region has its own", "leave it out")
        known = RegionOptions.__annotations__
        strange = sorted(set(said) - set(known))
        if strange:
            raise TypeError(f"there is no option {strange[0]!r}; the options are {', '.join(known)}")
        self._output, self._products, self._catalog = output.absolute(), tuple(products), catalog
        self._split = split
        self._said = {name: _plain(name, value) for name, value in said.items() if value is not None}
        self._allow_remote = allow_remote
        self._pack: str | None = self._said.pop("pack", None)
        self._packs: dict[str | None, _KnownPack] = {}

    def __call__(self, region: Region) -> Job:
        """Make the job of a region.

        Raises
        ------
        PackError
            If its pack can't be read.
        """
        pack = self._find_pack(region.pack)
        files = {name: str(self._output / f"{region.id}{PRODUCTS[name]}") for name in self._products}
        options = {**self._said, **region.options, **_area(region)}
        if pack.path is not None:
            options["pack"] = pack.path
        return Job(
            id=region.id,
            optical=region.optical,
            sar=region.sar,
            outputs=tuple(path for name, path in files.items() if name not in _BESIDE),
            beside={name: path for name, path in files.items() if name in _BESIDE},
            options=options,
            pack_sha256=pack.sha256,
            catalog=None if region.optical or region.sar else self._looked_for(region),
            split=self._split,
            allow_remote=self._allow_remote,
        )

    def _looked_for(self, region: Region) -> dict[str, Any] | None:
        """Return how a region's scenes are found."""
        if self._catalog is None:
            return None
        known = self._find_pack(region.pack).modalities
        return {**self._catalog, "modalities": [name for name in ("optical", "sar") if name in known]}

    def pixel_size(self, region: Region) -> float | None:
        """Return the edge of a region's pixels in metres: as asked for in a projected CRS, else the pack's; or None."""
        options = {**self._said, **region.options}
        resolution, crs = options.get("resolution"), options.get("crs")
        if resolution is not None and crs is not None and not CRS.from_user_input(crs).is_geographic:
            return float(resolution)
        return self._find_pack(region.pack).resolution_m

    def packs(self) -> dict[str | None, str]:
        """Return what packs the jobs made so far need: path, None for the embedded one, to SHA-256."""
        return {pack.path: pack.sha256 for pack in self._packs.values()}

    def _find_pack(self, named: str | None) -> _KnownPack:
        if named not in self._packs:
            asked = named if named is not None else self._pack
            pack, _ = choose_pack(asked)
            embedded = asked is None and not _pack_in_environment()
            path = None if embedded or pack.path is None else str(Path(pack.path).absolute())
            self._packs[named] = _KnownPack(path, pack.sha256, pack.meta.resolution_m, tuple(pack.meta.modalities))
        return self._packs[named]


def _pack_in_environment() -> bool:
    return bool(os.environ.get("GOPT_GEO_PACK"))


def _area(region: Region) -> dict[str, str]:
    """Return a region's area as predict takes it, to the last digit."""
    crs = region.crs.to_authority(min_confidence=100)  # one that is merely alike lies elsewhere
    name = ":".join(crs) if crs is not None else region.crs.to_wkt()
    return {"aoi": shapely.to_wkt(region.geometry, rounding_precision=-1), "aoi_crs": name}


def _usual() -> dict[str, Any]:
    """Return what predict takes where nothing is said."""
    usual: dict[str, Any] = dict.fromkeys(RegionOptions.__annotations__)
    usual |= {one.name: one.default for one in fields(MapRequest) if one.name in usual}
    return usual | {"grid": "optical", "extent": "optical", "pixel_grid": False, "probabilities_type": "float32"}


def _plain(name: str, value: Any) -> Any:
    """Return a value that means the same in another folder and process."""
    if isinstance(value, PathLike) or (name in _FILES and isinstance(value, str) and Path(value).exists()):
        return os.path.abspath(value)  # noqa: PTH100 (links stay links)
    return value
