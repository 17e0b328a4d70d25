"""Real processes: killed, interrupted, held to a ceiling on memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rio_cogeo import cog_validate

REPO = Path(__file__).parents[1]
Files = dict[str, Path]

# The command line with a model that says when its third batch comes, and then takes its time.
SLOW = """
import time
from gopt_geo.inference.packmodel import PackModel
usual, count = PackModel.__call__, 0
def slow(self, values, valid):
    global count
    count += 1
    if count == 3:
        print("third batch", flush=True)
        time.sleep(300)
    return usual(self, values, valid)
PackModel.__call__ = slow
from gopt_geo_cli.main import main
main()
"""
PLAIN = "from gopt_geo_cli.main import main; main()"


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(REPO), str(REPO / "cli")])
    return subprocess.Popen(
        [sys.executable, "-c", code, *(str(a) for a in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def arguments(scene: Files, folder: Path) -> list[object]:
    bands = ["--optical-bands", "red,green,blue", "--batch-size", "1", "--tile-size", "32", "--overlap", "8"]
    products = ["-o", folder / "map.tif", "-o", folder / "map.gpkg", "--confidence", folder / "p.tif"]
    return ["predict", scene["scene"], scene["sar"], *products, *bands, "--device", "cpu"]


@pytest.fixture
def working(scene: Files, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that has reached its third batch."""
    process = start(SLOW, *arguments(scene, tmp_path))
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "third batch\n", process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_kill_leaves_nothing_at_the_paths_and_the_next_run_cleans_up(
    working: subprocess.Popen[str], scene: Files, tmp_path: Path
) -> None:
    other = start(SLOW, *arguments(scene, tmp_path))  # a second run for the same paths, alive all the while
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "third batch\n"
        working.kill()
        working.wait(10)
        left = [path.name for path in tmp_path.iterdir()]
        assert left, "a killed run can't clean up; else this tests nothing"
        assert all(name.startswith(".") for name in left)
        after = start(PLAIN, *arguments(scene, tmp_path))
        out, err = after.communicate(timeout=240)
        assert after.returncode == 0, err
        assert [Path(line).name for line in out.split()] == ["map.tif", "map.gpkg", "p.tif"]
        assert "warning: pack 'demo': demo, trained on simulated scenes" in err
        hidden = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
        assert len(hidden) == 3, "the living run's three folders, and no others"
        other.send_signal(signal.SIGTERM)
        out, err = other.communicate(timeout=60)
        assert other.returncode == 143
        assert err.splitlines()[-1].startswith("error: stopped by SIGTERM")
    finally:
        other.kill()
        other.communicate()
    names = {path.name for path in tmp_path.iterdir()}
    assert names - {"map.tif.aux.xml"} == {"map.tif", "map.gpkg", "p.tif"}
    assert cog_validate(tmp_path / "map.tif", strict=True, quiet=True)[0]


def test_interrupt_stops_at_once_and_leaves_nothing(working: subprocess.Popen[str], tmp_path: Path) -> None:
    assert any(tmp_path.iterdir())
    working.send_signal(signal.SIGINT)
    # The batch at hand would take 300 s. Almost all of the wait is the interpreter's own end, slow on a busy machine.
    out, err = working.communicate(timeout=60)
    assert working.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "error: interrupted by Ctrl-C; nothing was written"
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_bad_input_in_a_real_process(scene: Files, tmp_path: Path) -> None:
    given = arguments(scene, tmp_path)
    given[2] = tmp_path / "none.tif"
    process = start(PLAIN, *given)
    out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (2, "")
    assert err.startswith(f"error: {tmp_path / 'none.tif'}: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# VmHWM, not getrusage's maximum: that one is inherited from the process that started this one.
PEAK = """
import re, sys
from pathlib import Path
from gopt_geo_cli.main import app
try:
    app()
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
    print("peak", int(peak) * 1024, file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads a peak of memory as Linux tells it")
def test_max_memory_holds_for_a_wide_scene(tmp_path: Path) -> None:
    """A scene 20,000 pixels wide, mostly without data, so that it is quick; its accumulators aren't any smaller."""
    width, height = 20_000, 300
    paths = {}
    for name, count, value in (("o", 3, 0.1), ("s", 1, -12.0)):
        paths[name] = tmp_path / f"{name}.tif"
        profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": "float32"}
        profile |= {"crs": "EPSG:32632", "transform": Affine(10, 0, 1e5, 0, -10, 5.4e6), "nodata": -99}
        with rasterio.open(paths[name], "w", tiled=True, compress="deflate", sparse_ok=True, **profile) as file:
            block = np.full((count, height, 256), value, np.float32)
            for col in (0, width // 2, width - 256):
                file.write(block, window=((0, height), (col, col + 256)))

    def run(ceiling: str) -> tuple[int, str]:
        given = [paths["o"], paths["s"], "-o", tmp_path / "map.tif", "--batch-size", 2, "--device", "cpu"]
        process = start(PEAK, "predict", *given, "--max-memory", ceiling)
        _, err = process.communicate(timeout=240)
        return process.returncode, err

    code, err = run("1MB")
    line = err.splitlines()[0]
    assert code == 2
    assert line.startswith("error: --max-memory: 1 MiB are too little for these tiles, which need ")
    assert not (tmp_path / "map.tif").exists()
    # The least that it names is enough; a little more, because another process starts out a little larger or smaller.
    ceiling = int(int(line.split("give at least ")[1].split()[0]) * 1.05)
    code, err = run(f"{ceiling}MiB")
    assert code == 0, err
    assert " column strips, " in err
    assert int(err.rsplit("peak ", 1)[1]) <= ceiling * 2**20
    with rasterio.open(tmp_path / "map.tif") as strips:
        there = strips.read(1) != 255
    filled = np.zeros((height, width), bool)
    for col in (0, width // 2, width - 256):
        filled[:, col : col + 256] = True
    np.testing.assert_array_equal(there, filled)
