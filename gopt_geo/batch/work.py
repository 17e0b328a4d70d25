"""What runs on a worker: one region's map, told as a plain record whatever becomes of it."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gopt_geo.batch.inputs import input_states
from gopt_geo.batch.jobs import Job, Share
from gopt_geo.batch.packed import other_version
from gopt_geo.batch.parts import IsLarge, PartFolder, bands_of, sum_reports
from gopt_geo.batch.virtual import check_virtual
from gopt_geo.errors import DeviceMemoryError, GoptGeoError, OutputError, SourceError, WorkerError
from gopt_geo.scene.remote import is_remote

if TYPE_CHECKING:
    from gopt_geo.inference import TileOptions
    from gopt_geo.inference.execution import Execution
    from gopt_geo.inference.packmodel import PackModel
    from gopt_geo.maprequest import MapOptions, MapRequest
    from gopt_geo.openmap import Loader
    from gopt_geo.packs import Pack

__all__ = ["AGAIN", "LATER", "NEVER", "check_worker", "map_region", "worker_name"]

Record = dict[str, Any]

AGAIN, LATER, NEVER = "again", "later", "never"
"""What a failure allows: another try in this run, one in the next run, or none before something has changed."""

_TURN = threading.Lock()  # a map takes the settings and all threads of its process


def worker_name() -> str:
    """Return the name of the worker that runs this, else of the process."""
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:
        return f"process {os.getpid()}"


def check_worker(version: str, packs: Mapping[str | None, str]) -> str | None:
    """Return why this process can't work on a batch, in words; None where it can.

    Parameters
    ----------
    version
        Of gopt-geo where the batch was begun.
    packs
        Path, None for the embedded one, and SHA-256 of the packs it needs.
    """
    from gopt_geo.packs import demo_pack_path, read_pack

    other = other_version(version)
    if other is not None:
        return other
    for path, sha256 in packs.items():
        try:
            found = read_pack(path if path is not None else demo_pack_path()).sha256
        except GoptGeoError as error:
            return f"it can't read the pack {error.subject}: {error.found}"
        if found != sha256:
            return _other_pack(path, found, sha256)
    return None


def _other_pack(path: str | Path | None, found: str, wanted: str) -> str:
    return f"the pack {path or 'in the package'} is another one there: SHA-256 {found[:12]}, not {wanted[:12]}"


def map_region(job: Job) -> Record:
    """Map a region.

    Returns
    -------
    Of the results, or of what went wrong; see docs/batch.md for its keys. Its ``status`` is "done" or "failed"; "large"
    if the map is to be made in bands, as ``job`` says; "band" if that was one.

    Raises
    ------
    WorkerError
        If this worker isn't one for the job.
    """
    found = other_version(job.version)
    if found is not None:
        raise WorkerError(f"worker {worker_name()}", found, "give all workers the same version")
    record: Record = {"id": job.id, "digest": job.digest, "worker": worker_name(), "version": job.version}
    record["pack_sha256"] = job.pack_sha256
    begin = time.monotonic()
    with _TURN:
        try:
            job, told = _with_scenes(job, record)
            files = _input_files(job)
            record["inputs"] = input_states(files)
            if not job.allow_remote:
                check_virtual(files)
            record |= _make_band(job, record) if job.share is not None and job.share.band else _predict(job, record)
            record["notices"] = [*told, *record.get("notices", ())]
        except WorkerError:
            raise
        except IsLarge as large:
            options = {**job.options, "batch_size": large.batch_size}
            share = Share(large.bands, None, tuple(record["inputs"]), record["digest"])
            record |= {"status": "large", "job": replace(job, options=options, catalog=None, share=share)}
        except Exception as error:  # one region's failure is its own
            record |= {"status": "failed", "error": _told(error)}
    record["seconds"] = round(time.monotonic() - begin, 3)
    record["time"] = round(time.time(), 3)
    return record


def _with_scenes(job: Job, record: Record) -> tuple[Job, tuple[str, ...]]:
    """Return the job with its scenes found, where it names none, and what is to be said of it."""
    if job.catalog is None:
        return job, ()
    from gopt_geo.batch.finding import find_scenes

    catalog = str(job.catalog["catalog"])
    if not is_remote(catalog):
        record["inputs"] = input_states([catalog])  # of a failure: what has to change before another try makes sense
    found = find_scenes(job.catalog, job.options["aoi"], job.options["aoi_crs"])
    return replace(job, optical=found.optical, sar=found.sar), found.notices


def _loader(job: Job) -> Loader:
    """Return what loads models of the job's pack, and of no other."""
    from gopt_geo.sharedmodels import shared_model

    def load(request: MapRequest, pack: Pack, options: TileOptions, execution: Execution) -> PackModel:
        if pack.sha256 != job.pack_sha256:
            found = _other_pack(pack.path, pack.sha256, job.pack_sha256)
            raise WorkerError(f"worker {worker_name()}", found, "give all workers the same packs")
        return shared_model(request, pack, options, execution)

    return load


