"""Whole trainings: the run folder, going on after whatever ended one, and refusals."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import gopt_geo
from gopt_geo.errors import CheckpointError, ConfigError, DeviceMemoryError, OutputError, RunInterrupted, TrainingError
from gopt_geo.packs import load_model, read_pack
from gopt_geo.training import checkpoints, finishing, runfolder
from gopt_geo.training.configfile import read_train_config
from gopt_geo.training.losses import SegmentationLoss
from gopt_geo.training.progress import TrainProgress
from gopt_geo.training.run import TrainReport, train
from gopt_geo.training.runfolder import MetricsTable
from trainings import STEPS, small_config

Whole = tuple[TrainReport, list[str]]
CHILD = """
import sys
from pathlib import Path
from trainings import small_config
from gopt_geo.training.run import train
def tell(state):
    print(state.stage, state.done, flush=True)
scene = {name: Path(path) for name, path in zip(("scene", "sar", "labels"), sys.argv[2:])}
train(small_config(scene, Path(sys.argv[1])), progress=tell)
"""


def figures(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(autouse=True)
def no_figures(request: pytest.FixtureRequest, undisturbed: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw in the undisturbed run alone: figures take longer than the steps."""
    monkeypatch.setattr(finishing, "find_spec", lambda _: None)


def same_as(whole: Whole, folder: Path) -> None:
    """Check that a run ended as the undisturbed one, to the bit."""
    assert figures(folder) == figures(whole[0].folder)
    assert (folder / "pack.gopt.safetensors").read_bytes() == whole[0].pack.read_bytes()


@pytest.mark.brief
def test_the_folder_of_a_run(undisturbed: Whole) -> None:
    report, said = undisturbed
    names = {path.relative_to(report.folder).as_posix() for path in report.folder.rglob("*") if path.is_file()}
    assert names == {
        *("config.yaml", "data.json", "metrics.csv", "README.md", "pack.gopt.safetensors"),
        *("curves.png", "confusion.png", "examples.png", "checkpoints/last.ckpt", "checkpoints/best.ckpt"),
    }
    rows = MetricsTable(report.folder / "metrics.csv", ()).rows()
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["step"] for row in rows if "val_miou" in row] == [3, 6, 8]
    assert report.steps == STEPS
    assert any("embedded small backbone was trained on simulated scenes" in line for line in said)
    assert any(line.startswith("pixels ") for line in said)


def test_the_pack_is_the_best_checkpoint(undisturbed: Whole) -> None:
    report, _ = undisturbed
    pack = read_pack(report.pack)
    model = load_model(pack)
    best = torch.load(report.folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert not any(name.startswith("backbone") for name in best["model"])
    assert (report.folder / "checkpoints" / "best.ckpt").stat().st_size < 6e6  # the backbone has 11 MB
    for name, tensor in model.trainable_state().items():
        assert torch.allclose(tensor, best["model"][name], atol=1e-3, rtol=1e-3)
    rows = {row["step"]: row for row in MetricsTable(report.folder / "metrics.csv", ()).rows()}
    assert best["standing"]["best_step"] == report.best_step
    assert rows[report.best_step]["val_miou"] == max(row.get("val_miou", 0) for row in rows.values())
    scores = pack.meta.provenance.scores
    assert scores["validation_miou"] == pytest.approx(rows[report.best_step]["val_miou"], abs=1e-3)
    assert scores["validation_miou"] == pytest.approx(report.validation["scores"]["mean_iou"], abs=1e-6)
    assert pack.meta.temperature == report.temperature != 1


def test_the_runs_own_configuration_gives_it_again(undisturbed: Whole) -> None:
    report, _ = undisturbed
    config = read_train_config(report.folder / "config.yaml")
    assert config.training.steps == STEPS
    assert config.model.hidden == 128
    stored = torch.load(report.folder / "checkpoints" / "last.ckpt", weights_only=True)["config"]
    assert config.model_dump(mode="json") == stored


def test_nothing_is_printed_or_logged_elsewhere(
    ground: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[TrainProgress] = []
    gopt_geo.train(small_config(ground, Path("runs/x"), steps=2), progress=told.append)
    assert capfd.readouterr() == ("", "")
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs"]
    assert [state.done for state in told if state.stage == "train"] == [1, 2]
    assert {"statistics", "train", "validate", "calibrate", "test"} <= {state.stage for state in told}


@pytest.mark.parametrize("at", ["train 5", "validate 4"])
def test_killed_and_gone_on(ground: dict[str, Path], tmp_path: Path, undisturbed: Whole, at: str) -> None:
    folder = tmp_path / "killed"
    files = [str(ground[name]) for name in ("scene", "sar", "labels")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(Path(__file__).parents[1]), *sys.path))}
    command = [sys.executable, "-c", CHILD, str(folder), *files]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == at:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "pack.gopt.safetensors").exists()
    train(small_config(ground, folder), resume=True)
    same_as(undisturbed, folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_after_the_current_step(
    ground: dict[str, Path], tmp_path: Path, undisturbed: Whole, number: signal.Signals
) -> None:
    folder = tmp_path / "stopped"
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]

    def interrupt(state: TrainProgress) -> None:
        if (state.stage, state.done) == ("train", 4):
            os.kill(os.getpid(), number)

    with pytest.raises(RunInterrupted, match=r"stopped after step 5 of 8.*--resume -o") as caught:
        train(small_config(ground, folder), progress=interrupt)
    assert caught.value.number == number
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["standing"]["step"] == 5
    train(small_config(ground, folder), resume=True)
    same_as(undisturbed, folder)


