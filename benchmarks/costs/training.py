"""What a training step costs beside full fine-tuning of the same backbone: time, and peak memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from costs.common import (
    Images,
    Section,
    Setting,
    compare,
    default_config,
    make_backbone,
    make_images,
    take_turns,
    tell_disturbance,
)
from gopt_geo.models import Backbone
from gopt_geo.models.baselines import Method, build_model

FULL = "full fine-tuning, early fusion"
METHODS: dict[str, tuple[Method, dict[str, Any]]] = {
    FULL: ("early_fusion", {}),
    "GoPT, embed_only": ("gopt", {"aux_stream": "embed_only"}),
    "GoPT, frozen": ("gopt", {"aux_stream": "frozen"}),
}
TIME_BUDGETS = {"GoPT, embed_only": 0.72, "GoPT, frozen": 1.0}
MEMORY_BUDGET = 0.55
# glibc keeps freed blocks below a threshold that grows as a process goes on, by chance more or less of them.
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
FUSED, CLOUDED = ", fused AdamW", ", a quarter of the optical image masked"


class Trainee:
    """A model with its optimisers (plain, and fused where the device has it), ready to take steps."""

    def __init__(self, name: str, backbone: Backbone) -> None:
        method, changes = METHODS[name]
        device = next(backbone.parameters()).device
        self.model = build_model(method, backbone, default_config(backbone, **changes)).to(device).train()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.plain = torch.optim.AdamW(parameters, lr=1e-5)
        self.fused: torch.optim.AdamW | None = None
        try:
            self.fused = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
        except RuntimeError:
            self.fused = None

    def step(self, images: Images, labels: Tensor, valid: Images | None = None, *, fused: bool = False) -> None:
        """Take one training step."""
        optimizer = self.fused if fused else self.plain
        assert optimizer is not None
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(self.model(images, valid), labels).backward()
        optimizer.step()


def clouds(images: Images) -> Images:
    """Mask the upper quarter of the optical image: the mask token learns, and the backward pass gets to block 1."""
    batch, _, height, width = images["optical"].shape
    there = torch.ones(batch, height, width, dtype=torch.bool, device=images["optical"].device)
    there[:, : height // 4] = False
    return {"optical": there}


def measure_time(setting: Setting) -> list[Section]:
    """Time a training step: all methods in one process, in turns."""
    images, labels = make_images(setting)
    backbone = make_backbone(setting)
    trainees = {name: Trainee(name, backbone) for name in METHODS}
    actions: dict[str, Callable[[], object]] = {n: partial(t.step, images, labels) for n, t in trainees.items()}
    references = dict.fromkeys(actions, FULL)
    for name, trainee in trainees.items():
        if trainee.fused is not None:
            actions[name + FUSED] = partial(trainee.step, images, labels, fused=True)
            references[name + FUSED] = FULL + FUSED
    for name in TIME_BUDGETS:
        actions[name + CLOUDED] = partial(trainees[name].step, images, labels, clouds(images))
        references[name + CLOUDED] = FULL
    section = Section(
        f"training step, {setting.inputs}, AdamW",
        not setting.quick,
    )
    rows = compare(take_turns(actions, setting, setting.repeats), references, setting)
    for name, row in rows.items():
        section.add(name, row, "ratio", TIME_BUDGETS.get(name))
    section.notes.append("Rows with fused AdamW are compared with full fine-tuning with fused AdamW.")
    tell_disturbance(section, setting)
    return [section]


def measure_memory(setting: Setting) -> list[Section]:
    """Peak memory of two training steps, each in fresh processes; the median, for allocators add chance."""
    masked = "GoPT, embed_only" + CLOUDED
    peaks = _peaks((*METHODS, masked), setting)
    section = Section(
        f"peak memory of two training steps, {setting.inputs}, AdamW",
        not setting.quick,
    )
    for name, runs in peaks.items():
        budget = MEMORY_BUDGET if name in TIME_BUDGETS else None
        section.add(name, _row(runs, peaks[FULL]), "ratio", budget)
    if setting.device.type == "cpu":
        live = _peaks(METHODS, setting, RETURNING)
        for name, runs in live.items():
            section.add(f"{name}, freed memory returned", _row(runs, live[FULL]))
        section.notes.append("Freed memory returned: the allocator keeps nothing, so that the peak is what is in use.")
    where = "allocated on the GPU" if setting.device.type == "cuda" else "of the process, above what the imports took"
    section.notes.append(f"Peak memory {where}; the median of {setting.repeats} fresh processes a row, in turns.")
    return [section]


def _peaks(names: Iterable[str], setting: Setting, environment: dict[str, str] | None = None) -> dict[str, list[int]]:
    turns = [{name: _peak_in_child(name, setting, environment) for name in names} for _ in range(setting.repeats)]
    return {name: [turn[name] for turn in turns] for name in turns[0]}


def _row(runs: list[int], reference: list[int]) -> dict[str, float]:
    median = statistics.median(runs)
    return {
        "MiB": round(median / 2**20, 1),
        "least": round(min(runs) / 2**20, 1),
        "most": round(max(runs) / 2**20, 1),
        "ratio": median / max(statistics.median(reference), 1),
    }


def _peak_in_child(name: str, setting: Setting, environment: dict[str, str] | None = None) -> int:
    script = Path(__file__).resolve().parents[1] / "model_costs.py"
    options = ["--peak-of", name, "--device", str(setting.device), "--threads", str(setting.threads)]
    command = [sys.executable, str(script), *options, *(["--quick"] if setting.quick else [])]
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=variables)
    return int(done.stdout)


def peak_of(name: str, setting: Setting) -> int:
    """Bytes above what the imports took, after two steps; call it in a fresh process, after all imports."""
    baseline = _status("VmRSS")
    images, labels = make_images(setting)
    trainee = Trainee(name.removesuffix(CLOUDED), make_backbone(setting))
    for _ in range(2):
        trainee.step(images, labels, clouds(images) if name.endswith(CLOUDED) else None)
    if setting.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(setting.device))
    return _status("VmHWM") - baseline


def _status(key: str) -> int:
    """Bytes that Linux tells of this process; getrusage's peak would be that of the parent at first."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {key} in /proc/self/status")
