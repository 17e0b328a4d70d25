"""What users get wrong, through the command line: one line that says what to do, exit code 2, nothing left behind."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from gopt_geo.inference.packmodel import PackModel
from gopt_geo.packs import read_pack, write_pack
from gopt_geo_cli.main import app

Files = dict[str, Path]
GDAL_TIFF = {"driver": "GTiff", "crs": "EPSG:32632", "transform": Affine(10, 0, 600000, 0, -10, 5400000)}


def tiff(path: Path, array: np.ndarray, **options: Any) -> Path:
    count, height, width = array.shape
    profile = {**GDAL_TIFF, "count": count, "height": height, "width": width, "dtype": array.dtype, **options}
    with rasterio.open(path, "w", **profile) as file:
        file.write(array)
    return path


@pytest.fixture
def bad(aligned_scene: Files, tiny_pack: Path, tmp_path: Path) -> Callable[..., str]:
    """Run predict in a folder of its own and return its one line: bad(*options, optical=, sar=, out=)."""
    folder = tmp_path / "out"
    folder.mkdir()

    def run(*options: object, optical: Path | None = None, sar: Path | None = None, out: str | Path = "map.tif") -> str:
        here = sorted(p.name for p in folder.rglob("*"))
        given = [str(o) for o in options]
        if "--optical-bands" not in given:
            given += ["--optical-bands", "red,green,blue"] if optical is None else []
        if "--pack" not in given:
            given += ["--pack", str(tiny_pack)]
        if "--device" not in given:
            given += ["--device", "cpu"]
        rasters = [str(optical or aligned_scene["scene"]), str(sar or aligned_scene["sar"])]
        result: Result = CliRunner().invoke(app, ["predict", *rasters, "-o", str(folder / out), *given])
        assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
        lines = [line for line in result.stderr.splitlines() if not line.startswith("predict: mapping")]
        assert len(lines) == 1, result.stderr
        assert result.stdout == ""
        assert lines[0].startswith("error: ")
        assert ": " in lines[0][7:]
        assert "; " in lines[0], "a remedy"
        assert sorted(p.name for p in folder.rglob("*")) == here, "something was left"
        return lines[0]

    return run


@pytest.mark.brief
def test_no_overlap(bad: Callable[..., str], tmp_path: Path) -> None:
    away = tiff(
        tmp_path / "away.tif",
        np.full((1, 90, 130), -12, np.float32),
        transform=Affine(10, 0, 700000, 0, -10, 5400000),
    )
    line = bad(sar=away)
    assert line.startswith(f"error: {away}: it doesn't overlap with ")
    assert "same ground" in line


@pytest.mark.parametrize("which", ["optical", "sar"])
@pytest.mark.parametrize("kind", ["missing", "empty", "text", "folder", "damaged header"])
def test_unreadable(bad: Callable[..., str], tmp_path: Path, aligned_scene: Files, which: str, kind: str) -> None:
    path = tmp_path / "in.tif"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("no raster\nat all\n")
    elif kind == "folder":
        path.mkdir()
    elif kind == "damaged header":
        content = bytearray(aligned_scene["sar"].read_bytes())
        content[4:8] = b"\xff\xff\xff\x7f"
        path.write_bytes(content)
    assert bad(**{which: path}).startswith(f"error: {path}: ")


@pytest.mark.parametrize("which", ["scene", "sar"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_truncated(bad: Callable[..., str], tmp_path: Path, aligned_scene: Files, which: str, share: float) -> None:
    path = tmp_path / f"{which}.tif"
    content = aligned_scene[which].read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    kwargs = {"optical" if which == "scene" else "sar": path}
    line = bad("--optical-bands", "1,2,3", **kwargs)
    assert line.startswith(f"error: {path}: ")


@pytest.mark.parametrize("which", ["optical", "sar"])
def test_truncated_in_the_middle_of_a_large_file(bad: Callable[..., str], tmp_path: Path, which: str) -> None:
    """The damage is found only when tiles far down are read: what was mapped by then doesn't appear."""
    generator = np.random.default_rng(0)
    good = tiff(tmp_path / "good.tif", generator.normal(-12, 1, (3, 1200, 64)).astype(np.float32), tiled=False)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(good.read_bytes()[:-200_000])
    other = tiff(tmp_path / "other.tif", np.full((3, 1200, 64), -12, np.float32))
    files = {"optical": other, "sar": other} | {which: cut}
    line = bad("--optical-bands", "1,2,3", "--sar-bands", "1", **files)
    assert line.startswith(f"error: {cut}: ")


