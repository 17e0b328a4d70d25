"""Time of the wall and of the processor, taken in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

__all__ = ["Clocks", "in_turns"]


@dataclass
class Clocks:
    """Seconds of each turn: of the wall clock, and of the processor (all threads of this process)."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def main(self, device: torch.device) -> float:
        """Median of the figure that counts: of the processor on a CPU, which others disturb least, else of the wall."""
        return statistics.median(self.processor if device.type == "cpu" else self.wall)

    def row(self) -> dict[str, float]:
        """Both medians."""
        return {"wall s": statistics.median(self.wall), "processor s": statistics.median(self.processor)}


def in_turns(actions: Mapping[str, Callable[[], object]], turns: int, device: torch.device) -> dict[str, Clocks]:
    """Run actions one after the other (ABAB ...), so that a busy spell hits all alike."""
    clocks = {name: Clocks() for name in actions}
    for _ in range(turns):
        for name, action in actions.items():
            _finish(device)
            wall, processor = time.perf_counter(), time.process_time()
            action()
            _finish(device)
            clocks[name].wall.append(time.perf_counter() - wall)
            clocks[name].processor.append(time.process_time() - processor)
    return clocks


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
