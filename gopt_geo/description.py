"""What a file is, as gopt-geo sees it: rasters, prompt packs and pairs of rasters."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from gopt_geo.errors import SourceError
from gopt_geo.grid import GeoBox, pixel_size_m
from gopt_geo.models import GoPT, load_backbone
from gopt_geo.outputs.legend import read_legend
from gopt_geo.packs import Pack, load_model, read_pack
from gopt_geo.scene import RasterSource

__all__ = ["describe", "describe_pack", "describe_raster"]


def describe(path: Path) -> dict[str, Any]:
    """Describe a raster or a pack as plain data (JSON types).

    Raises
    ------
    GoptGeoError
        If the file can't be read as either.
    """
    if not path.exists():
        raise SourceError(path, "no such file", "check the path")
    if path.suffix == ".safetensors":
        return describe_pack(read_pack(path))
    return describe_raster(path)


def describe_raster(path: Path) -> dict[str, Any]:
    """Describe a raster: grid, bands, units, nodata, legend and the tags that gopt-geo wrote."""
    with RasterSource(path, honour_nodata=False) as source:
        described: dict[str, Any] = {"kind": "raster", "file": str(path), **_grid(source.grid)}
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
        described |= _stored(path, source.indexes[0])
    return described


def _stored(path: Path, first: int) -> dict[str, Any]:
    """Read what the file says besides its pixels: nodata, storage, legend, and gopt-geo's tags."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # the missing CRS is among what is told
        opened = rasterio.open(path)
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
    legend = read_legend(path)
    if legend:
        described["classes"] = [{"value": e.value, "name": e.name, "color": e.color} for e in legend]
    return described


def _grid(grid: GeoBox) -> dict[str, Any]:
    """Grid as plain data."""
    box = grid.boundingbox
    return {
        "height": grid.shape[0],
        "width": grid.shape[1],
        "crs": _crs_name(grid),
        "affine": [float(v) for v in grid.affine[:6]],
        "bounds": [box.left, box.bottom, box.right, box.top],
        "pixel_size_m": round(pixel_size_m(grid), 6) if grid.crs is not None else None,
    }


def _crs_name(grid: GeoBox) -> str | None:
    """Code of the grid's CRS, or its WKT where it has none."""
    if grid.crs is None:
        return None
    return f"EPSG:{grid.crs.epsg}" if grid.crs.epsg is not None else str(grid.crs)


def describe_pack(pack: Pack) -> dict[str, Any]:
    """Describe a pack: legend, modalities, backbone, and which share of the parameters was trained."""
    meta = pack.meta
    backbone = load_backbone(meta.backbone.id)
    model: GoPT = load_model(pack, backbone)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in backbone.parameters())
    document = meta.model_dump(mode="json")
    return {
        "kind": "prompt pack",
        "file": str(pack.path),
        "sha256": pack.sha256,
        "bytes": pack.path.stat().st_size if pack.path is not None else None,
        "trained_parameters": trained,
        "frozen_parameters": frozen,
        "trained_share": round(trained / (trained + frozen), 6),
        **{key: value for key, value in document.items() if key != "tensors_sha256"},
    }
