"""The engine with work that makes no maps: tries, limits, what is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client

import gopt_geo
from gopt_geo.batch.clusters import connect
from gopt_geo.batch.engine import Engine, check_workers
from gopt_geo.batch.jobs import Job
from gopt_geo.errors import BatchError, WorkerError

Record = dict[str, Any]


def jobs(count: int, folder: Path | None = None) -> list[Job]:
    where = str(folder) if folder is not None else "/nowhere"
    return [Job(f"r{i}", (), (), (f"{where}/r{i}.tif",), {}, {}, "0") for i in range(count)]


def run(client: Client, work: Callable[[Job], Record], given: list[Job], **options: Any) -> list[Record]:
    begun: list[str] = []
    engine = Engine(client, work, **options)
    records = list(engine.run(iter(given), lambda job: begun.append(job.id), lambda: None))
    assert begun == [job.id for job in given]
    return records


def test_every_job_ends_once(client: Client) -> None:
    def work(job: Job) -> Record:
        return {"status": "done", "pixels": 1}

    records = run(client, work, jobs(100))
    assert sorted(record["id"] for record in records) == sorted(f"r{i}" for i in range(100))
    assert all(record["status"] == "done" and record["tries"] == 1 for record in records)


def test_jobs_are_taken_as_there_is_room(client: Client) -> None:
    taken, ended = [], []

    def work(job: Job) -> Record:
        return {"status": "done"}

    def stream() -> Iterator[Job]:
        for job in jobs(200):
            taken.append(job.id)
            yield job

    for record in Engine(client, work).run(stream(), lambda job: None, lambda: None):
        ended.append(record["id"])
        assert len(taken) - len(ended) <= 32


def test_what_may_pass_is_tried_again_and_what_cannot_is_not(client: Client, tmp_path: Path) -> None:
    def work(job: Job) -> Record:
        path = Path(job.outputs[0])
        count = len(path.read_text()) if path.exists() else 0
        path.write_text("x" * (count + 1))
        allows = {"r0": "again", "r1": "never", "r2": "later"}.get(job.id, "again")
        if job.id == "r3" and count == 1:
            return {"status": "done"}
        return {"status": "failed", "error": {"allows": allows, "message": "no", "type": "Test"}}

    records = {record["id"]: record for record in run(client, work, jobs(4, tmp_path), tries=3, after=0.05)}
    assert {name: record["tries"] for name, record in records.items()} == {"r0": 3, "r1": 1, "r2": 1, "r3": 2}
    assert records["r3"]["status"] == "done"


def test_back_off_grows(client: Client, tmp_path: Path) -> None:
    def work(job: Job) -> Record:
        with Path(job.outputs[0]).open("a") as file:
            file.write(f"{time.time()}\n")
        return {"status": "failed", "error": {"allows": "again", "message": "no", "type": "Test"}}

    run(client, work, jobs(1, tmp_path), tries=3, after=0.3)
    first, second, third = map(float, (tmp_path / "r0.tif").read_text().split())
    assert second - first >= 0.3
    assert third - second >= 0.6


def test_a_worker_killed_in_mid_region_costs_nothing(tmp_path: Path) -> None:
    def work(job: Job) -> Record:
        mark = Path(job.outputs[0])
        if job.id == "r1" and not mark.exists():
            mark.write_text("died here")
            os.kill(os.getpid(), signal.SIGKILL)
        return {"status": "done"}

    with connect(workers=1) as own:
        records = run(own, work, jobs(4, tmp_path))
    assert {record["id"]: record["status"] for record in records} == {f"r{i}": "done" for i in range(4)}
    assert (tmp_path / "r1.tif").exists()


def test_a_region_that_kills_its_workers_fails_alone() -> None:
    def work(job: Job) -> Record:
        if job.id == "r1":
            os.kill(os.getpid(), signal.SIGKILL)
        return {"status": "done"}

    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), connect(workers=1) as own:
        records = {record["id"]: record for record in run(own, work, jobs(3))}
    assert records["r1"]["status"] == "failed"
    assert "workers died" in records["r1"]["error"]["message"]
    assert records["r1"]["error"]["allows"] == "later"
    assert records["r0"]["status"] == records["r2"]["status"] == "done"


def test_a_fault_of_the_work_itself_stops_the_batch(client: Client) -> None:
    def work(job: Job) -> Record:
        raise ModuleNotFoundError("No module named 'gopt_geo'")

    with pytest.raises(WorkerError, match="No module named"):
        run(client, work, jobs(3))


def test_a_scheduler_that_goes_away_is_told(tmp_path: Path) -> None:
    def work(job: Job) -> Record:
        time.sleep(0.2)
        return {"status": "done"}

    with connect(workers=1) as own:
        cluster = own.cluster
        threading.Timer(1.0, lambda: cluster.close(timeout=5)).start()
        with pytest.raises(BatchError, match="run the same command"):
            run(own, work, jobs(1000))


def test_closing_early_leaves_nothing_on_the_cluster(client: Client) -> None:
    def work(job: Job) -> Record:
        time.sleep(0.05)
        return {"status": "done"}

    results = Engine(client, work).run(iter(jobs(100)), lambda job: None, lambda: None)
    next(results)
    results.close()
    deadline = time.monotonic() + 10
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0


def test_workers_are_checked_before_anything_runs(client: Client, tmp_path: Path) -> None:
    from gopt_geo.packs import demo_pack_path, read_pack

    sha256 = read_pack(demo_pack_path()).sha256
    check_workers(client, gopt_geo.__version__, {None: sha256, str(demo_pack_path()): sha256})
    with pytest.raises(WorkerError, match=rf"it has gopt-geo {gopt_geo.__version__}, the batch was begun with 99"):
        check_workers(client, "99", {})
    with pytest.raises(WorkerError, match=r"can't read the pack .*none\.safetensors"):
        check_workers(client, gopt_geo.__version__, {str(tmp_path / "none.safetensors"): sha256})
    with pytest.raises(WorkerError, match=r"another one there: SHA-256 .*, not 1234"):
        check_workers(client, gopt_geo.__version__, {None: "1234"})


def test_a_worker_that_ends_while_it_is_checked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(version: str, packs: dict[str | None, str]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("gopt_geo.batch.engine.check_worker", ends)
    with connect(workers=1) as own, pytest.raises(WorkerError, match=r"ended before it could begin.*--limit-memory"):
        check_workers(own, gopt_geo.__version__, {})


def test_a_worker_that_ends_while_others_serve_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = tmp_path / "taken"

    def one_ends(version: str, packs: dict[str | None, str]) -> None:
        try:
            taken.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("gopt_geo.batch.engine.check_worker", one_ends)
    with connect(workers=2) as own:
        own.wait_for_workers(2, timeout=60)
        check_workers(own, gopt_geo.__version__, {})
        assert taken.exists()


def test_options_of_clusters_are_checked(tmp_path: Path) -> None:
    for options, words in (
        ({"scheduler": "tcp://127.0.0.1:1", "scheduler_file": tmp_path / "s.json"}, "--scheduler-file"),
        ({"scheduler": "tcp://127.0.0.1:1", "workers": 2}, "--workers"),
        ({"workers": 0}, "--workers 0"),
        ({"workers": 1, "cuda": True}, "--cuda starts one"),
        ({"scheduler_file": tmp_path / "none.json"}, "no such file"),
        ({"scheduler": "nonsense://x"}, "--scheduler nonsense://x: unknown address scheme"),
        ({"limit_memory": "much"}, "--limit-memory much: not a number of bytes"),
    ):
        with pytest.raises(BatchError, match=words), connect(**options):  # type: ignore[arg-type]
            pass
