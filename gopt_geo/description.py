"""What a file is, as gopt-geo sees it: rasters, prompt packs and pairs of rasters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any

import rasterio
import timm
import torch
from rasterio.errors import NotGeoreferencedWarning
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from gopt_geo.errors import GridError, PackError, SourceError
from gopt_geo.grid import GeoBox, pixel_size_m, same_crs, whole_pixel_offset
from gopt_geo.models import load_backbone
from gopt_geo.outputs.legend import read_legend
from gopt_geo.packs import Pack, is_pack, read_pack
from gopt_geo.paths import StrPath
from gopt_geo.scene import RasterSource
from gopt_geo.scene.arraysource import ArraySource
from gopt_geo.scene.bandfile import BandFile
from gopt_geo.scene.bandfiles import Source, band_files, is_array, read_item, source_name
from gopt_geo.scene.bandset import open_groups
from gopt_geo.scene.extent import place_scene
from gopt_geo.scene.geometry import PixelMap
from gopt_geo.scene.identity import identify
from gopt_geo.scene.remote import REMOTE, gdal_name, is_remote, shown
from gopt_geo.scene.source import PixelSource

__all__ = ["crs_name", "describe", "describe_pack", "describe_pair", "describe_raster"]

_PACK_ENDING = ".safetensors"


def describe(path: Source) -> dict[str, Any]:
    """Describe a raster or a pack as plain data (JSON types). A pack is known by its content, whatever its ending.

    Raises
    ------
    GoptGeoError
        If the file can't be read as either.
    """
    path = read_item(path)
    if band_files(path) is None and isinstance(path, str | PathLike) and not is_remote(path):
        if not Path(path).exists():
            raise SourceError(path, "no such file", "check the path")
        if _seems_pack(Path(path)):
            return describe_pack(read_pack(path))
    return describe_raster(path)


def _seems_pack(path: Path) -> bool:
    """Tell whether a file is a pack, or is called like one: then what is wrong with it is worth more words."""
    return path.is_file() and (path.suffix == _PACK_ENDING or is_pack(path))


def describe_raster(path: Source) -> dict[str, Any]:
    """Describe a raster: grid, bands, units, nodata, legend and the tags that gopt-geo wrote.

    Of a source in several files, the grid is that of its finest bands.
    """
    path = read_item(path)
    files = band_files(path)
    if files is not None:
        return _describe_files(path, files)
    with ExitStack() as stack:
        source = _open(path, stack)
        described: dict[str, Any] = {"kind": "raster", "file": source_name(path), **_grid(source.grid)}
        if source.control is not None:
            described["placed_by"] = f"{len(source.control.true)} ground control points"
        described["dtype"] = str(source.dtype)
        described["bands"] = [
            {
                "index": index,
                "name": name or None,
                "unit": tags.unit or None,
                "scale": tags.scale,
                "offset": tags.offset,
            }
            for index, name, tags in zip(source.indexes, source.band_names, source.tags, strict=True)
        ]
        if isinstance(path, str | PathLike):
            described |= _stored(path, source.indexes[0])
    return described


def _open(path: Source, stack: ExitStack) -> RasterSource | ArraySource:
    """Open a raster or an array, whatever is declared as nodata in it."""
    if is_array(path):
        return ArraySource(path, honour_nodata=False)
    assert isinstance(path, str | PathLike), "what lies in several files was told apart"
    return stack.enter_context(RasterSource(path, honour_nodata=False))


def _describe_files(path: Source, files: Sequence[BandFile]) -> dict[str, Any]:
    """Describe a source that lies in several files of one band each."""
    with ExitStack() as stack:
        groups, order = open_groups(files, source_name(path))
        for group in groups:
            stack.callback(group.close)
        of_band = [(group, i) for group in groups for i in range(group.count)]
        bands = []
        for number, (file, place) in enumerate(zip(files, order, strict=True), start=1):
            group, i = of_band[place]
            tags = group.tags[i]
            bands.append(
                {
                    "index": number,
                    "name": group.band_names[i] or None,
                    "file": shown(file.path),
                    "dtype": str(group.dtype),
                    "unit": tags.unit or None,
                    "scale": tags.scale,
                    "offset": tags.offset,
                    "nodata": file.nodata,
                    "pixel_size_m": _grid(group.grid)["pixel_size_m"],
                }
            )
        return {"kind": "bands in several files", "file": source_name(path), **_grid(groups[0].grid), "bands": bands}


def _finest(path: Source, stack: ExitStack) -> PixelSource:
    """Open a raster, or the finest bands of a source in several files."""
    files = band_files(path)
    if files is None:
        return _open(path, stack)
    groups, _ = open_groups(files, source_name(path))
    for group in groups:
        stack.callback(group.close)
    return groups[0]


def _stored(path: StrPath, first: int) -> dict[str, Any]:
    """Read what the file says besides its pixels: nodata, storage, legend, and gopt-geo's tags."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # the missing CRS is among what is told
        with rasterio.Env(**(REMOTE if is_remote(path) else {})):
            opened = rasterio.open(gdal_name(path))
    with opened as dataset:
        nodata = dataset.nodata
        described: dict[str, Any] = {
            # NaN is no JSON number.
            "nodata": nodata if nodata is None or math.isfinite(nodata) else str(nodata),
            "driver": dataset.driver,
            "layout": dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT"),
            "compression": dataset.compression.value if dataset.compression is not None else None,
            "overviews": dataset.overviews(first),
            "tags": {key: value for key, value in sorted(dataset.tags().items()) if key.startswith("GOPT_GEO")},
        }
    legend = read_legend(path) if not is_remote(path) else None
    if legend:
        described["classes"] = [{"value": e.value, "name": e.name, "color": e.color} for e in legend]
    return described


