"""The verbs as functions: paths as texts, and arguments that make no sense."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gopt_geo
from gopt_geo.errors import GoptGeoError, OutputError
from gopt_geo.models.baselines import build_model
from gopt_geo.models.config import GoptConfig
from gopt_geo.packs import demo_pack_path
from gopt_geo.paths import as_paths
from gopt_geo.prediction import predict

Files = dict[str, Path]


@pytest.mark.brief
def test_paths_may_be_texts(scene: Files, tiny_pack: Path, tmp_path: Path, pixels: Callable[..., np.ndarray]) -> None:
    optical, sar, mask, labels = (str(scene[name]) for name in ("scene", "sar", "clouds", "labels"))
    to = {name: str(tmp_path / name) for name in ("a.tif", "a.gpkg", "c.tif", "p.png", "v.fgb", "g.png")}
    options: dict[str, Any] = {"pack": str(tiny_pack), "optical_bands": "1,2,3"}
    report = gopt_geo.predict(
        optical,
        sar,
        [to["a.tif"], to["a.gpkg"]],
        confidence=to["c.tif"],
        preview=to["p.png"],
        cloud_mask=mask,
        reference=labels,
        device="cpu",
        **options,
    )
    assert report.outputs == tuple(tmp_path / name for name in ("a.tif", "a.gpkg", "c.tif", "p.png"))
    assert gopt_geo.vectorize(to["a.tif"], to["v.fgb"], confidence=to["c.tif"]) == report.polygons
    assert gopt_geo.evaluate(to["a.tif"], labels).matrix.sum() > 0
    assert gopt_geo.info(to["a.tif"])["kind"] == "raster"
    assert gopt_geo.info(str(demo_pack_path()))["kind"] == "prompt pack"
    assert (
        gopt_geo.info(optical, sar, groups=to["g.png"], cloud_mask=mask, **options)["groups"]["picture"] == to["g.png"]
    )
    made = gopt_geo.simulate_files(str(tmp_path / "made"), size=(8, 8))
    assert made["scene"] == tmp_path / "made" / "scene.tif"


@pytest.mark.brief
def test_a_single_result_may_be_named_alone(scene: Files, tiny_pack: Path, tmp_path: Path) -> None:
    for output in (str(tmp_path / "q.tif"), tmp_path / "r.tif"):
        report = gopt_geo.predict(
            scene["scene"], scene["sar"], output, pack=tiny_pack, optical_bands="1,2,3", device="cpu"
        )
        assert report.outputs == (Path(output),)
    assert as_paths("q.tif") == (Path("q.tif"),)
    assert as_paths(["q.tif", Path("r")]) == (Path("q.tif"), Path("r"))


def test_an_extent_that_is_none_is_told(scene: Files, tiny_pack: Path, tmp_path: Path) -> None:
    with pytest.raises(GoptGeoError, match=r"--extent both: no such extent; use optical, intersection, union"):
        predict(scene["scene"], scene["sar"], tmp_path / "q.tif", extent="both", pack=tiny_pack)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"window": "0,0,8,8"},
            "--window: '0,0,8,8' isn't 4 whole numbers; give 4 whole numbers, such as (0, 0, 512, 512)",
        ),
        ({"window": (0, 0, 8)}, "--window: (0, 0, 8) isn't 4 whole numbers"),
        ({"window": (0, 0, 8.5, 8)}, "--window: (0, 0, 8.5, 8) isn't 4 whole numbers"),
        ({"window": 3}, "--window: 3 isn't 4 whole numbers"),
        ({"layers": "1,2"}, "--layers: '1,2' isn't whole numbers; give whole numbers, such as (1, 2)"),
        ({"layers": 2}, "--layers: 2 isn't whole numbers"),
        ({"layers": [True]}, "--layers: [True] isn't whole numbers"),
    ],
)
def test_numbers_that_are_none_are_told(
    scene: Files, tiny_pack: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(GoptGeoError) as caught:
        gopt_geo.info(scene["scene"], scene["sar"], groups=tmp_path / "g.png", pack=tiny_pack, **options)
    assert str(caught.value).startswith(said)


def test_numbers_of_numpy_are_numbers(scene: Files, tiny_pack: Path, tmp_path: Path) -> None:
    told = gopt_geo.info(
        scene["scene"],
        scene["sar"],
        groups=tmp_path / "g.png",
        pack=tiny_pack,
        optical_bands="1,2,3",
        window=np.array([32, 32, 16, 16]),  # type: ignore[arg-type]
        layers=np.array([2]),
    )
    assert told["groups"]["window"] == [32, 32, 16, 16]
    assert [layer["layer"] for layer in told["groups"]["layers"]] == [2]


def test_a_method_that_is_none_is_told(tiny_backbone: Any) -> None:
    with pytest.raises(ValueError, match=r"no method 'goptt'; use gopt, rgb_only, sar_only, early_fusion, vipt, vpt"):
        build_model("goptt", tiny_backbone, GoptConfig(classes=3))  # type: ignore[arg-type]


def test_a_file_in_place_of_a_folder_is_told(tmp_path: Path, scene: Files) -> None:
    for path in (scene["scene"] / "a.fgb", scene["scene"] / "more" / "a.fgb"):
        with pytest.raises(OutputError, match=r"scene\.tif is a file, not a folder; choose a folder"):
            gopt_geo.vectorize(scene["labels"], path)
    with pytest.raises(OutputError, match=r"the folder .*/nowhere doesn't exist"):
        gopt_geo.vectorize(scene["labels"], tmp_path / "nowhere" / "a.fgb")


def test_too_few_bands_are_told_by_their_number(scene: Files, tiny_pack: Path, tmp_path: Path) -> None:
    with pytest.raises(GoptGeoError, match=r"--optical-bands names 2 bands, the pack expects 3 .*; name 3 bands$"):
        gopt_geo.predict(scene["scene"], scene["sar"], tmp_path / "q.tif", pack=tiny_pack, optical_bands="1,2")
