"""The data of a training on a scene: what is opened, split, measured, reported and refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import torch

from gopt_geo.errors import AoiError, DatasetError, GoptGeoError, GridError, RadiometryError, ShiftError, SplitError
from gopt_geo.grid import Window, grid_of
from gopt_geo.outputs.landcover import LandCoverWriter
from gopt_geo.outputs.legend import LegendClass
from gopt_geo.packmeta import ClassInfo
from gopt_geo.training.config import TrainConfig
from gopt_geo.training.datareport import class_notices
from gopt_geo.training.setup import Setup
from training.tileground import EDGE, TILE, config, opened, places, write, write_ground, write_polygons


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_ground(tmp_path_factory.mktemp("ground"))


def of_part(data: Any, part: str) -> np.ndarray:
    """Labels of a part over the whole scene."""
    labels = np.full((EDGE, EDGE), 255, np.uint8)
    for area in data.areas(part, TILE):
        labels[area.window.slices_in(Window(0, 0, EDGE, EDGE))] = area.labels(area.window)
    return labels


@pytest.mark.brief
def test_a_scene_opens_with_classes_statistics_and_report(ground: dict[str, str]) -> None:
    with opened(config(ground)) as data:
        assert [(c.value, c.name) for c in data.classes] == [(10, "class 10"), (20, "class 20"), (30, "class 30")]
        assert list(data.modalities) == ["optical", "sar"]
        optical, sar = data.modalities.values()
        assert (optical.bands, optical.units) == (("red", "green", "blue"), "reflectance")
        assert optical.channels == ((1, 0, 0), (0, 1, 0), (0, 0, 1))
        assert (sar.bands, sar.units, sar.channels) == (("VV",), "db", ((1.0,),) * 3)
        assert data.resolution_m == pytest.approx(10, rel=0.01)
        assert data.tile_shape == (TILE, TILE)
        for i, part in enumerate(("train", "val", "test")):
            found = np.bincount(of_part(data, part)[of_part(data, part) != 255], minlength=3)
            assert found.tolist() == data.counts[i].tolist()
            assert found.sum() > 0
        lines = data.report.lines()
        assert any("256 x 256 pixels of 10" in line for line in lines)
        assert any("the buffer of 16 pixels costs" in line for line in lines)
        assert json.loads(json.dumps(data.report.to_dict()))["labelled_pixels"]["val"] == data.counts[1].sum()
        assert data.sources == ("optical.tif", "sar.tif", "labels.tif")


def test_statistics_see_training_ground_alone(ground: dict[str, str], tmp_path: Path) -> None:
    with opened(config(ground)) as data:
        held_out = (of_part(data, "val") != 255) | (of_part(data, "test") != 255)
        region = data.train.ground._region.read(Window(0, 0, EDGE, EDGE))
        assert not (region & held_out).any()
        rows = np.mgrid[:EDGE, :EDGE][0]
        assert data.modalities["optical"].mean[0] == pytest.approx(rows[region].mean() / 1000, rel=1e-5)
        assert data.modalities["optical"].std[0] == pytest.approx(rows[region].std() / 1000, rel=1e-5)
        valid = region.copy()
        valid[:, -64:] = False
        assert data.modalities["sar"].mean[0] == pytest.approx((-5 - rows[valid] / 10).mean(), rel=1e-5)
        before = data.modalities
    import rasterio

    with rasterio.open(ground["optical"]) as file:
        bands = file.read()
    bands[:, held_out] = 0.9  # what isn't trained on changes nothing
    changed = ground | {"optical": str(write(tmp_path / "optical.tif", bands, ("red", "green", "blue")))}
    with opened(config(changed)) as data:
        assert data.modalities == before


def test_overlap_and_missing_images_are_told(ground: dict[str, str]) -> None:
    with opened(config(ground)) as data:
        there = EDGE * EDGE - 20 * 30
        assert data.report.overlap["all"] == pytest.approx((there - 64 * EDGE) / there)
        assert data.report.shown == {"optical": 1.0, "sar": data.report.overlap["all"]}
    with opened(config({k: v for k, v in ground.items() if k != "optical"})) as data:
        assert list(data.modalities) == ["sar"]
        assert data.report.overlap["none"] == pytest.approx(64 * EDGE / there)
        labels = of_part(data, "train")
        assert (labels[:, -64:] == 255).all()  # labels that no image shows don't count
        assert data.counts[0].sum() == (labels != 255).sum()


def test_a_class_list_names_values_and_its_empty_classes_are_told(ground: dict[str, str], tmp_path: Path) -> None:
    names = tmp_path / "classes.yaml"
    names.write_text("classes: [{value: 10, name: wood}, {value: 20, name: field}, {value: 300, name: lake}]\n")
    with opened(config(ground, classes=str(names), ignore=(30,))) as data:
        assert [(c.value, c.name) for c in data.classes] == [(0, "wood"), (1, "field"), (2, "lake")]
        assert data.counts[:, 2].sum() == 0
        assert "warning: class lake is in the class list, and has no labelled pixel" in data.report.notices
    with pytest.raises(DatasetError, match=r"labels\.tif: label 30 is none of the classes"):
        opened(config(ground, classes=str(names)))


def test_the_area_of_interest_bounds_labels_not_images(ground: dict[str, str]) -> None:
    aoi = "600000,5398000,602560,5399600"  # rows 40 to 200
    with opened(config(ground | {"aoi": aoi, "aoi_crs": "EPSG:32632"})) as data:
        assert (of_part(data, "train")[:40] == 255).all()
        assert data.aoi_wkt is not None
        assert data.aoi_wkt.startswith("POLYGON")
        area = data.areas("val", TILE)[0]
        assert area.source.read(Window(0, 0, 30, 30)).valid["optical"].all()


def test_modalities_are_chosen_and_ordered(ground: dict[str, str]) -> None:
    with opened(config(ground, model={"modalities": ("sar", "optical")})) as data:
        assert list(data.modalities) == ["sar", "optical"]
    with opened(config(ground | {"sar": "no_such_file.tif"}, model={"modalities": ("optical",)},
                       augmentation={"dropout": {}})) as data:  # fmt: skip
        assert list(data.modalities) == ["optical"]
        assert "sar" not in data.train[0]


def test_parts_that_arent_asked_for_stay_closed(ground: dict[str, str]) -> None:
    with opened(config(ground), parts=("test",)) as data:
        assert data.areas("test", TILE)
        with pytest.raises(ValueError, match="'val' wasn't opened"):
            data.areas("val", TILE)
        with pytest.raises(ValueError, match="training wasn't opened"):
            _ = data.train
        assert data.modalities["optical"].std == (1, 1, 1)


def test_bands_by_name_by_number_and_the_first(ground: dict[str, str], tmp_path: Path) -> None:
    import rasterio

    with rasterio.open(ground["optical"]) as file:
        red, green, blue = file.read()
    five = np.stack([blue, green, red, red * 2, red * 3])
    named = write(tmp_path / "named.tif", five, ("B02", "B03", "B04", "B08", "B11"))
    with opened(config(ground | {"optical": str(named)})) as data:
        assert data.modalities["optical"].bands == ("red", "green", "blue")
        assert places(data.train[0])  # row and column in the first two bands
    bare = write(tmp_path / "bare.tif", five)
    with opened(config(ground | {"optical": str(bare)})) as data:
        assert data.modalities["optical"].bands == ("band 1", "band 2", "band 3")
        assert any("the first 3 of 5 bands are used" in line for line in data.report.lines())
    with opened(config(ground | {"optical": str(bare), "optical_bands": "3,2"})) as data:
        info = data.modalities["optical"]
        assert len(info.bands) == 2
        assert info.channels == ((1, 0), (0, 1), (0.5, 0.5))
        assert info.mean[2] == pytest.approx((info.mean[0] + info.mean[1]) / 2, rel=1e-6)


@pytest.mark.brief
def test_polygons_with_names_become_classes(ground: dict[str, str], tmp_path: Path) -> None:
    boxes = [
        (r, c, 20, 20, "wood" if (r // 40 + c // 40) % 2 else "lake")
        for r in range(10, 240, 40)
        for c in range(10, 240, 40)
    ]
    labels = write_polygons(tmp_path / "p.gpkg", [*boxes, (0, 250, 3, 3, "far away"), (500, 500, 9, 9, "further away")])
    with opened(config(ground | {"labels": labels, "class_field": "kind"} | UTM)) as data:
        assert [c.name for c in data.classes] == ["lake", "wood"]
        assert data.counts.sum() > 0
    with pytest.raises(DatasetError, match=r"nothing says which field holds the class; .*its fields are kind"):
        opened(config(ground | {"labels": labels}))


@pytest.mark.brief
def test_the_names_and_colours_of_a_label_raster(ground: dict[str, str], tmp_path: Path) -> None:
    """As GDAL keeps them; values without a name have their number, and names that occur twice are told apart."""
    with rasterio.open(ground["labels"]) as file:
        values, grid = file.read(1), grid_of(file)
    values = np.where(values == file.nodata, 255, values).astype(np.uint8)
    legend = [
        LegendClass(10, "farmland", "#cc6600"),
        LegendClass(20, "lake", "#0000ff"),
        LegendClass(40, "x", "#00ff00"),
    ]
    path = tmp_path / "named.tif"
    with LandCoverWriter(path, grid, legend, {}) as writer:
        writer.write(Window(0, 0, *values.shape), values)
        writer.finish()
    with opened(config(ground | {"labels": str(path)})) as data:
        assert [(c.value, c.name) for c in data.classes] == [(10, "farmland"), (20, "lake"), (30, "class 30")]
        assert [c.color for c in data.classes][:2] == ["#cc6600", "#0000ff"]
        assert data.counts.sum() > 0
    legend = [LegendClass(value, "wood", f"#0000{value}") for value in (10, 20)] + [LegendClass(30, "lake", "#0000ff")]
    with LandCoverWriter(tmp_path / "twice.tif", grid, legend, {}) as writer:
        writer.write(Window(0, 0, *values.shape), values)
        writer.finish()
    with opened(config(ground | {"labels": str(tmp_path / "twice.tif")})) as data:
        assert [c.name for c in data.classes] == ["wood (10)", "wood (20)", "lake"]
        assert [c.color for c in data.classes] == ["#000010", "#000020", "#0000ff"]


def test_vector_labels_are_read_once(ground: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [(r, c, 20, 20, (r // 40 + c // 40) % 2) for r in range(10, 240, 40) for c in range(10, 240, 40)]
    labels = write_polygons(tmp_path / "p.gpkg", boxes)
    read, usual = [], pyogrio.read_dataframe

    def counted(*given: Any, **options: Any) -> Any:
        read.append(given)
        return usual(*given, **options)

    monkeypatch.setattr(pyogrio, "read_dataframe", counted)
    with opened(config(ground | {"labels": labels, "class_field": "kind"})) as data:
        assert [c.value for c in data.classes] == [0, 1]
    assert len(read) == 1


def test_more_devices_than_cores_are_told() -> None:
    cores = len(os.sched_getaffinity(0))

    def said(devices: int, kind: str) -> list[str]:
        settings = TrainConfig.model_validate(
            {"scene": {"optical": "o.tif", "labels": "l.tif"}, "training": {"devices": devices, "accelerator": "cpu"}}
        )
        setup = Setup(settings, None, None, None, torch.device(kind))  # type: ignore[arg-type]
        return setup.notices

    assert said(cores + 1, "cpu") == [
        f"warning: training.devices: {cores + 1} devices of a CPU are as many processes, which share {cores} cores"
    ]
    assert said(cores, "cpu") == said(cores + 1, "cuda") == []


UTM = {"aoi": "600000,5397440,602490,5400000", "aoi_crs": "EPSG:32632"}  # without the last columns
STOPS = [
    ({"labels": "one"}, DatasetError, "all labelled pixels are of one class, class 10"),
    ({"labels": "empty"}, DatasetError, "no labels on the scene"),
    ({"labels": "elsewhere"}, GridError, "overlap"),
    ({"labels": "missing.tif"}, GoptGeoError, "there is no such file"),
    ({"aoi": "0,0,1,1"}, AoiError, "doesn't touch the scene"),
    ({"aoi": "600000,5399950,600050,5400000", "aoi_crs": "EPSG:32632"}, AoiError, "no labelled pixel in it"),
    ({"optical": "digital"}, RadiometryError, "without a stated unit"),
    ({"coregister": True}, ShiftError, "no reliable estimate"),
]


@pytest.mark.parametrize(("change", "kind", "found"), STOPS)
def test_clear_stops(
    ground: dict[str, str], tmp_path: Path, change: dict[str, Any], kind: type[Exception], found: str
) -> None:
    from affine import Affine

    labels = np.full((EDGE, EDGE), 10, np.uint8)
    far = Affine(10, 0, 900000, 0, -10, 5000000)
    made = {
        "one": lambda p: write(p, labels, nodata=0),
        "empty": lambda p: write(p, labels * 0, nodata=0),
        "elsewhere": lambda p: write(p, labels, transform=far),
        "digital": lambda p: write(p, np.full((3, EDGE, EDGE), 900, np.uint16)),
    }
    change = {key: str(made[v](tmp_path / f"{v}.tif")) if v in made else v for key, v in change.items()}
    with pytest.raises(kind, match=found) as caught:
        opened(config(ground | change))
    assert isinstance(caught.value, GoptGeoError)


def test_labels_without_any_image_and_too_few_blocks(ground: dict[str, str], tmp_path: Path) -> None:
    blind = write_polygons(tmp_path / "blind.gpkg", [(9, 200, 40, 9, 1), (60, 210, 50, 20, 2)])
    with pytest.raises(DatasetError, match=r"none of its .* labelled pixels has data in sar"):
        opened(config({"sar": ground["sar"], "labels": blind, "class_field": "kind"}))
    small = write_polygons(tmp_path / "small.gpkg", [(9, 9, 4, 9, 1), (14, 9, 5, 9, 2)])
    with pytest.raises(SplitError, match="have labels, for 3 parts"):
        opened(config(ground | {"labels": small, "class_field": "kind"}))


def test_flat_values_and_tiles_that_dont_fit(ground: dict[str, str], tmp_path: Path) -> None:
    flat = write(tmp_path / "flat.tif", np.full((3, EDGE, EDGE), 0.3, np.float32), ("red", "green", "blue"))
    with pytest.raises(DatasetError, match=r"optical: all .* training pixels have one value"):
        opened(config(ground | {"optical": str(flat)}))
    with pytest.raises(GoptGeoError, match=r"training.tile_size: 20: .* use multiples of 8, such as 16"):
        opened(config(ground, training={"tile_size": 20}))


def test_a_shift_is_told_or_corrected_in_the_one_warp(tmp_path: Path) -> None:
    import rasterio
    from affine import Affine

    from gopt_geo.simulate import SceneSpec, write_scene

    paths = {stem: tmp_path / f"{stem}.tif" for stem in ("scene", "sar", "labels", "clouds")}
    write_scene(SceneSpec(seed=6, height=320, width=320), paths)
    with rasterio.open(paths["sar"]) as file:
        a, b, c, d, e, f = file.transform[:6]
        there, profile = file.read(), file.profile | {"transform": Affine(a, b, c + 4 * a, d, e, f - 3 * e)}
    with rasterio.open(tmp_path / "off.tif", "w", **profile) as file:
        file.write(there)
        file.set_band_description(1, "VV")
    scene = {"optical": str(paths["scene"]), "labels": str(paths["labels"])}
    window = Window(100, 100, 64, 64)
    with opened(config(scene | {"sar": str(paths["sar"])})) as data:
        right = data.areas("val", TILE)[0].source.read(window).values["sar"]
        assert not any("SAR lies" in notice for notice in data.report.notices)
    with opened(config(scene | {"sar": str(tmp_path / "off.tif")})) as data:
        wrong = data.areas("val", TILE)[0].source.read(window).values["sar"]
        assert any(notice.startswith("warning: SAR lies ") for notice in data.report.notices)
    with opened(config(scene | {"sar": str(tmp_path / "off.tif"), "coregister": True})) as data:
        moved = data.areas("val", TILE)[0].source.read(window).values["sar"]
        assert any("; corrected" in notice for notice in data.report.notices)
        assert data.train[0]["validity_sar"].any()
    assert np.abs(moved - right).mean() < 0.5 * np.abs(wrong - right).mean()


def test_the_page_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import re

    page = (Path(__file__).parents[2] / "docs/training-data.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    said = capsys.readouterr().out
    assert "scene of 600 x 700 pixels of 10" in said
    assert "'optical': (3, 64, 64)" in said
    assert said.rstrip().endswith("['val']")


def test_scenes_too_large_for_memory_are_kept_in_a_file(
    ground: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gopt_geo.training import opening

    with opened(config(ground)) as data:
        before = data.train[3]
    monkeypatch.setattr(opening, "CACHE_BYTES", 1000)
    monkeypatch.setattr(opening.tempfile, "gettempdir", lambda: str(tmp_path))
    data = opened(config(ground))
    assert any("kept in a temporary file" in notice for notice in data.report.notices)
    assert list(tmp_path.glob("gopt-geo-*/blocks"))
    assert all((data.train[3][key] == value).all() for key, value in before.items())
    data.close()
    monkeypatch.setattr(opening, "_SPARE_DISK", 10**12)
    with opened(config(ground)) as data:
        assert any("set TMPDIR" in notice for notice in data.report.notices)


def test_classes_without_a_name_are_called_once() -> None:
    infos = [ClassInfo(value=20, name="class 20", color="#000000"), ClassInfo(value=30, name="lake", color="#000001")]
    assert class_notices(infos, np.zeros((3, 2), np.int64), ["train", "val"]) == [
        "warning: class 20 is in the class list, and has no labelled pixel",
        "warning: class lake is in the class list, and has no labelled pixel",
    ]
