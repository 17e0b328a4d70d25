"""docs/configuration.md says what the models say, and its examples are read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from configpage import PAGE, rendered
from gopt_geo.modelfaults import keys_of
from gopt_geo.training.config import TrainConfig
from gopt_geo.training.configfile import read_train_config
from gopt_geo_cli.trainoptions import KEYS


@pytest.mark.brief
def test_tables_are_those_of_the_models() -> None:
    page = PAGE.read_text("utf-8")
    assert page == rendered(page), "write them anew: python tests/configpage.py"
    for key in keys_of(TrainConfig):
        assert f"| `{key[-1]}` | " in page


def test_every_option_is_listed() -> None:
    page = PAGE.read_text("utf-8")
    for name, key in KEYS.items():
        assert f"| `--{name.replace('_', '-')}` | `{key}` |" in page


@pytest.mark.brief
def test_examples_are_read(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        (tmp_path / "x.yaml").write_text(example)
        assert read_train_config(tmp_path / "x.yaml").output is not None


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out == "50\n"
