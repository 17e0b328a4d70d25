"""Batches of real maps on real processes, and what may happen to them."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import rasterio
import shapely
from distributed import Client
from numpy.typing import NDArray
from pyproj import CRS

import gopt_geo
from gopt_geo.batch import Region, run
from gopt_geo.batch.manifest import read_manifest
from gopt_geo.batch.running import prepare
from gopt_geo.errors import BatchError, WorkerError

REPO = Path(__file__).parents[2]
OPTIONS: dict[str, Any] = {"optical_bands": "1,2,3", "tile_size": 64, "overlap": 16, "batch_size": 2, "threads": 1}


def regions_of(scenes: Path) -> list[Region]:
    """Return two regions of each scene: left and right half, with a margin."""
    found = []
    for name in ("a", "b"):
        with rasterio.open(scenes / name / "scene.tif") as source:
            left, bottom, right, top = source.bounds
            crs = CRS.from_user_input(source.crs)
        middle = (left + right) / 2
        for half, (west, east) in {"west": (left + 50, middle), "east": (middle, right - 50)}.items():
            box = shapely.box(west, bottom + 50, east, top - 50)
            optical, sar = str(scenes / name / "scene.tif"), str(scenes / name / "sar.tif")
            found.append(Region(f"{name}-{half}", box, crs, (optical,), (sar,)))
    return found


@pytest.fixture(scope="session")
def wanted(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.uint8]]:
    """What predict makes of each region by itself."""
    folder = tmp_path_factory.mktemp("wanted")
    made = {}
    for region in regions_of(scenes):
        path = folder / f"{region.id}.tif"
        aoi = {"aoi": region.geometry.wkt, "aoi_crs": region.crs.to_string()}
        gopt_geo.predict(region.optical[0], region.sar[0], path, **aoi, **OPTIONS)
        made[region.id] = pixels(path)
    return made


def pixels(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as source:
        return source.read(1)


def check(output: Path, wanted: dict[str, NDArray[np.uint8]]) -> None:
    """Compare all maps with what they must be, and see that nothing lies about."""
    for name, expected in wanted.items():
        np.testing.assert_array_equal(pixels(output / f"{name}.tif"), expected)
    assert [path.name for path in output.iterdir() if ".part" in path.name] == []


def all_of(client: Client, regions: list[Region] | Path, output: Path, **more: Any) -> dict[str, Any]:
    with run(regions, client=client, output=output, **OPTIONS, **more) as results:
        return {result.id: result for result in results}


def test_maps_are_those_of_predict_and_a_second_run_keeps_them(
    client: Client, scenes: Path, wanted: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    states = []
    found = all_of(client, regions_of(scenes), tmp_path / "out", products="tif,gpkg,confidence", progress=states.append)
    assert {name: result.status for name, result in found.items()} == dict.fromkeys(wanted, "done")
    check(tmp_path / "out", wanted)
    for name in wanted:
        assert (tmp_path / "out" / f"{name}.gpkg").is_file()
        assert (tmp_path / "out" / f"{name}.confidence.tif").is_file()
    record = found["a-west"].record
    assert record["pixels"] == wanted["a-west"].size == found["a-west"].pixels
    assert {Path(one["path"]).name for one in record["inputs"]} == {"scene.tif", "sar.tif"}
    assert record["precision"] == "fp32"
    assert record["worker"].startswith("tcp://")
    assert (states[-1].ended, states[-1].total, states[-1].workers) == (4, 4, 2)
    times = {name: (tmp_path / "out" / f"{name}.tif").stat().st_mtime_ns for name in wanted}
    again = all_of(client, regions_of(scenes), tmp_path / "out", products="tif,gpkg,confidence")
    assert all(result.kept and result.status == "done" for result in again.values())
    assert times == {name: (tmp_path / "out" / f"{name}.tif").stat().st_mtime_ns for name in wanted}


def test_one_damaged_scene_fails_its_regions_alone_until_it_is_mended(
    client: Client, scenes: Path, wanted: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    shutil.copytree(scenes, tmp_path / "in")
    regions, output = regions_of(tmp_path / "in"), tmp_path / "out"
    whole = (tmp_path / "in" / "b" / "scene.tif").read_bytes()
    (tmp_path / "in" / "b" / "scene.tif").write_bytes(whole[: len(whole) // 2])
    found = all_of(client, regions, output)
    assert {name: result.status for name, result in found.items()} == {
        "a-west": "done",
        "a-east": "done",
        "b-west": "failed",
        "b-east": "failed",
    }
    assert "scene.tif" in str(found["b-west"].error)
    assert found["b-west"].record["tries"] == 1
    assert not (output / "b-west.tif").exists()
    again = all_of(client, regions, output)
    assert all(result.kept for result in again.values())
    # The failures are regions, too: of another folder, here.
    listed = all_of(client, output / "failures.geojson", tmp_path / "second")
    assert {name: result.status for name, result in listed.items()} == {"b-west": "failed", "b-east": "failed"}
    (tmp_path / "in" / "b" / "scene.tif").write_bytes(whole)
    mended = all_of(client, regions, output)
    assert {name: (result.status, result.kept) for name, result in mended.items()} == {
        "a-west": ("done", True),
        "a-east": ("done", True),
        "b-west": ("done", False),
        "b-east": ("done", False),
    }
    check(output, wanted)
    assert not (output / "failures.geojson").exists()


def test_a_worker_killed_in_mid_region(
    client: Client, scenes: Path, wanted: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(state: Any) -> None:
        # Both workers have a region by now; the map of at least one is under way.
        if not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    found = all_of(client, regions_of(scenes), tmp_path, progress=kill)
    assert killed
    assert {result.status for result in found.values()} == {"done"}
    check(tmp_path, wanted)


def test_a_worker_that_dies_when_its_map_is_published(
    client: Client, scenes: Path, wanted: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    from gopt_geo.batch.work import map_region

    mark = tmp_path / "died"

    def publishes_and_dies(job: Any) -> dict[str, Any]:
        record = map_region(job)
        if job.id == "a-west" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return record

    found = all_of(client, regions_of(scenes), tmp_path / "out", work=publishes_and_dies)
    assert mark.exists()
    assert {name: result.error for name, result in found.items()} == dict.fromkeys(wanted)
    check(tmp_path / "out", wanted)


def command(*arguments: object, start_new_session: bool = False) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(REPO), str(REPO / "cli")])
    return subprocess.Popen(
        [sys.executable, "-c", "from gopt_geo_cli.main import main; main()", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        start_new_session=start_new_session,
    )


def region_file(scenes: Path, folder: Path) -> Path:
    from gopt_geo.batch.regions import write_regions

    path = folder / "regions.geojson"
    write_regions(path, regions_of(scenes))
    return path


SHARED = ["--optical-bands", "1,2,3", "--tile-size", 64, "--overlap", 16, "--batch-size", 2, "--threads", 1]


def wait_for(path: Path, count: int) -> None:
    """Wait until so many regions have ended."""
    deadline = time.monotonic() + 120
    while sum(one["status"] != "started" for one in read_manifest(path).values()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_client_killed_and_the_command_given_again(
    client: Client, scenes: Path, wanted: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    given = region_file(scenes, tmp_path)
    first = command("batch", given, "-o", tmp_path / "out", *SHARED)
    wait_for(tmp_path / "out" / "manifest.jsonl", 1)
    first.kill()
    first.communicate()
    found = all_of(client, given, tmp_path / "out")
    assert {result.status for result in found.values()} == {"done"}
    assert any(result.kept for result in found.values())
    check(tmp_path / "out", wanted)


def test_an_interrupt_is_told_in_a_line_and_costs_only_what_is_in_flight(
    client: Client, scenes: Path, wanted: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    given = region_file(scenes, tmp_path)
    first = command("batch", given, "-o", tmp_path / "out", *SHARED, start_new_session=True)
    wait_for(tmp_path / "out" / "manifest.jsonl", 1)
    os.killpg(first.pid, signal.SIGINT)  # a terminal sends it to the workers, too
    out, told = first.communicate()
    assert (first.returncode, out) == (130, ""), told
    assert "Traceback" not in told
    assert told.splitlines()[-1] == (
        f"error: interrupted by Ctrl-C; finished regions stay in {tmp_path / 'out'}, and the same command goes on"
    )
    found = all_of(client, given, tmp_path / "out")
    assert {result.status for result in found.values()} == {"done"}
    assert any(result.kept for result in found.values())
    check(tmp_path / "out", wanted)


def test_numbers_are_checked_before_a_dry_run(scenes: Path, tmp_path: Path) -> None:
    asked = ["batch", region_file(scenes, tmp_path), "-o", tmp_path / "out", *SHARED, "--dry-run"]
    for option, value in (("--tries", "0"), ("--split", "-1"), ("--split", "inf"), ("--limit-memory", "much")):
        process = command(*asked, option, value)
        out, told = process.communicate()
        assert (process.returncode, out) == (2, ""), told
        assert told.startswith(f"error: {option} {value}: ")
        assert told.count("\n") == 1


def test_a_plan_refuses_a_folder_that_cannot_be(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output, words in (
        (tmp_path / "none" / "out", "none doesn't exist; make it"),
        (tmp_path / "file", "isn't a folder"),
    ):
        with pytest.raises(BatchError, match=words):
            prepare(regions_of(scenes), output=output, **OPTIONS).plan()


def has_torch(process: int) -> bool:
    return "libtorch" in Path(f"/proc/{process}/maps").read_text()


def test_a_scheduler_that_goes_away_and_another_that_goes_on(
    client: Client, scenes: Path, wanted: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    given, address = region_file(scenes, tmp_path), tmp_path / "scheduler.json"
    path = os.pathsep.join([str(REPO), str(REPO / "cli")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    dask = [sys.executable, "-m", "dask"]
    null = subprocess.DEVNULL
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(address)],
        env=environment,
        stdout=null,
        stderr=null,
    )
    worker = subprocess.Popen(
        [
            *dask,
            "worker",
            "--nthreads",
            "1",
            "--no-dashboard",
            "--scheduler-file",
            str(address),
            "--death-timeout",
            "60",
        ],
        env=environment,
        stdout=null,
        stderr=null,
        cwd=tmp_path,
    )
    try:
        deadline = time.monotonic() + 60
        while not address.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process = command("batch", given, "-o", tmp_path / "out", "--scheduler-file", address, *SHARED)
        wait_for(tmp_path / "out" / "manifest.jsonl", 1)
        if sys.platform == "linux":  # it hands tasks on without loading what they need
            at_work = [child.pid for child in psutil.Process(worker.pid).children(recursive=True)]
            assert any(map(has_torch, at_work))
            assert not has_torch(scheduler.pid)
        scheduler.kill()
        _, told = process.communicate(timeout=120)
    finally:
        for one in (scheduler, worker):
            one.kill()
            one.wait()
    assert process.returncode == 2, told
    assert told.splitlines()[-1].startswith("error: scheduler tcp://"), told
    assert "run the same command" in told
    found = all_of(client, given, tmp_path / "out")
    assert any(result.kept for result in found.values())
    check(tmp_path / "out", wanted)


def test_a_full_disk_fails_regions_and_the_next_run_maps_them(
    client: Client, scenes: Path, wanted: dict[str, NDArray[np.uint8]], tmp_path: Path
) -> None:
    def limit(size: int) -> tuple[int, int]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        return before

    client.run(limit, 3000)
    try:
        found = all_of(client, regions_of(scenes), tmp_path)
    finally:
        client.run(limit, resource.RLIM_INFINITY)
    assert {result.status for result in found.values()} == {"failed"}
    assert all(result.record["error"]["allows"] == "later" for result in found.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".batch.lock", "failures.geojson", "manifest.jsonl"]
    assert {result.status for result in all_of(client, regions_of(scenes), tmp_path).values()} == {"done"}
    check(tmp_path, wanted)


def test_a_worker_of_another_version_is_refused(client: Client, scenes: Path, tmp_path: Path) -> None:
    def become(version: str) -> str:
        import gopt_geo

        before = gopt_geo.__version__
        gopt_geo.__version__ = version
        return before

    address = next(iter(client.nthreads()))
    before = client.run(become, "0.0.1", workers=[address])[address]
    try:
        words = rf"worker {address}: it has gopt-geo 0\.0\.1, the batch was begun with {before}"
        with pytest.raises(WorkerError, match=words):
            all_of(client, regions_of(scenes), tmp_path)
    finally:
        client.run(become, before, workers=[address])
    assert not (tmp_path / "manifest.jsonl").exists()


def test_two_batches_into_one_folder_are_refused(client: Client, scenes: Path, tmp_path: Path) -> None:
    with (
        run(regions_of(scenes), client=client, output=tmp_path, **OPTIONS),
        pytest.raises(BatchError, match="another batch is writing into it"),
    ):
        run(regions_of(scenes), client=client, output=tmp_path, **OPTIONS)


def test_a_region_without_its_scenes_ground_fails_for_good(client: Client, scenes: Path, tmp_path: Path) -> None:
    region = regions_of(scenes)[0]
    far = Region("far", shapely.transform(region.geometry, lambda xy: xy + 1e5), region.crs, region.optical, region.sar)
    found = all_of(client, [far], tmp_path)
    assert found["far"].status == "failed"
    assert found["far"].record["error"]["type"] == "AoiError"
    assert all_of(client, [far], tmp_path)["far"].kept
    assert not all_of(client, [far], tmp_path, retry_failed=True)["far"].kept


def test_the_command_tells_what_it_does(scenes: Path, tmp_path: Path) -> None:
    given = json.loads(region_file(scenes, tmp_path).read_text())
    given["features"] = given["features"][:1] + given["features"][-1:]
    given["features"][1]["properties"]["sar"] = str(tmp_path / "none.tif")
    (tmp_path / "two.geojson").write_text(json.dumps(given))
    asked = ["batch", tmp_path / "two.geojson", "-o", tmp_path / "out", *SHARED]
    process = command(*asked, "--dry-run")
    told, _ = process.communicate()
    assert told.splitlines()[:2] == ["regions: 2 new", "to be mapped: 2"]
    assert not (tmp_path / "out").exists()
    process = command(*asked)
    out, told = process.communicate()
    assert process.returncode == 1, told
    assert out == f"{tmp_path / 'out' / 'manifest.jsonl'}\n"
    lines = told.splitlines()
    assert lines[0].startswith("batch: the cluster's dashboard is http://127.0.0.1:")
    assert "\nwarning: pack 'demo': demo, trained on simulated scenes; " in told
    assert "failed: b-east: " in told
    assert "none.tif: there is no such file" in told
    assert f"1 region mapped, 0 kept, 1 failed; they are listed in {tmp_path / 'out' / 'failures.geojson'}" in told


def test_notices_of_regions_are_told_once() -> None:
    from gopt_geo_cli.batchdisplay import NoticeCount

    count = NoticeCount()
    for number in range(30):
        count.add(["warning: the same", f"of {number}"])
    lines = count.lines()
    assert lines[:2] == ["warning: the same (30 regions)", "of 0"]
    assert lines[-1] == "the manifest holds 11 more notices of regions"
    assert len(lines) == 21


LARGE = {"split": 2000, "tile_size": 32, "overlap": 8}


@pytest.fixture(scope="session")
def large(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What predict makes of a whole scene, with all products."""
    folder = tmp_path_factory.mktemp("large")
    source = scenes / "a"
    options = OPTIONS | {name: value for name, value in LARGE.items() if name != "split"}
    aoi = {"aoi": whole_of(scenes).geometry.wkt, "aoi_crs": whole_of(scenes).crs.to_string()}
    gopt_geo.predict(
        source / "scene.tif",
        source / "sar.tif",
        [folder / "whole.tif", folder / "whole.gpkg"],
        confidence=folder / "whole.confidence.tif",
        probabilities=folder / "whole.probabilities.tif",
        **aoi,
        **options,
    )
    return folder


