"""docs/evaluation.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gopt_geo.api import predict, simulate_files
from gopt_geo.assessment.calibration import BINS
from gopt_geo.assessment.temperature import TEMPERATURES
from gopt_geo.inference.augmented import SCALES
from gopt_geo.outputs.evaluationfiles import PICTURES

PAGE = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_numbers_of_the_page() -> None:
    sizes = ", ".join(f"{scale:g}" for scale in SCALES[:-1]) + f" and {SCALES[-1]:g}"
    assert sizes in PAGE
    assert f"{BINS} bins of" in PAGE
    assert f"{len(TEMPERATURES)} values of" in PAGE
    assert (TEMPERATURES[0], TEMPERATURES[-1]) == (1 / 8, 8)
    assert all(f"`{name}`" in PAGE for name in PICTURES)


def test_commands_of_the_page_name_options_that_there_are() -> None:
    from typer.testing import CliRunner

    from gopt_geo_cli.main import app

    shown = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200"}).output
    used = set(
        re.findall(r"--[a-z][a-z-]+", "\n".join(line for line in PAGE.splitlines() if "gopt-geo predict" not in line))
    )
    assert used
    assert not {option for option in used if option not in shown}


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    made = simulate_files(tmp_path / "s", seed=9001, size=(96, 128))
    predict(made["scene"], made["sar"], "landcover.tif", confidence="confidence.tif", device="cpu")
    made["labels"].rename("labels.tif")
    assert len(EXAMPLES) == 2
    for example in EXAMPLES:
        exec(compile(example, "docs/evaluation.md", "exec"), {})
    assert "kappa = (OA - pe)" in capsys.readouterr().out
