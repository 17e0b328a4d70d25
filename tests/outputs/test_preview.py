"""The preview picture."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gopt_geo.errors import OutputError
from gopt_geo.outputs.legend import LegendClass
from gopt_geo.outputs.preview import preview

LEGEND = [LegendClass(0, "farmland", "#ffcc00"), LegendClass(7, "a class with rather a long name", "#0000aa")]


def draw(path: Path, **changes: Any) -> Any:
    image = pytest.importorskip("matplotlib.image")
    classes = np.zeros((40, 60), np.uint8)
    classes[:, 30:] = 7
    inputs: dict[str, Any] = {
        "optical": np.random.default_rng(0).random((3, 40, 60)),
        "sar": np.random.default_rng(1).normal(-12, 3, (40, 60)),
        "landcover": classes,
        "reference": classes,
        "legend": LEGEND,
    }
    preview(path, **{**inputs, **changes})
    return image.imread(path)[..., :3]


def share(picture: Any, color: str) -> float:
    rgb = np.frombuffer(bytes.fromhex(color), np.uint8) / 255
    return float(np.mean(np.abs(picture - rgb).max(axis=-1) < 0.01))


@pytest.mark.brief
def test_panels_and_legend(tmp_path: Path) -> None:
    four = draw(tmp_path / "four.png")
    assert share(four, "ffcc00") > 0.15
    assert share(four, "0000aa") > 0.15
    one = draw(tmp_path / "one.png", optical=None, sar=None, reference=None)
    assert one.shape[1] < four.shape[1] / 3


def test_missing_pixels_are_grey_and_dont_spoil_the_stretch(tmp_path: Path) -> None:
    sar = np.full((40, 60), np.nan)
    sar[:20] = np.linspace(-20, -10, 60)
    picture = draw(tmp_path / "a.png", optical=None, sar=sar, reference=None)
    grey = share(picture, "e0e0e0")
    assert 0.1 < grey < 0.4
    assert share(picture, "000000") > 0.004  # black to white: the stretch ignores what is missing


def test_a_long_legend_stays_inside(tmp_path: Path) -> None:
    legend = [LegendClass(i, f"class number {i} with a long name", "#aa0000") for i in range(20)]
    picture = draw(tmp_path / "a.png", legend=legend, optical=None, reference=None)
    assert (picture[:, :2] == 1).all()
    assert (picture[:, -2:] == 1).all()
    assert (picture[-2:] == 1).all()


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(OutputError, match="matplotlib isn't installed"):
        preview(tmp_path / "a.png", None, None, np.zeros((2, 2), np.uint8), None, LEGEND)