@pytest.mark.parametrize("which", ["optical", "sar"])
def test_all_nodata(bad: Callable[..., str], tmp_path: Path, which: str) -> None:
    path = tiff(tmp_path / "empty.tif", np.zeros((3 if which == "optical" else 1, 90, 130), np.float32), nodata=0)
    line = bad("--sar-units", "db", **{which: path})
    assert line.startswith(f"error: {path}: no pixel carries data")


def test_sar_power_without_a_positive_pixel(bad: Callable[..., str], tmp_path: Path) -> None:
    path = tiff(tmp_path / "db.tif", np.full((1, 90, 130), -12, np.float32))
    assert "not positive" in bad("--sar-units", "power", sar=path)


def test_wrong_number_of_bands(bad: Callable[..., str], aligned_scene: Files, tmp_path: Path) -> None:
    assert "names 2 bands, the pack expects 3" in bad("--optical-bands", "1,2")
    two = tiff(tmp_path / "two.tif", np.full((2, 90, 130), -12, np.float32))
    assert "it has 2 bands, the pack expects 1 (VV); choose with --sar-bands from" in bad(sar=two)
    five = tiff(tmp_path / "five.tif", np.full((5, 90, 130), 0.1, np.float32))
    assert "it has 5 bands, the pack expects 3" in bad(optical=five)


def test_an_image_is_no_cloud_mask(bad: Callable[..., str], aligned_scene: Files) -> None:
    line = bad("--cloud-mask", aligned_scene["sar"])
    assert line.startswith(f"error: {aligned_scene['sar']}: a mask is one band of integers, this has 1 band of float32")
    assert "4 bands of uint16" in bad("--cloud-mask", aligned_scene["scene"])


def test_unknown_bands(bad: Callable[..., str]) -> None:
    line = bad("--optical-bands", "red,green,ultraviolet")
    assert "there is no band 'ultraviolet'" in line
    assert "nir" in line.lower() or "blue" in line
    assert "there is no band" in bad("--optical-bands", "1,2,9")
    assert "there is no band" in bad("--optical-bands", "0,1,2")
    assert "there is no band" in bad("--optical-bands", "²,1,2")
    assert "a band is missing" in bad("--optical-bands", "1,,2")
    assert "a band is missing" in bad("--sar-bands", "")


def test_units_not_stated(bad: Callable[..., str], tmp_path: Path) -> None:
    sar = tiff(tmp_path / "sar.tif", np.full((1, 90, 130), 120, np.uint8))
    assert "--sar-units db|power|amplitude|raw" in bad(sar=sar)
    optical = tiff(tmp_path / "optical.tif", np.full((3, 90, 130), 1200, np.uint16))
    assert "--optical-units dn10000" in bad(optical=optical)


@pytest.mark.brief
def test_optical_and_sar_swapped(bad: Callable[..., str], aligned_scene: Files) -> None:
    swapped = bad(optical=aligned_scene["sar"], sar=aligned_scene["scene"])
    assert "sar.tif: it is SAR (bands VV" in swapped
    assert "and is given as optical; swap OPTICAL and SAR" in swapped
    scene = bad(optical=aligned_scene["scene"], sar=aligned_scene["scene"])
    assert "scene.tif: it is optical (bands red, green, blue, nir), and is given as SAR" in scene


def test_complex_values_where_reflectance_is_wanted(bad: Callable[..., str], tmp_path: Path) -> None:
    slc = tiff(tmp_path / "slc.tif", np.ones((3, 90, 130), np.complex64))
    assert "complex values, as SAR has them" in bad(optical=slc)


