"""Commands that need no model, run for real: simulate, evaluate, info."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gopt_geo_cli.main import app


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.brief
def test_simulate_evaluate_and_info(tmp_path: Path) -> None:
    scene, scores = tmp_path / "scene", tmp_path / "scores.json"
    made = _run("simulate", "-o", scene, "--seed", "3", "--size", "64x96")
    assert made.exit_code == 0, made.output
    assert {Path(line).name for line in made.stdout.split()} == {"scene.tif", "sar.tif", "labels.tif", "clouds.tif"}
    assert all(Path(line).is_file() for line in made.stdout.split())

    again = _run("simulate", "-o", scene, "--seed", "4", "--size", "64x96")
    assert again.exit_code == 2
    assert again.stderr.startswith("error: ")
    assert "--overwrite" in again.stderr
    assert again.stderr.count("\n") == 1

    compared = _run("evaluate", scene / "labels.tif", "--reference", scene / "labels.tif", "--json", scores)
    assert compared.exit_code == 0, compared.output
    assert "mIoU 1.0000" in compared.stdout
    assert json.loads(scores.read_text())["scores"]["overall_accuracy"] == 1

    told = _run("info", scene / "scene.tif", "--json")
    assert (json.loads(told.stdout)["height"], json.loads(told.stdout)["width"]) == (64, 96)


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    run = _run("info", tmp_path / "missing.tif")
    assert run.exit_code == 2
    assert run.stderr.startswith(f"error: {tmp_path / 'missing.tif'}: ")
    assert run.stderr.count("\n") == 1


def test_info_of_an_image_without_a_place_is_quiet(tmp_path: Path) -> None:
    import warnings

    import numpy as np
    import rasterio

    path = tmp_path / "image.png"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver="PNG", height=4, width=5, count=1, dtype="uint8") as file:
            file.write(np.ones((1, 4, 5), dtype="uint8"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert CliRunner().invoke(app, ["info", str(path)]).exit_code == 0
