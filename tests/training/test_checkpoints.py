"""Checkpoints: whole or not at all, plain, verified, and of one training alone."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gopt_geo.errors import CheckpointError, OutputError, TrainingError
from gopt_geo.training import checkpoints
from gopt_geo.training.checkpoints import Checkpoint, Standing, read_checkpoint, write_atomically, write_checkpoint
from gopt_geo.training.identity import MAY_DIFFER, Identity

IDENTITY = Identity(
    version="1.0",
    config={"output": "a", "training": {"batch": 4, "workers": 0, "tile_size": [32, 32]}, "model": {"rank": 8}},
    backbone={"id": "b", "sha256": "0" * 64},
    data={"modalities": {"optical": {"mean": [0.1, 0.2]}}, "labelled_pixels": [[5, 6]]},
)
OTHER_BATCH = {"batch": 2, "workers": 0, "tile_size": [32, 32]}


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    linear = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(linear.parameters())
    linear(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    standing = Standing(step=7, seconds=1.5, miou=0.25, best_step=5, best_miou=0.5, waited=1)
    return Checkpoint(IDENTITY, standing, linear.state_dict(), optimizer.state_dict(), {})


@pytest.mark.brief
def test_comes_back_whole_and_plain(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, checkpoint)
    raw = torch.load(path, weights_only=True)
    assert raw["standing"]["step"] == 7
    assert raw["config"] == IDENTITY.config
    found = read_checkpoint(path)
    assert found.identity == IDENTITY
    assert found.standing == checkpoint.standing
    assert all(torch.equal(found.model[name], tensor) for name, tensor in checkpoint.model.items())
    assert torch.equal(found.optimizer["state"][0]["exp_avg"], checkpoint.optimizer["state"][0]["exp_avg"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_damage_is_told_and_the_other_checkpoint_named(tmp_path: Path, checkpoint: Checkpoint, damage: str) -> None:
    last, best = tmp_path / "last.ckpt", tmp_path / "best.ckpt"
    write_checkpoint(last, checkpoint)
    write_checkpoint(best, checkpoint)
    content = bytearray(last.read_bytes())
    place = content.index(checkpoint.model["weight"].numpy().tobytes())
    content[place] ^= 1
    cut = {"cut": content[: len(content) // 2], "flip": content, "empty": b"", "text": b"hello" * 100}
    last.write_bytes(bytes(cut[damage]))
    with pytest.raises(CheckpointError, match="damaged") as caught:
        read_checkpoint(last)
    assert caught.value.subject == str(last)
    assert str(best) in caught.value.remedy


@pytest.mark.parametrize(
    ("key", "value", "words"), [("kind", "x", "isn't a checkpoint of"), ("format", 99, "format 99")]
)
def test_other_files_and_formats(tmp_path: Path, checkpoint: Checkpoint, key: str, value: Any, words: str) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, checkpoint)
    torch.save({**torch.load(path, weights_only=True), key: value}, path)
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "done"),)

    torch.save({"kind": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "done").exists()


def test_weights_that_are_not_finite_never_replace_those_that_are(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, checkpoint)
    before = path.read_bytes()
    bad = {**checkpoint.model, "bias": torch.tensor([1.0, float("nan")])}
    with pytest.raises(TrainingError, match=r"step 7.*bias isn't finite"):
        write_checkpoint(path, replace(checkpoint, model=bad))
    assert path.read_bytes() == before


@pytest.fixture
def small_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path: Path, small_files: None) -> None:
    path = tmp_path / "last.ckpt"
    write_atomically(path, b"first")
    with pytest.raises(OutputError, match="larger than files may be"):
        write_atomically(path, bytes(5000))
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoint) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, checkpoint)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OutputError, match=r"the disk is full; free some space and go on with --resume"):
        write_checkpoint(path, checkpoint)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "2.0"}, "written by gopt-geo 1.0, and this is 2.0"),
        ({"config": {**IDENTITY.config, "training": OTHER_BATCH}}, "training.batch was 4, and is 2"),
        ({"config": {**IDENTITY.config, "model": {}}}, "model.rank was 8, and is null"),
        ({"backbone": {"id": "b", "sha256": "1" * 64}}, "SHA-256 000000000000"),
        ({"data": {**IDENTITY.data, "labelled_pixels": [[5, 7]]}}, "data have changed.*labelled_pixels"),
    ],
)  # fmt: skip
def test_another_trainings_checkpoint(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        replace(IDENTITY, **change).check(IDENTITY, Path("last.ckpt"))


def test_what_may_differ() -> None:
    training = {"batch": 4, "workers": 3, "tile_size": (32, 32)}
    data = {**IDENTITY.data, "modalities": {"optical": {"mean": [0.1 + 1e-12, 0.2]}}}
    config = {**IDENTITY.config, "output": "b", "training": training}
    replace(IDENTITY, config=config, data=data).check(IDENTITY, Path("last.ckpt"))


def test_keys_that_may_differ_exist() -> None:
    from gopt_geo.training.config import TrainConfig

    for key in MAY_DIFFER:
        fields: Any = TrainConfig.model_fields
        *sections, name = key.split(".")
        for section in sections:
            fields = fields[section].annotation.model_fields
        assert name in fields
