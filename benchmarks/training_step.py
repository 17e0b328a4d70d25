"""What the trainer costs: steps through Lightning with all that surrounds them, against the same steps in a bare loop.

    OMP_NUM_THREADS=1 python benchmarks/training_step.py --json benchmarks/results/training_step.json

Both train GoPT on the embedded backbone, on the same tiles held in memory; validation and checkpoints are left out of
both. They take turns, and the ratio is of the medians of a step's time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from gopt_geo.models import DEMO_BACKBONE, Backbone, GoPT, GoptConfig, load_backbone
from gopt_geo.models.normalise import Normaliser
from gopt_geo.packmeta import ModalityInfo
from gopt_geo.training.checkpoints import Standing
from gopt_geo.training.config import OptimisationConfig
from gopt_geo.training.fitting import fit, make_trainer, quiet, step_loader
from gopt_geo.training.losses import SegmentationLoss
from gopt_geo.training.module import Collate, StepModule
from gopt_geo.training.schedule import Plan, StepSampler
from gopt_geo.training.supervisor import Deeds, StopSignals, Supervisor

MOST = 1.05
IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
NAMES = ("optical", "sar")
INFOS = {
    name: ModalityInfo(bands=("a", "b", "c"), units="raw", channels=IDENTITY, mean=(0.5,) * 3, std=(0.3,) * 3)
    for name in NAMES
}


class Tiles(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Eight tiles, over and over."""

    rounds = 8

    def __init__(self, edge: int) -> None:
        self.samples = [self._make(edge) for _ in range(8)]

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return self.samples[number % 8]

    @staticmethod
    def _make(edge: int) -> dict[str, Tensor]:
        valid = torch.ones(edge, edge, dtype=torch.bool)
        valid[: edge // 4] = False
        images = {name: torch.rand(3, edge, edge) for name in NAMES}
        masks = {f"validity_{name}": valid for name in NAMES}
        return {**images, **masks, "mask": torch.randint(0, 7, (edge, edge))}


def build(backbone: Backbone, config: OptimisationConfig, steps: int) -> StepModule:
    torch.manual_seed(0)
    model = GoPT(backbone, GoptConfig(classes=7, hidden=128, upscale=8))
    assert config.batch is not None
    plan = Plan(steps, 1, steps + 1, steps + 1, config.learning_rate, batch=config.batch, passes=1)
    loss = SegmentationLoss("cross_entropy")
    return StepModule(model, Normaliser(INFOS), loss, plan).train()


def through_the_trainer(backbone: Backbone, config: OptimisationConfig, tiles: Tiles, steps: int) -> list[float]:
    """Return each step's seconds, from one to the next."""
    module, ends = build(backbone, config, steps), [0.0]
    device = torch.device(config.accelerator if config.accelerator == "cpu" else "cuda")
    deeds = Deeds(
        lambda: {"val_miou": 0.0},
        lambda _: None,
        lambda *_: None,
        lambda _: ends.append(time.perf_counter()),
        "the benchmark",
    )
    with StopSignals(module) as signals, quiet():
        supervisor = Supervisor(module, Standing(), deeds, signals)
        loader = step_loader(tiles, config, NAMES, StepSampler(0, steps, config.batch), device)  # type: ignore[arg-type]
        fit(make_trainer(config, device, [supervisor]), module, loader, {})
    return [after - before for before, after in pairwise(ends[1:])]


def bare(backbone: Backbone, config: OptimisationConfig, tiles: Tiles, steps: int) -> list[float]:
    """Return each step's seconds in a plain loop of PyTorch."""
    module, seconds = build(backbone, config, steps), []
    device = torch.device(config.accelerator if config.accelerator == "cpu" else "cuda")
    module.to(device)
    optimizer, collate = module.configure_optimizers(), Collate(NAMES, drop_complete=True)
    parameters = [parameter for parameter in module.model.parameters() if parameter.requires_grad]
    before = time.perf_counter()
    for step in range(steps):
        numbers = range(step * config.batch, (step + 1) * config.batch)
        batch = {name: tensor.to(device) for name, tensor in collate([tiles[number] for number in numbers]).items()}
        optimizer.zero_grad(set_to_none=True)
        logits = module.model(module.normaliser(batch), {name: batch[f"validity_{name}"] for name in NAMES})
        loss = nn.functional.cross_entropy(logits, batch["mask"], ignore_index=255)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        loss.item()
        after = time.perf_counter()
        seconds.append(after - before)
        before = after
    return seconds[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help="of a turn")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--json", type=Path, help="write the result there")
    given = parser.parse_args()
    config = OptimisationConfig(batch=given.batch, accelerator="cpu", workers=0, precision="fp32")
    backbone, tiles = load_backbone(DEMO_BACKBONE), Tiles(given.tile)
    seconds: dict[str, list[float]] = {"bare": [], "trainer": []}
    for _ in range(given.turns):
        seconds["bare"] += bare(backbone, config, tiles, given.steps)
        seconds["trainer"] += through_the_trainer(backbone, config, tiles, given.steps)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["trainer"] / medians["bare"]
    print(f"bare {medians['bare'] * 1e3:.1f} ms, trainer {medians['trainer'] * 1e3:.1f} ms a step: ratio {ratio:.3f}")
    if given.json is not None:
        content = {"seconds_a_step": medians, "ratio": ratio, "most": MOST, "batch": given.batch, "tile": given.tile}
        given.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    sys.exit(ratio > MOST)


if __name__ == "__main__":
    main()
