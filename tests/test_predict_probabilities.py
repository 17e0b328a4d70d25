"""Maps with all probabilities, and maps averaged over turns, mirror images and sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from gopt_geo.errors import GoptGeoError, OutputError
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.prediction import PredictReport
from gopt_geo.simulate import CLASS_NAMES, CLASS_VALUES

Run = Callable[..., PredictReport]
Pixels = Callable[..., np.ndarray]
Files = dict[str, Path]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.brief
def test_classes_and_confidence_are_those_of_the_probabilities(run: Run, pixels: Pixels, tmp_path: Path) -> None:
    report = run("map.tif", confidence="c.tif", probabilities=tmp_path / "p.tif")
    assert [path.name for path in report.outputs] == ["map.tif", "c.tif", "p.tif"]
    with rasterio.open(tmp_path / "p.tif") as file, rasterio.open(tmp_path / "map.tif") as mapped:
        shares = file.read()
        assert file.descriptions == tuple(CLASS_NAMES)
        assert (file.crs, file.transform, file.tags()) == (
            mapped.crs,
            mapped.transform,
            {**mapped.tags()} | file.tags(),
        )
        assert file.tags()["GOPT_GEO_PACK"] == "tiny"
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-5)
    classes = np.asarray(CLASS_VALUES)[shares.argmax(axis=0)]
    np.testing.assert_array_equal(classes, pixels(tmp_path / "map.tif"))
    np.testing.assert_array_equal(np.rint(100 * shares.max(axis=0)), pixels(tmp_path / "c.tif"))


def test_nodata_and_areas_are_those_of_the_map(run: Run, pixels: Pixels, scene: Files, tmp_path: Path) -> None:
    with rasterio.open(scene["scene"]) as file:
        left, bottom, right, top = file.bounds
        corners = [(left + 203, bottom + 97), (right - 301, bottom + 120), (left + 400, top - 150)]
    ring = ", ".join(f"{x} {y}" for x, y in [*corners, corners[0]])
    middle = f"POLYGON(({ring}))"
    options: dict[str, Any] = {"aoi": middle, "aoi_crs": "EPSG:32632"}
    run("map.tif", probabilities=tmp_path / "p.tif", probabilities_type="uint8", **options)
    nothing = pixels(tmp_path / "map.tif") == 255
    assert 0.1 < nothing.mean() < 0.9
    for band in range(1, len(CLASS_NAMES) + 1):
        np.testing.assert_array_equal(pixels(tmp_path / "p.tif", band) == 255, nothing)


def test_probabilities_are_published_with_the_rest_or_not_at_all(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.tif").write_text("mine")
    with pytest.raises(OutputError, match=r"p\.tif: exists"):
        run("map.tif", probabilities=tmp_path / "p.tif")
    assert names(tmp_path) == {"p.tif"}
    monkeypatch.setattr(PackModel, "__call__", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("map.tif", probabilities=tmp_path / "q.tif")
    assert names(tmp_path) == {"p.tif"}


def test_strips_dont_matter_to_probabilities(run: Run, pixels: Pixels, tmp_path: Path, monkeypatch: Any) -> None:
    from gopt_geo.grid import Window
    from gopt_geo.inference import engine

    run("a.tif", probabilities=tmp_path / "ap.tif")
    halves = [Window(0, 0, 90, 64), Window(0, 64, 90, 66)]
    monkeypatch.setattr(engine, "column_strips", lambda window, need, limit: halves)
    run("b.tif", probabilities=tmp_path / "bp.tif", max_memory="8GB")
    for band in range(1, len(CLASS_NAMES) + 1):
        np.testing.assert_array_equal(pixels(tmp_path / "ap.tif", band), pixels(tmp_path / "bp.tif", band))


@pytest.mark.brief
def test_averaging_changes_the_map_and_is_in_its_tags(run: Run, tmp_path: Path) -> None:
    shares, tags = {}, {}
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "flip": {"augment": "flip"},
        "dihedral": {"augment": "dihedral"},
        "sizes": {"scales": (0.75, 1, 1.25)},
    }
    for name, options in kinds.items():
        run(f"{name}.tif", probabilities=tmp_path / f"{name}_p.tif", **options)
        with rasterio.open(tmp_path / f"{name}_p.tif") as file:
            shares[name], tags[name] = file.read(), file.tags()["GOPT_GEO_AUGMENT"]
    assert tags == {
        "plain": "none, scales 1",
        "flip": "flip, scales 1",
        "dihedral": "dihedral, scales 1",
        "sizes": "none, scales 0.75, 1, 1.25",
    }
    for name in ("flip", "dihedral", "sizes"):
        assert np.abs(shares[name] - shares["plain"]).max() > 0.01
        np.testing.assert_allclose(shares[name].sum(axis=0), 1, atol=1e-5)


def test_an_area_gets_what_the_whole_gets_when_averaged(run: Run, pixels: Pixels, scene: Files, tmp_path: Path) -> None:
    options: dict[str, Any] = {"augment": "flip", "scales": (0.75, 1.0), "cloud_mask": scene["clouds"]}
    run("whole.tif", **options)
    with rasterio.open(scene["scene"]) as file:
        left, top = file.bounds.left, file.bounds.top
    box = f"{left + 370},{top - 800},{left + 1100},{top - 240}"
    run("part.tif", aoi=box, aoi_crs="EPSG:32632", **options)
    np.testing.assert_array_equal(pixels(tmp_path / "part.tif"), pixels(tmp_path / "whole.tif")[24:80, 37:110])


def test_memory_knows_of_the_largest_size(run: Run, tmp_path: Path) -> None:
    with pytest.raises(GoptGeoError, match=r"^--scales 20000: batches of 4 tiles of 640000 x 640000 pixels need about"):
        run("map.tif", scales=(1, 20000), batch_size=4)
    plain, averaged = (
        _least_memory(run, tmp_path, options) for options in ({}, {"scales": (1.0, 4.0), "augment": "dihedral"})
    )
    assert averaged > plain


def _least_memory(run: Run, folder: Path, options: dict[str, Any]) -> int:
    """Return the MiB that are asked for, above what the process holds anyway, where the ceiling is far too low."""
    import re

    from gopt_geo import openmap

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openmap, "resident_memory", lambda: 0)
        with pytest.raises(GoptGeoError, match="--max-memory") as caught:
            run("map.tif", max_memory="1MB", **options)
    found = re.search(r"need (\d+) MiB", str(caught.value))
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scales": "0.5,1"}, "--scales: '0.5,1' isn't numbers"),
        ({"scales": (0.5, None)}, "isn't numbers"),
        ({"scales": ()}, "--scales: there are none"),
        ({"augment": "spin"}, "--augment: 'spin' is unknown"),
        ({"probabilities_type": "half"}, "--probabilities-type half: there is no such type"),
    ],
)
def test_options_that_are_none_are_told(run: Run, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(GoptGeoError) as caught:
        run("map.tif", **options)
    assert said in str(caught.value)
    assert names(tmp_path) == set()


def test_an_option_that_there_isnt_is_told(run: Run) -> None:
    with pytest.raises(TypeError, match=r"there is no option 'tilesize'; the options are .*tile_size"):
        run("map.tif", tilesize=3)
