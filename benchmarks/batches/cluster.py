"""A dask scheduler and workers, each a process of its own, so that what the client takes can be told from the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import psutil

__all__ = ["ENVIRONMENT", "Cluster", "processor_seconds"]

_HERE = Path(__file__).resolve().parents[1]
_PATIENCE = 120.0  # seconds that a scheduler or a worker may take to come
_END = 20.0  # seconds that one may take to end when asked to

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(_HERE.parent), str(_HERE), os.environ.get("PYTHONPATH", "")]),
    "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error",
}
"""Of all processes of the benchmark: one thread a model, this checkout's code."""


def processor_seconds(processes: Sequence[psutil.Process]) -> float:
    """Processor time of processes so far, all of their threads."""
    times = [process.cpu_times() for process in processes]
    return float(sum(one.user + one.system for one in times))


class Cluster:
    """A scheduler and single-threaded workers. A context manager; all processes have ended when it is left.

    Parameters
    ----------
    folder
        For the scheduler file and the logs.
    workers
        How many.

    Attributes
    ----------
    file : Path
        The scheduler file.
    scheduler : int
        The number of its process.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        self._folder, self._number = folder, workers
        self._started: list[subprocess.Popen[bytes]] = []
        self.file = folder / "scheduler.json"

    def __enter__(self) -> Cluster:
        from distributed import Client

        self._folder.mkdir(parents=True, exist_ok=True)
        self.file.unlink(missing_ok=True)
        try:
            common = ["--no-dashboard", "--scheduler-file", str(self.file)]
            self.scheduler = self._start("scheduler", ["--port", "0", "--host", "127.0.0.1", *common])
            self._await_file()
            local = ["--nthreads", "1", "--no-nanny", "--local-directory", str(self._folder)]
            for _ in range(self._number):
                self._start("worker", [*local, *common])
            with Client(scheduler_file=str(self.file)) as client:
                client.wait_for_workers(self._number, timeout=_PATIENCE)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def pids(self) -> list[int]:
        """Numbers of all processes."""
        return [process.pid for process in self._started]

    def _start(self, kind: str, arguments: list[str]) -> int:
        with (self._folder / f"{kind}.log").open("ab") as log:
            command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT)
        self._started.append(process)
        return process.pid

    def _await_file(self) -> None:
        until = time.monotonic() + _PATIENCE
        while not self.file.exists() or not self.file.stat().st_size:
            if time.monotonic() > until or self._started[0].poll() is not None:
                raise RuntimeError((self._folder / "scheduler.log").read_text(encoding="utf-8", errors="replace"))
            time.sleep(0.05)

    def _end(self) -> None:
        for process in reversed(self._started):  # workers first: they would look for a scheduler that has gone
            process.terminate()
        for process in reversed(self._started):
            try:
                process.wait(_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._started.clear()
