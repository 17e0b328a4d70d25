"""Kill trainings with SIGKILL at random steps, go on with them, and compare with an undisturbed run, to the bit.

    OMP_NUM_THREADS=1 python benchmarks/resume.py --json benchmarks/results/resume.json

Compared are the rows of metrics.csv (but for the seconds) and the bytes of the pack. Every run is a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gopt_geo.simulate import CLASS_COLORS, CLASS_NAMES, CLASS_VALUES, SceneSpec, write_scene
from gopt_geo.training.progress import TrainProgress


def write_config(folder: Path, steps: int) -> Path:
    """Write a scene of 192 x 256 pixels and a configuration that trains on it."""
    paths = {stem: folder / f"{stem}.tif" for stem in ("scene", "sar", "labels", "clouds")}
    write_scene(SceneSpec(seed=11, height=192, width=256, cloud=0.1), paths)
    legend = zip(CLASS_VALUES, CLASS_NAMES, CLASS_COLORS, strict=True)
    config = {
        "scene": {
            "optical": str(paths["scene"]),
            "optical_bands": "red,green,blue",
            "sar": str(paths["sar"]),
            "labels": str(paths["labels"]),
        },
        "classes": [{"value": value, "name": name, "color": color} for value, name, color in legend],
        "ignore": [0],
        "split": {"block": 64, "buffer": 32},
        "training": {
            "tile_size": 64,
            "batch": 4,
            "steps": steps,
            "validate_every": max(2, steps // 4),
            "checkpoint_every": max(2, steps // 6),
            "accelerator": "cpu",
        },
        "title": "resumed",
    }
    path = folder / "config.json"  # YAML reads it
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def child(config: Path, output: Path, resume: bool) -> None:
    """Train in this process, telling each step."""
    from gopt_geo import api
    from gopt_geo.training.configfile import read_train_config

    def tell(state: TrainProgress) -> None:
        if state.stage == "train":
            print(state.done, flush=True)

    settings = read_train_config(config).model_copy(update={"output": str(output)})
    api.train(settings, resume=resume, progress=tell)


def run(config: Path, output: Path, *, resume: bool = False, kill_at: int | None = None, delay: float = 0.0) -> int:
    """Train in a process of its own; kill it ``delay`` seconds after a step, if one is named; return its exit code."""
    command = [sys.executable, __file__, "--child", str(config), str(output), *(["--resume"] if resume else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if kill_at is not None and line.strip() == str(kill_at):
                time.sleep(delay)
                process.send_signal(signal.SIGKILL)
                break
    return process.returncode


def result(output: Path) -> tuple[list[dict[str, str]], str]:
    """Return the rows of a run's metrics.csv without seconds, and the digest of its pack."""
    with (output / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    return rows, hashlib.sha256((output / "pack.gopt.safetensors").read_bytes()).hexdigest()


def compare(folder: Path, steps: int, times: int, seed: int) -> list[dict[str, object]]:
    """Train undisturbed once, and killed ``times`` times at random steps; return what came of each."""
    config, rng = write_config(folder, steps), np.random.default_rng(seed)
    started = time.monotonic()
    if run(config, folder / "whole"):
        raise RuntimeError("the undisturbed run failed")
    whole = result(folder / "whole")
    print(f"undisturbed: {time.monotonic() - started:.1f} s, {len(whole[0])} steps", flush=True)
    found: list[dict[str, object]] = []
    for number in range(times):
        at, delay = int(rng.integers(1, steps)), float(rng.uniform(0, 0.4))
        output = folder / f"killed{number}"
        code = run(config, output, kill_at=at, delay=delay)
        if code != -signal.SIGKILL or run(config, output, resume=True):
            raise RuntimeError(f"run {number}: exit code {code}, or it didn't go on")
        rows, pack = result(output)
        entry = {"killed_after_step": at, "delay_s": round(delay, 3)}
        found.append({**entry, "same_figures": rows == whole[0], "same_pack": pack == whole[1]})
        print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the steps at which it is killed")
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--child", nargs=2, type=Path, metavar=("CONFIG", "OUTPUT"), help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child, given.resume)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder), given.steps, given.times, given.seed)
    same = sum(bool(entry["same_figures"] and entry["same_pack"]) for entry in found)
    print(f"{same} of {len(found)} the same as undisturbed")
    if given.json is not None:
        content = {"steps": given.steps, "same": same, "of": len(found), "runs": found}
        given.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    sys.exit(same != len(found))


if __name__ == "__main__":
    main()
