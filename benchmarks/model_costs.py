"""What GoPT costs beside full fine-tuning and beside the bare backbone: parameters, time, memory, switching, precision.

    OMP_NUM_THREADS=1 python benchmarks/model_costs.py --json benchmarks/results/model_costs.json
    python benchmarks/model_costs.py --device cuda --only training memory forward precision

ViT-B/16 with random weights (and ViT-L/16 where parameters are counted), 256 x 256 pixels, batches of 4, seven classes.
Times are ratios within one run: the models take turns, step by step, so that a busy spell hits all alike. On the CPU
the processor time of the process counts, on a GPU the wall time after synchronising. Each memory figure comes from a
process of its own. Ends with exit code 1 if a budget is missed, after printing everything.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable
from typing import Any

import timm
import torch
from costs import forward, parameters, precision, switching, training
from costs.common import Section, Setting
from costs.report import device_name, run_sections, section_parser
from rich.console import Console

SECTIONS: dict[str, Callable[[Setting], list[Section]]] = {
    "parameters": parameters.measure,
    "training": training.measure_time,
    "memory": training.measure_memory,
    "forward": forward.measure,
    "switching": switching.measure,
    "precision": precision.measure,
}


def machine(setting: Setting) -> dict[str, Any]:
    """Tell what the figures were measured on."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__}
    name = device_name(setting.device)
    return {"device": name, "threads": setting.threads, "repeats": setting.repeats, "versions": versions}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write the JSON file; the exit code."""
    parser = section_parser(__doc__, SECTIONS)
    parser.add_argument("--device", default="cpu", type=torch.device, help="cpu or cuda[:n]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each training step; other things take more")
    parser.add_argument("--quick", action="store_true", help="a tiny backbone, to see that all runs; judges no budget")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)  # for the processes that measure memory
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    setting = Setting(given.device, given.threads, given.repeats, given.quick)
    if given.peak_of is not None:
        sys.stdout.write(f"{training.peak_of(given.peak_of, setting)}\n")
        return 0
    console = Console(width=170, highlight=False)
    return run_sections(SECTIONS, given.only, setting, machine(setting), given.json, console)


if __name__ == "__main__":
    raise SystemExit(main())
