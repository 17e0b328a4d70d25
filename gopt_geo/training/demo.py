"""Makes the embedded demo pack, and the single-modality packs it is compared with: ``python -m gopt_geo.training.demo``.

A small vision transformer is trained from scratch on simulated *optical* images only and then frozen; GoPT's
prompters and head are trained on simulated optical + SAR pairs. All from seeds: training scenes have seeds from
1000 on, and no seed from 9000 on is ever drawn here, so that those can serve as unseen scenes.
"""

from __future__ import annotations

import argparse
import logging
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gopt_geo.models.backbone import DEMO_ARCHITECTURE, DEMO_BACKBONE, Backbone, build_vit
from gopt_geo.models.gopt import GoPT, GoptConfig
from gopt_geo.packs import BackboneRef, ClassInfo, ModalityInfo, PackMeta, write_pack
from gopt_geo.simulate import CLASS_COLORS, CLASS_NAMES, CLASS_VALUES
from gopt_geo.training.crops import Batch, CropSampler, Faults, SceneStore
from gopt_geo.training.fit import class_weights, fit

__all__ = ["main", "train_demo"]

logger = logging.getLogger(__name__)

TILE = 128
FIRST_SEED = 1000
HEAD = {"hidden": 128, "upscale": 8}
Statistics = dict[str, tuple[tuple[float, ...], tuple[float, ...]]]


class _Trainable(nn.Module):
    """A GoPT without prompters whose backbone learns too: how the demo backbone is made."""

    def __init__(self, model: GoPT) -> None:
        super().__init__()
        self.model = model
        model.backbone.vit.requires_grad_(True)

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.model({"optical": batch.images["optical"]}, {"optical": batch.valid["optical"]})
        return logits


def train_backbone(sampler: CropSampler, weights: Tensor, steps: int, folder: Path) -> GoPT:
    """Train the backbone and a head on optical crops, and save the backbone in half precision.

    Returns
    -------
    The RGB-only model, its backbone frozen and rounded to what the file holds.
    """
    vit = build_vit(DEMO_ARCHITECTURE)
    config = GoptConfig(classes=len(CLASS_NAMES), auxiliary=(), **HEAD)
    model = GoPT(Backbone(vit, DEMO_BACKBONE), config)
    learner = _Trainable(model)
    fit(learner, learner, sampler, steps=steps, rate=1e-3, weights=weights, decay=0.05)
    path = folder / "backbone.safetensors"
    save_file({k: v.half().contiguous() for k, v in vit.state_dict().items()}, path)
    vit.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    model.backbone = Backbone(vit, DEMO_BACKBONE)
    return model


def train_prompted(
    backbone: Backbone, config: GoptConfig, start: GoPT | None, sampler: CropSampler, weights: Tensor, steps: int
) -> GoPT:
    """Train prompters and head on a frozen backbone, the head starting from another model's where there is one."""
    model = GoPT(backbone, config)
    if start is not None:
        model.head.load_state_dict(start.head.state_dict())
        model.mask_token.data.copy_(start.mask_token.data)

    def forward(batch: Batch) -> Tensor:
        # A modality that is missing as a whole is told by its validity, as at the edge of a swath.
        images = {m: batch.images[m] for m in config.modalities}
        logits: Tensor = model(images, {m: batch.valid[m] for m in config.modalities})
        return logits

    fit(model, forward, sampler, steps=steps, rate=3e-3, weights=weights)
    return model


def describe(model: GoPT, title: str, statistics: Statistics, provenance: dict[str, object]) -> PackMeta:
    """Build the metadata of a demo pack."""
    infos = {}
    for name in model.config.modalities:
        mean, std = statistics[name]
        optical = name == "optical"
        infos[name] = ModalityInfo(
            bands=("red", "green", "blue") if optical else ("VV",),
            units="reflectance" if optical else "db",
            channels=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)) if optical else ((1.0,),) * 3,
            mean=mean,
            std=std,
        )
    legend = zip(CLASS_VALUES, CLASS_NAMES, CLASS_COLORS, strict=True)
    return PackMeta(
        title=title,
        notice="demo, trained on simulated scenes",
        backbone=BackboneRef(id=DEMO_BACKBONE, sha256=model.backbone.digest()),
        config=model.config,
        classes=tuple(ClassInfo(value=v, name=n, color=c) for v, n, c in legend),
        modalities=infos,
        resolution_m=10.0,
        tile_size=TILE,
        overlap=TILE // 4,
        provenance=provenance,
    )


