"""A tiny pack on a tiny backbone, small simulated scenes, and runs of predict on them."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning

from gopt_geo import description, packs
from gopt_geo.inference import execution
from gopt_geo.models.backbone import Backbone, build_vit
from gopt_geo.models.config import GoptConfig
from gopt_geo.models.gopt import GoPT
from gopt_geo.packs import BackboneRef, ClassInfo, ModalityInfo, PackMeta, write_pack
from gopt_geo.prediction import PredictReport, predict
from gopt_geo.simulate import CLASS_COLORS, CLASS_NAMES, CLASS_VALUES, SceneSpec, write_scene

TINY = "tests:tiny"


@pytest.fixture(scope="session", autouse=True)
def usual_signals() -> None:
    """Undo what nohup or a shell's background job ignores: tests send these signals, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def same_precision_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `--precision auto` be fp32 on every CPU: maps are compared with others that were made in it."""
    monkeypatch.setattr(execution, "_gain_of_bf16", lambda: 1.0)


@pytest.fixture(scope="session")
def tiny_backbone() -> Backbone:
    """A vision transformer of 20,000 parameters, untrained."""
    torch.manual_seed(5)
    return Backbone(
        build_vit({"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2, "class_token": False}),
        TINY,
    )


@pytest.fixture(scope="session")
def tiny_pack_file(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone) -> Path:
    """A pack on `tiny_backbone`, untrained, whose maps have several classes."""
    torch.manual_seed(6)
    model = GoPT(tiny_backbone, GoptConfig(classes=len(CLASS_NAMES), hidden=16, rank=4, upscale=8, assignment="hard"))
    with torch.no_grad():
        model.head.classify.weight.mul_(40)  # an untrained head calls everything the same
    optical = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    meta = PackMeta(
        title="tiny",
        notice="for tests only",
        backbone=BackboneRef(id=TINY, sha256=tiny_backbone.digest()),
        config=model.config,
        classes=tuple(
            ClassInfo(value=v, name=n, color=c) for v, n, c in zip(CLASS_VALUES, CLASS_NAMES, CLASS_COLORS, strict=True)
        ),
        modalities={
            "optical": ModalityInfo(
                bands=("red", "green", "blue"),
                units="reflectance",
                channels=optical,
                mean=(0.1, 0.1, 0.1),
                std=(0.05, 0.05, 0.05),
            ),
            "sar": ModalityInfo(bands=("VV",), units="db", channels=((1.0,),) * 3, mean=(-12.0,) * 3, std=(4.0,) * 3),
        },
        resolution_m=10.0,
        tile_size=32,
        overlap=8,
    )
    path = tmp_path_factory.mktemp("pack") / "tiny.safetensors"
    write_pack(path, meta, model.trainable_state())
    return path


@pytest.fixture
def tiny_pack(tiny_pack_file: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`tiny_pack_file`, in a world where its backbone can be loaded."""
    for module in (packs, description):
        monkeypatch.setattr(
            module,
            "load_backbone",
            lambda name, *weights, usual=packs.load_backbone: tiny_backbone if name == TINY else usual(name, *weights),
        )
    return tiny_pack_file


def make_scene(folder: Path, **spec: Any) -> dict[str, Path]:
    paths = {stem: folder / f"{stem}.tif" for stem in ("scene", "sar", "labels", "clouds")}
    write_scene(SceneSpec(**spec), paths)
    return paths


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A cloudy scene of 90 x 130 pixels: scene, sar (another CRS and pixel size), labels, clouds. Don't write there."""
    return make_scene(
        tmp_path_factory.mktemp("scene"),
        seed=3,
        height=90,
        width=130,
        cloud=0.3,
        sar_crs="EPSG:4326",
        sar_resolution=0.00021,
    )


@pytest.fixture(scope="session")
def aligned_scene(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A clear scene of 90 x 130 pixels with optical and SAR on one grid. Don't write there."""
    return make_scene(tmp_path_factory.mktemp("aligned"), seed=4, height=90, width=130)


@pytest.fixture
def run(tiny_pack: Path, tmp_path: Path, scene: dict[str, Path]) -> Callable[..., PredictReport]:
    """Run predict on `scene` with the tiny pack into the test's folder: run("map.tif", "map.gpkg", **changes)."""

    def call(*outputs: str, **changes: Any) -> PredictReport:
        for name in ("confidence", "preview"):
            if isinstance(changes.get(name), str):
                changes[name] = tmp_path / changes[name]
        arguments = {"optical": scene["scene"], "sar": scene["sar"], "pack": tiny_pack}
        arguments |= {"optical_bands": "red,green,blue", "device": "cpu"}
        arguments |= {"outputs": [tmp_path / name for name in outputs or ("map.tif",)]} | changes
        return predict(**arguments)

    return call


@pytest.fixture(scope="session")
def pixels() -> Callable[..., np.ndarray]:
    """Read a raster's pixels: pixels(path, band=1)."""

    def read(path: Path, band: int = 1) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                return np.asarray(dataset.read(band))

    return read
