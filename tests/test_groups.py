"""The groups of a scene: from two rasters and a pack to a picture and a table."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gopt_geo
from gopt_geo import groups, packs
from gopt_geo.errors import GoptGeoError, OutputError, PackError, SourceError
from gopt_geo.groups import picture_groups
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.models.backbone import Backbone, demo_backbone_path
from gopt_geo.models.cup import Grouping
from gopt_geo.models.gopt import GoPT
from gopt_geo.outputs.groups import GroupPanel
from gopt_geo.packs import PackMeta, load_model, read_pack, write_pack

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def see(tiny_pack: Path, tmp_path: Path, aligned_scene: dict[str, Path]) -> Run:
    """Run `picture_groups` on the aligned scene of 90 x 130 pixels with the tiny pack: tiles of 32, patches of 8."""

    def call(**changes: Any) -> dict[str, Any]:
        arguments = {"optical": aligned_scene["scene"], "sar": aligned_scene["sar"], "picture": tmp_path / "g.png"}
        return picture_groups(**{**arguments, "pack": tiny_pack, "optical_bands": "red,green,blue", **changes})

    return call


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is handed to the picture, instead of a picture."""
    kept: dict[str, Any] = {}

    def draw(output: Path, optical: Any, sar: Any, panels: Any, count: int, heading: str) -> None:
        kept.update(optical=optical, sar=sar, panels=panels, count=count, heading=heading)
        output.write_bytes(b"picture")

    monkeypatch.setattr(groups, "draw_groups", draw)
    return kept


def numbers_of(panels: list[GroupPanel]) -> list[Any]:
    return [panel.numbers for panel in panels]


@pytest.mark.brief
def test_a_picture_and_a_table_are_made(see: Run, tmp_path: Path) -> None:
    told = see()
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["window"] == [0, 0, 128, 90]  # 3 of 3 tile rows, 4 of 5 tile columns
    assert [(u["layer"], u["modality"]) for u in told["layers"]] == [(1, "sar"), (2, "sar")]
    for usage in told["layers"]:
        assert usage["tokens"] == 16 * 11  # the last row of tokens has 2 of 8 rows of pixels
        assert math.fsum(group["share"] for group in usage["groups"]) == pytest.approx(1)
    assert any("for tests only" in notice for notice in told["notices"])


def test_tokens_are_grouped_as_predict_groups_them(
    see: Run, drawn: dict[str, Any], tiny_pack: Path, aligned_scene: dict[str, Path]
) -> None:
    import rasterio

    pack = read_pack(tiny_pack)
    see(window=(64, 32, 32, 32))
    values, valid = {}, {}
    for name, stem, bands in (("optical", "scene", (1, 2, 3)), ("sar", "sar", (1,))):
        with rasterio.open(aligned_scene[stem]) as file:
            pixels = file.read(bands, window=((32, 64), (64, 96))).astype(np.float32)
            pixels = pixels * np.float32(file.scales[0]) + np.float32(file.offsets[0])
        values[name], valid[name] = torch.from_numpy(pixels)[None], torch.ones(1, 32, 32, dtype=torch.bool)
    groupings: list[Grouping] = []
    with torch.inference_mode():
        PackModel(load_model(pack), pack.meta, 32)(values, valid, groupings=groupings)
    for grouping, numbers in zip(groupings, numbers_of(drawn["panels"]), strict=True):
        assert (numbers == grouping.assignment[0].argmax(dim=0).reshape(4, 4).numpy() + 1).all()