def train_demo(data: Path, packs: Path, *, scenes: int, steps: dict[str, int], only: set[str]) -> None:
    """Train everything, or the parts named, and write backbone and packs.

    Parameters
    ----------
    data
        Folder of the embedded backbone and pack.
    packs
        Folder of the packs to compare with.
    scenes
        Number of training scenes.
    steps
        Steps of ``backbone``, ``rgb``, ``sar`` and ``gopt``.
    only
        Parts to train; what isn't named is taken from its file.
    """
    torch.manual_seed(0)
    store = SceneStore(range(FIRST_SEED, FIRST_SEED + scenes))
    optical, sar = store.statistics("optical"), store.statistics("sar")
    statistics = {"optical": optical, "sar": (sar[0] * 3, sar[1] * 3)}
    weights = class_weights(store.class_shares(len(CLASS_NAMES)))
    provenance: dict[str, object] = {
        "data": f"simulated scenes of gopt-geo {version('gopt-geo')}, seeds {FIRST_SEED} to {FIRST_SEED + scenes - 1}",
        "steps": steps,
        "versions": {n: version(n) for n in ("torch", "timm", "numpy")} | {"python": platform.python_version()},
    }
    logger.info("%d scenes, class shares %s", scenes, store.class_shares(len(CLASS_NAMES)).round(3).tolist())

    def sampler(seed: int, batch: int, **faults: float) -> CropSampler:
        return CropSampler(store, statistics, size=TILE, batch=batch, faults=Faults(**faults), seed=seed)

    if "backbone" in only:
        rgb = train_backbone(sampler(1, 16, cloudy=0.3), weights, steps["backbone"], data)
        write_pack(data / "start.part", describe(rgb, "start", statistics, {}), rgb.trainable_state())
    from gopt_geo.packs import load_model, read_pack

    rgb = load_model(read_pack(data / "start.part"))
    if "rgb" in only:
        rgb = train_prompted(
            rgb.backbone, rgb.config, rgb, sampler(2, 32, cloudy=0.3, no_optical=0.02), weights, steps["rgb"]
        )
        save(packs / "optical_only.safetensors", rgb, "demo, optical alone", statistics, provenance)
    if "sar" in only:
        config = GoptConfig(classes=len(CLASS_NAMES), auxiliary=(), primary="sar", **HEAD)
        model = train_prompted(rgb.backbone, config, None, sampler(3, 32, half_sar=0.1), weights, steps["sar"])
        save(packs / "sar_only.safetensors", model, "demo, SAR alone", statistics, provenance)
    if "gopt" in only:
        config = GoptConfig(classes=len(CLASS_NAMES), token_value=True, **HEAD)
        faults = {"cloudy": 0.4, "no_optical": 0.06, "no_sar": 0.12, "half_sar": 0.06}
        model = train_prompted(rgb.backbone, config, rgb, sampler(4, 32, **faults), weights, steps["gopt"])
        save(data / "demo.gopt.safetensors", model, "demo", statistics, provenance)


def save(path: Path, model: GoPT, title: str, statistics: Statistics, provenance: dict[str, object]) -> None:
    """Write a pack in half precision."""
    state = {name: tensor.half() for name, tensor in model.trainable_state().items()}
    write_pack(path, describe(model, title, statistics, provenance), state)


def main() -> None:
    """Parse the command line and train."""
    parts = ("backbone", "rgb", "sar", "gopt")
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--data", type=Path, default=here / "data" / "demo")
    parser.add_argument("--packs", type=Path, default=here.parent / "benchmarks" / "packs")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    for part, steps in zip(parts, (3000, 300, 500, 1000), strict=True):
        parser.add_argument(f"--{part}-steps", type=int, default=steps)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for folder in (given.data, given.packs):
        folder.mkdir(parents=True, exist_ok=True)
    steps = {part: getattr(given, f"{part}_steps") for part in parts}
    train_demo(given.data, given.packs, scenes=given.scenes, steps=steps, only=set(given.only))


if __name__ == "__main__":
    main()