def spoil(monkeypatch: pytest.MonkeyPatch, step: int, what: Any) -> None:
    """Make the loss of a step what it is multiplied by, or raise it."""
    usual, calls = SegmentationLoss.forward, []

    def forward(self: Any, *given: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == step and isinstance(what, Exception):
            raise what
        loss: torch.Tensor = usual(self, *given)
        return loss * (what if len(calls) == step else 1)

    monkeypatch.setattr(SegmentationLoss, "forward", forward)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite(
    ground: dict[str, Path], tmp_path: Path, undisturbed: Whole, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    folder = tmp_path / "spoilt"
    with monkeypatch.context() as patch:
        spoil(patch, 6, value)
        with pytest.raises(TrainingError, match=rf"step 6: the loss is .* step 4 in {folder} stays"):
            train(small_config(ground, folder))
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["standing"]["step"] == 4
    if value != value:
        train(small_config(ground, folder), resume=True)
        same_as(undisturbed, folder)


def test_out_of_memory(ground: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 2, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(DeviceMemoryError, match=r"batches of 2 tiles of 32 x 32 pixels.*raise accumulate"):
        train(small_config(ground, tmp_path / "run"))


@pytest.mark.parametrize("where", ["checkpoint", "metrics", "pack"])
def test_a_full_disk(
    ground: dict[str, Path], tmp_path: Path, undisturbed: Whole, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    folder = tmp_path / "full"

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(state: TrainProgress) -> None:
        if where == "checkpoint" and (state.stage, state.done) == ("train", 5):
            patch.setattr(checkpoints.os, "fsync", full)
        if where == "metrics" and (state.stage, state.done) == ("train", 5):
            patch.setattr(runfolder.Path, "open", full)
        if where == "pack" and state.stage == "test":
            patch.setattr(Path, "write_bytes", full)

    with monkeypatch.context() as patch, pytest.raises(OutputError, match="the disk is full"):
        train(small_config(ground, folder), progress=fill)
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["standing"]["step"] >= 4
    train(small_config(ground, folder), resume=True)
    same_as(undisturbed, folder)


def test_a_finished_run_is_finished_again(ground: dict[str, Path], tmp_path: Path, undisturbed: Whole) -> None:
    folder = tmp_path / "again"
    train(small_config(ground, folder))
    (folder / "pack.gopt.safetensors").unlink()
    train(small_config(ground, folder), resume=True)
    same_as(undisturbed, folder)
    with pytest.raises(OutputError, match="it holds a run; go on with it by --resume"):
        train(small_config(ground, folder))
    (folder / "mine.txt").write_text("kept")
    train(small_config(ground, folder, steps=2), overwrite=True)
    assert (folder / "mine.txt").exists()
    assert len(figures(folder)) == 2


def test_patience_ends_it(ground: dict[str, Path], tmp_path: Path) -> None:
    settings = {"learning_rate": 1e-12, "validate_every": 1, "patience": 2, "augmentation": {"dropout": {}}}
    report = train(small_config(ground, tmp_path / "run", **settings))
    assert report.best_step == 1  # nothing gets better at such a rate
    assert report.steps == 3
    assert train(small_config(ground, tmp_path / "run", **settings), resume=True).steps == 3


@pytest.mark.parametrize("loss", ["cross_entropy+dice", "cross_entropy+lovasz"])
def test_other_losses(ground: dict[str, Path], tmp_path: Path, loss: str) -> None:
    settings = {"loss": loss, "class_weights": True, "accumulate": 2, "schedule": "poly", "clip": None}
    report = train(small_config(ground, tmp_path / "run", steps=2, **settings))
    losses = [float(row["loss"]) for row in figures(report.folder)]
    assert all(1 < value < 4 for value in losses)


def test_refusals(ground: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    with pytest.raises(CheckpointError, match="there is no run to go on with"):
        train(small_config(ground, folder), resume=True)
    with pytest.raises(ConfigError, match="no folder"):
        train(small_config(ground, folder).model_copy(update={"output": None}))
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"files that are no run's \(notes.txt\)"):
        train(small_config(ground, folder), overwrite=True)
    (folder / "notes.txt").unlink()
    train(small_config(ground, folder, steps=2))
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises(CheckpointError, match=r"training.batch was 2, and is 3 now"):
        train(small_config(ground, folder, steps=2, batch=3), resume=True)
    monkeypatch.setattr(gopt_geo, "__version__", "99")
    with pytest.raises(CheckpointError, match=r"gopt-geo .*, and this is 99"):
        train(small_config(ground, folder, steps=2), resume=True)
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before


def test_nothing_is_left_where_it_cannot_begin(ground: dict[str, Path], tmp_path: Path) -> None:
    missing = {**ground, "labels": tmp_path / "nowhere.tif"}
    with pytest.raises(gopt_geo.errors.GoptGeoError, match="nowhere"):
        train(small_config(missing, tmp_path / "runs" / "x"))
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib(ground: dict[str, Path], tmp_path: Path) -> None:
    report = train(small_config(ground, tmp_path / "run", steps=2))
    assert any("matplotlib isn't installed" in notice for notice in report.notices)
    assert not list(report.folder.glob("*.png"))
    assert ".png" not in (report.folder / "README.md").read_text(encoding="utf-8")
