"""The cluster of a batch: one that runs, or one started on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gopt_geo.ceiling import parse_bytes
from gopt_geo.errors import BatchError, GoptGeoError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["check_cluster", "connect"]

_PATIENCE = 30.0  # seconds that a scheduler may take to answer


@contextmanager
def connect(
    *,
    scheduler: str | None = None,
    scheduler_file: Path | None = None,
    workers: int | None = None,
    cuda: bool = False,
    limit_memory: str | None = None,
    dashboard: str = "127.0.0.1:0",
) -> Iterator[Client]:
    """Connect to a cluster, or start one of processes on this machine that ends with the context.

    Parameters
    ----------
    scheduler
        Address of a running one, such as ``tcp://10.0.0.1:8786``.
    scheduler_file
        File in which a running one tells its address, as on a cluster with a shared file system.
    workers
        Else: processes to start here, each of one task at a time, which share the cores. By default one, with all of
        them.
    cuda
        Start a process for each GPU of this machine, with dask-cuda.
    limit_memory
        Of each process that is started here, such as ``8GB``; one that needs more is ended, and its region fails.
    dashboard
        Address of the web page that shows what processes started here do; by default a free port of this machine alone.

    Raises
    ------
    BatchError
        If the options contradict each other, the scheduler doesn't answer, or dask-cuda is missing.
    """
    from distributed import Client

    check_cluster(
        scheduler=scheduler, scheduler_file=scheduler_file, workers=workers, cuda=cuda, limit_memory=limit_memory
    )
    if scheduler is not None or scheduler_file is not None:
        name = scheduler if scheduler is not None else f"--scheduler-file {scheduler_file}"
        try:
            if scheduler_file is not None:
                client = Client(scheduler_file=str(scheduler_file), timeout=_PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
            else:
                client = Client(scheduler, timeout=_PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
        except (OSError, TimeoutError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            remedy = "check the address, and that dask scheduler runs there"
            raise BatchError(f"scheduler {name}", f"it doesn't answer ({reason})", remedy) from error
        with client:
            yield client
        return
    with _local(workers, cuda, limit_memory, dashboard) as client:
        yield client


def check_cluster(
    *,
    scheduler: str | None = None,
    scheduler_file: Path | None = None,
    workers: int | None = None,
    cuda: bool = False,
    limit_memory: str | None = None,
) -> None:
    """Check the options of `connect`, without asking or starting anything.

    Raises
    ------
    BatchError
        If they contradict each other, or can't be.
    """
    if scheduler is not None and scheduler_file is not None:
        raise BatchError("--scheduler-file", "--scheduler is there, too", "leave one of them out")
    running = scheduler is not None or scheduler_file is not None
    for option, given in (("--workers", workers is not None), ("--cuda", cuda), ("--limit-memory", bool(limit_memory))):
        if given and running:
            found = "it is of workers that are started here, and a running cluster has its own"
            raise BatchError(option, found, "leave it out, and say so where the workers are started")
    if workers is not None and workers < 1:
        raise BatchError(f"--workers {workers}", "out of range", "give 1 or more")
    if workers is not None and cuda:
        raise BatchError("--workers", "--cuda starts one for each GPU", "leave one of them out")
    if scheduler_file is not None and not scheduler_file.is_file():
        raise BatchError(f"--scheduler-file {scheduler_file}", "there is no such file", "start the scheduler first")
    if cuda and find_spec("dask_cuda") is None:
        raise BatchError("--cuda", "dask-cuda isn't installed", "pip install 'gopt-geo[cuda]'")
    _limit(limit_memory)
    if scheduler is not None:
        _check_address(scheduler)


def _limit(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_bytes(text)
    except GoptGeoError as error:
        raise BatchError(f"--limit-memory {text}", error.found, error.remedy) from error


def _check_address(scheduler: str) -> None:
    """Refuse what dask would only find out after it has begun, and then takes a minute to end."""
    from distributed.comm.addressing import parse_address
    from distributed.comm.registry import get_backend

    try:
        get_backend(parse_address(scheduler)[0])
    except ValueError as error:
        reason = " ".join(str(error).split())[:160]
        raise BatchError(f"--scheduler {scheduler}", reason, "write it as tcp://10.0.0.1:8786") from error


@contextmanager
def _local(workers: int | None, cuda: bool, limit_memory: str | None, dashboard: str) -> Iterator[Client]:
    """Start processes of one task at a time; the cores are shared out among them."""
    import dask
    from distributed import Client, LocalCluster

    limit = _limit(limit_memory)
    if cuda:
        from dask_cuda import LocalCUDACluster

        with (
            LocalCUDACluster(threads_per_worker=1, dashboard_address=dashboard, memory_limit=limit or "auto") as gpus,
            Client(gpus, set_as_default=False) as client,  # type: ignore[no-untyped-call]
        ):
            yield client
        return
    count = workers if workers is not None else 1
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    settings: dict[str, object] = {
        f"distributed.nanny.pre-spawn-environ.{name}": os.environ.get(name, threads)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    # A task that waits at a worker that dies would count as one of those that may have killed it.
    settings["distributed.scheduler.worker-saturation"] = 1.0
    with (
        dask.config.set(settings),
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=count,
            threads_per_worker=1,
            dashboard_address=dashboard,
            # Without a limit a worker has the machine's memory: predict bounds its own.
            memory_limit=limit if limit is not None else 0,
            silence_logs="CRITICAL",
            preload=[*dask.config.get("distributed.worker.preload"), "gopt_geo.batch.undisturbed"],
        ) as cluster,
        Client(cluster, set_as_default=False) as client,  # type: ignore[no-untyped-call]
    ):
        yield client