@pytest.mark.parametrize(
    ("out", "found"),
    [
        ("nowhere/map.tif", "doesn't exist"),
        ("map.jpg", "unknown ending"),
        ("map", "no ending"),
        (".", "folder"),
    ],
)
def test_output_paths(bad: Callable[..., str], out: str, found: str) -> None:
    assert found in bad(out=out) or out == "."


@pytest.mark.parametrize(
    "remote", ["s3://bucket/map.tif", "/vsis3/bucket/map.tif", "https://host/map.tif", "/vsimem/m.tif"]
)
def test_remote_output(
    aligned_scene: Files, tiny_pack: Path, remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["predict", str(aligned_scene["scene"]), str(aligned_scene["sar"]), "-o", remote])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "is not a local path" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_folder_not_writable(aligned_scene: Files, tiny_pack: Path, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):  # root writes everywhere but here
        folder = Path("/sys")
    if not folder.is_dir():
        pytest.skip("no folder that this user can't write to")
    result = CliRunner().invoke(
        app, ["predict", str(aligned_scene["scene"]), str(aligned_scene["sar"]), "-o", str(folder / "map.tif")]
    )
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error: {folder / 'map.tif'}: can't be written (")


def test_existing_outputs_stay(bad: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for name, option in (("map.tif", None), ("p.tif", "--confidence"), ("v.png", "--preview")):
        (folder / name).write_text("mine")
        line = bad(*([option, folder / name] if option else []), out="map.tif" if option is None else "other.tif")
        assert line == f"error: {folder / name}: exists; use --overwrite or another path"
        assert (folder / name).read_text() == "mine"
    (folder / "side.tif.aux.xml").write_text("mine")
    assert "sidecar side.tif.aux.xml exists" in bad(out="side.tif")


def test_an_existing_map_survives_a_failed_overwrite(bad: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "out" / "map.tif").write_text("mine")
    bad("--overwrite", sar=tmp_path / "missing.tif")
    assert (tmp_path / "out" / "map.tif").read_text() == "mine"


def test_input_as_output(bad: Callable[..., str], aligned_scene: Files) -> None:
    for name in ("scene", "sar"):
        before = aligned_scene[name].read_bytes()
        assert "is also an input" in bad("--overwrite", out=aligned_scene[name])
        assert aligned_scene[name].read_bytes() == before
    assert "named twice" in bad(
        "-o", aligned_scene["scene"].parent / "x.tif", out=aligned_scene["scene"].parent / "x.tif"
    )


def test_pack_for_another_backbone(bad: Callable[..., str], tiny_pack: Path, tmp_path: Path) -> None:
    pack = read_pack(tiny_pack)
    other = tmp_path / "other.safetensors"
    ref = pack.meta.backbone.model_copy(update={"sha256": "0" * 64})
    write_pack(other, pack.meta.model_copy(update={"backbone": ref}), pack.state)
    line = bad("--pack", other)
    assert line.startswith(f"error: {other}: made for backbone tests:tiny with SHA-256 000000000000")
    ref = pack.meta.backbone.model_copy(update={"id": "tests:none"})
    write_pack(other, pack.meta.model_copy(update={"backbone": ref}), pack.state)
    assert "no such backbone" in bad("--pack", other)


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 0x04]) + content[position + 1 :]


@pytest.mark.parametrize("share", [0.0, 0.00005, 0.02, 0.3, 0.6, 0.9999])
def test_pack_with_a_flipped_bit(bad: Callable[..., str], tiny_pack: Path, tmp_path: Path, share: float) -> None:
    content = tiny_pack.read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(flipped(content, int(share * len(content))))
    assert bad("--pack", damaged).startswith(f"error: {damaged}: ")