def _predict(job: Job, record: Record) -> Record:
    """Map a region, or lay its bands together."""
    from gopt_geo.inference import RunReport
    from gopt_geo.mapping import run_model
    from gopt_geo.prediction import predict

    share = _checked_share(job, record)
    folder = PartFolder(job, share.inputs) if share is not None else None

    def rows(opened: Any, sink: Any, held: int, asked: Any, progress: Any) -> RunReport:
        if share is not None and folder is not None:
            folder.lay_together(sink, share.bands, progress)
            return RunReport(**sum_reports(folder.reports(share.bands)))
        area, tiles = opened.window, opened.options
        if job.split is not None and area.height * area.width > job.split:
            bands = bands_of(area, tiles.tile_size - tiles.overlap, job.split // 2)
            if len(bands) > 1:
                raise IsLarge(bands, tiles.batch_size)
        return run_model(opened, sink, held, asked, progress)

    optical, sar = job.sources
    options: dict[str, Any] = {**job.options, **job.beside}
    # What stands at its paths is this batch's own, as its plan made sure: a worker may have died after it published.
    report = predict(optical, sar, list(job.outputs), overwrite=True, load=_loader(job), rows=rows, **options)
    if folder is not None:
        folder.remove()
    return {
        "status": "done",
        "pixels": report.shape[0] * report.shape[1],
        "shape": list(report.shape),
        "precision": report.precision,
        "device": report.device,
        "outputs": [{"path": str(path), "size": path.stat().st_size} for path in report.outputs],
        "notices": list(report.notices),
    }


def _make_band(job: Job, record: Record) -> Record:
    """Make a band of a large region, if an earlier run hasn't."""
    from gopt_geo.ceiling import bounded_gdal_cache
    from gopt_geo.mapping import run_model
    from gopt_geo.maprequest import MapRequest
    from gopt_geo.openmap import open_map

    share = _checked_share(job, record)
    assert share is not None
    assert share.band is not None
    folder = PartFolder(job, share.inputs)
    if not folder.has(share.band):
        options = {name: value for name, value in job.options.items() if name != "probabilities_type"}
        request = MapRequest.of(*job.sources, cast("MapOptions", options))
        with bounded_gdal_cache(), open_map(request, load=_loader(job)) as opened:
            folder.make(opened, share.band, run_model)
    return {"status": "band", "band": share.band}


def _checked_share(job: Job, record: Record) -> Share | None:
    """Return a task's share of a large region; its inputs must be what they were for the other bands."""
    if job.share is not None and list(job.share.inputs) != record["inputs"]:
        changed = [now["path"] for now, then in zip(record["inputs"], job.share.inputs, strict=False) if now != then]
        raise SourceError(changed[0] if changed else job.id, "it changed while the region was mapped", "run again")
    return job.share


def _input_files(job: Job) -> list[str]:
    """Return the files that a job reads, and the URLs."""
    from gopt_geo.scene.bandfiles import input_files

    paths: list[str] = []
    for source in (*job.optical, *job.sar):
        files = [str(path) for path in input_files(source)]
        paths += files or [source]
    masks = [job.options.get(name) for name in ("cloud_mask", "grid", "backbone_weights")]
    return paths + [str(mask) for mask in masks if mask is not None and (Path(mask).exists() or is_remote(mask))]


def _told(error: Exception) -> Record:
    """Tell an error in plain words, and what it allows."""
    told: Record = {"type": type(error).__name__, "allows": _allows(error)}
    if isinstance(error, GoptGeoError):
        return told | {"message": str(error)}
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    return told | {"message": " ".join(f"{error or type(error).__name__} ({place})".split())}


def _allows(error: Exception) -> str:
    if isinstance(error, OutputError):
        return LATER  # the disk is full or the folder isn't writable: no other try would fare better at once
    if isinstance(error, SourceError):
        return AGAIN if is_remote(error.subject) else NEVER
    if isinstance(error, DeviceMemoryError | MemoryError):
        return LATER
    if isinstance(error, OSError):
        return AGAIN
    return NEVER
