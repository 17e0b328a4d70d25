"""``gopt-geo info``: what a file or a pair of rasters is, as gopt-geo sees it, and a model's groups on the pair."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from gopt_geo_cli.options import (
    BackboneWeightsOption,
    CloudMaskKindOption,
    CloudMaskOption,
    OpticalBandsOption,
    OpticalUnitsOption,
    PackOption,
    PixelGridOption,
    SarBandsOption,
    SarSensorOption,
    SarUnitsOption,
    SensorOption,
)
from gopt_geo_cli.say import say_notices

__all__ = ["info"]

_ABREAST = 10  # groups side by side in a table


def _lines(value: Any, indent: str = "") -> list[str]:
    """Nested plain data as indented ``key: value`` lines."""
    lines: list[str] = []
    items = value.items() if isinstance(value, dict) else ((f"- {i}", v) for i, v in enumerate(value, 1))
    for key, item in items:
        nested = isinstance(item, dict) or (isinstance(item, list) and any(isinstance(i, dict | list) for i in item))
        if nested and item:
            lines += [f"{indent}{key}:", *_lines(item, indent + "  ")]
        elif item in (None, {}, []):
            lines.append(f"{indent}{key}: -")
        elif isinstance(item, list):
            lines.append(f"{indent}{key}: {', '.join(str(i) for i in item)}")
        else:
            lines.append(f"{indent}{key}: {item}")
    return lines


def _group_lines(usage: dict[str, Any]) -> list[str]:
    """How groups are used, layer by layer, as tables."""
    aside = ("layers", "notices")
    lines = ["groups:", *_lines({key: value for key, value in usage.items() if key not in aside}, "  ")]
    for layer in usage["layers"]:
        groups, dead = layer["groups"], ", ".join(map(str, layer["dead"])) or "none"
        lines += [
            "",
            f"layer {layer['layer']}, {layer['modality']}: {layer['tokens']} tokens, {layer['used']} of {len(groups)}"
            f" groups used, entropy {layer['entropy']:.3f}, dead: {dead}",
        ]
        rows = [("share, %", "share", 100, 1), ("entropy", "entropy", 1, 3)]
        if usage["assignment"] == "soft":
            rows.append(("token entropy", "token_entropy", 1, 3))
        for first in range(0, len(groups), _ABREAST):
            some = groups[first : first + _ABREAST]
            lines.append(f"  {'group':<14}" + "".join(f"{group['group']:>7}" for group in some))
            for title, key, factor, digits in rows:
                cells = "".join(f"{factor * group[key]:>7.{digits}f}" for group in some)
                lines.append(f"  {title:<14}{cells}")
    return lines


def _numbers(text: str | None, option: str, form: str, count: int | None = None) -> tuple[int, ...] | None:
    """Read whole numbers with commas in between."""
    if text is None:
        return None
    numbers = tuple(int(part) for part in text.split(",")) if re.fullmatch(r"\s*-?\d+(\s*,\s*-?\d+)*\s*", text) else ()
    if not numbers or count not in (None, len(numbers)):
        raise typer.BadParameter(f"{text!r} is not {form}", param_hint=f"'{option}'")
    return numbers


def _sensors(wanted: bool) -> None:
    if wanted:
        from gopt_geo.sensortable import sensor_table

        typer.echo(sensor_table())
        raise typer.Exit


def info(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A raster or a prompt pack; with SAR, the optical one.")],
    sar: Annotated[
        str | None, typer.Argument(metavar="SAR", help="SAR raster: describe both, and how they lie.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="Also draw the groups that the pack's model makes of the pair to this .png, and tell their use."
        ),
    ] = None,
    pack: PackOption = None,
    backbone_weights: BackboneWeightsOption = None,
    optical_bands: OpticalBandsOption = None,
    sar_bands: SarBandsOption = None,
    optical_units: OpticalUnitsOption = None,
    sar_units: SarUnitsOption = None,
    sensor: SensorOption = None,
    sar_sensor: SarSensorOption = None,
    cloud_mask: CloudMaskOption = None,
    cloud_mask_kind: CloudMaskKindOption = None,
    pixel_grid: PixelGridOption = False,
    window: Annotated[
        str | None,
        typer.Option(metavar="COL,ROW,WIDTH,HEIGHT", help="Pixels to look at; else 4 x 4 tiles in the middle."),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Layers to look at; else all that are prompted.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a picture that exists.")] = False,
    sensors: Annotated[
        bool, typer.Option("--sensors", callback=_sensors, is_eager=True, help="List the sensor profiles, and end.")
    ] = False,
) -> None:
    """Say what FILE is: grid, bands, units and nodata of a raster; classes, bands and backbone of a pack.

    With SAR: what both rasters are, which share they have in common, and whether SAR needs a warp. With --groups too:
    how the model of a pack groups their tokens, in a picture and in numbers. The options below --groups belong to it.
    """
    from gopt_geo import api

    del sensors  # its callback has ended the run
    options: dict[str, Any] = {
        "groups": groups,
        "pack": pack,
        "backbone_weights": backbone_weights,
        "optical_bands": optical_bands,
        "sar_bands": sar_bands,
        "optical_units": optical_units.value if optical_units else None,
        "sar_units": sar_units.value if sar_units else None,
        "sensor": sensor,
        "sar_sensor": sar_sensor,
        "cloud_mask": cloud_mask,
        "cloud_mask_kind": cloud_mask_kind.value if cloud_mask_kind else None,
        "pixel_grid": pixel_grid or None,
        "window": _numbers(window, "--window", "COL,ROW,WIDTH,HEIGHT, such as 0,0,512,512", 4),
        "layers": _numbers(layers, "--layers", "a list of layers, such as 1,5,11"),
        "overwrite": overwrite or None,
    }
    pair = (file,) if sar is None else (file, sar)
    found = api.info(*pair, **{name: value for name, value in options.items() if value is not None})
    usage = found.get("groups") if groups is not None else None
    if usage is not None:
        say_notices(usage["notices"])
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    lines = _lines({key: value for key, value in found.items() if usage is None or key != "groups"})
    typer.echo("\n".join(lines + (_group_lines(usage) if usage is not None else [])))