def _grid(grid: GeoBox) -> dict[str, Any]:
    """Grid as plain data."""
    box = grid.boundingbox
    return {
        "height": grid.shape[0],
        "width": grid.shape[1],
        "crs": crs_name(grid),
        "affine": [float(v) for v in grid.affine[:6]],
        "bounds": [box.left, box.bottom, box.right, box.top],
        "pixel_size_m": round(pixel_size_m(grid), 6) if grid.crs is not None else None,
    }


def crs_name(grid: GeoBox) -> str | None:
    """Code of the grid's CRS, or its WKT where it has none."""
    if grid.crs is None:
        return None
    return f"EPSG:{grid.crs.epsg}" if grid.crs.epsg is not None else str(grid.crs)


def describe_pair(optical: Source, sar: Source) -> dict[str, Any]:
    """Describe an optical and a SAR raster, and how they lie to each other, as `gopt_geo.predict` would take them.

    Raises
    ------
    GoptGeoError
        If one of them can't be read as a raster. Rasters that don't go together are described all the same.
    """
    optical, sar = read_item(optical), read_item(sar)
    local = [Path(path) for path in (optical, sar) if isinstance(path, str | PathLike) and not is_remote(path)]
    for path in local:
        if _seems_pack(path):
            raise SourceError(path, "a pack, not a raster", "give OPTICAL and SAR; a pack is named with --pack")
    described = {"optical": describe_raster(optical), "sar": describe_raster(sar)}
    with ExitStack() as stack:
        pair = _finest(optical, stack), _finest(sar, stack)
        together, stated = _together(*pair), _stated(optical, sar, pair)
    if len(local) == 2 and all(path.is_file() for path in local) and local[0].samefile(local[1]):
        said = f"{optical} is given twice, as the optical and as the SAR raster"
        together["notice"] = f"{said}; {together['notice']}" if together["notice"] else said
    return {"kind": "scene pair", **described, **stated, "together": together}


def _stated(optical: Source, sar: Source, pair: tuple[PixelSource, PixelSource]) -> dict[str, Any]:
    """Tell sensors and dates, as far as the sources state them."""
    told = {}
    for modality, path, source in zip(("optical", "sar"), (optical, sar), pair, strict=True):
        files = band_files(path)
        names = [source_name(path)] if files is None else [file.path for file in files]
        told[modality] = identify(modality, path, None, [source], names)
    dates = {modality: known.acquired for modality, known in told.items()}
    first, second = dates["optical"], dates["sar"]
    return {
        "sensors": {modality: known.profile.name if known.profile else None for modality, known in told.items()},
        "acquired": {
            **{modality: str(date) if date is not None else None for modality, date in dates.items()},
            "days_apart": first.apart(second).days if first is not None and second is not None else None,
        },
    }


