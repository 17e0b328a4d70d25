"""The examples of docs/geodatasets.md and docs/splits.md run as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def example(page: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    return code


@pytest.mark.brief
def test_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    exec(example("geodatasets.md"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    for shape in (
        "'optical': (8, 3, 128, 128)",
        "'sar': (8, 1, 128, 128)",
        "'validity_sar': (8, 128, 128)",
        "'mask': (8, 128, 128)",
        "'bounds': (8, 4)",
        "'transform': (8, 6)",
    ):
        assert shape in first


def test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    exec(example("splits.md"), {})
    said = capsys.readouterr().out
    assert "the buffer of 32 pixels costs" in said
    assert re.search(r"^\d{3} tiles to train on, \d+ to validate on$", said, re.MULTILINE)
    assert (tmp_path / "split.png").stat().st_size > 10_000
