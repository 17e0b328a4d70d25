"""GoPT against its baselines, and every switch of it, on simulated scenes: one table, made by one command.

    python benchmarks/ablation.py --json benchmarks/results/ablation.json

All models stand on the embedded demo backbone and start from the same head, the one of the optical-only pack; all see
the same crops in the same order, for the same number of steps. Learning rates are chosen per family on validation
scenes (--tune), then each run is trained with several seeds and scored on test scenes that neither training nor any
choice saw. Each run is a process of its own on one thread and leaves a JSON file in --out, so a rerun does only what
is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
TRAINING = range(1000, 1080)
VALIDATION = range(5000, 5004)
TEST = range(9000, 9012)
TILE, BATCH, STEPS = 128, 4, 400
TUNING_SEED = 100


@dataclass(frozen=True)
class Run:
    """One row of the table: a method, what differs from the default configuration, and the family of its rate."""

    method: str = "gopt"
    changes: dict[str, Any] = field(default_factory=dict)
    family: str = "gopt"
    zero_sar: bool = False


BASE: dict[str, Any] = {
    "hidden": 128,
    "upscale": 8,
    "assignment": "hard",
    "acp_mode": "assignment",
    "token_value": True,
    "aux_stream": "embed_only",
    "inject": "add",
    "groups": 8,
}
"""GoPT as the table's other rows change it, whatever the package's defaults are; the head is the demo's."""
PLAIN = {"token_value": False}

RUNS: dict[str, Run] = {
    "RGB only": Run("rgb_only", family="head"),
    "SAR only": Run("sar_only", family="head"),
    "early fusion, full fine-tuning": Run("early_fusion", family="early_fusion"),
    "ViPT-style prompts": Run("vipt", family="vipt"),
    "deep VPT": Run("vpt", family="vpt"),
    "assignment + token value": Run(),
    "similarity + token value": Run(changes={"acp_mode": "similarity"}),
    "both + token value": Run(changes={"acp_mode": "both"}),
    "assignment": Run(changes=PLAIN, family="plain"),
    "similarity": Run(changes={"acp_mode": "similarity", **PLAIN}, family="plain"),
    "both": Run(changes={"acp_mode": "both", **PLAIN}, family="plain"),
    "ACP off: broadcast": Run(changes={"acp_mode": "broadcast", **PLAIN}, family="plain"),
    "CUP off: cross-attention": Run(changes={"cup": "cross_attention"}, family="ungrouped"),
    "CUP off: pointwise": Run(changes={"cup": "pointwise"}, family="ungrouped"),
    "SAR set to zero": Run(zero_sar=True),
    "soft assignment": Run(changes={"assignment": "soft"}),
    "soft assignment, no token value": Run(changes={"assignment": "soft", **PLAIN}, family="plain"),
    "frozen auxiliary stream": Run(changes={"aux_stream": "frozen"}),
    "inject: mul": Run(changes={"inject": "mul"}),
    "prompters on layers 1, 3, 5": Run(changes={"layers": [1, 3, 5]}),
    "prompters on layers 1, 5": Run(changes={"layers": [1, 5]}),
    "K = 4": Run(changes={"groups": 4}),
    "K = 16": Run(changes={"groups": 16}),
}
"""Rows without more words are GoPT with assignment, token value, K = 8, all layers, hard, embed_only, add."""

RATES = {
    "head": (3e-3, 1e-2),
    "early_fusion": (3e-4, 1e-3, 3e-3),
    "vipt": (3e-3, 1e-2),
    "vpt": (3e-3, 1e-2),
    "gopt": (3e-3, 6e-3, 1e-2),
    "plain": (1e-3, 3e-3, 6e-3),
    "ungrouped": (3e-3, 1e-2),
}
TUNED_ON = {
    "head": "SAR only",
    "early_fusion": "early fusion, full fine-tuning",
    "vipt": "ViPT-style prompts",
    "vpt": "deep VPT",
    "gopt": "assignment + token value",
    "plain": "assignment",
    "ungrouped": "CUP off: pointwise",
}


def file_name(name: str, seed: int, rate: float | None) -> str:
    """Name of a run's result."""
    plain = "".join(c if c.isalnum() else "-" for c in name)
    return f"{plain}_seed{seed}{'' if rate is None else f'_rate{rate:g}'}.json"


# --- one run, in a process of its own --------------------------------------------------------------------------------


def stored(out: Path, seeds: range) -> dict[str, NDArray[Any]]:
    """Scenes of these seeds, simulated once and kept in ``out``."""
    from gopt_geo.training.crops import SceneStore

    path = out / f"scenes_{seeds.start}_{seeds.stop}.npz"
    if not path.exists():
        store = SceneStore(seeds)
        part = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(part, optical=store.optical, sar=store.sar, labels=store.labels)
        part.replace(path)
    return dict(np.load(path))


