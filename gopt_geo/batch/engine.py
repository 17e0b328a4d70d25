"""Regions to dask tasks and back: a bounded number in flight, tries with back-off, every result told at once."""

from __future__ import annotations

import heapq
import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gopt_geo.batch.jobs import Job
from gopt_geo.batch.packed import other_version, pack, run_packed
from gopt_geo.batch.work import AGAIN, LATER, check_worker, map_region
from gopt_geo.errors import BatchError, WorkerError

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Engine", "check_workers"]

Record = dict[str, Any]
Work = Callable[[Job], Record]

_LEAST_IN_FLIGHT = 16
_PER_THREAD = 3  # so that a worker has its next region before it is done with the last
_LOOK = 1.0  # seconds between looks at the cluster
_AFTER = 2.0  # seconds before the second try; each further one waits twice as long
_WORKERS = 60.0  # seconds that the first worker may take to come
_GONE = "start it again, and run the same command: what is finished stays"


def check_workers(client: Client, version: str, packs: dict[str | None, str], patience: float = _WORKERS) -> None:
    """Wait for a worker, and refuse those that can't work on the batch.

    Parameters
    ----------
    client
        Of the cluster.
    version, packs
        See `gopt_geo.batch.work.check_worker`.
    patience
        Seconds that the first worker may take to come.

    Raises
    ------
    BatchError
        If no worker comes, or the scheduler goes.
    WorkerError
        If a worker doesn't serve.
    """
    from distributed.comm.core import CommClosedError

    try:
        client.wait_for_workers(1, timeout=patience)
    except TimeoutError as error:
        found = f"no worker came within {patience:g} s"
        raise BatchError(_address(client), found, "start workers: dask worker ADDRESS --nthreads 1") from error
    except Exception as error:
        raise BatchError(_address(client), f"the scheduler went away ({error})", _GONE) from error
    _check_scheduler(client, version)
    answers = client.run(check_worker, version, packs, on_error="return")
    ended = [address for address, found in answers.items() if isinstance(found, CommClosedError)]
    if ended and len(ended) == len(answers):  # where others serve, they do its work, too
        what = "it ended before it could begin: out of memory, or killed"
        raise WorkerError(f"worker {ended[0]}", what, "give workers more memory (--limit-memory), or see their log")
    for address, found in answers.items():
        if isinstance(found, CommClosedError):
            continue
        if isinstance(found, BaseException):
            what = f"it can't run gopt-geo {version} ({type(found).__name__}: {found})"
            raise WorkerError(f"worker {address}", what, "install the same version there")
        if found is not None:
            raise WorkerError(f"worker {address}", found, "give all workers the same version and packs")


def _check_scheduler(client: Client, version: str) -> None:
    """Refuse a scheduler that can't read what it hands on; it needs gopt-geo, and loads next to nothing of it."""
    try:
        found = client.run_on_scheduler(other_version, version)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever importing gopt-geo raises there
        what = f"it can't run gopt-geo {version} ({type(error).__name__}: {error})"
        raise WorkerError(_address(client), what, "install the same version there") from error
    if found is not None:
        raise WorkerError(_address(client), found, "give scheduler and workers the same version")


def _address(client: Client) -> str:
    scheduler = client.scheduler
    return f"scheduler {scheduler.address}" if scheduler is not None else "scheduler"


@dataclass
class _Large:
    """A region that is made in bands."""

    job: Job
    left: int
    seconds: float
    failed: bool = False


