"""What is measured, and the processes that it is measured in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batches.cluster import ENVIRONMENT, Cluster

__all__ = ["Setting", "child", "lines_of"]

_CHILD = Path(__file__).with_name("child.py")


@dataclass
class Setting:
    """What is measured.

    Attributes
    ----------
    folder
        For inputs, maps and logs.
    regions, size, model, turns
        Of the batch that is mapped.
    many, workers
        Regions that are scheduled without being mapped, and workers that take them.
    kills, killed, seed
        How often a client is killed, in batches of how many regions, and the seed of the moments.
    quick
        A tiny backbone, small scenes, few regions: whether everything runs. Budgets of time and memory are not judged.
    shared
        A cluster that serves all sections; else each starts its own.
    """

    folder: Path
    regions: int = 16
    size: int = 2048
    model: str = "vit-s"
    turns: int = 1
    many: int = 100_000
    workers: int = 1
    kills: int = 3
    killed: int = 20_000
    seed: int = 0
    quick: bool = False
    shared: Cluster | None = None

    def __post_init__(self) -> None:
        self.tile_size, self.overlap = 512, 64
        if self.quick:
            self.regions, self.size, self.model, self.turns = 4, 200, "vit-t", 1
            self.tile_size, self.overlap = 128, 16
            self.many, self.kills, self.killed = 300, 1, 300

    def cluster(self, name: str, workers: int) -> AbstractContextManager[Cluster]:
        """Start a cluster, with the folder's name for its logs, or lend the shared one."""
        return nullcontext(self.shared) if self.shared is not None else Cluster(self.folder / name, workers)


@contextmanager
def child(kind: str, task: dict[str, Any], place: Path) -> Iterator[subprocess.Popen[str]]:
    """Start `batches/child.py` on a task, which is written beside its results; kill it if it is left early."""
    path = place.with_suffix(".json")
    path.write_text(json.dumps(task, default=str), encoding="utf-8")
    command = [sys.executable, str(_CHILD), kind, str(path)]
    with (
        place.with_suffix(".log").open("ab") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=ENVIRONMENT) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def lines_of(kind: str, task: dict[str, Any], place: Path) -> list[dict[str, Any]]:
    """Run `batches/child.py` to its end; return what it told.

    Raises
    ------
    RuntimeError
        If it fails, with the end of its log.
    """
    with child(kind, task, place) as process:
        assert process.stdout is not None
        lines = [json.loads(line) for line in process.stdout]
    if process.returncode:
        log = place.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"{kind} failed with exit code {process.returncode}: {log[-3000:]}")
    return lines
