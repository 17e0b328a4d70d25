"""What docs/accuracy-assessment.md says runs as it is written, and names options that there are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import geopandas
import pytest
import typer

from gopt_geo_cli.main import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/accuracy-assessment.md").read_text("utf-8")


def test_the_python_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "sample_tiles/labels.tif", tmp_path / "landcover.tif")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    draw, estimate = block.split("found = ")
    names: dict[str, object] = {}
    exec(draw, names)
    units = geopandas.read_file("sample.gpkg")
    units["reference"] = units["stratum"]
    units.to_file("sample.gpkg", layer="sample")
    exec("found = " + estimate, names)
    assert names["found"].estimates.overall == 1.0  # type: ignore[attr-defined]


def test_the_options_exist() -> None:
    group = typer.main.get_command(app)
    there = {option for name in ("sample", "evaluate") for p in group.commands[name].params for option in p.opts}
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) <= there


def test_the_fields_are_those_of_a_sample(tmp_path: Path) -> None:
    import gopt_geo

    gopt_geo.sample(ROOT / "sample_tiles/labels.tif", tmp_path / "s.gpkg", n=400)
    table = PAGE[PAGE.index("| field |") : PAGE.index("Each row holds")]
    told = re.findall(
        r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    )
    fields = [field for field in geopandas.read_file(tmp_path / "s.gpkg").columns if field != "geometry"]
    assert sorted(told) == sorted(fields)
