"""Cloud masks: what each kind hides, where masks are found, and that hidden pixels have no influence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from gopt_geo.errors import BandError, GoptGeoError, SourceError
from gopt_geo.grid import Window
from gopt_geo.scene import SourceSpec, open_scene
from gopt_geo.scene.clouds import _DECODERS, CloudMask, CloudSource, find_mask
from gopt_geo.scene.scene import Scene
from safefolder import numbers_of, write_safe

CLEAR = {2, 4, 5, 6, 7, 11}
COARSE = Affine(20, 0, 500000, 0, -20, 4600000)


def scene_of(path: Path | str, mask: object, *, bands: list[int | str] | None = None, **options: object) -> Scene:
    units = None if str(path).endswith(".SAFE") else "dn10000"
    count = 1 if bands is None else len(bands)
    spec = SourceSpec(path, bands, units, "reflectance", count, mask)  # type: ignore[arg-type]
    return open_scene(spec, {}, **options)  # type: ignore[arg-type]


def read(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    with scene:
        block = scene.read(Window(0, 0, *scene.shape))
    return block.values["optical"], block.valid["optical"]


def refused(kind: type[GoptGeoError], *args: object, **said: object) -> str:
    with pytest.raises(kind) as caught, scene_of(*args, **said) as scene:  # type: ignore[arg-type]
        scene.read(Window(0, 0, *scene.shape))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.brief
@pytest.mark.parametrize("name", ["T31TCJ_20240601T105621_SCL_20m.tif", "scl.tif", "other.tif"])
def test_classes_of_the_scene_classification(raster, name) -> None:
    optical = raster("optical.tif", np.full((3, 4), 2000, "uint16"))
    mask = raster(name, np.arange(12, dtype="uint8").reshape(3, 4))
    given_kind = None if "scl" in name.casefold() else "scl"
    scene = scene_of(optical, CloudMask(mask, given_kind))
    said = [notice for notice in scene.notices if "taken as a scene classification" in notice]
    assert len(said) == (given_kind is None)
    values, valid = read(scene)
    assert set(np.flatnonzero(valid)) == CLEAR
    assert (values[0][valid] == np.float32(0.2)).all()
    assert (values[0][~valid] == 0).all()


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=50))
def test_bits_of_landsat(numbers) -> None:
    hidden = _DECODERS["qa-pixel"](np.array(numbers), "x")
    bits = [[number >> bit & 1 for bit in range(16)] for number in numbers]
    assert hidden.tolist() == [any(of[:5]) for of in bits]


@pytest.mark.parametrize(
    ("value", "clear"),
    [(1, False), (21824, True), (21952, True), (30048, True), (22280, False), (23888, False), (54596, False)],
)
def test_values_that_usgs_lists(raster, value, clear) -> None:
    """QA_PIXEL of the product guide: fill, clear, water, snow, cloud, cloud shadow, cirrus."""
    optical = raster("optical.tif", np.full((2, 2), 2000, "uint16"))
    mask = raster("LC08_L2SP_196023_20200613_20200824_02_T1_QA_PIXEL.TIF", np.full((2, 2), value, "uint16"))
    scene = scene_of(optical, mask)
    assert any("taken as QA_PIXEL of Landsat by its name" in notice for notice in scene.notices)
    assert read(scene)[1].all() == clear


def test_a_mask_hides_whatever_is_not_zero(raster) -> None:
    optical = raster("optical.tif", np.full((2, 3), 2000, "uint16"))
    mask = raster("clouds.tif", np.array([[0, 1, -1], [255, 0, 7]], "int16"), nodata=255)
    for given_mask in (mask, str(mask), CloudMask(mask), CloudMask(mask, "mask")):
        scene = scene_of(optical, given_mask)
        assert not any("taken as" in notice for notice in scene.notices)
        assert read(scene)[1].tolist() == [[True, False, False], [False, True, False]]


def test_beyond_its_edges_a_mask_hides_nothing(raster) -> None:
    optical = raster("optical.tif", np.full((4, 4), 2000, "uint16"))
    mask = raster("scl.tif", np.zeros((4, 2), "uint8"))
    assert read(scene_of(optical, mask))[1].tolist() == [[False, False, True, True]] * 4


def test_a_coarse_mask_by_nearest_neighbour(raster) -> None:
    optical = raster("optical.tif", np.full((6, 6), 2000, "uint16"))
    classes = np.array([[4, 9, 4], [3, 11, 6], [8, 5, 10]], "uint8")
    mask = raster("scl.tif", classes, "EPSG:32631", COARSE)
    fine = np.kron(np.isin(classes, list(CLEAR)), np.ones((2, 2))).astype(bool)
    assert (read(scene_of(optical, mask))[1] == fine).all()


def test_keywords_find_the_band(tmp_path, raster) -> None:
    classes = np.full((36, 36), 4, "uint8")
    classes[10:20, 5:15] = 9
    safe = write_safe(tmp_path, classes=classes)
    values, valid = read(scene_of(safe, "SCL", bands=["B04", "B8A"]))
    assert not valid[20:40, 10:30].any()
    assert valid[4:19, 4:].all()
    assert (values[:, 20:40, 10:30] == 0).all()
    assert read(scene_of(safe, CloudMask("scl"), bands=["B04"]))[1].sum() == 72 * 72 - 400 - 1

    folder = tmp_path / "landsat"
    folder.mkdir()
    for name, fill in (("SR_B4", 12000), ("SR_B5", 13000), ("QA_PIXEL", 21824)):
        values = np.full((4, 4), fill, "uint16")
        values[0, 0] = 22280 if name == "QA_PIXEL" else fill
        raster(f"landsat/LC08_L2SP_196023_20200613_20200824_02_T1_{name}.TIF", values)
    for source in (folder, str(folder / "*.TIF")):
        scene = open_scene(SourceSpec(source, ["B4"], None, "reflectance", 1, "QA_PIXEL"), {})
        assert read(scene)[1].tolist() == [[False, True, True, True], *[[True] * 4] * 3]

    stack = np.stack([np.full((2, 2), 2000), np.array([[4, 9], [3, 5]])]).astype("uint16")
    path = raster("stack.tif", stack, descriptions=("B04", "SCL"))
    assert read(scene_of(path, "SCL", bands=["B04"]))[1].tolist() == [[True, False], [False, True]]


def test_a_missing_keyword(tmp_path, raster) -> None:
    safe = write_safe(tmp_path)
    for source, keyword in ((safe, "SCL"), (safe, "QA_PIXEL"), (raster("a.tif", np.ones((2, 2), "uint16")), "SCL")):
        bands = ["B04"] if source == safe else None
        text = refused(SourceError, source, keyword, bands=bands)
        assert f"it has no {keyword}, which --cloud-mask {keyword} asks for" in text
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a_B04", "a_SCL_20m", "a_SCL_60m"):
        raster(f"two/{name}.tif", np.ones((2, 2), "uint16"))
    assert "several files are SCL (a_SCL_20m.tif, a_SCL_60m.tif)" in refused(SourceError, folder, "SCL", bands=["B04"])


@pytest.mark.brief
def test_what_is_no_mask(raster) -> None:
    optical = raster("optical.tif", np.full((2, 2), 2000, "uint16"))
    image, floats = raster("rgb.tif", np.ones((3, 2, 2), "uint8")), raster("f.tif", np.ones((2, 2), "float32"))
    assert "a mask is one band of integers, this has 3 bands of uint8" in refused(BandError, optical, image)
    assert "1 band of float32" in refused(BandError, optical, CloudMask(floats, "scl"))
    strange = raster("strange.tif", np.array([[4, 12], [5, 6]], "uint8"))
    text = refused(SourceError, optical, CloudMask(strange, "scl"))
    assert (
        "12 is no class of the scene classification, which has 0 to 11; say what it is with --cloud-mask-kind" in text
    )
    assert "QA_PIXEL has 16 bits, this is uint8" in refused(SourceError, optical, CloudMask(strange, "qa-pixel"))
    assert "there is no such file" in refused(SourceError, optical, "nowhere.tif")
    with pytest.raises(GoptGeoError, match="--cloud-mask-kind cloudy: there is no such kind"):
        CloudMask(strange, "cloudy")  # type: ignore[arg-type]
    with pytest.raises(GoptGeoError, match="SCL of the optical source is of the kind scl; leave it out"):
        find_mask(CloudMask("SCL", "mask"), optical)


def test_a_refused_mask_leaves_no_file_open(raster, monkeypatch) -> None:
    from gopt_geo.scene.source import RasterSource

    closed: list[str] = []
    usual = RasterSource.close
    monkeypatch.setattr(RasterSource, "close", lambda self: (closed.append(self.name), usual(self))[1])
    image = raster("rgb.tif", np.ones((3, 2, 2), "uint8"))
    with pytest.raises(BandError):
        CloudSource(CloudMask(image, "mask"))
    assert closed == [str(image)]


@pytest.mark.parametrize("case", ["as it lies", "whole pixels apart", "warped", "coarser", "two groups"])
def test_hidden_pixels_have_no_influence(raster, tmp_path, case) -> None:
    """Whatever they hold, nothing that is read changes, not even beside them."""
    random = np.random.default_rng(3)
    of_coarse = random.random((30, 30)) < 0.3
    of_coarse[10:17, 5:20] = True
    hidden = np.kron(of_coarse, np.ones((2, 2), bool))
    mask = raster("mask.tif", hidden.astype("uint8"))
    fine, coarse = (random.integers(1, 9000, shape).astype("uint16") for shape in ((60, 60), (30, 30)))
    options: dict[str, object] = {}
    if case == "coarser":
        options["resolution"] = 23.0
    if case == "whole pixels apart":
        place = Affine(10, 0, 500050, 0, -10, 4599930)
        options["grid"] = raster("grid.tif", np.ones((40, 40), "uint8"), "EPSG:32631", place)
    if case == "warped":
        place = Affine(0.0001, 0, 3.0005, 0, -0.0001, 41.5510)
        options["grid"] = raster("grid.tif", np.ones((50, 50), "uint8"), "EPSG:4326", place)
    results = []
    for name in ("a", "b"):
        path: Path | str = raster(f"B04_{name}.tif", fine)
        if case == "two groups":
            other = raster(f"B8A_{name}.tif", coarse, "EPSG:32631", COARSE)
            path = f"{path},{other}"
        results.append(read(scene_of(path, mask, bands=[1, 2] if case == "two groups" else None, **options)))
        fine[hidden], coarse[of_coarse] = random.integers(1, 9000, hidden.sum()), 8999
    (values, valid), (again, same) = results
    np.testing.assert_array_equal(valid, same)
    np.testing.assert_array_equal(values, again)
    assert valid.any()
    assert not valid.all()


def test_a_masked_scene_can_be_pickled(raster) -> None:
    import pickle

    optical = raster("optical.tif", np.arange(1, 401, dtype="uint16").reshape(20, 20))
    mask = raster("scl.tif", np.full((20, 20), 9, "uint8") - 5 * (np.arange(20) % 2).astype("uint8"))
    with scene_of(optical, mask, resolution=13.0) as scene, pickle.loads(pickle.dumps(scene)) as copy:
        window = Window(0, 0, *scene.shape)
        np.testing.assert_array_equal(scene.read(window).values["optical"], copy.read(window).values["optical"])


def test_numbers_of_the_product_are_those_of_its_band(tmp_path) -> None:
    safe = write_safe(tmp_path, classes=np.full((36, 36), 11))
    values, valid = read(scene_of(safe, "SCL", bands=["B04"]))
    assert valid.sum() == 72 * 72 - 1
    np.testing.assert_allclose(values[0, 1:], (numbers_of("B04", 10) * 1e-4 - 0.1)[1:], rtol=1e-5, atol=1e-7)