def whole_of(scenes: Path) -> Region:
    west, east = regions_of(scenes)[:2]
    # A corner is cut off: the area masks, too.
    shape = shapely.union(west.geometry, east.geometry)
    left, bottom, *_ = shape.bounds
    shape = shape.difference(shapely.box(left, bottom, left + 100, bottom + 300))
    return Region("whole", shape, west.crs, west.optical, west.sar)


def read_all(path: Path) -> tuple[NDArray[Any], dict[str, str]]:
    with rasterio.open(path) as source:
        return source.read(), source.tags()


def test_a_large_region_made_in_bands_is_that_of_one_process(
    client: Client, scenes: Path, large: Path, tmp_path: Path
) -> None:
    options = OPTIONS | LARGE
    products = "tif,gpkg,confidence,probabilities"
    with run([whole_of(scenes)], client=client, output=tmp_path, products=products, **options) as results:
        (found,) = results
    assert found.status == "done", found.error
    assert found.record["bands"] == 4
    for name in ("whole.tif", "whole.confidence.tif", "whole.probabilities.tif"):
        (made, tags), (expected, expected_tags) = read_all(tmp_path / name), read_all(large / name)
        np.testing.assert_array_equal(made, expected)
        assert tags == expected_tags
    import geopandas as gpd

    assert gpd.read_file(tmp_path / "whole.gpkg").equals(gpd.read_file(large / "whole.gpkg"))
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []
    with run([whole_of(scenes)], client=client, output=tmp_path, products=products, **options) as results:
        assert [result.kept for result in results] == [True]


