"""Options of commands that make maps: grid, tiles, averaging, device; and how they become predict's keywords."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer

from gopt_geo_cli.options import parse_batch_size, parse_scales

__all__ = [
    "AllowResolutionOption",
    "Augment",
    "AugmentOption",
    "BatchSizeOption",
    "Blend",
    "BlendOption",
    "CompileOption",
    "CoregisterOption",
    "CrsOption",
    "DeviceOption",
    "Extent",
    "ExtentOption",
    "GridOption",
    "MaxCloudOption",
    "MaxMemoryOption",
    "OverlapOption",
    "ProbabilitiesType",
    "ProbabilitiesTypeOption",
    "ReadersOption",
    "ResolutionOption",
    "ScalesOption",
    "TileSizeOption",
    "TimeOption",
    "as_keywords",
]


class Extent(Enum):
    """The part of the grid that is mapped."""

    optical = "optical"
    intersection = "intersection"
    union = "union"
    grid = "grid"


class Blend(Enum):
    """The weight of a pixel inside its tile."""

    hann = "hann"
    linear = "linear"
    gaussian = "gaussian"
    none = "none"


class Augment(Enum):
    """What a tile is averaged over."""

    none = "none"
    flip = "flip"
    dihedral = "dihedral"


class ProbabilitiesType(Enum):
    """How probabilities are stored."""

    float32 = "float32"
    uint16 = "uint16"
    uint8 = "uint8"


GridOption = Annotated[str, typer.Option(help="Grid of the result: optical, sar, or a raster whose grid to take.")]
ExtentOption = Annotated[Extent, typer.Option(help="Extent of the result; grid: all of the raster that --grid names.")]
ResolutionOption = Annotated[float | None, typer.Option(help="Pixel size of the result, in units of the grid's CRS.")]
CrsOption = Annotated[
    str | None,
    typer.Option(
        help="CRS of the result, such as EPSG:32632; with --resolution, at whole multiples of which pixels begin."
    ),
]
AllowResolutionOption = Annotated[
    bool,
    typer.Option("--allow-resolution", help="Accept a pixel size more than 1.5x away from the pack's."),
]
CoregisterOption = Annotated[
    bool,
    typer.Option("--coregister", help="Correct the shift between OPTICAL and SAR, as gopt-geo coregister tells it."),
]
ProbabilitiesTypeOption = Annotated[
    ProbabilitiesType,
    typer.Option(help="Of --probabilities: as they are, in ten-thousandths (uint16), or in percent (uint8)."),
]
TileSizeOption = Annotated[int | None, typer.Option(help="Tile side in pixels; else the pack's.")]
OverlapOption = Annotated[int | None, typer.Option(help="Overlap of neighbouring tiles in pixels; else the pack's.")]
BatchSizeOption = Annotated[
    str,
    typer.Option(metavar="N|auto", help="Tiles a forward pass; auto: what keeps the device busy and fits."),
]
BlendOption = Annotated[Blend, typer.Option(help="Blending window where tiles overlap.")]
AugmentOption = Annotated[
    Augment,
    typer.Option(help="Average each tile with its mirror image (flip), or over all 8 turns and mirror images."),
]
ScalesOption = Annotated[
    str, typer.Option(metavar="S,S,...", help="Sizes of tiles that are averaged, such as 0.75,1,1.25.")
]
ReadersOption = Annotated[
    int | None, typer.Option(help="Reading threads; else 1 on a CPU, 4 on a GPU, and 2 at least for URLs.")
]
MaxMemoryOption = Annotated[
    str | None,
    typer.Option(help="Ceiling on memory, such as 2GB: wide scenes then run in column strips."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
CompileOption = Annotated[
    bool,
    typer.Option("--compile", help="Put the model through torch's compiler first: pays on a GPU and large scenes."),
]
TimeOption = Annotated[
    str | None, typer.Option(help="With --catalog, when: 2024-06-01/2024-06-30, a day, a month or a year.")
]
MaxCloudOption = Annotated[float | None, typer.Option(help="With --catalog, most cloud cover in percent; else 20.")]


def as_keywords(*, batch_size: str, scales: str, precision: Enum | None, **given: Any) -> dict[str, Any]:
    """Return options of a map as predict takes them: choices as their words, numbers read from text.

    Raises
    ------
    typer.BadParameter
        If a batch size or sizes of tiles can't be read.
    """
    plain = {name: value.value if isinstance(value, Enum) else value for name, value in given.items()}
    return plain | {
        "batch_size": parse_batch_size(batch_size),
        "scales": parse_scales(scales),
        "precision": precision.value if precision is not None else "auto",
    }