def test_no_flipped_bit_goes_unnoticed(tiny_pack: Path, tmp_path: Path) -> None:
    """Header, legend, statistics and tensors alike: every place of a pack is under a checksum."""
    from gopt_geo.errors import PackError

    content = tiny_pack.read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    header = 8 + int.from_bytes(content[:8], "little")
    for position in [*range(0, header, 7), *range(header, len(content), len(content) // 40)]:
        damaged.write_bytes(flipped(content, position))
        with pytest.raises(PackError):
            read_pack(damaged)


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "longer", "other tensors", "pickle", "raster"])
def test_not_a_pack(bad: Callable[..., str], tiny_pack: Path, aligned_scene: Files, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "p.safetensors"
    content = tiny_pack.read_bytes()
    if kind == "empty":
        path.touch()
    elif kind == "truncated":
        path.write_bytes(content[:-100])
    elif kind == "longer":
        path.write_bytes(content + b"\0" * 10)
    elif kind == "other tensors":
        save_file(load_file(tiny_pack), path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"run": sys.exit}))
    elif kind == "raster":
        shutil.copyfile(aligned_scene["scene"], path)
    assert bad("--pack", path).startswith(f"error: {path}: ")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError("Unable to allocate 40. GiB for an array"),
    ],
    ids=["device", "cpu", "numpy"],
)
def test_out_of_memory(bad: Callable[..., str], monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(PackModel, "__call__", full)
    line = bad("--batch-size", 8)  # goes on in halves, once
    assert line.startswith("error: device cpu: out of memory with batches of 4 tiles of 32 x 32 pixels; ")
    assert all(option in line for option in ("--batch-size", "--tile-size", "--max-memory"))


def test_out_of_memory_while_the_model_is_moved(bad: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PackModel, "__init__", full)
    assert "out of memory" in bad()


def test_out_of_memory_elsewhere(bad: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    from gopt_geo import prediction

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(prediction, "write_vectors", full)
    assert bad(out="map.gpkg").startswith("error: memory: ")


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta", "", "cpu:x"])
def test_device_that_isnt_there(bad: Callable[..., str], device: str) -> None:
    assert bad("--device", device).startswith(f"error: --device {device}: there is no such device here; ")


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        (["--tile-size", 0], "--tile-size"),
        (["--tile-size", -8], "--tile-size"),
        (["--tile-size", 36], "--tile-size 36"),
        (["--overlap", -1], "--overlap"),
        (["--overlap", 17], "--overlap"),
        (["--batch-size", 0], "--batch-size"),
        (["--threads", 0], "--threads"),
        (["--precision", "fp16"], "--precision fp16"),
        (["--readers", 0], "--readers"),
        (["--resolution", 0], "--resolution"),
        (["--resolution", "nan"], "--resolution"),
        (["--resolution", "1e9"], "--resolution"),
        (["--resolution", "1e-9", "--allow-resolution"], "--resolution"),
        (["--max-memory", "lots"], "--max-memory lots"),
        (["--max-memory", "0"], "--max-memory 0"),
        (["--max-memory", "9" * 400], "--max-memory 999"),
        (["--max-memory", "1MB"], "--max-memory"),
        (["--reference", "labels.tif"], "--reference"),
        (["--grid", "nowhere.tif"], "nowhere.tif"),
        (["--cloud-mask", "nowhere.tif"], "nowhere.tif"),
        (["--preview", "nowhere/view.png"], "nowhere/view.png"),
        (["--preview", "view.jpg"], "view.jpg"),
        (["--confidence", "percent.gpkg"], "percent.gpkg"),
    ],
    ids=lambda value: " ".join(str(v)[:20] for v in value) if isinstance(value, list) else "",
)
def test_options(bad: Callable[..., str], options: list[object], subject: str) -> None:
    assert bad(*options).startswith(f"error: {subject}")


def test_reference_is_checked_before_the_work(
    bad: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PackModel, "__call__", lambda *_: pytest.fail("the work began"))
    view = ["--preview", tmp_path / "out" / "view.png", "--reference"]
    assert bad(*view, tmp_path / "none.tif").startswith(f"error: {tmp_path / 'none.tif'}: ")
    away = tiff(tmp_path / "away.tif", np.ones((1, 9, 9), np.uint8), transform=Affine(10, 0, 0, 0, -10, 0))
    assert "doesn't overlap" in bad(*view, away)
    three = tiff(tmp_path / "three.tif", np.ones((3, 90, 130), np.uint8))
    assert "it has 3 bands" in bad(*view, three)


def test_line_breaks_in_a_name_stay_one_line(bad: Callable[..., str], tmp_path: Path) -> None:
    assert "two lines.tif" in bad(sar=tmp_path / "two\nlines.tif")