def _together(optical: PixelSource, sar: PixelSource) -> dict[str, Any]:
    """Tell whether SAR has to be warped onto the optical grid, and which share of that it covers."""
    crs = optical.grid.crs, sar.grid.crs
    ratio = pixel_size_m(sar.grid) / pixel_size_m(optical.grid)
    told: dict[str, Any] = {
        "same_crs": same_crs(*crs) if None not in crs else None,
        "sar_pixels_to_optical": round(ratio, 6) if math.isfinite(ratio) else None,
        "overlap_share": None,
        "warp": None,
        "alignment": None,
        "notice": None,
        "problem": None,
    }
    for source in (optical, sar):
        if source.not_placed is not None:
            return {**told, "problem": str(source.not_placed)}
    if crs == (None, None):
        equal = optical.grid.shape == sar.grid.shape
        told["problem"] = "neither raster has a CRS; set it with gdal_edit -a_srs" + (
            ", or lay pixel on pixel: gopt-geo predict --pixel-grid" if equal else ""
        )
        return told
    try:
        told["notice"] = PixelMap(optical.grid, sar.grid, sar.name, sar.control).notice
        grids = {"optical": (optical.name, optical.grid), "sar": (sar.name, sar.grid)}
        told["overlap_share"] = round(place_scene(grids, optical.grid, "optical")[1], 6)
    except GridError as error:
        told["problem"] = str(error)
        return told
    placed = optical.control is None and sar.control is None
    offset = whole_pixel_offset(optical.grid, sar.grid) if placed else None
    return {**told, "warp": offset is None, "alignment": _alignment(offset)}


def _alignment(offset: tuple[int, int] | None) -> str:
    """In words, where the optical grid's first pixel lies in the SAR raster."""
    if offset is None:
        return "one warp brings SAR onto the optical grid"
    if offset == (0, 0):
        return "pixel on pixel, no warp"
    return f"whole pixels apart, no warp: optical row 0, column 0 is SAR row {offset[0]}, column {offset[1]}"


def describe_pack(pack: Pack) -> dict[str, Any]:
    """Describe a pack: legend, modalities, backbone, and which share of the parameters was trained.

    The backbone's weights aren't needed; its parameters are counted, and the pack is held against it, where its
    architecture is known.

    Raises
    ------
    PackError
        If the pack contradicts its backbone's architecture.
    """
    meta = pack.meta
    trained = sum(tensor.numel() for tensor in pack.state.values())
    model = _without_weights(meta.backbone.id)
    frozen = sum(p.numel() for p in model.parameters()) if model is not None else None
    if isinstance(model, VisionTransformer | Eva):
        embedding = model.patch_embed
        found = meta.misfit(len(model.blocks), int(embedding.patch_size[0]), int(embedding.proj.in_channels))
        if found is not None:
            raise PackError(pack.path or meta.title, found, "get the pack again, or train it anew")
    document = meta.model_dump(mode="json")
    return {
        "kind": "prompt pack",
        "file": str(pack.path),
        "sha256": pack.sha256,
        "bytes": pack.path.stat().st_size if pack.path is not None else None,
        "trained_parameters": trained,
        "frozen_parameters": frozen,
        "trained_share": round(trained / (trained + frozen), 6) if frozen is not None else None,
        **{key: value for key, value in document.items() if key != "tensors_sha256"},
    }


def _without_weights(identity: str) -> nn.Module | None:
    """Build a backbone's model; None where that can't be done without its weights.

    timm's and torchgeo's are built without memory and weights, which may be gigabytes and not at hand.
    """
    library, _, name = identity.partition(":")
    try:
        if library not in ("timm", "torchgeo"):
            return load_backbone(identity).vit
        channels = {}
        if library == "torchgeo":
            from torchgeo.models import get_weight

            known = get_weight(name).meta
            name, channels = known["model"], {"in_chans": known["in_chans"]}
        with torch.device("meta"):
            model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **channels)
    except (PackError, RuntimeError, ValueError, TypeError, KeyError, NotImplementedError):
        return None
    return model
