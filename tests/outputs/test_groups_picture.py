"""The picture of groups."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gopt_geo.errors import OutputError
from gopt_geo.outputs.groups import GroupPanel, _places, draw_groups, group_colors


def draw(path: Path, *numbers: Any, **changes: Any) -> Any:
    image = pytest.importorskip("matplotlib.image")
    panels = [GroupPanel(f"layer {i}: 2 of 3 groups used, entropy 0.5", n) for i, n in enumerate(numbers, 1)]
    draw_groups(path, **{"optical": None, "sar": None, "panels": panels, "groups": 3, **changes})
    return image.imread(path)[..., :3]


def pixels(picture: Any, color: str) -> Any:
    rgb = np.frombuffer(bytes.fromhex(color.removeprefix("#")), np.uint8) / 255
    return np.abs(picture - rgb).max(axis=-1) < 0.01


def halves() -> Any:
    numbers = np.full((20, 30), 1)
    numbers[:, 15:] = 3
    return numbers


@pytest.mark.brief
def test_each_group_has_its_colour_and_tokens_are_square(tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png", halves())
    first, second, third = (pixels(picture, color) for color in group_colors(3))
    assert first.mean() == pytest.approx(third.mean(), rel=0.05)
    assert second.mean() < 0.01  # in the legend alone
    rows, cols = np.nonzero(third[:, picture.shape[1] // 2 :])
    assert np.ptp(rows) / np.ptp(cols) == pytest.approx(20 / 15, rel=0.02)


def test_tokens_without_data_are_hatched(tmp_path: Path) -> None:
    numbers = halves()
    numbers[:, :15] = 0
    picture = draw(tmp_path / "a.png", numbers)
    grey = pixels(picture, "#e0e0e0")
    left = grey[:, : picture.shape[1] // 2]
    assert left.mean() > 0.2
    lines = pixels(picture, "#a6a6a6")[:, : picture.shape[1] // 2]
    assert lines.mean() > 0.005
    assert not pixels(picture, group_colors(3)[0])[: picture.shape[0] // 2].any()


def test_images_are_shown_beside_and_missing_pixels_are_no_black(tmp_path: Path) -> None:
    sar = np.full((40, 60), np.nan, np.float32)
    sar[:20] = np.linspace(-20, -10, 60)
    optical = np.random.default_rng(0).random((3, 40, 60), dtype=np.float32)
    alone = draw(tmp_path / "a.png", halves())
    three = draw(tmp_path / "b.png", halves(), optical=optical, sar=sar)
    assert three.shape[1] > 1.9 * alone.shape[1]
    assert pixels(three, "#e0e0e0").mean() > 3 * pixels(alone, "#e0e0e0").mean()
    empty = draw(tmp_path / "c.png", halves(), optical=np.full_like(optical, np.nan), sar=None)
    assert empty.shape == alone.shape


def test_a_large_group_carries_its_number_and_a_speckled_one_none(tmp_path: Path) -> None:
    speckled = np.where(np.indices((20, 30)).sum(axis=0) % 2, 1, 3)
    dark = group_colors(3)[0]
    told, untold = draw(tmp_path / "a.png", halves()), draw(tmp_path / "b.png", speckled)
    for picture, written in ((told, True), (untold, False)):
        rows, _ = np.nonzero(pixels(picture, dark))
        panel = picture[rows.min() + 3 : rows.min() + 380, 21:-21]
        assert pixels(panel, "#ffffff").any() == written


@pytest.mark.brief
def test_with_many_groups_each_that_occurs_carries_its_number() -> None:
    numbers = np.random.default_rng(0).permutation(np.arange(64 * 64) % 39 + 1).reshape(64, 64)
    numbers[:20, :20], numbers[numbers == 5] = 40, 6
    assert [number for number, *_ in _places(numbers, every=False)] == [40]
    placed = _places(numbers, every=True)
    assert [number for number, *_ in placed] == [n for n in range(1, 41) if n != 5]
    for number, row, col, roomy in placed:
        assert numbers[int(row), int(col)] == number
        assert roomy == (number == 40)


@pytest.mark.parametrize("count", [2, 8, 10, 11, 40, 64])
def test_colours_are_distinct_and_none_is_the_grey_of_missing_data(count: int) -> None:
    colors = group_colors(count)
    rgb = np.array([list(bytes.fromhex(color[1:])) for color in colors], dtype=int)
    assert len(set(colors)) == count
    apart = np.abs(rgb[:, None] - rgb[None]).sum(axis=-1) + 999 * np.eye(count, dtype=int)
    assert apart.min() >= (60 if count <= 10 else 12)
    assert (np.ptp(rgb, axis=1) > 25).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 90), (90, 2)], ids=str)
def test_odd_windows_and_many_groups_stay_inside(tmp_path: Path, shape: tuple[int, int]) -> None:
    numbers = np.arange(shape[0] * shape[1]).reshape(shape) % 40 + 1
    picture = draw(tmp_path / "a.png", numbers, numbers, groups=40, heading="a long heading " * 12)
    assert max(picture.shape) < 6000
    for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]):
        assert (edge == 1).all()


def test_without_matplotlib_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(OutputError, match=r"gopt-geo\[report\]"):
        draw_groups(tmp_path / "a.png", None, None, [GroupPanel("", halves())], 3)
