"""What info says of packs and scene pairs."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.control
import timm
from affine import Affine

from gopt_geo import description
from gopt_geo.description import describe, describe_pair
from gopt_geo.errors import PackError, SourceError
from gopt_geo.models.backbone import Backbone, load_backbone
from gopt_geo.packs import BackboneRef, demo_pack_path, load_model, read_pack, write_pack


def raster(
    path: Path, transform: Affine | None, shape: tuple[int, int] = (20, 30), crs: str | None = "EPSG:32632"
) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=shape[0],
            width=shape[1],
            count=1,
            dtype="float32",
            crs=crs,
            transform=transform,
        ) as file:
            file.write(np.ones((1, *shape), np.float32))
    return path


def at(col: float, row: float, size: float = 10) -> Affine:
    """A grid whose first corner lies so many pixels of 10 m right of and below the optical one's."""
    return Affine(size, 0, 500000 + 10 * col, 0, -size, 5000000 - 10 * row)


@pytest.fixture
def optical(tmp_path: Path) -> Path:
    return raster(tmp_path / "optical.tif", at(0, 0))


def together(optical: Path, sar: Path) -> dict[str, Any]:
    told = describe_pair(optical, sar)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["kind"] == "scene pair"
    assert told["optical"] == describe(optical)
    assert told["sar"] == describe(sar)
    result: dict[str, Any] = told["together"]
    return result


@pytest.mark.brief
def test_rasters_on_one_grid_need_no_warp(optical: Path, tmp_path: Path) -> None:
    told = together(optical, raster(tmp_path / "sar.tif", at(0, 0)))
    assert told == {
        "same_crs": True,
        "sar_pixels_to_optical": 1.0,
        "overlap_share": 1.0,
        "warp": False,
        "alignment": "pixel on pixel, no warp",
        "notice": None,
        "problem": None,
    }


def test_whole_pixels_apart_is_told_in_rows_and_columns(optical: Path, tmp_path: Path) -> None:
    told = together(optical, raster(tmp_path / "sar.tif", at(-6, -4), (40, 40)))
    assert told["warp"] is False
    assert told["alignment"].endswith("optical row 0, column 0 is SAR row 4, column 6")
    assert told["overlap_share"] == 1


def test_a_fraction_of_a_pixel_or_another_size_needs_one_warp(optical: Path, tmp_path: Path) -> None:
    for transform in (at(0.5, 0), at(0, 0, 20)):
        told = together(optical, raster(tmp_path / "sar.tif", transform))
        assert told["warp"] is True
        assert told["alignment"] == "one warp brings SAR onto the optical grid"
    assert told["sar_pixels_to_optical"] == pytest.approx(2, rel=1e-4)


def test_the_overlap_is_a_share_of_the_optical_grid(optical: Path, tmp_path: Path) -> None:
    assert together(optical, raster(tmp_path / "sar.tif", at(10, 5), (200, 200)))["overlap_share"] == 0.5


def test_another_crs_is_followed(scene: dict[str, Path]) -> None:
    told = together(scene["scene"], scene["sar"])
    assert (told["same_crs"], told["warp"]) == (False, True)
    assert told["overlap_share"] == pytest.approx(1, abs=0.05)


def test_rasters_of_other_ground_are_described_all_the_same(optical: Path, tmp_path: Path) -> None:
    told = together(optical, raster(tmp_path / "sar.tif", at(1000, 0)))
    assert told["problem"].startswith(f"{tmp_path / 'sar.tif'}: it doesn't overlap with {optical}")
    assert (told["overlap_share"], told["warp"], told["alignment"]) == (None, None, None)


def test_a_missing_crs_is_the_problem(optical: Path, tmp_path: Path) -> None:
    bare = raster(tmp_path / "bare.tif", None, crs=None)
    assert "only one of the grids has a CRS" in together(optical, bare)["problem"]
    both = together(bare, raster(tmp_path / "twin.tif", None, crs=None))
    assert both["same_crs"] is None
    assert both["problem"].endswith("or lay pixel on pixel: gopt-geo predict --pixel-grid")
    other = raster(tmp_path / "other.tif", None, (5, 5), crs=None)
    assert "--pixel-grid" not in together(bare, other)["problem"]


def test_a_raster_placed_by_control_points(optical: Path, tmp_path: Path) -> None:
    def placed(name: str, corners: tuple[tuple[int, int], ...]) -> Path:
        path = raster(tmp_path / name, None, crs=None)
        with rasterio.open(path, "r+") as file:
            points = [rasterio.control.GroundControlPoint(r, c, 9 + c / 1e3, 45 - r / 1e3) for r, c in corners]
            file.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
        return path

    whole = placed("placed.tif", ((0, 0), (0, 30), (20, 0), (20, 30)))
    assert describe(whole)["placed_by"] == "4 ground control points"
    told = together(whole, whole)
    assert (told["problem"], told["warp"]) == (None, True)
    few = placed("few.tif", ((0, 0), (0, 30)))
    assert together(optical, few)["problem"].startswith(f"{few}: 2 ground control points, 3 to 4000 can place it")


def test_one_file_given_twice_is_noticed(optical: Path, tmp_path: Path) -> None:
    (tmp_path / "link.tif").symlink_to(optical)
    for again in (optical, tmp_path / "link.tif"):
        assert together(optical, again)["notice"] == f"{optical} is given twice, as the optical and as the SAR raster"


