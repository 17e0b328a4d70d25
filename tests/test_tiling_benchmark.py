"""The benchmark of tiles runs, and docs/tiling.md shows its figures."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarkmodule import load_benchmark

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/tiling.md").read_text("utf-8")
RESULTS = json.loads((ROOT / "benchmarks/results/tiling.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def tiling() -> ModuleType:
    return load_benchmark("tiling")


def test_it_measures_shows_writes_and_draws(
    tiling: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("EDGE", 192), ("MARGIN", 32), ("CORE", slice(32, 160)), ("OVERLAPS", (0.0, 0.5))):
        monkeypatch.setattr(tiling, name, value)
    files = tmp_path / "t.json", tmp_path / "t.png"
    tiling.main(["--scenes", "1", "--only", "64", "--json", str(files[0]), "--figure", str(files[1])])
    assert "near borders" in capsys.readouterr().out
    rows = {(row["overlap"], row["blend"]): row for row in json.loads(files[0].read_text())["rows"]}
    assert set(rows) == {(0.0, "hann"), *((0.5, kind) for kind in tiling.BLENDS)}
    assert rows[0.5, "hann"]["near_borders"] < rows[0.0, "hann"]["near_borders"]
    assert rows[0.5, "hann"]["near_borders"] != rows[0.5, "none"]["near_borders"], "blended anew, of the same tiles"
    assert rows[0.5, "hann"]["seconds_per_megapixel"] == rows[0.5, "none"]["seconds_per_megapixel"]
    assert all(0 < row["miou"] <= 1 for row in rows.values())
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_distances_to_the_borders_of_tiles(tiling: ModuleType) -> None:
    away = tiling.border_distance(tiling.Setting(128, 0.25))  # tiles begin at 0, 96, 192, ... and are 128 wide
    edges = sorted({start + end for start in range(0, 768, 96) for end in (0, 128)})
    wanted = [min(abs(128 + i + 0.5 - edge) for edge in edges) for i in range(512)]
    np.testing.assert_allclose(away.min(axis=1), np.minimum(wanted, min(wanted)))
    np.testing.assert_allclose(away.max(axis=1), np.minimum(wanted, max(wanted)))


def test_the_page_shows_what_was_measured() -> None:
    rows = {(r["tile"], r["overlap"], r["blend"], r["averaged"]): r for r in RESULTS["rows"]}
    shown = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.count("|") == 9
    ]
    shown = [cells for cells in shown if cells[0].isdigit()]
    assert len(shown) > 12
    for tile, overlap, blend, averaged, *figures in shown:
        row = rows[int(tile), float(overlap), "hann" if blend == "-" else blend, averaged]
        keys = (("seconds_per_megapixel", 2), ("near_borders", 4), ("interior", 4), ("miou", 3))
        assert figures == [f"{row[key]:.{digits}f}" for key, digits in keys]
    plain = rows[128, 0.25, "hann", "none"]
    for averaged in ("none; sizes 0.75, 1, 1.25", "flip", "dihedral"):
        row = rows[128, 0.25, "hann", averaged]
        gain = f"{row['miou'] - plain['miou']:.3f}"
        ratio = f"{row['seconds_per_megapixel'] / plain['seconds_per_megapixel']:.1f} times"
        assert gain in PAGE
        assert ratio in PAGE
    for overlap in (0.0, 0.25, 0.5):
        assert f"{rows[128, overlap, 'hann', 'none']['excess']:.3f}" in PAGE


def test_the_defaults_are_those_that_are_recommended() -> None:
    from gopt_geo.maprequest import MapRequest
    from gopt_geo.packs import demo_pack_path, read_pack

    defaults = MapRequest.__dataclass_fields__
    assert (defaults["blend"].default, defaults["augment"].default, defaults["scales"].default) == (
        "hann",
        "none",
        (1.0,),
    )
    meta = read_pack(demo_pack_path()).meta
    assert (meta.tile_size, meta.overlap) == (RESULTS["tile_size"], RESULTS["overlap"]) == (128, 32)


def test_options_of_the_page_are_there() -> None:
    import re

    from typer.testing import CliRunner

    from gopt_geo_cli.main import app

    shown = CliRunner().invoke(app, ["predict", "--help"], env={"COLUMNS": "200"}).output
    used = set(re.findall(r"--[a-z][a-z-]+", PAGE)) - {"--pack", "--config", "--flip"}  # of evaluate
    assert len(used) > 7
    assert not {option for option in used if option not in shown}
