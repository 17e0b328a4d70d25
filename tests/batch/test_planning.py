from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import shapely
from pyproj import CRS

from gopt_geo.batch import running
from gopt_geo.batch.inputs import changed_inputs, input_states
from gopt_geo.batch.jobs import JobMaker, product_names
from gopt_geo.batch.manifest import Manifest
from gopt_geo.batch.planning import Plan, make_plan
from gopt_geo.batch.regions import Region
from gopt_geo.batch.running import prepare
from gopt_geo.errors import BatchError, PackError

pytestmark = pytest.mark.brief

SQUARE = shapely.box(0, 0, 1, 1)


def region(name: str = "a", **more: Any) -> Region:
    return Region(name, SQUARE, CRS.from_epsg(4326), ("/data/s2.tif",), ("/data/s1.tif",), **more)


@pytest.fixture
def make(tmp_path: Path) -> JobMaker:
    return JobMaker(tmp_path, ("tif",), {})


def done(make: JobMaker, one: Region, **more: Any) -> dict[str, dict[str, Any]]:
    """Write the region's results and return the manifest's record of them."""
    job = make(one)
    for path in job.files:
        Path(path).write_bytes(b"map")
    outputs = [{"path": path, "size": 3} for path in job.files]
    return {one.id: {"id": one.id, "status": "done", "digest": job.digest, "outputs": outputs, "inputs": [], **more}}


def whys(plan: Plan) -> dict[str, str]:
    return {todo.region.id: todo.why for todo in plan.todo} | {
        kept.region.id: kept.record["status"] for kept in plan.kept
    }


def test_a_new_region_is_mapped_and_a_finished_one_is_kept(make: JobMaker) -> None:
    records = done(make, region("a"))
    plan = make_plan([region("a"), region("b")], make, records)
    assert whys(plan) == {"a": "done", "b": "new"}
    assert plan.counts == {"new": 1, "missing": 0, "changed": 0, "failed": 0, "done": 1, "given up": 0}


def test_a_result_that_is_gone_or_was_replaced_is_made_again(make: JobMaker, tmp_path: Path) -> None:
    records = done(make, region())
    (tmp_path / "a.tif").write_bytes(b"another map")
    assert whys(make_plan([region()], make, records)) == {"a": "missing"}
    (tmp_path / "a.tif").unlink()
    assert whys(make_plan([region()], make, records)) == {"a": "missing"}


@pytest.mark.parametrize(
    "other",
    [
        {"options": {"tile_size": 64}},
        {"options": {"optical_units": "dn10000"}},
    ],
)
def test_other_options_make_a_region_anew(make: JobMaker, other: dict[str, Any]) -> None:
    records = done(make, region())
    assert whys(make_plan([region(**other)], make, records)) == {"a": "changed"}


def test_options_of_the_run_products_and_area_count_too(make: JobMaker, tmp_path: Path) -> None:
    records = done(make, region())
    for maker in (JobMaker(tmp_path, ("tif",), {"blend": "linear"}), JobMaker(tmp_path, ("tif", "gpkg"), {})):
        assert whys(make_plan([region()], maker, records)) == {"a": "changed"}
    moved = Region("a", shapely.box(0, 0, 1, 1.5), CRS.from_epsg(4326), ("/data/s2.tif",), ("/data/s1.tif",))
    assert whys(make_plan([moved], make, records)) == {"a": "changed"}


def test_inputs_that_changed_make_a_region_anew(make: JobMaker, tmp_path: Path) -> None:
    source = tmp_path / "in.tif"
    source.write_bytes(b"pixels")
    states = input_states([source, str(source), tmp_path / "none.tif"])
    assert [state["size"] for state in states] == [6, None]
    records = done(make, region(), inputs=states)
    assert whys(make_plan([region()], make, records)) == {"a": "done"}
    source.write_bytes(b"others")  # as many, at another time
    assert changed_inputs(states) == [str(source)]
    assert whys(make_plan([region()], make, records)) == {"a": "changed"}