def test_a_window_shows_what_the_whole_scene_shows_there(see: Run, drawn: dict[str, Any], tmp_path: Path) -> None:
    see(window=(0, 0, 130, 90))
    whole, images = numbers_of(drawn["panels"]), (drawn["optical"], drawn["sar"])
    told = see(window=(37, 13, 50, 41), overwrite=True)
    assert told["window"] == [32, 8, 56, 48]  # widened to whole tokens
    for all_of_it, part in zip(whole, numbers_of(drawn["panels"]), strict=True):
        assert (part == all_of_it[1:7, 4:11]).all()
    for all_of_it, part in zip(images, (drawn["optical"], drawn["sar"]), strict=True):
        assert np.array_equal(part, all_of_it[..., 8:56, 32:88], equal_nan=True)
    for usage, part in zip(told["layers"], numbers_of(drawn["panels"]), strict=True):
        counts = np.bincount(part.ravel(), minlength=9)[1:]
        assert usage["tokens"] == part.size
        assert [group["share"] for group in usage["groups"]] == pytest.approx((counts / part.size).tolist())


def test_large_images_are_thinned_on_one_lattice(
    see: Run, drawn: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    see(window=(8, 8, 110, 70))
    full = drawn["sar"]
    monkeypatch.setattr(groups, "_EDGE", 40)
    see(window=(8, 8, 110, 70), overwrite=True)
    assert np.array_equal(drawn["sar"], full[::3, ::3], equal_nan=True)


def test_optical_clouds_leave_the_groups_of_sar_complete(
    see: Run, drawn: dict[str, Any], scene: dict[str, Path]
) -> None:
    told = see(optical=scene["scene"], sar=scene["sar"], cloud_mask=scene["clouds"], window=(0, 0, 128, 88))
    assert np.isnan(drawn["optical"]).any()
    assert np.isfinite(drawn["sar"][8:80, 8:120]).all()
    assert told["layers"][0]["tokens"] == np.count_nonzero(drawn["panels"][0].numbers) >= 14 * 9


def test_tokens_without_sar_belong_to_no_group(
    see: Run, drawn: dict[str, Any], tmp_path: Path, aligned_scene: dict[str, Path]
) -> None:
    half = _half_empty(aligned_scene["sar"], tmp_path)
    told = see(sar=half, window=(0, 0, 128, 88))
    for usage, numbers in zip(told["layers"], numbers_of(drawn["panels"]), strict=True):
        assert (numbers[:, :8] > 0).all()
        assert (numbers[:, 8:] == 0).all()
        assert usage["tokens"] == 8 * 11


def _half_empty(source: Path, folder: Path) -> Path:
    """A SAR raster like the scene's, without data from column 64 on."""
    import rasterio

    with rasterio.open(source) as file:
        pixels, profile = file.read(), file.profile
        unit = file.units
    pixels[:, :, 64:] = np.nan
    with rasterio.open(folder / "half.tif", "w", **profile) as file:
        file.write(pixels)
        file.units = unit
    return folder / "half.tif"


def test_layers_can_be_chosen(see: Run, drawn: dict[str, Any]) -> None:
    told = see(layers=(2,))
    assert [usage["layer"] for usage in told["layers"]] == [2]
    (panel,) = drawn["panels"]
    usage = told["layers"][0]
    assert panel.title == f"layer 2: {usage['used']} of 8 groups used, entropy {usage['entropy']:.2f}"


def test_the_threshold_of_dead_groups_is_two_per_cent(see: Run, drawn: dict[str, Any]) -> None:
    told = see()
    assert told["dead_below"] == 0.02
    for usage in told["layers"]:
        assert usage["dead"] == [group["group"] for group in usage["groups"] if group["share"] < 0.02]
        assert usage["used"] == 8 - len(usage["dead"])


def test_a_pixel_size_far_from_the_packs_is_told(
    see: Run, tiny_pack: Path, tiny_backbone: Backbone, tmp_path: Path
) -> None:
    pack = read_pack(tiny_pack)
    coarse = tmp_path / "coarse.safetensors"
    write_pack(coarse, pack.meta.model_copy(update={"resolution_m": 30.0}), pack.state)
    assert [n for n in see(pack=coarse)["notices"] if "pixels of 10 m" in n and "30 m" in n]


@pytest.mark.parametrize(
    ("window", "layers", "message"),
    [
        ((100, 0, 40, 10), None, "--window 100,0,40,10: it isn't inside the scene, which is 130 pixels wide and 90"),
        ((0, 0, 0, 10), None, "--window 0,0,0,10: it isn't inside"),
        ((-8, 0, 16, 16), None, "--window -8,0,16,16: it isn't inside"),
        (None, (1, 3, 7), "--layers 1,3,7: the model of 'tiny' doesn't prompt layer 3, 7; choose from 1,2"),
        (None, (), "--layers : no layer is named; choose from 1,2"),
    ],
)
def test_a_wrong_option_names_what_would_do(see: Run, tmp_path: Path, window: Any, layers: Any, message: str) -> None:
    with pytest.raises(GoptGeoError) as caught:
        see(window=window, layers=layers)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_window_without_sar_is_refused(see: Run, tmp_path: Path, aligned_scene: dict[str, Path]) -> None:
    half = _half_empty(aligned_scene["sar"], tmp_path)
    for units, meant in (("db", "check --sar-units db:"), (None, "state the right --sar-units:")):
        with pytest.raises(SourceError) as caught:
            see(sar=half, window=(72, 0, 32, 32), sar_units=units)
        said = str(caught.value)
        assert said.startswith(f"{half}: no token has data in --window 72,0,32,32; name another --window, or {meant}")
    assert [path.name for path in tmp_path.iterdir()] == ["half.tif"]


def test_a_window_that_was_not_asked_for_is_not_blamed(
    see: Run, tmp_path: Path, aligned_scene: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    half = _half_empty(aligned_scene["sar"], tmp_path)
    monkeypatch.setattr(groups, "_TILES", 1)  # the middle tile, which lies in the empty half
    with pytest.raises(SourceError) as caught:
        see(sar=half)
    said = str(caught.value)
    assert said.startswith(f"{half}: no token has data in the middle of the scene; name a window with data: --window")


def test_the_window_told_is_inside_the_scene_and_can_be_asked_for(see: Run, drawn: dict[str, Any]) -> None:
    told = see(window=(100, 70, 30, 20))
    assert told["window"] == [96, 64, 34, 26]
    assert "columns 96 to 129, rows 64 to 89 of" in drawn["heading"]
    again = see(window=told["window"], overwrite=True)
    assert (again["window"], again["layers"]) == (told["window"], told["layers"])


def test_the_weights_of_the_backbone_come_from_the_file_that_is_named(
    see: Run, tmp_path: Path, drawn: dict[str, Any]
) -> None:
    missing = tmp_path / "missing.safetensors"
    with pytest.raises(PackError) as caught:
        see(pack=packs.demo_pack_path(), backbone_weights=missing)
    assert str(caught.value).startswith(f"{missing}: there is no such file")
    weights = Path(shutil.copy(demo_backbone_path(), tmp_path / "w.safetensors"))
    assert see(pack=packs.demo_pack_path(), backbone_weights=weights)["layers"]


def _pack(folder: Path, tiny_pack: Path, backbone: Backbone, modalities: list[str], **config: Any) -> Path:
    """A pack like the tiny one, of another configuration."""
    meta = read_pack(tiny_pack).meta
    model = GoPT(backbone, meta.config.model_copy(update=config))
    infos = {name: meta.modalities.get(name, meta.modalities["sar"]) for name in modalities}
    path = folder / "other.safetensors"
    described = {**meta.model_dump(), "config": model.config, "modalities": infos}
    write_pack(path, PackMeta(**described), model.trainable_state())
    return path


@pytest.mark.parametrize(
    ("modalities", "config", "message"),
    [
        (["optical"], {"auxiliary": ()}, "reads optical alone"),
        (["sar"], {"primary": "sar", "auxiliary": ()}, "reads sar alone"),
        (["optical", "sar"], {"cup": "pointwise"}, r"works without groups \(CUP is off: pointwise\)"),
        (["optical", "sar"], {"layers": ()}, "prompts no layer"),
        (["optical", "nir"], {"auxiliary": ("nir",)}, "knows optical, nir, not sar"),
    ],
)
def test_a_pack_without_groups_of_sar_is_refused(
    see: Run,
    tiny_pack: Path,
    tiny_backbone: Backbone,
    tmp_path: Path,
    modalities: list[str],
    config: dict[str, Any],
    message: str,
) -> None:
    other = _pack(tmp_path, tiny_pack, tiny_backbone, modalities, **config)
    with pytest.raises(PackError, match=message) as caught:
        see(pack=other)
    assert str(caught.value).startswith(f"{other}: ")
    assert not (tmp_path / "g.png").exists()


def test_a_soft_assignment_shows_the_likeliest_group(
    see: Run, drawn: dict[str, Any], tiny_pack: Path, tiny_backbone: Backbone, tmp_path: Path
) -> None:
    soft = _pack(tmp_path, tiny_pack, tiny_backbone, ["optical", "sar"], assignment="soft")
    told = see(pack=soft, window=(0, 0, 64, 64))
    assert told["assignment"] == "soft"
    for usage, numbers in zip(told["layers"], numbers_of(drawn["panels"]), strict=True):
        assert usage["tokens"] == numbers.size
        assert numbers.min() >= 1
        assert all(0 < group["token_entropy"] <= 1 for group in usage["groups"])


def test_the_picture_follows_the_rules_of_outputs(see: Run, tmp_path: Path, aligned_scene: dict[str, Path]) -> None:
    with pytest.raises(OutputError, match=r"unknown ending '.jpg'; use one of .png"):
        see(picture=tmp_path / "g.jpg")
    (tmp_path / "g.png").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        see()
    assert (tmp_path / "g.png").read_text() == "mine"
    see(overwrite=True, window=(0, 0, 32, 32))
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["g.png"]


def test_a_failure_leaves_no_picture(see: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(output: Path, *_: Any) -> None:
        output.write_bytes(b"half of a picture")
        raise ZeroDivisionError

    monkeypatch.setattr(groups, "draw_groups", fail)
    with pytest.raises(ZeroDivisionError):
        see()
    assert list(tmp_path.iterdir()) == []


def test_info_joins_the_pair_and_its_groups(tiny_pack: Path, tmp_path: Path, aligned_scene: dict[str, Path]) -> None:
    picture = tmp_path / "g.png"
    told = gopt_geo.info(
        aligned_scene["scene"], aligned_scene["sar"], groups=picture, pack=tiny_pack, optical_bands="1,2,3"
    )
    assert told["kind"] == "scene pair"
    assert told["groups"]["picture"] == str(picture)
    assert picture.is_file()
    assert packs.read_pack(tiny_pack).sha256 == told["groups"]["pack_sha256"]


def test_groups_of_a_single_file_are_refused(tiny_pack: Path, tmp_path: Path, aligned_scene: dict[str, Path]) -> None:
    for alone in (tiny_pack, aligned_scene["scene"]):
        with pytest.raises(GoptGeoError, match="give both: gopt-geo info OPTICAL SAR --groups"):
            gopt_geo.info(alone, groups=tmp_path / "g.png")
    with pytest.raises(SourceError, match="a pack, not a raster"):
        gopt_geo.info(aligned_scene["scene"], tiny_pack, groups=tmp_path / "g.png")


def test_options_of_groups_without_groups_are_refused(aligned_scene: dict[str, Path]) -> None:
    with pytest.raises(GoptGeoError, match=r"--sar-bands: it serves --groups alone"):
        gopt_geo.info(aligned_scene["scene"], aligned_scene["sar"], sar_bands="1")
    with pytest.raises(GoptGeoError, match=r"--pixel-grid: it serves --groups alone"):
        gopt_geo.info(aligned_scene["scene"], aligned_scene["sar"], pixel_grid=True)
    with pytest.raises(GoptGeoError, match=r"--backbone-weights: it serves --groups alone"):
        gopt_geo.info(aligned_scene["scene"], aligned_scene["sar"], backbone_weights=Path("w.pth"))
