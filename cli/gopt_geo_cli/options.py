"""Options that several commands share: what is said of a scene's sources, and of the pack."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "BackboneWeightsOption",
    "CloudMaskKind",
    "CloudMaskKindOption",
    "CloudMaskOption",
    "OpticalBandsOption",
    "OpticalUnits",
    "OpticalUnitsOption",
    "PackOption",
    "PixelGridOption",
    "Precision",
    "PrecisionOption",
    "SarBandsOption",
    "SarSensorOption",
    "SarUnits",
    "SarUnitsOption",
    "SensorOption",
    "ThreadsOption",
    "parse_batch_size",
    "parse_scales",
]


class OpticalUnits(Enum):
    """What optical pixel values mean."""

    reflectance = "reflectance"
    dn10000 = "dn10000"
    byte = "byte"
    raw = "raw"


class SarUnits(Enum):
    """What SAR pixel values mean."""

    db = "db"
    power = "power"
    amplitude = "amplitude"
    raw = "raw"


class Precision(Enum):
    """Precision of the forward pass."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class CloudMaskKind(Enum):
    """What the values of a cloud mask mean."""

    scl = "scl"
    qa_pixel = "qa-pixel"
    mask = "mask"


PackOption = Annotated[
    Path | None, typer.Option(help="Prompt pack; else the variable GOPT_GEO_PACK, else the embedded demo pack.")
]
BackboneWeightsOption = Annotated[
    Path | None,
    typer.Option(
        help="File with the weights of the pack's backbone; else found by name in the folder GOPT_GEO_BACKBONES, or"
        " downloaded."
    ),
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        help="Precision of the model; else auto: bf16 on a GPU (fp16 on an old one) and on CPUs that gain from it, else"
        " fp32."
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option(help="Threads of the model on a CPU; else OMP_NUM_THREADS, else the cores.")
]
OpticalBandsOption = Annotated[
    str | None,
    typer.Option(help="Optical bands in the pack's order, by number or name: 4,3,2 or B04,B03,B02."),
]
SarBandsOption = Annotated[str | None, typer.Option(help="SAR bands in the pack's order: 1,2 or VV,VH.")]
OpticalUnitsOption = Annotated[
    OpticalUnits | None,
    typer.Option(help="Optical values: reflectance, dn10000 (value/10000), byte (value/255), raw (as they are)."),
]
SarUnitsOption = Annotated[SarUnits | None, typer.Option(help="SAR values; integers need this stated.")]
SensorOption = Annotated[
    str | None,
    typer.Option(
        help="Optical sensor, such as sentinel-2-l2a or landsat-8-9-l2: tells units and bands; docs/sensors.md."
    ),
]
SarSensorOption = Annotated[
    str | None, typer.Option(help="SAR sensor, such as sentinel-1-rtc: tells units and bands; docs/sensors.md.")
]
CloudMaskOption = Annotated[
    str | None,
    typer.Option(
        metavar="SCL|QA_PIXEL|FILE",
        help="Where optical pixels are missing: that band of the optical source, or a raster on any grid.",
    ),
]
CloudMaskKindOption = Annotated[
    CloudMaskKind | None,
    typer.Option(
        help="Values of the mask: scl (scene classification of Sentinel-2), qa-pixel (bits of Landsat), mask (missing"
        " where it isn't 0); else told by its name."
    ),
]
PixelGridOption = Annotated[
    bool, typer.Option("--pixel-grid", help="Accept rasters without a CRS if their shapes are equal.")
]


def parse_batch_size(text: str) -> int | Literal["auto"]:
    """Read a number of tiles, or "auto"."""
    if text == "auto":
        return "auto"
    if not re.fullmatch(r"\s*-?\d{1,6}\s*", text, re.ASCII):
        raise typer.BadParameter(f"{text!r} is neither a whole number nor auto", param_hint="'--batch-size'")
    return int(text)


def parse_scales(text: str) -> tuple[float, ...]:
    """Read the sizes of ``--scales``.

    Raises
    ------
    typer.BadParameter
        If the text is no list of numbers.
    """
    if not re.fullmatch(r"\s*\d*\.?\d+(\s*,\s*\d*\.?\d+)*\s*", text):
        raise typer.BadParameter(f"{text!r} is no list of sizes, such as 0.75,1,1.25", param_hint="'--scales'")
    return tuple(float(part) for part in text.split(","))
