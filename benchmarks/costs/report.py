"""What benchmarks of several sections share: running them, telling the machine, the JSON file, the exit code."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

from costs.common import Section

__all__ = ["device_name", "run_sections", "section_parser"]

S = TypeVar("S")


def device_name(device: torch.device) -> str:
    """Name the GPU, or the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)


def section_parser(description: str | None, sections: Iterable[str]) -> argparse.ArgumentParser:
    """Return a parser that knows what all benchmarks of several sections are asked for."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(sections)
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="SECTION", help=f"of {', '.join(names)}"
    )
    parser.add_argument("--json", type=Path)
    return parser


def run_sections(
    sections: Mapping[str, Callable[[S], list[Section]]],
    only: Sequence[str],
    setting: S,
    machine: Mapping[str, Any],
    path: Path | None,
    console: Console,
) -> int:
    """Measure and print sections, write the JSON file if one is wanted; 1 if a budget was missed, else 0."""
    found: dict[str, list[Section]] = {}
    missed = _write(found, machine, path)
    for name in only:
        found[name] = sections[name](setting)
        for section in found[name]:
            section.show(console)
        missed = _write(found, machine, path)  # after each section: a run that is cut off has not been for nothing
    for line in missed:
        console.print(f"missed: {line}")
    return 1 if missed else 0


def _write(found: Mapping[str, Sequence[Section]], machine: Mapping[str, Any], path: Path | None) -> list[str]:
    """Write the JSON file, if one is wanted; the budgets that were missed so far."""
    missed = [line for sections in found.values() for section in sections for line in section.missed]
    if path is not None:
        figures = {name: [section.to_dict() for section in sections] for name, sections in found.items()}
        document = {**machine, "missed": missed, **figures}
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return missed
