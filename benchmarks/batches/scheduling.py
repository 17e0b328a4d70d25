"""What scheduling takes: many regions whose workers make no map, and batches whose client is killed."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from costs.common import Section

from batches.regionfile import write_many
from batches.setting import Setting, child, lines_of

__all__ = ["measure", "measure_resumption"]

MOST_MS = 5.0  # a region, in the client
MOST_GROWTH = 1.05  # of memory, from a tenth of the regions on
_PATIENCE = 600.0  # seconds that a killed client's batch may take to its first region

Task = dict[str, Any]
NOTHING = {"wall": 0.0, "processor": 0.0}


def measure(setting: Setting) -> list[Section]:
    """Run a batch of many regions through client, scheduler and workers, then once more, when all is done already."""
    place = setting.folder / "many"
    task = _task(setting, setting.many, place)
    with setting.cluster("many-cluster", setting.workers) as cluster:
        task |= {"scheduler_file": str(cluster.file), "scheduler": cluster.scheduler}
        whole = lines_of("nothing", task, place)
        again = lines_of("nothing", task, place)
    section = Section(f"{setting.many:,} regions without a model", judged=not setting.quick)
    plan, *during, end = whole
    section.add("plan", _each(setting, NOTHING, plan))
    section.add("schedule", _each(setting, plan, end))
    section.add("plan and schedule", _each(setting, NOTHING, end), "client ms a region", MOST_MS)
    section.add("run again, all done", {**_each(setting, NOTHING, again[-1]), "not done again": again[0]["kept"]})
    early, late = during[len(during) // 10 - 1], during[-1]
    for name, key in (("memory of the client", "memory"), ("memory of the scheduler", "scheduler")):
        peak = max(line[key] for line in during)
        row = {"MB at a tenth": early[key] / 1e6, "MB at the end": late[key] / 1e6, "growth": peak / early[key]}
        section.add(name, row, "growth", MOST_GROWTH)
        tenths = ", ".join(f"{line[key] / 1e6:.0f}" for line in during[len(during) // 10 - 1 :: len(during) // 10])
        section.notes.append(f"{name[0].upper()}{name[1:]} after each tenth of the regions, in MB: {tenths}.")
    section.notes += [
        f"{setting.workers} worker(s), scheduler and client are a process each. Client ms: processor time of the "
        "client; wall ms: until the last region had ended, workers included.",
        f"The manifest has {(place / 'manifest.jsonl').stat().st_size / 1e6:.1f} MB.",
    ]
    return [section, _complete(setting, end, again)]


def _complete(setting: Setting, end: Task, again: Sequence[Task]) -> Section:
    """Judge that each region was done, and done once."""
    section = Section(f"{setting.many:,} regions, one by one")
    section.add("lost or failed", {"regions": setting.many - end["finished"] + end["failed"]}, "regions", 0)
    twice = setting.many - again[0]["kept"] + again[-1]["finished"]
    section.add("done again by a second run", {"regions": twice}, "regions", 0)
    return section


def _task(setting: Setting, count: int, place: Path) -> Task:
    """Write a file of regions, all of one pair of stand-ins for scenes; return what a run is told."""
    scenes = [setting.folder / f"{name}.tif" for name in ("optical", "sar")]
    for scene in scenes:
        scene.touch()
    regions = write_many(setting.folder / f"{count}.geojson", scenes[0], scenes[1], count)
    return {"regions": str(regions), "output": str(place), "pack": None, "every": max(1, count // 100)}


def _each(setting: Setting, begin: Task, end: Task) -> dict[str, float]:
    """Return times a region between two lines that a client told."""
    return {
        "client ms a region": 1e3 * (end["processor"] - begin["processor"]) / setting.many,
        "wall ms a region": 1e3 * (end["wall"] - begin["wall"]) / setting.many,
        "wall s": end["wall"] - begin["wall"],
    }


def measure_resumption(setting: Setting) -> list[Section]:
    """Kill clients with SIGKILL at random moments, run their batches again, and look what became of each region."""
    section = Section(f"{setting.killed:,} regions without a model, the client killed by SIGKILL")
    moments = random.Random(setting.seed)
    with setting.cluster("killed-cluster", setting.workers) as cluster:
        for number in range(setting.kills):
            place = setting.folder / f"killed{number}"
            task = _task(setting, setting.killed, place)
            task |= {"scheduler_file": str(cluster.file), "scheduler": cluster.scheduler, "every": 1}
            done_before = _killed(task, place, round(moments.uniform(0.05, 0.95) * setting.killed), moments)
            plan, *_, end = lines_of("nothing", task, place)
            row = {
                "done at the kill": done_before,
                "not done again": plan["kept"],
                "mapped by the rerun": end["finished"],
                "wrong": _wrong(place, setting.killed, done_before, plan, end),
            }
            section.add(f"kill {number + 1}", row, "wrong", 0)
    section.notes.append(
        "Wrong: regions that are lost, failed, or done again though the manifest told that they were done; done at the "
        f"kill: lines of the manifest. Moments by the seed {setting.seed}."
    )
    return [section]


def _killed(task: Task, place: Path, after: int, moments: random.Random) -> int:
    """Run a batch until some regions have ended and a moment more, kill it; return how many were done."""
    with child("nothing", task, place) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line).get("ended", 0) >= after:
                break
        time.sleep(moments.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.stdout.read()  # what it told still
        code = process.wait(_PATIENCE)
    if code != -signal.SIGKILL:
        raise RuntimeError(f"the client ended with {code} before it was killed: {place.with_suffix('.log')}")
    return _statuses(place)["done"]


def _wrong(place: Path, count: int, done_before: int, plan: Task, end: Task) -> int:
    """Count regions of which the rerun did not do what it should."""
    missing = sum(not (place / f"r{number:06}.tif").exists() for number in range(count))
    told = count - _statuses(place)["done"]
    return missing + told + end["failed"] + abs(plan["kept"] - done_before) + abs(end["finished"] - plan["planned"])


def _statuses(place: Path) -> Counter[str]:
    """Count regions by the status of their last whole line in the manifest."""
    latest: dict[str, str] = {}
    with (place / "manifest.jsonl").open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                record = json.loads(line)
                latest[record["id"]] = record["status"]
    return Counter(latest.values())