def test_bands_that_are_finished_are_not_made_again(client: Client, scenes: Path, large: Path, tmp_path: Path) -> None:
    from gopt_geo.batch.work import map_region

    def breaks(job: Any) -> dict[str, Any]:
        if job.share is not None and (job.share.band is None or job.share.band == job.share.bands[2]):
            told = {"type": "Test", "message": "no", "allows": "later"}
            return {"status": "failed", "error": told}
        return map_region(job)

    options = OPTIONS | LARGE
    with run([whole_of(scenes)], client=client, output=tmp_path, work=breaks, **options) as results:
        (found,) = results
    assert found.status == "failed"
    (parts,) = (path for path in tmp_path.iterdir() if ".parts-" in path.name)
    times = {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert times

    def counts(job: Any) -> dict[str, Any]:
        record = map_region(job)
        if record["status"] == "band":
            (parts.parent / f"{job.share.band[0]}.seen").write_text(str(record["seconds"]))
        return record

    while not all(path.suffix == "" for path in parts.iterdir()):
        time.sleep(0.05)  # a band of the run that was broken off may still be under way
    with run([whole_of(scenes)], client=client, output=tmp_path, work=counts, **options) as results:
        assert [result.status for result in results] == ["done"]
    np.testing.assert_array_equal(pixels(tmp_path / "whole.tif"), pixels(large / "whole.tif"))
    assert not parts.exists()


def test_an_input_that_changes_between_bands_fails_the_region(client: Client, scenes: Path, tmp_path: Path) -> None:
    from gopt_geo.batch.work import map_region

    shutil.copytree(scenes, tmp_path / "in")
    region = whole_of(tmp_path / "in")

    def meddles(job: Any) -> dict[str, Any]:
        if job.share is not None and job.share.band == job.share.bands[1]:
            os.utime(job.optical[0], ns=(1, 1))
        return map_region(job)

    with run([region], client=client, output=tmp_path / "out", work=meddles, **(OPTIONS | LARGE)) as results:
        (found,) = results
    assert found.status == "failed"
    assert "changed while the region was mapped" in str(found.error)
    assert not (tmp_path / "out" / "whole.tif").exists()
