"""What goes wrong while a map is made: told in one line, and nothing stands at the output path."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from gopt_geo.errors import GoptGeoError, SourceError
from gopt_geo.inference.packmodel import PackModel
from gopt_geo.prediction import PredictReport

REPO = Path(__file__).parents[1]
Run = Callable[..., PredictReport]
Files = dict[str, Path]
TILES = {"tile_size": 32, "overlap": 8, "batch_size": 2}


def _in_batch(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> list[int]:
    """Let something happen when a batch, counted from 1, comes; the sizes of all batches that came."""
    usual, sizes = PackModel.__call__, []

    def called(self: PackModel, values: Any, valid: Any, /, *more: Any) -> Any:
        sizes.append(len(next(iter(values.values()))))
        if len(sizes) == number:
            act()
        return usual(self, values, valid, *more)

    monkeypatch.setattr(PackModel, "__call__", called)
    return sizes


def _nothing_left(folder: Path) -> bool:
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("gopt-geo")]
    return not list(folder.iterdir()) and not threads


@pytest.fixture
def copies(scene: Files, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The scene's rasters, to be changed."""
    folder = tmp_path_factory.mktemp("copies")
    return {name: Path(shutil.copy(path, folder)) for name, path in scene.items()}


@pytest.mark.parametrize("which", ["optical", "sar", "cloud_mask"])
def test_a_source_that_changes_while_it_is_read(
    run: Run, copies: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    files = {"optical": copies["scene"], "sar": copies["sar"], "cloud_mask": copies["clouds"]}

    def change() -> None:
        path = files[which]
        content, status = path.read_bytes(), path.stat()
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))

    _in_batch(monkeypatch, 3, change)
    with pytest.raises(SourceError, match="changed while it was read: it has been written to") as caught:
        run("map.tif", "map.gpkg", **files, **TILES)
    assert files[which].name in str(caught.value)
    assert _nothing_left(tmp_path)


def test_a_source_that_is_replaced_after_the_map_and_before_the_preview(
    run: Run, copies: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gopt_geo import prediction

    def replace(_: object) -> tuple[int, ...]:
        Path(shutil.copy2(copies["scene"], copies["scene"].with_suffix(".new"))).replace(copies["scene"])
        return ()

    monkeypatch.setattr(prediction, "write_vectors", replace)
    with pytest.raises(SourceError, match="another file has taken its place"):
        run("map.tif", optical=copies["scene"], preview="map.png", **TILES)
    assert _nothing_left(tmp_path)


def test_memory_that_runs_out_in_mid_run_halves_the_batch_and_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: Callable[..., np.ndarray]
) -> None:
    run("usual.tif", **TILES, confidence="usual_percent.tif")

    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    sizes = _in_batch(monkeypatch, 3, full)
    report = run("map.tif", **TILES, confidence="percent.tif")
    assert sizes[:3] == [2, 2, 2]
    assert set(sizes[3:]) == {1}
    said = "warning: device cpu: out of memory with batches of 2 tiles; went on with 1 at a time"
    assert [notice for notice in report.notices if "out of memory" in notice] == [said]
    # Over batch sizes probabilities agree to 1e-5: a class may change where two are as likely as each other.
    assert (pixels(tmp_path / "map.tif") != pixels(tmp_path / "usual.tif")).mean() < 1e-3
    percent, usual = (pixels(tmp_path / name).astype(int) for name in ("percent.tif", "usual_percent.tif"))
    assert abs(percent - usual).max() <= 1


def test_memory_that_runs_out_twice_is_an_error(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def always(self: PackModel, *_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PackModel, "__call__", always)
    with pytest.raises(GoptGeoError, match=r"^device cpu: out of memory with batches of 1 tile of 32 x 32 pixels"):
        run("map.tif", **TILES)
    assert _nothing_left(tmp_path)


def test_a_file_that_ends_halfway(run: Run, scene: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some rows are written by then."""
    noise = np.random.default_rng(0).uniform(0.1, 0.4, (3, 3000, 40)).astype(np.float32)
    cut = tmp_path.parent / "cut.tif"
    profile = {"driver": "GTiff", "crs": "EPSG:32632", "transform": Affine(10, 0, 600000, 0, -10, 5400000)}
    with rasterio.open(cut, "w", count=3, height=3000, width=40, dtype="float32", **profile) as file:
        file.write(noise)
    os.truncate(cut, cut.stat().st_size * 9 // 10)
    sizes = _in_batch(monkeypatch, 0, lambda: None)
    with pytest.raises(SourceError, match=r"cut\.tif: rows .* can't be read .*; replace the damaged file"):
        run("map.tif", optical=cut, sar=None, optical_bands="1,2,3", **TILES)
    assert len(sizes) > 20
    assert _nothing_left(tmp_path)


PREDICT = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nfrom gopt_geo_cli.main import main; main()"


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
@pytest.mark.parametrize("limit", [200, 3000])
def test_a_disk_that_is_full(scene: Files, tiny_pack_file: Path, tmp_path: Path, limit: int) -> None:
    """A real process whose files can't grow; the first limit is met at once, the other while the COG is written."""
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", PREDICT, "predict", scene["scene"], scene["sar"], "-o", out / "map.tif"]
    options = ["--optical-bands", "red,green,blue", "--device", "cpu", "--tile-size", 64, "--overlap", 16]
    environment = {**os.environ, "PYTHONPATH": f"{REPO}:{REPO / 'cli'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(part) for part in (*command, *options)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "see whether the disk is full, or write elsewhere" in lines[0]
    assert "Traceback" not in done.stderr
    assert list(out.iterdir()) == []
