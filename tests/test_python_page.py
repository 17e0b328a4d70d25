"""The examples of docs/python.md run as they are written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gopt_geo import lazymap
from gopt_geo.api import simulate_files

PAGE = (Path(__file__).parent.parent / "docs" / "python.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GOPT_GEO_PACK", raising=False)
    simulate_files(tmp_path / "scene", seed=9001, size=(100, 128))
    names: dict[str, Any] = {}
    assert len(EXAMPLES) == 3
    for example in EXAMPLES:
        exec(compile(example, "docs/python.md", "exec"), names)
    assert names["part"].window.row_stop == 100  # of the last rows
    assert names["water"].shape == (100, 128)
    assert "warning: pack" in capsys.readouterr().out


def test_numbers_of_the_page() -> None:
    assert f"blocks of {lazymap.CHUNK} pixels" in PAGE
    assert f"smaller than {lazymap.CHUNK} " in PAGE