@pytest.mark.parametrize("name", ["renamed.tif", "renamed.pth", "renamed"])
def test_a_pack_is_known_by_its_content(optical: Path, tmp_path: Path, name: str) -> None:
    renamed = Path(shutil.copy(demo_pack_path(), tmp_path / name))
    assert describe(str(renamed))["kind"] == "prompt pack"
    with pytest.raises(SourceError, match="a pack, not a raster"):
        describe_pair(optical, renamed)
    renamed.write_bytes(renamed.read_bytes()[:-1])
    with pytest.raises(PackError, match="not a whole safetensors file"):
        describe(renamed)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tile_size": 136}, "tile_size is 136, it must be a multiple of its backbone's patch, 16;"),
        ({"layers": (1, 12)}, "config.layers names 12, it must be 1 to 11: its backbone has 12 layers;"),
    ],
)
def test_a_pack_that_contradicts_its_backbone_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = _on("timm:vit_base_patch16_224.mae", tmp_path)
    pack = read_pack(path)
    if "layers" in changes:
        changes = {"config": pack.meta.config.model_copy(update=changes)}
    write_pack(path, pack.meta.model_copy(update=changes), pack.state)
    with pytest.raises(PackError) as caught:
        describe(path)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_a_pair_is_two_rasters(optical: Path) -> None:
    with pytest.raises(SourceError, match="a pack, not a raster"):
        describe_pair(optical, demo_pack_path())
    with pytest.raises(SourceError, match="no such file"):
        describe_pair(optical, optical.with_name("missing.tif"))


def _on(identity: str, folder: Path) -> Path:
    """The demo pack, as if made for another backbone."""
    pack = read_pack(demo_pack_path())
    path = folder / "other.safetensors"
    write_pack(path, pack.meta.model_copy(update={"backbone": BackboneRef(id=identity, sha256="0" * 64)}), pack.state)
    return path


def test_a_pack_counts_what_was_trained_and_what_was_not() -> None:
    told = describe(demo_pack_path())
    model = load_model(read_pack(demo_pack_path()))
    assert told["trained_parameters"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert told["frozen_parameters"] == sum(p.numel() for p in model.backbone.parameters())
    assert told["trained_share"] == pytest.approx(
        told["trained_parameters"] / sum(p.numel() for p in model.parameters()), abs=1e-6
    )


@pytest.mark.parametrize(
    ("identity", "frozen"),
    [
        ("timm:vit_base_patch16_224.mae", 85_798_656),
        ("timm:vit_large_patch16_224.mae", 303_301_632),
        ("timm:no_such_model", None),
        ("torchgeo:No_Weights.AT_ALL", None),
        ("elsewhere:vit", None),
    ],
)
def test_a_pack_is_described_without_its_backbones_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: str, frozen: int | None
) -> None:
    create = timm.create_model

    def without_weights(name: str, pretrained: bool = False, **arguments: Any) -> Any:
        assert not pretrained
        model = create(name, pretrained=pretrained, **arguments)
        assert all(parameter.is_meta for parameter in model.parameters())
        return model

    monkeypatch.setattr(timm, "create_model", without_weights)
    told = describe(_on(identity, tmp_path))
    assert told["frozen_parameters"] == frozen
    assert told["trained_parameters"] == describe(demo_pack_path())["trained_parameters"]
    assert (told["trained_share"] is None) == (frozen is None)
    assert told["backbone"]["id"] == identity


def test_torchgeos_backbones_are_counted_with_their_channels(tmp_path: Path) -> None:
    path = _on("torchgeo:ViTSmall16_Weights.SENTINEL2_ALL_DINO", tmp_path)
    with pytest.raises(PackError, match="brings pixels to 3 channels, and its backbone expects 13"):
        describe(path)
    pack = read_pack(path)
    infos = {
        name: info.model_copy(
            update={"channels": (info.channels[0],) * 13, "mean": (0.0,) * 13, "std": (1.0,) * 13},
        )
        for name, info in pack.meta.modalities.items()
    }
    write_pack(path, pack.meta.model_copy(update={"modalities": infos}), pack.state)
    told = describe(path)
    rgb = describe(_on("timm:vit_small_patch16_224", tmp_path))
    assert told["frozen_parameters"] == rgb["frozen_parameters"] + 10 * 16 * 16 * 384  # 13 channels instead of 3


def test_a_broken_demo_backbone_doesnt_hide_the_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(identity: str) -> Backbone:
        raise PackError(identity, "can't be read", "install gopt-geo again")

    assert describe(demo_pack_path())["frozen_parameters"] == sum(
        p.numel() for p in load_backbone("gopt-geo:demo-vit-p8").parameters()
    )
    monkeypatch.setattr(description, "load_backbone", broken)
    assert describe(demo_pack_path())["frozen_parameters"] is None


def test_a_pack_tells_its_file(tmp_path: Path) -> None:
    copy = Path(shutil.copy(demo_pack_path(), tmp_path / "copy.safetensors"))
    told = describe(copy)
    assert (told["file"], told["bytes"]) == (str(copy), copy.stat().st_size)
    assert told["sha256"] == read_pack(copy).sha256


def test_a_folder_of_bands_is_described_by_its_finest(tmp_path: Path) -> None:
    from safefolder import write_safe

    safe = write_safe(tmp_path)
    told = describe(safe)
    assert told["kind"] == "bands in several files"
    assert told["pixel_size_m"] == pytest.approx(10, rel=1e-3)
    assert [band["name"] for band in told["bands"]] == ["B01", "B02", "B03", "B04", "B8A"]
    assert {band["offset"] for band in told["bands"]} == {-0.1}
    json.dumps(told)
    pair = describe_pair(safe, safe)
    assert pair["together"]["alignment"] == "pixel on pixel, no warp"
