"""The command sample: what it hands on, what it says, and how it fails."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import geopandas
import pytest
from typer.testing import CliRunner

import gopt_geo
from gopt_geo.samples import SampleReport, StratumReport
from gopt_geo_cli.main import app

SAMPLE_SCENE = Path(__file__).parents[2] / "sample_tiles" / "labels.tif"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    made: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def sample(*args: Any, **kwargs: Any) -> SampleReport:
        made.append((args, kwargs))
        strata = (StratumReport(3, "road [wide]", 900, 90_000.0, 50), StratumReport(7, "water", 100, None, 20))
        return SampleReport(args[1], strata, 41, ("warning: a\nwarning", "more"))

    module = types.ModuleType("gopt_geo.api")
    module.sample = sample
    monkeypatch.setitem(sys.modules, "gopt_geo.api", module)
    monkeypatch.setattr(gopt_geo, "api", module, raising=False)
    return made


@pytest.mark.brief
def test_defaults_and_what_is_said(calls) -> None:
    run = CliRunner().invoke(app, ["sample", "m.tif", "-o", "s.gpkg", "-n", "70"])
    assert run.exit_code == 0, run.output
    ((args, kwargs),) = calls
    assert args == (Path("m.tif"), Path("s.gpkg"))
    assert callable(kwargs.pop("progress"))
    assert kwargs == {
        "n": 70,
        "target_se": None,
        "expected_accuracy": None,
        "allocation": "olofsson",
        "minimum": None,
        "aoi": None,
        "aoi_crs": None,
        "shape": "point",
        "blind": False,
        "seed": 0,
        "overwrite": False,
    }
    assert run.stdout == "s.gpkg\n"
    lines = [" ".join(line.replace("│", " ").split()) for line in run.stderr.splitlines()]
    assert lines[:2] == ["warning: a warning", "note: more"]
    enough = "note: 41 units reach the target standard error, if accuracies are as expected; each class's minimum"
    assert lines[2].startswith(enough)
    assert "3 road [wide] 900 9.00 50" in lines
    assert "7 water 100 - 20" in lines


def test_options(calls) -> None:
    texts = {"--target-se": "0.02", "--expected-accuracy": "water=0.9,0.8", "--allocation": "equal", "--minimum": "9"}
    texts |= {"--aoi": "1,2,3,4", "--aoi-crs": "EPSG:32632", "--shape": "pixel", "--seed": "5"}
    flat = [part for pair in texts.items() for part in pair]
    run = CliRunner().invoke(app, ["sample", "m.tif", "--output", "s.fgb", *flat, "--blind", "--overwrite"])
    assert run.exit_code == 0, run.output
    ((_, kwargs),) = calls
    del kwargs["progress"]
    assert kwargs == {
        "n": None,
        "target_se": 0.02,
        "expected_accuracy": "water=0.9,0.8",
        "allocation": "equal",
        "minimum": 9,
        "aoi": "1,2,3,4",
        "aoi_crs": "EPSG:32632",
        "shape": "pixel",
        "blind": True,
        "seed": 5,
        "overwrite": True,
    }


@pytest.mark.parametrize("wrong", [["--allocation", "optimal"], ["--shape", "disc"], ["-n", "many"]], ids=" ".join)
def test_unknown_choices(calls, wrong: list[str]) -> None:
    assert CliRunner().invoke(app, ["sample", "m.tif", "-o", "s.gpkg", *wrong]).exit_code == 2
    assert calls == []


def test_for_real(tmp_path: Path) -> None:
    output = tmp_path / "s.gpkg"
    run = CliRunner().invoke(app, ["sample", str(SAMPLE_SCENE), "-o", str(output), "-n", "400", "--seed", "2"])
    assert run.exit_code == 0, run.output
    assert run.stdout == f"{output}\n"
    first = geopandas.read_file(output)
    again = CliRunner().invoke(app, ["sample", str(SAMPLE_SCENE), "-o", str(output), "-n", "400", "--seed", "2"])
    assert again.exit_code == 2
    assert again.stderr.splitlines()[-1] == f"error: {output}: exists; use --overwrite or another path"
    other = tmp_path / "t.parquet"
    CliRunner().invoke(app, ["sample", str(SAMPLE_SCENE), "-o", str(other), "-n", "400", "--seed", "2"])
    assert geopandas.read_parquet(other)[["row", "col"]].equals(first[["row", "col"]].astype("int64"))
    few = CliRunner().invoke(app, ["sample", str(SAMPLE_SCENE), "-o", str(tmp_path / "u.gpkg"), "-n", "40"])
    assert few.exit_code == 2
    assert few.stderr.splitlines()[-1].startswith("error: -n: 40 units don't suffice for 7 strata of at least 50")
    assert not (tmp_path / "u.gpkg").exists()
