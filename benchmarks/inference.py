"""Prediction against its budgets: end to end, half-empty scenes, one map however it is made, precisions, stages.

    OMP_NUM_THREADS=1 python benchmarks/inference.py --json benchmarks/results/inference.json
    python benchmarks/inference.py --device cuda --model vit-b --precision bf16 --compile --size 8192 --readers 12

GoPT on ViT-S/16 with random weights, tiles of 512 with an overlap of 64, seven classes; simulated scenes of four
optical bands and one of SAR in another UTM zone. Times are ratios within one run, turn by turn (ABAB). On the CPU the
processor time of the process counts, which other work on the machine disturbs least, on a GPU the wall time.
`--size 1024` is a quick look. Ends with exit code 1 if a budget is missed, after printing everything.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from costs.common import Section
from costs.report import device_name, run_sections, section_parser
from rich.console import Console
from speed import endtoend, exact, reduced, stages
from speed.setting import Setting

from gopt_geo.inference.reading import usual_readers

SECTIONS: dict[str, Callable[[Setting], list[Section]]] = {
    "end-to-end": endtoend.measure_end_to_end,
    "half-empty": endtoend.measure_empty,
    "exact": exact.measure,
    "reduced": reduced.measure,
    "stages": stages.measure,
}


def machine(setting: Setting) -> dict[str, Any]:
    """Tell what the figures were measured on."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {
        "device": device_name(setting.device),
        "threads": setting.threads,
        "turns": setting.turns,
        "size": setting.size,
        "versions": versions,
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = section_parser(__doc__, SECTIONS)
    parser.add_argument("--size", type=int, default=4096, help="edge of the scenes in pixels")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of the model on a CPU")
    parser.add_argument("--readers", type=int, help="reading threads; else as predict takes")
    parser.add_argument("--model", choices=["vit-t", "vit-s", "vit-b"], default="vit-s")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu", type=torch.device, help="cpu or cuda[:n]")
    parser.add_argument("--folder", type=Path, help="for scenes and maps, kept there; else a temporary one")
    parser.add_argument("--quick", action="store_true", help="tiny scenes, to see that all runs; judges no time")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write the JSON file; the exit code."""
    given = parse(arguments)
    console = Console(width=190, highlight=False)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        setting = Setting(
            folder,
            given.device,
            threads=given.threads,
            turns=given.turns,
            size=given.size,
            model=given.model,
            precision=given.precision,
            compiled=given.compile,
            readers=given.readers if given.readers is not None else usual_readers(given.device),
            quick=given.quick,
        )
        return run_sections(SECTIONS, given.only, setting, machine(setting), given.json, console)


if __name__ == "__main__":
    raise SystemExit(main())
