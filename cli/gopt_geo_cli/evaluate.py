"""``gopt-geo evaluate``: a map against reference labels or a sample, or a pack on labelled ground."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from gopt_geo_cli.options import BackboneWeightsOption, PrecisionOption, ThreadsOption, parse_scales
from gopt_geo_cli.progress import progress_display
from gopt_geo_cli.sampletables import sample_lines
from gopt_geo_cli.say import say_notices, say_written
from gopt_geo_cli.scoretables import score_lines

__all__ = ["evaluate"]


class Split(Enum):
    """A part of labelled ground."""

    train = "train"
    val = "val"
    test = "test"


def evaluate(
    prediction: Annotated[
        Path | None, typer.Argument(metavar="PREDICTION", help="Land-cover raster; or --pack and --config instead.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Of PREDICTION: label raster, or a vector file with --class-field; any grid.")
    ] = None,
    class_field: Annotated[
        str | None, typer.Option(help="Field of a vector file that holds the class, by value or name.")
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(help="Of PREDICTION: units drawn by gopt-geo sample, with references filled in; estimates areas."),
    ] = None,
    reference_field: Annotated[
        str | None, typer.Option(help="Of --sample: field with the reference class; else reference.")
    ] = None,
    level: Annotated[float | None, typer.Option(help="Of --sample: level of the intervals; else 0.95.")] = None,
    skip_unfilled: Annotated[
        bool, typer.Option("--skip-unfilled", help="Of --sample: leave out units that lack a reference by chance.")
    ] = False,
    other_strata: Annotated[
        bool, typer.Option("--other-strata", help="Of --sample: it was drawn from another map than PREDICTION.")
    ] = False,
    aoi: Annotated[
        str | None, typer.Option(help="Compare there alone: a vector file, WKT, or minx,miny,maxx,maxy.")
    ] = None,
    aoi_crs: Annotated[
        str | None, typer.Option(help="CRS of an area given as text; else longitude and latitude (EPSG:4326).")
    ] = None,
    ignore: Annotated[
        list[int] | None,
        typer.Option(help="Value of the reference that means: not labelled; if a class, it isn't scored. Repeatable."),
    ] = None,
    confidence: Annotated[
        Path | None, typer.Option(help="Confidence raster of PREDICTION, in percent: adds its calibration.")
    ] = None,
    pack: Annotated[Path | None, typer.Option(help="Instead of PREDICTION: evaluate this prompt pack.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Of --pack: configuration that names data set or scene, and split.")
    ] = None,
    split: Annotated[Split | None, typer.Option(help="Of --config: which part; else test.")] = None,
    root: Annotated[Path | None, typer.Option(help="Of --config: the data set's folder, instead of its own.")] = None,
    multi_scale: Annotated[
        bool,
        typer.Option("--multi-scale", help="Of --pack: also the figures averaged over sizes 0.5 to 1.75, mirrored."),
    ] = False,
    scales: Annotated[
        str | None, typer.Option(metavar="S,S,...", help="Of --pack: also the figures averaged over these sizes.")
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Of --pack: average mirrored tiles, too.")] = False,
    backbone_weights: BackboneWeightsOption = None,
    tile_size: Annotated[
        int | None, typer.Option(help="Of --pack: tile side in pixels; else the configuration's, else the pack's.")
    ] = None,
    overlap: Annotated[int | None, typer.Option(help="Of --pack: overlap of tiles in pixels; likewise.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Of --pack: tiles a forward pass.")] = None,
    device: Annotated[str | None, typer.Option(help="Of --pack: auto, cpu or cuda[:n]; else auto.")] = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    boundary: Annotated[
        int | None, typer.Option(min=0, help="Pixels within which borders agree; else 3, or the configuration's.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all figures to this .json.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also draw confusion matrix, classes and reliability diagram into this folder."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Compare PREDICTION with reference labels, estimate areas from a sample of it, or evaluate a pack on labels.

    Confusion matrix; IoU, F1, user's and producer's accuracy and boundary F1 of each class; mIoU, OA, kappa and
    calibration.

    Such as: gopt-geo evaluate landcover.tif --reference labels.gpkg --class-field class --json scores.json

    Or: gopt-geo evaluate landcover.tif --sample sample.gpkg --json areas.json

    Or: gopt-geo evaluate --pack runs/x/pack.gopt.safetensors --config configs/ombria.yaml --split test --multi-scale
    """
    of_map = {
        "reference": reference,
        "class_field": class_field,
        "aoi": aoi,
        "aoi_crs": aoi_crs,
        "ignore": tuple(ignore or ()),
        "confidence": confidence,
        "boundary": boundary,
    }
    of_pack = {
        "config": config,
        "split": split.value if split is not None else None,
        "root": root,
        "multi_scale": multi_scale,
        "scales": parse_scales(scales) if scales is not None else None,
        "flip": flip,
        "backbone_weights": backbone_weights,
        "tile_size": tile_size,
        "overlap": overlap,
        "batch_size": batch_size,
        "device": device,
        "precision": precision.value if precision is not None else None,
        "threads": threads,
        "boundary": boundary,
    }
    of_sample = {
        "sample": sample,
        "reference_field": reference_field,
        "level": level,
        "skip_unfilled": skip_unfilled,
        "other_strata": other_strata,
        "aoi": aoi,
        "aoi_crs": aoi_crs,
    }
    of: dict[str, dict[str, Any]] = {"map": of_map, "sample": of_sample, "pack": of_pack}
    kind = _check_kind(prediction, pack, of)
    given = _said(of[kind])
    from gopt_geo.outputs.area_picture import draw_areas
    from gopt_geo.outputs.evaluationfiles import EvaluationFiles

    inputs = [path for path in (prediction, reference, sample, confidence, pack, config) if path is not None]
    pictures: dict[str, Any] = {"pictures": {"areas.png": draw_areas}} if kind == "sample" else {}
    with EvaluationFiles(json_file, figures, overwrite=overwrite, inputs=inputs, **pictures) as files:
        assessment = _assess(kind, prediction if pack is None else pack, given)
        found = assessment.to_dict()
        written = files.write(found)
    for line in sample_lines(found) if kind == "sample" else score_lines(found):
        typer.echo(line)
    say_notices(assessment.notices)
    say_written(written)


