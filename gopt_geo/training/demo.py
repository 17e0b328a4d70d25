"""Makes the embedded demo pack, and the single-modality packs it is compared with.

    python -m gopt_geo.training.demo configs/demo_pack.yaml

A small vision transformer is trained from scratch on simulated *optical* images only and then frozen; GoPT's
prompters and head are trained on simulated optical + SAR pairs. Everything random derives from seeds; no scene with
a seed from 9000 on is ever drawn here, so that those can serve as unseen ones.
"""

from __future__ import annotations

import argparse
import logging
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load, save
from torch import Tensor, nn

from gopt_geo.models.backbone import (
    DEMO_ARCHITECTURE,
    DEMO_BACKBONE,
    Backbone,
    build_vit,
    demo_backbone_path,
    load_backbone,
)
from gopt_geo.models.config import GoptConfig
from gopt_geo.models.gopt import GoPT
from gopt_geo.packs import (
    BackboneRef,
    ClassInfo,
    ModalityInfo,
    PackMeta,
    Provenance,
    demo_pack_path,
    load_model,
    read_pack,
    write_pack,
)
from gopt_geo.simulate import CLASS_COLORS, CLASS_NAMES, CLASS_VALUES
from gopt_geo.training.crops import Batch, CropSampler, Faults, SceneStore, Statistics
from gopt_geo.training.fit import class_weights, fit

__all__ = ["PARTS", "DemoConfig", "DemoTrainer", "describe", "main"]

logger = logging.getLogger(__name__)

Part = Literal["backbone", "optical_only", "sar_only", "gopt"]
PARTS: tuple[Part, ...] = ("backbone", "gopt", "optical_only", "sar_only")
"""In the order of training: the head that comes with the backbone is where GoPT's starts from."""
FIRST_TEST_SEED = 9000


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SceneConfig(_Strict):
    """Training scenes: seeds ``first_seed`` to ``first_seed + count - 1``, ``size`` pixels square."""

    first_seed: int = Field(ge=0)
    count: int = Field(ge=1)
    size: int = Field(ge=128)


class PartConfig(_Strict):
    """Training of one part: see `fit` and `Faults`."""

    seed: int = Field(ge=0)
    steps: int = Field(ge=10)
    batch: int = Field(ge=1)
    rate: float = Field(gt=0)
    decay: float = Field(ge=0)
    faults: Faults


class DemoConfig(_Strict):
    """Contents of ``configs/demo_pack.yaml``."""

    scenes: SceneConfig
    tile: int = Field(ge=8)
    head: dict[Literal["hidden", "upscale"], int]
    parts: dict[Part, PartConfig]
    gopt: dict[str, Any]


class _LearningBackbone(nn.Module):
    """A GoPT without prompters whose backbone learns too: how the demo backbone is made."""

    def __init__(self, model: GoPT) -> None:
        super().__init__()
        self.model = model
        model.backbone.vit.requires_grad_(True)

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.model({"optical": batch.images["optical"]}, {"optical": batch.valid["optical"]})
        return logits


def describe(
    model: GoPT, title: str, statistics: Statistics, *, tile: int, provenance: Provenance | None = None
) -> PackMeta:
    """Build the metadata of a pack trained on simulated scenes.

    Parameters
    ----------
    model
        Trained.
    title
        For people.
    statistics
        Modality to (mean, std) of its three channels.
    tile
        Edge of the training crops in pixels.
    provenance
        Data, steps, versions.
    """
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
        tile_size=tile,
        overlap=tile // 4,
        provenance=provenance or Provenance(),
    )