def train_and_score(name: str, seed: int, rate: float, out: Path, scenes: range, steps: int) -> dict[str, Any]:
    """Train one run and score it on scenes that it didn't see."""
    import torch
    from torch import Tensor

    from gopt_geo.models import GoptConfig
    from gopt_geo.models.baselines import build_model
    from gopt_geo.packs import load_model, read_pack
    from gopt_geo.training.crops import Batch, CropSampler, Faults, SceneStore
    from gopt_geo.training.fit import class_weights, fit

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    run = RUNS[name]
    start = load_model(read_pack(HERE / "packs" / "optical_only.safetensors"))
    config = GoptConfig.model_validate({"classes": start.config.classes, **BASE, **run.changes})
    model = build_model(run.method, start.backbone, config)  # type: ignore[arg-type]
    model.head.load_state_dict(start.head.state_dict())
    data = stored(out, TRAINING)
    store = SceneStore.from_arrays(data["optical"], data["sar"], data["labels"])
    statistics = {n: store.statistics(n) for n in ("optical", "sar")}
    sampler = CropSampler(store, statistics, size=TILE, batch=BATCH, faults=Faults(), seed=1_000_000 + seed)
    weights = class_weights(store.class_shares(config.classes))
    names = model.config.modalities

    def forward(batch: Batch) -> Tensor:
        images = {m: batch.images[m] for m in names}
        if run.zero_sar:
            images["sar"] = torch.zeros_like(images["sar"])
        logits: Tensor = model(images)
        return logits

    started = time.monotonic()
    loss = fit(model, forward, sampler, steps=steps, rate=rate, weights=weights)
    seconds = time.monotonic() - started
    result = score(model, statistics, stored(out, scenes), run.zero_sar)
    if scenes is not VALIDATION:
        # Defaults are chosen by this figure, so that the other one stays out of every choice.
        result["validation_miou"] = score(model, statistics, stored(out, VALIDATION), run.zero_sar)["miou"]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "name": name,
        "seed": seed,
        "rate": rate,
        "steps": steps,
        "loss": loss,
        "train_seconds": round(seconds, 1),
        "trained_parameters": trained,
        **result,
    }


def score(model: Any, statistics: Any, data: dict[str, NDArray[Any]], zero_sar: bool) -> dict[str, Any]:
    """IoU per class over all pixels of all scenes, through the project's tiler; and how the groups are used."""
    from gopt_geo.inference import BlendedRows, TileOptions, run_tiles
    from gopt_geo.inference.packmodel import PackModel
    from gopt_geo.scene.arrays import ArrayScene
    from gopt_geo.simulate import CLASS_NAMES
    from gopt_geo.training.demo import describe

    meta = describe(model, "ablation", statistics, tile=TILE)
    runner = PackModel(model, meta, TILE)
    options = TileOptions(tile_size=TILE, overlap=TILE // 4, batch_size=BATCH)
    classes = len(CLASS_NAMES)
    total = np.zeros((classes, classes), dtype=np.int64)
    for optical, sar, labels in zip(data["optical"], data["sar"], data["labels"], strict=True):
        sar = np.full_like(sar, statistics["sar"][0][0]) if zero_sar else sar
        values = {"optical": optical.astype(np.float32), "sar": sar.astype(np.float32)}
        values = {n: values[n] for n in model.config.modalities}
        source = ArrayScene(values, {n: np.ones(labels.shape, dtype=bool) for n in values})
        predicted = np.zeros(labels.shape, dtype=np.int64)

        def sink(rows: BlendedRows, predicted: NDArray[np.int64] = predicted) -> None:
            w = rows.window
            predicted[w.row : w.row_stop, w.col : w.col_stop] = rows.probabilities.argmax(axis=0)

        run_tiles(source, runner, options, sink=sink)
        np.add.at(total, (labels.ravel(), predicted.ravel()), 1)
    hits = np.diag(total)
    iou = hits / (total.sum(axis=1) + total.sum(axis=0) - hits)
    return {
        "miou": float(iou.mean()),
        "oa": float(hits.sum() / total.sum()),
        "iou": dict(zip(CLASS_NAMES, iou.round(4).tolist(), strict=True)),
    }


# --- all runs --------------------------------------------------------------------------------------------------------


def launch(job: tuple[str, int, float, str], out: Path, steps: int) -> None:
    """Run one job in a process of its own, unless its result is there."""
    name, seed, rate, scenes = job
    path = out / file_name(name, seed, rate if scenes == "validation" else None)
    if path.exists():
        return
    given = ["--run", name, "--seed", str(seed), "--rate", str(rate), "--scenes", scenes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *given, "--out", str(out), "--steps", str(steps), "--result", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}, seed {seed}: {done.stderr[-2000:]}")
    found = json.loads(path.read_text())
    print(f"{name}, seed {seed}, rate {rate:g}: mIoU {found['miou']:.4f} ({found['train_seconds']} s)", flush=True)


def in_parallel(jobs: list[tuple[str, int, float, str]], out: Path, workers: int, steps: int) -> None:
    """Run all jobs, ``workers`` at a time."""
    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(launch, job, out, steps) for job in jobs]:
            future.result()


