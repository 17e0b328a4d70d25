"""What a batch gives while it runs: results region by region, and where it stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gopt_geo.batch.engine import Engine
from gopt_geo.batch.folder import BatchFolder
from gopt_geo.batch.jobs import Job, JobMaker
from gopt_geo.batch.manifest import Manifest
from gopt_geo.batch.planning import Plan

if TYPE_CHECKING:
    from gopt_geo.batch.regions import Region

__all__ = ["BatchProgress", "BatchRun", "RegionResult"]

Record = dict[str, Any]


@dataclass(frozen=True)
class RegionResult:
    """What became of a region.

    Attributes
    ----------
    id
        The region's.
    status
        ``done`` or ``failed``.
    kept
        Whether it is of an earlier run.
    record
        Its line in the manifest.
    """

    id: str
    status: Literal["done", "failed"]
    kept: bool
    record: Record

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Paths of the results; none where it failed."""
        return tuple(Path(one["path"]) for one in self.record.get("outputs", ()))

    @property
    def error(self) -> str | None:
        """Why it failed, in a line."""
        return self.record["error"]["message"] if self.status == "failed" else None

    @property
    def notices(self) -> tuple[str, ...]:
        """What its map gives to say, as predict says it."""
        return tuple(self.record.get("notices", ()))

    @property
    def pixels(self) -> int:
        """Of its map."""
        return int(self.record.get("pixels", 0))


@dataclass(frozen=True)
class BatchProgress:
    """Where a batch stands: regions of this run ended (failed ones too), failed and in all; pixels mapped; workers."""

    ended: int
    failed: int
    total: int
    pixels: int
    seconds: float
    workers: int


@dataclass
class BatchRun:
    """A batch under way: iterate over it to get the results, those kept from earlier runs first.

    The cluster works as long as it is iterated over, with a few regions in advance. `close` (or leaving the context)
    gives up what is in flight; what is finished stays.

    Attributes
    ----------
    plan
        What is mapped and what is kept.
    folder
        Of the results.
    """

    plan: Plan
    folder: BatchFolder
    _engine: Engine | None
    _make: JobMaker
    _progress: Callable[[BatchProgress], None] | None
    _stack: ExitStack
    _failed: list[Region] = field(default_factory=list)
    _results: Generator[RegionResult] | None = None

    def __iter__(self) -> Iterator[RegionResult]:
        """Return the iterator; there is one."""
        if self._results is None:
            self._results = self._run()
        return self._results

    def __next__(self) -> RegionResult:
        """Return the next result."""
        return next(iter(self))

    def __enter__(self) -> BatchRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is in flight, and release the folder."""
        if self._results is not None:
            self._results.close()
        self._stack.close()

    def _run(self) -> Generator[RegionResult]:
        try:
            for kept in self.plan.kept:
                if kept.record["status"] != "done":
                    self._failed.append(kept.region)
                yield RegionResult(kept.region.id, kept.record["status"], True, kept.record)
            if self._engine is not None:
                yield from self._map(self._engine)
            self.folder.write_failures(self._failed)
        finally:
            self._stack.close()

    def _map(self, engine: Engine) -> Generator[RegionResult]:
        """Map what is to be mapped, and write down what comes of it before it is told."""
        regions = {todo.region.id: todo.region for todo in self.plan.todo}
        counts = {"ended": 0, "failed": 0, "pixels": 0}
        begin = time.monotonic()

        def tell() -> None:
            if self._progress is not None:
                seconds = time.monotonic() - begin
                self._progress(BatchProgress(total=len(regions), seconds=seconds, workers=engine.workers, **counts))

        with Manifest(self.folder.manifest) as manifest:

            def started(job: Job) -> None:
                manifest.append({"id": job.id, "status": "started", "digest": job.digest})

            jobs = (self._make(todo.region) for todo in self.plan.todo)
            with closing(engine.run(jobs, started, tell)) as records:
                for record in records:
                    manifest.append(record)
                    counts["ended"] += 1
                    counts["pixels"] += record.get("pixels", 0)
                    if record["status"] != "done":
                        counts["failed"] += 1
                        self._failed.append(regions[record["id"]])
                    tell()
                    yield RegionResult(record["id"], record["status"], False, record)
