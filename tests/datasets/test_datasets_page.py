"""The examples of docs/datasets.md run as they are written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from gopt_geo.datasets.registry import DATASETS, dataset_class

ROOT = Path(__file__).parents[2]


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/datasets.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    said = capsys.readouterr().out
    assert "layout B found" in said
    assert "'validity_depth': (32, 48)" in said
    assert said.endswith("1 6e-05\n")
    assert (tmp_path / "sample.png").stat().st_size > 10_000


def test_page_names_every_data_set() -> None:
    page = (ROOT / "docs/datasets.md").read_text("utf-8")
    for name in DATASETS:
        kind = dataset_class(name)
        assert f"| `{name}` | `{kind.__name__}` |" in page
        assert kind.classes is None or f"| {len(kind.classes)} |" in page
