"""The command coregister: what it prints, what it hands on, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import gopt_geo
from gopt_geo.simulate import SceneSpec, write_scene
from gopt_geo_cli.main import app


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    paths = {stem: folder / f"{stem}.tif" for stem in ("scene", "sar", "labels", "clouds")}
    write_scene(SceneSpec(seed=6, height=256, width=256), paths)
    return paths["scene"], paths["sar"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    gopt_geo.simulate_files(folder, size=(30, 30))
    return folder / "scene.tif", folder / "sar.tif"


@pytest.mark.brief
def test_the_table_and_the_verdict(pair: tuple[Path, Path]) -> None:
    run = _run("coregister", *pair)
    assert run.exit_code == 0, run.output
    assert run.stdout.startswith("SAR lies ")
    for text in ("points with data", "dx, right", "dy, down", "spread", "confidence", "verdict", "reliable"):
        assert text in run.stdout
    assert "no reliable estimate" not in run.stdout


@pytest.mark.brief
def test_results_go_to_stdout_and_the_table_beside(pair: tuple[Path, Path], tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("moved.tif", "r.json", "p.png")]
    run = _run("coregister", *pair, "-o", files[0], "--json", files[1], "--picture", files[2])
    assert run.exit_code == 0, run.output
    assert run.stdout.splitlines() == [str(path) for path in files]
    assert "verdict" in run.stderr
    assert all(path.is_file() for path in files)
    assert json.loads(files[1].read_text())["reliable"] is True


@pytest.mark.brief
def test_no_reliable_estimate_is_no_fault_unless_sar_shall_be_moved(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    run = _run("coregister", *tiny)
    assert run.exit_code == 0, run.output
    assert run.stdout.startswith("no reliable estimate: ")
    run = _run("coregister", *tiny, "-o", tmp_path / "moved.tif", "--json", tmp_path / "r.json")
    assert run.exit_code == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: ")
    assert "no reliable estimate" in line
    assert list(tmp_path.iterdir()) == []


def test_options_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from gopt_geo import api

    seen: dict[str, Any] = {}

    def record(*args: Any, **kwargs: Any) -> None:
        seen.update(args=args, **kwargs)
        raise gopt_geo.errors.GoptGeoError("x", "y", "z")

    monkeypatch.setattr(api, "coregister", record)
    options = {
        "--json": "r.json",
        "--picture": "p.png",
        "--points": "25",
        "--search": "20",
        "--optical-bands": "3,2,1",
        "--sar-bands": "VV",
        "--optical-units": "byte",
        "--sar-units": "amplitude",
        "--sensor": "sentinel-2-l2a",
        "--sar-sensor": "sentinel-1-rtc",
        "--cloud-mask": "c.tif",
        "--cloud-mask-kind": "scl",
    }
    flat = [part for item in options.items() for part in item]
    assert _run("coregister", "o.tif", "s.tif", "-o", "m.tif", *flat, "--pixel-grid", "--overwrite").exit_code == 2
    assert seen.pop("args") == ("o.tif", "s.tif", Path("m.tif"))
    assert seen == {
        "json_file": Path("r.json"),
        "picture": Path("p.png"),
        "points": 25,
        "search": 20,
        "optical_bands": "3,2,1",
        "sar_bands": "VV",
        "optical_units": "byte",
        "sar_units": "amplitude",
        "sensor": "sentinel-2-l2a",
        "sar_sensor": "sentinel-1-rtc",
        "cloud_mask": "c.tif",
        "cloud_mask_kind": "scl",
        "pixel_grid": True,
        "overwrite": True,
    }


@pytest.mark.brief
@pytest.mark.parametrize("options", [["--points", "2"], ["--search", "1000"], ["-o", "x.png"], ["--sar-bands", "9"]])
def test_bad_input_is_one_line(pair: tuple[Path, Path], options: list[str]) -> None:
    run = _run("coregister", *pair, *options)
    assert run.exit_code == 2
    assert len(run.stderr.splitlines()) == 1
    assert run.stderr.startswith("error: ")