def test_what_failed_for_good_waits_for_a_change_or_a_request(make: JobMaker, tmp_path: Path) -> None:
    source = tmp_path / "in.tif"
    base = {"id": "a", "status": "failed", "digest": make(region()).digest, "inputs": input_states([source])}
    for allows, expected in (("again", "failed"), ("later", "failed"), ("never", "failed-kept")):
        records = {"a": {**base, "error": {"allows": allows}}}
        plan = make_plan([region()], make, records)
        assert whys(plan) == {"a": "failed"}
        assert len(plan.kept) == (expected == "failed-kept")
    assert plan.counts["given up"] == 1
    assert len(make_plan([region()], make, records, retry_failed=True).todo) == 1
    source.write_bytes(b"now it is there")
    assert whys(make_plan([region()], make, records)) == {"a": "changed"}


def test_a_run_that_ended_in_mid_region_is_gone_on_with(make: JobMaker, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"published, and the line is missing")
    plan = make_plan([region()], make, {"a": {"id": "a", "status": "started"}})
    assert whys(plan) == {"a": "missing"}
    records = done(make, region(), started_again=True)
    assert whys(make_plan([region()], make, records)) == {"a": "missing"}


def test_files_that_no_batch_wrote_are_not_replaced(make: JobMaker, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"precious")
    with pytest.raises(BatchError, match=r"a\.tif: exists, and no batch .*--overwrite"):
        make_plan([region()], make, {})
    assert whys(make_plan([region()], make, {}, overwrite=True)) == {"a": "new"}
    assert whys(make_plan([region()], make, done(make, region()), overwrite=True)) == {"a": "changed"}


def test_results_of_two_regions_have_two_paths(tmp_path: Path) -> None:
    make = JobMaker(tmp_path, ("tif", "confidence"), {})
    with pytest.raises(BatchError, match=r"would be a result of the regions 'a' and 'a\.confidence'"):
        make_plan([region("a"), region("a.confidence")], make, {})


def test_products_and_options_are_checked(tmp_path: Path) -> None:
    assert product_names("tif, .GPKG,tif") == ("tif", "gpkg")
    for wrong in ("tiff", "", "confidence", ()):
        with pytest.raises(BatchError, match="--products"):
            product_names(wrong)
    with pytest.raises(BatchError, match="each region has its own"):
        JobMaker(tmp_path, ("tif",), {"aoi": "1,2,3,4"})  # type: ignore[typeddict-unknown-key]
    with pytest.raises(TypeError, match="no option 'tilesize'"):
        JobMaker(tmp_path, ("tif",), {"tilesize": 3})  # type: ignore[typeddict-unknown-key]
    with pytest.raises(PackError, match="No such file"):
        JobMaker(tmp_path, ("tif",), {"pack": "none.safetensors"})(region())


def test_a_job_says_all_that_predict_needs(tmp_path: Path) -> None:
    make = JobMaker(tmp_path, ("tif", "gpkg", "confidence"), {"blend": "linear", "tile_size": 64})
    job = make(region(options={"tile_size": 32}))
    assert job.outputs == (str(tmp_path / "a.tif"), str(tmp_path / "a.gpkg"))
    assert job.beside == {"confidence": str(tmp_path / "a.confidence.tif")}
    assert job.options["tile_size"] == 32
    assert job.options["blend"] == "linear"
    assert shapely.from_wkt(job.options["aoi"]).equals(SQUARE)
    assert job.options["aoi_crs"] == "EPSG:4326"
    assert make.packs() == {None: job.pack_sha256}


def test_the_batch_is_where_the_package_says() -> None:
    import gopt_geo

    assert gopt_geo.batch.run.__module__ == "gopt_geo.batch.running"


def test_a_plan_is_made_once_unless_another_run_came_between(
    make: JobMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(running, "make_plan", lambda *a, **k: (made.append(1), make_plan(*a, **k))[1])
    with Manifest(tmp_path / "manifest.jsonl") as manifest:
        manifest.append(done(make, region())["a"])
    batch = prepare([region()], output=tmp_path)
    plan = batch.plan()
    with batch.run(None, plan=plan) as results:
        assert [(result.id, result.kept) for result in results] == [("a", True)]
    assert len(made) == 1
    (tmp_path / "a.tif").unlink()
    with Manifest(tmp_path / "manifest.jsonl") as manifest:
        manifest.append({"id": "a", "status": "started"})
    with pytest.raises(BatchError, match="no cluster for 1 region to be mapped"):
        batch.run(None, plan=plan)
    assert len(made) == 2
