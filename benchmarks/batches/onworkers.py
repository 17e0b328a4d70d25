"""What the benchmarks have workers do: make no map, only tell that a region had its turn; import libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gopt_geo.batch.inputs import input_states
from gopt_geo.batch.jobs import Job
from gopt_geo.batch.work import worker_name

__all__ = ["import_libraries", "map_nothing"]


def import_libraries() -> None:
    """Import what a map needs, which a process does once, however many regions it maps."""
    import gopt_geo.batch.work
    import gopt_geo.prediction
    import gopt_geo.sharedmodels  # noqa: F401


def map_nothing(job: Job) -> dict[str, Any]:
    """Look at a job's inputs and write empty results; the record is as long as that of a map."""
    for path in job.outputs:
        Path(path).touch()
    return {
        "id": job.id,
        "digest": job.digest,
        "worker": worker_name(),
        "version": job.version,
        "pack_sha256": job.pack_sha256,
        "inputs": input_states((*job.optical, *job.sar)),
        "status": "done",
        "pixels": 1,
        "shape": [1, 1],
        "precision": "fp32",
        "device": "cpu",
        "outputs": [{"path": path, "size": 0} for path in job.outputs],
        "notices": [],
        "seconds": 0.0,
    }
