"""The benchmark of training: its labels are as sparse as it says, and its configurations hold."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import geopandas
import numpy as np
import pytest
import rasterio

from benchmarkmodule import load_benchmark
from gopt_geo.aoi import read_aoi
from gopt_geo.assessment.frame import MapFrame
from gopt_geo.packs import demo_pack_path
from gopt_geo.simulate import CLASS_VALUES
from gopt_geo.training.data import open_training_data


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_benchmark("training")


@pytest.fixture(scope="module")
def place(bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "area"
    bench.make_scene(folder, 7000, 512)
    bench.thin_labels(folder, 0)
    return folder


def test_five_percent_of_the_ground_is_labelled(place: Path) -> None:
    with rasterio.open(place / "labels.tif") as source:
        everything = source.read(1)
    with rasterio.open(place / "sparse.tif") as source:
        kept = source.read(1)
    labelled = kept != 255
    assert labelled[8:-8, 8:504].mean() == pytest.approx(0.05, abs=0.001)
    assert labelled.sum() == labelled[8:-8, 8:504].sum()
    assert np.array_equal(kept[labelled], everything[labelled])
    polygons = geopandas.read_file(place / "sparse.gpkg")
    assert polygons["area_m2"].sum() == pytest.approx(labelled.sum() * 100, rel=2e-3)
    assert set(polygons["class_id"]) == set(np.unique(everything).tolist())


def test_the_area_leaves_a_margin_out(place: Path) -> None:
    with MapFrame(place / "labels.tif", read_aoi(place / "aoi.geojson")) as frame:
        assert (frame.window.row, frame.window.col) == (8, 8)
        assert frame.window.shape == (496, 496)


def test_sparse_configurations_open(bench, place: Path) -> None:
    config = bench.configuration(place, place / "run", steps=3, seed=0, labels="sparse.gpkg")
    with open_training_data(config, patch_size=8, in_chans=3) as data:
        assert [info.name for info in data.classes] == list(bench.CLASS_NAMES)
        assert data.counts.sum() < 0.05 * 512 * 512
        assert tuple(data.modalities) == ("optical", "sar")
    alone = bench.configuration(place, place / "run", steps=3, seed=0, modalities=["sar"])
    with open_training_data(alone, patch_size=8, in_chans=3) as data:
        assert tuple(data.modalities) == ("sar",)
        assert data.counts.sum() > 0.5 * 512 * 512


def test_ground_beside_the_area_is_scored_in_the_units_of_a_pack(bench, place: Path) -> None:
    """The demo pack knows such scenes: in other units, or beside the labels' place, it would know nothing."""
    ((images, labels),) = bench.ground_beside(place)
    assert images["optical"].shape == (3, 512, 416)
    assert images["sar"].shape == (1, 512, 416)
    with rasterio.open(place / "labels.tif") as source:
        assert np.array_equal(np.array(CLASS_VALUES)[labels], source.read(1)[:, 512 + 96 :])
    assert bench.scores(demo_pack_path(), bench.ground_beside(place), ["optical", "sar"])["oa"] > 0.8


def test_scores_of_a_pack_with_a_modality_withheld(bench) -> None:
    """The figures of docs/benchmarks.md are of other scenes: near is enough."""
    both, optical = (
        bench.scores(demo_pack_path(), bench.other_scenes(1), use) for use in (["optical", "sar"], ["optical"])
    )
    assert both["miou"] == pytest.approx(0.78, abs=0.12)
    assert both["miou"] - optical["miou"] > 0.1
    assert list(both["iou"]) == list(bench.CLASS_NAMES)


def test_the_worst_area_and_the_longest_training_decide(bench) -> None:
    def run(beside: float, other: float, seconds: float) -> dict[str, object]:
        return {"beside": {"miou": beside}, "other": {"miou": other}, "seconds": seconds}

    rows = [
        {"ratio": {"beside": 0.92, "other": 0.8}, "all": run(0.5, 0.5, 10), "sparse": run(0.46, 0.4, 20)},
        {"ratio": {"beside": 0.86, "other": 0.9}, "all": run(0.5, 0.5, 10), "sparse": run(0.43, 0.45, 601)},
    ]
    found = bench.sparse_result(rows)
    assert found["ratio"] == {"beside": 0.89, "other": 0.85}
    assert found["least_ratio"] == {"beside": 0.86, "other": 0.8}
    assert (found["longest_seconds"], found["reached"]) == (601, False)
    rows[0]["ratio"]["other"] = 0.91
    assert bench.sparse_result(rows[:1])["reached"]
    rows[1]["all"]["seconds"], rows[1]["sparse"]["seconds"] = 10, 20
    assert not bench.sparse_result(rows)["reached"]  # the mean beside the areas would hide the worst of them
