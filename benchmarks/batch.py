"""Batches of maps on dask workers: two workers against one and predict, what scheduling takes, and resumption.

    OMP_NUM_THREADS=1 python benchmarks/batch.py --json benchmarks/results/batch.json
    python benchmarks/batch.py --only scheduling resumption --many 10000

GoPT on ViT-S/16 with random weights, one thread a worker; all regions are one simulated scene of four optical bands and
one of SAR in another UTM zone. For scheduling and resumption workers make no map. Scheduler, workers and clients are
processes of their own. Ends with exit code 1 if a budget is missed, after printing everything.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import distributed
import torch
from batches import scaling, scheduling
from batches.cluster import Cluster
from batches.setting import Setting
from costs.common import Section
from costs.report import device_name, run_sections, section_parser
from rich.console import Console

SECTIONS: dict[str, Callable[[Setting], list[Section]]] = {
    "scaling": scaling.measure,
    "scheduling": scheduling.measure,
    "resumption": scheduling.measure_resumption,
}


def machine(setting: Setting) -> dict[str, Any]:
    """Tell what the figures were measured on."""
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "distributed": distributed.__version__,
    }
    return {
        "device": device_name(torch.device("cpu")),
        "cores": len(os.sched_getaffinity(0)),
        "turns": setting.turns,
        "versions": versions,
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = section_parser(__doc__, SECTIONS)
    parser.add_argument("--regions", type=int, default=16, help="that are mapped")
    parser.add_argument("--size", type=int, default=2048, help="their edge in pixels")
    parser.add_argument("--model", choices=["vit-s", "vit-b", "vit-t"], default="vit-s")
    parser.add_argument("--turns", type=int, default=1, help="of mapping")
    parser.add_argument("--many", type=int, default=100_000, help="regions that are scheduled without being mapped")
    parser.add_argument("--workers", type=int, default=1, help="that take them")
    parser.add_argument("--kills", type=int, default=3, help="clients that are killed")
    parser.add_argument("--killed", type=int, default=20_000, help="regions of the batches whose client is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--folder", type=Path, help="for inputs, maps and logs, kept there; else a temporary one")
    parser.add_argument("--quick", action="store_true", help="few, tiny regions, to see that all runs; judges no time")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write the JSON file; the exit code."""
    given = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that scheduler and workers end, too
    console = Console(width=190, highlight=False)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.folder or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        setting = Setting(
            folder,
            regions=given.regions,
            size=given.size,
            model=given.model,
            turns=given.turns,
            many=given.many,
            workers=given.workers,
            kills=given.kills,
            killed=given.killed,
            seed=given.seed,
            quick=given.quick,
        )
        with ExitStack() as stack:
            if given.quick:
                setting.shared = stack.enter_context(Cluster(folder / "cluster", 2 if "scaling" in given.only else 1))
            return run_sections(SECTIONS, given.only, setting, machine(setting), given.json, console)


if __name__ == "__main__":
    raise SystemExit(main())
