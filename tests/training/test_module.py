"""A step is the mean over its labelled pixels, in however many parts and processes it is taken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gopt_geo.models.backbone import Backbone
from gopt_geo.models.config import GoptConfig
from gopt_geo.models.cup import ClassAwareUniModalPrompter
from gopt_geo.models.gopt import GoPT
from gopt_geo.models.normalise import Normaliser
from gopt_geo.packmeta import ModalityInfo
from gopt_geo.training.config import OptimisationConfig
from gopt_geo.training.fitting import fit, make_trainer, quiet, step_loader
from gopt_geo.training.losses import SegmentationLoss
from gopt_geo.training.module import Collate, StepModule
from gopt_geo.training.run import TrainReport
from gopt_geo.training.runfolder import MetricsTable
from gopt_geo.training.schedule import Plan, StepSampler
from trainings import small_config

CPU = torch.device("cpu")
INFOS = {
    "optical": ModalityInfo(
        bands=("red", "green", "blue"),
        units="raw",
        channels=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        mean=(0.1, 0.2, 0.3),
        std=(1.0, 2.0, 3.0),
    ),
    "sar": ModalityInfo(bands=("VV",), units="db", channels=((1.0,),) * 3, mean=(-1.0,) * 3, std=(2.0,) * 3),
}


class Tiles(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Samples that depend on their number alone; every other one has few labels, and sample 3 none."""

    rounds = 8

    def __init__(self, *, complete: bool = False) -> None:
        self.complete = complete
        self.taken: list[int] = []

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        self.taken.append(number)
        rng = torch.Generator().manual_seed(number)
        mask = torch.randint(0, 3, (16, 16), generator=rng)
        mask[: (0, 12)[number % 2]] = 255
        if number == 3:
            mask[:] = 255
        valid = torch.ones(16, 16, dtype=torch.bool)
        if not self.complete and number % 3 == 0:
            valid[:8] = False
        return {
            "optical": torch.rand(3, 16, 16, generator=rng),
            "sar": torch.rand(1, 16, 16, generator=rng),
            "validity_optical": valid,
            "validity_sar": ~valid if not self.complete else valid,
            "mask": mask,
        }


def trained(backbone: Backbone, steps: int, accumulate: int = 1, start: int = 0, **changes: Any) -> tuple[GoPT, Tiles]:
    torch.manual_seed(0)
    model = GoPT(backbone, GoptConfig(classes=3, rank=4, hidden=8, groups=4))
    plan = Plan(steps, 1, steps, steps, rate=1e-2, batch=4, passes=accumulate)
    config = OptimisationConfig(batch=4, steps=steps, accumulate=accumulate, accelerator="cpu", workers=0)
    weights = torch.tensor([1.0, 2.0, 0.5])
    module = StepModule(model, Normaliser(INFOS), SegmentationLoss("cross_entropy", weights), plan).train()
    for part in model.modules():  # their draws differ between four tiles and twice two
        if isinstance(part, ClassAwareUniModalPrompter):
            part.eval()
    module.done = start
    tiles = Tiles(**changes)
    with quiet():
        loader = step_loader(tiles, config, ("optical", "sar"), StepSampler(start, steps, 4), CPU)
        trainer = make_trainer(config, CPU, [])
        fit(trainer, module, loader, {})
    assert module.done == steps
    return model, tiles


@pytest.mark.brief
@pytest.mark.parametrize("accumulate", [2, 4])
def test_parts_of_a_step_change_nothing(tiny_backbone: Backbone, accumulate: int) -> None:
    whole, tiles = trained(tiny_backbone, 2)
    parts, _ = trained(tiny_backbone, 2, accumulate)
    assert tiles.taken == list(range(8))  # none is repeated, skipped, or drawn for nothing
    for name, tensor in whole.trainable_state().items():
        assert torch.allclose(parts.trainable_state()[name], tensor, atol=1e-5), name


def test_going_on_takes_the_next_samples(tiny_backbone: Backbone) -> None:
    assert trained(tiny_backbone, 5, start=3)[1].taken == list(range(12, 20))


def test_every_trained_parameter_moves_and_the_backbone_does_not(tiny_backbone: Backbone) -> None:
    before = tiny_backbone.digest()
    torch.manual_seed(0)
    start = GoPT(tiny_backbone, GoptConfig(classes=3, rank=4, hidden=8, groups=4)).trainable_state()
    moved, _ = trained(tiny_backbone, 2)
    still = [name for name, tensor in moved.trainable_state().items() if torch.equal(tensor, start[name])]
    assert still == []
    assert tiny_backbone.digest() == before


def test_batches_leave_out_what_is_true_everywhere() -> None:
    tiles = Tiles(complete=True)
    samples = [tiles[number] for number in range(2)]
    assert set(Collate(("optical", "sar"), drop_complete=True)(samples)) == {"mask", "optical", "sar"}
    kept = Collate(("optical", "sar"), drop_complete=False)(samples)
    assert kept["validity_optical"].shape == (2, 16, 16)
    samples[1]["validity_sar"][0, 0] = False
    assert "validity_sar" in Collate(("sar",), drop_complete=True)(samples)


def test_decay_is_on_matrices_alone(tiny_backbone: Backbone) -> None:
    model = GoPT(tiny_backbone, GoptConfig(classes=3, rank=4, hidden=8, groups=4))
    plan = Plan(1, 0, 1, 1, 1e-3, batch=1, passes=1)
    module = StepModule(model, Normaliser(INFOS), SegmentationLoss("cross_entropy"), plan)
    decayed, others = module.configure_optimizers().param_groups
    assert decayed["weight_decay"] == 0.01
    assert others["weight_decay"] == 0
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    count = sum(parameter.numel() for group in (decayed, others) for parameter in group["params"])
    assert count == sum(tensor.numel() for tensor in model.trainable_state().values())
    assert isinstance(module.model, nn.Module)


SCRIPT = """
import sys
from pathlib import Path
from trainings import small_config
from gopt_geo.training.run import train
if __name__ == "__main__":
    scene = {name: Path(path) for name, path in zip(("scene", "sar", "labels"), sys.argv[2:])}
    train(small_config(scene, Path(sys.argv[1]), devices=2, batch=1, steps=3), say=print)
    print("finished")
"""


def test_two_processes_train_as_one(ground: dict[str, Path], tmp_path: Path) -> None:
    """Two processes with a tile each take the same steps as one with two tiles, and the same validation."""
    script, folder = tmp_path / "script.py", tmp_path / "two"
    script.write_text(SCRIPT)
    path = os.pathsep.join((str(Path(__file__).parents[1]), *sys.path))
    command = [sys.executable, str(script), str(folder), *(str(ground[name]) for name in ("scene", "sar", "labels"))]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished") == 1  # the second process ends where the steps do
    assert done.stderr == ""
    from gopt_geo.training.run import train

    one: TrainReport = train(small_config(ground, tmp_path / "one", batch=2, steps=3))
    rows = [MetricsTable(path / "metrics.csv", ()).rows() for path in (one.folder, folder)]
    assert [row["step"] for row in rows[1]] == [1, 2, 3]
    assert "val_miou" in rows[1][-1]
    assert (folder / "pack.gopt.safetensors").is_file()
    # Their own draws differ, as do the parts of a step: the losses are near, not the same.
    for mine, theirs in zip(*rows, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], abs=0.05)