def tune(out: Path, workers: int, steps: int) -> dict[str, float]:
    """Choose each family's rate by mIoU on the validation scenes, one seed that no run uses."""
    jobs = [(TUNED_ON[f], TUNING_SEED, rate, "validation") for f, rates in RATES.items() for rate in rates]
    in_parallel(jobs, out, workers, steps)
    chosen = {}
    for family, rates in RATES.items():
        scores = {r: json.loads((out / file_name(TUNED_ON[family], TUNING_SEED, r)).read_text())["miou"] for r in rates}
        chosen[family] = max(scores, key=scores.__getitem__)
        print(f"rate of {family}: {chosen[family]:g}, from {scores}", flush=True)
    return chosen


def summary(out: Path, seeds: int, names: list[str]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of each run that is complete."""
    rows = {}
    for name in names:
        found = [json.loads(p.read_text()) for s in range(seeds) if (p := out / file_name(name, s, None)).exists()]
        if not found:
            continue
        scores = np.array([f["miou"] for f in found])
        rows[name] = {
            "seeds": len(found),
            "miou": round(float(scores.mean()), 4),
            "std": round(float(scores.std(ddof=1)), 4) if len(found) > 1 else None,
            "miou_by_seed": [round(float(s), 4) for s in scores],
            "validation_miou": round(float(np.mean([f["validation_miou"] for f in found])), 4),
            "oa": round(float(np.mean([f["oa"] for f in found])), 4),
            "iou": {c: round(float(np.mean([f["iou"][c] for f in found])), 3) for c in found[0]["iou"]},
            "trained_parameters": found[0]["trained_parameters"],
            "rate": found[0]["rate"],
        }
    return rows


def table(rows: dict[str, Any], title: str) -> None:
    """Print the rows as a table that Markdown reads too."""
    classes = list(next(iter(rows.values()))["iou"])
    print(f"\n{title}\n")
    print("| run | mIoU | std | validation | OA | trained | " + " | ".join(classes) + " |")
    print("|" + "---|" * (6 + len(classes)))
    for name, row in rows.items():
        spread = "" if row["std"] is None else f"{row['std']:.3f}"
        scores = " | ".join(f"{v:.3f}" for v in row["iou"].values())
        means = f"{row['miou']:.3f} | {spread} | {row['validation_miou']:.3f} | {row['oa']:.3f}"
        print(f"| {name} | {means} | {row['trained_parameters']:,} | {scores} |")


def main() -> None:
    """Parse the command line; run all, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder of the runs' results")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time, one thread each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS), metavar="RUN")
    parser.add_argument("--table-only", action="store_true", help="train nothing; show what is there")
    parser.add_argument("--json", type=Path)
    for name, kind in (("run", str), ("seed", int), ("rate", float), ("scenes", str), ("result", Path)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.run is not None:
        scenes = VALIDATION if given.scenes == "validation" else TEST
        result = train_and_score(given.run, given.seed, given.rate, given.out, scenes, given.steps)
        part = given.result.with_suffix(".part")
        part.write_text(json.dumps(result, indent=1) + "\n")
        part.replace(given.result)
        return
    prepare: list[Callable[[], Any]] = [lambda s=s: stored(given.out, s) for s in (TRAINING, VALIDATION, TEST)]
    for step in prepare:
        step()
    rates = tune(given.out, given.workers, given.steps)
    if not given.table_only:
        jobs = [(n, s, rates[RUNS[n].family], "test") for s in range(given.seeds) for n in given.only]
        in_parallel(jobs, given.out, given.workers, given.steps)
    rows = summary(given.out, given.seeds, given.only)
    table(rows, f"mIoU on {len(TEST)} unseen simulated scenes, mean of {given.seeds} seeds, {given.steps} steps")
    if given.json is not None:
        seeds = {
            n: [r.start, r.stop - 1] for n, r in (("training", TRAINING), ("validation", VALIDATION), ("test", TEST))
        }
        document = {"scenes": seeds, "tile": TILE, "batch": BATCH, "steps": given.steps, "rates": rates, "runs": rows}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
