"""What is asked of a map, but for where it goes: sources, pack, area, tiles, device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from gopt_geo.aoi import Aoi, read_aoi
from gopt_geo.errors import AoiError, GoptGeoError
from gopt_geo.inference import BlendKind
from gopt_geo.inference.augmented import Symmetry
from gopt_geo.inference.execution import PrecisionName
from gopt_geo.paths import StrPath, optional_path
from gopt_geo.scene.bandfiles import Source
from gopt_geo.sources import SceneInputs, SceneOptions

__all__ = ["MapOptions", "MapRequest"]


class MapOptions(SceneOptions, total=False):
    """What can be said of a map, by keyword: `SceneOptions`, and how it is made.

    Attributes
    ----------
    pack
        Prompt pack; else ``GOPT_GEO_PACK``, else the embedded demo pack.
    backbone_weights
        File with the weights of the pack's backbone; else see `gopt_geo.models.load_backbone`.
    allow_resolution
        Accept a pixel size more than 1.5 times away from the pack's.
    coregister
        Estimate how far SAR lies from where it belongs, and move it there as part of its one warp; an estimate that
        isn't reliable is an error. Without, a few points are looked at, and a shift of more than a pixel is a warning.
    aoi, aoi_crs
        Area of interest, see `gopt_geo.aoi.read_aoi`: the map is cut to the smallest window of the scene grid that
        holds it; outside the polygons it is nodata, inside it is what it would be without. CRS of a text, else
        longitude and latitude.
    tile_size, overlap
        In pixels; else the pack's.
    batch_size
        Tiles a forward pass; ``auto``: what keeps the device busy and fits (`gopt_geo.inference.batchsize`).
    blend
        Blending window.
    readers
        Reading threads; None: 1 on a CPU, which the model keeps busy, 4 on a GPU, and 2 at least where rasters are read
        from servers.
    augment
        ``none``, ``flip`` or ``dihedral``: average each tile with its mirror image, or over all eight turns and mirror
        images.
    scales
        Sizes of the tiles, as factors, that are averaged too.
    max_memory
        Ceiling such as ``2GB``.
    device
        ``auto``, ``cpu`` or ``cuda[:n]``.
    precision
        Of the model: ``fp32``, ``bf16``, ``fp16``, or ``auto`` (`gopt_geo.inference.execution.choose_precision`).
    compile
        Put the model through torch's compiler; on a GPU into a CUDA graph.
    threads
        Of the model on a CPU; else torch's own number.
    """

    pack: StrPath | None
    backbone_weights: StrPath | None
    allow_resolution: bool
    coregister: bool
    aoi: StrPath | None
    aoi_crs: str | None
    tile_size: int | None
    overlap: int | None
    batch_size: int | Literal["auto"]
    blend: BlendKind
    readers: int | None
    augment: Symmetry
    scales: Sequence[float]
    max_memory: str | None
    device: str
    precision: PrecisionName
    compile: bool
    threads: int | None


@dataclass(frozen=True)
class MapRequest:
    """What a map is made of and how; a value that can be pickled if its sources can.

    Attributes
    ----------
    inputs
        The sources, and what is said of them.
    area
        Area of interest, or None.
    shifts
        How SAR is moved, by modality in optical pixels, where that is settled; None where it is to be found out.

    The others are those of `MapOptions`.
    """

    inputs: SceneInputs
    pack: Path | None = None
    backbone_weights: Path | None = None
    allow_resolution: bool = False
    coregister: bool = False
    area: Aoi | None = None
    tile_size: int | None = None
    overlap: int | None = None
    batch_size: int | Literal["auto"] = "auto"
    blend: BlendKind = "hann"
    readers: int | None = None
    augment: Symmetry = "none"
    scales: tuple[float, ...] = (1.0,)
    max_memory: str | None = None
    device: str = "auto"
    precision: PrecisionName = "auto"
    compile: bool = False
    threads: int | None = None
    shifts: Mapping[str, tuple[float, float]] | None = None

    @classmethod
    def of(cls, optical: Source | None, sar: Source | None, said: MapOptions) -> MapRequest:
        """Take apart what is said of a map by keyword.

        Raises
        ------
        GoptGeoError
            If the area of interest or a STAC item can't be read, or an option doesn't serve.
        TypeError
            If there is no such option.
        """
        given: dict[str, Any] = dict(said)
        aoi, aoi_crs = given.pop("aoi", None), given.pop("aoi_crs", None)
        own = {field.name: given.pop(field.name) for field in fields(cls) if field.name in given}
        strange = sorted({*given, *own} - {*MapOptions.__annotations__, *SceneOptions.__annotations__})
        if strange:
            known = ", ".join({**SceneOptions.__annotations__, **MapOptions.__annotations__})
            raise TypeError(f"there is no option {strange[0]!r}; the options are {known}")
        for name in ("pack", "backbone_weights"):
            own[name] = optional_path(own.get(name))
        own["scales"] = _scales(own.get("scales", (1.0,)))
        _check_numbers(own.get("batch_size", "auto"), own.get("readers"))
        inputs = SceneInputs(optical, sar, cast("SceneOptions", given))
        if aoi is None and aoi_crs is not None:
            raise AoiError("--aoi-crs", "it needs --aoi", "name an area, or leave it out")
        return cls(inputs=inputs, area=read_aoi(aoi, aoi_crs) if aoi is not None else None, **own)

    def files(self) -> list[Path]:
        """Return all files that are read, for the check that no result replaces one."""
        given = (self.pack, self.backbone_weights, self.area.path if self.area is not None else None)
        return [*(path for path in given if path is not None), *self.inputs.files()]


def _check_numbers(size: object, readers: object) -> None:
    """Refuse what is neither a number nor left open; which numbers serve is the tiler's to say."""
    if size != "auto" and (not isinstance(size, int) or isinstance(size, bool)):
        raise GoptGeoError("--batch-size", f"{size!r} is no number of tiles", "give a whole number, or auto")
    if readers is not None and (not isinstance(readers, int) or isinstance(readers, bool)):
        raise GoptGeoError("--readers", f"{readers!r} is no number of threads", "give a whole number, or leave it out")


def _scales(scales: Sequence[float]) -> tuple[float, ...]:
    """Return sizes as numbers; which of them make sense is the model's to say."""
    wrong = GoptGeoError("--scales", f"{scales!r} isn't numbers", "give factors such as (0.75, 1, 1.25)")
    if isinstance(scales, str):
        raise wrong
    try:
        return tuple(float(scale) for scale in scales)
    except (TypeError, ValueError) as error:
        raise wrong from error
