"""From a configuration, data and a backbone to all that a training needs: model, pack description, plan, identity."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gopt_geo.errors import GoptGeoError
from gopt_geo.inference import TileOptions
from gopt_geo.inference.reading import usual_readers
from gopt_geo.models.backbone import DEMO_BACKBONE, Backbone
from gopt_geo.models.config import GoptConfig
from gopt_geo.models.gopt import GoPT
from gopt_geo.packmeta import BackboneRef, PackMeta
from gopt_geo.training.config import TrainConfig
from gopt_geo.training.identity import Identity
from gopt_geo.training.places import placed
from gopt_geo.training.schedule import Plan
from gopt_geo.training.sections import LEAST_BATCH

if TYPE_CHECKING:
    from gopt_geo.training.data import TrainingData

__all__ = ["Setup", "device_of", "gopt_config", "set_up"]

_DEMO_HIDDEN = 128
"""Width of the head on the embedded backbone, as in the demo pack: a small backbone leaves more to the head."""
_MOST_UPSCALE = 8


@dataclass(frozen=True)
class Setup:
    """What a training is made of, all open questions settled.

    Attributes
    ----------
    config
        With everything that depends on data and backbone filled in.
    plan
        Steps and rates.
    meta
        Of the pack, without provenance.
    options
        Tiles of the evaluation.
    device
        Where this process trains.
    sparse
        Share of labelled pixels in the tile around one, where steps have more tiles because of it; else None.
    """

    config: TrainConfig
    plan: Plan
    meta: PackMeta
    options: TileOptions
    device: torch.device
    sparse: float | None = None

    @property
    def notices(self) -> list[str]:
        """What the user should know before the first step."""
        said = []
        if self.sparse is not None:
            batch, passes = self.plan.batch, self.plan.passes
            said.append(
                f"labels are sparse, {100 * self.sparse:.2g} % of the tile around one: a step takes {batch} tiles, in "
                f"{passes} passes; --batch {LEAST_BATCH} is faster, and learns less from them"
            )
        devices, cores = self.config.training.devices, len(os.sched_getaffinity(0))
        if _on_cpu(self.device) and devices > cores:
            found = f"{devices} devices of a CPU are as many processes, which share {cores} cores"
            said.append(f"warning: training.devices: {found}")
        return said

    def model(self, backbone: Backbone) -> GoPT:
        """Build the model; the same seed gives the same starting weights."""
        torch.manual_seed(self.config.training.seed)
        return GoPT(backbone, self.meta.config)

    def identity(self, data: TrainingData) -> Identity:
        """Return what checkpoints of this training belong to."""
        from gopt_geo import __version__

        meta = self.meta
        return Identity(
            version=__version__,
            config=self.config.model_dump(mode="json"),
            backbone={"id": meta.backbone.id, "sha256": meta.backbone.sha256},
            data={
                "classes": [info.model_dump(mode="json") for info in meta.classes],
                "modalities": {name: info.model_dump(mode="json") for name, info in meta.modalities.items()},
                "labelled_pixels": data.counts.tolist(),
            },
        )


def set_up(config: TrainConfig, data: TrainingData, backbone: Backbone) -> Setup:
    """Settle what configuration and data leave open.

    Raises
    ------
    GoptGeoError
        If a device isn't there, or a size of the evaluation doesn't fit the backbone.
    """
    device = device_of(config)
    model = gopt_config(config, tuple(data.modalities), len(data.classes), backbone)
    labelled = data.train.labelled
    plan = Plan.of(config.training, data.train.rounds, labelled)
    sparse = labelled if config.training.batch is None and plan.batch > LEAST_BATCH else None
    tile = _evaluation_tile(config, data, backbone)
    overlap = config.evaluation.overlap if config.evaluation.overlap is not None else tile // 4
    options = TileOptions(
        tile_size=tile,
        overlap=overlap,
        batch_size=config.evaluation.batch,
        readers=usual_readers(device),
        device=device,
    )
    meta = PackMeta(
        title=config.title or Path(config.output or "pack").name or "pack",
        backbone=BackboneRef(id=backbone.identity, sha256=backbone.digest()),
        config=model,
        classes=tuple(data.classes),
        modalities=dict(data.modalities),
        resolution_m=data.resolution_m,
        tile_size=tile,
        overlap=overlap,
    )
    return Setup(_resolved(config, data, model, plan, options), plan, meta, options, device, sparse)


def gopt_config(config: TrainConfig, modalities: tuple[str, ...], classes: int, backbone: Backbone) -> GoptConfig:
    """Return the model's configuration: the sizes asked for, else those that suit the backbone's width."""
    wanted = config.model
    sizes: dict[str, Any] = {"rank": wanted.rank, "groups": wanted.groups, "hidden": wanted.hidden}
    if wanted.hidden is None and backbone.identity == DEMO_BACKBONE:
        sizes["hidden"] = _DEMO_HIDDEN
    return GoptConfig.for_width(
        backbone.embed_dim,
        classes=classes,
        primary=modalities[0],
        auxiliary=modalities[1:],
        upscale=wanted.upscale or min(_MOST_UPSCALE, backbone.patch_size),
        assignment=wanted.assignment,
        aux_stream=wanted.aux_stream,
        missing=wanted.missing,
        **{name: size for name, size in sizes.items() if size is not None},
    )


def device_of(config: TrainConfig) -> torch.device:
    """Return the kind of device that is trained on.

    Raises
    ------
    GoptGeoError
        If a GPU, or as many as asked for, isn't there.
    """
    accelerator, devices = config.training.accelerator, config.training.devices
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if accelerator == "cpu" or (accelerator == "auto" and not there):
        return torch.device("cpu")
    if not there:
        raise GoptGeoError("training.accelerator: gpu", "there is no GPU here", "use auto or cpu")
    if devices > there:
        found = f"{there} GPU{'s' if there > 1 else ''} here"
        raise GoptGeoError(f"training.devices: {devices}", found, f"give at most {there}")
    return torch.device("cuda")


def _on_cpu(device: torch.device) -> bool:
    return device.type == "cpu"


def _evaluation_tile(config: TrainConfig, data: TrainingData, backbone: Backbone) -> int:
    """Edge of the evaluation's tiles: as asked for, else the training tile's larger side."""
    tile, patch = config.evaluation.tile_size, backbone.patch_size
    if tile is None:
        return max(data.tile_shape)
    if tile % patch:
        found = f"{backbone.identity} cuts images into patches of {patch} pixels"
        raise GoptGeoError(f"evaluation.tile_size: {tile}", found, f"give a multiple of {patch}")
    return tile


def _resolved(
    config: TrainConfig, data: TrainingData, model: GoptConfig, plan: Plan, options: TileOptions
) -> TrainConfig:
    """Fill in what was left open, so that the run's config.yaml says all of it and gives the same training again."""
    sizes = {name: getattr(model, name) for name in ("rank", "groups", "hidden", "upscale")}
    steps: Mapping[str, Any] = {
        "tile_size": tuple(data.tile_shape),
        "batch": plan.batch,
        "accumulate": plan.passes,
        "steps": plan.steps,
        "epochs": None,
        "warmup_steps": plan.warmup,
        "warmup_epochs": None,
        "validate_every": plan.validate_every,
        "checkpoint_every": plan.checkpoint_every,
    }
    config = placed(config)
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"modalities": model.modalities, **sizes}),
            "training": config.training.model_copy(update=steps),
            "evaluation": config.evaluation.model_copy(
                update={"tile_size": options.tile_size, "overlap": options.overlap}
            ),
        }
    )
