"""One training step of GoPT, as Lightning calls it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from gopt_geo.models.gopt import GoPT
from gopt_geo.models.normalise import Normaliser
from gopt_geo.training.losses import SegmentationLoss
from gopt_geo.training.schedule import Plan, noise_seed, step_samples

__all__ = ["Batch", "Collate", "StepModule"]

Batch = dict[str, Tensor]


class Collate:
    """Stacks samples into a batch: NAME and ``validity_NAME`` of each modality, and ``mask``.

    Parameters
    ----------
    names
        Of the modalities.
    drop_complete
        Leave out validities that are true everywhere. Models take a missing one so, and without one of the primary
        modality the backward pass ends above the first block. Not where processes train together: they wait for the
        gradient of every parameter.
    """

    def __init__(self, names: Sequence[str], *, drop_complete: bool) -> None:
        self.names, self.drop_complete = tuple(names), drop_complete

    def __call__(self, samples: Sequence[dict[str, Any]]) -> Batch:
        """Return [B, bands, h, w] float32, [B, h, w] bool and [B, h, w] int64."""
        batch = {"mask": torch.stack([sample["mask"] for sample in samples])}
        for name in self.names:
            batch[name] = torch.stack([sample[name] for sample in samples])
            valid = torch.stack([sample[f"validity_{name}"] for sample in samples])
            if not (self.drop_complete and bool(valid.all())):
                batch[f"validity_{name}"] = valid
        return batch


class StepModule(pl.LightningModule):
    """The model with its loss, optimiser and rate; the backbone is frozen.

    A batch is a whole optimiser step. It is forwarded in the plan's ``passes``, and its loss is the mean over the
    labelled pixels of all parts and all processes: parts and processes change memory and speed, not the result.

    Parameters
    ----------
    model
        To train, in place.
    normaliser
        Of its modalities.
    loss
        To minimise.
    plan
        Steps and rates, tiles of a step in this process, and forward passes that they are divided into.
    decay, clip
        Weight decay, on matrices alone; largest norm of the gradients, or None.
    seed
        Of the model's own draws.

    Attributes
    ----------
    done
        Optimiser steps finished.
    latest
        Loss of the last step, over all processes, on the device.
    restored
        State of the optimiser to begin with.
    stop_asked
        Set to have all processes stop together; ``stop_agreed`` is then set at the next step.
    """

    def __init__(
        self,
        model: GoPT,
        normaliser: Normaliser,
        loss: SegmentationLoss,
        plan: Plan,
        *,
        decay: float = 0.01,
        clip: float | None = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.normaliser, self.loss, self.plan = model, normaliser, loss, plan
        self.decay, self.clip, self.seed = decay, clip, seed
        self.done = 0
        self.stop_asked = self.stop_agreed = False
        self.latest = torch.zeros(())
        self.restored: dict[str, Any] | None = None
        self._parameters_trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def configure_optimizers(self) -> torch.optim.AdamW:
        """AdamW, with decay on matrices alone; its state is that of the checkpoint, if one was restored."""
        matrices = [parameter for parameter in self._parameters_trained if parameter.ndim > 1]
        others = [parameter for parameter in self._parameters_trained if parameter.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": self.decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.plan.rate)
        if self.restored is not None:
            optimizer.load_state_dict(self.restored)
            self.restored = None
        return optimizer

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 (Lightning's signature)
        """Take one optimiser step."""
        optimizer = cast(torch.optim.Optimizer, self.optimizers())
        for group in optimizer.param_groups:
            group["lr"] = self.plan.rate_at(self.done)
        images = self.normaliser(batch)
        valid = {name: batch[key] for name in images if (key := f"validity_{name}") in batch}
        total = self._over_processes(self.loss.weight(batch["mask"]))
        first = step_samples(self.done, self.plan.batch, self.global_rank, self.trainer.world_size)[0]
        optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=total.device)
        parts = torch.arange(len(batch["mask"])).tensor_split(min(self.plan.passes, len(batch["mask"])))
        for number, part in enumerate(parts):
            tiles = slice(int(part[0]), int(part[-1]) + 1)
            torch.manual_seed(noise_seed(self.seed, first + tiles.start))
            with self._last_alone(number == len(parts) - 1):
                logits = self.model(_cut(images, tiles), _cut(valid, tiles))
                own = self.loss(logits, batch["mask"][tiles], total)
                # Gradients are averaged over the processes, and are to be summed: each loss is a share already.
                self.manual_backward(own * self.trainer.world_size)
            loss += own.detach()
        optimizer.step()
        self.done += 1
        self.latest = self._sum(loss)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002 (as above)
        """Clip the gradients: here they are summed over processes and freed of the loss scale."""
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self._parameters_trained, self.clip)

    def _over_processes(self, weight: Tensor) -> Tensor:
        """Sum the labels' weight over all processes, and agree on whether to stop after this step."""
        stop = weight.new_tensor(float(self.stop_asked))
        weight, stop = self._sum(torch.stack([weight, stop])).unbind()
        if self.trainer.world_size > 1:
            self.stop_agreed = bool(stop > 0)
        else:
            self.stop_agreed = self.stop_asked
        return weight

    def _sum(self, values: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return values
        summed = self.trainer.strategy.reduce(values, reduce_op="sum")
        assert isinstance(summed, Tensor)
        return summed

    def _last_alone(self, last: bool) -> AbstractContextManager[None]:
        """Exchange gradients between processes after the last part alone."""
        block = getattr(self.trainer.strategy, "block_backward_sync", None)
        return nullcontext() if last or block is None or self.trainer.world_size == 1 else block()


def _cut(tensors: dict[str, Tensor], tiles: slice) -> dict[str, Tensor]:
    return {name: tensor[tiles] for name, tensor in tensors.items()}
