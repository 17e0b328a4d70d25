"""One run in a process of its own, which tells of itself in lines of JSON.

    python benchmarks/batches/child.py direct|batch|nothing TASK.json

`direct` calls `gopt_geo.predict` for one region after the other, `batch` maps them on a cluster, `nothing` does so
with a work that makes no map, and tells every so often how many regions have ended and what memory the process has.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil

__all__ = ["main"]

Task = dict[str, Any]


def tell(**values: Any) -> None:
    """Print a line of JSON."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def direct(task: Task) -> None:
    """Map regions by `predict`, the model loaded for each, or kept."""
    from gopt_geo.batch import read_regions
    from gopt_geo.openmap import load_pack_model
    from gopt_geo.prediction import predict
    from gopt_geo.sharedmodels import shared_model

    regions = read_regions(task["regions"])
    output = Path(task["output"])
    output.mkdir()
    load = shared_model if task["keep"] else load_pack_model
    begin, processor = time.perf_counter(), time.process_time()
    pixels = 0
    for region in regions:
        area = {"aoi": region.geometry.wkt, "aoi_crs": ":".join(region.crs.to_authority())}
        (optical,), (sar,) = region.optical, region.sar
        paths = [output / f"{region.id}.tif"]
        report = predict(optical, sar, paths, load=load, pack=task["pack"], **area, **task["said"])
        pixels += report.shape[0] * report.shape[1]
    seconds = time.perf_counter() - begin
    tell(regions=len(regions), pixels=pixels, wall=seconds, processor=time.process_time() - processor)


def batch(task: Task) -> None:
    """Map regions on the cluster of a scheduler file."""
    from distributed import Client

    from batches.cluster import processor_seconds
    from batches.onworkers import import_libraries
    from gopt_geo.batch.running import run

    import_libraries()
    with Client(scheduler_file=task["scheduler_file"]) as client:
        client.run(import_libraries)
        client.run_on_scheduler(import_libraries)  # it unpacks what it is given, and needs them for it
        processes = [psutil.Process(), *(psutil.Process(pid) for pid in task["cluster"])]
        begin, processor = time.perf_counter(), processor_seconds(processes)
        results = list(run(task["regions"], client=client, output=task["output"], pack=task["pack"], **task["said"]))
        seconds, processor = time.perf_counter() - begin, processor_seconds(processes) - processor
    failed = [result.error for result in results if result.status != "done"]
    if failed:
        raise RuntimeError(f"{len(failed)} regions failed, such as by: {failed[0]}")
    tell(regions=len(results), pixels=sum(result.pixels for result in results), wall=seconds, processor=processor)


def nothing(task: Task) -> None:
    """Run a batch whose workers make no map."""
    from distributed import Client

    from batches.onworkers import map_nothing
    from gopt_geo.batch.running import run

    process = psutil.Process()
    with Client(scheduler_file=task["scheduler_file"]) as client:
        scheduler = psutil.Process(task["scheduler"])
        begin, processor = time.perf_counter(), time.process_time()
        under_way = run(task["regions"], client=client, output=task["output"], pack=task["pack"], work=map_nothing)
        tell(
            planned=len(under_way.plan.todo),
            kept=len(under_way.plan.kept),
            wall=time.perf_counter() - begin,
            processor=time.process_time() - processor,
        )
        ended = failed = 0
        for result in under_way:
            ended += not result.kept
            failed += result.status != "done"
            if not result.kept and ended % task["every"] == 0:
                tell(ended=ended, memory=process.memory_info().rss, scheduler=scheduler.memory_info().rss)
        seconds, own = time.perf_counter() - begin, time.process_time() - processor
    tell(finished=ended, failed=failed, wall=seconds, processor=own)


def main() -> None:
    task: Task = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    {"direct": direct, "batch": batch, "nothing": nothing}[sys.argv[1]](task)


if __name__ == "__main__":
    main()