class DemoTrainer:
    """Trains the parts one after the other; each starts from the files that the one before it wrote.

    Parameters
    ----------
    config
        From ``configs/demo_pack.yaml``.
    packs
        Folder of the single-modality packs.
    """

    def __init__(self, config: DemoConfig, packs: Path) -> None:
        self.config, self.packs = config, packs
        scenes = config.scenes
        if scenes.first_seed + scenes.count > FIRST_TEST_SEED:
            raise ValueError(f"seeds from {FIRST_TEST_SEED} on are kept for tests")
        self.store = SceneStore(range(scenes.first_seed, scenes.first_seed + scenes.count), scenes.size)
        shares = self.store.class_shares(len(CLASS_NAMES))
        self.weights = class_weights(shares)
        self.statistics = {name: self.store.statistics(name) for name in ("optical", "sar")}
        logger.info("%d scenes, class shares %s", scenes.count, shares.round(3).tolist())

    def train(self, part: Part) -> None:
        """Train one part and write its file."""
        torch.manual_seed(self.config.parts[part].seed)
        logger.info("training %s", part)
        {"backbone": self._backbone, "optical_only": self._optical, "sar_only": self._sar, "gopt": self._gopt}[part]()

    def _fit(self, part: Part, learner: nn.Module, model: GoPT) -> None:
        settings = self.config.parts[part]
        sampler = CropSampler(
            self.store,
            self.statistics,
            size=self.config.tile,
            batch=settings.batch,
            faults=settings.faults,
            seed=1 + settings.seed,  # no stream of its own shares torch's seed
        )

        def forward(batch: Batch) -> Tensor:
            # A modality that is missing as a whole is told by its validity, as at the edge of a swath.
            names = model.config.modalities
            logits: Tensor = model({m: batch.images[m] for m in names}, {m: batch.valid[m] for m in names})
            return logits

        fit(
            learner,
            forward,
            sampler,
            steps=settings.steps,
            rate=settings.rate,
            weights=self.weights,
            decay=settings.decay,
        )

    def _write(self, model: GoPT, path: Path, title: str) -> None:
        """Write a pack in half precision."""
        scenes = self.config.scenes
        provenance = Provenance(
            data=(f"simulated, seeds {scenes.first_seed} to {scenes.first_seed + scenes.count - 1}",),
            versions={n: version(n) for n in ("gopt-geo", "torch", "timm", "numpy")}
            | {"python": platform.python_version()},
            details={"parts": {name: part.model_dump(mode="json") for name, part in self.config.parts.items()}},
        )
        meta = describe(model, title, self.statistics, tile=self.config.tile, provenance=provenance)
        write_pack(path, meta, {name: tensor.half() for name, tensor in model.trainable_state().items()})

    def _start(self) -> GoPT:
        return load_model(read_pack(self.packs / "optical_only.safetensors"))

    def _backbone(self) -> None:
        vit = build_vit(DEMO_ARCHITECTURE)
        config = GoptConfig(classes=len(CLASS_NAMES), auxiliary=(), **self.config.head)
        model = GoPT(Backbone(vit, DEMO_BACKBONE), config)
        learner = _LearningBackbone(model)
        self._fit("backbone", learner, model)
        # Rounded to what the file holds before anything else is trained on it.
        content = save({k: v.half().contiguous() for k, v in vit.state_dict().items()})
        vit.load_state_dict({k: v.float() for k, v in load(content).items()})
        model.backbone = Backbone(vit, DEMO_BACKBONE)
        demo_backbone_path().write_bytes(content)
        self._write(model, self.packs / "optical_only.safetensors", "demo, optical alone")

    def _optical(self) -> None:
        model = self._start()
        self._fit("optical_only", model, model)
        self._write(model, self.packs / "optical_only.safetensors", "demo, optical alone")

    def _sar(self) -> None:
        config = GoptConfig(classes=len(CLASS_NAMES), auxiliary=(), primary="sar", **self.config.head)
        model = GoPT(load_backbone(DEMO_BACKBONE), config)
        self._fit("sar_only", model, model)
        self._write(model, self.packs / "sar_only.safetensors", "demo, SAR alone")

    def _gopt(self) -> None:
        start = self._start()
        config = GoptConfig(classes=len(CLASS_NAMES), **self.config.head, **self.config.gopt)
        model = GoPT(start.backbone, config)
        model.head.load_state_dict(start.head.state_dict())
        model.mask_token.data.copy_(start.mask_token.data)
        self._fit("gopt", model, model)
        self._write(model, demo_pack_path(), "demo")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--packs", type=Path, default=Path("benchmarks/packs"), help="folder of the other packs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = DemoConfig.model_validate(yaml.safe_load(given.config.read_text(encoding="utf-8")))
    for folder in (demo_pack_path().parent, given.packs):
        folder.mkdir(parents=True, exist_ok=True)
    trainer = DemoTrainer(config, given.packs)
    for part in PARTS:
        if part in given.only:
            trainer.train(part)


if __name__ == "__main__":
    main()