def _assess(kind: str, subject: Any, given: dict[str, Any]) -> Any:
    from gopt_geo import api

    if kind == "map":
        return api.evaluate(subject, given.pop("reference"), **given)
    if kind == "sample":
        return api.evaluate_sample(subject, given.pop("sample"), **given)
    with progress_display("evaluate") as show:
        return api.evaluate_pack(subject, given.pop("config"), **given, progress=show)


def _said(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None and value is not False and value != ()}


_KINDS = {"map": ("PREDICTION", "reference"), "sample": ("--sample", "sample"), "pack": ("--pack", "config")}


def _check_kind(prediction: Path | None, pack: Path | None, of: dict[str, dict[str, Any]]) -> str:
    """Tell what is evaluated: "map", "sample" or "pack"; refuse options of one kind with another."""
    from gopt_geo.errors import GoptGeoError

    if (prediction is None) == (pack is None):
        found = "there is nothing to evaluate" if pack is None else "a map and a pack are given"
        remedy = "give PREDICTION and --reference, or --sample; or --pack and --config"
        raise GoptGeoError("evaluate", found, remedy)
    kind = "pack" if pack is not None else "sample" if of["sample"]["sample"] is not None else "map"
    subject, needed = _KINDS[kind]
    for other, options in of.items():
        for name in _said(options):
            if name not in of[kind]:
                alone = kind == "map" and other == "sample"
                found = "it serves --sample alone" if alone else f"it doesn't serve {subject}"
                raise GoptGeoError(f"--{name.replace('_', '-')}", found, "leave it out")
    if of[kind][needed] is None:
        other = ", or --sample" if kind == "map" else ""
        raise GoptGeoError(subject, f"--{needed} is missing", f"add --{needed}{other}")
    return kind
