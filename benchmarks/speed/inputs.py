"""What the sections run on: packs with random weights, simulated pairs in two CRSs, and a real one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import timm
import torch
from rasterio.warp import Resampling, calculate_default_transform, reproject, transform
from safetensors.torch import save_file

from gopt_geo.models import Backbone, GoPT, GoptConfig
from gopt_geo.packs import BackboneRef, ClassInfo, ModalityInfo, PackMeta, write_pack
from gopt_geo.simulate import CLASS_COLORS, CLASS_NAMES, CLASS_VALUES, SceneSpec, write_scene

__all__ = ["DATA", "ModelFiles", "Pair", "make_model_files", "real_pair", "simulate_pair"]

DATA = Path(os.environ.get("GOPT_GEO_DATA") or Path(__file__).parents[3] / "shared/data")
MODELS = {"vit-s": "vit_small_patch16_224", "vit-b": "vit_base_patch16_224", "vit-t": "vit_tiny_patch16_224"}
FOUR_BANDS = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.5, 0.5))
SPREAD = 3.0  # standard deviation of the logits: an untrained head would be as good as indifferent


@dataclass(frozen=True)
class ModelFiles:
    """A pack and the weights of its backbone, in files."""

    pack: Path
    weights: Path


@dataclass(frozen=True)
class Pair:
    """An optical raster and a SAR raster in another CRS, and what has to be said of them."""

    optical: Path
    sar: Path
    said: dict[str, str]


def make_model_files(folder: Path, name: str, tile_size: int, overlap: int) -> ModelFiles:
    """Write GoPT on a timm transformer with random weights: four optical bands and one of SAR, seven classes.

    What it costs depends on shapes alone. Prompts and logits are scaled up so that precision shows in the map.
    """
    torch.manual_seed(0)
    identity = f"timm:{MODELS[name]}"
    vit = timm.create_model(MODELS[name], num_classes=0, dynamic_img_size=True)
    weights = folder / f"{name}.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in vit.state_dict().items()}, weights)
    backbone = Backbone(vit, identity)
    model = GoPT(backbone, GoptConfig.for_width(backbone.embed_dim, classes=len(CLASS_NAMES))).eval()
    with torch.no_grad():
        for prompter in model.prompters.values():
            prompter.scale.fill_(1.0)
        images = {n: torch.randn(1, 3, 128, 128) for n in ("optical", "sar")}
        model.head.classify.weight.mul_(SPREAD / model(images).std())  # type: ignore[union-attr, operator]
    meta = PackMeta(
        title=f"random {name}",
        backbone=BackboneRef(id=identity, sha256=backbone.digest()),
        config=model.config,
        classes=tuple(
            ClassInfo(value=v, name=n, color=c) for v, n, c in zip(CLASS_VALUES, CLASS_NAMES, CLASS_COLORS, strict=True)
        ),
        modalities={
            "optical": ModalityInfo(
                bands=("red", "green", "blue", "nir"),
                units="reflectance",
                channels=FOUR_BANDS,
                mean=(0.1, 0.1, 0.15),
                std=(0.05, 0.05, 0.08),
            ),
            "sar": ModalityInfo(bands=("VV",), units="db", channels=((1.0,),) * 3, mean=(-12.0,) * 3, std=(4.0,) * 3),
        },
        resolution_m=10.0,
        tile_size=tile_size,
        overlap=overlap,
    )
    pack = folder / f"{name}-pack.safetensors"
    write_pack(pack, meta, model.trainable_state())
    return ModelFiles(pack, weights)


def simulate_pair(folder: Path, height: int, width: int, *, data_rows: int | None = None) -> Pair:
    """Write a simulated pair, SAR in the neighbouring UTM zone; without data below `data_rows` in both."""
    name = f"{height}x{width}" + ("" if data_rows is None else f"-{data_rows}")
    paths = {stem: folder / f"{name}-{stem}.tif" for stem in ("scene", "sar", "labels", "clouds")}
    if not paths["scene"].exists():
        write_scene(SceneSpec(1, height, width, sar_crs="EPSG:32633", sar_resolution=10.0), paths)
        if data_rows is not None:
            _empty(paths["scene"], paths["scene"], data_rows)
            _empty(paths["sar"], paths["scene"], data_rows - 4)  # no kernel reaches over the line
    return Pair(paths["scene"], paths["sar"], {})


def _empty(path: Path, reference: Path, rows: int) -> None:
    """Set to nodata what lies below a row of the reference's grid."""
    with rasterio.open(reference) as like:
        corners = [like.transform * (column, rows) for column in (0, like.width)]
        crs = like.crs
    with rasterio.open(path, "r+") as file:
        xs, ys = transform(crs, file.crs, *zip(*corners, strict=True))
        # The line between the two corners, in this file's own pixels: what lies below it is emptied.
        (c0, r0), (c1, r1) = (~file.transform * point for point in zip(xs, ys, strict=True))
        columns = np.arange(file.width) + 0.5
        first = r0 + (columns - c0) * (r1 - r0) / (c1 - c0)
        for start in range(0, file.height, 512):
            part = rasterio.windows.Window(0, start, file.width, min(512, file.height - start))
            values = file.read(window=part)
            below = np.arange(start, start + part.height)[:, None] + 0.5 >= first[None]
            values[:, below] = file.nodata
            file.write(values, window=part)


def real_pair(folder: Path) -> Pair | None:
    """Sentinel-2 and Sentinel-1 of 1024 x 1024 pixels (volkov), SAR brought into UTM; None where the data lack."""
    found = sorted((DATA / "volkov").glob("*_opt.tif"))
    if not found:
        return None
    optical = found[0]
    source = optical.with_name(optical.name.replace("_opt", "_sar"))
    sar = folder / f"{source.stem}-utm.tif"
    with rasterio.open(source) as file:
        longitude, latitude = file.lnglat()
        crs = f"EPSG:{(32600 if latitude >= 0 else 32700) + int((longitude + 180) // 6) + 1}"
        placed, width, height = calculate_default_transform(file.crs, crs, file.width, file.height, *file.bounds)
        profile = {**file.profile, "crs": crs, "transform": placed, "width": width, "height": height, "nodata": 0}
        for key in ("blockxsize", "blockysize", "tiled"):
            profile.pop(key, None)
        with rasterio.open(sar, "w", **profile) as out:
            reproject(
                rasterio.band(file, 1), rasterio.band(out, 1), resampling=Resampling.cubic, dst_nodata=0, src_nodata=0
            )
    return Pair(optical, sar, {"optical_units": "byte", "sar_units": "raw"})