@dataclass
class Engine:
    """Runs jobs on a cluster.

    Attributes
    ----------
    client
        Of the cluster.
    work
        What a worker does with a job.
    tries
        How often a job is tried that fails by something that may pass.
    after
        Seconds before its second try; each further one waits twice as long.
    workers
        That are there, as of the last look.
    """

    client: Client
    work: Work = map_region
    tries: int = 3
    after: float = _AFTER
    workers: int = 0
    _threads: int = 0
    _looked: float = -_LOOK
    _flying: dict[str, tuple[Future[Record], Job, int]] = field(default_factory=dict)
    _landed: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    _waiting: list[tuple[float, int, Job, int]] = field(default_factory=list)
    _number: int = 0
    _ready: deque[Job] = field(default_factory=deque)
    _large: dict[str, _Large] = field(default_factory=dict)

    def run(self, jobs: Iterator[Job], begin: Callable[[Job], None], wait: Callable[[], None]) -> Generator[Record]:
        """Run jobs; yield a record of each when it is done with, in the order in which they end.

        Parameters
        ----------
        jobs
            Taken one by one, as there is room for them.
        begin
            Called with a job before it is handed to the cluster.
        wait
            Called about every second while nothing ends.

        Raises
        ------
        BatchError
            If the scheduler goes away.
        WorkerError
            If a worker doesn't serve.
        """
        try:
            while True:
                self._look()
                self._launch(jobs, begin)
                if not self._flying and not self._waiting and not self._ready:
                    return
                landed = self._collect()
                if not landed:
                    wait()
                for job, tries, record in landed:
                    if record["status"] == "large":
                        self._cut(record)
                    elif record["status"] == "band":
                        self._count(record)
                    elif job.id in self._large and self._large[job.id].failed:
                        continue  # another band of a region that has failed already
                    elif record["status"] == "failed" and record["error"]["allows"] == AGAIN and tries < self.tries:
                        due = time.monotonic() + self.after * 2 ** (tries - 1)
                        self._number += 1
                        heapq.heappush(self._waiting, (due, self._number, job, tries))
                    else:
                        yield self._whole(job, record | {"tries": tries})
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Give up what is in flight."""
        futures = [future for future, _, _ in self._flying.values()]
        self._flying.clear()
        if futures and self.client.status == "running":
            self.client.cancel(futures, force=True)  # type: ignore[no-untyped-call]

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        if self.client.status != "running":
            raise BatchError(_address(self.client), "the connection to it is lost", _GONE)
        try:
            threads = self.client.nthreads()  # type: ignore[no-untyped-call]
        except Exception as error:
            raise BatchError(_address(self.client), f"it doesn't answer ({error})", _GONE) from error
        self.workers, self._threads = len(threads), sum(threads.values())

    def _launch(self, jobs: Iterator[Job], begin: Callable[[Job], None]) -> None:
        """Hand over what is due, as far as there is room."""
        room = max(_LEAST_IN_FLIGHT, _PER_THREAD * self._threads)
        while len(self._flying) < room:
            if self._waiting and self._waiting[0][0] <= time.monotonic():
                _, _, job, tries = heapq.heappop(self._waiting)
            elif self._ready:
                job, tries = self._ready.popleft(), 0
            else:
                fresh = next(jobs, None)
                if fresh is None:
                    return
                job, tries = fresh, 0
                begin(job)
            self._number += 1
            key = f"gopt-geo-{job.digest[:12]}-{self._number}"
            future = self.client.submit(run_packed, pack(self.work, job), key=key, pure=False)
            self._flying[key] = future, job, tries + 1
            future.add_done_callback(lambda done: self._landed.put(done.key))  # type: ignore[no-untyped-call]

    def _cut(self, record: Record) -> None:
        """Make tasks of the bands of a large region."""
        job: Job = record["job"]
        assert job.share is not None
        self._large[job.id] = _Large(job, len(job.share.bands), record["seconds"])
        self._ready.extend(replace(job, share=replace(job.share, band=band)) for band in job.share.bands)

    def _count(self, record: Record) -> None:
        """Count a band that is made; the last one lets all of them be laid together."""
        large = self._large[record["id"]]
        large.left -= 1
        large.seconds += record["seconds"]
        if not large.left and not large.failed:
            self._ready.append(large.job)

    def _whole(self, job: Job, record: Record) -> Record:
        """Return the record of a region, for whose bands the time adds up; once for each region."""
        large = self._large.get(job.id)
        if large is None:
            return record
        if record["status"] == "failed":
            large.failed = True  # bands in flight may still end, and say nothing then
            self._ready = deque(one for one in self._ready if one.id != job.id)
            self._waiting = [one for one in self._waiting if one[2].id != job.id]
            heapq.heapify(self._waiting)
        else:
            del self._large[job.id]
        assert large.job.share is not None
        seconds = round(large.seconds + record.get("seconds", 0.0), 3)
        return record | {"seconds": seconds, "bands": len(large.job.share.bands)}

    def _collect(self) -> list[tuple[Job, int, Record]]:
        """Wait for a moment, and return what has ended."""
        due = self._waiting[0][0] - time.monotonic() if self._waiting else _LOOK
        try:
            keys = [self._landed.get(timeout=min(max(due, 0.01), _LOOK))]
        except queue.Empty:
            return []
        while True:
            try:
                keys.append(self._landed.get_nowait())
            except queue.Empty:
                break
        ended = [self._flying.pop(key) for key in keys if key in self._flying]
        return self._records(ended)

    def _records(self, ended: Sequence[tuple[Future[Record], Job, int]]) -> list[tuple[Job, int, Record]]:
        whole: list[tuple[Future[Record], Job, int]] = []
        broken: list[tuple[Future[Record], Job, int]] = []  # told apart once: a status may still change
        for one in ended:
            (whole if one[0].status == "finished" else broken).append(one)
        try:
            futures = [future for future, _, _ in whole]
            results = self.client.gather(futures, errors="raise")  # type: ignore[no-untyped-call]
        except Exception:  # a worker went with its result: the jobs are done anew
            results = [{"status": "failed", "error": _lost("its worker went away with the result")} for _ in whole]
        found = [(job, tries, record) for (_, job, tries), record in zip(whole, results, strict=True)]
        found += [(job, tries, self._failure(future, tries)) for future, job, tries in broken]
        base = {"time": round(time.time(), 3)}
        return [(job, tries, {"id": job.id, "digest": job.digest, **base, **record}) for job, tries, record in found]

    def _failure(self, future: Future[Record], tries: int) -> Record:
        """Tell why dask gave a task up; what concerns all of the batch is raised."""
        from distributed import KilledWorker

        if future.status in ("cancelled", "lost"):
            if self.client.status != "running":
                raise BatchError(_address(self.client), "the connection to it is lost", _GONE)
            return {"status": "failed", "error": _lost("the scheduler lost the task")}
        error = future.exception()  # type: ignore[no-untyped-call]
        if isinstance(error, WorkerError):
            raise error
        if isinstance(error, KilledWorker):
            died = "the workers died that ran it: out of memory, or killed"
            # It may have been another task's doing that waited there: one more try tells.
            allows = AGAIN if tries == 1 else LATER
            return {"status": "failed", "error": {"type": "KilledWorker", "allows": allows, "message": died}}
        found = f"a task failed in a way that no map does ({type(error).__name__}: {error})"
        raise WorkerError("workers", found, "see the log of the workers; all need the same environment") from error


def _lost(message: str) -> Record:
    return {"type": "Lost", "allows": AGAIN, "message": message}
