"""What of a batch is left to do: its regions against the manifest and the files of earlier runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gopt_geo.batch.inputs import changed_inputs
from gopt_geo.batch.jobs import Job, JobMaker
from gopt_geo.batch.work import NEVER
from gopt_geo.errors import BatchError

if TYPE_CHECKING:
    from gopt_geo.batch.regions import Region

__all__ = ["Kept", "Plan", "Todo", "Why", "make_plan"]

Record = dict[str, Any]
Why = Literal["new", "missing", "changed", "failed"]


@dataclass(frozen=True)
class Todo:
    """A region to be mapped, and why."""

    region: Region
    why: Why


@dataclass(frozen=True)
class Kept:
    """A region that stays as an earlier run left it: done, or failed for good."""

    region: Region
    record: Record


@dataclass(frozen=True)
class Plan:
    """What a run does and what it keeps, in the order of the regions.

    Attributes
    ----------
    todo, kept
        Regions to be mapped, and those that stay as they are.
    manifest_size
        Bytes of the manifest that it goes by, which only ever grows.
    """

    todo: tuple[Todo, ...]
    kept: tuple[Kept, ...]
    manifest_size: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of regions by what becomes of them: new, missing, changed, failed (to do); done, given up (kept)."""
        found = Counter[str](todo.why for todo in self.todo)
        found.update("done" if kept.record["status"] == "done" else "given up" for kept in self.kept)
        return {name: found[name] for name in ("new", "missing", "changed", "failed", "done", "given up")}


def make_plan(
    regions: Iterable[Region],
    make: JobMaker,
    records: Mapping[str, Record],
    *,
    retry_failed: bool = False,
    overwrite: bool = False,
) -> Plan:
    """Decide of each region whether it is mapped.

    A region is mapped if it is new, its results are gone, anything that decides them has changed (options, pack,
    products, size or time of an input), or it failed by something that may pass. One that failed for good is mapped
    again only with `retry_failed`, or once something has changed.

    Parameters
    ----------
    regions
        All of the batch.
    make
        Makes their jobs.
    records
        Of earlier runs, by id.
    retry_failed
        Also map what failed for good.
    overwrite
        Map all regions, and replace files that no earlier run wrote, too.

    Raises
    ------
    BatchError
        If results exist that no run of this folder wrote, or two regions' results had the same path.
    """
    todo, kept = [], []
    taken: dict[str, str] = {}
    strange: list[str] = []
    for region in regions:
        job = make(region)
        _claim(job, taken)
        record = records.get(region.id)
        why = "changed" if overwrite and record is not None else _why(job, record, retry_failed)
        if why is None:
            assert record is not None
            kept.append(Kept(region, record))
        else:
            todo.append(Todo(region, why))
            if record is None and not overwrite:
                strange += [path for path in job.files if Path(path).exists()]
    if strange:
        more = f", and {len(strange) - 1} more" if len(strange) > 1 else ""
        found = f"exists, and no batch into this folder wrote it{more}"
        raise BatchError(strange[0], found, "use --overwrite or another folder")
    return Plan(tuple(todo), tuple(kept))


def _claim(job: Job, taken: dict[str, str]) -> None:
    """Refuse a path that another region's result has; file systems may not tell upper from lower case."""
    for path in job.files:
        other = taken.setdefault(path.casefold(), job.id)
        if other != job.id:
            found = f"it would be a result of the regions {other!r} and {job.id!r}"
            raise BatchError(path, found, "give one of them another id")


def _why(job: Job, record: Record | None, retry_failed: bool) -> Why | None:
    """Return why a region is mapped, None if it isn't."""
    if record is None:
        return "new"
    if record["status"] == "started" or record.get("started_again"):
        return "missing"  # the run ended before it told what became of it
    if record.get("digest") != job.digest:
        return "changed"
    if record["status"] != "done":
        if retry_failed or record.get("error", {}).get("allows") != NEVER:
            return "failed"
        return "changed" if changed_inputs(record.get("inputs", ())) else None
    if any(_size(one["path"]) != one["size"] for one in record.get("outputs", ())):
        return "missing"
    return "changed" if changed_inputs(record.get("inputs", ())) else None


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None
