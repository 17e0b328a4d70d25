"""`gopt_geo.batch.run`: maps of many regions on a dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import gopt_geo
from gopt_geo.batch.engine import Engine, Work, check_workers
from gopt_geo.batch.estimate import Estimate, estimate
from gopt_geo.batch.folder import BatchFolder
from gopt_geo.batch.jobs import JobMaker, RegionOptions, product_names
from gopt_geo.batch.manifest import read_manifest
from gopt_geo.batch.planning import Plan, make_plan
from gopt_geo.batch.results import BatchProgress, BatchRun
from gopt_geo.batch.work import map_region
from gopt_geo.errors import BatchError
from gopt_geo.paths import StrPath
from gopt_geo.scene.remote import is_remote
from gopt_geo.wording import counted

if TYPE_CHECKING:
    from distributed import Client

    from gopt_geo.batch.regions import Region

__all__ = ["SPLIT", "Batch", "prepare", "run"]

SPLIT = 100_000_000
"""Pixels beyond which a region is made in bands, where nobody says."""


@dataclass(frozen=True)
class Batch:
    """Regions and options that were read and checked; from `prepare`.

    Attributes
    ----------
    regions
        All of them.
    make
        Makes their jobs.
    folder
        Of the results; nothing is in it yet.
    retry_failed, overwrite
        See `run`.
    """

    regions: tuple[Region, ...]
    make: JobMaker
    folder: BatchFolder
    retry_failed: bool
    overwrite: bool

    def plan(self) -> Plan:
        """Decide what a run would do; nothing is written.

        Raises
        ------
        BatchError
            If the folder can't be written, the manifest can't be read, or results are in the way.
        """
        self.folder.check()
        size = self.folder.manifest_size
        records = read_manifest(self.folder.manifest)
        plan = make_plan(self.regions, self.make, records, retry_failed=self.retry_failed, overwrite=self.overwrite)
        return replace(plan, manifest_size=size)

    def estimate(self, plan: Plan) -> Estimate:
        """Estimate what a plan takes."""
        return estimate(plan, self.make, read_manifest(self.folder.manifest))

    def run(
        self,
        client: Client | None,
        *,
        plan: Plan | None = None,
        tries: int = 3,
        progress: Callable[[BatchProgress], None] | None = None,
        work: Work = map_region,
    ) -> BatchRun:
        """Begin; see `gopt_geo.batch.run`. Without a client nothing may be left to do.

        A plan that was made before is taken, unless another run has added to the manifest since.

        Raises
        ------
        BatchError
            If something is, and for what else `run` says.
        """
        with ExitStack() as stack:
            stack.enter_context(self.folder)
            if plan is None or plan.manifest_size != self.folder.manifest_size:
                plan = self.plan()
            engine = None
            if plan.todo:
                if client is None:
                    found = f"there is no cluster for {counted(len(plan.todo), 'region')} to be mapped"
                    raise BatchError(self.folder.path, found, "run again")
                check_workers(client, gopt_geo.__version__, self.make.packs())
                engine = Engine(client, work, tries)
            return BatchRun(plan, self.folder, engine, self.make, progress, stack.pop_all())


def prepare(
    regions: StrPath | Iterable[Region],
    *,
    output: StrPath,
    products: str | Iterable[str] = ("tif",),
    retry_failed: bool = False,
    overwrite: bool = False,
    allow_remote: bool = False,
    catalog: StrPath | None = None,
    time: str | None = None,
    max_cloud: float | None = None,
    collections: Sequence[str] | None = None,
    split: int | None = SPLIT,
    **said: Unpack[RegionOptions],
) -> Batch:
    """Read and check regions and options; see `run` for what is given.

    Raises
    ------
    GoptGeoError
        If they don't serve.
    """
    from gopt_geo.batch.regions import check_regions, read_regions

    search = _search(catalog, {"time": time, "max_cloud": max_cloud, "collections": collections}, allow_remote)
    trusted = allow_remote  # what is made in Python is the caller's own
    if isinstance(regions, str | PathLike):
        checked = read_regions(regions, allow_remote=allow_remote, need_sources=search is None)
    else:
        checked = check_regions(tuple(regions))
        trusted = allow_remote or search is None
    if split is not None and split < 1:
        raise BatchError(f"split {split}", "out of range", "give pixels, or None")
    make = JobMaker(Path(output), product_names(products), said, search, split, allow_remote=trusted)
    return Batch(checked, make, BatchFolder(Path(output)), retry_failed, overwrite)


def _search(catalog: StrPath | None, said: dict[str, Any], allow_remote: bool) -> dict[str, Any] | None:
    """Return keywords of `open_finder` for regions that name no scenes, checked; None without a catalogue."""
    from gopt_geo.search import given_search

    given = given_search(catalog, said)
    if catalog is None:
        return None
    from gopt_geo.batch.finding import open_finder

    place = str(catalog) if is_remote(catalog) else str(Path(catalog).absolute())
    if "collections" in given:
        given["collections"] = list(given["collections"])
    open_finder(place, allow_remote=allow_remote, **given)
    return {"catalog": place, "allow_remote": allow_remote, **given}


def run(
    regions: StrPath | Iterable[Region],
    *,
    client: Client,
    output: StrPath,
    products: str | Iterable[str] = ("tif",),
    tries: int = 3,
    retry_failed: bool = False,
    overwrite: bool = False,
    allow_remote: bool = False,
    progress: Callable[[BatchProgress], None] | None = None,
    work: Work = map_region,
    catalog: StrPath | None = None,
    time: str | None = None,
    max_cloud: float | None = None,
    collections: Sequence[str] | None = None,
    split: int | None = SPLIT,
    **said: Unpack[RegionOptions],
) -> BatchRun:
    """Map regions on a dask cluster, each into files of its own.

    Parameters
    ----------
    regions
        File of regions (docs/batch.md), or regions.
    client
        Of the cluster; it isn't closed.
    output
        Folder of the results, which workers reach under the same path; made where its parent exists. ``ID.tif`` and
        so on appear there whole or not at all, and ``manifest.jsonl`` tells what became of each region.
    products
        Of each region: some of `gopt_geo.batch.jobs.PRODUCTS`.
    tries
        How often a region is tried that fails by something that may pass.
    retry_failed
        Also map regions again that failed for good in an earlier run.
    overwrite
        Map all regions anew, and replace files that no batch wrote, too.
    allow_remote
        Of a file of regions, an index or a catalogue: let it name URLs.
    progress
        Told where the batch stands, after each region and about every second.
    work
        What a worker does with a job, instead of mapping it: a function that can be pickled.
    catalog, time, max_cloud, collections
        Where workers find the scenes of regions that name none, see `gopt_geo.batch.finding.open_finder`.
    split
        Pixels beyond which a region is made in bands of rows, each a task, so that several workers share it; its pixels
        are those of the whole, whatever this is. None: each region is one task.
    said
        Keywords of `gopt_geo.predict` for all regions, the pack among them; what a region says of itself goes first.

    Returns
    -------
    An iterator of `RegionResult`, in the order in which regions end.

    Raises
    ------
    GoptGeoError
        Here, before anything is mapped, if regions, options, pack, folder or workers don't serve; while iterating, if
        the scheduler or the disk of the manifest fails. A region's own failure is a result.
    """
    batch = prepare(
        regions,
        output=output,
        products=products,
        retry_failed=retry_failed,
        overwrite=overwrite,
        allow_remote=allow_remote,
        catalog=catalog,
        time=time,
        max_cloud=max_cloud,
        collections=collections,
        split=split,
        **said,
    )
    return batch.run(client, tries=tries, progress=progress, work=work)
