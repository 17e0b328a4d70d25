"""The benchmarks run: on a tiny backbone, and each row of the ablation can be built."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
import torch

from benchmarkmodule import BENCHMARKS, load_benchmark
from gopt_geo.models import GoptConfig, load_backbone
from gopt_geo.models.baselines import build_model


@pytest.fixture(scope="module")
def ablation():
    return load_benchmark("ablation")


def test_the_costs_are_measured_shown_and_written(tmp_path):
    target = tmp_path / "costs.json"
    command = [sys.executable, BENCHMARKS / "model_costs.py", "--quick", "--repeats", "1", "--json", target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    document = json.loads(target.read_text())
    assert {"parameters", "training", "memory", "forward", "switching", "precision"} <= set(document)
    assert document["missed"] == []
    assert "full fine-tuning" in done.stdout


def test_a_missed_budget_is_shown_and_makes_the_command_fail(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    costs = importlib.import_module("model_costs")
    common = importlib.import_module("costs.common")

    def measure(setting):
        section = common.Section("steps", judged=not setting.quick)
        section.add("slow", {"ratio": 1.5}, "ratio", 1.0)
        section.add("quick", {"ratio": 0.5}, "ratio", 1.0)
        return [section]

    monkeypatch.setitem(costs.SECTIONS, "training", measure)
    threads = torch.get_num_threads()
    target = tmp_path / "costs.json"
    arguments = ["--only", "training", "--threads", str(threads), "--json", str(target)]
    assert costs.main(arguments) == 1
    shown = capsys.readouterr().out
    assert "ratio <= 1" in shown
    assert "missed: steps: slow: ratio is 1.5, its budget is 1" in shown
    assert len(json.loads(target.read_text())["missed"]) == 1
    assert costs.main([*arguments, "--quick"]) == 0  # a tiny model's ratios say nothing
    assert "missed" not in capsys.readouterr().out


@torch.no_grad()
def test_every_row_of_the_ablation_can_be_built_and_differs(ablation):
    backbone = load_backbone("gopt-geo:demo-vit-p8")
    images = {name: torch.randn(1, 3, 16, 16) for name in ("optical", "sar")}
    kinds = set()
    for run in ablation.RUNS.values():
        config = GoptConfig.model_validate({"classes": 7, **ablation.BASE, **run.changes})
        assert build_model(run.method, backbone, config).eval()(images).shape == (1, 7, 16, 16)
        assert run.family in ablation.RATES
        kinds.add((run.method, config, run.zero_sar))
    assert len(kinds) == len(ablation.RUNS)
    assert len({ablation.file_name(name, 0, None) for name in ablation.RUNS}) == len(ablation.RUNS)


def test_no_scene_of_the_ablation_serves_two_purposes(ablation):
    spans = [set(span) for span in (ablation.TRAINING, ablation.VALIDATION, ablation.TEST)]
    assert not spans[0] & spans[1]
    assert not spans[0] & spans[2]
    assert not spans[1] & spans[2]
    assert set(ablation.TUNED_ON) == set(ablation.RATES)
    assert all(ablation.RUNS[name].family == family for family, name in ablation.TUNED_ON.items())
