"""Maps against polygons and points, within an area, with borders and confidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

from gopt_geo.assessment import Calibration, confusion_matrix, count_boundaries
from gopt_geo.errors import AoiError, DatasetError, GoptGeoError, GridError
from gopt_geo.evaluation import evaluate
from gopt_geo.grid import Window

from .helpers import reader
from .test_evaluate import UTM, blobs, make_labels, make_map

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def box(row: float, col: float, height: float, width: float) -> shapely.Polygon:
    """A rectangle of pixels in world coordinates."""
    left, top = UTM @ (col, row)
    return shapely.box(left, top - 10 * height, left + 10 * width, top)


def make_vectors(
    path: Path, shapes: list[Any], kinds: list[Any], crs: str = "EPSG:32633", to: str | None = None
) -> Path:
    frame = gpd.GeoDataFrame({"kind": kinds, "other": 1}, geometry=shapes, crs=crs)
    (frame if to is None else frame.to_crs(to)).to_file(path)
    return path


@pytest.mark.brief
@pytest.mark.parametrize(
    "kinds",
    [["farmland", "forest", "x"], ["Farmland", " FOREST", "X"], [0, 1, 2], ["0", "1", "2"]],
    ids=["names", "cases", "values", "texts"],
)
def test_polygons_and_points(tmp_path: Path, kinds: list[Any]) -> None:
    classes = blobs((60, 80), 0)
    shapes = [box(2, 3, 20, 30), box(30, 10, 15, 40), shapely.Point(*(UTM @ (70.5, 50.5)))]
    truth = np.full(classes.shape, 255, np.uint8)
    truth[2:22, 3:33], truth[30:45, 10:50], truth[50, 70] = 0, 1, 2
    path = make_vectors(tmp_path / "ref.gpkg", shapes, kinds)
    found = evaluate(make_map(tmp_path / "map.tif", classes), path, class_field="kind", boundary=2)
    assert np.array_equal(found.matrix, confusion_matrix(truth, classes, [0, 1, 2]))
    expected = count_boundaries(reader(truth), reader(classes), Window(0, 0, 60, 80), 3, 2)
    assert found.boundary is not None
    assert np.array_equal(found.boundary.counts, expected.counts)
    assert "borders agree within 2 pixels" in " ".join(found.conventions)


def test_polygons_in_another_crs(tmp_path: Path) -> None:
    classes = np.zeros((60, 80), np.uint8)
    path = make_vectors(tmp_path / "ref.geojson", [box(10.2, 10.2, 20, 20)], ["farmland"], to="EPSG:4326")
    found = evaluate(make_map(tmp_path / "map.tif", classes), path, class_field="kind")
    assert found.scores.pixels == 400
    assert found.scores.overall_accuracy == 1


def test_ignored_values_of_polygons(tmp_path: Path) -> None:
    path = make_vectors(tmp_path / "ref.gpkg", [box(0, 0, 10, 10), box(20, 20, 5, 5)], [0, 1])
    landcover = make_map(tmp_path / "map.tif", np.zeros((60, 80), np.uint8))
    assert evaluate(landcover, path, class_field="kind", ignore=[1]).scores.pixels == 100
    plain = make_labels(tmp_path / "plain.tif", np.zeros((60, 80), np.uint8))
    assert evaluate(plain, path, class_field="kind", ignore=[1, 300, -1]).scores.pixels == 100
    assert evaluate(plain, path, class_field="kind").class_values == (0, 1)


def test_classes_of_the_map_that_no_label_has(tmp_path: Path) -> None:
    """They lower the means, which is said; ignored, they are errors of the classes that the reference has there."""
    classes = np.zeros((60, 80), np.uint8)
    classes[:, 40:], classes[:6, :10] = 1, 2
    truth = np.zeros((60, 80), np.uint8)
    truth[:, 40:] = 1
    landcover, reference = make_map(tmp_path / "map.tif", classes), make_labels(tmp_path / "ref.tif", truth)
    counted = evaluate(landcover, reference)
    assert counted.scores.mean_iou == pytest.approx((1 - 60 / 2400 + 1 + 0) / 3)
    said = "predicted, but nowhere in the reference, so that the means count it as 0: x 2 (60 pixels); --ignore VALUE"
    assert any(said in notice for notice in counted.notices)
    left_out = evaluate(landcover, reference, ignore=[2])
    assert left_out.class_values == (0, 1)
    assert left_out.scores.mean_iou == pytest.approx((1 - 60 / 2400 + 1) / 2)
    assert left_out.scores.overall_accuracy == pytest.approx(counted.scores.overall_accuracy)
    assert left_out.matrix.tolist() == [[2340, 0, 60], [0, 2400, 0]]
    assert left_out.notices == ("labelled pixels that the map gives an ignored class count as errors: x 2 (60 pixels)",)


@pytest.mark.parametrize("kinds", [["farmland", "forest"], [0, 1]], ids=["names", "values"])
def test_ignored_classes_of_polygons(tmp_path: Path, kinds: list[Any]) -> None:
    path = make_vectors(tmp_path / "ref.gpkg", [box(0, 0, 10, 10), box(20, 20, 5, 5)], kinds)
    found = evaluate(make_map(tmp_path / "map.tif", np.zeros((60, 80), np.uint8)), path, class_field="kind", ignore=[1])
    assert found.class_values == (0, 2)
    assert found.scores.pixels == 100


def test_ignoring_all_that_is_labelled(tmp_path: Path) -> None:
    landcover = make_map(tmp_path / "map.tif", np.zeros((60, 80), np.uint8))
    path = make_vectors(tmp_path / "ref.gpkg", [box(0, 0, 10, 10)], [0])
    for reference in (make_labels(tmp_path / "ref.tif", np.zeros((60, 80), np.uint8)), path):
        field = "kind" if reference is path else None
        with pytest.raises(GoptGeoError, match=r"--ignore: all 3 classes of .*map\.tif are ignored; ignore fewer"):
            evaluate(landcover, reference, class_field=field, ignore=[0, 1, 2])
        with pytest.raises(
            GoptGeoError, match=r"no labelled pixel is left within the map \(--ignore 0\); ignore fewer"
        ):
            evaluate(landcover, reference, class_field=field, ignore=[0])


@pytest.mark.brief
def test_an_area_of_interest(tmp_path: Path) -> None:
    classes, labels = blobs((600, 130), 0), blobs((600, 130), 1, 7)
    labels[100:300:3] = 255
    inside = np.zeros(classes.shape, bool)
    inside[90:560, 11:97] = True
    truth = np.where(inside, labels, 255).astype(np.uint8)
    aoi = make_vectors(tmp_path / "aoi.gpkg", [box(90, 11, 470, 86)], [0])
    landcover = make_map(tmp_path / "map.tif", classes)
    found = evaluate(landcover, make_labels(tmp_path / "ref.tif", labels), aoi=aoi)
    assert np.array_equal(found.matrix, confusion_matrix(truth, classes, [0, 1, 2]))
    expected = count_boundaries(reader(truth), reader(classes), Window(0, 0, 600, 130), 3, 3)
    assert found.boundary is not None
    assert np.array_equal(found.boundary.counts, expected.counts)
    assert found.to_dict()["aoi"] == str(aoi)


@pytest.mark.brief
def test_the_calibration_of_a_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes, labels = blobs((60, 80), 0), blobs((60, 80), 1, 7)
    classes[:5], labels[20:23] = 255, 255
    percent = rng.integers(30, 101, (60, 80)).astype(np.uint8)
    percent[:5] = 255
    confidence = make_labels(tmp_path / "c.tif", percent, nodata=255)
    landcover, reference = make_map(tmp_path / "m.tif", classes), make_labels(tmp_path / "r.tif", labels)
    found = evaluate(landcover, reference, confidence=confidence)
    use = (classes != 255) & (labels != 255)
    expected = Calibration.of_confidence(percent[use] / 100, (classes == labels)[use])
    assert found.calibration is not None
    assert found.calibration.ece == pytest.approx(expected.ece)
    assert found.calibration.total == use.sum()
    assert found.to_dict()["calibration"]["nll"] is None
    assert evaluate(landcover, reference).calibration is None


@pytest.mark.parametrize(
    ("percent", "affine", "said"),
    [
        (np.full((60, 80), 101, np.uint8), UTM, "it holds 101, which is no percentage"),
        (np.full((60, 79), 50, np.uint8), UTM, "its pixels aren't those of"),
        (np.full((60, 80), 50, np.uint8), UTM @ UTM.translation(0.5, 0), "its pixels aren't those of"),
        (np.full((2, 60, 80), 50, np.uint8), UTM, "it has 2 bands"),
        (blobs((60, 80), 0), UTM, r"its values are the classes of .*m\.tif; give the confidence"),
        (np.full((60, 80), 0.75, np.float32), UTM, r"its largest value is 0\.75 %"),
    ],
)
def test_confidence_of_something_else(tmp_path: Path, percent: Any, affine: Any, said: str) -> None:
    landcover = make_map(tmp_path / "m.tif", blobs((60, 80), 0))
    confidence = make_labels(tmp_path / "c.tif", percent, affine=affine)
    with pytest.raises(GoptGeoError, match=rf"c\.tif: {said}"):
        evaluate(landcover, landcover, confidence=confidence)


def test_the_map_is_no_confidence(tmp_path: Path) -> None:
    landcover = make_map(tmp_path / "m.tif", blobs((60, 80), 0))
    with pytest.raises(
        GoptGeoError, match=r"m\.tif: it has a legend of classes, so that it is a map and no confidence"
    ):
        evaluate(landcover, landcover, confidence=landcover)


def test_no_percentage_on_ground_without_labels(tmp_path: Path) -> None:
    """What is no percentage is told wherever it lies: labelled pixels may hold what could be one."""
    percent, labels = np.full((60, 80), 120, np.uint8), np.full((60, 80), 255, np.uint8)
    percent[:10], labels[:10] = 60, 0
    landcover = make_map(tmp_path / "m.tif", np.zeros((60, 80), np.uint8))
    confidence, reference = make_labels(tmp_path / "c.tif", percent), make_labels(tmp_path / "r.tif", labels)
    with pytest.raises(GoptGeoError, match=r"c\.tif: it holds 120, which is no percentage"):
        evaluate(landcover, reference, confidence=confidence)


@pytest.mark.brief
def test_what_can_not_be_compared_is_said(tmp_path: Path) -> None:
    landcover = make_map(tmp_path / "m.tif", blobs((60, 80), 0))
    vectors = make_vectors(tmp_path / "v.gpkg", [box(0, 0, 10, 10)], ["lake"])
    with pytest.raises(
        DatasetError, match=r"v\.gpkg: there is no field 'class'; choose --class-field from kind, other"
    ):
        evaluate(landcover, vectors, class_field="class")
    with pytest.raises(DatasetError, match=r"'lake' is none of the classes; .*farmland, forest, x"):
        evaluate(landcover, vectors, class_field="kind")
    with pytest.raises(DatasetError, match=r"v\.gpkg: it is a vector file, .*; choose --class-field from kind, other"):
        evaluate(landcover, vectors)
    far = make_vectors(tmp_path / "far.gpkg", [box(9000, 0, 10, 10)], [0])
    with pytest.raises(DatasetError, match=r"far\.gpkg: none of its 1 features lies on the grid"):
        evaluate(landcover, far, class_field="kind")
    with pytest.raises(AoiError, match="--aoi-crs: it needs --aoi"):
        evaluate(landcover, landcover, aoi_crs="EPSG:4326")
    with pytest.raises(AoiError, match="doesn't touch the scene"):
        evaluate(landcover, landcover, aoi=far)
    two = tmp_path / "two.tif"
    with rasterio.open(landcover) as source:
        profile = {**source.profile, "count": 2, "driver": "GTiff"}
        with rasterio.open(two, "w", **profile) as target:
            target.write(np.stack([source.read(1)] * 2))
    with pytest.raises(GoptGeoError, match=r"two\.tif: it has 2 bands"):
        evaluate(landcover, two)
    nowhere = make_map(tmp_path / "n.tif", blobs((60, 80), 0), None, UTM.identity())
    with pytest.raises(GridError, match=r"n\.tif: it has no CRS"):
        evaluate(nowhere, vectors, class_field="kind")


def test_no_label_in_the_area(tmp_path: Path) -> None:
    labels = np.full((60, 80), 255, np.uint8)
    labels[:10] = 1
    aoi = make_vectors(tmp_path / "aoi.gpkg", [box(30, 10, 20, 20)], [0])
    landcover = make_map(tmp_path / "m.tif", blobs((60, 80), 0))
    with pytest.raises(GoptGeoError, match=r"r\.tif: none of its labelled pixels lies within .*aoi\.gpkg"):
        evaluate(landcover, make_labels(tmp_path / "r.tif", labels), aoi=aoi)


def test_map_values_on_unlabelled_ground_do_not_matter(tmp_path: Path) -> None:
    classes, labels = blobs((60, 80), 0).astype(np.int16), blobs((60, 80), 1).astype(np.uint8)
    classes[0], labels[:2] = -7, 255
    landcover = make_labels(tmp_path / "m.tif", classes)
    assert evaluate(landcover, make_labels(tmp_path / "r.tif", labels)).scores.pixels == 58 * 80
