"""Maps against reference rasters."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import Resampling, calculate_default_transform, reproject

from gopt_geo.assessment import confusion_matrix, evaluate_map
from gopt_geo.errors import GoptGeoError, GridError
from gopt_geo.grid import GeoBox, Window
from gopt_geo.outputs.landcover import LandCoverWriter
from gopt_geo.outputs.legend import LegendClass

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

UTM = Affine(10, 0, 5e5, 0, -10, 5e6)
LEGEND = [LegendClass(0, "farmland", "#ffcc00"), LegendClass(1, "forest", "#00aa00"), LegendClass(2, "x", "#000000")]


def make_map(path: Path, classes: Any, crs: str | None = "EPSG:32633", affine: Affine = UTM) -> Path:
    with LandCoverWriter(path, GeoBox(classes.shape, affine, crs), LEGEND, {}) as writer:
        writer.write(Window(0, 0, *classes.shape), classes.astype(np.uint8))
        writer.finish()
    return path


def make_labels(
    path: Path, labels: Any, crs: str | None = "EPSG:32633", affine: Affine = UTM, nodata: float | None = None
) -> Path:
    bands = labels if labels.ndim == 3 else labels[None]
    count, height, width = bands.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype=labels.dtype,
        crs=crs,
        transform=affine,
        nodata=nodata,
    ) as dataset:
        dataset.write(bands)
    return path


def blobs(shape: tuple[int, int], seed: int, size: int = 20) -> Any:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (-(-shape[0] // size), -(-shape[1] // size)), dtype=np.uint8)
    return np.kron(coarse, np.ones((size, size), np.uint8))[: shape[0], : shape[1]]


@pytest.mark.brief
def test_the_same_grid(tmp_path: Path) -> None:
    classes, labels = blobs((600, 130), 0), blobs((600, 130), 1, 7)
    classes[:5], labels[3:9] = 255, 9
    found = evaluate_map(make_map(tmp_path / "map.tif", classes), make_labels(tmp_path / "ref.tif", labels, nodata=9))
    expected = confusion_matrix(np.where(labels == 9, 255, labels), classes, [0, 1, 2])
    assert np.array_equal(found.matrix, expected)
    assert found.class_names == ("farmland", "forest", "x")
    assert found.scores.pixels == 594 * 130
    assert found.scores.unpredicted == pytest.approx(3 / 594)
    assert found.mapped_scores.unpredicted == 0
    assert any("count as errors" in notice for notice in found.notices)
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["scores"]["overall_accuracy"] == found.scores.overall_accuracy
    assert written["classes"][1] == {"value": 1, "name": "forest"}


def test_a_reference_in_another_crs_and_resolution(tmp_path: Path) -> None:
    """Labels on a fine geographic grid are the map itself, but for the pixels along its borders."""
    classes = blobs((200, 240), 0)
    affine, width, height = calculate_default_transform(
        "EPSG:32633", "EPSG:4326", 240, 200, *rasterio.transform.array_bounds(200, 240, UTM), resolution=4e-5
    )
    labels = np.full((height, width), 255, np.uint8)
    reproject(
        classes,
        labels,
        src_transform=UTM,
        src_crs="EPSG:32633",
        dst_transform=affine,
        dst_crs="EPSG:4326",
        resampling=Resampling.nearest,
        init_dest_nodata=False,
        dst_nodata=255,
    )
    found = evaluate_map(
        make_map(tmp_path / "map.tif", classes),
        make_labels(tmp_path / "ref.tif", labels, "EPSG:4326", affine, nodata=255),
    )
    assert found.scores.overall_accuracy > 0.99
    assert found.scores.pixels > 0.99 * classes.size


@pytest.mark.brief
def test_no_overlap(tmp_path: Path) -> None:
    prediction = make_map(tmp_path / "map.tif", blobs((20, 20), 0))
    far = make_labels(tmp_path / "ref.tif", blobs((20, 20), 0), affine=Affine.translation(1e5, 0) * UTM)
    with pytest.raises(GridError, match=r"ref\.tif: it doesn't overlap"):
        evaluate_map(prediction, far)


@pytest.mark.brief
def test_labels_outside_the_legend_are_named(tmp_path: Path) -> None:
    prediction = make_map(tmp_path / "map.tif", blobs((20, 20), 0))
    labels = blobs((20, 20), 0).astype(np.int16)
    labels[0, :2], labels[1] = (-1, 300), 40
    reference = make_labels(tmp_path / "ref.tif", labels)
    with pytest.raises(GoptGeoError, match=r"ref\.tif: it holds values that are none of the classes: -1, 40, 300"):
        evaluate_map(prediction, reference)
    found = evaluate_map(prediction, reference, ignore=[-1, 40, 300])
    assert found.scores.pixels == 378
    assert found.scores.overall_accuracy == 1.0


@pytest.mark.brief
def test_a_map_that_is_none(tmp_path: Path) -> None:
    reference = make_labels(tmp_path / "ref.tif", blobs((8, 8), 0))
    with pytest.raises(GoptGeoError, match=r"lost.tif: there is no such file"):
        evaluate_map(tmp_path / "lost.tif", reference)
    with rasterio.open(reference) as labels:
        profile, values = labels.profile, labels.read(1)
    with rasterio.open(tmp_path / "rgb.tif", "w", **{**profile, "count": 3}) as picture:
        picture.write(np.stack([values] * 3))
    with pytest.raises(GoptGeoError, match=r"rgb.tif: it has 3 bands; give a class map"):
        evaluate_map(tmp_path / "rgb.tif", reference)


def test_map_values_outside_the_classes(tmp_path: Path) -> None:
    prediction = make_map(tmp_path / "map.tif", blobs((20, 20), 0, 4))
    reference = make_labels(tmp_path / "ref.tif", np.zeros((20, 20), np.uint8))
    with pytest.raises(GoptGeoError, match=r"map\.tif: it holds values .*: 2 "):
        evaluate_map(prediction, reference, class_values=[0, 1])


def test_without_a_legend_the_values_are_the_classes(tmp_path: Path) -> None:
    prediction = make_labels(tmp_path / "map.tif", np.array([[3, 5]], np.uint8))
    reference = make_labels(tmp_path / "ref.tif", np.array([[3, 9]], np.uint8))
    found = evaluate_map(prediction, reference)
    assert found.class_values == (3, 5, 9)
    assert found.class_names == ("class 3", "class 5", "class 9")
    assert found.scores.mean_iou == pytest.approx(1 / 3)


def test_nothing_labelled(tmp_path: Path) -> None:
    prediction = make_map(tmp_path / "map.tif", blobs((20, 20), 0))
    reference = make_labels(tmp_path / "ref.tif", np.full((20, 20), 255, np.uint8))
    with pytest.raises(GoptGeoError, match="none of its labelled pixels"):
        evaluate_map(prediction, reference)


def test_without_a_crs(tmp_path: Path) -> None:
    classes = blobs((20, 30), 0)
    prediction = make_map(tmp_path / "map.tif", classes, None, Affine.identity())
    same = make_labels(tmp_path / "same.tif", classes, None, Affine.identity())
    assert evaluate_map(prediction, same).scores.overall_accuracy == 1.0
    other = make_labels(tmp_path / "other.tif", classes[:10], None, Affine.identity())
    with pytest.raises(GridError, match="shape"):
        evaluate_map(prediction, other)
    placed = make_labels(tmp_path / "placed.tif", classes)
    with pytest.raises(GridError, match="no CRS"):
        evaluate_map(prediction, placed)
